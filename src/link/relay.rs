//! A channel's streams to the caller's: a command with or without a terminal, and a session.

use std::io;
use std::time::{Duration, Instant};

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use super::escape::{Detector, Escape};
use super::lost;
use crate::adapters::terminal::{self, Output, RawMode};
use crate::agent::input::{CREDIT, CREDIT_LIMIT};
use crate::env;
use crate::error::{Context as _, Error, Kind, Result};

/// The status of a process whose reader went away: 128 and SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Signals that are passed on before one ends the client itself.
const PATIENCE: u32 = 2;

/// How long a terminal may take to show what is on its way to it when its user leaves.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// How a session was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Its program ended with this status.
    Ended(u8),
    /// The user detached.
    Detached,
    /// The user wants the vault opened, and to come back.
    Unlock,
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
/// Each direction is a future of its own: one that waits for the other end must not hold up the other.
///
/// # Errors
/// Where the connection breaks first, or the caller insists on ending.
pub async fn command(channel: Channel<Msg>, with_terminal: bool) -> Result<u8> {
    let raw = with_terminal.then(RawMode::enter).transpose()?;
    let mut signals = Signals::new()?;
    let mut stdin = terminal::stdin();
    let (reading, writing) = channel.split();
    let credit = Semaphore::new(CREDIT_LIMIT);
    let input = async {
        while let Some(data) = stdin.recv().await {
            if let Ok(permits) = credit.acquire_many(u32::try_from(data.len()).unwrap_or(u32::MAX)).await {
                permits.forget();
            }
            // The command may end before it reads: its status counts, not this.
            if writing.data_bytes(data).await.is_err() {
                break;
            }
        }
        let _ = writing.eof().await;
        std::future::pending::<Result<Left>>().await
    };
    let passing = async {
        let mut passed = 0;
        // Past that the pod may not answer any more, and the caller means it.
        while passed <= PATIENCE {
            match signals.next(with_terminal).await {
                Some(signal) => {
                    passed += 1;
                    let _ = writing.signal(signal).await;
                }
                None => {
                    if let Some(raw) = &raw {
                        raw.set()?;
                        send_size(&writing).await;
                    }
                }
            }
        }
        Err(Error::interrupted())
    };
    let streams = Streams::new();
    let left = tokio::select! {
        left = streams.carry(reading, raw.as_ref(), Some(&credit)) => left,
        left = input => left,
        left = passing => left,
    };
    let closed = streams.close(&left, raw.as_ref()).await;
    drop(raw);
    closed?;
    match left? {
        Left::Ended(status) => Ok(status),
        Left::Detached | Left::Unlock => Ok(BROKEN_PIPE),
    }
}

/// Carries a session's terminal until it ends or the user leaves it.
///
/// # Errors
/// Where there is no terminal, or the connection breaks.
pub async fn session(channel: Channel<Msg>, mut detector: Detector) -> Result<Left> {
    let raw = RawMode::enter()?;
    let mut resizes = Resizes::new()?;
    let mut stdin = terminal::stdin();
    let (reading, writing) = channel.split();
    let input = async {
        // The end of the input is the end of the terminal.
        while let Some(data) = stdin.recv().await {
            let typed = detector.scan(&data, Instant::now());
            writing.data_bytes(typed.input).await.map_err(lost)?;
            match typed.escape {
                Some(Escape::Detach) => break,
                Some(Escape::Unlock) => return Ok(Left::Unlock),
                None => {}
            }
        }
        Ok(Left::Detached)
    };
    let resizing = async {
        loop {
            resizes.next().await;
            raw.set()?;
            send_size(&writing).await;
        }
    };
    let streams = Streams::new();
    let left = tokio::select! {
        left = streams.carry(reading, Some(&raw), None) => left,
        left = input => left,
        left = resizing => left,
    };
    streams.close(&left, Some(&raw)).await?;
    left
}

/// This process's own streams, for what the program writes.
struct Streams {
    stdout: Output,
    stderr: Output,
}

impl Streams {
    fn new() -> Streams {
        Streams { stdout: Output::new(io::stdout()), stderr: Output::new(io::stderr()) }
    }

    async fn carry(
        &self,
        mut reading: ChannelReadHalf,
        raw: Option<&RawMode>,
        credit: Option<&Semaphore>,
    ) -> Result<Left> {
        let mut status = None;
        loop {
            match reading.wait().await {
                Some(ChannelMsg::Data { data }) => {
                    if let Some(raw) = raw {
                        raw.observe(&data);
                    }
                    if !self.stdout.write(data).await {
                        return Ok(Left::Detached);
                    }
                }
                Some(ChannelMsg::ExtendedData { data, ext: CREDIT }) => {
                    let taken = data.as_ref().try_into().map_or(0, u32::from_be_bytes);
                    if let Some(credit) = credit {
                        credit.add_permits((taken as usize).min(CREDIT_LIMIT));
                    }
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    self.stderr.write(data).await;
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                Some(ChannelMsg::Close) | None => return ended(status).map(Left::Ended),
                Some(_) => {}
            }
        }
    }

    /// Delivers everything where the program ended. Else the user leaves, and what a slow terminal has not shown
    /// by then is dropped: it must not follow what restores the terminal.
    async fn close(self, left: &Result<Left>, raw: Option<&RawMode>) -> Result<()> {
        let patience = if matches!(left, Ok(Left::Ended(_))) { Duration::MAX } else { LEAVE_PATIENCE };
        // As elsewhere: a closed stderr is no failure.
        let (stdout, _) = tokio::join!(self.stdout.finish(patience), self.stderr.finish(patience));
        written(stdout, raw)
    }
}

/// A reader that went away is no failure, and neither is a terminal that did.
fn written(result: io::Result<()>, raw: Option<&RawMode>) -> Result<()> {
    match result {
        Err(source) if raw.is_none() && source.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Failure, "cannot write to standard output").with_source(source))
        }
        _ => Ok(()),
    }
}

fn ended(status: Option<u32>) -> Result<u8> {
    let status = status.ok_or_else(|| {
        Error::new(Kind::Failure, "the connection to the pod is lost")
            .hint("`tazpod status` shows whether it still runs, `tazpod attach` returns to its sessions")
    })?;
    Ok(u8::try_from(status).unwrap_or(255))
}

async fn send_size(writing: &ChannelWriteHalf<Msg>) {
    let (columns, rows, width, height) = terminal::size();
    // A program that has ended needs no size.
    let _ = writing.window_change(columns, rows, width, height).await;
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
