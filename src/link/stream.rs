//! The bytes under the link: a Unix socket, or the stdio of a command in the pod.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard::container::LogOutput;
use bytes::{Buf, Bytes};
use rustix::fs::FileType;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::adapters::engine::{Engine, ExecStream};
use crate::adapters::files;
use crate::adapters::state::{LinkRecord, PodDir};
use crate::error::{Error, Kind, Result};
use crate::pod::spec::Transport;

/// Either transport.
pub enum LinkStream {
    /// The pod's socket.
    Socket(UnixStream),
    /// The stdio of `tazpod agent connect`.
    Exec {
        /// Both ends.
        stdio: ExecStream,
        /// Of what came last, the part not yet read.
        rest: Bytes,
    },
}

impl LinkStream {
    /// Connects.
    ///
    /// # Errors
    /// [`Kind::NoSuchPod`] where nobody listens.
    pub async fn open(
        pod: &PodDir,
        record: &LinkRecord,
        engine: impl FnOnce() -> Result<Engine>,
    ) -> Result<LinkStream> {
        match record.transport {
            Transport::Socket => {
                let path = pod.socket();
                let stream = connect(&path).await.map_err(|source| {
                    Error::new(Kind::NoSuchPod, format!("`{}` does not run", pod.name()))
                        .with_source(Error::io("connect to", &path, source))
                        .hint("`tazpod up` starts it")
                })?;
                Ok(LinkStream::Socket(stream))
            }
            Transport::Exec => {
                let engine = engine()?;
                let command = [record.agent.as_str(), "agent", "connect"];
                let stdio = engine.exec_stdio(pod.name(), "", &command).await?;
                Ok(LinkStream::Exec { stdio, rest: Bytes::new() })
            }
        }
    }
}

/// Connects to a socket that programs in the pod can replace: by descriptor, so that a symbolic link is never
/// followed, and a path of any length works.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(files::named(&files::at(path, FileType::Socket)?)).await
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkStream::Socket(socket) => Pin::new(socket).poll_read(context, buffer),
            LinkStream::Exec { stdio, rest } => loop {
                if !rest.is_empty() {
                    let count = rest.len().min(buffer.remaining());
                    buffer.put_slice(&rest.split_to(count));
                    return Poll::Ready(Ok(()));
                }
                match ready!(stdio.output.as_mut().poll_next(context)) {
                    None => return Poll::Ready(Ok(())),
                    Some(Ok(LogOutput::StdErr { message })) => {
                        let text = String::from_utf8_lossy(message.chunk()).trim().to_owned();
                        return Poll::Ready(Err(io::Error::other(text)));
                    }
                    Some(Ok(output)) => *rest = output.into_bytes(),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                }
            },
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            LinkStream::Socket(socket) => Pin::new(socket).poll_write(context, data),
            LinkStream::Exec { stdio, .. } => stdio.input.as_mut().poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkStream::Socket(socket) => Pin::new(socket).poll_flush(context),
            LinkStream::Exec { stdio, .. } => stdio.input.as_mut().poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkStream::Socket(socket) => Pin::new(socket).poll_shutdown(context),
            LinkStream::Exec { stdio, .. } => stdio.input.as_mut().poll_shutdown(context),
        }
    }
}
