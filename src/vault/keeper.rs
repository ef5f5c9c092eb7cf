//! The open vault: a tree in RAM, and what it takes to save it. The agent keeps it; no I/O but on two directories.
//!
//! What is kept after unlocking seals and signs. It does not open anything: the identity is dropped once the tree is out.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::archive::{self, Extracted, Limits, Packed};
use super::commit::{Commit, Draft, Link, Reason};
use super::disk::Disk;
use super::hashing::Hashing;
use super::id::{Hash, VaultId};
use super::key::{Identity, Recipient, Signer};
use super::local::{Local, Object};
use super::tree::{Entry, Kind as EntryKind, Root, Tree};
use crate::error::{Error, Kind, Result};

/// Directories of the home that lead into the open vault if nothing else is said, where the home has nothing of that name.
pub const LINKED: &[&str] = &[".aws", ".kube", ".ssh", ".gnupg", ".config/gcloud", ".config/gh"];
/// What trees are called that are not yet, or no longer, the open one; followed by a number.
const BESIDE: &str = ".vault-";
/// How often a save is begun again because files changed meanwhile.
const TRIES: u32 = 3;
/// A save with less than this part of the files that were there is not made current by itself.
const SHRUNK: u64 = 4;

/// How long the host may take for what was handed over, before it is saved by itself all the same.
const TAKING: Duration = Duration::from_secs(20);
/// How much of a sealed generation is taken at a time, in bytes: each time whoever sends it is woken up.
const PIECE: usize = 512 << 10;

/// What the keeper is told to open.
#[derive(Serialize, Deserialize)]
pub struct Opening {
    /// The vault's identity, `AGE-SECRET-KEY-1…`. Forgotten once the tree is out.
    pub identity: String,
    /// The commit that is opened.
    pub head: Link,
    /// Its sealed generation …
    pub generation: Hash,
    /// … and that one's size in bytes.
    pub size: u64,
    /// The keyring that its commits go on naming.
    pub keys: Hash,
    /// The same for other recipients.
    pub recipients: Option<Hash>,
    /// What commits call this machine.
    pub host: String,
    /// The pod that has it open already: what is saved here is held, so that the two do not fork.
    #[serde(default)]
    pub elsewhere: Option<String>,
    /// Directories of the home that lead into it.
    pub links: Vec<PathBuf>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.identity.zeroize();
    }
}

/// What became of a save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "saved")]
pub enum Saved {
    /// Nothing has changed.
    Unchanged,
    /// A commit, which waits to be pushed.
    Made {
        /// Its number.
        n: u64,
        /// Files in it.
        files: u64,
        /// Bytes of those.
        bytes: u64,
        /// What is not in it, with the reason.
        skipped: Vec<String>,
    },
    /// Kept, and neither current nor pushed, because it looks wrong, or another pod had the vault open first.
    Held {
        /// Why.
        why: String,
        /// Whether it is for the other pod: then no force makes it current.
        #[serde(default)]
        elsewhere: bool,
    },
}

/// What became of a save that goes to the host itself, past the spool.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "handed")]
pub enum Handed {
    /// Nothing has changed.
    Unchanged,
    /// The sealed generation was sent. It is saved once the host has it, and this commit.
    Sent {
        /// The commit, as it is written.
        commit: String,
        /// What has come of it then.
        saved: Saved,
    },
    /// It is for an ordinary save: it may have to be held, or not all of it can be read.
    Not,
}

/// What is to be added to the open tree, in memory; removed when dropped.
#[derive(Debug)]
pub struct Stage {
    vault: VaultId,
    path: PathBuf,
}

impl Stage {
    /// Takes what a [`Packer`](archive::Packer) has packed.
    ///
    /// # Errors
    /// Where it does not arrive whole, or there is no room for it.
    pub fn fill(&self, packed: impl Read + Send, limits: Limits) -> Result<Extracted> {
        archive::extract(packed, &root(&self.path)?, limits).map_err(|error| {
            if error.kind() != Kind::Integrity {
                return error;
            }
            Error::new(Kind::Integrity, "what is to be added did not arrive whole").with_source(error)
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left is cleared away when the vault is locked.
        let _ = remove_tree(&self.path);
    }
}

/// One entry of the open tree, to be listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// From the root. Bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What it is.
    pub kind: ListedKind,
    /// Of a file, in bytes.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// Modified, in seconds since 1970.
    pub modified: i64,
}

/// What a listed entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListedKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A link, and where it leads.
    Link(String),
}

struct Open {
    vault: VaultId,
    recipient: Recipient,
    signer: Signer,
    keys: Hash,
    recipients: Option<Hash>,
    host: String,
    /// As [`Opening::elsewhere`].
    elsewhere: Option<String>,
    /// The tree as it was saved last.
    saved: Known,
    /// What of the tree is not in that save, where it was forced.
    unsaved: Option<String>,
    /// The newest save that is held: one is enough.
    held: Option<Held>,
    /// What was sent to the host last, until it says whether it has it.
    handed: Option<Sent>,
    /// What was removed by [`Keeper::remove`] since: it is meant to be gone.
    removed: BTreeSet<PathBuf>,
}

/// A tree as it was, and what was in it.
struct Known {
    tree: Tree,
    /// As [`Packed::sums`].
    sums: Vec<u32>,
}

impl Known {
    /// Whether `found`, the tree at `root`, is still this one. Where that is `closely` looked at, its files are read:
    /// no time tells what a program writes to a page that it has mapped already.
    fn is_still(&self, found: &Tree, root: &Root, closely: bool) -> bool {
        let is_same = |(entry, sum): (&Entry, &u32)| match entry.kind {
            // What cannot be read was not saved, which is told elsewhere.
            EntryKind::File(size) => archive::sum(root, &entry.path, size).map_or(true, |now| now == *sum),
            EntryKind::Directory | EntryKind::Link(_) => true,
        };
        found.entries == self.tree.entries && (!closely || found.entries.iter().zip(&self.sums).all(is_same))
    }
}

/// What a save is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To have it, every now and then.
    ByItself,
    /// To have it now, all of it.
    Asked,
    /// To take the tree away, if all of it is in the save.
    Lock,
    /// The pod ends, whatever is in it: as much as can be.
    End,
}

/// The files of a tree.
#[derive(Clone, Copy, Default)]
struct Count {
    all: u64,
    /// Those that are not empty.
    filled: u64,
}

impl Count {
    fn of(tree: &Tree) -> Count {
        Count::without(tree, &BTreeSet::new())
    }

    /// Without what is at or below these.
    fn without(tree: &Tree, gone: &BTreeSet<PathBuf>) -> Count {
        let mut count = Count::default();
        for entry in &tree.entries {
            if let EntryKind::File(size) = entry.kind
                && !entry.path.ancestors().any(|above| gone.contains(above))
            {
                count.all += 1;
                count.filled += u64::from(size > 0);
            }
        }
        count
    }

    /// What is left, where that is so little that it is not to be current by itself.
    fn shrunk_to(self, now: Count) -> Option<String> {
        let lost = |before: u64, now: u64| before > 0 && now * SHRUNK <= before;
        if lost(self.all, now.all) {
            return Some(format!("it has {} of {} files", now.all, self.all));
        }
        let why = || format!("{} of {} files are not empty", now.filled, self.filled);
        lost(self.filled, now.filled).then(why)
    }
}

impl Open {
    /// The commit of a save.
    fn commit(&self, at: Option<&Link>, (generation, size): (Hash, u64), time: &str) -> Result<Commit> {
        let draft = Draft {
            generation,
            size,
            keys: self.keys,
            recipients: self.recipients,
            kind: Reason::Save,
            second_parent: None,
            host: self.host.clone(),
            time: time.to_owned(),
        };
        Commit::write(self.vault, at, draft, &self.signer, None)
    }

    fn is_handing_over(&self) -> bool {
        self.handed.as_ref().is_some_and(|sent| sent.at.elapsed() < TAKING)
    }
}

/// What the host may have.
struct Sent {
    commit: Commit,
    known: Known,
    /// What it takes the place of.
    replaced: Option<Hash>,
    /// As in [`Open`], at that time.
    held: Option<Hash>,
    removed: BTreeSet<PathBuf>,
    at: Instant,
}

/// What has come of a save.
fn made(commit: &Commit, found: &Tree, unreadable: &[PathBuf], torn: &[PathBuf]) -> Saved {
    let skipped =
        found.skipped.iter().map(|skipped| format!("`{}`: {}", skipped.path.display(), skipped.why));
    let unread = unreadable.iter().map(|path| format!("`{}`: cannot be read", path.display()));
    let torn = torn.iter().map(|path| format!("`{}`: changed while it was read", path.display()));
    let skipped = skipped.chain(unread).chain(torn).collect();
    Saved::Made { n: commit.body.n, files: found.files(), bytes: found.bytes(), skipped }
}

/// A save that looked wrong.
struct Held {
    commit: Hash,
    known: Known,
    why: String,
    /// Whether all of the tree is in it.
    whole: bool,
    /// Whether it is of an attempt to lock or to end: there may be many of these.
    closing: bool,
}

/// The two directories, and the open vault, if one is.
pub struct Keeper {
    /// The spool's.
    disk: &'static dyn Disk,
    /// In RAM; the open tree is `open` in it.
    memory: PathBuf,
    /// On the host's disk: ciphertext alone.
    spool: PathBuf,
    home: PathBuf,
    /// As [`Opening::links`] of the last unlock.
    links: Vec<PathBuf>,
    open: Option<Open>,
}

impl Keeper {
    /// With nothing open.
    pub fn new(disk: &'static dyn Disk, memory: PathBuf, spool: PathBuf, home: PathBuf) -> Keeper {
        Keeper { disk, memory, spool, home, links: Vec::new(), open: None }
    }

    /// Where the open tree is.
    pub fn tree(&self) -> PathBuf {
        self.memory.join("open")
    }

    /// The vault that is open.
    pub fn vault(&self) -> Option<VaultId> {
        self.open.as_ref().map(|open| open.vault)
    }

    /// Whether another pod had it open first, so that saves are held.
    pub fn is_beside(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.elsewhere.is_some())
    }

    /// Whether this pod has a place for an open vault.
    pub fn has_memory(&self) -> bool {
        const TMPFS_MAGIC: i64 = 0x0102_1994; // statfs(2)
        rustix::fs::statfs(&self.memory).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
    }

    fn local(&self) -> Local<'static> {
        Local::new(self.disk, self.spool.clone())
    }

    /// Opens a sealed generation.
    ///
    /// # Errors
    /// [`Kind::Locked`] where one is open; [`Kind::Integrity`] where it is not what `opening` says. Nothing has changed then.
    pub fn unlock(
        &mut self,
        opening: Opening,
        sealed: impl Read + Send,
        limits: Limits,
    ) -> Result<Extracted> {
        if let Some(open) = &self.open {
            return Err(Error::new(
                Kind::Locked,
                format!("the vault {} is open in this pod already", open.vault),
            ));
        }
        let identity = Identity::parse(&opening.identity)?;
        let signer = identity.signer(&opening.head.vault)?;
        if signer.id() != opening.head.vk {
            return Err(Error::new(
                Kind::Integrity,
                "the vault's newest commit is signed by another key than its keyring's",
            ));
        }
        let local = self.local();
        for left in local.load()?.outbox {
            let (n, vault) = (left.commit.body.n, left.commit.body.vault);
            if vault != opening.head.vault {
                let what = format!("this pod has saved commit {n} of another vault, {vault}");
                return Err(Error::new(Kind::Conflict, what).hint(
                    "where this machine has that one again, `tazpod vault push` collects it; other pods can open this one",
                ));
            }
            if n > opening.head.n {
                return Err(Error::new(Kind::Conflict, format!("commit {n} of this pod was not collected"))
                    .hint("`tazpod vault push` collects it"));
            }
        }
        // What cannot be removed is not in the way.
        let _ = self.clear_leftovers();
        let fresh = self.beside()?;
        private_directory(&fresh)?;
        let opened = extract(&identity, &opening, sealed, &fresh, limits);
        let (extracted, saved) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = remove_tree(&fresh);
                return Err(error);
            }
        };
        local.pin(&opening.head)?;
        self.swap_in(&fresh)?;
        // From here on it is open, whatever else fails.
        self.open = Some(Open {
            vault: opening.head.vault,
            recipient: identity.recipient(),
            signer,
            keys: opening.keys,
            recipients: opening.recipients,
            host: opening.host.clone(),
            elsewhere: opening.elsewhere.clone(),
            saved,
            unsaved: None,
            held: None,
            handed: None,
            removed: BTreeSet::new(),
        });
        self.links.clone_from(&opening.links);
        // Written through links of the home while the vault was locked: what the vault has not is carried over.
        carry_over(&fresh, &self.tree());
        // What cannot be removed is not the vault's.
        let _ = remove_tree(&fresh);
        self.link_home();
        Ok(extracted)
    }

    /// The fresh tree and what was there while the vault was locked change places.
    fn swap_in(&self, fresh: &Path) -> Result<()> {
        let tree = self.tree();
        let failed = |source: io::Error| Error::io("open the vault at", &tree, source);
        match renameat_with(CWD, fresh, CWD, &tree, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::NOENT) => fs::rename(fresh, &tree).map_err(failed),
            Err(source) => Err(failed(source.into())),
        }
    }

    /// A name in memory that no program can have taken.
    fn beside(&self) -> Result<PathBuf> {
        let random = VaultId::random().map_err(|source| {
            Error::new(Kind::Failure, "the system has no randomness").with_source(source)
        })?;
        Ok(self.memory.join(format!("{BESIDE}{random}")))
    }

    /// Of crashes, and of files that could not be removed then. Nothing is open now.
    fn clear_leftovers(&self) -> Result<()> {
        let mut outcome = Ok(());
        for entry in fs::read_dir(&self.memory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(BESIDE) {
                outcome = outcome.and(remove_tree(&entry.path()));
            }
        }
        outcome
    }

    /// Home's directories lead into the vault where it has them. What the home has of its own stays.
    fn link_home(&self) {
        for name in &self.links {
            let (target, link) = (self.tree().join(name), self.home.join(name));
            if target.is_dir() && fs::symlink_metadata(&link).is_err() {
                if let Some(above) = link.parent() {
                    let _ = fs::create_dir_all(above);
                }
                // A home that cannot be written has no links.
                let _ = symlink(&target, &link);
            }
        }
    }

    /// Saves what has changed since the last save, as a commit in the spool. With `force` even what looks wrong.
    ///
    /// # Errors
    /// [`Kind::Locked`] where nothing is open; where the spool cannot be written: then the last save stays the newest.
    pub fn save(&mut self, force: bool, time: &str) -> Result<Saved> {
        let tree = self.tree();
        self.save_from(&tree, force, Purpose::Asked, time)
    }

    /// The same, without reading what has not changed by any sign.
    ///
    /// # Errors
    /// As [`Keeper::save`].
    pub fn save_by_itself(&mut self, time: &str) -> Result<Saved> {
        let tree = self.tree();
        self.save_from(&tree, false, Purpose::ByItself, time)
    }

    /// Saves as much as can be before the pod ends: beside what is held already, if that is something else.
    ///
    /// # Errors
    /// As [`Keeper::save`].
    pub fn save_at_end(&mut self, time: &str) -> Result<Saved> {
        let tree = self.tree();
        self.save_from(&tree, false, Purpose::End, time)
    }

    /// Seals what has changed since the last save, for the host: as a commit that counts once [`Keeper::taken`] says so. `into` opens
    /// what it is written to, for a tree of so many bytes.
    ///
    /// # Errors
    /// [`Kind::Locked`] where nothing is open; where that cannot be opened or written.
    pub fn hand_over<W: Write + Send>(
        &mut self,
        force: bool,
        into: impl FnOnce(u64) -> Result<W>,
        time: &str,
    ) -> Result<Handed> {
        let tree = self.tree();
        let local = self.local();
        let open = self.open.as_mut().ok_or_else(locked)?;
        let root = root(&tree)?;
        let found = Tree::scan(&root).map_err(|source| Error::io("read", &tree, source))?;
        if open.saved.is_still(&found, &root, true) {
            return Ok(Handed::Unchanged);
        }
        let before = Count::without(&open.saved.tree, &open.removed);
        let may_be_held = open.elsewhere.is_some()
            || found.skipped.iter().any(|skipped| skipped.lost)
            || (!force
                && (open.held.is_some()
                    || before.shrunk_to(Count::without(&found, &open.removed)).is_some()));
        if may_be_held || Limits::default().are_exceeded_by(&found) {
            return Ok(Handed::Not);
        }
        let mut into = Hashing::new(into(found.bytes())?);
        let Packed { torn, unreadable, sums, .. } = archive::seal(&root, &found, &open.recipient, &mut into)?;
        if !torn.is_empty() || !unreadable.is_empty() {
            return Ok(Handed::Not);
        }
        let (hash, size, _) = into.finish();
        let state = local.load()?;
        let commit = open.commit(state.base.as_ref(), (hash, size), time)?;
        let replaced = state.outbox.last().filter(|last| !last.attempted).map(|last| last.commit.hash);
        let text = String::from_utf8_lossy(&commit.bytes).into_owned();
        let saved = made(&commit, &found, &[], &[]);
        let known = Known { tree: found, sums };
        let (held, removed) = (open.held.as_ref().map(|held| held.commit), open.removed.clone());
        open.handed = Some(Sent { commit, known, replaced, held, removed, at: Instant::now() });
        Ok(Handed::Sent { commit: text, saved })
    }

    /// Whether the host is about to say if it has what was sent to it.
    pub fn is_handing_over(&self) -> bool {
        self.open.as_ref().is_some_and(Open::is_handing_over)
    }

    /// What of the tree is in no save, after one that this came of.
    pub fn lacks(&self, saved: &Saved) -> Option<String> {
        let open = self.open.as_ref()?;
        let held = open.held.as_ref().filter(|held| matches!(saved, Saved::Held { .. }) && !held.whole);
        open.unsaved.clone().or_else(|| held.map(|held| held.why.clone()))
    }

    fn save_from(&mut self, tree: &Path, force: bool, purpose: Purpose, time: &str) -> Result<Saved> {
        let closing = purpose == Purpose::Lock;
        let closely = purpose != Purpose::ByItself;
        let goes_on = matches!(purpose, Purpose::ByItself | Purpose::Asked);
        let local = self.local();
        let open = self.open.as_mut().ok_or_else(locked)?;
        if purpose == Purpose::ByItself && open.is_handing_over() {
            // It is about to be saved.
            return Ok(Saved::Unchanged);
        }
        let root = root(tree)?;
        let before = Count::without(&open.saved.tree, &open.removed);
        let mut tries = 0;
        let (found, hash, size, unreadable, torn, sums) = loop {
            let found = Tree::scan(&root).map_err(|source| Error::io("read", tree, source))?;
            if open.saved.is_still(&found, &root, closely) {
                return match open.unsaved.as_deref().filter(|_| closing && !force) {
                    Some(why) => Err(incomplete_at_lock(why)),
                    None => Ok(Saved::Unchanged),
                };
            }
            if let Some(held) = open.held.as_ref().filter(|_| !force || open.elsewhere.is_some()) {
                // The first of those that have shrunk has the most in it: later ones do not replace it before the lock.
                let enough = held.known.is_still(&found, &root, closely)
                    || (goes_on
                        && held.whole
                        && open.elsewhere.is_none()
                        && before.shrunk_to(Count::without(&found, &open.removed)).is_some());
                if enough && (held.whole || !closing) {
                    return Ok(Saved::Held { why: held.why.clone(), elsewhere: open.elsewhere.is_some() });
                }
            }
            let limits = Limits::default();
            if limits.are_exceeded_by(&found) {
                // It could not be opened again.
                let what = format!(
                    "the vault has more than {} GiB, or than {} entries",
                    limits.bytes >> 30,
                    limits.entries
                );
                return Err(Error::new(Kind::Failure, what)
                    .hint("remove what is too large; nothing is saved until then"));
            }
            tries += 1;
            let mut incoming = local.incoming(Object::Generation)?;
            let Packed { torn, unreadable, sums, .. } =
                archive::seal(&root, &found, &open.recipient, &mut incoming)?;
            if !torn.is_empty() && tries < TRIES {
                continue;
            }
            if let Some(path) = torn.first().filter(|_| closing && !force) {
                return Err(busy_at_lock(&format!("`{}` changes", path.display())));
            }
            let (hash, size) = incoming.finish(None)?;
            break (found, hash, size, unreadable, torn, sums);
        };
        let unlisted = found.skipped.iter().find(|skipped| skipped.lost);
        let unlisted = unlisted.map(|skipped| format!("`{}` {}", skipped.path.display(), skipped.why));
        let unread = unreadable.first().map(|path| format!("`{}` cannot be read", path.display()));
        let incomplete = unlisted.or(unread);
        if let Some(why) = incomplete.as_ref().filter(|_| closing && !force) {
            return Err(incomplete_at_lock(why));
        }
        let why = match (&incomplete, &open.elsewhere) {
            (_, Some(pod)) => Some(format!("the vault was open in `{pod}` first")),
            _ if force => None,
            (Some(why), None) => Some(why.clone()),
            (None, None) => before.shrunk_to(Count::without(&found, &open.removed)),
        };
        let state = local.load()?;
        let commit = open.commit(state.base.as_ref(), (hash, size), time)?;
        if let Some(why) = why {
            local.hold(&commit)?;
            let held = Held {
                commit: commit.hash,
                known: Known { tree: found, sums },
                why: why.clone(),
                whole: incomplete.is_none(),
                closing: !goes_on,
            };
            // One that lacked something is worth no more than the next; beside another pod, and of attempts to lock, the newest counts,
            // if it has not lost what the one before has.
            let (beside, whole, count) = (open.elsewhere.is_some(), held.whole, Count::of(&held.known.tree));
            let has_shrunk = |before: &Held| Count::of(&before.known.tree).shrunk_to(count).is_some();
            let worthless =
                |before: &Held| !before.whole || ((beside || before.closing) && whole && !has_shrunk(before));
            if let Some(before) = open.held.replace(held).filter(worthless) {
                local.let_go(&before.commit)?;
                local.tidy(&[])?;
            }
            return Ok(Saved::Held { why, elsewhere: beside });
        }
        local.append(&state, &commit)?;
        let made = made(&commit, &found, &unreadable, &torn);
        // Of the save that this one replaces.
        local.tidy(&[])?;
        open.saved = Known { tree: found, sums };
        open.unsaved = incomplete;
        open.held = None;
        open.removed.clear();
        Ok(made)
    }

    /// The open tree as it is now; nothing where none is open.
    ///
    /// # Errors
    /// Where it cannot be listed.
    pub fn look(&self) -> Result<Tree> {
        if self.open.is_none() {
            return Ok(Tree::default());
        }
        let tree = self.tree();
        Tree::scan(&root(&tree)?).map_err(|source| Error::io("read", &tree, source))
    }

    /// What is in the open tree, sorted by path.
    ///
    /// # Errors
    /// [`Kind::Locked`] where nothing is open.
    pub fn list(&self) -> Result<Vec<Listed>> {
        if self.open.is_none() {
            return Err(locked());
        }
        let listed = |entry: super::tree::Entry| Listed {
            path: entry.path.to_string_lossy().into_owned(),
            size: if let EntryKind::File(size) = entry.kind { size } else { 0 },
            kind: match entry.kind {
                EntryKind::Directory => ListedKind::Directory,
                EntryKind::File(_) => ListedKind::File,
                EntryKind::Link(target) => ListedKind::Link(target.to_string_lossy().into_owned()),
            },
            mode: entry.mode,
            modified: entry.modified.0,
        };
        Ok(self.look()?.entries.into_iter().map(listed).collect())
    }

    /// A place in memory for what is to be added.
    ///
    /// # Errors
    /// [`Kind::Locked`] where nothing is open.
    pub fn stage(&self) -> Result<Stage> {
        let vault = self.vault().ok_or_else(locked)?;
        let path = self.beside()?;
        private_directory(&path)?;
        Ok(Stage { vault, path })
    }

    /// Adds what was staged, once nothing is in the way. What is there is replaced only if `replace`.
    ///
    /// # Errors
    /// [`Kind::Locked`] where the vault was locked meanwhile; [`Kind::Conflict`] where something is in the way.
    pub fn add(&mut self, stage: &Stage, replace: bool) -> Result<()> {
        if self.vault() != Some(stage.vault) {
            return Err(locked());
        }
        // What cannot be entered cannot be moved.
        open_up(&stage.path);
        let (from, to) = (root(&stage.path)?, root(&self.tree())?);
        let found = Tree::scan(&from).map_err(|source| Error::io("read", &stage.path, source))?;
        move_in(&from, &to, &found, replace)?;
        self.link_home();
        Ok(())
    }

    /// Removes entries of the open tree; directories with all that is in them only if `recursive`. Nothing is removed where
    /// one of them is not there.
    ///
    /// # Errors
    /// [`Kind::Locked`] where nothing is open; [`Kind::Usage`] for what is not there.
    pub fn remove(&mut self, paths: &[PathBuf], recursive: bool) -> Result<()> {
        if self.open.is_none() {
            return Err(locked());
        }
        let tree = self.tree();
        let root = root(&tree)?;
        let mut found = Vec::new();
        for path in paths {
            let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
            let gone = |source: io::Error| {
                let error = Error::new(Kind::Usage, format!("`{}` is not in the vault", path.display()))
                    .with_source(source)
                    .hint("`tazpod vault ls` lists what is");
                match path.to_string_lossy().contains(char::REPLACEMENT_CHARACTER) {
                    true => error.hint("it shows bytes that are no UTF-8 as `\u{fffd}`: in the pod `ls -b` shows them, and a pattern (`caf?`) names them"),
                    false => error,
                }
            };
            let (above, name) = match plain.components().all(|part| matches!(part, Component::Normal(_))) {
                true => root.parent(&plain).map_err(gone)?,
                false => return Err(gone(io::ErrorKind::InvalidInput.into())),
            };
            let name = name.to_owned();
            let stat = rustix::fs::statat(&above, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|source| gone(source.into()))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && !recursive {
                return Err(Error::new(Kind::Usage, format!("`{}` is a directory", path.display()))
                    .hint("`--recursive` removes it with all that is in it"));
            }
            found.push((above, name, plain));
        }
        let mut outcome = Ok(());
        for (above, name, plain) in found {
            // First out of sight, whole; then gone.
            let aside = self.beside()?;
            let removed = match rustix::fs::renameat(&above, &name, CWD, &aside) {
                Ok(()) => {
                    if let Some(open) = &mut self.open
                        && open.saved.tree.entries.binary_search_by(|entry| entry.path.cmp(&plain)).is_ok()
                    {
                        open.removed.insert(plain);
                    }
                    remove_tree(&aside).map_err(left_in_memory)
                }
                // Below another one that was named.
                Err(rustix::io::Errno::NOENT) => Ok(()),
                Err(source) => Err(Error::io("remove", Path::new(&name), source.into())),
            };
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// The commits that wait become final: the next save follows them. The host collects them then.
    ///
    /// # Errors
    /// Where that cannot be recorded.
    pub fn freeze(&self) -> Result<()> {
        let local = self.local();
        local.load()?.outbox.iter().try_for_each(|outgoing| local.mark_attempted(&outgoing.commit))
    }

    /// The host's newest commit is `tip`: what was sent by [`Keeper::hand_over`] is saved if it is that, and else forgotten.
    ///
    /// # Errors
    /// Where that cannot be recorded: it can be said again.
    pub fn taken(&mut self, tip: Option<Hash>) -> Result<()> {
        let is_tip = |sent: &Sent| Some(sent.commit.hash) == tip;
        let sent = self.open.as_mut().and_then(|open| open.handed.take()).filter(is_tip);
        sent.map_or(Ok(()), |sent| self.land(sent))
    }

    /// The host has this, and what it stands on.
    fn land(&mut self, sent: Sent) -> Result<()> {
        let before = self.collected(sent.commit.body.n.saturating_sub(1));
        let local = self.local();
        let Some(open) = &mut self.open else { return Ok(()) };
        let again = |link: &Link, since: &Commit| {
            open.commit(Some(link), (since.body.generation, since.body.size), &since.body.time)
        };
        match before.and_then(|()| local.land(&sent.commit, sent.replaced, again)) {
            Ok(true) => {
                open.saved = sent.known;
                open.unsaved = None;
                open.held.take_if(|held| Some(held.commit) == sent.held);
                open.removed.retain(|path| !sent.removed.contains(path));
            }
            Ok(false) => {}
            Err(error) => {
                open.handed = Some(sent);
                return Err(error);
            }
        }
        // Of the save that this one replaces.
        local.tidy(&[])
    }

    /// The host has all commits up to number `n`.
    ///
    /// # Errors
    /// Where that cannot be recorded.
    pub fn collected(&self, n: u64) -> Result<()> {
        let local = self.local();
        let state = local.load()?;
        let mut seen = state.seen;
        for outgoing in state.outbox.iter().take_while(|outgoing| outgoing.commit.body.n <= n) {
            let link = Link::next(seen.as_ref(), &outgoing.commit)?;
            local.advance(&link, &outgoing.commit)?;
            seen = Some(link);
        }
        Ok(())
    }

    /// Removes generations that the host has.
    ///
    /// # Errors
    /// Where one cannot be removed.
    pub fn tidy(&self) -> Result<()> {
        self.local().tidy(&[])
    }

    /// Saves, and takes the tree away: files, keys, and all.
    ///
    /// # Errors
    /// Where not everything could be saved: then the vault is open as before. Where something could not be removed: then
    /// it is locked, and that is left.
    pub fn lock(&mut self, force: bool, time: &str) -> Result<Saved> {
        let tree = self.tree();
        let mut saved = self.save_from(&tree, force, Purpose::Lock, time)?;
        let closing = self.beside()?;
        // Nobody finds it by its name any more; who works in it still may write.
        fs::rename(&tree, &closing).map_err(|source| Error::io("close", &tree, source))?;
        let mut failed = (!force).then(|| busy_at_lock("files change"));
        for _ in 0..TRIES {
            match self.save_from(&closing, force, Purpose::Lock, time) {
                Ok(Saved::Unchanged) => failed = None,
                Ok(more) => {
                    saved = more;
                    if !matches!(saved, Saved::Held { .. }) || !self.has_held(&closing) {
                        continue;
                    }
                    failed = None;
                }
                Err(error) => failed = Some(error),
            }
            break;
        }
        if let Some(error) = failed {
            // Somebody may have made a directory of that name meanwhile.
            renameat_with(CWD, &closing, CWD, &tree, RenameFlags::EXCHANGE)
                .or_else(|_| renameat_with(CWD, &closing, CWD, &tree, RenameFlags::empty()))
                .map_err(|source| Error::io("open again", &tree, source.into()))?;
            carry_over(&closing, &tree);
            return Err(error);
        }
        self.open = None;
        let removed = remove_tree(&closing);
        // What could not be removed before, by `rm` say, is not left either.
        let others = self.clear_leftovers();
        self.leave_targets();
        removed.and(others).map_err(|error| {
            error.hint("the vault is saved and locked, but this is left in the pod's memory: `sudo rm -r` removes it")
        })?;
        Ok(saved)
    }

    /// Whether the save that is held has all of this tree as it is.
    fn has_held(&self, tree: &Path) -> bool {
        let held = self.open.as_ref().and_then(|open| open.held.as_ref());
        let found = Root::open(tree).and_then(|root| Ok((Tree::scan(&root)?, root)));
        held.zip(found.ok()).is_some_and(|(held, (found, root))| held.known.is_still(&found, &root, true))
    }

    /// While the vault is locked the home's links lead to empty directories: their tools fail on nothing.
    fn leave_targets(&self) {
        for name in &self.links {
            let target = self.tree().join(name);
            if fs::read_link(self.home.join(name)).is_ok_and(|found| found == target) {
                // Where a program has put something else in the way, its tools fail on that.
                let _ = private_directory(&target);
            }
        }
    }
}

/// Moves everything of one tree into another, once nothing is in the way. No link is followed.
fn move_in(from: &Root, to: &Root, tree: &Tree, replace: bool) -> Result<()> {
    let mut there = BTreeSet::new();
    for entry in &tree.entries {
        let in_the_way = |what: &str| {
            Error::new(Kind::Conflict, format!("`{}` {what}; nothing was added", entry.path.display()))
        };
        let existing = match to.parent(&entry.path) {
            Ok((above, name)) => rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW),
            Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(in_the_way("leads through a link or a file").with_source(source)),
        };
        match existing {
            Err(rustix::io::Errno::NOENT) => continue,
            Err(source) => return Err(in_the_way("cannot be looked at").with_source(io::Error::from(source))),
            Ok(stat) => {
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                match (&entry.kind, is_directory) {
                    (EntryKind::Directory, true) => drop(there.insert(&entry.path)),
                    (EntryKind::Directory, false) => {
                        return Err(in_the_way("is a file or a link in the vault"));
                    }
                    (_, true) => return Err(in_the_way("is a directory in the vault")),
                    (_, false) if replace => {}
                    (_, false) => {
                        return Err(in_the_way("is in the vault already").hint("`--force` replaces it"));
                    }
                }
            }
        }
    }
    for entry in &tree.entries {
        let moved = || -> io::Result<()> {
            let (above, name) = to.parent(&entry.path)?;
            if entry.kind == EntryKind::Directory {
                if !there.contains(&entry.path) {
                    rustix::fs::mkdirat(&above, name, Mode::RWXU)?;
                }
                return Ok(());
            }
            let (before, _) = from.parent(&entry.path)?;
            let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
            Ok(renameat_with(before, name, above, name, flags)?)
        };
        moved().map_err(|source| Error::io("add", &entry.path, source))?;
    }
    Ok(())
}

/// What is not saved must not be removed.
fn incomplete_at_lock(why: &str) -> Error {
    Error::new(Kind::Conflict, format!("not everything can be saved: {why}"))
        .hint("make it readable (`sudo chown`), or remove it; `--force` locks without it")
}

/// What is written after the last save would be lost.
fn busy_at_lock(what: &str) -> Error {
    Error::new(Kind::Conflict, format!("the vault is not locked: {what} while it is saved"))
        .hint("end the program that writes there; `--force` locks all the same")
}

fn left_in_memory(error: Error) -> Error {
    error.hint("this is left in the pod's memory: `sudo rm -r` removes it")
}

/// A generation's tree, in this directory. The recipient is no secret: only by its hash is it known to be the one that was signed.
fn extract(
    identity: &Identity,
    opening: &Opening,
    sealed: impl Read + Send,
    into: &Path,
    limits: Limits,
) -> Result<(Extracted, Known)> {
    let root = root(into)?;
    let sealed = BufReader::with_capacity(PIECE, sealed.take(opening.size));
    let mut sealed = Hashing::new(sealed);
    let mut extracted = archive::extract(identity.open(&mut sealed)?, &root, limits)?;
    if sealed.finish().0 != opening.generation {
        return Err(Error::new(Kind::Integrity, "what was opened is not the commit's generation"));
    }
    let tree = Tree::scan(&root).map_err(|source| Error::io("read", into, source))?;
    let sums = std::mem::take(&mut extracted.sums);
    let sums = tree.entries.iter().map(|entry| sums.get(&entry.path).copied().unwrap_or_default()).collect();
    Ok((extracted, Known { tree, sums }))
}

fn locked() -> Error {
    Error::new(Kind::Locked, "the vault is locked").hint("`tazpod vault unlock` opens it, from the host")
}

fn root(path: &Path) -> Result<Root> {
    Root::open(path).map_err(|source| Error::io("open", path, source))
}

fn private_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::io("make the directory", path, source))
}

/// Removes a tree of ours, directories without permissions for us included.
///
/// # Errors
/// Where something of it is not ours.
pub fn remove_tree(path: &Path) -> Result<()> {
    let failed = |source| Error::io("remove", path, source);
    match fs::symlink_metadata(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if !found.is_dir() => return fs::remove_file(path).map_err(failed),
        _ => {}
    }
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    open_up(path);
    fs::remove_dir_all(path).map_err(failed)
}

fn open_up(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Moves what `to` lacks from `from`, as far as that can be done.
fn carry_over(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        match fs::symlink_metadata(&target) {
            Err(_) => drop(fs::rename(entry.path(), &target)),
            Ok(found) if found.is_dir() && entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                carry_over(&entry.path(), &target);
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use rustix::fs::OFlags;

    use super::*;
    use crate::vault::disk::{NewFile, RealDisk};
    use crate::vault::key::Keyring;
    use crate::vault::sim::{Power, SimDisk, Survives};

    const VAULT: VaultId = VaultId([4; 16]);
    const TIME: &str = "2026-01-01T00:00:00Z";

    /// A pod, and the host beside it.
    pub(crate) struct Pod {
        directory: tempfile::TempDir,
        keyring: Keyring,
        pub(crate) keeper: Keeper,
    }

    impl Pod {
        pub(crate) fn new() -> Pod {
            Pod::on(&RealDisk::SHARED)
        }

        fn on(disk: &'static dyn Disk) -> Pod {
            let directory = tempfile::tempdir().unwrap();
            for name in ["memory", "home"] {
                fs::create_dir(directory.path().join(name)).unwrap();
            }
            let at = |name: &str| directory.path().join(name);
            let keeper = Keeper::new(disk, at("memory"), at("spool"), at("home"));
            Pod { keeper, keyring: Keyring::generate(VAULT).unwrap(), directory }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        pub(crate) fn write(&self, name: &str, text: &str) {
            let path = self.keeper.tree().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.keeper.tree().join(name)).ok()
        }

        pub(crate) fn spool(&self) -> Local<'static> {
            self.keeper.local()
        }

        /// A sealed tree of these files.
        fn sealed(&self, files: &[&str]) -> Vec<u8> {
            let tree = tempfile::tempdir().unwrap();
            for name in files {
                let path = tree.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, *name).unwrap();
            }
            let root = Root::open(tree.path()).unwrap();
            let recipient = self.keyring.current().recipient();
            archive::seal(&root, &Tree::scan(&root).unwrap(), &recipient, Vec::new()).unwrap().into
        }

        /// The first generation: a tree of these files.
        pub(crate) fn begin(&mut self, files: &[&str]) {
            self.try_begin(files).unwrap();
        }

        fn try_begin(&mut self, files: &[&str]) -> Result<Extracted> {
            let bytes = self.sealed(files);
            let draft = Draft {
                generation: Hash::of(&bytes),
                size: bytes.len() as u64,
                keys: Hash([1; 32]),
                recipients: None,
                kind: Reason::Init,
                second_parent: None,
                host: "host".into(),
                time: TIME.into(),
            };
            let signer = self.keyring.current().signer(&VAULT).unwrap();
            let commit = Commit::write(VAULT, None, draft, &signer, None).unwrap();
            let link = Link::begin(&commit).unwrap();
            self.unlock(link, &bytes)
        }

        /// What a commit of the spool has in the file `a`.
        fn sealed_text(&self, commit: &Commit) -> String {
            let sealed = self.spool().object(Object::Generation, &commit.body.generation, 1 << 20).unwrap();
            let plain = tempfile::tempdir().unwrap();
            let opened = self.keyring.open(&sealed[..]).unwrap();
            archive::extract(opened, &root(plain.path()).unwrap(), Limits::default()).unwrap();
            fs::read_to_string(plain.path().join("a")).unwrap()
        }

        fn opening(&self, head: Link, sealed: &[u8]) -> Opening {
            use age::secrecy::ExposeSecret as _;
            let identity = self.keyring.current().to_line().expose_secret().to_owned();
            Opening {
                identity,
                head,
                generation: Hash::of(sealed),
                size: sealed.len() as u64,
                keys: Hash([1; 32]),
                recipients: None,
                host: "host".into(),
                elsewhere: None,
                links: LINKED.iter().map(PathBuf::from).collect(),
            }
        }

        fn unlock(&mut self, head: Link, sealed: &[u8]) -> Result<Extracted> {
            let opening = self.opening(head, sealed);
            self.keeper.unlock(opening, sealed, Limits::default())
        }

        /// As the host does: the newest commit, and its generation.
        fn collect(&self) -> (Link, Vec<u8>) {
            self.keeper.freeze().unwrap();
            let state = self.spool().load().unwrap();
            let tip = state.tip.unwrap();
            let generation = state.outbox.last().unwrap().commit.body.generation;
            let bytes = self.spool().object(Object::Generation, &generation, 1 << 20).unwrap();
            self.keeper.collected(tip.n).unwrap();
            self.keeper.tidy().unwrap();
            (tip, bytes)
        }
    }

    fn number(saved: Saved) -> u64 {
        match saved {
            Saved::Made { n, .. } => n,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_handed_over_counts_once_the_host_has_it() {
        let mut pod = Pod::new();
        pod.begin(&["a", "b"]);
        assert!(matches!(pod.keeper.hand_over(false, |_| Ok(io::sink()), TIME).unwrap(), Handed::Unchanged));
        let hand_over = |pod: &mut Pod| {
            let mut sealed = Vec::new();
            match pod.keeper.hand_over(false, |_| Ok(&mut sealed), TIME).unwrap() {
                Handed::Sent { commit, saved: Saved::Made { files: 2, .. } } => {
                    (Commit::read(commit.into_bytes()).unwrap(), sealed)
                }
                other => panic!("{other:?}"),
            }
        };
        // It takes the place of a save that waits, and was not attempted.
        pod.write("a", "first");
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 2);
        pod.write("a", "second");
        let (commit, sealed) = hand_over(&mut pod);
        assert_eq!((commit.body.n, commit.body.generation), (2, Hash::of(&sealed)));
        assert_eq!(commit.body.size, sealed.len() as u64);
        // Until the host has had its time nothing is saved by itself; who asks is not kept waiting.
        assert_eq!(pod.keeper.save_by_itself(TIME).unwrap(), Saved::Unchanged);
        pod.keeper.taken(Some(commit.hash)).unwrap();
        let state = pod.spool().load().unwrap();
        assert_eq!((state.outbox, state.seen.unwrap().hash), (Vec::new(), commit.hash));
        assert_eq!(fs::read_dir(pod.at("spool/gen")).unwrap().count(), 0);
        assert_eq!(pod.keeper.save(false, TIME).unwrap(), Saved::Unchanged);
        // The host never had it: it says another commit, or nothing.
        pod.write("a", "third");
        let (lost, _) = hand_over(&mut pod);
        pod.keeper.taken(Some(commit.hash)).unwrap();
        assert_eq!(pod.spool().load().unwrap().seen.unwrap().hash, commit.hash);
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 3);
        let saved = pod.spool().load().unwrap().outbox.pop().unwrap().commit;
        assert_ne!(saved.hash, lost.hash);
        assert_eq!(pod.sealed_text(&saved), "third");
        // A program of the pod asks for a save before the host says that it has it: that one follows.
        pod.write("a", "fourth");
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 3);
        pod.write("a", "fifth");
        let (fifth, _) = hand_over(&mut pod);
        assert_eq!(fifth.body.n, 3);
        pod.write("a", "sixth");
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 3);
        pod.keeper.taken(Some(fifth.hash)).unwrap();
        let state = pod.spool().load().unwrap();
        assert_eq!(state.seen.unwrap().hash, fifth.hash);
        assert_eq!((state.outbox.len(), state.outbox[0].commit.body.n), (1, 4));
        assert_eq!(pod.sealed_text(&state.outbox[0].commit), "sixth");
        assert!(pod.spool().held().unwrap().is_empty());
        assert_eq!(pod.keeper.save(false, TIME).unwrap(), Saved::Unchanged);
        // The host has it, and was ended before it said so; what it asks next, it says first.
        pod.write("a", "seventh");
        let (seventh, _) = hand_over(&mut pod);
        assert_eq!((seventh.body.n, seventh.body.parents[0]), (4, fifth.hash));
        pod.keeper.taken(Some(seventh.hash)).unwrap();
        pod.write("a", "eighth");
        let (eighth, _) = hand_over(&mut pod);
        assert_eq!((eighth.body.n, eighth.body.parents[0]), (5, seventh.hash));
        // What cannot be recorded is said again.
        let (seen, away) = (pod.at("spool/seen.json"), pod.at("seen.json"));
        fs::rename(&seen, &away).unwrap();
        fs::create_dir(&seen).unwrap();
        pod.keeper.taken(Some(eighth.hash)).unwrap_err();
        fs::remove_dir(&seen).unwrap();
        fs::rename(&away, &seen).unwrap();
        pod.keeper.taken(Some(eighth.hash)).unwrap();
        pod.write("a", "ninth");
        let saved = number(pod.keeper.lock(false, TIME).unwrap());
        let state = pod.spool().load().unwrap();
        assert_eq!((saved, state.seen.unwrap().hash, state.outbox.len()), (6, eighth.hash, 1));
        // What is removed after it was sent is meant to be gone.
        let mut pod = Pod::new();
        pod.begin(&["a", "b", "c", "d"]);
        pod.write("a", "changed");
        let mut sent = Vec::new();
        let handed = pod.keeper.hand_over(false, |_| Ok(&mut sent), TIME).unwrap();
        let Handed::Sent { commit, .. } = handed else { panic!("{handed:?}") };
        for name in ["a", "b", "c"] {
            pod.keeper.remove(&[name.into()], false).unwrap();
        }
        pod.keeper.taken(Some(Commit::read(commit.into_bytes()).unwrap().hash)).unwrap();
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 3);
        // What may have to be held is for the spool.
        let mut pod = Pod::new();
        pod.begin(&["a", "b", "c", "d"]);
        for name in ["a", "b", "c"] {
            fs::remove_file(pod.keeper.tree().join(name)).unwrap();
        }
        assert!(matches!(pod.keeper.hand_over(false, |_| Ok(io::sink()), TIME).unwrap(), Handed::Not));
        assert!(matches!(pod.keeper.save(false, TIME).unwrap(), Saved::Held { .. }));
        assert!(matches!(pod.keeper.hand_over(true, |_| Ok(io::sink()), TIME).unwrap(), Handed::Sent { .. }));
    }

    /// The host has the commit, and is cut off before it has told the keeper, which lives on. `then` is what the pod does meanwhile; what
    /// waits afterwards, in the order in which the host collects it, and whether the first of it follows what the host has.
    fn cut_off(then: impl FnOnce(&mut Pod)) -> (Vec<String>, bool) {
        let mut pod = Pod::new();
        pod.begin(&["a", "b"]);
        pod.write("a", "before");
        pod.keeper.save(false, TIME).unwrap();
        pod.write("a", "handed over");
        let mut sealed = Vec::new();
        let handed = pod.keeper.hand_over(false, |_| Ok(&mut sealed), TIME).unwrap();
        let Handed::Sent { commit, .. } = handed else { panic!("{handed:?}") };
        let theirs = Commit::read(commit.into_bytes()).unwrap();
        then(&mut pod);
        // It comes again: `Freeze`, with its newest.
        pod.keeper.taken(Some(theirs.hash)).unwrap();
        pod.keeper.freeze().unwrap();
        let waits: Vec<_> = pod.spool().load().unwrap().outbox.into_iter().map(|one| one.commit).collect();
        assert!(pod.spool().held().unwrap().is_empty());
        assert!(pod.keeper.vault().is_none() || pod.keeper.save(false, TIME).unwrap() == Saved::Unchanged);
        let follows = waits.iter().try_fold(theirs.link(), |at, commit| at.follow(commit)).is_ok();
        (waits.iter().map(|commit| pod.sealed_text(commit)).collect(), follows)
    }

    #[test]
    fn a_host_that_is_cut_off_in_a_hand_over_finds_all_that_was_saved() {
        let later = |pod: &mut Pod| {
            pod.write("a", "later");
            let sent = pod.keeper.open.as_mut().unwrap().handed.as_mut().unwrap();
            sent.at = sent.at.checked_sub(TAKING).unwrap();
        };
        assert_eq!(cut_off(|_| {}), (vec![], true));
        let by_itself = |pod: &mut Pod| drop(pod.keeper.save_by_itself(TIME).unwrap());
        let saved = cut_off(|pod| {
            later(pod);
            by_itself(pod);
        });
        assert_eq!(saved, (vec!["later".to_owned()], true));
        let saved_twice = cut_off(|pod| {
            later(pod);
            by_itself(pod);
            pod.write("a", "latest");
            by_itself(pod);
        });
        assert_eq!(saved_twice, (vec!["latest".to_owned()], true));
        // Who locks forgets what was sent: the host holds that, since it has another of that number.
        let locked = cut_off(|pod| {
            later(pod);
            by_itself(pod);
            pod.write("a", "at the end");
            pod.keeper.lock(false, TIME).unwrap();
        });
        assert_eq!(locked, (vec!["at the end".to_owned()], false));
    }

    #[test]
    fn names_that_are_no_text_are_removed_by_their_bytes() {
        let mut pod = Pod::new();
        pod.begin(&["a"]);
        let name = PathBuf::from(std::ffi::OsString::from_vec(b"caf\xe9".to_vec()));
        fs::write(pod.keeper.tree().join(&name), "x").unwrap();
        let shown = pod.keeper.list().unwrap().pop().unwrap().path;
        let error = pod.keeper.remove(&[shown.into()], false).unwrap_err();
        assert!(error.hints().iter().any(|hint| hint.contains("no UTF-8")), "{:?}", error.hints());
        pod.keeper.remove(std::slice::from_ref(&name), false).unwrap();
        assert_eq!(pod.keeper.list().unwrap().len(), 1);
    }

    #[test]
    fn what_could_not_be_saved_and_is_gone_lacks_nothing() {
        let mut pod = Pod::new();
        pod.begin(&["a"]);
        // Deeper than any path can be named.
        let deep = pod.keeper.tree().join("deep");
        fs::create_dir(&deep).unwrap();
        let mut directory = fs::File::open(&deep).unwrap();
        let (name, flags) = ("n".repeat(250), OFlags::RDONLY | OFlags::DIRECTORY);
        for _ in 0..17 {
            rustix::fs::mkdirat(&directory, &*name, Mode::RWXU).unwrap();
            directory = rustix::fs::openat(&directory, &*name, flags, Mode::empty()).unwrap().into();
        }
        let saved = pod.keeper.save_by_itself(TIME).unwrap();
        assert!(matches!(saved, Saved::Held { .. }), "{saved:?}");
        assert!(pod.keeper.lacks(&saved).unwrap().contains("cannot be named"));
        fs::remove_dir_all(&deep).unwrap();
        let saved = pod.keeper.save_by_itself(TIME).unwrap();
        assert_eq!((pod.keeper.lacks(&saved), saved), (None, Saved::Unchanged));
    }

    #[test]
    fn what_is_saved_is_what_comes_back() {
        let mut pod = Pod::new();
        pod.begin(&["token", ".aws/config"]);
        assert_eq!(pod.read("token").as_deref(), Some("token"));
        assert_eq!(pod.keeper.save(false, TIME).unwrap(), Saved::Unchanged);
        pod.write("token", "new");
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 2);
        // Not yet final: the same number again.
        pod.write("more/deep", "x");
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 2);
        pod.keeper.freeze().unwrap();
        pod.write("token", "newer");
        assert_eq!(number(pod.keeper.lock(false, TIME).unwrap()), 3);
        assert_eq!((pod.read("token"), pod.keeper.vault()), (None, None));
        assert_eq!(fs::read_dir(pod.at("memory")).unwrap().count(), 1);

        let (head, sealed) = pod.collect();
        assert_eq!(head.n, 3);
        assert_eq!(pod.spool().load().unwrap().outbox, []);
        assert_eq!(fs::read_dir(pod.at("spool/gen")).unwrap().count(), 0);
        pod.unlock(head, &sealed).unwrap();
        assert_eq!(
            (pod.read("token").as_deref(), pod.read("more/deep").as_deref()),
            (Some("newer"), Some("x"))
        );
        assert_eq!(pod.keeper.save(false, TIME).unwrap(), Saved::Unchanged);
    }

    #[test]
    fn a_locked_vault_saves_nothing_and_an_open_one_is_not_opened_again() {
        let mut pod = Pod::new();
        assert_eq!(pod.keeper.save(false, TIME).unwrap_err().kind(), Kind::Locked);
        assert_eq!(pod.keeper.lock(false, TIME).unwrap_err().kind(), Kind::Locked);
        pod.begin(&["token"]);
        pod.write("token", "new");
        pod.keeper.save(false, TIME).unwrap();
        let (head, sealed) = pod.collect();
        pod.write("token", "newest");
        assert_eq!(pod.unlock(head, &sealed).unwrap_err().kind(), Kind::Locked);
        assert_eq!(pod.read("token").as_deref(), Some("newest"));
    }

    #[test]
    fn what_is_not_what_it_says_opens_nothing() {
        let mut pod = Pod::new();
        pod.begin(&["token"]);
        pod.write("token", "new");
        pod.keeper.lock(false, TIME).unwrap();
        let (head, sealed) = pod.collect();
        let stranger = Link { vk: super::super::id::SignerId([1; 32]), ..head };
        assert_eq!(pod.unlock(stranger, &sealed).unwrap_err().kind(), Kind::Integrity);
        assert_eq!(pod.unlock(head, &sealed[..sealed.len() - 1]).unwrap_err().kind(), Kind::Integrity);
        // Sealed to the same recipient, which is no secret.
        let other = pod.sealed(&["another"]);
        let mut opening = pod.opening(head, &sealed);
        opening.size = other.len() as u64;
        let error = pod.keeper.unlock(opening, &other[..], Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "what was opened is not the commit's generation");
        let mut names: Vec<_> =
            fs::read_dir(pod.at("memory")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "open");
        assert!(names.is_empty(), "{names:?}");
        pod.unlock(head, &sealed).unwrap();
    }

    #[test]
    fn what_was_not_collected_is_not_opened_over() {
        let mut pod = Pod::new();
        pod.begin(&["token"]);
        let begin = pod.spool().load().unwrap().tip.unwrap();
        pod.write("token", "new");
        pod.keeper.lock(false, TIME).unwrap();
        let generation = pod.spool().load().unwrap().outbox[0].commit.body.generation;
        let sealed = pod.spool().object(Object::Generation, &generation, 1 << 20).unwrap();
        assert_eq!(pod.unlock(begin, &sealed).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(pod.spool().load().unwrap().outbox.len(), 1);
        // Of another vault, whose newest commit has a higher number.
        let other = VaultId([9; 16]);
        let vk = pod.keyring.current().signer(&other).unwrap().id();
        let error = pod.unlock(Link { vault: other, vk, n: 9, ..begin }, &sealed).unwrap_err();
        assert!(error.to_string().starts_with("this pod has saved commit 2 of another vault"), "{error}");
        assert_eq!(pod.spool().load().unwrap().outbox.len(), 1);
    }

    #[test]
    fn a_save_that_looks_wrong_is_held_once() {
        let mut pod = Pod::new();
        pod.begin(&["a", "b", "c", "d"]);
        for name in ["a", "b", "c"] {
            fs::remove_file(pod.keeper.tree().join(name)).unwrap();
        }
        for _ in 0..2 {
            let Saved::Held { why, .. } = pod.keeper.save(false, TIME).unwrap() else { panic!("not held") };
            assert_eq!(why, "it has 1 of 4 files");
            let held = pod.spool().held().unwrap();
            assert_eq!((held.len(), pod.spool().load().unwrap().outbox.len()), (1, 0));
            // Its generation stays.
            pod.keeper.collected(9).unwrap();
            pod.keeper.tidy().unwrap();
            assert!(pod.spool().has(Object::Generation, &held[0].body.generation));
        }
        assert_eq!(number(pod.keeper.save(true, TIME).unwrap()), 2);
    }

    #[test]
    fn few_files_are_not_lost_silently_either() {
        let held = |saved: Result<Saved>| match saved.unwrap() {
            Saved::Held { why, .. } => why,
            other => panic!("{other:?}"),
        };
        let mut pod = Pod::new();
        pod.begin(&["a", "b", "c"]);
        for name in ["a", "b", "c"] {
            pod.write(name, "");
        }
        assert_eq!(held(pod.keeper.save(false, TIME)), "0 of 3 files are not empty");
        for name in ["a", "b", "c"] {
            fs::remove_file(pod.keeper.tree().join(name)).unwrap();
        }
        assert_eq!(held(pod.keeper.lock(false, TIME)), "it has 0 of 3 files");

        let mut pod = Pod::new();
        pod.begin(&["a", "b", "c"]);
        for path in ["b/../a", "/a", "../open/a", "."] {
            assert_eq!(pod.keeper.remove(&[path.into()], true).unwrap_err().kind(), Kind::Usage, "{path}");
        }
        pod.keeper.remove(&["./a".into(), "b".into()], false).unwrap();
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 2);
        fs::remove_file(pod.keeper.tree().join("c")).unwrap();
        assert_eq!(held(pod.keeper.save(false, TIME)), "it has 0 of 1 files");
        pod.write("c", "back");
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 2);
        pod.keeper.remove(&["c".into()], false).unwrap();
        assert_eq!(number(pod.keeper.lock(false, TIME).unwrap()), 2);

        // What comes back under a name that was removed makes up for nothing else.
        let mut pod = Pod::new();
        pod.begin(&["a", "b", "c", "d"]);
        pod.keeper.remove(&["a".into()], false).unwrap();
        pod.write("a", "again");
        for name in ["b", "c", "d"] {
            fs::remove_file(pod.keeper.tree().join(name)).unwrap();
        }
        assert_eq!(held(pod.keeper.save(false, TIME)), "it has 0 of 3 files");
    }

    #[test]
    fn attempts_to_lock_do_not_pile_up_what_they_hold() {
        let disk: &'static Written = Box::leak(Box::default());
        let mut pod = Pod::on(disk);
        pod.begin(&["a", "b", "c", "d"]);
        for name in ["b", "c", "d"] {
            fs::remove_file(pod.keeper.tree().join(name)).unwrap();
        }
        assert!(matches!(pod.keeper.save(false, TIME).unwrap(), Saved::Held { .. }));
        pod.write("a", "more");
        let written = fs::File::options().append(true).open(pod.keeper.tree().join("a")).unwrap();
        *disk.0.lock().unwrap() = Some((written, "spool/held"));
        for _ in 0..5 {
            assert_eq!(pod.keeper.lock(false, TIME).unwrap_err().kind(), Kind::Conflict);
            let held = pod.spool().held().unwrap();
            assert_eq!(held.len(), 2, "the first and the newest");
        }
        *disk.0.lock().unwrap() = None;
        // Nobody asks for a save of what has shrunk already, unless the pod ends.
        pod.write("a", "last");
        assert!(matches!(pod.keeper.save(false, TIME).unwrap(), Saved::Held { .. }));
        let held = |pod: &Pod| -> BTreeSet<String> {
            pod.spool().held().unwrap().iter().map(|held| pod.sealed_text(held)).collect()
        };
        assert!(!held(&pod).contains("last"));
        assert!(matches!(pod.keeper.save_at_end(TIME).unwrap(), Saved::Held { .. }));
        assert_eq!(held(&pod), BTreeSet::from(["a".into(), "last".into()]));
    }

    /// A disk on which each file whose path has this in it is begun after somebody has written into the vault, if it is told where.
    #[derive(Default)]
    struct Written(std::sync::Mutex<Option<(fs::File, &'static str)>>);

    impl Disk for Written {
        fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile + '_>> {
            if let Some((file, place)) = &mut *self.0.lock().unwrap()
                && path.to_string_lossy().contains(*place)
            {
                io::Write::write_all(file, b"x")?;
            }
            RealDisk::SHARED.create(path)
        }
        fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send + '_>> {
            RealDisk::SHARED.open(path)
        }
        fn size(&self, path: &Path) -> io::Result<u64> {
            RealDisk::SHARED.size(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk::SHARED.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            RealDisk::SHARED.remove(path)
        }
        fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
            RealDisk::SHARED.list(directory)
        }
        fn make_directory(&self, path: &Path) -> io::Result<()> {
            RealDisk::SHARED.make_directory(path)
        }
        fn sync_directory(&self, path: &Path) -> io::Result<()> {
            RealDisk::SHARED.sync_directory(path)
        }
    }

    #[test]
    fn what_is_still_written_is_not_locked_away() {
        let disk: &'static Written = Box::leak(Box::default());
        let mut pod = Pod::on(disk);
        pod.begin(&["a"]);
        pod.write("a", "1");
        *disk.0.lock().unwrap() =
            Some((fs::File::options().append(true).open(pod.keeper.tree().join("a")).unwrap(), ""));
        let Saved::Made { skipped, .. } = pod.keeper.save(false, TIME).unwrap() else { panic!("not saved") };
        assert_eq!(skipped, ["`a`: changed while it was read"]);
        let error = pod.keeper.lock(false, TIME).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.to_string().starts_with("the vault is not locked: "), "{error}");
        *disk.0.lock().unwrap() = None;
        let written = pod.read("a").unwrap();
        pod.keeper.lock(false, TIME).unwrap();
        let (head, sealed) = pod.collect();
        pod.unlock(head, &sealed).unwrap();
        assert_eq!(pod.read("a").unwrap(), written);
    }

    #[test]
    fn beside_another_pod_the_newest_save_is_held() {
        let mut pod = Pod::new();
        pod.begin(&["a"]);
        pod.write("a", "newer");
        pod.keeper.lock(false, TIME).unwrap();
        let (head, sealed) = pod.collect();
        let mut opening = pod.opening(head, &sealed);
        opening.elsewhere = Some("other".into());
        pod.keeper.unlock(opening, &sealed[..], Limits::default()).unwrap();
        assert_eq!(pod.keeper.save(false, TIME).unwrap(), Saved::Unchanged);
        for text in ["1", "2"] {
            pod.write("a", text);
            for force in [false, true] {
                let Saved::Held { why, .. } = pod.keeper.save(force, TIME).unwrap() else {
                    panic!("not held")
                };
                assert!(why.contains("`other`"), "{why}");
            }
            assert_eq!(pod.spool().held().unwrap().len(), 1);
        }
        assert!(matches!(pod.keeper.lock(false, TIME).unwrap(), Saved::Held { .. }));
        assert_eq!(pod.spool().load().unwrap().outbox, []);
        assert_eq!(pod.sealed_text(&pod.spool().held().unwrap()[0]), "2");
    }

    /// The power goes at any step of a pod's day: what was saved last, or was about to be, is what the host finds.
    #[test]
    fn what_was_saved_survives_a_crash() {
        /// What was acknowledged, and what is under way; of the current state, and of the held one.
        #[derive(Default)]
        struct Log {
            current: [String; 2],
            held: [Option<String>; 2],
            /// What the host has taken over.
            host: Option<String>,
        }
        fn day(pod: &mut Pod, log: &mut Log) -> Result<()> {
            log.current = ["a".into(), "a".into()];
            pod.try_begin(&["a"])?;
            for text in ["1", "2", "3"] {
                pod.write("a", text);
                log.current[1] = text.into();
                pod.keeper.save(false, TIME)?;
                log.current[0] = text.into();
                if text == "2" {
                    pod.keeper.freeze()?;
                }
            }
            pod.write("a", "");
            log.held[1] = Some(String::new());
            pod.keeper.save(false, TIME)?;
            log.held[0] = Some(String::new());
            pod.write("a", "4");
            log.current[1] = "4".into();
            pod.keeper.lock(false, TIME)?;
            log.current[0] = "4".into();
            pod.keeper.freeze()?;
            let last = pod.spool().load()?.outbox.last().unwrap().commit.clone();
            log.host = Some("4".into());
            pod.keeper.collected(last.body.n)?;
            pod.keeper.tidy()
        }
        for survives in [Survives::Synced, Survives::Names, Survives::Everything] {
            for steps in 0.. {
                let power = Power::for_steps(steps);
                let disk: &'static SimDisk = Box::leak(Box::new(SimDisk::new(power.clone())));
                let (mut pod, mut log) = (Pod::on(disk), Log::default());
                let ended = day(&mut pod, &mut log);
                if !power.is_gone() {
                    ended.unwrap();
                    assert!(steps > 50, "{steps} steps");
                    break;
                }
                power.restore();
                disk.crash(survives);
                let spool = pod.spool();
                let texts: Vec<_> =
                    spool.load().unwrap().outbox.iter().map(|out| pod.sealed_text(&out.commit)).collect();
                let newest = texts.last().cloned().or(log.host);
                let newest = newest.unwrap_or_else(|| "a".into());
                assert!(log.current.contains(&newest), "{steps}: {newest} of {:?}", log.current);
                let held: Vec<_> = spool.held().unwrap().iter().map(|held| pod.sealed_text(held)).collect();
                assert!(log.held.contains(&held.first().cloned()), "{steps}: {held:?} of {:?}", log.held);
                // And the next day goes on from it.
                spool.tidy(&[]).unwrap();
                assert_eq!(spool.load().unwrap().outbox.len(), texts.len());
            }
        }
    }

    #[test]
    fn the_home_leads_into_the_vault_where_it_has_nothing_itself() {
        let mut pod = Pod::new();
        fs::create_dir(pod.at("home/.kube")).unwrap();
        pod.begin(&[".aws/config", ".kube/config", "x", "y", "z"]);
        assert_eq!(fs::read_to_string(pod.at("home/.aws/config")).unwrap(), ".aws/config");
        assert!(fs::read_dir(pod.at("home/.kube")).unwrap().next().is_none());
        pod.write("x", "changed");
        pod.keeper.lock(false, TIME).unwrap();
        // A tool that writes meanwhile fails on nothing, and what it wrote is not lost.
        assert!(fs::read_dir(pod.at("home/.aws")).unwrap().next().is_none());
        fs::write(pod.at("home/.aws/late"), "late").unwrap();
        fs::write(pod.at("home/.aws/config"), "of a locked time").unwrap();
        let (head, sealed) = pod.collect();
        pod.unlock(head, &sealed).unwrap();
        assert_eq!(fs::read_to_string(pod.at("home/.aws/late")).unwrap(), "late");
        assert_eq!(fs::read_to_string(pod.at("home/.aws/config")).unwrap(), ".aws/config");
        assert_eq!(number(pod.keeper.save(false, TIME).unwrap()), 3);
    }
}
