//! Records of what was pruned, in the store, so that it can be told from what was lost.
//!
//! A record is text: a line of JSON, then a line for each object that was about to be removed. Its name is `pruned/` and the hash of
//! its bytes. Nobody signs it: it tells an intention from an accident, not from a bucket's owner who means harm.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::commit::Commit;
use super::id::{Hash, VaultId};
use super::local::{Local, Object};
use super::store::{Listed, Store, StoreError};
use crate::error::{Error, Kind};

/// Where records are.
const PREFIX: &str = "pruned/";
/// The value of [`Header::format`].
const FORMAT: &str = "tazpod-vault-pruned-1";
/// A record is not larger, in bytes.
const LARGEST: u64 = 1 << 20;
/// A record has no more objects: their names stay below [`LARGEST`].
pub const MOST: usize = 10_000;
/// All records together are not larger, in bytes; what is beyond that is not read.
const ALL: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    vault: VaultId,
    /// The newest commit at that time.
    n: u64,
}

/// The key and the bytes of the record of these objects, with `n` the newest commit.
///
/// # Errors
/// Where it cannot be written.
pub fn record<'k>(
    vault: VaultId,
    n: u64,
    keys: impl Iterator<Item = &'k str>,
) -> Result<(String, Vec<u8>), Error> {
    let header = Header { format: FORMAT.to_owned(), vault, n };
    let mut text = serde_json::to_string(&header)
        .map_err(|source| Error::new(Kind::Failure, "cannot write a record").with_source(source))?;
    for key in keys {
        text.push('\n');
        text.push_str(key);
    }
    text.push('\n');
    Ok((format!("{PREFIX}{}", Hash::of(text.as_bytes())), text.into_bytes()))
}

/// All that a store's records say.
#[derive(Debug, Default)]
pub struct Pruned {
    /// By its key the newest commit at the time when an object went.
    objects: BTreeMap<String, u64>,
    /// Records that are none.
    pub problems: Vec<String>,
}

impl Pruned {
    /// Reads a store's records.
    ///
    /// # Errors
    /// The store's own.
    pub async fn read(store: &dyn Store, vault: &VaultId) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        let mut all = 0;
        for (hash, listed) in list(store).await? {
            let mut bytes = Vec::new();
            if listed.size <= LARGEST {
                all += listed.size;
                if all > ALL {
                    pruned.problems.push(format!("`{PREFIX}` has too much: not all of it was read"));
                    break;
                }
                store.get(&listed.key, LARGEST, &mut bytes).await?;
            }
            if Hash::of(&bytes) != hash || pruned.add(&bytes, vault).is_none() {
                pruned.problems.push(format!("`{}` is no record of what was pruned", listed.key));
            }
        }
        Ok(pruned)
    }

    /// What the records say that a pull has brought here.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn here(local: &Local<'_>, vault: &VaultId) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for (hash, bytes) in local.records(LARGEST)? {
            if Hash::of(&bytes) == hash {
                pruned.add(&bytes, vault);
            }
        }
        Ok(pruned)
    }

    fn add(&mut self, bytes: &[u8], vault: &VaultId) -> Option<()> {
        let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let mut lines = text.split('\n');
        let header: Header = serde_json::from_str(lines.next()?).ok()?;
        if header.format != FORMAT || header.vault != *vault {
            return None;
        }
        for key in lines {
            let at = self.objects.entry(key.to_owned()).or_default();
            *at = header.n.max(*at);
        }
        Some(())
    }

    /// Whether an object that is not there was pruned: it was recorded when there was a later commit than `n`, the last one that names
    /// it. What the newest commit names is never pruned, nor is what a later one names again.
    pub fn covers(&self, key: &str, n: u64) -> bool {
        self.objects.get(key).is_some_and(|at| n < *at)
    }
}

async fn list(store: &dyn Store) -> Result<Vec<(Hash, Listed)>, StoreError> {
    let hash = |listed: &Listed| listed.key.strip_prefix(PREFIX).and_then(|name| name.parse().ok());
    let listed = store.list(PREFIX, "").await?.into_iter();
    Ok(listed.filter_map(|listed| Some((hash(&listed)?, listed))).collect())
}

/// Brings a store's records here. What is none is for `verify` to tell.
///
/// # Errors
/// The store's own.
pub async fn fetch(local: &Local<'_>, store: &dyn Store) -> Result<(), Error> {
    let here: BTreeSet<Hash> = local.records(LARGEST)?.into_iter().map(|(hash, _)| hash).collect();
    let mut all = 0;
    for (hash, listed) in list(store).await? {
        if listed.size > LARGEST {
            continue;
        }
        all += listed.size;
        if all > ALL {
            break;
        }
        if here.contains(&hash) {
            continue;
        }
        let mut bytes = Vec::new();
        store.get(&listed.key, LARGEST, &mut bytes).await?;
        if Hash::of(&bytes) == hash {
            local.keep_record(&hash, &bytes)?;
        }
    }
    Ok(())
}

/// Why a commit's generation cannot be fetched: it was pruned, or as `failed` says.
pub async fn explain(store: &dyn Store, commit: &Commit, failed: Error) -> Error {
    let key = Object::Generation.key(&commit.body.generation);
    let n = commit.body.n;
    match Pruned::read(store, &commit.body.vault).await {
        Ok(pruned) if failed.kind() == Kind::Integrity && pruned.covers(&key, n) => {
            Error::new(Kind::Usage, format!("the state of commit {n} is gone: it was pruned")).hint(
                "`tazpod vault history` lists the others; a bucket that keeps versions may still have it",
            )
        }
        _ => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAULT: VaultId = VaultId([6; 16]);

    #[test]
    fn a_record_covers_what_no_later_commit_names() {
        let (key, bytes) = record(VAULT, 5, ["gen/a.age", "keys/b.age"].into_iter()).unwrap();
        assert_eq!(key, format!("pruned/{}", Hash::of(&bytes)));
        let mut pruned = Pruned::default();
        pruned.add(&bytes, &VAULT).unwrap();
        assert!(pruned.covers("gen/a.age", 4) && pruned.covers("keys/b.age", 1));
        // The newest at that time, a later one, another object.
        assert!(!pruned.covers("gen/a.age", 5) && !pruned.covers("gen/a.age", 6));
        assert!(!pruned.covers("gen/c.age", 1));
        let (_, later) = record(VAULT, 8, ["gen/a.age"].into_iter()).unwrap();
        pruned.add(&later, &VAULT).unwrap();
        pruned.add(&bytes, &VAULT).unwrap();
        assert!(pruned.covers("gen/a.age", 7) && !pruned.covers("gen/a.age", 8));
    }

    #[test]
    fn what_is_no_record_says_nothing() {
        let (_, bytes) = record(VAULT, 5, ["gen/a.age"].into_iter()).unwrap();
        let mut pruned = Pruned::default();
        assert!(pruned.add(&bytes, &VaultId([7; 16])).is_none());
        assert!(pruned.add(&bytes[..bytes.len() - 1], &VAULT).is_none());
        let text = String::from_utf8(bytes).unwrap();
        assert!(pruned.add(text.replace("pruned-1", "pruned-2").as_bytes(), &VAULT).is_none());
        assert!(pruned.add(b"gen/a.age\n", &VAULT).is_none());
        assert!(!pruned.covers("gen/a.age", 1));
    }

    #[test]
    fn the_largest_record_can_be_read() {
        let key = format!("keys/{}-r.age", Hash([0xff; 32]));
        let (_, bytes) = record(VAULT, u64::MAX, std::iter::repeat_n(key.as_str(), MOST)).unwrap();
        assert!(bytes.len() as u64 <= LARGEST, "{}", bytes.len());
    }
}
