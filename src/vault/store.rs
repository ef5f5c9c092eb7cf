//! Where sealed generations live: the operations that the protocols need, of a bucket or a directory.
//!
//! Objects have keys like `gen/SHA.age` and are immutable. Only [`Store::create`] is conditional; it is what makes one
//! commit win. An implementation is honest about what it does not know: absence is claimed only where the store said
//! so ([`Kind::Denied`] is never absence), and a `create` whose answer never came is [`Created::Unknown`].

use std::fmt;
use std::io::{Read, Write};
use std::time::SystemTime;

use futures_util::future::BoxFuture;

use crate::error::{Error, Kind as ErrorKind};

/// A result of a store's.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What became of a conditional creation.
#[derive(Debug)]
pub enum Created {
    /// The store says that it made the object.
    Made,
    /// The store says that the key was taken; by whom, is to be read.
    Exists,
    /// Nobody knows: the answer was lost, or says that somebody else is at it. To be read, and tried again.
    Unknown(StoreError),
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The whole key.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// By the store's clock.
    pub modified: SystemTime,
}

/// A store of immutable objects.
pub trait Store: Send + Sync {
    /// For people: `s3://bucket/prefix`, or the directory.
    fn describe(&self) -> String;

    /// Writes an object of `size` bytes whatever is there, and returns once the store is known to have exactly these
    /// bytes. `sha256` is their hash. Tried again as often as it makes sense.
    fn put<'a>(
        &'a self,
        key: &'a str,
        size: u64,
        sha256: [u8; 32],
        body: &'a mut (dyn Read + Send),
    ) -> BoxFuture<'a, Result<()>>;

    /// Writes an object in one request, if this is a store that takes objects of this size so: one that compares their hash itself. It is tried
    /// once, and the body's bytes are not looked at. `false`: it is not, and nothing was done.
    fn put_whole<'a>(
        &'a self,
        _key: &'a str,
        _size: u64,
        _sha256: [u8; 32],
        _body: &'a mut (dyn Read + Send),
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Creates a small object if its key is free: one request, never repeated in here. An error means that it was not
    /// made, for whatever was not even tried.
    fn create<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> BoxFuture<'a, Result<Created>>;

    /// Copies an object of at most `limit` bytes; its size, or `None` where the store says that it has none.
    fn get<'a>(
        &'a self,
        key: &'a str,
        limit: u64,
        into: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<Option<u64>>>;

    /// An object's size in bytes, or `None` where the store says that it has none.
    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>>;

    /// The objects whose keys begin with `prefix` and come after `after`, sorted by key.
    fn list<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>>;

    /// Removes an object; one that is not there is no error. Only `vault prune` does this.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// Why a store did not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No credentials, or expired ones, or not these.
    Credentials,
    /// The credentials are good and do not allow this.
    Denied,
    /// The place itself is not there: no such bucket, no such directory.
    NoPlace,
    /// Nobody answers, or not in time, or the connection broke.
    Unreachable,
    /// The store is in trouble, or wants fewer requests: 5xx, 429.
    Busy,
    /// What the store has is not what was written, or larger than it may be.
    Corrupt,
    /// No room.
    Full,
    /// The clocks differ too much for signed requests.
    Clock,
    /// Anything else.
    Other,
}

/// Why a store did not do something, with what it said.
#[derive(Debug)]
pub struct StoreError {
    /// The class.
    pub kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// What failed, in one sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> StoreError {
        StoreError { kind, message: message.into(), source: None }
    }

    /// With its cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        self.source = Some(source.into());
        self
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Unreachable | Kind::Busy)
    }

    fn hint(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Credentials => {
                Some("log in again; for AWS `aws sso login`, or set the profile in `config.toml`")
            }
            Kind::Denied => Some(
                "the credentials must allow to read, write and list there; for a bucket `tazpod vault setup-storage --policy daily` prints the least",
            ),
            Kind::NoPlace => Some(
                "mount it, or make it (`tazpod vault setup-storage`), or correct `[vault] address` in `config.toml`",
            ),
            Kind::Unreachable | Kind::Busy => {
                Some("nothing is lost: what was not pushed stays here; try again later")
            }
            Kind::Corrupt => Some("`tazpod vault verify` checks all that the store has"),
            Kind::Full => Some("make room there; what was not pushed stays here"),
            Kind::Clock => Some("set this machine's clock: the store refuses what is signed at another time"),
            Kind::Other => None,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| -> &(dyn std::error::Error + 'static) { source.as_ref() })
    }
}

impl From<StoreError> for Error {
    fn from(failed: StoreError) -> Error {
        let kind = if failed.kind == Kind::Corrupt { ErrorKind::Integrity } else { ErrorKind::Store };
        let hint = failed.hint();
        let error = Error::new(kind, failed.message);
        let error = failed.source.into_iter().fold(error, Error::with_source);
        hint.into_iter().fold(error, Error::hint)
    }
}
