//! Writing an object: in one request, or in parts of which a few are under way at once.

use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::body::{Body, Frame, SizeHint};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::failure::Failure;
use super::{S3Store, Sum, not_as_announced};
use crate::vault::store::{Kind, Result, StoreError};

/// The sizes in bytes of objects that may go in one request as a stream: smaller ones are in memory anyway, and of larger ones a connection
/// that breaks would waste too much. (rclone draws the line at 200 MiB, too.)
pub(super) const WHOLE: RangeInclusive<u64> = PART as u64 + 1..=200 << 20;

/// How much of such a stream is read at once, in bytes.
const PIECE: usize = 128 * 1024;

/// The size of a part, and of the largest object that is in memory as a whole; in bytes.
const PART: usize = 8 * 1024 * 1024;

/// How many parts are under way at once. Together they are what an upload takes of memory.
const FLIGHTS: usize = 3;

/// The most parts that S3 allows.
const PARTS: u64 = 10_000;

impl S3Store {
    /// Writes an object, without confirming it. Nothing is written, or nothing new appears under the key, where the
    /// bytes are not those announced.
    pub(super) async fn upload(
        &self,
        key: &str,
        size: u64,
        sha256: [u8; 32],
        body: &mut (dyn Read + Send),
    ) -> Result<()> {
        if size > PART as u64 {
            return self.upload_parts(key, size, sha256, body).await;
        }
        // One more than announced shows that there is more.
        let bytes = piece(key, body, usize::try_from(size).unwrap_or(PART) + 1)?;
        if bytes.len() as u64 != size || Sha256::digest(&bytes).as_slice() != sha256 {
            return Err(not_as_announced(key));
        }
        self.put_object(key, Sum::of(bytes)).await
    }

    /// Writes an object in one request, which is not repeated, without confirming it. It costs the server two thirds of what parts cost.
    /// Whether the bytes are right it finds itself.
    pub(super) async fn upload_whole(
        &self,
        key: &str,
        size: u64,
        sha256: [u8; 32],
        body: &mut (dyn Read + Send),
    ) -> Result<()> {
        let (pieces, waiting) = mpsc::channel(2);
        let mut sent = pin!(
            self.client
                .put_object()
                .bucket(&self.config.bucket)
                .key(self.full(key))
                .checksum_sha256(STANDARD.encode(sha256))
                .body(ByteStream::from_body_1_x(Pieces { waiting, rest: size }))
                .customize()
                .disable_payload_signing()
                .send()
        );
        let fed = async move {
            let mut read = 0;
            loop {
                let bytes = piece(key, body, PIECE)?;
                read += bytes.len() as u64;
                if read > size || (bytes.is_empty() && read < size) {
                    return Err(not_as_announced(key));
                }
                // Nobody takes it: the request has failed.
                if bytes.is_empty() || pieces.send(bytes).await.is_err() {
                    return Ok(());
                }
            }
        };
        let sent = tokio::select! {
            // It may be answered, and refused, before all of it was read.
            sent = &mut sent => sent,
            fed = fed => match fed {
                Ok(()) => sent.await,
                Err(error) => return Err(error),
            },
        };
        sent.map(drop).map_err(|error| Failure::of(&error).on(self.cannot("write", key)))
    }

    async fn upload_parts(
        &self,
        key: &str,
        size: u64,
        sha256: [u8; 32],
        body: &mut (dyn Read + Send),
    ) -> Result<()> {
        if size > PART as u64 * PARTS {
            let most = PART as u64 * PARTS / (1 << 30);
            return Err(StoreError::new(Kind::Other, format!("`{key}` is larger than {most} GiB")));
        }
        let mut upload = Upload::begin(self, key).await?;
        let sent = upload.send(size, sha256, body).await;
        let settled = match sent {
            Ok(parts) => upload.complete(size, sha256, parts).await,
            Err(error) => Err(error),
        };
        if settled.is_err() {
            upload.abort().await;
        }
        upload.settled = true;
        settled
    }
}

/// A body of a known length, in pieces that are still to be read.
struct Pieces {
    waiting: mpsc::Receiver<Bytes>,
    rest: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match ready!(self.waiting.poll_recv(context)) {
            Some(bytes) => {
                self.rest = self.rest.saturating_sub(bytes.len() as u64);
                Some(Ok(Frame::data(bytes)))
            }
            None if self.rest == 0 => None,
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}

/// An upload in parts. Given up unless it is settled; what cannot be given up, a lifecycle rule removes.
struct Upload<'a> {
    store: &'a S3Store,
    key: &'a str,
    full: String,
    id: String,
    settled: bool,
}

impl Upload<'_> {
    async fn begin<'a>(store: &'a S3Store, key: &'a str) -> Result<Upload<'a>> {
        let full = store.full(key);
        let request = store.client.create_multipart_upload().bucket(&store.config.bucket).key(&full);
        let id = match request.send().await {
            Ok(begun) => begun.upload_id().unwrap_or_default().to_owned(),
            Err(error) => match misnamed(&error) {
                Some(id) => id,
                None => return Err(Failure::of(&error).on(store.cannot("write", key))),
            },
        };
        if id.is_empty() {
            return Err(StoreError::new(Kind::Other, store.cannot("write", key))
                .with_source("the server gave the upload no name"));
        }
        Ok(Upload { store, key, full, id, settled: false })
    }

    /// Sends all parts; nothing appears under the key yet.
    async fn send(
        &self,
        size: u64,
        sha256: [u8; 32],
        body: &mut (dyn Read + Send),
    ) -> Result<Vec<CompletedPart>> {
        let mut hash = Sha256::new();
        let mut read = 0;
        let mut flights = FuturesUnordered::new();
        let mut parts = Vec::new();
        for number in 1.. {
            while flights.len() >= FLIGHTS {
                parts.extend(flights.next().await.transpose()?);
            }
            let bytes = piece(self.key, body, PART)?;
            if bytes.is_empty() {
                break;
            }
            read += bytes.len() as u64;
            if read > size {
                break;
            }
            hash.update(&bytes);
            flights.push(self.send_part(number, bytes));
        }
        while let Some(part) = flights.next().await {
            parts.push(part?);
        }
        if read != size || hash.finalize().as_slice() != sha256 {
            return Err(not_as_announced(self.key));
        }
        parts.sort_by_key(CompletedPart::part_number);
        Ok(parts)
    }

    async fn send_part(&self, number: i32, bytes: Bytes) -> Result<CompletedPart> {
        // In a thread: others are on their way meanwhile.
        let summed = tokio::task::spawn_blocking(move || Sum::of(bytes)).await;
        let Sum { bytes, md5 } = summed.map_err(|source| {
            StoreError::new(Kind::Other, self.store.cannot("write", self.key)).with_source(source)
        })?;
        let sent = self
            .store
            .client
            .upload_part()
            .bucket(&self.store.config.bucket)
            .key(&self.full)
            .upload_id(&self.id)
            .part_number(number)
            .content_md5(md5)
            .body(ByteStream::from(bytes))
            .customize()
            // The checksum, which is signed, is what the server verifies.
            .disable_payload_signing()
            .send()
            .await
            .map_err(|error| Failure::of(&error).on(self.store.cannot("write", self.key)))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag().map(str::to_owned)).build())
    }

    async fn complete(&self, size: u64, sha256: [u8; 32], parts: Vec<CompletedPart>) -> Result<()> {
        let sent = self
            .store
            .client
            .complete_multipart_upload()
            .bucket(&self.store.config.bucket)
            .key(&self.full)
            .upload_id(&self.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        let failure = Failure::of(&error);
        // Of a request whose answer was lost, the repetition is told that there is no such upload.
        let unsure = failure.code == "NoSuchUpload" || matches!(failure.kind, Kind::Unreachable | Kind::Busy);
        if unsure && self.store.has(self.key, size, sha256).await.unwrap_or(false) {
            return Ok(());
        }
        Err(failure.on(self.store.cannot("write", self.key)))
    }

    async fn abort(&self) {
        abort(
            self.store.client.clone(),
            self.store.config.bucket.clone(),
            self.full.clone(),
            self.id.clone(),
        )
        .await;
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // Interrupted: as far as the runtime still gets with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(abort(
                self.store.client.clone(),
                self.store.config.bucket.clone(),
                self.full.clone(),
                self.id.clone(),
            ));
        }
    }
}

/// The name of an upload in an answer whose outermost element has not the name that it should: rclone's.
fn misnamed(error: &SdkError<CreateMultipartUploadError>) -> Option<String> {
    let answer = error.raw_response().filter(|answer| answer.status().is_success())?;
    let text = std::str::from_utf8(answer.body().bytes()?).ok()?;
    let (_, rest) = text.split_once("<UploadId>")?;
    let (id, _) = rest.split_once("</UploadId>")?;
    let plain = |c: char| c.is_ascii_graphic() && c != '&';
    (!id.is_empty() && id.chars().all(plain)).then(|| id.to_owned())
}

async fn abort(client: Client, bucket: String, key: String, id: String) {
    // A lifecycle rule removes what stays.
    let _ = client.abort_multipart_upload().bucket(bucket).key(key).upload_id(id).send().await;
}

/// The next bytes of a body, fewer than `length` only at its end. `length` is also what it takes of memory.
fn piece(key: &str, body: &mut (dyn Read + Send), length: usize) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(length);
    match body.take(length as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes.into()),
        Err(source) => {
            Err(StoreError::new(Kind::Other, format!("cannot read what is to be `{key}`"))
                .with_source(source))
        }
    }
}
