//! Removing what no commit that is to be kept needs. Commits stay, always; and nothing goes that is not recorded first.
//!
//! A push may be under way meanwhile. It looks for its objects again once its commit counts; a commit that came while the plan was made
//! keeps its objects here; and one that came while they went is looked for afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use super::commit::Commit;
use super::id::{Hash, VaultId};
use super::local::{Local, commit_key};
use super::pruned::{self, MOST};
use super::store::{Created, Kind as StoreKind, Store, StoreError};
use super::sync::{self, Stopped};
use crate::error::{Error, Kind};

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The states of this many commits, from the newest on.
    pub keep_last: Option<NonZeroU64>,
    /// The states of commits that came within this time, by the store's clock. With neither, those of all.
    pub keep_within: Option<Duration>,
    /// Objects that no commit names, for this long, by the store's clock: somebody may be about to name them.
    pub spare: Duration,
    /// What is missing or cut off, and the newest commit does not name, goes too: so it counts as pruned.
    pub accept_lost: bool,
}

impl Rules {
    /// How long objects that no commit names are spared.
    pub const SPARE: Duration = Duration::from_secs(24 * 60 * 60);
}

/// An object that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// Its key.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// The last commit that names it, if one does.
    pub commit: Option<u64>,
}

/// What is to go.
#[derive(Debug)]
pub struct Plan {
    /// The objects: first those that no commit names.
    pub objects: Vec<Doomed>,
    /// How many objects no commit names, and are spared.
    pub spared: u64,
    vault: VaultId,
    head: u64,
    branches: Vec<String>,
    /// Whether the credentials may remove anything.
    may_delete: bool,
}

/// Checks the store, and finds what is to go. Nothing is changed but for a small object under `probe/`, which shows the store's clock.
///
/// # Errors
/// [`Kind::Integrity`] where the store is not as it should be: then nothing is to be removed; the store's own.
pub async fn plan(local: &Local<'_>, store: &dyn Store, rules: &Rules) -> Result<Plan, Stopped> {
    let state = local.load()?;
    if state.seen.is_none() {
        let what = format!("this machine has not seen the vault in {} yet", store.describe());
        return Err(Error::new(Kind::Locked, what).hint("`tazpod vault pull` first").into());
    }
    let held = local.held()?;
    let contents = sync::examine(local, store, false).await?;
    let outbox = state.outbox.iter().map(|outgoing| &outgoing.commit);
    let beside: BTreeSet<String> =
        contents.branches.iter().chain(outbox).chain(&held).flat_map(named).collect();
    // What somebody may still put back is not given up.
    let mut lost = contents.lost;
    lost.retain(|key, _| rules.accept_lost && !beside.contains(key));
    let problems = contents.verified.problems.len() - lost.len();
    let Some((head, _)) = contents.commits.last().filter(|_| problems == 0) else {
        let what = format!("{problems} things are wrong with {}, so nothing is pruned", store.describe());
        return Err(Error::new(Kind::Integrity, what)
            .hint("`tazpod vault verify` lists them; what is lost of earlier states `--accept-lost` counts as pruned")
            .into());
    };
    let (now, may_delete) = clock(store).await?;

    let age = |since: &SystemTime| now.duration_since(*since).unwrap_or_default();
    let all = rules.keep_last.is_none() && rules.keep_within.is_none();
    let kept = contents.commits.iter().filter(|(commit, came)| {
        all || commit.body.n == head.body.n
            || rules.keep_last.is_some_and(|last| head.body.n - commit.body.n < last.get())
            || rules.keep_within.is_some_and(|within| age(came) <= within)
    });
    let mut kept: BTreeSet<String> = kept.flat_map(|(commit, _)| named(commit)).chain(beside).collect();
    kept.retain(|key| !lost.contains_key(key));
    let last: BTreeMap<String, u64> = contents
        .commits
        .iter()
        .flat_map(|(commit, _)| named(commit).map(|key| (key, commit.body.n)))
        .collect();

    let mut plan = Plan {
        objects: Vec::new(),
        spared: 0,
        vault: head.body.vault,
        head: head.body.n,
        branches: contents.branches.iter().map(sync::branch_key).collect(),
        may_delete,
    };
    let mut objects = contents.objects;
    for (key, n) in lost.into_iter().filter(|(key, _)| !objects.contains_key(key)) {
        // To be removed it need not be there.
        plan.objects.push(Doomed { key, size: 0, commit: Some(n) });
    }
    objects.retain(|key, _| is_ours(key) && !kept.contains(key));
    for (key, listed) in objects {
        let commit = last.get(&key).copied();
        if commit.is_none() && age(&listed.modified) < rules.spare {
            plan.spared += 1;
        } else {
            plan.objects.push(Doomed { key, size: listed.size, commit });
        }
    }
    plan.objects.sort_by_key(|object| object.commit);
    Ok(plan)
}

/// Removes what the plan says. `removed` is told of each object.
///
/// # Errors
/// [`Kind::Store`] where the credentials may not; the store's own. What is left is found by the next plan. [`Kind::Integrity`] where
/// somebody has pushed at the very moment, and named what went.
pub async fn carry_out(
    store: &dyn Store,
    plan: &Plan,
    mut removed: impl FnMut(&Doomed),
) -> Result<(), Stopped> {
    if plan.objects.is_empty() {
        return Ok(());
    }
    if !plan.may_delete {
        return Err(may_not(store).into());
    }
    for part in plan.objects.chunks(MOST) {
        let keys = part.iter().map(|object| object.key.as_str());
        let (key, bytes) = pruned::record(plan.vault, plan.head, keys)?;
        let put = store.put(&key, bytes.len() as u64, Hash::of(&bytes).0, &mut &bytes[..]).await;
        put.map_err(|failed| refused(store, failed))?;
    }
    // Somebody may have pushed since.
    let named_now = named_since(store, plan).await?;
    let mut gone = BTreeSet::new();
    for object in plan.objects.iter().filter(|object| !named_now.contains_key(&object.key)) {
        store.delete(&object.key).await.map_err(|failed| refused(store, failed))?;
        gone.insert(object.key.as_str());
        removed(object);
    }
    // Or meanwhile: no store can remove something only as long as nobody names it.
    for (key, host) in named_since(store, plan).await? {
        if gone.contains(key.as_str()) && store.size(&key).await?.is_none() {
            let what = format!("`{host}` has pushed a commit that names `{key}`, while that was removed");
            let hint = format!(
                "`tazpod vault push` on `{host}` puts it back, unless something newer was pushed since"
            );
            return Err(Error::new(Kind::Integrity, what).hint(hint).into());
        }
    }
    Ok(())
}

/// What commits and branches name that have come since the plan was made, and on which machine they were made.
async fn named_since(store: &dyn Store, plan: &Plan) -> Result<BTreeMap<String, String>, StoreError> {
    let mut since = BTreeMap::new();
    let commits = store.list("commits/", &commit_key(plan.head)).await?;
    let branches = store.list("branches/", "").await?;
    let new = branches.into_iter().filter(|listed| !plan.branches.contains(&listed.key));
    for listed in commits.into_iter().chain(new) {
        let bytes = sync::read_commit_bytes(store, &listed.key).await?.unwrap_or_default();
        // What is none names nothing.
        if let Ok(commit) = Commit::read(bytes) {
            since.extend(named(&commit).map(|key| (key, commit.body.host.clone())));
        }
    }
    Ok(since)
}

fn named(commit: &Commit) -> impl Iterator<Item = String> + use<> {
    sync::objects(commit).into_iter().map(|(object, hash, _)| object.key(&hash))
}

/// Whether this is how a generation or a keyring is named: what else is there is somebody else's.
fn is_ours(key: &str) -> bool {
    let name = |name: &str| name.parse::<Hash>().is_ok();
    let of = |prefix, suffix| key.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix(suffix));
    of("gen/", ".age").is_some_and(name)
        || of("keys/", "-r.age").or_else(|| of("keys/", ".age")).is_some_and(name)
}

/// The time by the store's clock, and whether the credentials may remove objects.
async fn clock(store: &dyn Store) -> Result<(SystemTime, bool), Stopped> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|source| Error::new(Kind::Failure, "the system has no randomness").with_source(source))?;
    let key = format!("probe/{}", Hash::of(&random));
    if let Created::Unknown(failed) = store.create(&key, b"now").await? {
        return Err(failed.into());
    }
    let listed = store.list(&key, "").await?;
    let may_delete = match store.delete(&key).await {
        Err(failed) if failed.kind == StoreKind::Denied => false,
        other => other.map(|()| true)?,
    };
    match listed.first() {
        Some(listed) => Ok((listed.modified, may_delete)),
        None => {
            let what = format!("{} does not list what was just written", store.describe());
            Err(StoreError::new(StoreKind::Other, what).into())
        }
    }
}

fn refused(store: &dyn Store, failed: StoreError) -> Error {
    match failed.kind {
        StoreKind::Denied => may_not(store).with_source(failed),
        _ => failed.into(),
    }
}

fn may_not(store: &dyn Store) -> Error {
    Error::new(Kind::Store, format!("these credentials may remove nothing in {}", store.describe())).hint(
        "those for every day need not; `tazpod vault setup-storage --policy maintenance` shows what pruning takes",
    )
}
