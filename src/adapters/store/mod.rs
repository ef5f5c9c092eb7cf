//! The real stores of a vault: a directory, an S3 bucket. One conformance suite, `tests/store`, runs over both.

mod config;
mod directory;
mod probe;
mod s3;

pub use config::{S3Config, StoreConfig, StoreSettings};
pub use directory::DirectoryStore;
pub use probe::Probe;
pub use s3::{Access, Keys, Limits, Login, Role, S3Store, login, policy};

use std::fs::File;
use std::io::{self, Read};

use futures_util::future::BoxFuture;

use crate::vault::store::{Kind, Result, Store, StoreError};

/// A place that a store is in, to be examined and set up.
pub trait Place: Store {
    /// Tries what the place really honours, by writing small objects under `probe/`, and removes them if it may.
    fn probe(&self) -> BoxFuture<'_, Result<Probe>>;

    /// Makes the place, or checks it. A step that does not work out is told, and the others are done nevertheless.
    ///
    /// # Errors
    /// Where the place itself can be neither made nor reached.
    fn setup(&self) -> BoxFuture<'_, Result<Vec<Step>>>;
}

/// One thing of a place that [`Place::setup`] sees to.
#[derive(Debug)]
pub struct Step {
    /// What is so afterwards, in a few words: `versioning is on`.
    pub what: &'static str,
    /// Whether it is.
    pub outcome: Outcome,
}

/// What became of a step.
#[derive(Debug)]
pub enum Outcome {
    /// It was not so, and is now.
    Done,
    /// It was so before.
    WasSo,
    /// This server has no such thing.
    NotSupported,
    /// It could not be seen or done, for this reason.
    Failed(StoreError),
    /// It is so, but something else there stands against it.
    Warning(String),
}

/// Opens a store. Nothing is asked of it yet; for a bucket, credentials are looked up at the first request.
pub async fn open(config: &StoreConfig, access: Access) -> Box<dyn Place> {
    match config {
        StoreConfig::Directory(path) => Box::new(DirectoryStore::new(path)),
        StoreConfig::S3(config) => Box::new(S3Store::open(config, access).await),
    }
}

/// A name that nobody else takes.
fn unguessable() -> io::Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn not_as_announced(key: &str) -> StoreError {
    StoreError::new(Kind::Corrupt, format!("what was to be `{key}` has another size or hash than announced"))
}

fn too_large(key: &str, limit: u64) -> StoreError {
    StoreError::new(
        Kind::Corrupt,
        format!("`{key}` is larger than {limit} bytes, which is the most it may be"),
    )
}

fn cannot_keep(key: &str, source: io::Error) -> StoreError {
    StoreError::new(Kind::Other, format!("cannot keep what was read of `{key}`")).with_source(source)
}
