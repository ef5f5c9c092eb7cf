//! The open tree: what is in it, as a value that can be compared.
//!
//! The tree's programs may change it at any time, and may put links where directories were. Everything is reached from the root's
//! descriptor without following links (openat2(2), `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2};

/// Caches that their tools renew at will: never saved.
pub const VOLATILE: &[&str] = &[".aws/sso/cache", ".aws/cli/cache", ".kube/cache"];

/// Times are kept as far as thirty thousand years from 1970, in seconds; further ones are set by nobody in earnest.
const FAR: i64 = 1 << 40;

/// Linux's PATH_MAX without the NUL at the end, in bytes. A file can have a longer path, but nobody can open it by that.
pub const LONGEST_PATH: usize = 4095;

/// A directory that is worked in through its descriptor.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the directory, which is no link itself.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Root(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens what is below, through no link.
    ///
    /// # Errors
    /// As openat2(2); `ELOOP` where a part of the path is a link.
    pub fn at(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(openat2(&self.0, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode, resolve)?)
    }

    /// The directory that holds `path`, and its last part.
    ///
    /// # Errors
    /// As [`Root::at`]; `EINVAL` where it has no last part.
    pub fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = path.parent().unwrap_or(Path::new(""));
        Ok((self.at(above, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?, name))
    }
}

/// What an entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file of this size in bytes.
    File(u64),
    /// A link to somewhere inside the tree.
    Link(PathBuf),
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From the root.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Permissions.
    pub mode: u32,
    /// Modified, in seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Its inode, and when that changed, in seconds and nanoseconds since 1970: another one where anything of it was changed, but not
    /// where a program has written to a page that it had mapped already.
    stamp: (u64, i64, u32),
}

impl Entry {
    /// The file at this path. A link is looked at, not followed.
    ///
    /// # Errors
    /// Where it is not there, or something that no tree has.
    pub fn of(root: &Root, path: &Path) -> io::Result<Entry> {
        let (above, name) = root.parent(path)?;
        let stat = rustix::fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut tree = Tree::default();
        tree.take(above.as_fd(), name, path.to_owned(), &stat, &mut Vec::new());
        tree.entries.pop().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// What is in a tree, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// What is saved.
    pub entries: Vec<Entry>,
    /// What is not, and why; sockets and [`VOLATILE`] caches go without saying.
    pub skipped: Vec<Skipped>,
}

/// What is not saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// From the root.
    pub path: PathBuf,
    /// For people.
    pub why: String,
    /// Whether it would be, if only it could: whatever lacks it is not whole.
    pub lost: bool,
}

impl Skipped {
    /// What no vault has.
    pub fn unwanted(path: PathBuf, why: impl Into<String>) -> Skipped {
        Skipped { path, why: why.into(), lost: false }
    }

    /// What nobody could open: see [`LONGEST_PATH`].
    pub fn too_long(path: PathBuf) -> Skipped {
        Skipped::lost(path, format!("cannot be named: its path is longer than {LONGEST_PATH} bytes"))
    }

    /// What should be there.
    pub fn lost(path: PathBuf, why: impl Into<String>) -> Skipped {
        Skipped { path, why: why.into(), lost: true }
    }
}

impl Tree {
    /// Looks at everything below the root.
    ///
    /// # Errors
    /// Where the root itself cannot be listed; of what is below, [`Tree::skipped`] tells.
    pub fn scan(root: &Root) -> io::Result<Tree> {
        let mut tree = Tree::default();
        let mut pending = vec![PathBuf::new()];
        while let Some(above) = pending.pop() {
            if let Err(source) = tree.list(root, &above, &mut pending) {
                if above.as_os_str().is_empty() {
                    return Err(source);
                }
                // What vanished while we looked is not there, which the next scan sees.
                if source.kind() != io::ErrorKind::NotFound {
                    tree.skipped.push(Skipped::lost(above, format!("cannot be listed: {source}")));
                }
            }
        }
        tree.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        // A directory that changes while it is listed may name a file twice.
        tree.entries.dedup_by(|a, b| a.path == b.path);
        Ok(tree)
    }

    fn list(&mut self, root: &Root, above: &Path, pending: &mut Vec<PathBuf>) -> io::Result<()> {
        let directory = root.at(above, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        for found in Dir::read_from(&directory)? {
            let found = found?;
            let name = OsStr::from_bytes(found.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = above.join(name);
            if VOLATILE.iter().any(|volatile| Path::new(volatile) == path) {
                continue;
            }
            match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => self.take(directory.as_fd(), name, path, &stat, pending),
                Err(rustix::io::Errno::NOENT) => {}
                Err(source) => {
                    self.skipped.push(Skipped::lost(path, format!("cannot be looked at: {source}")));
                }
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        directory: impl AsFd,
        name: &OsStr,
        path: PathBuf,
        stat: &Stat,
        pending: &mut Vec<PathBuf>,
    ) {
        if path.as_os_str().len() > LONGEST_PATH {
            return self.skipped.push(Skipped::too_long(path));
        }
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                pending.push(path.clone());
                Kind::Directory
            }
            FileType::RegularFile => Kind::File(u64::try_from(stat.st_size).unwrap_or_default()),
            FileType::Symlink => match rustix::fs::readlinkat(directory, name, Vec::new()) {
                Ok(target) => {
                    let target = PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()));
                    if !stays_inside(&path, &target) {
                        let why = format!("a link to `{}`, outside the vault", target.display());
                        return self.skipped.push(Skipped::unwanted(path, why));
                    }
                    Kind::Link(target)
                }
                Err(_) => return,
            },
            FileType::Socket => return,
            _ => return self.skipped.push(Skipped::unwanted(path, "neither file, directory nor link")),
        };
        let nanoseconds = |value| u32::try_from(value).unwrap_or_default();
        self.entries.push(Entry {
            path,
            kind,
            mode: stat.st_mode & 0o777,
            modified: (stat.st_mtime.clamp(-FAR, FAR), nanoseconds(stat.st_mtime_nsec)),
            stamp: (stat.st_ino, stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        });
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let size = |entry: &Entry| if let Kind::File(size) = entry.kind { size } else { 0 };
        self.entries.iter().map(size).fold(0, u64::saturating_add)
    }

    /// How many files.
    pub fn files(&self) -> u64 {
        self.entries.iter().filter(|entry| matches!(entry.kind, Kind::File(_))).count() as u64
    }
}

/// Whether a link at `path` leads to somewhere below the root, as far as its text tells.
pub fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return false,
            },
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn scan(path: &Path) -> Tree {
        Tree::scan(&Root::open(path).unwrap()).unwrap()
    }

    #[test]
    fn a_tree_is_what_is_worth_saving() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at(".aws/sso/cache")).unwrap();
        fs::write(at(".aws/sso/cache/token"), "x").unwrap();
        fs::write(at(".aws/config"), "12345").unwrap();
        symlink("config", at(".aws/inside")).unwrap();
        symlink("../../etc/passwd", at(".aws/outside")).unwrap();
        symlink("/etc/passwd", at("absolute")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let tree = scan(directory.path());
        let paths: Vec<_> = tree.entries.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        assert_eq!(paths, [".aws", ".aws/config", ".aws/inside", ".aws/sso"]);
        let mut skipped: Vec<_> = tree.skipped.iter().map(|skipped| skipped.path.to_str().unwrap()).collect();
        skipped.sort_unstable();
        assert_eq!(skipped, [".aws/outside", "absolute", "fifo"]);
        assert_eq!((tree.bytes(), tree.files()), (5, 1));
    }

    #[test]
    fn any_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("a"), "one").unwrap();
        let before = scan(directory.path());
        assert_eq!(scan(directory.path()), before);
        // The same size and, by its own word, the same time.
        let time = fs::metadata(at("a")).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(at("a"), "two").unwrap();
        fs::File::options().write(true).open(at("a")).unwrap().set_modified(time).unwrap();
        assert_ne!(scan(directory.path()), before);
    }

    #[test]
    fn links_that_stay_inside() {
        for (path, target, inside) in [
            ("a", "b", true),
            ("a", "../b", false),
            ("d/a", "../b", true),
            ("d/a", "../../b", false),
            ("d/a", "x/../../y", true),
            ("d/a", "x/../../../y", false),
            ("a", "/b", false),
            ("a", ".", true),
        ] {
            assert_eq!(stays_inside(Path::new(path), Path::new(target)), inside, "{path} -> {target}");
        }
    }

    #[test]
    fn links_are_not_followed_on_the_way() {
        let directory = tempfile::tempdir().unwrap();
        symlink("/etc", directory.path().join("etc")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        for path in ["etc/passwd", "etc", "../x", "/etc/passwd"] {
            assert!(root.at(Path::new(path), OFlags::RDONLY, Mode::empty()).is_err(), "{path}");
        }
        assert!(Root::open(&directory.path().join("etc")).is_err());
    }
}
