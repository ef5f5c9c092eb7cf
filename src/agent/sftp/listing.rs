//! The lines of `ls -l`, and the names in them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::{FileType, Stat};

/// A user database larger than this is not read to its end.
const MAX_DATABASE: u64 = 1024 * 1024;

/// Half of a mean year: files older than this are listed with their year, as `ls` does.
const RECENT: i64 = 31_556_952 / 2;

/// The names of users and groups.
#[derive(Debug)]
pub struct Accounts {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Accounts {
    /// From the system's files: the binary is static, so there is no name service to ask.
    pub fn read() -> Accounts {
        Accounts {
            users: parse(&read_database(Path::new("/etc/passwd"))),
            groups: parse(&read_database(Path::new("/etc/group"))),
        }
    }

    pub fn user(&self, id: u32) -> Option<&str> {
        self.users.get(&id).map(String::as_str)
    }

    pub fn group(&self, id: u32) -> Option<&str> {
        self.groups.get(&id).map(String::as_str)
    }
}

/// The file's text; nothing if it cannot be read, for then ids are shown.
fn read_database(path: &Path) -> String {
    let mut content = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(MAX_DATABASE).read_to_end(&mut content);
    }
    String::from_utf8_lossy(&content).into_owned()
}

/// Names by id: users and groups alike have the name first, the id third.
fn parse(database: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in database.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok())) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// The line of `ls -l`, its time in UTC.
pub fn line(name: &[u8], stat: &Stat, accounts: &Accounts, now: i64) -> Vec<u8> {
    let user = accounts.user(stat.st_uid).map_or_else(|| stat.st_uid.to_string(), str::to_owned);
    let group = accounts.group(stat.st_gid).map_or_else(|| stat.st_gid.to_string(), str::to_owned);
    let mut line = Vec::with_capacity(name.len() + 64);
    // Writing to a vector cannot fail.
    let _ = write!(
        line,
        "{} {:4} {user:8} {group:8} {:8} {} ",
        mode(stat.st_mode),
        stat.st_nlink,
        stat.st_size,
        date(stat.st_mtime, now),
    );
    line.extend_from_slice(name);
    line
}

fn mode(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, mark) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => mark,
            (false, true) => mark.to_ascii_uppercase(),
        });
    }
    text
}

fn date(time: i64, now: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, seconds) = (time.div_euclid(86_400), time.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let month = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"???");
    if time > now || now - time > RECENT {
        format!("{month} {day:2} {year:5}")
    } else {
        format!("{month} {day:2} {:02}:{:02}", seconds / 3600, seconds / 60 % 60)
    }
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years that begin in March have their leap day last, so months count without exceptions.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_in_ls() {
        assert_eq!(mode(0o100_644), "-rw-r--r--");
        assert_eq!(mode(0o041_777), "drwxrwxrwt");
        assert_eq!(mode(0o104_755), "-rwsr-xr-x");
        assert_eq!(mode(0o102_644), "-rw-r-Sr--");
        assert_eq!(mode(0o120_777), "lrwxrwxrwx");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_513), (2026, 3, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
    }

    #[test]
    fn old_and_future_files_are_listed_with_their_year() {
        let time = 951_868_799; // 2000-02-29 23:59:59
        assert_eq!(date(time, time + 60), "Feb 29 23:59");
        assert_eq!(date(time, time + RECENT + 1), "Feb 29  2000");
        assert_eq!(date(time, time - 1), "Feb 29  2000");
    }

    #[test]
    fn the_first_name_of_an_id_counts_and_nonsense_is_passed_over() {
        let names = parse("root:x:0:0::/root:/bin/sh\n\n# none\ntoor:x:0:\nbad:x:y\ndev:x:1000:1000\n");
        assert_eq!(names.len(), 2);
        assert_eq!(names[&0], "root");
        assert_eq!(names[&1000], "dev");
    }
}
