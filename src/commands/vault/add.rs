use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::keeper::{Keeper, KeeperArgs};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::vault::archive::Packer;
use crate::vault::tree::{Entry, Kind as EntryKind, LONGEST_PATH, Root, Skipped, Tree};

/// Put files and directories into the open vault.
///
/// They go there encrypted, and are saved at once. In plaintext they then lie where you have them alone: remove them there
/// yourself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files and directories of this machine.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The directory of the vault that they go to.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    open: KeeperArgs,
}

impl Args {
    /// Adds them.
    pub async fn run(self, context: &Context) -> Result<()> {
        let to = destination(self.to.as_deref())?;
        let sources: Vec<Source> =
            self.paths.iter().map(|path| Source::named(path, &to)).collect::<Result<_>>()?;
        let open = self.open.find(context).await?;
        add(context, &open, sources, self.force).await
    }
}

/// Packs them into an open vault.
///
/// # Errors
/// What the vault's keeper refuses.
pub async fn add(context: &Context, open: &Keeper, sources: Vec<Source>, force: bool) -> Result<()> {
    let mut names = BTreeSet::new();
    for (entry, name) in sources.iter().flat_map(|source| &source.entries) {
        if !names.insert(name) && entry.kind != EntryKind::Directory {
            return Err(Error::new(Kind::Usage, format!("two of these would be `{}`", name.display()))
                .hint("add them one by one, with `--to DIR`"));
        }
    }
    let skipped: Vec<Skipped> = sources.iter().flat_map(|source| source.skipped.clone()).collect();
    open.add(context, force, &skipped, move |into| {
        let mut packer = Packer::new(into)?;
        let mut made = BTreeSet::new();
        sources.iter().try_for_each(|source| source.pack(&mut packer, &mut made))?;
        packer.finish()
    })
    .await
}

/// A directory of the vault, as the user named it.
///
/// # Errors
/// [`Kind::Usage`] where it leads out of the vault.
pub fn destination(named: Option<&Path>) -> Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in named.unwrap_or(Path::new("")).components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            _ => {
                return Err(Error::new(Kind::Usage, "the directory must be one below the vault's own root")
                    .hint("as `--to .aws`"));
            }
        }
    }
    Ok(plain)
}

/// What is packed: something below `root`, under other names.
pub struct Source {
    root: Root,
    /// Directories that come first.
    directories: Vec<PathBuf>,
    entries: Vec<(Entry, PathBuf)>,
    skipped: Vec<Skipped>,
}

impl Source {
    /// A file, or a directory with all that is in it, under its own name in `to`.
    fn named(path: &Path, to: &Path) -> Result<Source> {
        let failed = |source| Error::io("read", path, source);
        // `.` and `..` have no name of their own, and a link means what it leads to.
        let real = std::fs::canonicalize(path).map_err(failed)?;
        let own = real.file_name().unwrap_or(OsStr::new("root"));
        let name = match path.components().next_back() {
            Some(Component::Normal(name)) => name,
            _ => own,
        };
        let to = to.join(name);
        if real.is_dir() {
            return Source::all_of(&real, &to);
        }
        let root = Root::open(real.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
        let entry = Entry::of(&root, Path::new(own)).map_err(failed)?;
        if !matches!(entry.kind, EntryKind::File(_)) {
            let what = format!("`{}` is neither file nor directory", path.display());
            return Err(Error::new(Kind::Usage, what));
        }
        let directories = above(to.parent().unwrap_or(Path::new("")));
        Ok(Source { root, directories, entries: vec![(entry, to)], skipped: Vec::new() })
    }

    /// What is in a directory, directly below `to`.
    ///
    /// # Errors
    /// Where it cannot be listed.
    pub fn all_of(path: &Path, to: &Path) -> Result<Source> {
        let failed = |source| Error::io("read", path, source);
        let root = Root::open(path).map_err(failed)?;
        let Tree { entries, skipped } = Tree::scan(&root).map_err(failed)?;
        let skipped =
            skipped.into_iter().map(|skipped| Skipped { path: path.join(&skipped.path), ..skipped });
        let entries = entries.into_iter().map(|entry| {
            let name = to.join(&entry.path);
            (entry, name)
        });
        let (entries, too_long): (Vec<_>, Vec<_>) =
            entries.partition(|(_, name)| name.as_os_str().len() <= LONGEST_PATH);
        let too_long = too_long.into_iter().map(|(_, name)| Skipped::too_long(name));
        Ok(Source { entries, skipped: skipped.chain(too_long).collect(), directories: above(to), root })
    }

    /// Packs it, with the directories above it, as far as they are not in `made`.
    fn pack<W: std::io::Write>(&self, packer: &mut Packer<W>, made: &mut BTreeSet<PathBuf>) -> Result<()> {
        for directory in self.directories.iter().filter(|directory| made.insert((*directory).clone())) {
            packer.put(directory, &EntryKind::Directory, 0o700, (0, 0), std::io::empty())?;
        }
        self.entries.iter().try_for_each(|(entry, name)| packer.add(&self.root, entry, name))
    }
}

/// A directory of the vault and those above it, outermost first.
pub fn above(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        directory.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned).collect();
    all.reverse();
    all
}
