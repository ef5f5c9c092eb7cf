//! A channel's streams to the caller's: a command with or without a terminal, and a session.

use std::io;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, Sig};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::detach::Detector;
use super::lost;
use crate::adapters::terminal::{self, Output, RawMode};
use crate::env;
use crate::error::{Context as _, Error, Kind, Result};

/// The status of a process whose reader went away: 128 and SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Signals that are passed on before one ends the client itself.
const PATIENCE: u32 = 2;

/// How a session was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Its program ended with this status.
    Ended(u8),
    /// The user detached.
    Detached,
}

/// Tells the agent about the terminal: its type, size, terminfo entry and colours.
///
/// # Errors
/// Where the connection is gone.
pub async fn request_terminal(channel: &Channel<Msg>) -> Result<()> {
    let term = terminal::kind();
    if let Some(entry) = terminal::terminfo(&term) {
        channel.set_env(false, env::LINK_TERMINFO, entry).await.map_err(lost)?;
    }
    if let Ok(depth) = std::env::var(env::COLORTERM) {
        channel.set_env(false, env::COLORTERM, depth).await.map_err(lost)?;
    }
    let (columns, rows, width, height) = terminal::size();
    channel.request_pty(false, &term, columns, rows, width, height, &[]).await.map_err(lost)
}

/// Carries a command's streams until it ends; its status, or 128 and the signal's number.
///
/// # Errors
/// Where the connection breaks first.
pub async fn command(mut channel: Channel<Msg>, with_terminal: bool) -> Result<u8> {
    let mut raw = with_terminal.then(RawMode::enter).transpose()?;
    let mut signals = Signals::new()?;
    let mut stdin = Some(terminal::stdin());
    let (stdout, stderr) = (Output::new(io::stdout()), Output::new(io::stderr()));
    let (mut status, mut signals_passed) = (None, 0);
    loop {
        let input = async {
            match stdin.as_mut() {
                Some(stdin) => stdin.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = channel.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    if let Some(raw) = &mut raw {
                        raw.observe(&data);
                    }
                    if !stdout.write(data).await {
                        return Ok(BROKEN_PIPE);
                    }
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    stderr.write(data).await;
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            },
            data = input => match data {
                // The command may end before it reads: its status counts, not this.
                Some(data) => { let _ = channel.data_bytes(data).await; }
                None => {
                    stdin = None;
                    let _ = channel.eof().await;
                }
            },
            signal = signals.next(with_terminal) => match signal {
                Some(signal) => {
                    signals_passed += 1;
                    // The pod may not answer any more, and the caller means it.
                    if signals_passed > PATIENCE {
                        return Err(Error::interrupted());
                    }
                    let _ = channel.signal(signal).await;
                }
                None => resized(&channel, raw.as_ref()).await?,
            },
        }
    }
    stdout.finish().await;
    stderr.finish().await;
    drop(raw);
    ended(status)
}

/// Carries a session's terminal until it ends or the user detaches.
///
/// # Errors
/// Where there is no terminal, or the connection breaks.
pub async fn session(mut channel: Channel<Msg>, mut detector: Detector) -> Result<Left> {
    let mut raw = RawMode::enter()?;
    let mut resizes = Resizes::new()?;
    let mut stdin = terminal::stdin();
    let (stdout, stderr) = (Output::new(io::stdout()), Output::new(io::stderr()));
    let mut status = None;
    let left = loop {
        tokio::select! {
            message = channel.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    raw.observe(&data);
                    if !stdout.write(data).await {
                        break Left::Detached;
                    }
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    stderr.write(data).await;
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                Some(ChannelMsg::Close) | None => break Left::Ended(0),
                Some(_) => {}
            },
            data = stdin.recv() => match data {
                Some(data) => match detector.scan(&data) {
                    Some(count) => {
                        let _ = channel.data_bytes(data.slice(..count)).await;
                        break Left::Detached;
                    }
                    None => channel.data_bytes(data).await.map_err(lost)?,
                },
                // The terminal is gone.
                None => break Left::Detached,
            },
            () = resizes.next() => resized(&channel, Some(&raw)).await?,
        }
    };
    stdout.finish().await;
    stderr.finish().await;
    drop(raw);
    match left {
        Left::Ended(_) => ended(status).map(Left::Ended),
        Left::Detached => Ok(Left::Detached),
    }
}

fn ended(status: Option<u32>) -> Result<u8> {
    let status = status.ok_or_else(|| {
        Error::new(Kind::Failure, "the connection to the pod is lost")
            .hint("`tazpod status` shows whether it still runs, `tazpod attach` returns to its sessions")
    })?;
    Ok(u8::try_from(status).unwrap_or(255))
}

async fn resized(channel: &Channel<Msg>, raw: Option<&RawMode>) -> Result<()> {
    if let Some(raw) = raw {
        raw.set()?;
        let (columns, rows, width, height) = terminal::size();
        // A program that has ended needs no size.
        let _ = channel.window_change(columns, rows, width, height).await;
    }
    Ok(())
}

/// Changes of the terminal's size, and returns from being stopped.
struct Resizes {
    window: Signal,
    continued: Signal,
}

impl Resizes {
    fn new() -> Result<Resizes> {
        let continued = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        Ok(Resizes { window: listen(SignalKind::window_change())?, continued: listen(continued)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.window.recv() => {}
            _ = self.continued.recv() => {}
        }
    }
}

/// Signals that a command's caller passes on.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    resizes: Resizes,
}

impl Signals {
    fn new() -> Result<Signals> {
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            resizes: Resizes::new()?,
        })
    }

    /// The next signal to pass on; `None` where the terminal may have changed.
    async fn next(&mut self, with_terminal: bool) -> Option<Sig> {
        tokio::select! {
            _ = self.interrupt.recv() => Some(Sig::INT),
            _ = self.terminate.recv() => Some(Sig::TERM),
            _ = self.hangup.recv() => Some(Sig::HUP),
            _ = self.quit.recv() => Some(Sig::QUIT),
            () = self.resizes.next(), if with_terminal => None,
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).context(Kind::Failure, || "cannot handle signals")
}
