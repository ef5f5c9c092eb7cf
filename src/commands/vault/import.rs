use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use zeroize::Zeroizing;

use super::add::{self, Source, above};
use super::keeper::{Keeper, KeeperArgs};
use super::opening::read_file;
use super::passphrase::PassphraseArgs;
use crate::context::Context;
use crate::error::{Context as _, Error, Kind, Result};
use crate::link::inside;
use crate::vault::archive::Packer;
use crate::vault::legacy;
use crate::vault::tree::{Kind as EntryKind, Skipped, stays_inside};
use crate::vault::variables;

/// A vault of the old kind is not larger, in bytes.
const LARGEST_LEGACY: u64 = 1 << 30;

/// Bring secrets from elsewhere into the open vault: a vault of the old kind, a directory, a file of variables.
///
/// Nothing is written to a disk, and what is imported stays where it is: remove it when `tazpod vault lock` has saved it here.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file or directory.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// What it is; by what it looks like if left out.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// The directory of the vault that it goes to.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    open: KeeperArgs,
}

/// What can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// An encrypted archive of tazpod's predecessor: AES-256-GCM of a tar.gz. Takes its passphrase.
    Legacy,
    /// All that is in a directory.
    Directory,
    /// Lines of NAME=VALUE. As `.env` of the vault it is in the environment of new sessions.
    Env,
}

impl Format {
    fn of(path: &Path) -> Result<Format> {
        if path.is_dir() {
            return Ok(Format::Directory);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".env") || name.starts_with(".env.") {
            return Ok(Format::Env);
        }
        if name.ends_with(".aes") || name.ends_with(".enc") {
            return Ok(Format::Legacy);
        }
        Err(Error::new(Kind::Usage, format!("`{}` does not look like anything to import", path.display()))
            .hint(
                "`--format legacy|directory|env` says what it is; `tazpod vault add` takes any file as it is",
            ))
    }
}

impl Args {
    /// Imports it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let format = self.format.map_or_else(|| Format::of(&self.path), Ok)?;
        let to = add::destination(self.to.as_deref())?;
        let open = self.open.find(context).await?;
        match format {
            Format::Directory => {
                let failed = |source| Error::io("read", &self.path, source);
                let real = std::fs::canonicalize(&self.path).map_err(failed)?;
                add::add(context, &open, vec![Source::all_of(&real, &to)?], self.force).await
            }
            Format::Env => import_variables(context, &open, &self.path, &to, self.force).await,
            Format::Legacy if inside::socket().is_some() => {
                Err(Error::new(Kind::Usage, "a vault of the old kind is imported on the host")
                    .hint("its passphrase is for no pod to see"))
            }
            Format::Legacy => {
                let sealed = read_file(context, &self.path, LARGEST_LEGACY).await?;
                let prompt = "passphrase of the old vault: ";
                let opened = |passphrase: &_| legacy::open(&sealed, passphrase);
                let archive = self.passphrase.try_with(context, prompt, legacy::WRONG, opened).await?;
                archived(context, &open, archive, to, self.force).await
            }
        }
    }
}

/// A file of variables, once each of its lines is one.
async fn import_variables(
    context: &Context,
    open: &Keeper,
    path: &Path,
    to: &Path,
    force: bool,
) -> Result<()> {
    let text = read_file(context, path, variables::LARGEST).await?;
    let found = variables::read(text.as_slice(), &path.display().to_string())?;
    if text.contains(&b'$') {
        context.ui.warn("a `$` in a value begins a variable's name, unless the value is in single quotes");
    }
    let (name, directories) = (to.join(variables::NAME), above(to));
    open.add(context, force, &[], move |into| {
        let mut packer = Packer::new(into)?;
        for directory in &directories {
            packer.put(directory, &EntryKind::Directory, 0o700, (0, 0), std::io::empty())?;
        }
        let kind = EntryKind::File(text.len() as u64);
        packer.put(&name, &kind, 0o600, (now_s(), 0), text.as_slice())?;
        packer.finish()
    })
    .await?;
    if to.as_os_str().is_empty() {
        let names: Vec<_> = found.into_keys().collect();
        context.ui.status(format!("variables of new sessions: {}", names.join(", ")));
    }
    Ok(())
}

/// What is in a tar archive, as far as a vault has such things.
async fn archived(
    context: &Context,
    open: &Keeper,
    archive: Zeroizing<Vec<u8>>,
    to: PathBuf,
    force: bool,
) -> Result<()> {
    // First, so that nothing is begun that cannot be ended.
    let (members, skipped) = members(&archive)?;
    open.add(context, force, &skipped, move |into| {
        let mut packer = Packer::new(into)?;
        for directory in above(&to) {
            packer.put(&directory, &EntryKind::Directory, 0o700, (0, 0), std::io::empty())?;
        }
        for (path, Member { kind, mode, modified, data }) in members {
            let data = archive.get(data).unwrap_or_default();
            packer.put(&to.join(path), &kind, mode, (modified, 0), data)?;
        }
        packer.finish()
    })
    .await
}

/// Something in a tar archive.
#[derive(Clone, Debug)]
struct Member {
    kind: EntryKind,
    mode: u32,
    /// In seconds since 1970.
    modified: i64,
    /// Where a file's bytes are in the archive.
    data: Range<usize>,
}

/// What is in a tar archive, and what is not taken. As tar does it: of those with the same name the last counts, and a hard link is
/// what it leads to. In the order of paths each directory comes before what is in it.
fn members(archive: &[u8]) -> Result<(BTreeMap<PathBuf, Member>, Vec<Skipped>)> {
    let damaged = || "the old vault's archive is damaged";
    let mut found: BTreeMap<PathBuf, Member> = BTreeMap::new();
    let mut skipped = Vec::new();
    for entry in tar::Archive::new(archive).entries().context(Kind::Integrity, damaged)? {
        let entry = entry.context(Kind::Integrity, damaged)?;
        let named = entry.path().context(Kind::Integrity, damaged)?.into_owned();
        let Some(path) = plain(&named) else {
            skipped.push(Skipped::lost(named, "it leads elsewhere"));
            continue;
        };
        if path.as_os_str().is_empty() {
            continue;
        }
        let target = entry.link_name().context(Kind::Integrity, damaged)?.unwrap_or_default().into_owned();
        let mut member = Member {
            kind: EntryKind::Directory,
            mode: entry.header().mode().unwrap_or(0o600) & 0o777,
            modified: i64::try_from(entry.header().mtime().unwrap_or_default()).unwrap_or_default(),
            data: 0..0,
        };
        match entry.header().entry_type() {
            tar::EntryType::Directory => {}
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let start = entry.raw_file_position();
                let range = |at: u64| usize::try_from(at).ok().filter(|at| *at <= archive.len());
                let data = range(start).zip(start.checked_add(entry.size()).and_then(range));
                let cut = || Error::new(Kind::Integrity, damaged());
                member.data = data.map(|(start, end)| start..end).ok_or_else(cut)?;
                member.kind = EntryKind::File(entry.size());
            }
            tar::EntryType::Link => {
                let same = plain(&target).and_then(|target| found.get(&target));
                let Some(same) = same.filter(|same| matches!(same.kind, EntryKind::File(_))) else {
                    let why = format!("a link to `{}`, which is no file before it", target.display());
                    skipped.push(Skipped::lost(named, why));
                    continue;
                };
                member = same.clone();
            }
            tar::EntryType::Symlink if stays_inside(&path, &target) => member.kind = EntryKind::Link(target),
            tar::EntryType::Symlink => {
                let why = format!("a link to `{}`, outside the vault", target.display());
                skipped.push(Skipped::unwanted(named, why));
                continue;
            }
            tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block => {
                skipped.push(Skipped::unwanted(named, "neither file, directory nor link"));
                continue;
            }
            // Its globals are about its entries' owners and comments.
            tar::EntryType::XGlobalHeader => continue,
            _ => {
                skipped.push(Skipped::lost(named, "of a kind that is not known here"));
                continue;
            }
        }
        found.insert(path, member);
    }
    let mut whole: BTreeMap<PathBuf, Member> = BTreeMap::new();
    for (path, member) in found {
        let mut lies_nowhere = false;
        for directory in above(path.parent().unwrap_or(Path::new(""))) {
            let made = Member { kind: EntryKind::Directory, mode: 0o700, modified: 0, data: 0..0 };
            lies_nowhere |= whole.entry(directory).or_insert(made).kind != EntryKind::Directory;
        }
        if lies_nowhere {
            skipped.push(Skipped::lost(path, "what it lies in is no directory"));
        } else {
            whole.insert(path, member);
        }
    }
    Ok((whole, skipped))
}

/// A name of an archive without what leads nowhere: `./x` and `/x` are `x`. Nothing where it leads upwards.
fn plain(path: &Path) -> Option<PathBuf> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
    parts.map(|part| matches!(part, Component::Normal(_)).then_some(part)).collect()
}

fn now_s() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_taken_as_tar_takes_it() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |kind, path: &str, target: &str, data: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o640);
            header.set_mtime(5);
            header.set_size(data.len() as u64);
            // By hand: the library writes no such paths.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            archive.append(&header, data.as_bytes()).unwrap();
        };
        use tar::EntryType::{Block, Directory, Link, Regular, Symlink};
        add(Regular, "./d/token", "", "old");
        add(Link, "hard", "d/token", "");
        add(Regular, "/d/token", "", "newer");
        add(Link, "nowhere", "missing", "");
        add(Symlink, "way", "d", "");
        add(Symlink, "out", "/etc", "");
        add(Block, "device", "", "");
        add(Regular, "../up", "", "x");
        add(Regular, "way/x", "", "x");
        add(Directory, "e", "", "");
        add(tar::EntryType::new(b'Z'), "strange", "", "x");
        let archive = archive.into_inner().unwrap();
        let (members, skipped) = members(&archive).unwrap();
        let found: Vec<_> = members
            .iter()
            .map(|(path, member)| {
                let data = std::str::from_utf8(&archive[member.data.clone()]).unwrap();
                (path.to_str().unwrap(), &member.kind, member.mode, data)
            })
            .collect();
        let link = EntryKind::Link("d".into());
        assert_eq!(
            found,
            [
                ("d", &EntryKind::Directory, 0o700, ""),
                ("d/token", &EntryKind::File(5), 0o640, "newer"),
                ("e", &EntryKind::Directory, 0o640, ""),
                ("hard", &EntryKind::File(3), 0o640, "old"),
                ("way", &link, 0o640, ""),
            ]
        );
        let skipped: Vec<_> =
            skipped.iter().map(|skipped| (skipped.path.to_str().unwrap(), skipped.lost)).collect();
        let expected = [("nowhere", true), ("out", false), ("device", false), ("../up", true)];
        assert_eq!(skipped, [&expected[..], &[("strange", true), ("way/x", true)]].concat());
        // Cut amid a file, and amid a header.
        for end in [512 + 2, 600] {
            assert_eq!(super::members(&archive[..end]).unwrap_err().kind(), Kind::Integrity, "{end}");
        }
    }
}
