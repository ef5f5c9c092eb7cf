//! Push and pull: how commits get into a store, and back, so that none is ever lost and none is ever forged.
//!
//! A push has one point at which it counts: the creation of `commits/N`, which one writer wins. Before it, only objects that
//! nobody names are added; after it, only this machine's own notes change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use super::commit::{self, Commit, Link};
use super::copies;
use super::hashing::Hashing;
use super::id::Hash;
use super::key::LARGEST_KEYRING;
use super::local::{Local, Object, Outgoing, State, commit_key};
use super::pruned::{self, Pruned};
use super::store::{Created, Kind as StoreKind, Listed, Store, StoreError};
use crate::error::{Error, Kind, Result};

/// A sealed generation is not larger, in bytes.
const LARGEST_GENERATION: u64 = 64 << 30;
/// The pauses between attempts to have a commit made; then it stays pending.
const PAUSES: [Duration; 4] = if cfg!(test) {
    [Duration::ZERO; 4]
} else {
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(8)]
};
/// How long they may take together: a store that stalls is not waited for in each of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a push did.
#[derive(Debug, Default)]
pub struct Pushed {
    /// The numbers of the commits that the store has now.
    pub numbers: Vec<u64>,
}

/// What a pull brought.
#[derive(Debug)]
pub struct Pulled {
    /// The newest commit.
    pub head: Commit,
    /// How many commits are new here.
    pub new: usize,
}

/// Why a push or a pull ended early.
#[derive(Debug)]
pub enum Stopped {
    /// Somebody else's commit has the number of one of ours. Ours is kept in the store too, as a branch.
    Fork(Box<Fork>),
    /// Anything else.
    Failed(Error),
}

/// Two commits of one number.
#[derive(Debug)]
pub struct Fork {
    /// What the store has.
    pub theirs: Commit,
    /// What this machine has.
    pub mine: Commit,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped::Failed(error)
    }
}

impl From<StoreError> for Stopped {
    fn from(failed: StoreError) -> Stopped {
        Stopped::Failed(failed.into())
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Error {
        match stopped {
            Stopped::Failed(error) => error,
            Stopped::Fork(fork) => fork.into_error(),
        }
    }
}

impl Fork {
    fn into_error(self) -> Error {
        let Fork { theirs, mine } = self;
        if mine.body.kind == commit::Reason::Init {
            let commit::Body { vault, host, time, .. } = &theirs.body;
            return Error::new(
                Kind::Conflict,
                format!("the store has a vault already: {vault}, made on `{host}` at {time}"),
            )
            .hint("`tazpod vault pull --keep theirs` fetches it; another place in the store takes another vault");
        }
        let whose = |commit: &Commit| format!("`{}` at {}", commit.body.host, commit.body.time);
        let n = mine.body.n;
        Error::new(
            Kind::Conflict,
            format!("the vault has forked at commit {n}: one of {}, one of {}", whose(&theirs), whose(&mine)),
        )
        .hint("both are kept: `tazpod vault pull --keep theirs` or `--keep mine` decides which goes on")
    }
}

/// Where the branch of a commit that lost a race is kept.
pub fn branch_key(commit: &Commit) -> String {
    branch_key_of(commit.body.n, &commit.hash)
}

pub(super) fn branch_key_of(n: u64, hash: &Hash) -> String {
    format!("branches/{n:010}-{hash}")
}

/// Brings every commit of the outbox into the store, oldest first.
///
/// # Errors
/// [`Stopped::Fork`]; else the store's: then the commit is pending, and the same push goes on later.
pub async fn push(local: &Local<'_>, store: &dyn Store) -> Result<Pushed, Stopped> {
    let State { seen, outbox, .. } = local.load()?;
    let mut pushed = Pushed::default();
    let mut seen = seen;
    if let Some(seen) = seen.filter(|_| !outbox.is_empty()) {
        check_pin(local, store, &seen).await?;
        let mine = local.newest(&seen)?;
        if let Some(theirs) = copies::undecided(store, &copies::of(store, seen.n).await?, &mine).await? {
            return Err(Stopped::Fork(Box::new(Fork { theirs, mine })));
        }
    }
    for outgoing in outbox {
        let commit = &outgoing.commit;
        put_objects(local, store, &outgoing).await?;
        local.mark_attempted(commit)?;
        settle(store, commit).await?;
        // Somebody may have pruned what no commit named yet.
        put_again(local, store, commit, false).await?;
        let link = Link::next(seen.as_ref(), commit)?;
        local.advance(&link, commit)?;
        seen = Some(link);
        pushed.numbers.push(link.n);
    }
    Ok(pushed)
}

/// Puts those objects of a commit again that the store has no more, or not as they were; how many. With `read` generations are read, too.
async fn put_again(
    local: &Local<'_>,
    store: &dyn Store,
    commit: &Commit,
    read: bool,
) -> Result<usize, Stopped> {
    let mut count = 0;
    for (object, hash, size) in objects(commit) {
        let there = match object {
            Object::Generation if read => {
                is_intact(store, &object.key(&hash), &hash, size.unwrap_or(LARGEST_GENERATION)).await?
            }
            _ => is_there(store, object, &hash, size).await?,
        };
        if !there {
            if !local.has(object, &hash) {
                return Err(missing(&object.key(&hash)).into());
            }
            put_object(local, store, object, &hash).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// Puts those objects of the newest commit that this machine has seen in the store again that are there no more, or not as they were: a
/// prune that ran beside a push may have taken them, or an accident. How many. Whether a generation is as it was, its size tells; with
/// `read` its hash, which takes as long as a pull.
///
/// # Errors
/// As [`pull`], where the store is not what this machine has seen; [`Kind::Integrity`] where they are not here either; the store's own.
pub async fn heal(local: &Local<'_>, store: &dyn Store, read: bool) -> Result<usize, Stopped> {
    let Some(seen) = local.load()?.seen else { return Ok(0) };
    check_pin(local, store, &seen).await?;
    // Of an older one it may be gone for good reason.
    if store.size(&commit_key(seen.n + 1)).await?.is_some() {
        return Ok(0);
    }
    match local.pinned(&seen)? {
        Some(newest) => put_again(local, store, &newest, read).await,
        None => Ok(0),
    }
}

/// What a commit names, with its size where the commit says it.
pub(super) fn objects(commit: &Commit) -> Vec<(Object, Hash, Option<u64>)> {
    let body = &commit.body;
    let recipients = body.recipients.map(|hash| (Object::Recipients, hash, None));
    let named = [(Object::Generation, body.generation, Some(body.size)), (Object::Keys, body.keys, None)];
    named.into_iter().chain(recipients).collect()
}

/// Why an object could not be put: because of this machine, or of the store.
enum NotPut {
    Here(Error),
    There(StoreError),
}

impl From<Error> for NotPut {
    fn from(failed: Error) -> NotPut {
        NotPut::Here(failed)
    }
}

impl From<StoreError> for NotPut {
    fn from(failed: StoreError) -> NotPut {
        NotPut::There(failed)
    }
}

impl From<NotPut> for Stopped {
    fn from(failed: NotPut) -> Stopped {
        match failed {
            NotPut::Here(failed) => failed.into(),
            NotPut::There(failed) => failed.into(),
        }
    }
}

async fn put_objects(local: &Local<'_>, store: &dyn Store, outgoing: &Outgoing) -> Result<(), NotPut> {
    for (object, hash, size) in objects(&outgoing.commit) {
        // Keys stay the same from commit to commit: the store has them, and may be all that has.
        let may_be_there = outgoing.attempted || object != Object::Generation || !local.has(object, &hash);
        if !may_be_there || !is_there(store, object, &hash, size).await? {
            put_object(local, store, object, &hash).await?;
        }
    }
    Ok(())
}

/// Whether the store has an object as it was written: a generation by its size, a keyring, which is small, by its hash.
async fn is_there(
    store: &dyn Store,
    object: Object,
    hash: &Hash,
    size: Option<u64>,
) -> Result<bool, StoreError> {
    let key = object.key(hash);
    match object {
        Object::Generation => {
            Ok(store.size(&key).await?.is_some_and(|there| size.is_none_or(|size| size == there)))
        }
        Object::Keys | Object::Recipients => is_intact(store, &key, hash, LARGEST_KEYRING).await,
    }
}

async fn put_object(local: &Local<'_>, store: &dyn Store, object: Object, hash: &Hash) -> Result<(), NotPut> {
    let key = object.key(hash);
    let (size, mut body) = local.open(object, hash)?;
    match store.put_whole(&key, size, hash.0, &mut *body).await {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        // In parts it may get through: they are smaller, and each is tried again.
        Err(failed)
            if matches!(
                failed.kind,
                StoreKind::Unreachable | StoreKind::Busy | StoreKind::Corrupt | StoreKind::Other
            ) => {}
        Err(failed) => return Err(failed.into()),
    }
    let (size, mut body) = local.open(object, hash)?;
    store.put(&key, size, hash.0, &mut *body).await?;
    Ok(())
}

/// Has `commits/N` made, and finds out by whom it was.
async fn settle(store: &dyn Store, commit: &Commit) -> Result<(), Stopped> {
    let key = commit_key(commit.body.n);
    let mut pauses = PAUSES.iter();
    let end = Instant::now() + PATIENCE;
    loop {
        let asked = async { (store.create(&key, &commit.bytes).await, read_commit_bytes(store, &key).await) };
        let Ok((answer, there)) = timeout_at(end, asked).await else {
            return Err(unsettled(commit, None));
        };
        if let Err(refused) = &answer
            && matches!(refused.kind, StoreKind::Credentials | StoreKind::Denied | StoreKind::NoPlace)
        {
            return Err(answer.err().map_or_else(|| unsettled(commit, None), Stopped::from));
        }
        // Whatever the answer was, what is there decides: it may have been lost, or false.
        let last = match (there, answer) {
            (Ok(Some(bytes)), _) if bytes == commit.bytes => return Ok(()),
            (Ok(Some(bytes)), _) => {
                let n = commit.body.n;
                let theirs = Commit::read(bytes).map_err(|failed| strange(n, failed))?;
                if theirs.body.vault != commit.body.vault && n > 1 {
                    let what = format!("the store's commit {n} is of another vault");
                    return Err(strange(n, Error::new(Kind::Integrity, what)).into());
                }
                make_branch(store, commit).await?;
                return Err(Stopped::Fork(Box::new(Fork { theirs, mine: commit.clone() })));
            }
            (Ok(None), Ok(Created::Unknown(why))) => Some(why),
            (Ok(None), Ok(_)) => None,
            (Ok(None), Err(why)) if why.is_transient() => Some(why),
            (Err(why), _) if why.is_transient() => Some(why),
            (Ok(None), Err(why)) | (Err(why), _) => return Err(why.into()),
        };
        match pauses.next() {
            Some(pause) => tokio::time::sleep(*pause).await,
            None => return Err(unsettled(commit, last)),
        }
    }
}

/// Keeps a commit that lost a race in the store. Its objects must be there already.
async fn make_branch(store: &dyn Store, commit: &Commit) -> Result<(), StoreError> {
    let key = branch_key(commit);
    let answer = store.create(&key, &commit.bytes).await?;
    if read_commit_bytes(store, &key).await?.as_ref() == Some(&commit.bytes) {
        return Ok(());
    }
    Err(match answer {
        Created::Unknown(why) => why,
        Created::Made | Created::Exists => {
            let what = format!("{} does not keep `{key}` as it was written", store.describe());
            StoreError::new(StoreKind::Corrupt, what)
        }
    })
}

/// Keeps what waits here in the store, as branches, before another side of the fork goes on. Whose credentials make none have it here alone,
/// and what has lost its generation is no branch.
///
/// # Errors
/// The store's own.
pub(super) async fn branch_off(local: &Local<'_>, store: &dyn Store) -> Result<(), Stopped> {
    let State { seen, outbox, .. } = local.load()?;
    // What nobody has seen in this store is another vault.
    for outgoing in outbox.iter().filter(|_| seen.is_some()) {
        let kept = async {
            put_objects(local, store, outgoing).await?;
            Ok(make_branch(store, &outgoing.commit).await?)
        };
        match kept.await {
            Err(NotPut::There(refused)) if refused.kind == StoreKind::Denied => return Ok(()),
            Err(NotPut::Here(_)) if !local.has(Object::Generation, &outgoing.commit.body.generation) => {}
            kept => kept?,
        }
    }
    Ok(())
}

fn unsettled(commit: &Commit, last: Option<StoreError>) -> Stopped {
    let what = format!("the store does not say whether it has commit {}", commit.body.n);
    let error =
        Error::new(Kind::Store, what).hint("it stays pending here; the next `tazpod vault push` settles it");
    Stopped::Failed(last.into_iter().fold(error, Error::with_source))
}

pub(super) async fn read_commit_bytes(store: &dyn Store, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = Vec::new();
    Ok(store.get(key, commit::LARGEST, &mut bytes).await?.map(|_| bytes))
}

/// Brings the store's commits and the newest one's objects here. `expected` is the fingerprint of a recovery card, for a machine
/// that has not seen this vault.
///
/// # Errors
/// [`Stopped::Fork`] where this machine has commits that the store's do not follow from; [`Kind::Integrity`] for a store that has
/// gone back, is another vault's, or has commits that do not belong; the store's own.
pub async fn pull(
    local: &Local<'_>,
    store: &dyn Store,
    expected: Option<Hash>,
) -> Result<Option<Pulled>, Stopped> {
    let state = local.load()?;
    let mut fingerprints = Vec::new();
    let mut chain = match state.seen {
        Some(seen) => {
            check_pin(local, store, &seen).await?;
            Some(seen)
        }
        None => None,
    };
    let after = chain.map(|chain| commit_key(chain.n)).unwrap_or_default();
    let listed = store.list("commits/", &after).await?;
    let keys = listed.iter().map(|listed| listed.key.clone());
    let beside: Vec<String> = keys.filter(|key| copies::number(key).is_some()).collect();
    let mut before = state.seen.map(|seen| local.pinned(&seen)).transpose()?.flatten();
    if let Some(mine) = &before
        && let Some(theirs) = copies::undecided(store, &beside, mine).await?
    {
        return Err(Stopped::Fork(Box::new(Fork { theirs, mine: mine.clone() })));
    }
    let mut new = Vec::new();
    for found in listed {
        let Some(n) = found.key.strip_prefix("commits/").and_then(number) else { continue };
        let Some(bytes) = read_commit_bytes(store, &found.key).await? else {
            let what = format!("the store lists commit {n} and does not have it");
            return Err(strange(n, Error::new(Kind::Integrity, what)).into());
        };
        let commit = numbered(n, bytes).map_err(|failed| strange(n, failed))?;
        let next = match Link::next(chain.as_ref(), &commit) {
            Ok(next) => next,
            // A synchroniser has mixed two histories: this one goes on from a copy.
            Err(failed) => {
                let failed = strange(n, failed);
                return Err(match before {
                    Some(before) => match copies::followed(store, &before, &commit).await? {
                        Some(theirs) => Stopped::Fork(Box::new(Fork { theirs, mine: before })),
                        None => failed.into(),
                    },
                    None => failed.into(),
                });
            }
        };
        if let Some(mine) = copies::undecided(store, &beside, &commit).await? {
            return Err(Stopped::Fork(Box::new(Fork { theirs: commit, mine })));
        }
        fingerprints.push(commit.fingerprint());
        chain = Some(next);
        before = Some(commit.clone());
        new.push((next, commit));
    }
    let Some(head) = chain else { return Ok(None) };
    if expected.is_some() {
        // Of what was seen before, too: the card may come second.
        for n in 1..=state.seen.map_or(0, |seen| seen.n) {
            fingerprints.extend(local.commit(n)?.map(|commit| commit.fingerprint()));
        }
    }
    if let Some(expected) = expected
        && !fingerprints.contains(&expected)
    {
        let vault = head.vault;
        return Err(Error::new(
            Kind::Integrity,
            format!("the store's vault, {vault}, is not the one on the card"),
        )
        .hint("somebody may have put another in its place; nothing was fetched")
        .into());
    }
    // Commits of ours that an earlier push brought there are no fork.
    let ours = |n: u64| state.outbox.iter().find(|outgoing| outgoing.commit.body.n == n);
    for (link, commit) in &new {
        if let Some(mine) = ours(link.n).filter(|mine| mine.commit.hash != commit.hash) {
            let fork = Fork { theirs: commit.clone(), mine: mine.commit.clone() };
            return Err(Stopped::Fork(Box::new(fork)));
        }
    }
    let newest = match new.last() {
        Some((_, commit)) => commit.clone(),
        None => match local.pinned(&head)? {
            Some(commit) => commit,
            None => {
                let bytes = read_commit_bytes(store, &commit_key(head.n)).await?.unwrap_or_default();
                Commit::read(bytes).map_err(|failed| strange(head.n, failed))?
            }
        },
    };
    let mut lost = None;
    for (object, hash, size) in objects(&newest) {
        let is_lost = |stopped: &Stopped| {
            let integrity = matches!(stopped, Stopped::Failed(failed) if failed.kind() == Kind::Integrity);
            object == Object::Generation && integrity
        };
        let mut fetched = fetch(local, store, object, &hash, size).await;
        if fetched.as_ref().is_err_and(is_lost) {
            // It may have been damaged on its way.
            fetched = fetch(local, store, object, &hash, size).await;
        }
        match fetched {
            // With the keys an earlier state can be restored, on top of it.
            Err(failed) if is_lost(&failed) => lost = Some(failed),
            other => other?,
        }
    }
    pruned::fetch(local, store).await?;
    let count = new.len();
    for (_, commit) in &new {
        local.record(commit)?;
    }
    local.record(&newest)?;
    local.pin(&head)?;
    if expected.is_some() {
        local.trust()?;
    }
    for (link, _) in &new {
        local.dequeue(link.n)?;
    }
    if let Some(lost) = lost {
        return Err(lost);
    }
    Ok(Some(Pulled { head: newest, new: count }))
}

/// Takes the store's history for the vault's from now on, though it has not, or has another than, the newest commit that this machine has
/// seen there; the next pull brings the rest of it. That commit, and what was not pushed, are held here, and are what is given; `None`
/// where the store has not gone back.
///
/// # Errors
/// [`Stopped::Fork`] where it is one; [`Kind::Integrity`] where the store has none of the commits that this machine has; the store's own.
pub async fn accept_rollback(local: &Local<'_>, store: &dyn Store) -> Result<Option<Vec<Commit>>, Stopped> {
    let Some(seen) = local.load()?.seen else { return Ok(None) };
    let there = read_commit_bytes(store, &commit_key(seen.n)).await?;
    if there.as_deref().map(Hash::of) == Some(seen.hash) {
        return Ok(None);
    }
    match check_pin(local, store, &seen).await {
        // That is what is accepted.
        Err(Stopped::Failed(failed)) if failed.kind() == Kind::Integrity => {}
        other => other?,
    }
    // Both have the same up to there, and not from there on: each commit names the one before.
    let (mut same, mut other) = (None, seen.n);
    loop {
        let base: u64 = same.as_ref().map_or(0, |link: &Link| link.n);
        if other - base <= 1 {
            break;
        }
        let n = base + (other - base) / 2;
        let (mine, theirs) = (local.commit(n)?, read_commit_bytes(store, &commit_key(n)).await?);
        match mine.filter(|mine| theirs.as_deref() == Some(&mine.bytes)) {
            Some(mine) => same = Some(mine.link()),
            None => other = n,
        }
    }
    let Some(same) = same else {
        let what = format!("`{}` has no commit that this machine has seen there", store.describe());
        return Err(Error::new(Kind::Integrity, what)
            .hint("it was emptied, or is another vault's; what is here was not touched")
            .into());
    };
    let newest = local.newest(&seen).map_err(|missing| {
        missing.hint(
            "or what this machine had could not be held: copy its vault's directory away, and begin afresh",
        )
    })?;
    let mut aside = local.set_aside()?;
    local.hold(&newest)?;
    aside.push(newest);
    local.pin(&same)?;
    Ok(Some(aside))
}

/// The commits that lost a race and are kept in the store, oldest first, as far as they follow what this machine knows.
///
/// # Errors
/// The store's own.
pub async fn branches(local: &Local<'_>, store: &dyn Store) -> Result<Vec<Commit>, Stopped> {
    let mut found = Vec::new();
    for listed in store.list("branches/", "").await? {
        // What is no commit, `verify` tells.
        let bytes = match read_commit_bytes(store, &listed.key).await {
            Err(failed) if failed.kind != StoreKind::Corrupt => return Err(failed.into()),
            read => read.ok().flatten(),
        };
        found.extend(bytes.and_then(|bytes| Commit::read(bytes).ok()));
    }
    found.sort_by_key(|commit| commit.body.n);
    let mut known: Vec<Commit> = Vec::new();
    for commit in found {
        let before = local.commit(commit.body.n.saturating_sub(1))?;
        if before.iter().chain(&known).any(|before| before.link().follow(&commit).is_ok()) {
            known.push(commit);
        }
    }
    Ok(known)
}

/// Brings all that a commit names here.
///
/// # Errors
/// As [`fetch`].
pub async fn fetch_all(local: &Local<'_>, store: &dyn Store, commit: &Commit) -> Result<(), Stopped> {
    for (object, hash, size) in objects(commit) {
        fetch(local, store, object, &hash, size).await?;
    }
    Ok(())
}

/// What is wrong with a store, in sentences; empty where nothing is.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many commits there are.
    pub commits: u64,
    /// How many objects they name.
    pub objects: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// How many more they name that were pruned.
    pub pruned: u64,
    /// Objects that neither a commit nor a branch names.
    pub unnamed: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What is missing of sides that lost a race: nothing else depends on that.
    pub aside: Vec<String>,
}

/// What a store has.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The chain of commits, and when each came, by the store's clock.
    pub commits: Vec<(Commit, SystemTime)>,
    /// Commits that lost a race.
    pub branches: Vec<Commit>,
    /// Generations and keyrings, as they were before the commits were read.
    pub objects: BTreeMap<String, Listed>,
    /// Of what is wrong: objects that are missing or cut off and that the newest commit does not name, with the last one that does.
    pub lost: BTreeMap<String, u64>,
    /// What is wrong.
    pub verified: Verified,
}

/// Checks all that a store has: the chain of commits, against what was seen here, and that each object that they name is there
/// in the size that they say. With `read` every object is read, and its hash compared.
///
/// # Errors
/// The store's own, where it cannot be asked.
pub async fn verify(local: &Local<'_>, store: &dyn Store, read: bool) -> Result<Verified, Stopped> {
    Ok(examine(local, store, read).await?.verified)
}

/// The same, with what was found.
pub(super) async fn examine(local: &Local<'_>, store: &dyn Store, read: bool) -> Result<Contents, Stopped> {
    let mut contents = Contents::default();
    let Contents { commits, branches, objects: there, lost, verified } = &mut contents;
    let mut chain: Option<Link> = None;
    let seen = local.load()?.seen;
    for prefix in ["gen/", "keys/"] {
        there.extend(store.list(prefix, "").await?.into_iter().map(|listed| (listed.key.clone(), listed)));
    }
    // With the last commit that names it.
    let mut named: BTreeMap<String, (Hash, Option<u64>, u64)> = BTreeMap::new();
    let mut beside = Vec::new();
    for listed in store.list("commits/", "").await? {
        let Some(n) = listed.key.strip_prefix("commits/").and_then(number) else {
            beside.push(listed.key);
            continue;
        };
        verified.commits += 1;
        let bytes = read_commit_bytes(store, &listed.key).await?.unwrap_or_default();
        let next = numbered(n, bytes).and_then(|commit| Ok((Link::next(chain.as_ref(), &commit)?, commit)));
        let (link, commit) = match next {
            Ok(next) => next,
            Err(error) => {
                // What comes after it cannot be judged.
                verified.problems.push(format!("commit {n}: {error}"));
                break;
            }
        };
        if let Some(seen) = seen.filter(|seen| seen.n == link.n && seen.hash != link.hash) {
            verified
                .problems
                .push(format!("commit {n} is not the one that this machine has seen, {}", seen.hash.short()));
        }
        chain = Some(link);
        let names = objects(&commit).into_iter();
        named.extend(names.map(|(object, hash, size)| (object.key(&hash), (hash, size, link.n))));
        commits.push((commit, listed.modified));
    }
    for listed in store.list("branches/", "").await? {
        let bytes = read_commit_bytes(store, &listed.key).await?.unwrap_or_default();
        match Commit::read(bytes) {
            Ok(commit) => branches.push(commit),
            Err(_) => verified.problems.push(format!("`{}` is no commit", listed.key)),
        }
    }
    for key in beside {
        verified.problems.extend(copies::problem(store, &key, commits, branches).await?);
    }
    if let Some(seen) = seen.filter(|seen| chain.is_none_or(|chain| chain.n < seen.n)) {
        verified.problems.push(format!("commit {} is missing, which this machine has seen", seen.n));
    }
    let mut aside = BTreeSet::new();
    for commit in branches.iter() {
        for (object, hash, size) in objects(commit) {
            let key = object.key(&hash);
            let found = match there.get(&key) {
                Some(listed) => Some(listed.size),
                None => store.size(&key).await?,
            };
            if !named.contains_key(&key) && found.is_none_or(|found| size.is_some_and(|size| size != found)) {
                let short = commit.hash.short();
                verified.aside.push(format!("`{key}`, of the branch {short}, is missing or damaged"));
            }
            aside.insert(key);
        }
    }
    let unnamed = there.keys().filter(|key| !named.contains_key(*key) && !aside.contains(*key));
    verified.unnamed = unnamed.count() as u64;
    let mut pruned = match chain {
        Some(chain) => Pruned::read(store, &chain.vault).await?,
        None => Pruned::default(),
    };
    verified.problems.append(&mut pruned.problems);
    for (key, (hash, size, n)) in named {
        let found = there.get(&key).map(|listed| listed.size);
        let newest = chain.is_none_or(|chain| chain.n == n);
        if found.is_none() && !newest && pruned.covers(&key, n) {
            verified.pruned += 1;
            continue;
        }
        verified.objects += 1;
        // A commit of a moment ago may name what was not there when it was listed.
        let found = match found {
            Some(found) => Some(found),
            None => store.size(&key).await?,
        };
        let problem = match found {
            None => format!("`{key}`, of commit {n}, is missing"),
            Some(found) if size.is_some_and(|size| size != found) => {
                format!("`{key}`, of commit {n}, has {found} bytes instead of {}", size.unwrap_or_default())
            }
            Some(found) => {
                verified.bytes += found;
                if read && !is_intact(store, &key, &hash, found).await? {
                    verified.problems.push(format!("`{key}`, of commit {n}, is damaged"));
                }
                continue;
            }
        };
        verified.problems.push(problem);
        if !newest {
            lost.insert(key, n);
        }
    }
    Ok(contents)
}

async fn is_intact(store: &dyn Store, key: &str, hash: &Hash, size: u64) -> Result<bool, StoreError> {
    let mut hashing = Hashing::new(std::io::sink());
    match store.get(key, size, &mut hashing).await {
        Ok(found) => Ok(found.is_some() && hashing.finish().0 == *hash),
        Err(failed) if failed.kind == StoreKind::Corrupt => Ok(false),
        Err(failed) => Err(failed),
    }
}

/// The number of a commit by its name; conflict copies and the like have none.
pub(super) fn number(name: &str) -> Option<u64> {
    (name.len() == 10 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}

/// The commit that is kept under this number.
fn numbered(n: u64, bytes: Vec<u8>) -> Result<Commit> {
    let commit = Commit::read(bytes)?;
    match commit.body.n == n {
        true => Ok(commit),
        false => {
            let what = format!("what the store has as commit {n} is commit {} of the vault", commit.body.n);
            Err(Error::new(Kind::Integrity, what))
        }
    }
}

/// Brings one object here, unless it is.
///
/// # Errors
/// [`Kind::Integrity`] where the store does not have it, or has something else under its name.
pub async fn fetch(
    local: &Local<'_>,
    store: &dyn Store,
    object: Object,
    hash: &Hash,
    size: Option<u64>,
) -> Result<(), Stopped> {
    if local.is_intact(object, hash) {
        return Ok(());
    }
    let key = object.key(hash);
    let limit = match object {
        Object::Generation => size.unwrap_or(LARGEST_GENERATION),
        Object::Keys | Object::Recipients => LARGEST_KEYRING,
    };
    let mut incoming = local.incoming(object)?;
    match store.get(&key, limit, &mut incoming).await? {
        Some(_) => {
            let damaged = |failed: Error| match failed.kind() {
                Kind::Integrity => failed.hint(PUT_BACK),
                _ => failed,
            };
            Ok(incoming.finish(Some(hash)).map(drop).map_err(damaged)?)
        }
        None => Err(missing(&key).into()),
    }
}

/// Of what a commit names and the store does not have as it was.
const PUT_BACK: &str = "`tazpod vault push --read-data` on a machine that has it puts it back; else `tazpod vault history` lists earlier states, and `restore` takes one";

fn missing(key: &str) -> Error {
    Error::new(Kind::Integrity, format!("the store does not have `{key}`, which a commit names"))
        .hint(PUT_BACK)
}

/// What the store has as a commit and what cannot be one of this vault's.
fn strange(n: u64, failed: Error) -> Error {
    let key = commit_key(n);
    failed
        .hint("the store is damaged, another vault's, or was tampered with, as somebody whose key was removed could: nothing of it was taken, and what is here was not touched")
        .hint(format!("`tazpod vault verify` tells what is wrong there; a backup of it, or the bucket's versions, have what was there before, and a `{key}` that is nobody's of yours is to be removed"))
}

/// The store still has the newest commit that this machine has seen there.
async fn check_pin(local: &Local<'_>, store: &dyn Store, seen: &Link) -> Result<(), Stopped> {
    let there = read_commit_bytes(store, &commit_key(seen.n)).await?;
    if there.as_deref().map(Hash::of) == Some(seen.hash) {
        return Ok(());
    }
    let failed = gone_back(store, seen, there.is_none());
    let fork = match local.pinned(seen)? {
        Some(mine) => copies::fork_of(store, mine, there).await?,
        None => None,
    };
    Err(fork.map_or_else(|| failed.into(), |fork| Stopped::Fork(Box::new(fork))))
}

fn gone_back(store: &dyn Store, seen: &Link, absent: bool) -> Error {
    let (n, place) = (seen.n, store.describe());
    let what = if absent { "does not have" } else { "has another" };
    Error::new(Kind::Integrity, format!("`{place}` {what} commit {n}, which this machine has seen there"))
        .hint("the store was rolled back, or is another vault's; what is here was not touched")
        .hint("if that is meant, as after a restored backup: `tazpod vault pull --accept-rollback` takes what it has, and keeps what is here")
}
