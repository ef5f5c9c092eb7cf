//! The SSH server: who is let in, and what their channels are for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, MethodKind, MethodSet, Pty as Mode,
    SshId,
};
use tokio::net::UnixListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Agent;
use super::command::{self, Request};
use super::forward::{self, Listeners};
use super::pty::Size;
use super::session::{Attachment, Event, Sessions};
use super::{control, sftp, vault};
use crate::adapters::sys::process;
use crate::adapters::terminal::terminfo_path;
use crate::env;
use crate::error::{Context as _, Kind, Result};
use crate::link::{Unblocked, preferred_algorithms};

/// How long a connection may take to prove who it is.
const LOGIN_GRACE: Duration = Duration::from_secs(30);

/// Connections that have not yet proved who they are; more have to wait.
const STRANGERS: usize = 32;

/// How long after the last connection the memory is given back that has what serving it took of the program's code.
const REST: Duration = Duration::from_secs(1);

/// The most that a control request may be long.
const CONTROL_LIMIT: usize = 64 * 1024;

/// Serves connections for ever.
///
/// # Errors
/// Where the keys make no sense or the socket breaks.
pub async fn serve(listener: UnixListener, agent: Arc<Agent>) -> Result<()> {
    let host_key =
        PrivateKey::from_openssh(&agent.boot.host_key).context(Kind::Failure, || "bad host key")?;
    let client_key =
        PublicKey::from_openssh(&agent.boot.client_key).context(Kind::Failure, || "bad client key")?;
    let config = Arc::new(Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-tazpod_", env!("CARGO_PKG_VERSION")))),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        preferred: preferred_algorithms(),
        inactivity_timeout: None,
        maximum_packet_size: 65_535,
        ..Config::default()
    });
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let served = Arc::new(());
    loop {
        let Ok(stranger) = Arc::clone(&strangers).acquire_owned().await else { return Ok(()) };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of descriptors, or a peer that left already: others may fare better, after a pause.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(closer) = stream.as_fd().try_clone_to_owned() else { continue };
        let known = Arc::new(Notify::new());
        let connection = Connection {
            agent: Arc::clone(&agent),
            client_key: client_key.clone(),
            stranger: Some(stranger),
            known: Arc::clone(&known),
            listeners: Arc::default(),
        };
        let config = Arc::clone(&config);
        let serving = Arc::clone(&served);
        tokio::spawn(async move {
            // How a connection ends is its client's to know.
            let session = async {
                if let Ok(session) =
                    russh::server::run_stream(config, Unblocked::new(stream), connection).await
                {
                    let _ = session.await;
                }
            };
            tokio::pin!(session);
            let ended = tokio::select! {
                () = &mut session => true,
                () = known.notified() => false,
                () = tokio::time::sleep(LOGIN_GRACE) => {
                    // The session runs in a task of russh's own: it ends when its stream does.
                    let _ = rustix::net::shutdown(&closer, rustix::net::Shutdown::Both);
                    false
                }
            };
            drop(closer);
            if !ended {
                session.await;
            }
            let served = Arc::downgrade(&serving);
            drop(serving);
            tokio::time::sleep(REST).await;
            if served.strong_count() == 1 {
                // Where that fails it is no worse than before.
                let _ = process::release_code();
            }
        });
    }
}

struct Connection {
    agent: Arc<Agent>,
    client_key: PublicKey,
    /// Its place among those who have not proved who they are.
    stranger: Option<OwnedSemaphorePermit>,
    known: Arc<Notify>,
    listeners: Arc<Listeners>,
}

impl Connection {
    fn decide(&self, offered: &PublicKey) -> Auth {
        if offered.key_data() == self.client_key.key_data() { Auth::Accept } else { Auth::reject() }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.decide(offer.public_key))
    }

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.decide(key.public_key))
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Self::Error> {
        self.stranger = None;
        self.known.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let handle = session.handle();
        let agent = Arc::clone(&self.agent);
        tokio::spawn(async move {
            // Fails only where the connection is gone.
            let _ = serve_channel(agent, channel, handle).await;
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let host = host.to_owned();
        tokio::spawn(async move {
            match forward::tcp(&host, port).await {
                Ok(connection) => {
                    reply.accept().await;
                    forward::join(channel, connection);
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let path = path.to_owned();
        tokio::spawn(async move {
            match forward::unix(&path).await {
                Ok(connection) => {
                    reply.accept().await;
                    forward::join(channel, connection);
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        match self.listeners.add(address, *port, session.handle()).await {
            Ok(bound) => {
                *port = bound;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listeners.remove(address, port))
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Mode, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if matches!(name, "sftp" | control::SUBSYSTEM | vault::SUBSYSTEM) {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }
}

/// Reads a channel's requests up to the one that says what it is for.
async fn serve_channel(
    agent: Arc<Agent>,
    mut channel: Channel<Msg>,
    handle: Handle,
) -> Result<(), russh::Error> {
    let mut environment = BTreeMap::new();
    let mut terminal = None;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::SetEnv { variable_name, variable_value, .. }) => {
                environment.insert(variable_name, variable_value);
            }
            Some(ChannelMsg::RequestPty { term, col_width, row_height, pix_width, pix_height, .. }) => {
                terminal = Some(Size::from_request(col_width, row_height, pix_width, pix_height));
                environment.insert(env::TERM.to_owned(), term);
            }
            Some(ChannelMsg::RequestShell { .. }) => break,
            Some(ChannelMsg::Exec { command, .. }) => {
                let argv = Some(Request::argv(&command, &environment, &agent));
                return serve_command(agent, channel, argv, environment, terminal).await;
            }
            Some(ChannelMsg::RequestSubsystem { name, .. }) => {
                return serve_subsystem(agent, channel, handle, &name).await;
            }
            Some(ChannelMsg::Close) | None => return Ok(()),
            Some(_) => {}
        }
    }
    match (environment.remove(env::LINK_SESSION), terminal) {
        (Some(name), Some(size)) => serve_session(agent, channel, &name, environment, size).await,
        _ => serve_command(agent, channel, None, environment, terminal).await,
    }
}

/// What the client said about its terminal and wishes, apart from what the program gets to see.
fn settle(agent: &Agent, environment: &mut BTreeMap<String, String>) -> Option<String> {
    environment.remove(env::LINK_EXEC);
    let entry = environment.remove(env::LINK_TERMINFO);
    if let (Some(term), Some(entry)) = (environment.get(env::TERM), entry)
        && !has_terminfo(agent, term)
    {
        // Without the entry the program makes do with less.
        let _ = install_terminfo(agent, term, &entry);
    }
    environment.remove(env::LINK_DIRECTORY)
}

fn has_terminfo(agent: &Agent, term: &str) -> bool {
    let Some(entry) = terminfo_path(term) else { return true };
    let home = agent.user.home.join(".terminfo");
    let system = ["/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"].map(PathBuf::from);
    system.into_iter().chain([home]).any(|directory| directory.join(&entry).exists())
}

fn install_terminfo(agent: &Agent, term: &str, entry: &str) -> Result<()> {
    let Some(path) = terminfo_path(term) else { return Ok(()) };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(entry)
        .context(Kind::Failure, || "the client's terminfo entry is not base64")?;
    let path = agent.user.home.join(".terminfo").join(path);
    if let Some(directory) = path.parent() {
        crate::adapters::files::make_directory(directory, 0o755)?;
    }
    crate::adapters::files::write_atomically(&path, &bytes, 0o644)
}

async fn serve_command(
    agent: Arc<Agent>,
    channel: Channel<Msg>,
    argv: Option<Vec<std::ffi::OsString>>,
    mut environment: BTreeMap<String, String>,
    terminal: Option<Size>,
) -> Result<(), russh::Error> {
    let (reading, writing) = channel.split();
    if let Some(reason) = not_ready(&agent) {
        return command::refuse(&writing, 125, &reason).await;
    }
    let counts = environment.contains_key(env::LINK_EXEC);
    let directory = settle(&agent, &mut environment);
    let request = Request { argv, environment, directory, terminal, counts };
    let _running = agent.activity.command();
    command::serve(Arc::clone(&agent), request, reading, Arc::new(writing)).await
}

/// Why no command can be run now.
fn not_ready(agent: &Agent) -> Option<String> {
    let missing = agent.boot.missing_share()?;
    Some(format!("`{}` is not mounted in this pod; `tazpod up` mounts it again", missing.display()))
}

async fn serve_subsystem(
    agent: Arc<Agent>,
    mut channel: Channel<Msg>,
    handle: Handle,
    name: &str,
) -> Result<(), russh::Error> {
    if name == "sftp" {
        if not_ready(&agent).is_some() {
            return channel.close().await;
        }
        let id = channel.id();
        let served = sftp::serve(channel.into_stream(), agent.user.home.clone()).await;
        // Without a status scp reports a failure; a client that has gone needs none.
        let _ = handle.exit_status_request(id, served.is_err().into()).await;
        let _ = handle.eof(id).await;
        let _ = handle.close(id).await;
        return Ok(());
    }
    if name == vault::SUBSYSTEM {
        return vault::serve(&agent.vault, channel).await;
    }
    let mut request = Vec::new();
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) if request.len() + data.len() <= CONTROL_LIMIT => {
                request.extend_from_slice(&data);
            }
            Some(ChannelMsg::Eof) => break,
            Some(ChannelMsg::Data { .. } | ChannelMsg::Close) | None => return channel.close().await,
            Some(_) => {}
        }
    }
    let answer = serde_json::to_vec(&control::answer(&agent, &request)).unwrap_or_default();
    channel.data_bytes(answer).await?;
    channel.eof().await?;
    channel.close().await
}

async fn serve_session(
    agent: Arc<Agent>,
    channel: Channel<Msg>,
    name: &str,
    mut environment: BTreeMap<String, String>,
    size: Size,
) -> Result<(), russh::Error> {
    let (reading, writing) = channel.split();
    if let Some(reason) = not_ready(&agent) {
        return command::refuse(&writing, 125, &reason).await;
    }
    let directory = settle(&agent, &mut environment);
    let (attachment, mut events) =
        match Sessions::attach(&agent, name, size, &environment, directory.as_deref()) {
            Ok(attached) => attached,
            Err(error) => {
                let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
                return command::refuse(&writing, code, &error.to_string()).await;
            }
        };
    let output = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Output(data) => {
                    let count = data.len();
                    writing.data_bytes(data).await?;
                    attachment.taken(count);
                }
                Event::End(code) => return command::finish_channel(&writing, code).await,
            }
        }
        Ok(())
    };
    tokio::select! {
        result = output => result,
        () = carry_input(reading, &attachment, &agent) => Ok(()),
    }
}

/// Returns when the client has gone.
async fn carry_input(mut reading: ChannelReadHalf, attachment: &Attachment, agent: &Agent) {
    loop {
        match reading.wait().await {
            Some(ChannelMsg::Data { data }) => {
                agent.activity.touch();
                attachment.input(data).await;
            }
            Some(ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height }) => {
                attachment.resize(Size::from_request(col_width, row_height, pix_width, pix_height));
            }
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    }
}
