//! The vault of this pod: the subsystem by which the host opens, saves and locks it, and saving by itself.
//!
//! One request is a line of JSON, for [`Request::Unlock`] followed by the sealed generation; one answer is JSON.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use russh::server::Msg;
use russh::{Channel, ChannelMsg};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{Notify, mpsc};
use zeroize::Zeroize as _;

use crate::error::{Context as _, Error, Kind, Result};
use crate::pod::spec::{RUN, VAULT_MEMORY, VAULT_SPOOL};
use crate::vault::archive::{Extracted, Limits};
use crate::vault::id::VaultId;
use crate::vault::keeper::{Keeper, Opening, Saved};

/// The subsystem's name.
pub const SUBSYSTEM: &str = "vault@tazpod";
/// A request's line is not longer, in bytes.
const LONGEST_REQUEST: usize = 64 << 10;
/// How often the tree is looked at.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long nothing may change before a save by itself …
const QUIET: Duration = Duration::from_secs(2);
/// … and how often that is waited for.
const PATIENCE: u32 = 30;

/// What the host asks.
#[derive(Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Whether it is open.
    State,
    /// Open it; the sealed generation follows.
    Unlock(Opening),
    /// Save what has changed.
    Save {
        /// Even what looks wrong.
        force: bool,
    },
    /// Save, and take it away.
    Lock {
        /// Even if what would be saved looks wrong.
        force: bool,
    },
    /// The commits that wait become final.
    Freeze,
    /// The host has all commits up to this number.
    Collected {
        /// It.
        n: u64,
    },
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::State`].
    State {
        /// The vault that is open.
        open: Option<VaultId>,
    },
    /// To [`Request::Unlock`].
    Unlocked {
        /// Bytes of all files.
        bytes: u64,
        /// Files, directories and links.
        entries: u64,
    },
    /// To [`Request::Save`].
    Saved(Saved),
    /// To [`Request::Lock`].
    Locked {
        /// The last save.
        saved: Saved,
        /// Programs that have a file of the vault open, or work in its directory: name and process id.
        holders: Vec<(String, i32)>,
    },
    /// Done, and nothing to say.
    Done,
    /// Not done.
    Refused {
        /// The exit code of this kind of failure.
        code: u8,
        /// Why.
        message: String,
        /// What to do.
        hints: Vec<String>,
    },
}

/// The pod's keeper, one at a time.
#[derive(Clone)]
pub struct Vault {
    keeper: Arc<Mutex<Keeper>>,
    /// Told at each unlock.
    opened: Arc<Notify>,
}

impl Vault {
    /// With nothing open. `home` is that of the pod's user.
    pub fn new(home: PathBuf) -> Vault {
        let spool = Path::new(RUN).join(VAULT_SPOOL);
        let keeper = Keeper::new(VAULT_MEMORY.into(), spool, home);
        Vault { keeper: Arc::new(Mutex::new(keeper)), opened: Arc::default() }
    }

    /// The vault that is open; it takes as long as the work that is under way.
    async fn state(&self) -> Option<VaultId> {
        self.work(|keeper| Ok(keeper.vault())).await.unwrap_or_default()
    }

    /// Work on files, which has a thread of its own: nobody else waits for it, or for the keeper.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keeper) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let vault = self.clone();
        let worked = tokio::task::spawn_blocking(move || {
            work(&mut vault.keeper.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await;
        worked.context(Kind::Failure, || "the vault's keeper broke off")?
    }

    /// Saves by itself while a vault is open, for ever; a pod without one wakes for nothing.
    pub async fn save_now_and_then(self) {
        self.opened.notified().await;
        loop {
            tokio::time::sleep(INTERVAL).await;
            if self.state().await.is_none() {
                self.opened.notified().await;
                continue;
            }
            for _ in 0..PATIENCE {
                let before = self.work(|keeper| keeper.look()).await.unwrap_or_default();
                tokio::time::sleep(QUIET).await;
                if self.work(|keeper| keeper.look()).await.unwrap_or_default() == before {
                    break;
                }
            }
            // What cannot be saved now is tried again; the log of the pod says why.
            if let Err(error) = self.save(false).await
                && error.kind() != Kind::Locked
            {
                log(&error);
            }
        }
    }

    /// Saves what has changed.
    ///
    /// # Errors
    /// As [`Keeper::save`].
    pub async fn save(&self, force: bool) -> Result<Saved> {
        self.work(move |keeper| keeper.save(force, &now())).await
    }

    /// Before the pod ends: saved, and gone.
    pub async fn close(&self) {
        if self.state().await.is_some()
            && let Err(error) = self.work(|keeper| keeper.lock(false, &now())).await
        {
            log(&error);
        }
    }

    async fn answer(&self, request: Request, sealed: Incoming) -> Result<Answer> {
        match request {
            Request::State => Ok(Answer::State { open: self.state().await }),
            Request::Unlock(opening) => {
                let Extracted { bytes, entries } = self
                    .work(move |keeper| {
                        if !keeper.has_memory() {
                            return Err(Error::new(Kind::Failure, "this pod has no memory for a vault")
                                .hint("it is older than this tazpod: `tazpod up --recreate`"));
                        }
                        keeper.unlock(opening, sealed, Limits::default())
                    })
                    .await?;
                self.opened.notify_one();
                Ok(Answer::Unlocked { bytes, entries })
            }
            Request::Save { force } => Ok(Answer::Saved(self.save(force).await?)),
            Request::Lock { force } => {
                let (saved, holders) = self
                    .work(move |keeper| {
                        let saved = keeper.lock(force, &now())?;
                        Ok((saved, holders()))
                    })
                    .await?;
                Ok(Answer::Locked { saved, holders })
            }
            Request::Freeze => self.work(|keeper| keeper.freeze()).await.map(|()| Answer::Done),
            Request::Collected { n } => {
                self.work(move |keeper| keeper.collected(n)).await.map(|()| Answer::Done)
            }
        }
    }
}

fn log(error: &Error) {
    // PID 1's stderr is the pod's log.
    let line = format!("tazpod: the vault was not saved: {error}\n");
    let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
}

/// For people, so that only a clock out of all bounds is an empty text.
pub fn now() -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    now.format(&Rfc3339).unwrap_or_default()
}

/// Serves one request of a channel.
///
/// # Errors
/// Where the connection is gone.
pub async fn serve(vault: &Vault, mut channel: Channel<Msg>) -> Result<(), russh::Error> {
    let mut line = BytesMut::new();
    let end = loop {
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            break Some(end);
        }
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) if line.len() + data.len() <= LONGEST_REQUEST => {
                line.extend_from_slice(&data);
            }
            Some(ChannelMsg::Data { .. } | ChannelMsg::Eof | ChannelMsg::Close) | None => break None,
            Some(_) => {}
        }
    };
    let Some(end) = end else { return channel.close().await };
    let request = serde_json::from_slice::<Request>(line.get(..end).unwrap_or_default());
    // It may have had the identity in it.
    line.get_mut(..end).unwrap_or_default().zeroize();
    line.advance(end + 1);
    let answer = match request {
        Ok(request) => {
            let (sender, receiver) = mpsc::channel(16);
            let sealed = Incoming { queue: receiver, rest: line.freeze(), ended: false };
            let feed = async {
                // What nobody reads is not waited for: the answer comes all the same.
                while let Some(message) = channel.wait().await {
                    match message {
                        ChannelMsg::Data { data } => drop(sender.send(Some(data)).await),
                        ChannelMsg::Eof => {
                            let _ = sender.send(None).await;
                            break;
                        }
                        _ => {}
                    }
                }
                drop(sender);
                std::future::pending().await
            };
            tokio::select! {
                answer = vault.answer(request, sealed) => answer,
                never = feed => never,
            }
        }
        Err(error) => {
            Err(Error::new(Kind::Failure, "not a request that this agent knows").with_source(error))
        }
    };
    let answer = answer.unwrap_or_else(|error| Answer::Refused {
        code: error.exit_code(),
        message: error.to_string(),
        hints: error.hints().to_vec(),
    });
    channel.data_bytes(serde_json::to_vec(&answer).unwrap_or_default()).await?;
    channel.eof().await?;
    channel.close().await
}

/// What follows a request, as a reader for another thread. A connection that breaks off is an error, not an end.
struct Incoming {
    queue: mpsc::Receiver<Option<Bytes>>,
    rest: Bytes,
    ended: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.queue.blocking_recv() {
                Some(Some(data)) => self.rest = data,
                Some(None) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Programs with a file of the vault open, or in its directory.
fn holders() -> Vec<(String, i32)> {
    let inside = |path: io::Result<PathBuf>| path.is_ok_and(|path| path.starts_with(VAULT_MEMORY));
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let process = entry.path();
        let descriptors = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let holds = inside(std::fs::read_link(process.join("cwd")))
            || descriptors.into_iter().any(|descriptor| inside(std::fs::read_link(descriptor.path())));
        if holds && pid != 1 {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            found.push((name.trim_end().to_owned(), pid));
        }
    }
    found
}
