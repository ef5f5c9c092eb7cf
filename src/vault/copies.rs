//! Forks that a program like Syncthing makes: it copies a store's directory between machines that have both made commit N. One of the
//! two files keeps its name, everywhere; the other becomes `commits/N.sync-conflict-DATE-TIME-DEVICE`.
//!
//! Which side goes on, the user decides. A copy whose commit is a branch, too, is decided.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::commit::{Commit, Link};
use super::id::Hash;
use super::local::{Local, commit_key};
use super::store::{Store, StoreError};
use super::sync::{self, Fork, Stopped};
use crate::error::{Error, Kind};

/// The number of the commit that a key is a conflict copy of.
pub(super) fn number(key: &str) -> Option<u64> {
    let (name, rest) = key.strip_prefix("commits/")?.split_once('.')?;
    rest.starts_with("sync-conflict-").then(|| sync::number(name)).flatten()
}

/// Whether two commits are sides of one fork: of the same vault and number, and by the same people, or what both follow is there. A
/// synchroniser brings them in any order, and each side may have retired the other's keys.
async fn are_sides(store: &dyn Store, one: &Commit, other: &Commit) -> Result<bool, StoreError> {
    Ok(are_rivals(one, other) && (one.shares_signer(other) || meeting(store, one, other).await?.is_some()))
}

/// The same, for a copy that nobody here has made: not where only somebody whose key was retired since can have signed it.
async fn is_side(store: &dyn Store, ours: &Commit, copy: &Commit) -> Result<bool, StoreError> {
    if !are_rivals(ours, copy) || ours.shares_signer(copy) {
        return Ok(are_rivals(ours, copy));
    }
    Ok(meeting(store, ours, copy).await?.is_some_and(|base| ours.is_signed_by(&base.body.vk)))
}

fn are_rivals(one: &Commit, other: &Commit) -> bool {
    one.hash != other.hash && (one.body.vault, one.body.n) == (other.body.vault, other.body.n)
}

/// The commit that two of the same number both go back to.
async fn meeting(store: &dyn Store, one: &Commit, other: &Commit) -> Result<Option<Commit>, StoreError> {
    let (mut one, mut other) = (one.clone(), other.clone());
    while let (Some(before), Some(too)) = (before(store, &one).await?, before(store, &other).await?) {
        if before.hash == too.hash {
            return Ok(Some(before));
        }
        (one, other) = (before, too);
    }
    Ok(None)
}

/// The commit that one follows, under whichever name the store has it.
async fn before(store: &dyn Store, commit: &Commit) -> Result<Option<Commit>, StoreError> {
    let Some(parent) = commit.body.parents.first() else { return Ok(None) };
    let n = commit.body.n.saturating_sub(1);
    let follows = |before: &Commit| before.hash == *parent && before.link().follow(commit).is_ok();
    if let Some(before) = read(store, &commit_key(n)).await?.filter(follows) {
        return Ok(Some(before));
    }
    for key in of(store, n).await?.into_iter().chain([sync::branch_key_of(n, parent)]) {
        if let Some(before) = read(store, &key).await?.filter(follows) {
            return Ok(Some(before));
        }
    }
    Ok(None)
}

/// The valid commit at a key. What is none is for `verify` to tell.
async fn read(store: &dyn Store, key: &str) -> Result<Option<Commit>, StoreError> {
    let bytes = sync::read_commit_bytes(store, key).await?;
    Ok(bytes.and_then(|bytes| Commit::read(bytes).ok()))
}

/// The other side of a fork with `commit`, which nobody has decided, among the copies at these keys.
pub(super) async fn undecided(
    store: &dyn Store,
    keys: &[String],
    commit: &Commit,
) -> Result<Option<Commit>, StoreError> {
    for key in keys.iter().filter(|key| number(key) == Some(commit.body.n)) {
        if let Some(copy) = read(store, key).await?
            && is_side(store, commit, &copy).await?
            && store.size(&sync::branch_key(&copy)).await?.is_none()
        {
            return Ok(Some(copy));
        }
    }
    Ok(None)
}

/// The keys of the copies of a commit.
pub(super) async fn of(store: &dyn Store, n: u64) -> Result<Vec<String>, StoreError> {
    let listed = store.list(&format!("{}.", commit_key(n)), "").await?;
    Ok(listed.into_iter().map(|listed| listed.key).filter(|key| number(key).is_some()).collect())
}

/// The fork in which a commit that this machine has seen in the store lost its name to another: its bytes are there under another one.
pub(super) async fn fork_of(
    store: &dyn Store,
    mine: Commit,
    there: Option<Vec<u8>>,
) -> Result<Option<Fork>, StoreError> {
    let Some(theirs) = there.and_then(|bytes| Commit::read(bytes).ok()) else { return Ok(None) };
    if !are_sides(store, &mine, &theirs).await? {
        return Ok(None);
    }
    let mut keys = of(store, mine.body.n).await?;
    keys.push(sync::branch_key(&mine));
    for key in keys {
        if read(store, &key).await?.is_some_and(|copy| copy.hash == mine.hash) {
            return Ok(Some(Fork { theirs, mine }));
        }
    }
    Ok(None)
}

/// The copy of the same number as `before` that `commit` follows: what has the number's own name is not what came before it.
pub(super) async fn followed(
    store: &dyn Store,
    before: &Commit,
    commit: &Commit,
) -> Result<Option<Commit>, StoreError> {
    for key in of(store, before.body.n).await? {
        if let Some(copy) = read(store, &key).await?
            && commit.body.parents.first() == Some(&copy.hash)
            && is_side(store, before, &copy).await?
        {
            return Ok(Some(copy));
        }
    }
    Ok(None)
}

/// What is wrong with something beside the commits.
pub(super) async fn problem(
    store: &dyn Store,
    key: &str,
    commits: &[(Commit, SystemTime)],
    branches: &[Commit],
) -> Result<Option<String>, StoreError> {
    let copy = match number(key) {
        Some(_) => read(store, key).await?,
        None => None,
    };
    let known =
        |copy: &Commit| commits.iter().map(|(commit, _)| commit).chain(branches).any(|commit| commit == copy);
    let Some(copy) = copy else {
        return Ok(Some(format!("`{key}` is no commit; a synchroniser may have left it")));
    };
    if known(&copy) {
        return Ok(None);
    }
    let n = copy.body.n;
    for (commit, _) in commits.iter().filter(|(commit, _)| commit.body.n == n) {
        if is_side(store, commit, &copy).await? {
            return Ok(Some(format!(
                "`{key}` is another commit {n}: `tazpod vault pull --keep theirs` or `--keep mine` decides"
            )));
        }
    }
    Ok(Some(format!(
        "`{key}` is a commit {n} that is no side of a fork here; what it follows may still come"
    )))
}

/// What was decided, as far as it is more than what the store has under the commits' own names.
#[derive(Debug, Default)]
pub struct Decided {
    /// What this machine had.
    pub mine: Option<Commit>,
    /// What the other machine had, where this machine's side keeps its names.
    pub theirs: Option<Commit>,
}

/// Decides a fork: what waits here is set aside, and so is what this machine has seen and lost its name since. All sides are held here,
/// and branches in the store; no conflict copy hinders from then on.
///
/// # Errors
/// Where that cannot be recorded, and may be done again; [`Kind::Integrity`] for a history that does not hang together.
pub async fn decide(local: &Local<'_>, store: &dyn Store) -> Result<Decided, Stopped> {
    let mut copies = Vec::new();
    let mut numbered = BTreeMap::new();
    for listed in store.list("commits/", "").await? {
        if number(&listed.key).is_some() {
            copies.extend(read(store, &listed.key).await?);
        } else if let Some(n) = listed.key.strip_prefix("commits/").and_then(sync::number) {
            numbered.insert(n, listed.key);
        }
    }
    let others = match copies.is_empty() {
        true => Vec::new(),
        false => settle(local, store, &numbered, &copies).await?,
    };
    let seen = local.load()?.seen.map_or(0, |seen| seen.n);
    sync::branch_off(local, store).await?;
    let waiting = local.set_aside()?.into_iter().next();
    let lost = retreat(local, store).await?;
    let had_neither = others.iter().all(|other| other.body.n > seen);
    let newest = |commits: Vec<Commit>| commits.into_iter().max_by_key(|commit| commit.body.n);
    let mut decided = Decided::default();
    match (lost.is_empty(), had_neither) {
        (false, _) => decided.mine = newest(lost),
        (true, false) => decided.theirs = newest(others),
        // What has no name of its own is the other side of what has.
        (true, true) => decided.mine = newest(others),
    }
    decided.mine = waiting.or(decided.mine);
    Ok(decided)
}

/// Sees that the commits' own names have one history, that of the newest, and makes branches of all that is beside it. Those that were
/// none yet are what it gives. A synchroniser that had to decide more than once may have mixed two histories.
async fn settle(
    local: &Local<'_>,
    store: &dyn Store,
    numbered: &BTreeMap<u64, String>,
    copies: &[Commit],
) -> Result<Vec<Commit>, Stopped> {
    let mut named = BTreeMap::new();
    for (n, key) in numbered {
        named.extend(read(store, key).await?.map(|commit| (*n, commit)));
    }
    let mixed = |n: u64| {
        Error::new(Kind::Integrity, format!("commit {n} follows nothing that {} has", store.describe()))
            .hint("a synchroniser that is not done yet may bring it: try again later")
    };
    let all: BTreeMap<Hash, &Commit> =
        named.values().chain(copies).map(|commit| (commit.hash, commit)).collect();
    let mut history: Vec<&Commit> = named.values().next_back().into_iter().collect();
    while let Some((n, parent)) =
        history.last().and_then(|commit| Some((commit.body.n, commit.body.parents.first()?)))
    {
        history.push(all.get(parent).copied().ok_or_else(|| mixed(n))?);
    }
    history.reverse();
    let mut chain: Option<Link> = None;
    for commit in &history {
        chain = Some(Link::next(chain.as_ref(), commit)?);
    }
    let chosen: BTreeMap<u64, &Commit> = history.iter().map(|commit| (commit.body.n, *commit)).collect();
    let mut new = Vec::new();
    let mut beside = Vec::new();
    for commit in all.into_values() {
        let n = commit.body.n;
        let chosen = chosen.get(&n).copied();
        if chosen == Some(commit) {
            continue;
        }
        match chosen {
            Some(chosen) if are_sides(store, chosen, commit).await? => beside.push(commit),
            _ if named.get(&n) == Some(commit) => return Err(mixed(n).into()),
            _ => {}
        }
    }
    for commit in beside {
        local.hold(commit)?;
        let key = sync::branch_key(commit);
        if store.size(&key).await?.is_none() {
            let bytes = &commit.bytes;
            store.put(&key, bytes.len() as u64, commit.hash.0, &mut bytes.as_slice()).await?;
            new.push(commit.clone());
        }
    }
    for commit in &history {
        if named.get(&commit.body.n).is_none_or(|there| there.hash != commit.hash) {
            let bytes = &commit.bytes;
            let key = commit_key(commit.body.n);
            store.put(&key, bytes.len() as u64, commit.hash.0, &mut bytes.as_slice()).await?;
        }
    }
    Ok(new)
}

/// Goes back to the newest commit that both this machine and the store have, where the store's have other names now; those after it are
/// held, and given.
async fn retreat(local: &Local<'_>, store: &dyn Store) -> Result<Vec<Commit>, Stopped> {
    let mut lost = Vec::new();
    let Some(seen) = local.load()?.seen else { return Ok(lost) };
    let mut at = local.pinned(&seen)?;
    while let Some(commit) = at {
        let there = sync::read_commit_bytes(store, &commit_key(commit.body.n)).await?;
        if there.as_ref() == Some(&commit.bytes) {
            if !lost.is_empty() {
                local.pin(&commit.link())?;
            }
            return Ok(lost);
        }
        // Only what is there under another name: all else is a store that has gone back, and the pull says so.
        if fork_of(store, commit.clone(), there).await?.is_none() {
            return Ok(Vec::new());
        }
        local.hold(&commit)?;
        let (n, parent) = (commit.body.n, commit.body.parents.first().copied());
        lost.push(commit);
        at = local.commit(n - 1)?.filter(|before| Some(before.hash) == parent);
    }
    Ok(Vec::new())
}
