//! What a place really honours, found by trying it: some servers ignore conditions, or answer 200 for what they lost.

use std::fs;
use std::path::Path;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::StoreConfig;
use crate::adapters::files;
use crate::error;
use crate::vault::store::{Created, Kind, Result, Store, StoreError};

/// Larger than anything that a probe writes.
const LIMIT: u64 = 4096;

/// The version of what is kept of a probe.
const VERSION: u32 = 2;

/// How many create the same object at once. A server that compares and then writes lets several through.
const RACERS: u8 = 4;

/// What a place honours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// A second creation of a key fails and leaves the first, among several at once too. Without it two machines can
    /// overwrite each other's commits.
    pub conditional_create: bool,
    /// An object whose bytes are not those of its checksum is refused. Without it every object is read back after it
    /// was written.
    pub checksums: bool,
    /// So is one whose bytes are not those of its SHA-256, which is known long before. With it a large object goes in one request.
    pub hashes: bool,
    /// What was written can be read at once.
    pub read_after_write: bool,
    /// What was written is listed at once.
    pub list_after_write: bool,
    /// These credentials may remove objects. The daily ones need not.
    pub may_delete: bool,
}

/// A probe as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    store: String,
    probe: Probe,
}

impl Probe {
    /// What it means that conditions are not honoured.
    pub const OVERWRITES: &str =
        "it ignores `If-None-Match`, so two machines that push at the same moment can overwrite each other";

    /// What was found of this store when it was examined last; `None` where it was not, or that cannot be read.
    pub fn load(path: &Path, config: &StoreConfig) -> Option<Probe> {
        let kept: Kept = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (kept.version == VERSION && kept.store == place(config)).then_some(kept.probe)
    }

    /// Keeps what was found, for this store and no other.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(self, path: &Path, config: &StoreConfig) -> error::Result<()> {
        let kept = Kept { version: VERSION, store: place(config), probe: self };
        let text = serde_json::to_vec_pretty(&kept).map_err(|source| {
            error::Error::new(error::Kind::Failure, "cannot write what was found of the store")
                .with_source(source)
        })?;
        files::write_atomically(path, &text, 0o600)
    }

    /// A sentence for each thing that is not honoured and that a vault needs.
    pub fn shortcomings(&self) -> Vec<&'static str> {
        let all = [
            (self.conditional_create, Probe::OVERWRITES),
            (
                self.checksums,
                "it accepts objects whose checksum is wrong, so each is read back after it was written",
            ),
            (self.read_after_write, "what was written cannot be read at once, so a push may look lost"),
            (self.list_after_write, "what was written is not listed at once, so a pull may miss the newest"),
        ];
        all.into_iter().filter(|(honoured, _)| !honoured).map(|(_, sentence)| sentence).collect()
    }
}

/// Which store it is: its server too, as many have buckets of one name.
fn place(config: &StoreConfig) -> String {
    match config {
        StoreConfig::S3(bucket) => match &bucket.endpoint {
            Some(endpoint) => format!("{config} at {endpoint}"),
            None => config.to_string(),
        },
        StoreConfig::Directory(_) => config.to_string(),
    }
}

/// Tries a store, in objects whose keys begin with `under`. Whether it refuses wrong checksums and hashes is for the store's own to try:
/// how to send one, it knows.
pub(super) async fn probe(store: &dyn Store, under: &str, checksums: bool, hashes: bool) -> Result<Probe> {
    let once = format!("{under}once");
    let race = format!("{under}race");

    let first = store.create(&once, b"first").await?;
    made(first)?;
    let read_after_write = read(store, &once).await?.as_deref() == Some(b"first");
    let second = store.create(&once, b"second").await?;
    let refused = match second {
        Created::Exists => true,
        Created::Made => false,
        Created::Unknown(error) => return Err(error),
    };
    // Some say 412 and write nevertheless.
    let kept = !read_after_write || read(store, &once).await?.as_deref() == Some(b"first");

    let bodies: Vec<[u8; 1]> = (0..RACERS).map(|racer| [racer]).collect();
    let racing = join_all(bodies.iter().map(|body| store.create(&race, body))).await;
    let mut winners = 0;
    for result in racing {
        winners += usize::from(matches!(result?, Created::Made));
    }

    let listed = store.list(under, "").await?;
    let has = |key: &str| listed.iter().any(|object| object.key == key);
    let list_after_write = has(&once) && has(&race);

    Ok(Probe {
        // None, where all answers were lost or somebody was always at it.
        conditional_create: refused && kept && winners <= 1,
        checksums,
        hashes,
        read_after_write,
        list_after_write,
        may_delete: clean_up(store, &[&once, &race]).await?,
    })
}

/// Removes objects, if that is allowed.
pub(super) async fn clean_up(store: &dyn Store, keys: &[&str]) -> Result<bool> {
    for key in keys {
        match store.delete(key).await {
            Err(error) if error.kind == Kind::Denied => return Ok(false),
            other => other?,
        }
    }
    Ok(true)
}

fn made(created: Created) -> Result<()> {
    match created {
        Created::Made => Ok(()),
        // The name is random.
        Created::Exists => {
            Err(StoreError::new(Kind::Other, "the store says that a new object is there already"))
        }
        Created::Unknown(error) => Err(error),
    }
}

async fn read(store: &dyn Store, key: &str) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    Ok(store.get(key, LIMIT, &mut bytes).await?.map(|_| bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::store::StoreSettings;

    fn bucket(endpoint: Option<&str>) -> StoreConfig {
        let settings = StoreSettings {
            address: "s3://bucket/vault".into(),
            endpoint: endpoint.map(str::to_owned),
            ..StoreSettings::default()
        };
        StoreConfig::new(&settings).unwrap()
    }

    #[test]
    fn what_was_found_is_kept_for_one_store() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.json");
        let here = bucket(Some("https://minio.example"));
        let found = Probe {
            conditional_create: true,
            checksums: false,
            hashes: false,
            read_after_write: true,
            list_after_write: true,
            may_delete: false,
        };
        assert_eq!(Probe::load(&path, &here), None);
        found.save(&path, &here).unwrap();
        assert_eq!(Probe::load(&path, &here), Some(found));
        for other in [bucket(None), bucket(Some("https://other.example"))] {
            assert_eq!(Probe::load(&path, &other), None);
        }
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [text.replace("\"version\": 2", "\"version\": 1"), text[..text.len() / 2].to_owned()] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(Probe::load(&path, &here), None);
        }
    }
}
