//! What the kernel says of mounts, proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// As statx(2) has it.
    pub id: u64,
    /// Where it is, as the process whose `mountinfo` this is sees it.
    pub point: PathBuf,
    /// Whether its owners are mapped.
    pub idmapped: bool,
    /// The file system's type, `ext4`, `fuse.sshfs`.
    pub file_system: String,
}

/// Reads `mountinfo`; lines that make no sense are left out.
pub fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = unescape(fields.nth(3)?).into();
    let idmapped = fields.next()?.split(|&byte| byte == b',').any(|option| option == b"idmapped");
    fields.find(|field| *field == b"-")?;
    let file_system = unescape(fields.next()?).to_string_lossy().into_owned();
    Some(Mount { id, point, idmapped, file_system })
}

/// Blanks, newlines and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        text.push(octal.unwrap_or(first));
        rest = if octal.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    OsString::from_vec(text)
}

/// The mounts at or below a path, in the order in which they were made.
pub fn below<'a>(mounts: &'a [Mount], path: &std::path::Path) -> impl Iterator<Item = &'a Mount> {
    let path = path.as_os_str().as_bytes().to_vec();
    mounts.iter().filter(move |mount| {
        mount
            .point
            .as_os_str()
            .as_bytes()
            .strip_prefix(path.as_slice())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || path == b"/")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EXAMPLE: &[u8] = b"\
36 35 98:0 /mnt1 /mnt/a\\040b\\134 rw,noatime,idmapped master:1 - ext3 /dev/root rw,errors=continue
37 36 0:52 / /mnt/a\\040b\\134/s rw,relatime - fuse.sshfs host:/x rw
38 35 0:53 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw
no sense
";

    #[test]
    fn lines_are_read_and_unescaped() {
        let mounts = parse(EXAMPLE);
        assert_eq!(mounts.len(), 3);
        assert_eq!(
            mounts[0],
            Mount { id: 36, point: "/mnt/a b\\".into(), idmapped: true, file_system: "ext3".into() }
        );
        assert!(!mounts[1].idmapped);
        assert_eq!(mounts[1].file_system, "fuse.sshfs");
    }

    #[test]
    fn below_goes_by_whole_components() {
        let mounts = parse(EXAMPLE);
        let ids = |path: &str| below(&mounts, Path::new(path)).map(|mount| mount.id).collect::<Vec<_>>();
        assert_eq!(ids("/mnt/a b\\"), [36, 37]);
        assert_eq!(ids("/"), [36, 37, 38]);
        assert_eq!(ids("/mnt/a"), [0; 0]);
    }
}
