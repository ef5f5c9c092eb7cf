//! A store in a directory: needs no account, and serves a disk, NFS or what Syncthing keeps alike.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::probe::{Probe, clean_up, probe};
use super::{Outcome, Place, Step, unguessable};
use crate::vault::store::{Created, Kind, Listed, Result, Store, StoreError};

/// How temporary files begin and end. Nothing that begins with a dot is an object: Syncthing and NFS have files of
/// their own that do.
const TEMPORARY: (&str, &str) = (".tazpod-", ".tmp");

/// A temporary file as old as this is a crashed run's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

const LOCK: &str = ".lock";

/// How much is read or written at a time, in bytes.
const PIECE: usize = 1 << 20;

/// How much may wait to get to the disk, in bytes: no process ends before the kernel is done with a file that it syncs.
const UNSYNCED: u64 = 8 << 20;

/// How long to wait for another tazpod that creates.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// A store in a directory; keys are paths below it.
///
/// [`Store::create`] is atomic by `link(2)` or `renameat2(2)`, and a lock is held around it for file systems that have
/// neither. That decides among the machines that share one file system. It does not among machines that a program like
/// Syncthing copies between: both make their file, and the program renames one of them later
/// (`NAME.sync-conflict-DATE-TIME-ID.EXT`). [`Store::list`] shows such files as they are; they are forks.
///
/// What may block has a thread of its own, a piece of a file at a time, so that a signal counts at once. What is under way then goes on
/// until its system call returns: a creation may still come true, as one whose answer was lost. Where such a call ends only with the
/// server's answer (a dead NFS, mounted without `soft`), the user has the terminal's word that it was interrupted, and the process may stay
/// until the kernel lets it go.
#[derive(Clone)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// The store in `root`, which may not exist.
    pub fn new(root: &Path) -> DirectoryStore {
        DirectoryStore { root: root.to_owned() }
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        if key.split('/').any(|part| part.is_empty() || part.starts_with('.')) || key.contains('\0') {
            return Err(StoreError::new(Kind::Other, format!("`{key}` is no key of an object")));
        }
        Ok(self.root.join(key))
    }

    /// What went wrong on an object. Where it is not there, neither may be the whole directory.
    fn failed(&self, action: &str, key: &str, source: io::Error) -> StoreError {
        if source.kind() == io::ErrorKind::NotFound
            && let Err(error) = self.place()
        {
            return error;
        }
        StoreError::new(kind(&source), format!("cannot {action} `{key}` in `{}`", self.root.display()))
            .with_source(source)
    }

    fn place(&self) -> Result<Metadata> {
        let shown = self.root.display();
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => Ok(metadata),
            Ok(_) => Err(StoreError::new(Kind::NoPlace, format!("`{shown}` is not a directory"))),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::new(Kind::NoPlace, format!("there is no directory `{shown}`")))
            }
            Err(source) => {
                Err(StoreError::new(kind(&source), format!("cannot look into `{shown}`")).with_source(source))
            }
        }
    }

    /// Makes the directories of an object below the root. Never the root: what is missing may be a disk that is not
    /// mounted.
    fn make_parents(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent().filter(|parent| *parent != self.root) else { return Ok(()) };
        self.make_parents(parent)?;
        match DirBuilder::new().mode(0o700).create(parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the names on the way to an object last. All of them, as another process may have made a directory and not
    /// come to this yet.
    fn sync_parents(&self, path: &Path) -> io::Result<()> {
        for parent in path.ancestors().skip(1) {
            sync_directory(parent)?;
            if parent == self.root {
                break;
            }
        }
        Ok(())
    }

    /// Opens an object for reading, and nothing else: no link out of the place, no pipe that would hang.
    fn open(&self, key: &str) -> Result<Option<(File, u64)>> {
        let path = self.path(key)?;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
            .and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        match opened {
            Ok((file, metadata)) if metadata.is_file() => Ok(Some((file, metadata.len()))),
            Ok(_) => Err(StoreError::new(Kind::Other, format!("`{}` is not a file", path.display()))),
            Err(source) if source.kind() == io::ErrorKind::NotFound => self.place().map(|_| None),
            Err(source) => Err(self.failed("read", key, source)),
        }
    }

    async fn put_file(
        &self,
        key: &str,
        size: u64,
        sha256: [u8; 32],
        body: &mut (dyn Read + Send),
    ) -> Result<()> {
        let (store, name) = (self.clone(), key.to_owned());
        let mut writing = aside(move || Writing::begin(store, name)).await?;
        let mut buffer = vec![0; PIECE];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(StoreError::new(Kind::Other, format!("cannot read what is to be `{key}`"))
                        .with_source(source));
                }
            };
            (writing, buffer) = aside(move || {
                writing.add(buffer.get(..count).unwrap_or_default())?;
                Ok((writing, buffer))
            })
            .await?;
        }
        aside(move || writing.finish(size, sha256)).await
    }

    async fn get_file(&self, key: &str, limit: u64, into: &mut (dyn Write + Send)) -> Result<Option<u64>> {
        let (store, name) = (self.clone(), key.to_owned());
        let Some((mut file, size)) = aside(move || store.open(&name)).await? else { return Ok(None) };
        if size > limit {
            return Err(super::too_large(key, limit));
        }
        let mut buffer = vec![0; PIECE];
        let mut copied = 0;
        loop {
            let (store, name) = (self.clone(), key.to_owned());
            let read;
            (read, file, buffer) = aside(move || {
                let read = file.read(&mut buffer);
                let read = match read {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
                    other => other.map(Some).map_err(|source| store.failed("read", &name, source)),
                };
                (read, file, buffer)
            })
            .await;
            let count = match read? {
                Some(0) => return Ok(Some(copied)),
                Some(count) => count,
                None => continue,
            };
            copied += count as u64;
            if copied > limit {
                return Err(super::too_large(key, limit));
            }
            let chunk = buffer.get(..count).unwrap_or_default();
            into.write_all(chunk).map_err(|source| super::cannot_keep(key, source))?;
        }
    }

    async fn create_locked(&self, key: &str, bytes: &[u8]) -> Result<Created> {
        let path = self.path(key)?;
        let store = self.clone();
        aside(move || store.place()).await?;
        let lock = self.lock().await?;
        let (store, key, bytes) = (self.clone(), key.to_owned(), bytes.to_owned());
        aside(move || store.create_file(&key, &path, &bytes, lock)).await
    }

    fn create_file(&self, key: &str, path: &Path, bytes: &[u8], lock: Option<File>) -> Result<Created> {
        let failed = |source| self.failed("create", key, source);
        let mut temporary = self.temporary(path).map_err(failed)?;
        temporary.file.write_all(bytes).and_then(|()| temporary.file.sync_all()).map_err(failed)?;
        match appear(&mut temporary, path, lock.is_some()) {
            Ok(true) => {}
            Ok(false) => return Ok(Created::Exists),
            Err(source) => {
                let unsure = !matches!(kind(&source), Kind::Denied | Kind::Full) && !unsupported(&source);
                let error = failed(source);
                return if unsure { Ok(Created::Unknown(error)) } else { Err(error) };
            }
        }
        drop(temporary);
        match self.sync_parents(path) {
            Ok(()) => Ok(Created::Made),
            // It is there now, and may not be after a power cut.
            Err(source) => Ok(Created::Unknown(failed(source))),
        }
    }

    fn temporary(&self, path: &Path) -> io::Result<Temporary> {
        self.make_parents(path)?;
        let (begin, end) = TEMPORARY;
        let path = path.with_file_name(format!("{begin}{}{end}", unguessable()?));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Temporary { path, file, gone: false })
    }

    /// Waits for the place's lock; `None` where the file system has no locks.
    async fn lock(&self) -> Result<Option<File>> {
        let store = self.clone();
        let mut file = aside(move || store.open_lock()).await?;
        let started = Instant::now();
        loop {
            let locked;
            (locked, file) = aside(move || (file.try_lock(), file)).await;
            match locked {
                Ok(()) => return Ok(Some(file)),
                Err(fs::TryLockError::WouldBlock) if started.elapsed() < LOCK_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(fs::TryLockError::WouldBlock) => {
                    let shown = self.root.display();
                    return Err(StoreError::new(
                        Kind::Busy,
                        format!(
                            "another tazpod has been writing to `{shown}` for {} s",
                            LOCK_TIMEOUT.as_secs()
                        ),
                    ));
                }
                Err(fs::TryLockError::Error(_)) => return Ok(None),
            }
        }
    }

    fn open_lock(&self) -> Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.root.join(LOCK))
            .map_err(|source| self.failed("open", LOCK, source))
    }

    fn list_files(&self, prefix: &str, after: &str) -> Result<Vec<Listed>> {
        self.place()?;
        let within = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut waiting = vec![within.to_owned()];
        let mut listed = Vec::new();
        while let Some(directory) = waiting.pop() {
            let path = if directory.is_empty() { self.root.clone() } else { self.path(&directory)? };
            let failed = |source| self.failed("list", &directory, source);
            let entries = match fs::read_dir(&path) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    continue;
                }
                other => other.map_err(failed)?,
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                // Nothing of ours has such a name.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let metadata = match entry.metadata() {
                    // Removed meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    // What is not listed counts as not there, and prune removes what only it needs.
                    found => found.map_err(failed)?,
                };
                if name.starts_with('.') {
                    remove_abandoned(&name, &entry.path(), &metadata);
                    continue;
                }
                let key = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                if metadata.is_dir() {
                    let below = format!("{key}/");
                    if below.starts_with(prefix) || prefix.starts_with(&below) {
                        waiting.push(key);
                    }
                } else if metadata.is_file() && key.starts_with(prefix) && key.as_str() > after {
                    // Synchronisers keep the time of writing: when a file came here, its inode's change tells.
                    let changed = u64::try_from(metadata.ctime()).unwrap_or_default();
                    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
                    let modified = metadata.modified().unwrap_or(changed).max(changed);
                    listed.push(Listed { key, size: metadata.len(), modified });
                }
            }
        }
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    fn set_up(&self) -> Result<Vec<Step>> {
        let there = match self.place() {
            Err(error) if error.kind == Kind::NoPlace && !self.root.exists() => {
                let failed = |source| self.failed("make", "", source);
                DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
                for parent in self.root.ancestors().skip(1) {
                    // Those above may not be ours to open.
                    let _ = sync_directory(parent);
                }
                Outcome::Done
            }
            other => {
                let mode = other?.mode();
                if mode & 0o077 == 0 {
                    Outcome::WasSo
                } else {
                    // Who shares the directory on purpose wants it so.
                    Outcome::Warning(format!(
                        "others may look into it, its mode is {:o}; what is sealed stays so",
                        mode & 0o7777
                    ))
                }
            }
        };
        let failed = |source| self.failed("write into", "", source);
        drop(self.temporary(&self.root.join("x")).map_err(failed)?);
        Ok(vec![
            Step { what: "the directory exists", outcome: there },
            Step { what: "it can be written", outcome: Outcome::WasSo },
        ])
    }

    fn delete_file(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => self.place().map(drop),
            other => other
                .and_then(|()| path.parent().map_or(Ok(()), sync_directory))
                .map_err(|source| self.failed("remove", key, source)),
        }
    }

    async fn try_out(&self) -> Result<Probe> {
        let store = self.clone();
        let name = aside(move || {
            store.place()?;
            unguessable().map_err(|source| store.failed("name", "probe", source))
        })
        .await?;
        let under = format!("probe/{name}/");
        // The hash is compared here, before the file gets its name.
        let found = probe(self, &under, true, true).await;
        if found.is_err() {
            let _ = clean_up(self, &[&format!("{under}once"), &format!("{under}race")]).await;
        }
        let directories = [self.root.join(&under), self.root.join("probe")];
        // Not empty, where nothing may be removed or somebody else is probing.
        aside(move || directories.map(|directory| fs::remove_dir(directory).is_ok())).await;
        found
    }
}

/// An object that is on its way to its name.
struct Writing {
    store: DirectoryStore,
    key: String,
    path: PathBuf,
    temporary: Temporary,
    hash: Sha256,
    written: u64,
    unsynced: u64,
}

impl Writing {
    fn begin(store: DirectoryStore, key: String) -> Result<Writing> {
        let path = store.path(&key)?;
        let temporary = store.temporary(&path).map_err(|source| store.failed("write", &key, source))?;
        Ok(Writing { store, key, path, temporary, hash: Sha256::new(), written: 0, unsynced: 0 })
    }

    fn failed(&self, source: io::Error) -> StoreError {
        self.store.failed("write", &self.key, source)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.temporary.file.write_all(bytes).map_err(|source| self.failed(source))?;
        self.written += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= UNSYNCED {
            self.temporary.file.sync_data().map_err(|source| self.failed(source))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn finish(mut self, size: u64, sha256: [u8; 32]) -> Result<()> {
        if self.written != size || self.hash.finalize_reset().as_slice() != sha256 {
            return Err(super::not_as_announced(&self.key));
        }
        let named =
            self.temporary.file.sync_all().and_then(|()| fs::rename(&self.temporary.path, &self.path));
        named.map_err(|source| self.failed(source))?;
        self.temporary.gone = true;
        self.store.sync_parents(&self.path).map_err(|source| self.failed(source))
    }
}

/// Does what may block in a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panicked)) => resume_unwind(panicked),
        // The runtime has ended, and nobody waits any more.
        Err(Err(_)) => std::future::pending().await,
    }
}

impl Store for DirectoryStore {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        size: u64,
        sha256: [u8; 32],
        body: &'a mut (dyn Read + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.put_file(key, size, sha256, body))
    }

    fn create<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> BoxFuture<'a, Result<Created>> {
        Box::pin(self.create_locked(key, bytes))
    }

    fn get<'a>(
        &'a self,
        key: &'a str,
        limit: u64,
        into: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(self.get_file(key, limit, into))
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        let (store, key) = (self.clone(), key.to_owned());
        Box::pin(aside(move || Ok(store.open(&key)?.map(|(_, size)| size))))
    }

    fn list<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        let (store, prefix, after) = (self.clone(), prefix.to_owned(), after.to_owned());
        Box::pin(aside(move || store.list_files(&prefix, &after)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        let (store, key) = (self.clone(), key.to_owned());
        Box::pin(aside(move || store.delete_file(&key)))
    }
}

impl Place for DirectoryStore {
    fn probe(&self) -> BoxFuture<'_, Result<Probe>> {
        Box::pin(self.try_out())
    }

    fn setup(&self) -> BoxFuture<'_, Result<Vec<Step>>> {
        let store = self.clone();
        Box::pin(aside(move || store.set_up()))
    }
}

/// A file that is removed unless it got its name.
struct Temporary {
    path: PathBuf,
    file: File,
    gone: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.gone {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Gives a finished file its name if that is free, and says whether it was.
fn appear(temporary: &mut Temporary, path: &Path, locked: bool) -> io::Result<bool> {
    match fs::hard_link(&temporary.path, path) {
        Ok(()) => return Ok(true),
        Err(error) if unsupported(&error) => {}
        Err(error) => {
            // NFS repeats a request whose answer was lost, and then reports that the name is taken: by this file.
            let linked = fs::metadata(&temporary.path).is_ok_and(|metadata| metadata.nlink() == 2);
            return match error.kind() {
                _ if linked => Ok(true),
                io::ErrorKind::AlreadyExists => Ok(false),
                _ => Err(error),
            };
        }
    }
    rename_free(temporary, path, locked)
}

/// Renames a finished file if the name is free, and says whether it was.
fn rename_free(temporary: &mut Temporary, path: &Path, locked: bool) -> io::Result<bool> {
    let renamed = match rustix::fs::renameat_with(CWD, &temporary.path, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if locked => rename_locked(temporary, path),
        Err(error) => Err(error.into()),
    };
    temporary.gone = matches!(renamed, Ok(true));
    renamed
}

/// The same where the file system can do neither: safe among all who hold the lock.
fn rename_locked(temporary: &Temporary, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::rename(&temporary.path, path).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// Whether the file system has no links. EPERM is what vfat says.
fn unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::MLINK)
    )
}

fn remove_abandoned(name: &str, path: &Path, metadata: &Metadata) {
    let (begin, end) = TEMPORARY;
    let ours = name.starts_with(begin) && name.ends_with(end) && metadata.is_file();
    let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
    if ours && age.is_some_and(|age| age > ABANDONED) {
        // Who may only read leaves it to others.
        let _ = fs::remove_file(path);
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some file systems over a network or in user space have no such thing.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn kind(error: &io::Error) -> Kind {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Kind::Full,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Kind::Denied,
        // A server that is away, a file system's process that died.
        Some(
            Errno::STALE
            | Errno::TIMEDOUT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NOTCONN
            | Errno::CONNABORTED,
        ) => Kind::Unreachable,
        Some(Errno::BUSY | Errno::AGAIN) => Kind::Busy,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, DirectoryStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::new(directory.path());
        (directory, store)
    }

    fn on_one_thread() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn large_copies_can_be_cut_off() {
        let (directory, store) = store();
        let runtime = on_one_thread();
        // It takes what is too much for any disk and patience.
        let size = 1 << 42;
        let body = &mut io::repeat(7);
        File::create(directory.path().join("sparse")).unwrap().set_len(size).unwrap();
        fs::create_dir(directory.path().join("gen")).unwrap();
        let asked = Instant::now();
        runtime.block_on(async {
            let patience = Duration::from_millis(20);
            assert!(tokio::time::timeout(patience, store.put("gen/x", size, [0; 32], body)).await.is_err());
            let into = &mut io::sink();
            assert!(tokio::time::timeout(patience, store.get("sparse", size, into)).await.is_err());
        });
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        // What was under way has an end, and leaves nothing.
        runtime.shutdown_timeout(Duration::from_secs(10));
        assert_eq!(fs::read_dir(directory.path().join("gen")).unwrap().count(), 0);
    }

    #[test]
    fn keys_stay_below() {
        let (_directory, store) = store();
        for key in ["", "/etc/passwd", "a//b", "a/", "../a", "a/../b", "./a", ".lock", "a/.b", "a\0b"] {
            assert!(store.path(key).is_err(), "{key:?}");
        }
        assert!(store.path("commits/1.sync-conflict-20260101-120000-ABCDEFG.x").is_ok());
    }

    #[test]
    fn abandoned_files_go_and_fresh_ones_stay() {
        let (directory, store) = store();
        fs::create_dir(directory.path().join("gen")).unwrap();
        let file = |name: &str| directory.path().join("gen").join(name);
        for name in [".tazpod-old.tmp", ".tazpod-new.tmp", ".stranger.tmp", "object"] {
            File::create(file(name)).unwrap();
        }
        let long_ago = SystemTime::now() - ABANDONED - Duration::from_secs(60);
        for name in [".tazpod-old.tmp", ".stranger.tmp"] {
            File::options().write(true).open(file(name)).unwrap().set_modified(long_ago).unwrap();
        }
        let listed = store.list_files("", "").unwrap();
        assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["gen/object"]);
        let exist = |name| file(name).exists();
        assert!(!exist(".tazpod-old.tmp"));
        assert!(exist(".tazpod-new.tmp") && exist(".stranger.tmp"));
    }

    #[test]
    fn without_links_renaming_decides() {
        let (directory, store) = store();
        let ways: [fn(&mut Temporary, &Path) -> io::Result<bool>; 2] = [
            |temporary, path| rename_free(temporary, path, false),
            |temporary, path| rename_locked(temporary, path).inspect(|renamed| temporary.gone = *renamed),
        ];
        for (number, way) in ways.iter().enumerate() {
            let path = directory.path().join(format!("object {number}"));
            for (attempt, free) in [true, false].into_iter().enumerate() {
                let mut temporary = store.temporary(&path).unwrap();
                temporary.file.write_all(attempt.to_string().as_bytes()).unwrap();
                assert_eq!(way(&mut temporary, &path).unwrap(), free);
            }
            assert_eq!(fs::read(&path).unwrap(), b"0");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), ways.len());
    }

    #[test]
    fn classes_of_errors() {
        for (errno, expected) in [
            (Errno::NOSPC, Kind::Full),
            (Errno::DQUOT, Kind::Full),
            (Errno::ACCESS, Kind::Denied),
            (Errno::ROFS, Kind::Denied),
            (Errno::STALE, Kind::Unreachable),
            (Errno::IO, Kind::Other),
        ] {
            assert_eq!(kind(&errno.into()), expected);
        }
    }

    #[test]
    fn links_and_pipes_are_not_objects() {
        let (directory, store) = store();
        std::os::unix::fs::symlink("/etc/hostname", directory.path().join("link")).unwrap();
        rustix::fs::mkfifoat(CWD, directory.path().join("pipe"), 0o600.into()).unwrap();
        assert!(store.open("link").is_err());
        assert!(store.open("pipe").is_err());
        assert!(store.list_files("", "").unwrap().is_empty());
    }

    #[test]
    fn modes_are_the_owners() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("a/b");
        let store = DirectoryStore::new(&root);
        assert_eq!(store.place().unwrap_err().kind, Kind::NoPlace);
        let steps = store.set_up().unwrap();
        assert!(matches!(steps.first().unwrap().outcome, Outcome::Done));
        assert!(matches!(store.set_up().unwrap().first().unwrap().outcome, Outcome::WasSo));
        let hash = Sha256::digest(b"x").into();
        on_one_thread().block_on(store.put("gen/x", 1, hash, &mut &b"x"[..])).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode("gen"), mode("gen/x")], [0o700, 0o700, 0o600]);
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(store.set_up().unwrap().first().unwrap().outcome, Outcome::Warning(_)));
    }
}
