//! A vault on this machine: what was seen of its history, its newest objects, and commits that are not pushed yet.
//!
//! | path | |
//! |---|---|
//! | `seen.json` | the newest commit that the store is known to have: the pin |
//! | `trusted.json` | what was seen when a card or a passphrase last showed that it is the user's vault |
//! | `commits/N` | the commits up to there, as far as they were fetched |
//! | `gen/`, `keys/` | objects by their hash; those of the newest commits |
//! | `outbox/N` | commits not yet pushed, in order |
//! | `held/HASH` | commits that looked wrong: kept, never pushed by themselves |
//! | `aside.json` | the newest of the commits that were being held when that was interrupted |
//! | `pruned/SHA` | the store's records of what was pruned, as far as they were fetched |
//! | `outbox/N.attempted` | that commit may be in the store: it is never replaced any more |
//!
//! Each step is written so that a crash before or after it leaves a state from which the same command goes on.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use super::behind::behind;
use super::commit::{self, Commit, Link};
use super::disk::{Disk, NewFile};
use super::hashing::Hashing;
use super::id::Hash;
use crate::error::{Error, Kind, Result};

/// The kinds of objects that are named by their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A sealed tree.
    Generation,
    /// A keyring wrapped by the passphrase.
    Keys,
    /// A keyring wrapped to recipients.
    Recipients,
}

impl Object {
    /// Its key in a store, and its path here.
    pub fn key(self, hash: &Hash) -> String {
        match self {
            Object::Generation => format!("gen/{hash}.age"),
            Object::Keys => format!("keys/{hash}.age"),
            Object::Recipients => format!("keys/{hash}-r.age"),
        }
    }
}

/// The key of a commit in a store, and its path here.
pub fn commit_key(n: u64) -> String {
    format!("commits/{n:010}")
}

/// A commit that is not pushed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// It.
    pub commit: Commit,
    /// Whether the store may have it.
    pub attempted: bool,
}

/// What is known here.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The newest commit that the store is known to have.
    pub seen: Option<Link>,
    /// Commits after it, oldest first.
    pub outbox: Vec<Outgoing>,
    /// The newest of all.
    pub tip: Option<Link>,
    /// The parent of the next save: the newest, or the one before it, where the newest was never attempted and can be replaced.
    pub base: Option<Link>,
}

/// A vault's directory.
pub struct Local<'d> {
    disk: &'d dyn Disk,
    path: PathBuf,
}

const SEEN: &str = "seen.json";
const TRUSTED: &str = "trusted.json";
const OUTBOX: &str = "outbox";
const HELD: &str = "held";
const ASIDE: &str = "aside.json";
const PRUNED: &str = "pruned";
const ATTEMPTED: &str = ".attempted";
const TEMPORARY: &str = ".tmp";
/// Most of what is read whole is not larger, in bytes: commits.
const COMMON: usize = 1 << 10;

impl<'d> Local<'d> {
    /// The vault in this directory, which may not exist yet.
    pub fn new(disk: &'d dyn Disk, path: PathBuf) -> Local<'d> {
        Local { disk, path }
    }

    /// Reads and checks what is known.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where what is here does not hang together.
    pub fn load(&self) -> Result<State> {
        let seen = self.link(SEEN)?;
        let names =
            self.disk.list(&self.path.join(OUTBOX)).map_err(|source| self.failed("list", OUTBOX, source))?;
        let mut state = State { seen, outbox: Vec::new(), tip: seen, base: seen };
        for name in names.iter().filter(|name| name.parse::<u64>().is_ok()) {
            let waiting = format!("{OUTBOX}/{name}");
            let Some(bytes) = self.read(&waiting, commit::LARGEST)? else { continue };
            let commit = Commit::read(bytes).map_err(|failed| {
                let path = self.path.join(&waiting);
                failed.hint(format!(
                    "`{}` waits to be pushed, and is damaged: move it away, and save anew what a pod has open",
                    path.display()
                ))
            })?;
            if state.seen.is_some_and(|seen| seen.n >= commit.body.n) {
                // Pushed; the crash came before it was taken out.
                continue;
            }
            let before = state.tip;
            state.tip = Some(Link::next(before.as_ref(), &commit)?);
            let attempted = names.contains(&format!("{name}{ATTEMPTED}"));
            state.base = if attempted { state.tip } else { before };
            state.outbox.push(Outgoing { commit, attempted });
        }
        Ok(state)
    }

    /// A commit that is here.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn commit(&self, n: u64) -> Result<Option<Commit>> {
        self.read(&commit_key(n), commit::LARGEST)?.map(Commit::read).transpose()
    }

    /// The newest commit that was seen; nothing where it is missing here, or damaged: then the store's can be fetched again.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn pinned(&self, seen: &Link) -> Result<Option<Commit>> {
        match self.commit(seen.n) {
            Ok(commit) => Ok(commit.filter(|commit| commit.hash == seen.hash)),
            Err(damaged) if damaged.kind() == Kind::Integrity => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// The same, where it must be here.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where it is not; where it cannot be read.
    pub fn newest(&self, seen: &Link) -> Result<Commit> {
        self.pinned(seen)?.ok_or_else(|| {
            Error::new(Kind::Integrity, format!("commit {} is missing from this machine", seen.n))
                .hint("`tazpod vault pull` fetches it again")
        })
    }

    /// Adds a commit to the outbox: as the next one, or in the place of the last one, if that was never attempted. Its objects
    /// must be here already.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where it follows neither.
    pub fn enqueue(&self, commit: &Commit) -> Result<()> {
        self.append(&self.load()?, commit)
    }

    /// The same, where `state` is what [`Local::load`] has just given.
    ///
    /// # Errors
    /// As [`Local::enqueue`].
    pub fn append(&self, state: &State, commit: &Commit) -> Result<()> {
        if ![state.tip, state.base].iter().any(|at| Link::next(at.as_ref(), commit).is_ok()) {
            let n = commit.body.n;
            return Err(Error::new(
                Kind::Integrity,
                format!("commit {n} follows nothing that this machine has"),
            ));
        }
        self.write(&format!("{OUTBOX}/{:010}", commit.body.n), &commit.bytes)
    }

    /// Keeps a commit that is neither current nor to be pushed; its objects must be here already.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn hold(&self, commit: &Commit) -> Result<()> {
        self.write(&format!("{HELD}/{}", commit.hash), &commit.bytes)
    }

    /// Puts the commits of the outbox aside, and gives them, newest first: they are held, and neither current nor pushed any more.
    /// Where that was interrupted before, those of then come first.
    ///
    /// # Errors
    /// Where that cannot be recorded; what is left goes on waiting.
    pub fn set_aside(&self) -> Result<Vec<Commit>> {
        let State { tip, outbox, .. } = self.load()?;
        let Some(tip) = tip.filter(|_| !outbox.is_empty()) else { return Ok(Vec::new()) };
        let mut aside = self.set_aside_before(&tip)?;
        if aside.is_empty() {
            self.write_link(ASIDE, &tip)?;
        }
        for Outgoing { commit, .. } in outbox.into_iter().rev() {
            self.hold(&commit)?;
            self.dequeue(commit.body.n)?;
            aside.push(commit);
        }
        Ok(aside)
    }

    /// What was put aside of an outbox whose newest commit is `tip` since.
    fn set_aside_before(&self, tip: &Link) -> Result<Vec<Commit>> {
        let mut held = self.held()?;
        let (mut next, mut aside) = (self.link(ASIDE)?.map(|link| link.hash), Vec::new());
        while let Some(index) = held.iter().position(|commit| Some(commit.hash) == next) {
            let commit = held.swap_remove(index);
            next = commit.body.parents.first().copied();
            aside.push(commit);
            if next == Some(tip.hash) {
                return Ok(aside);
            }
        }
        // Of another time.
        Ok(Vec::new())
    }

    /// Forgets a held commit; `tidy` removes its generation.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn let_go(&self, hash: &Hash) -> Result<()> {
        let name = format!("{HELD}/{hash}");
        self.make(HELD)?;
        self.disk.remove(&self.path.join(&name)).map_err(|source| self.failed("remove", &name, source))?;
        // Before its generation goes: a crash must not bring back the one without the other.
        self.sync(HELD)
    }

    /// The commits that are held, in no order that means anything.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn held(&self) -> Result<Vec<Commit>> {
        let names =
            self.disk.list(&self.path.join(HELD)).map_err(|source| self.failed("list", HELD, source))?;
        let mut held = Vec::new();
        for name in names.iter().filter(|name| name.parse::<Hash>().is_ok()) {
            held.extend(
                self.read(&format!("{HELD}/{name}"), commit::LARGEST)?.map(Commit::read).transpose()?,
            );
        }
        Ok(held)
    }

    /// Keeps a record of what was pruned in the store, under the name that it has there.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep_record(&self, hash: &Hash, bytes: &[u8]) -> Result<()> {
        self.write(&format!("{PRUNED}/{hash}"), bytes)
    }

    /// The records that are here, of at most `limit` bytes each.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn records(&self, limit: u64) -> Result<Vec<(Hash, Vec<u8>)>> {
        let names =
            self.disk.list(&self.path.join(PRUNED)).map_err(|source| self.failed("list", PRUNED, source))?;
        let mut records = Vec::new();
        for hash in names.iter().filter_map(|name| name.parse::<Hash>().ok()) {
            records.extend(self.read(&format!("{PRUNED}/{hash}"), limit)?.map(|bytes| (hash, bytes)));
        }
        Ok(records)
    }

    /// The commit may be in the store from now on.
    ///
    /// # Errors
    /// Where that cannot be recorded: then it must not be sent.
    pub fn mark_attempted(&self, commit: &Commit) -> Result<()> {
        self.write(&format!("{OUTBOX}/{:010}{ATTEMPTED}", commit.body.n), b"")
    }

    /// The store is known to have this commit.
    ///
    /// # Errors
    /// Where that cannot be recorded.
    pub fn advance(&self, link: &Link, commit: &Commit) -> Result<()> {
        self.record(commit)?;
        self.pin(link)?;
        self.dequeue(link.n)
    }

    /// As [`Local::advance`], for a commit that others have, and that may take the place of the last one here, `replaced`. Another
    /// one that waits there was made since: it goes on as what `again` makes of it, to follow that commit. Whether none was.
    ///
    /// # Errors
    /// Where that cannot be recorded; those of `again`. What was made since is held then, and this can be done again.
    pub fn land(
        &self,
        commit: &Commit,
        replaced: Option<Hash>,
        again: impl FnOnce(&Link, &Commit) -> Result<Commit>,
    ) -> Result<bool> {
        let State { seen, base, outbox, .. } = self.load()?;
        if seen.is_some_and(|seen| seen.hash == commit.hash) {
            self.dequeue(commit.body.n)?;
            return Ok(true);
        }
        let link = Link::next(base.as_ref(), commit)?;
        let last = outbox.into_iter().last().filter(|last| !last.attempted).map(|last| last.commit);
        let Some(since) = last.filter(|last| Some(last.hash) != replaced) else {
            self.advance(&link, commit)?;
            return Ok(true);
        };
        self.hold(&since)?;
        self.advance(&link, commit)?;
        let following = again(&link, &since)?;
        self.enqueue(&following)?;
        self.let_go(&since.hash)?;
        Ok(false)
    }

    /// Keeps a commit of the store's. It counts once it, or one that follows from it, is pinned.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn record(&self, commit: &Commit) -> Result<()> {
        self.write(&commit_key(commit.body.n), &commit.bytes)
    }

    /// Takes this for the newest commit, whatever was seen before.
    ///
    /// # Errors
    /// Where that cannot be recorded.
    pub fn pin(&self, link: &Link) -> Result<()> {
        if let Some(seen) = self.link(SEEN)?.filter(|seen| seen.n > link.n) {
            // Pushed, and left by a crash: it must not seem to wait again.
            let names = self
                .disk
                .list(&self.path.join(OUTBOX))
                .map_err(|source| self.failed("list", OUTBOX, source))?;
            for n in names.iter().filter_map(|name| name.parse().ok()).filter(|n| *n <= seen.n) {
                self.dequeue(n)?;
            }
        }
        self.write_link(SEEN, link)
    }

    /// Notes that what was seen is known to be the user's own vault: it was made here, or the recovery card or the passphrase fits.
    /// Before anything was seen there is nothing to note.
    ///
    /// # Errors
    /// Where that cannot be recorded.
    pub fn trust(&self) -> Result<()> {
        let Some(seen) = self.link(SEEN)? else { return Ok(()) };
        match self.link(TRUSTED)? == Some(seen) {
            true => Ok(()),
            false => self.write_link(TRUSTED, &seen),
        }
    }

    /// Whether what was seen follows from what [`Local::trust`] noted.
    ///
    /// # Errors
    /// Where what is here cannot be read.
    pub fn is_trusted(&self) -> Result<bool> {
        let (Some(seen), Some(trusted)) = (self.link(SEEN)?, self.link(TRUSTED)?) else { return Ok(false) };
        let there = self.commit(trusted.n)?.map(|commit| commit.hash);
        Ok(seen == trusted
            || seen.vault == trusted.vault && seen.n > trusted.n && there == Some(trusted.hash))
    }

    /// Takes a commit out of the outbox.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn dequeue(&self, n: u64) -> Result<()> {
        self.make(OUTBOX)?;
        // The commit first: a marker without one means nothing, a commit without its marker could be replaced.
        for name in [format!("{OUTBOX}/{n:010}"), format!("{OUTBOX}/{n:010}{ATTEMPTED}")] {
            self.disk
                .remove(&self.path.join(&name))
                .map_err(|source| self.failed("remove", &name, source))?;
        }
        self.sync(OUTBOX)
    }

    /// Whether an object is here.
    pub fn has(&self, object: Object, hash: &Hash) -> bool {
        self.disk.size(&self.path.join(object.key(hash))).is_ok()
    }

    /// Whether an object is here, and is what its name says.
    pub fn is_intact(&self, object: Object, hash: &Hash) -> bool {
        let Ok((_, mut reader)) = self.open(object, hash) else { return false };
        let mut hashing = Hashing::new(io::sink());
        io::copy(&mut reader, &mut hashing).is_ok() && hashing.finish().0 == *hash
    }

    /// An object to be read, with its size. Its hash is the reader's to check.
    ///
    /// # Errors
    /// Where it is not here.
    pub fn open(&self, object: Object, hash: &Hash) -> Result<(u64, Box<dyn Read + Send + '_>)> {
        let key = object.key(hash);
        let path = self.path.join(&key);
        let size = self.disk.size(&path).map_err(|source| self.failed("read", &key, source))?;
        let reader = self.disk.open(&path).map_err(|source| self.failed("read", &key, source))?;
        Ok((size, reader))
    }

    /// A small object whole.
    ///
    /// # Errors
    /// Where it is not here; [`Kind::Integrity`] where it is not what its name says.
    pub fn object(&self, object: Object, hash: &Hash, limit: u64) -> Result<Vec<u8>> {
        let key = object.key(hash);
        let bytes = self.read(&key, limit)?;
        let bytes = bytes.ok_or_else(|| self.failed("read", &key, io::ErrorKind::NotFound.into()))?;
        if Hash::of(&bytes) != *hash {
            return Err(Error::new(
                Kind::Integrity,
                format!("`{}` is damaged", self.path.join(&key).display()),
            )
            .hint("`tazpod vault pull` fetches it again"));
        }
        Ok(bytes)
    }

    /// A place for an object that is about to come.
    ///
    /// # Errors
    /// Where there is none.
    pub fn incoming(&self, object: Object) -> Result<Incoming<'_>> {
        let directory = match object {
            Object::Generation => "gen",
            Object::Keys | Object::Recipients => "keys",
        };
        self.make(directory)?;
        let temporary = format!("{directory}/.{}{TEMPORARY}", std::process::id());
        let file = self.disk.create(&self.path.join(&temporary));
        let file = file.map_err(|source| self.failed("write", &temporary, source))?;
        Ok(Incoming {
            local: self,
            object,
            directory,
            temporary,
            file: Some(file),
            hashing: Hashing::new(io::sink()),
        })
    }

    /// Removes generations but those to keep, of the outbox, and held ones: the store has the others. None where one of those to keep is
    /// not here: then those are all that there is. And what a crash left half-written: nobody writes here but who calls this.
    ///
    /// # Errors
    /// Where one cannot be removed.
    pub fn tidy(&self, keep: &[Hash]) -> Result<()> {
        let state = self.load()?;
        let held = self.held()?;
        let waiting = state.outbox.iter().map(|outgoing| &outgoing.commit).chain(&held);
        let complete = keep.iter().all(|hash| self.has(Object::Generation, hash));
        let keep: Vec<String> = waiting
            .map(|commit| commit.body.generation)
            .chain(keep.iter().copied())
            .map(|hash| format!("{hash}.age"))
            .collect();
        for directory in ["gen", "keys", "commits", OUTBOX, HELD, PRUNED, ""] {
            let path = self.path.join(directory);
            let names = self.disk.list(&path).map_err(|source| self.failed("list", directory, source))?;
            let unneeded = |name: &&String| match directory {
                "gen" if complete => !keep.contains(name),
                _ => name.starts_with('.') && name.ends_with(TEMPORARY),
            };
            for name in names.iter().filter(unneeded) {
                self.disk.remove(&path.join(name)).map_err(|source| self.failed("remove", name, source))?;
            }
        }
        Ok(())
    }

    fn link(&self, name: &str) -> Result<Option<Link>> {
        let wrong = |source| {
            Error::new(Kind::Integrity, format!("`{}` does not read", self.path.join(name).display()))
                .with_source(source)
        };
        let bytes = self.read(name, commit::LARGEST)?;
        bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(wrong)).transpose()
    }

    fn write_link(&self, name: &str, link: &Link) -> Result<()> {
        let text = serde_json::to_vec(link)
            .map_err(|source| Error::new(Kind::Failure, "cannot write what was seen").with_source(source))?;
        self.write(name, &text)
    }

    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        let mut bytes = Vec::with_capacity(COMMON);
        match self.disk.open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)) {
            Ok(_) if bytes.len() as u64 > limit => {
                Err(Error::new(Kind::Integrity, format!("`{}` is too large", path.display())))
            }
            Ok(_) => Ok(Some(bytes)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read", name, source)),
        }
    }

    /// Temporary file, fsync, rename, fsync of the directory.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (directory, last) = name.rsplit_once('/').unwrap_or(("", name));
        self.make(directory)?;
        let failed = |source| self.failed("write", name, source);
        let temporary = self.path.join(directory).join(format!(".{last}{TEMPORARY}"));
        let mut file = self.disk.create(&temporary).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync()).map_err(failed)?;
        drop(file);
        self.disk.rename(&temporary, &self.path.join(name)).map_err(failed)?;
        self.sync(directory)
    }

    fn make(&self, directory: &str) -> Result<()> {
        let path = self.path.join(directory);
        self.disk.make_directory(&path).map_err(|source| self.failed("make", directory, source))
    }

    fn sync(&self, directory: &str) -> Result<()> {
        let path = self.path.join(directory);
        self.disk.sync_directory(&path).map_err(|source| self.failed("write", directory, source))
    }

    fn failed(&self, action: &str, name: &str, source: io::Error) -> Error {
        let error = Error::io(action, &self.path.join(Path::new(name)), source);
        error.hint("nothing that was saved before is lost")
    }
}

/// An object that is being written, and has no name yet. Dropped, it leaves nothing.
pub struct Incoming<'l> {
    local: &'l Local<'l>,
    object: Object,
    directory: &'static str,
    temporary: String,
    file: Option<Box<dyn NewFile + 'l>>,
    hashing: Hashing<io::Sink>,
}

impl Incoming<'_> {
    /// Writes all that a reader has, which is hashed while the file is written.
    ///
    /// # Errors
    /// The reader's, and the file's.
    pub fn fill(&mut self, mut reader: impl BufRead) -> io::Result<()> {
        let (file, hashing) = (self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?, &mut self.hashing);
        let (read, written) = behind(file, |mut into| {
            loop {
                let length = match reader.fill_buf() {
                    Ok([]) => return into.flush(),
                    Ok(bytes) => {
                        into.write_all(bytes)?;
                        hashing.write_all(bytes)?;
                        bytes.len()
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                    Err(error) => return Err(error),
                };
                reader.consume(length);
            }
        })?;
        // Where that failed, the other says only that it could not go on.
        written.and(read)
    }

    /// Keeps it under its hash, which must be the expected one.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where it is another; where it cannot be kept.
    pub fn finish(mut self, expected: Option<&Hash>) -> Result<(Hash, u64)> {
        let failed = |source| self.local.failed("write", &self.temporary, source);
        let mut file = self.file.take().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let (hash, size, _) = std::mem::replace(&mut self.hashing, Hashing::new(io::sink())).finish();
        let named = if let Some(expected) = expected.filter(|expected| **expected != hash) {
            let key = self.object.key(expected);
            let what = format!("what came as `{key}` is something else");
            Err(Error::new(Kind::Integrity, what)
                .hint("it is damaged, or somebody has put another in its place: it was not taken"))
        } else {
            file.sync().map_err(failed).and_then(|()| {
                let path = self.local.path.join(&self.temporary);
                self.local.disk.rename(&path, &self.local.path.join(self.object.key(&hash))).map_err(failed)
            })
        };
        drop(file);
        if named.is_err() {
            self.discard();
        }
        named?;
        self.local.sync(self.directory)?;
        Ok((hash, size))
    }

    fn discard(&self) {
        // The error that counts is the one that led here.
        let _ = self.local.disk.remove(&self.local.path.join(&self.temporary));
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            self.discard();
        }
    }
}

impl Write for Incoming<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(bytes)?;
        self.hashing.write_all(bytes.get(..count).unwrap_or_default())?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
