use std::io::{Cursor, Read as _};
use std::path::{Component, Path, PathBuf};

use zeroize::Zeroizing;

use super::add::{self, Source, above};
use super::keeper::{Keeper, KeeperArgs};
use super::passphrase::PassphraseArgs;
use crate::context::Context;
use crate::error::{Context as _, Error, Kind, Result};
use crate::link::inside;
use crate::vault::archive::Packer;
use crate::vault::legacy;
use crate::vault::tree::{Kind as EntryKind, stays_inside};
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
                let sealed = read(&self.path, LARGEST_LEGACY)?;
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
    let text = read(path, variables::LARGEST)?;
    let found = variables::read(text.as_slice(), &path.display().to_string())?;
    if text.contains(&b'$') {
        context.ui.warn("a `$` in a value begins a variable's name, unless the value is in single quotes");
    }
    let (name, directories) = (to.join(variables::NAME), above(to));
    open.add(context, force, move |into| {
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
    let mut skipped = Vec::new();
    // Once to see what is in it, so that nothing is begun that cannot be ended.
    entries(&archive, &to, &mut skipped, |_, _, _, _, _| Ok(()))?;
    skipped.iter().for_each(|skipped| context.ui.warn(skipped));
    open.add(context, force, move |into| {
        let mut packer = Packer::new(into)?;
        for directory in above(&to) {
            packer.put(&directory, &EntryKind::Directory, 0o700, (0, 0), std::io::empty())?;
        }
        entries(&archive, &to, &mut Vec::new(), |name, kind, mode, modified, data| {
            packer.put(name, &kind, mode, modified, data)
        })?;
        packer.finish()
    })
    .await
}

type Take<'t> = &'t mut dyn std::io::Read;

/// Gives each entry that a vault can have to `take`; a directory comes before what is in it, and nothing comes twice.
fn entries(
    archive: &[u8],
    to: &Path,
    skipped: &mut Vec<String>,
    mut take: impl FnMut(&Path, EntryKind, u32, (i64, u32), Take<'_>) -> Result<()>,
) -> Result<()> {
    let damaged = || "the old vault's archive is damaged";
    let mut seen = std::collections::BTreeSet::new();
    let mut archive = tar::Archive::new(Cursor::new(archive));
    for entry in archive.entries().context(Kind::Integrity, damaged)? {
        let mut entry = entry.context(Kind::Integrity, damaged)?;
        let path = entry.path().context(Kind::Integrity, damaged)?.into_owned();
        // As other programs write names: `./x`, `/x`.
        let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
        let plain: PathBuf = parts.collect();
        if plain.as_os_str().is_empty() {
            continue;
        }
        if !plain.components().all(|part| matches!(part, Component::Normal(_))) {
            skipped.push(format!("`{}` is not imported: it leads elsewhere", path.display()));
            continue;
        }
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => EntryKind::Directory,
            tar::EntryType::Regular | tar::EntryType::Continuous => EntryKind::File(entry.size()),
            tar::EntryType::Symlink => {
                let target =
                    entry.link_name().context(Kind::Integrity, damaged)?.unwrap_or_default().into_owned();
                if !stays_inside(&plain, &target) {
                    skipped.push(format!("`{}` is not imported: a link to outside", path.display()));
                    continue;
                }
                EntryKind::Link(target)
            }
            _ => {
                skipped
                    .push(format!("`{}` is not imported: neither file, directory nor link", path.display()));
                continue;
            }
        };
        for directory in above(plain.parent().unwrap_or(Path::new(""))) {
            if seen.insert(directory.clone()) {
                take(&to.join(&directory), EntryKind::Directory, 0o700, (0, 0), &mut std::io::empty())?;
            }
        }
        if !seen.insert(plain.clone()) {
            if kind != EntryKind::Directory {
                skipped.push(format!("`{}` is in the archive twice: the first is taken", path.display()));
            }
            continue;
        }
        let mode = entry.header().mode().unwrap_or(0o600) & 0o777;
        let modified = i64::try_from(entry.header().mtime().unwrap_or_default()).unwrap_or_default();
        take(&to.join(&plain), kind, mode, (modified, 0), &mut entry)?;
    }
    Ok(())
}

fn now_s() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// A file of secrets, whole.
fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |source| Error::io("read", path, source);
    let file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len().min(limit) + 1;
    // Of the right size at once: what is moved to a larger place leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default()));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(Kind::Usage, format!("`{}` is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}
