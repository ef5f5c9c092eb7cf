//! The client's connection to the agent: SSH over the pod's socket, or over a command's stdio.

pub mod escape;
pub mod inside;
pub mod pipe;
pub mod relay;
mod stream;
mod unblocked;

use std::borrow::Cow;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::{self, Handle, Msg};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, ChannelStream, Preferred, SshId, cipher, kex};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use crate::adapters::engine::Engine;
use crate::adapters::files;
use crate::adapters::state::{LinkRecord, PodDir};
use crate::agent::control::{self, Answer};
use crate::agent::vault;
use crate::error::{Context as _, Error, Kind, Result};
use crate::vault::id::Hash;
pub use stream::LinkStream;
pub use unblocked::Unblocked;

/// How long the agent may take to answer the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the keeper of the vault may work on one request: a large vault on a slow disk.
const VAULT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How much of what follows a request is read at a time, in bytes.
const PIECE: usize = 256 << 10;
/// What the agent answers is not longer, in bytes: the longest is the list of a vault's files.
const LONGEST_ANSWER: usize = 512 << 20;

/// AES-256-GCM first: the default of both ends, ChaCha20, carries half as much here. Never `none`.
pub fn preferred_algorithms() -> Preferred {
    const CIPHERS: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR];
    const KEX: &[kex::Name] = &[
        kex::CURVE25519,
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    Preferred { cipher: Cow::Borrowed(CIPHERS), kex: Cow::Borrowed(KEX), ..Preferred::DEFAULT }
}

/// The two key pairs of a pod.
#[derive(Debug)]
pub struct Keys {
    /// The agent's, as OpenSSH writes private keys.
    pub host: String,
    /// The agent's public key.
    pub host_public: String,
    /// The public key of the client.
    pub client_public: String,
}

impl Keys {
    /// Reads the pod's keys, or makes and stores them: private keys 0600, and a `known_hosts` for OpenSSH.
    ///
    /// # Errors
    /// Where the state directory cannot be read or written.
    pub fn of(pod: &PodDir) -> Result<Keys> {
        let host = private_key(&pod.host_key())?;
        let client = private_key(&pod.client_key())?;
        let encode =
            |key: &PrivateKey| key.public_key().to_openssh().context(Kind::Failure, || "cannot write a key");
        let host_public = encode(&host)?;
        let known = format!("{} {host_public}\n", pod.name());
        files::write_atomically(&pod.known_hosts(), known.as_bytes(), 0o600)?;
        let host_private = host.to_openssh(LineEnding::LF).context(Kind::Failure, || "cannot write a key")?;
        Ok(Keys { host: host_private.to_string(), host_public, client_public: encode(&client)? })
    }
}

fn private_key(path: &Path) -> Result<PrivateKey> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            PrivateKey::from_openssh(text).context(Kind::Failure, || format!("bad key `{}`", path.display()))
        }
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
                .context(Kind::Failure, || "cannot make a key")?;
            let text = key.to_openssh(LineEnding::LF).context(Kind::Failure, || "cannot write a key")?;
            files::write_atomically(path, text.as_bytes(), 0o600)?;
            Ok(key)
        }
        Err(source) => Err(Error::io("read", path, source)),
    }
}

/// An authenticated connection to a pod's agent.
pub struct Link {
    handle: Handle<Pinned>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

/// Accepts the pinned host key alone.
struct Pinned(PublicKey);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = offered else { return Ok(false) };
        Ok(key.key_data() == self.0.key_data())
    }
}

impl Link {
    /// Connects over the pod's transport. `engine` is asked for only if that is the engine's exec.
    ///
    /// # Errors
    /// [`Kind::NoSuchPod`] where nobody listens; [`Kind::Failure`] where another than the agent does.
    pub async fn open(
        pod: &PodDir,
        record: &LinkRecord,
        engine: impl FnOnce() -> Result<Engine>,
    ) -> Result<Link> {
        let stream = LinkStream::open(pod, record, engine).await?;
        Link::handshake(pod, record, stream).await
    }

    async fn handshake(pod: &PodDir, record: &LinkRecord, stream: LinkStream) -> Result<Link> {
        let host_key = PublicKey::from_openssh(&record.host_key)
            .context(Kind::Failure, || format!("bad host key in the link record of `{}`", pod.name()))?;
        let client_key = private_key(&pod.client_key())?;
        let config = Arc::new(client::Config {
            client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-tazpod_", env!("CARGO_PKG_VERSION")))),
            preferred: preferred_algorithms(),
            maximum_packet_size: 65_535,
            ..client::Config::default()
        });
        let connecting = async {
            let mut handle = client::connect_stream(config, Unblocked::new(stream), Pinned(host_key)).await?;
            let key = PrivateKeyWithHashAlg::new(Arc::new(client_key), None);
            let authenticated = handle.authenticate_publickey("tazpod", key).await?;
            Ok::<_, russh::Error>(authenticated.success().then_some(handle))
        };
        let failed = || Error::new(Kind::Failure, format!("cannot talk to the agent of `{}`", pod.name()));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(Some(handle))) => Ok(Link { handle }),
            Ok(Ok(None)) => Err(failed().hint(
                "it does not know this machine's key: `tazpod stop` and `tazpod start` introduce it again",
            )),
            Ok(Err(russh::Error::UnknownKey)) => Err(Error::new(
                Kind::Failure,
                format!("what answers for `{}` is not the agent that `up` started", pod.name()),
            )
            .hint(
                "a program in the pod may have put itself in its place; `tazpod up --recreate` starts afresh",
            )),
            Ok(Err(source)) => Err(failed().with_source(source)),
            Err(_) => {
                Err(failed().hint(format!("it did not answer within {} s", HANDSHAKE_TIMEOUT.as_secs())))
            }
        }
    }

    /// A new channel for a command, a shell or a subsystem.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub async fn channel(&self) -> Result<Channel<Msg>> {
        self.handle.channel_open_session().await.map_err(lost)
    }

    /// A connection to a port of the pod's loopback interface, for one that came from `peer`.
    ///
    /// # Errors
    /// Where nobody listens there, or the connection is gone.
    pub async fn forward(&self, port: u16, peer: SocketAddr) -> Result<ChannelStream<Msg>> {
        let (host, from) = (Ipv4Addr::LOCALHOST.to_string(), peer.ip().to_string());
        match self.handle.channel_open_direct_tcpip(host, port.into(), from, peer.port().into()).await {
            Ok(channel) => Ok(channel.into_stream()),
            Err(russh::Error::ChannelOpenFailure(_)) => {
                Err(Error::new(Kind::Failure, format!("nobody listens at port {port} of the pod")))
            }
            Err(source) => Err(lost(source)),
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Asks the keeper of the pod's vault; what `packed` gives follows the request.
    ///
    /// # Errors
    /// What the agent refused; where the connection is gone.
    pub async fn vault(
        &self,
        request: &vault::Request,
        packed: Option<&mut (dyn Read + Send)>,
    ) -> Result<vault::Answer> {
        let mut channel = self.request(request).await?;
        let writer = channel.make_writer();
        let answer = exchange(writer, read_answer(&mut channel, VAULT_TIMEOUT), packed).await?;
        answer_of(&answer)
    }

    /// Has the keeper open a sealed generation, which goes through a pipe in the pod's run directory.
    ///
    /// # Errors
    /// As [`Link::vault`]; where there can be no pipe.
    pub async fn unlock(
        &self,
        run: &Path,
        request: &vault::Request,
        sealed: &mut (dyn Read + Send),
    ) -> Result<vault::Answer> {
        let mut pipe = pipe::Sending::make(run)?;
        let mut channel = self.request(request).await?;
        let reading = read_answer(&mut channel, VAULT_TIMEOUT);
        answer_of(&exchange(&mut pipe.sender, reading, Some(sealed)).await?)
    }

    /// Has the keeper save; `take` gets what it seals, which comes through a pipe in the pod's run directory.
    ///
    /// # Errors
    /// As [`Link::vault`]; where there can be no pipe; those of `take`.
    pub async fn hand_over(
        &self,
        run: &Path,
        (force, tip): (bool, Option<Hash>),
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<vault::Answer> {
        let failed = || "cannot take over what the pod saves";
        let mut pipe = pipe::Taking::make(run)?;
        let mut channel = self.request(&vault::Request::HandOver { force, tip }).await?;
        channel.eof().await.map_err(lost)?;
        let reading = read_answer(&mut channel, VAULT_TIMEOUT);
        tokio::pin!(reading);
        let mut buffer = vec![0; PIECE];
        let answer = loop {
            let count = tokio::select! {
                answer = &mut reading => break answer?,
                count = pipe.receiver.read(&mut buffer) => count.context(Kind::Failure, failed)?,
            };
            take(buffer.get(..count).unwrap_or_default()).context(Kind::Failure, failed)?;
        };
        // What the keeper wrote before it answered is there, no more than a pipe has; what is not its own makes no generation.
        let mut rest = Vec::with_capacity(pipe::CAPACITY);
        while rest.len() < pipe::CAPACITY
            && let Ok(1..) = pipe.receiver.try_read_buf(&mut rest)
        {}
        take(&rest).context(Kind::Failure, failed)?;
        answer_of(&answer)
    }

    async fn request(&self, request: &vault::Request) -> Result<Channel<Msg>> {
        let channel = self.channel().await?;
        channel.request_subsystem(false, vault::SUBSYSTEM).await.map_err(lost)?;
        channel.data_bytes(Bytes::from_owner(request_line(request)?)).await.map_err(lost)?;
        Ok(channel)
    }

    /// Asks the agent about itself.
    ///
    /// # Errors
    /// Where the connection is gone or the answer makes no sense.
    pub async fn control(&self, request: &control::Request) -> Result<Answer> {
        let mut channel = self.channel().await?;
        channel.request_subsystem(false, control::SUBSYSTEM).await.map_err(lost)?;
        let request = serde_json::to_vec(request).context(Kind::Failure, || "cannot write a request")?;
        channel.data_bytes(request).await.map_err(lost)?;
        channel.eof().await.map_err(lost)?;
        let answer = read_answer(&mut channel, HANDSHAKE_TIMEOUT).await?;
        serde_json::from_slice(&answer).context(Kind::Failure, || "the agent's answer makes no sense")
    }
}

/// It may have the identity in it.
fn request_line(request: &vault::Request) -> Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(vault::LONGEST_REQUEST));
    serde_json::to_writer(&mut *line, request).context(Kind::Failure, || "cannot write a request")?;
    line.push(b'\n');
    // More would be cut off by the agent, without a word.
    if line.len() > vault::LONGEST_REQUEST {
        let what =
            format!("the request has {} bytes, and the keeper takes {}", line.len(), vault::LONGEST_REQUEST);
        let error = Error::new(Kind::Usage, what);
        return Err(match request {
            vault::Request::Remove { .. } => {
                error.hint("name fewer files at once, or the directory that they are in (`--recursive`)")
            }
            _ => error,
        });
    }
    Ok(line)
}

/// Sends what `following` gives, and its end, while the answer is waited for: whoever refuses takes no more, and says why.
async fn exchange(
    mut writer: impl AsyncWrite + Unpin,
    reading: impl Future<Output = Result<Vec<u8>>>,
    mut following: Option<&mut (dyn Read + Send)>,
) -> Result<Vec<u8>> {
    let sending = async {
        let mut buffer = vec![0; PIECE];
        while let Some(following) = &mut following {
            let count = following.read(&mut buffer).context(Kind::Failure, || "cannot read the vault")?;
            if count == 0 {
                break;
            }
            writer.write_all(buffer.get(..count).unwrap_or_default()).await.map_err(broken)?;
        }
        writer.shutdown().await.map_err(broken)
    };
    tokio::pin!(reading, sending);
    tokio::select! {
        answer = &mut reading => answer,
        sent = &mut sending => match sent {
            Ok(()) => reading.await,
            // What it said before it hung up counts more.
            Err(error) => reading.await.ok().filter(|answer| !answer.is_empty()).ok_or(error),
        },
    }
}

fn answer_of(answer: &[u8]) -> Result<vault::Answer> {
    let answer: vault::Answer = serde_json::from_slice(answer).context(
        Kind::Failure,
        || "the agent does not answer about the vault; `tazpod up --recreate` brings this version's agent",
    )?;
    answer.accepted()
}

fn broken(source: std::io::Error) -> Error {
    Error::new(Kind::Failure, "the connection to the pod is lost").with_source(source)
}

/// What the agent says up to the channel's end.
async fn read_answer(channel: &mut Channel<Msg>, patience: Duration) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    let reading = async {
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::Data { data } = message {
                if answer.len() + data.len() > LONGEST_ANSWER {
                    return Err(Error::new(Kind::Failure, "the agent's answer has no end"));
                }
                answer.extend_from_slice(&data);
            }
        }
        Ok(())
    };
    match tokio::time::timeout(patience, reading).await {
        Ok(read) => read.map(|()| answer),
        Err(_) => Err(Error::new(Kind::Failure, "the agent did not answer in time")),
    }
}

/// The connection broke.
pub fn lost(source: russh::Error) -> Error {
    Error::new(Kind::Failure, "the connection to the pod is lost")
        .with_source(source)
        .hint("`tazpod status` shows whether it still runs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_the_keeper_would_not_take_is_not_sent() {
        let line = |count: usize| {
            let paths = vec![vault::Name::Bytes(vec![0xff; 200]); count];
            request_line(&vault::Request::Remove { paths, recursive: false })
        };
        assert_eq!(line(80).unwrap().last(), Some(&b'\n'));
        let error = line(100).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("the keeper takes 65536") && !error.hints().is_empty(), "{error}");
    }
}
