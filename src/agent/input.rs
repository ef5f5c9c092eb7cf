//! Input of a channel on its way to a process that may not read.
//!
//! russh refills a channel's window as data arrives, read or not, and stops the whole connection when a
//! channel's queue is full. So the queue is emptied here, up to a limit; only past it does the connection wait.
//! Our own client never gets there: it is told what was taken ([`CREDIT`]) and sends no more than [`CREDIT_LIMIT`]
//! beyond that.

use std::sync::Arc;

use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that one channel may have waiting.
const LIMIT: usize = 64 * 1024 * 1024;

/// The extended data (RFC 4254, 5.2; codes from 0xFE000000 are private) by which the agent tells how many more bytes
/// of input were taken, as a big-endian u32.
pub const CREDIT: u32 = 0xFE00_0001;

/// Bytes that a client that counts may send beyond what was taken.
pub const CREDIT_LIMIT: usize = 4 * 1024 * 1024;

/// What is taken before the client is told.
const CREDIT_STEP: usize = 512 * 1024;

/// The sending end; dropping it is the end of the input.
#[derive(Debug)]
pub struct Input {
    limit: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
}

impl Input {
    /// Starts a task that writes to `sink` until the input ends or the sink breaks; then the sink is dropped.
    /// Where there is a `client`, it counts.
    pub fn new(
        mut sink: impl AsyncWrite + Unpin + Send + 'static,
        client: Option<Arc<ChannelWriteHalf<Msg>>>,
    ) -> Input {
        let (queue, mut waiting) = mpsc::unbounded_channel::<(Bytes, OwnedSemaphorePermit)>();
        tokio::spawn(async move {
            let mut taken = 0;
            while let Some((data, permit)) = waiting.recv().await {
                if sink.write_all(&data).await.is_err() {
                    return;
                }
                drop(permit);
                taken += data.len();
                if let Some(client) = client.as_ref().filter(|_| taken >= CREDIT_STEP) {
                    let count = u32::try_from(taken).unwrap_or(u32::MAX);
                    if client.extended_data_bytes(CREDIT, count.to_be_bytes().to_vec()).await.is_err() {
                        return;
                    }
                    taken = 0;
                }
            }
            // The end of the input; a sink that is broken has seen it already.
            let _ = sink.shutdown().await;
        });
        Input { limit: Arc::new(Semaphore::new(LIMIT)), queue }
    }

    /// Queues data; waits only while more than the limit is waiting. Data for a process that is gone is dropped.
    pub async fn push(&self, data: Bytes) {
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if self.queue.is_closed() {
            return;
        }
        tokio::select! {
            permit = Arc::clone(&self.limit).acquire_many_owned(size) => {
                if let Ok(permit) = permit {
                    let _ = self.queue.send((data, permit));
                }
            }
            () = self.queue.closed() => {}
        }
    }
}
