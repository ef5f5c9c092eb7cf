//! What a place really honours, found by trying it: some servers ignore conditions, or answer 200 for what they lost.

use futures_util::future::join_all;

use crate::vault::store::{Created, Kind, Result, Store, StoreError};

/// Larger than anything that a probe writes.
const LIMIT: u64 = 4096;

/// How many create the same object at once. A server that compares and then writes lets several through.
const RACERS: u8 = 4;

/// What a place honours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// A second creation of a key fails and leaves the first, among several at once too. Without it two machines can
    /// overwrite each other's commits.
    pub conditional_create: bool,
    /// An object whose bytes are not those of its checksum is refused. Without it every object is read back after it
    /// was written.
    pub checksums: bool,
    /// What was written can be read at once.
    pub read_after_write: bool,
    /// What was written is listed at once.
    pub list_after_write: bool,
    /// These credentials may remove objects. The daily ones need not.
    pub may_delete: bool,
}

impl Probe {
    /// A sentence for each thing that is not honoured and that a vault needs.
    pub fn shortcomings(&self) -> Vec<&'static str> {
        let all = [
            (
                self.conditional_create,
                "it ignores `If-None-Match`, so two machines that push at the same moment can overwrite each other",
            ),
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

/// Tries a store, in objects whose keys begin with `under`. Whether it refuses wrong checksums is `checksums`: how to
/// send one is the store's own to know.
pub(super) async fn probe(store: &dyn Store, under: &str, checksums: bool) -> Result<Probe> {
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
