//! Ports and sockets of the pod, through the link (RFC 4254, 7; OpenSSH's PROTOCOL, 2.4).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::input::Input;

/// What is read at once.
const CHUNK: usize = 32 * 1024;

/// Copies between a channel and a connection until both directions are done.
pub fn join<S>(channel: Channel<Msg>, connection: S)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reading, writing) = channel.split();
    let (mut source, sink) = tokio::io::split(connection);
    let mut input = Some(Input::new(sink, None));
    let output = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            match source.read_buf(&mut buffer).await {
                Ok(count) if count > 0 => writing.data_bytes(buffer.split().freeze()).await?,
                _ => break,
            }
        }
        writing.eof().await?;
        Ok::<_, russh::Error>(writing)
    };
    tokio::spawn(async move {
        tokio::pin!(output);
        let mut done = None;
        loop {
            tokio::select! {
                result = &mut output, if done.is_none() => match result {
                    Ok(writing) => done = Some(writing),
                    Err(_) => return,
                },
                message = reading.wait() => match message {
                    Some(ChannelMsg::Data { data }) => {
                        if let Some(input) = &input {
                            input.push(data).await;
                        }
                    }
                    Some(ChannelMsg::Eof) => input = None,
                    Some(ChannelMsg::Close) | None => return,
                    Some(_) => {}
                },
            }
            if let (Some(writing), None) = (&done, &input) {
                // The client may have gone meanwhile.
                let _ = writing.close().await;
                return;
            }
        }
    });
}

/// Connects to a port as seen from the pod.
pub async fn tcp(host: &str, port: u32) -> std::io::Result<TcpStream> {
    let port = u16::try_from(port).map_err(std::io::Error::other)?;
    TcpStream::connect((host.trim_matches(['[', ']']), port)).await
}

/// Connects to a socket in the pod.
pub async fn unix(path: &str) -> std::io::Result<UnixStream> {
    UnixStream::connect(path).await
}

/// Ports of the pod that lead to the client (`ssh -R`).
#[derive(Debug, Default)]
pub struct Listeners(Mutex<HashMap<(String, u32), JoinHandle<()>>>);

impl Listeners {
    /// Listens for the client; returns the port, which it may have left open.
    pub async fn add(&self, address: &str, port: u32, handle: Handle) -> std::io::Result<u32> {
        // OpenSSH's default, GatewayPorts no: loopback unless an address is given.
        let host = match address {
            "" | "localhost" => "127.0.0.1",
            "*" => "0.0.0.0",
            other => other,
        };
        let wanted = u16::try_from(port).map_err(std::io::Error::other)?;
        let listener = TcpListener::bind((host, wanted)).await?;
        let bound = u32::from(listener.local_addr()?.port());
        let name = address.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((connection, peer)) = listener.accept().await {
                let opened = handle
                    .channel_open_forwarded_tcpip(
                        name.clone(),
                        bound,
                        peer.ip().to_string(),
                        peer.port().into(),
                    )
                    .await;
                match opened {
                    Ok(channel) => join(channel, connection),
                    Err(_) => return,
                }
            }
        });
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = tasks.insert((address.to_owned(), bound), task) {
            old.abort();
        }
        Ok(bound)
    }

    /// Stops listening; says whether it did.
    pub fn remove(&self, address: &str, port: u32) -> bool {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.remove(&(address.to_owned(), port)).map(|task| task.abort()).is_some()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for task in self.0.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
            task.abort();
        }
    }
}
