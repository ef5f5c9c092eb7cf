//! A stream whose writes never wait, so that two SSH ends that both send much cannot wait for each other.
//!
//! russh writes in the loop that reads. With both sockets full, neither end would read again. What cannot be written
//! at once is kept here, and written whenever the stream is polled, for reading too. SSH's windows bound it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The wrapper.
#[derive(Debug)]
pub struct Unblocked<S> {
    inner: S,
    pending: BytesMut,
}

impl<S: AsyncWrite + Unpin> Unblocked<S> {
    /// Wraps a stream.
    pub fn new(inner: S) -> Unblocked<S> {
        Unblocked { inner, pending: BytesMut::new() }
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(context, &self.pending))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(count);
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Unblocked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_drain(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unblocked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_drain(context) {
            return Poll::Ready(Err(error));
        }
        let written = match self.pending.is_empty() {
            true => match Pin::new(&mut self.inner).poll_write(context, data) {
                Poll::Ready(result) => result?,
                Poll::Pending => 0,
            },
            false => 0,
        };
        self.pending.extend_from_slice(data.get(written..).unwrap_or_default());
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_drain(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn two_ends_that_only_write_do_not_wait_for_each_other() {
        let (one, two) = tokio::io::duplex(16);
        let (mut one, mut two) = (Unblocked::new(one), Unblocked::new(two));
        let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        one.write_all(&data).await.unwrap();
        two.write_all(&data).await.unwrap();
        let (mut from_one, mut from_two) = (vec![0; data.len()], vec![0; data.len()]);
        let both = async { tokio::join!(two.read_exact(&mut from_one), one.read_exact(&mut from_two)) };
        let (first, second) = tokio::time::timeout(std::time::Duration::from_secs(10), both).await.unwrap();
        first.unwrap();
        second.unwrap();
        assert!(from_one == data && from_two == data);
    }
}
