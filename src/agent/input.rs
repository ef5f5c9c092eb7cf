//! Input of a channel on its way to a process that may not read.
//!
//! russh refills a channel's window as data arrives, read or not, and stops the whole connection when a
//! channel's queue is full. So the queue is emptied here, up to a limit; only past it does the connection wait.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that one channel may have waiting.
const LIMIT: usize = 16 * 1024 * 1024;

/// The sending end; dropping it is the end of the input.
#[derive(Debug)]
pub struct Input {
    limit: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
}

impl Input {
    /// Starts a task that writes to `sink` until the input ends or the sink breaks; then the sink is dropped.
    pub fn new(mut sink: impl AsyncWrite + Unpin + Send + 'static) -> Input {
        let (queue, mut waiting) = mpsc::unbounded_channel::<(Bytes, OwnedSemaphorePermit)>();
        tokio::spawn(async move {
            while let Some((data, permit)) = waiting.recv().await {
                if sink.write_all(&data).await.is_err() {
                    return;
                }
                drop(permit);
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
