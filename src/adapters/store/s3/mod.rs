//! A store in a bucket of S3's, or of a server that speaks like it.
//!
//! Bodies are in memory, a part of 8 MiB at a time, with their length and `Content-MD5` in the header: that is what
//! every server tried verifies (`x-amz-checksum-sha256` is not by all), and streamed bodies with trailers are what some store
//! wrongly. Where a probe showed that hashes are verified, too, large ones go as one stream with a header that has the hash, which
//! is also their name. It is a checksum against accidents; the vault's own hashes and signatures are against everything else.

#![expect(clippy::disallowed_types, reason = "this is where the S3 client lives")]

mod failure;
mod login;
mod policy;
mod setup;
mod upload;
mod wire;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use md5::Md5;
use sha2::{Digest, Sha256};

use self::failure::Failure;
use self::upload::WHOLE;
use super::config::S3Config;
use super::probe::{Probe, clean_up, probe};
use super::{Place, Step, cannot_keep, not_as_announced, too_large, unguessable};
use crate::vault::store::{Created, Kind, Listed, Result, Store, StoreError};

pub use self::login::{Login, login};
pub use self::policy::{Role, policy};

/// Where no configuration names one. Servers other than AWS do not care.
const DEFAULT_REGION: &str = "us-east-1";

/// How long credentials may take: a program that a profile names may ask somebody for a code.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(120);
/// A list has no more objects, and comes in no more pages of usually a thousand: far more than a vault has.
const LONGEST_LIST: usize = 2_000_000;
const MOST_PAGES: usize = LONGEST_LIST / 1000;

/// How patient a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection stands, names and TLS included.
    pub connect: Duration,
    /// How long no byte may move on a connection that is in use.
    pub silence: Duration,
    /// How often a request that can be repeated is tried, altogether.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connect: Duration::from_secs(10), silence: Duration::from_secs(30), attempts: 4 }
    }
}

/// An access key.
#[derive(Clone)]
pub struct Keys {
    /// Its name.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The session that it belongs to, where it is a temporary one.
    pub session: Option<String>,
}

/// How to get at a bucket.
#[derive(Clone, Default)]
pub struct Access {
    /// These keys; without them those that AWS's own tools would find: environment, profile (SSO, another program),
    /// the machine's role.
    pub keys: Option<Keys>,
    /// Patience.
    pub limits: Limits,
    /// Whether a [`Probe`] showed that this server accepts wrong checksums, so that what was written has to be read
    /// back.
    pub read_back: bool,
    /// Whether one showed that it compares the hashes that it is told.
    pub hashes: bool,
}

/// A store in a bucket.
pub struct S3Store {
    client: Client,
    config: S3Config,
    region: String,
    limits: Limits,
    read_back: AtomicBool,
    hashes: AtomicBool,
    /// Whether the bucket was seen since this was opened.
    seen: AtomicBool,
}

impl S3Store {
    /// The store; asks nothing yet.
    pub async fn open(config: &S3Config, access: Access) -> S3Store {
        let Access { keys, limits, read_back, hashes } = access;
        let (builder, region) = match keys {
            Some(keys) => {
                let region = config.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned());
                let credentials = Credentials::new(keys.id, keys.secret, keys.session, None, "tazpod");
                let builder = Builder::new()
                    .behavior_version(behaviour())
                    .http_client(wire::client(limits.silence))
                    .region(Region::new(region.clone()))
                    .credentials_provider(credentials);
                (builder, region)
            }
            None => found(config, limits).await,
        };
        let mut builder = builder
            .force_path_style(config.path_style)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::standard().with_max_attempts(limits.attempts))
            .timeout_config(TimeoutConfig::builder().connect_timeout(limits.connect).build())
            // Ours counts bytes both ways, `wire`.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        S3Store {
            client: Client::from_conf(builder.build()),
            config: config.clone(),
            region,
            limits,
            read_back: AtomicBool::new(read_back),
            hashes: AtomicBool::new(hashes),
            seen: AtomicBool::new(false),
        }
    }

    /// The key in the bucket.
    fn full(&self, key: &str) -> String {
        if self.config.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.config.prefix) }
    }

    fn cannot(&self, action: &str, key: &str) -> String {
        format!("cannot {action} `{key}` in `{}`", self.config)
    }

    /// Sees that the bucket is there, before anything is written: SeaweedFS makes a missing one by itself, and a
    /// misspelt name would be a place of its own.
    async fn place(&self) -> Result<()> {
        if self.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let prefix = self.full("commits/");
        let request = self.client.list_objects_v2().bucket(&self.config.bucket).prefix(prefix).max_keys(1);
        match request.send().await {
            Err(error) => {
                let failure = Failure::of(&error);
                // Whoever may not list may write nevertheless. All else would meet the next request as well.
                if !matches!(failure.kind, Kind::Denied) {
                    return Err(failure.on(format!("cannot look into `{}`", self.config)));
                }
            }
            Ok(_) => self.seen.store(true, Ordering::Relaxed),
        }
        Ok(())
    }

    async fn put_object(&self, key: &str, sum: Sum) -> Result<()> {
        let Sum { bytes, md5 } = sum;
        self.client
            .put_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .content_md5(md5)
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map(drop)
            .map_err(|error| Failure::of(&error).on(self.cannot("write", key)))
    }

    /// Whether an object whose checksum is wrong is refused.
    async fn refuses_wrong_checksums(&self, key: &str) -> Result<bool> {
        let Sum { bytes, .. } = Sum::of(Bytes::from_static(b"these bytes"));
        let Sum { md5, .. } = Sum::of(Bytes::from_static(b"other bytes"));
        match self.put_object(key, Sum { bytes, md5 }).await {
            Ok(()) => Ok(false),
            Err(error) if error.kind == Kind::Corrupt => Ok(self.size(key).await?.is_none()),
            Err(error) => Err(error),
        }
    }

    /// Whether an object comes in one request with its hash, and is refused, and not kept, with another's. Where that is not clear it is not so:
    /// parts will do.
    async fn refuses_wrong_hashes(&self, key: &str) -> bool {
        let bytes = &b"these bytes"[..];
        let put = async |told: &[u8]| {
            let mut body = bytes;
            self.upload_whole(key, bytes.len() as u64, Sha256::digest(told).into(), &mut body).await
        };
        let refused = put(b"other bytes").await.is_err_and(|error| !error.is_transient());
        refused && matches!(self.size(key).await, Ok(None)) && put(bytes).await.is_ok()
    }

    /// Asks for an object from `offset` on.
    async fn request(
        &self,
        key: &str,
        range: Option<String>,
        etag: Option<&str>,
    ) -> std::result::Result<GetObjectOutput, SdkError<GetObjectError>> {
        let request = self.client.get_object().bucket(&self.config.bucket).key(self.full(key));
        request.set_range(range).set_if_match(etag.map(str::to_owned)).send().await
    }

    /// Copies an object. Where the connection breaks on the way, it goes on from there: the same object, by its tag.
    async fn download(&self, key: &str, limit: u64, into: &mut (dyn Write + Send)) -> Result<Option<u64>> {
        let mut received = 0;
        let mut etag: Option<String> = None;
        let mut attempts = self.limits.attempts;
        loop {
            let range = (received > 0).then(|| format!("bytes={received}-"));
            let mut answer = match self.request(key, range, etag.as_deref()).await {
                Ok(answer) => answer,
                Err(error) => {
                    let failure = Failure::of(&error);
                    if failure.is_absence() && received == 0 {
                        return Ok(None);
                    }
                    return Err(failure.on(self.cannot("read", key)));
                }
            };
            let continued =
                answer.content_range().is_some_and(|range| range.starts_with(&format!("bytes {received}-")));
            if received > 0 && !continued {
                return Err(self.broken(key, "the server does not continue a transfer that broke off"));
            }
            let rest = answer.content_length().and_then(|length| u64::try_from(length).ok());
            if rest.is_some_and(|rest| rest > limit.saturating_sub(received)) {
                return Err(too_large(key, limit));
            }
            let total = rest.map(|rest| rest + received);
            etag = answer.e_tag().map(str::to_owned);
            let begun_at = received;
            let broke = loop {
                match answer.body.next().await {
                    Some(Ok(chunk)) => {
                        received += chunk.len() as u64;
                        if received > limit {
                            return Err(too_large(key, limit));
                        }
                        into.write_all(&chunk).map_err(|source| cannot_keep(key, source))?;
                    }
                    Some(Err(error)) => break error.to_string(),
                    None if total.is_none_or(|total| total == received) => return Ok(Some(received)),
                    None => break "it ended early".to_owned(),
                }
            };
            attempts = if received > begun_at { self.limits.attempts } else { attempts.saturating_sub(1) };
            // Without a tag nobody knows whether the rest is of the same object.
            if attempts == 0 || (received > 0 && etag.is_none()) {
                return Err(self.broken(key, &broke));
            }
        }
    }

    fn broken(&self, key: &str, why: &str) -> StoreError {
        StoreError::new(Kind::Unreachable, self.cannot("read", key)).with_source(why)
    }

    /// An object's size. The answer to HEAD has no body and so does not say why there is none: then it is asked in
    /// another way.
    async fn measure(&self, key: &str) -> Result<Option<u64>> {
        let length = |length: Option<i64>| length.and_then(|length| u64::try_from(length).ok());
        let head = self.client.head_object().bucket(&self.config.bucket).key(self.full(key)).send().await;
        match head {
            Ok(head) => return Ok(Some(length(head.content_length()).unwrap_or(0))),
            Err(error) => {
                let failure = Failure::of(&error);
                if failure.status == 0 || failure.status >= 500 {
                    return Err(failure.on(self.cannot("look at", key)));
                }
            }
        }
        match self.request(key, Some("bytes=0-0".into()), None).await {
            Ok(answer) => {
                let total = answer.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
                Ok(Some(total.or(length(answer.content_length())).unwrap_or(0)))
            }
            Err(error) => {
                let failure = Failure::of(&error);
                match failure.code.as_str() {
                    // An empty object has no first byte.
                    "InvalidRange" => Ok(Some(0)),
                    _ if failure.is_absence() => Ok(None),
                    _ => Err(failure.on(self.cannot("look at", key))),
                }
            }
        }
    }

    /// Sees that the store has what was written.
    async fn confirm(&self, key: &str, size: u64, sha256: [u8; 32]) -> Result<()> {
        let wrong = |what: &str| {
            StoreError::new(
                Kind::Corrupt,
                format!("`{}` does not keep `{key}` as it was written: {what}", self.config),
            )
        };
        match self.measure(key).await? {
            Some(there) if there == size => {}
            Some(there) => return Err(wrong(&format!("it has {there} bytes instead of {size}"))),
            None => return Err(wrong("it has no such object")),
        }
        if self.read_back.load(Ordering::Relaxed) && !self.has(key, size, sha256).await? {
            return Err(wrong("its hash is another"));
        }
        Ok(())
    }

    /// Whether the store has exactly this, by reading it.
    async fn has(&self, key: &str, size: u64, sha256: [u8; 32]) -> Result<bool> {
        let mut hash = Sha256::new();
        match self.download(key, size, &mut hash).await {
            Ok(Some(there)) => Ok(there == size && hash.finalize().as_slice() == sha256),
            Ok(None) => Ok(false),
            Err(error) if error.kind == Kind::Corrupt => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create_object(&self, key: &str, bytes: &[u8]) -> Result<Created> {
        self.place().await?;
        let Sum { bytes, md5 } = Sum::of(Bytes::copy_from_slice(bytes));
        // One request: the answer to a second one would be about the first.
        let once = Builder::new().retry_config(RetryConfig::disabled());
        let sent = self
            .client
            .put_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .if_none_match("*")
            .content_md5(md5)
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(once)
            .send()
            .await;
        let failure = match sent {
            Ok(_) => return Ok(Created::Made),
            Err(error) => Failure::of(&error),
        };
        let cannot = self.cannot("create", key);
        match failure.status {
            412 => Ok(Created::Exists),
            501 => Err(failure.on(format!("`{}` knows no `If-None-Match`", self.config))),
            _ if matches!(failure.kind, Kind::Unreachable | Kind::Busy) => {
                Ok(Created::Unknown(failure.on(cannot)))
            }
            _ => Err(failure.on(cannot)),
        }
    }

    async fn list_objects(&self, prefix: &str, after: &str) -> Result<Vec<Listed>> {
        let whole = self.full("");
        let prefix = self.full(prefix);
        // Where nothing is to be left out, nothing is said: not every server knows `start-after`.
        let after = (!after.is_empty()).then(|| self.full(after));
        let failed = |error: &SdkError<_>| Failure::of(error).on(format!("cannot list `{}`", self.config));
        let mut listed = Vec::new();
        let mut token: Option<String> = None;
        let mut last = String::new();
        for _ in 0..MOST_PAGES {
            let request = self.client.list_objects_v2().bucket(&self.config.bucket).prefix(&prefix);
            let request = match &token {
                Some(token) => request.continuation_token(token),
                None => request.set_start_after(after.clone()),
            };
            let page = request.send().await.map_err(|error| failed(&error))?;
            self.seen.store(true, Ordering::Relaxed);
            // Some servers send a page with nothing on it.
            let newest = page.contents().iter().filter_map(|object| object.key()).max();
            if listed.len() > LONGEST_LIST || newest.is_some_and(|newest| newest <= last.as_str()) {
                return Err(self.endless());
            }
            last = newest.map_or(last, str::to_owned);
            for object in page.contents() {
                let Some(full) = object.key() else { continue };
                let Some(key) = full.strip_prefix(&whole) else { continue };
                // Some servers have directories, and list them; some do not know `start-after`.
                let wanted = !key.ends_with('/')
                    && full.starts_with(&prefix)
                    && after.as_deref().is_none_or(|after| full > after);
                if wanted {
                    let modified = object.last_modified().and_then(|time| SystemTime::try_from(*time).ok());
                    listed.push(Listed {
                        key: key.to_owned(),
                        size: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                        // What has no time is not old: prune spares it.
                        modified: modified.unwrap_or_else(SystemTime::now),
                    });
                }
            }
            let next = page.next_continuation_token().map(str::to_owned);
            if page.is_truncated() != Some(true) {
                listed.sort_by(|a, b| a.key.cmp(&b.key));
                listed.dedup_by(|a, b| a.key == b.key);
                return Ok(listed);
            }
            if next.is_none() {
                break;
            }
            token = next;
        }
        Err(self.endless())
    }

    fn endless(&self) -> StoreError {
        let what = format!("`{}` says that its list goes on, and not where, or without end", self.config);
        StoreError::new(Kind::Other, what)
    }

    async fn try_out(&self) -> Result<Probe> {
        self.place().await?;
        let random = unguessable().map_err(|source| {
            StoreError::new(Kind::Other, "cannot read random numbers").with_source(source)
        })?;
        let under = format!("probe/{random}/");
        let sum = format!("{under}sum");
        let checksums = self.refuses_wrong_checksums(&sum).await?;
        self.read_back.store(!checksums, Ordering::Relaxed);
        let hash = format!("{under}hash");
        let hashes = self.refuses_wrong_hashes(&hash).await;
        self.hashes.store(hashes, Ordering::Relaxed);
        let found = probe(self, &under, checksums, hashes).await;
        match found {
            Ok(mut found) => {
                found.may_delete &= clean_up(self, &[&sum, &hash]).await?;
                Ok(found)
            }
            Err(error) => {
                let _ =
                    clean_up(self, &[&sum, &hash, &format!("{under}once"), &format!("{under}race")]).await;
                Err(error)
            }
        }
    }
}

impl Store for S3Store {
    fn describe(&self) -> String {
        self.config.to_string()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        size: u64,
        sha256: [u8; 32],
        body: &'a mut (dyn Read + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.place().await?;
            self.upload(key, size, sha256, body).await?;
            self.confirm(key, size, sha256).await
        })
    }

    fn put_whole<'a>(
        &'a self,
        key: &'a str,
        size: u64,
        sha256: [u8; 32],
        body: &'a mut (dyn Read + Send),
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            if !WHOLE.contains(&size) || !self.hashes.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.place().await?;
            self.upload_whole(key, size, sha256, body).await?;
            self.confirm(key, size, sha256).await.map(|()| true)
        })
    }

    fn create<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> BoxFuture<'a, Result<Created>> {
        Box::pin(self.create_object(key, bytes))
    }

    fn get<'a>(
        &'a self,
        key: &'a str,
        limit: u64,
        into: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(self.download(key, limit, into))
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(self.measure(key))
    }

    fn list<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        Box::pin(self.list_objects(prefix, after))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = self.client.delete_object().bucket(&self.config.bucket).key(self.full(key));
            match request.send().await.map_err(|error| Failure::of(&error)) {
                Err(failure) if !failure.is_absence() => Err(failure.on(self.cannot("remove", key))),
                _ => Ok(()),
            }
        })
    }
}

impl Place for S3Store {
    fn probe(&self) -> BoxFuture<'_, Result<Probe>> {
        Box::pin(self.try_out())
    }

    fn setup(&self) -> BoxFuture<'_, Result<Vec<Step>>> {
        Box::pin(self.set_up())
    }
}

/// Bytes with their checksum, as the header has it.
struct Sum {
    bytes: Bytes,
    md5: String,
}

impl Sum {
    fn of(bytes: Bytes) -> Sum {
        let md5 = STANDARD.encode(Md5::digest(&bytes));
        Sum { bytes, md5 }
    }
}

/// What the SDK does where it is not told otherwise, as of this version of it.
fn behaviour() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// What AWS's own tools would find on this machine.
async fn found(config: &S3Config, limits: Limits) -> (Builder, String) {
    let mut profile = ProfileFileRegionProvider::builder();
    let mut loader = aws_config::defaults(behaviour())
        .http_client(wire::client(limits.silence))
        .timeout_config(TimeoutConfig::builder().connect_timeout(limits.connect).build())
        .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build());
    if let Some(name) = &config.profile {
        profile = profile.profile_name(name);
        loader = loader.profile_name(name);
    }
    // Not the machine's role: where there is none, the question takes seconds.
    let region = RegionProviderChain::first_try(config.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build())
        .or_else(DEFAULT_REGION)
        .region()
        .await;
    let region = region.unwrap_or(Region::from_static(DEFAULT_REGION));
    let shared = loader.region(region.clone()).load().await;
    (Builder::from(&shared), region.to_string())
}
