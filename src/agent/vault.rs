//! The vault of this pod: the subsystem by which the host opens, saves and locks it, and saving by itself.
//!
//! One request is a line of JSON, for [`Request::Add`] followed by what is packed; one answer is JSON.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use russh::server::Msg;
use russh::{Channel, ChannelMsg};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::UnixListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use zeroize::Zeroize as _;

use crate::error::{Context as _, Error, Kind, Result};
use crate::link::pipe::{Giving, Receiving};
use crate::pod::spec::{RUN, VAULT_MEMORY, VAULT_SPOOL};
use crate::vault::archive::{Extracted, Limits};
use crate::vault::disk::RealDisk;
use crate::vault::id::{Hash, VaultId};
use crate::vault::keeper::{Handed, Keeper, Listed, Opening, Saved};
use crate::vault::tree::Root;
use crate::vault::variables;

use super::Agent;
use super::services::DIRECTORY as SERVICES;

/// The subsystem's name.
pub const SUBSYSTEM: &str = "vault@tazpod";
/// A request's line is not longer, in bytes.
pub const LONGEST_REQUEST: usize = 64 << 10;
/// How often the tree is looked at.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long nothing may change before a save by itself …
const QUIET: Duration = Duration::from_secs(2);
/// … and how often that is waited for.
const PATIENCE: u32 = 30;
/// How often the time between attempts to lock that fail is doubled: up to eight minutes.
const MOST_DOUBLINGS: u32 = 4;
/// How long services are waited for before it is locked: until they are killed, and a little.
const SERVICES_END: Duration = Duration::from_secs(12);
/// The socket in [`VAULT_MEMORY`] by which programs of the pod ask: the directory is theirs alone.
pub const SOCKET: &str = "tazpod.sock";
/// How long a client may be silent amid its request.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a sealed generation may be under way, through a pipe that programs of the pod can open, too.
const TRANSFER: Duration = Duration::from_secs(5 * 60);
/// How long the host may take nothing of what it asked to be saved: nothing else is saved meanwhile.
const TAKING_SILENCE: Duration = Duration::from_secs(10);
/// How much of it the host takes in a second at least, in bytes: what is slower goes to the spool.
const TAKEN: u64 = 8 << 20;
/// How long a pod that ends waits for what the host is about to have, if it has that much time.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How often that is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// How much of what lies beside the vault is told.
const MOST_TOLD: usize = 16;
/// How many of them are served at once. Each takes a thread, and all threads together would be the agent's last.
const SERVED: usize = 8;

/// What the host asks.
#[derive(Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Whether it is open.
    State,
    /// Open it; the sealed generation comes through a [pipe](Receiving).
    Unlock {
        /// What to open.
        opening: Box<Opening>,
        /// When to lock it without being told.
        #[serde(default)]
        autolock: AutoLock,
    },
    /// Save what has changed.
    Save {
        /// Even what looks wrong.
        force: bool,
    },
    /// Save what has changed; what is sealed goes to the host, through a [pipe](Giving).
    HandOver {
        /// Even what looks wrong.
        force: bool,
        /// The newest commit that the host has.
        tip: Option<Hash>,
    },
    /// Save, and take it away.
    Lock {
        /// Even if what would be saved looks wrong.
        force: bool,
        /// The newest commit that the host has: the host's word alone.
        tip: Option<Hash>,
    },
    /// The commits that wait become final.
    Freeze {
        /// The newest commit that the host has.
        tip: Option<Hash>,
    },
    /// The host has all commits up to this number.
    Collected {
        /// It.
        n: u64,
    },
    /// What is in it.
    List,
    /// Add files; they follow, packed.
    Add {
        /// Replace what is there.
        replace: bool,
    },
    /// Remove these.
    Remove {
        /// From the root.
        paths: Vec<Name>,
        /// Directories, too.
        recursive: bool,
    },
}

/// A path as JSON can carry it, which has no other bytes than those of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    /// As it is.
    Text(String),
    /// Byte by byte, where it is no text.
    Bytes(Vec<u8>),
}

impl From<PathBuf> for Name {
    fn from(path: PathBuf) -> Name {
        let text = path.into_os_string().into_string();
        text.map_or_else(|bytes| Name::Bytes(bytes.into_vec()), Name::Text)
    }
}

impl From<Name> for PathBuf {
    fn from(name: Name) -> PathBuf {
        match name {
            Name::Text(text) => text.into(),
            Name::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

impl Request {
    /// Whether programs of the pod may ask it. What needs the identity, or is between keeper and host, is the host's.
    fn is_for_everybody(&self) -> bool {
        match self {
            Request::State
            | Request::Save { .. }
            | Request::List
            | Request::Add { .. }
            | Request::Remove { .. } => true,
            Request::Lock { tip, .. } => tip.is_none(),
            Request::Unlock { .. }
            | Request::HandOver { .. }
            | Request::Freeze { .. }
            | Request::Collected { .. } => false,
        }
    }
}

/// When the vault is locked without being told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoLock {
    /// After so many seconds in which nobody typed, no command of the host's ran, and no program held a file of it.
    pub idle_s: Option<u64>,
    /// When the last session has ended.
    pub last_session: bool,
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::State`].
    State {
        /// The vault that is open.
        open: Option<VaultId>,
        /// Whether what is saved is held, because another pod had it open first.
        #[serde(default)]
        held: bool,
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
    /// To [`Request::HandOver`].
    Handed(Handed),
    /// To [`Request::Lock`].
    Locked {
        /// The last save.
        saved: Saved,
        /// Programs that have a file of the vault open or mapped, or work in its directory: name and process id.
        holders: Vec<(String, i32)>,
        /// How many programs could not be looked into.
        #[serde(default)]
        unknown: usize,
        /// What programs have put beside the vault, in its memory: it may be the vault's, by another name. The first of it, as text.
        #[serde(default)]
        beside: Vec<String>,
    },
    /// To [`Request::List`].
    Listed {
        /// All of it, sorted by path.
        entries: Vec<Listed>,
    },
    /// To [`Request::Add`].
    Added {
        /// Bytes of all files.
        bytes: u64,
        /// Files, directories and links.
        entries: u64,
        /// The save that follows.
        saved: Saved,
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

impl Answer {
    /// What was not done, as an error.
    ///
    /// # Errors
    /// [`Answer::Refused`].
    pub fn accepted(self) -> Result<Answer> {
        let Answer::Refused { code, message, hints } = self else { return Ok(self) };
        Err(hints.into_iter().fold(Error::new(Kind::of_exit_code(code), message), Error::hint))
    }

    /// As it is sent.
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|source| {
            let error = Error::new(Kind::Failure, "what came of it cannot be told").with_source(source);
            serde_json::to_vec(&Answer::refusal(&error)).unwrap_or_default()
        })
    }

    fn refusal(error: &Error) -> Answer {
        let hints = error.hints().to_vec();
        Answer::Refused { code: error.exit_code(), message: error.to_string(), hints }
    }
}

/// The pod's keeper, one at a time.
#[derive(Clone)]
pub struct Vault {
    keeper: Arc<Mutex<Keeper>>,
    /// Told at each unlock.
    opened: Arc<Notify>,
    /// What is open, and whether another pod had it first: for those who must not wait for the keeper.
    open: Arc<Mutex<Option<(VaultId, bool)>>>,
    /// Since when it is open.
    autolock: Arc<Mutex<(AutoLock, Instant)>>,
    services: Arc<Dependents>,
}

/// Services that run while it is open.
struct Dependents {
    /// How many are about to lock it: then they are to end.
    closing: watch::Sender<usize>,
    running: watch::Sender<usize>,
}

/// One of them runs, until this is dropped.
pub(super) struct Dependent(Arc<Dependents>);

impl Drop for Dependent {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count -= 1);
    }
}

/// None of them begins, until this is dropped.
struct Closing(Arc<Dependents>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closing.send_modify(|count| *count -= 1);
    }
}

impl Vault {
    /// With nothing open. `home` is that of the pod's user.
    pub fn new(home: PathBuf) -> Vault {
        let spool = Path::new(RUN).join(VAULT_SPOOL);
        let keeper = Keeper::new(&RealDisk::SHARED, VAULT_MEMORY.into(), spool, home);
        Vault {
            keeper: Arc::new(Mutex::new(keeper)),
            opened: Arc::default(),
            open: Arc::default(),
            autolock: Arc::new(Mutex::new((AutoLock::default(), Instant::now()))),
            services: Arc::new(Dependents { closing: watch::Sender::new(0), running: watch::Sender::new(0) }),
        }
    }

    /// Whether services may run that want it.
    pub(super) fn is_for_services(&self) -> bool {
        self.is_open() && *self.services.closing.borrow() == 0
    }

    /// Notes that one does.
    pub(super) fn serves(&self) -> Dependent {
        self.services.running.send_modify(|count| *count += 1);
        Dependent(Arc::clone(&self.services))
    }

    /// Has them end, so that nobody of ours writes while it is locked.
    async fn closing(&self) -> Closing {
        self.services.closing.send_modify(|count| *count += 1);
        let closing = Closing(Arc::clone(&self.services));
        let mut running = self.services.running.subscribe();
        // One that does not end is killed sooner.
        let _ = tokio::time::timeout(SERVICES_END, running.wait_for(|count| *count == 0)).await;
        closing
    }

    /// Variables for new sessions and commands, from the open vault.
    pub fn variables(&self) -> BTreeMap<String, String> {
        if !self.is_open() {
            return BTreeMap::new();
        }
        match read_variables(&Path::new(VAULT_MEMORY).join("open")) {
            Ok(variables) => variables,
            Err(error) => {
                log(&error);
                BTreeMap::new()
            }
        }
    }

    /// Whether one is open.
    pub fn is_open(&self) -> bool {
        self.state().is_some()
    }

    /// The vault that is open, as of the last work that has ended.
    fn state(&self) -> Option<(VaultId, bool)> {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work on files, which has a thread of its own: nobody else waits for it, or for the keeper.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keeper) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let vault = self.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let mut keeper = vault.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut keeper);
            *vault.open.lock().unwrap_or_else(PoisonError::into_inner) =
                keeper.vault().map(|vault| (vault, keeper.is_beside()));
            result
        })
        .await;
        worked.context(Kind::Failure, || "the vault's keeper broke off")?
    }

    /// The same, once the host has what was handed over to it, or has had its time: what is saved before that may have to be held.
    async fn work_alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keeper) -> Result<T> + Copy + Send + 'static,
    ) -> Result<T> {
        let unless_awaited = move |keeper: &mut Keeper| match keeper.is_handing_over() {
            true => Ok(None),
            false => work(keeper).map(Some),
        };
        loop {
            if let Some(done) = self.work(unless_awaited).await? {
                return Ok(done);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Saves by itself while a vault is open, for ever, and locks it when it is time; a pod without one wakes for nothing.
    pub(super) async fn look_after(self, agent: Arc<Agent>) {
        self.opened.notified().await;
        // Each attempt to lock ends services: what fails again and again is tried ever more rarely.
        let (mut failures, mut not_before, mut told) = (0, Instant::now(), None);
        loop {
            tokio::time::sleep(INTERVAL).await;
            if !self.is_open() {
                self.opened.notified().await;
                (failures, not_before, told) = (0, Instant::now(), None);
                continue;
            }
            if not_before <= Instant::now() && self.is_to_lock(&agent).await {
                match self.lock_by_itself(&agent, &mut told).await {
                    Ok(Some(saved)) => {
                        note(&saved);
                        continue;
                    }
                    Ok(None) => {}
                    // What cannot be saved is not locked away; the log says why, and it is tried again.
                    Err(error) => {
                        log(&error);
                        not_before = Instant::now() + INTERVAL * (1 << failures);
                        failures = MOST_DOUBLINGS.min(failures + 1);
                    }
                }
            }
            for _ in 0..PATIENCE {
                let before = self.work(|keeper| keeper.look()).await.unwrap_or_default();
                tokio::time::sleep(QUIET).await;
                if self.work(|keeper| keeper.look()).await.unwrap_or_default() == before {
                    break;
                }
            }
            // What cannot be saved now is tried again; the log of the pod says why.
            if let Err(error) = self.work(|keeper| keeper.save_by_itself(&now())).await
                && error.kind() != Kind::Locked
            {
                log(&error);
            }
        }
    }

    /// Whether it is time to lock it.
    async fn is_to_lock(&self, agent: &Agent) -> bool {
        let (autolock, since) = *self.autolock.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = autolock.last_session
            && agent.sessions.list().is_empty()
            && agent.activity.session_ended().is_some_and(|ended| ended > since);
        let idle_s = agent.activity.idle().min(since.elapsed()).as_secs();
        let idle = autolock.idle_s.is_some_and(|limit| idle_s >= limit);
        // Who looks into other programs can be made to wait by them.
        let nobody = async || tokio::task::spawn_blocking(|| holders().0.is_empty()).await.unwrap_or(false);
        ended || (idle && nobody().await)
    }

    /// Locks it, if that can be and is still due when the services that want it have ended. Why it cannot be is logged if that
    /// was not `told`.
    async fn lock_by_itself(&self, agent: &Agent, told: &mut Option<String>) -> Result<Option<Saved>> {
        let lacks = |keeper: &mut Keeper| keeper.save_by_itself(&now()).map(|saved| keeper.lacks(&saved));
        let lacking = self.work(lacks).await?;
        if let Some(why) = lacking.as_ref().filter(|why| told.as_ref() != Some(why)) {
            log(&Error::new(
                Kind::Conflict,
                format!("it is not locked by itself: not everything can be saved: {why}"),
            ));
        }
        *told = lacking;
        if told.is_some() {
            // Nobody is ended for that.
            return Ok(None);
        }
        let _closing = self.closing().await;
        match self.is_to_lock(agent).await {
            true => self.work_alone(|keeper| keeper.lock(false, &now())).await.map(Some),
            false => Ok(None),
        }
    }

    /// Saves what has changed.
    ///
    /// # Errors
    /// As [`Keeper::save`].
    pub async fn save(&self, force: bool) -> Result<Saved> {
        self.work(move |keeper| keeper.save(force, &now())).await
    }

    /// Saves as much as can be, when the pod is about to end.
    ///
    /// # Errors
    /// As [`Keeper::save_at_end`].
    pub async fn save_at_end(&self) -> Result<Saved> {
        self.work(|keeper| keeper.save_at_end(&now())).await
    }

    /// Before the pod ends: saved, and gone. What was handed over is waited for, a little and until `latest`.
    pub async fn close(&self, latest: Instant) {
        if self.is_open() {
            let patience = LAST_PATIENCE.min(latest.saturating_duration_since(Instant::now()));
            // Without the lock: that is not begun twice.
            let _ = tokio::time::timeout(patience, self.handed_over()).await;
            let mut saved = self.work(|keeper| keeper.lock(false, &now())).await;
            if let Err(error) = &saved {
                log(error);
                // As much as can be: it is held, where it lacks something.
                saved = self.save_at_end().await;
            }
            match saved {
                Ok(saved) => note(&saved),
                Err(error) => log(&error),
            }
        }
    }

    /// The host has what was handed over to it, or has had its time.
    async fn handed_over(&self) {
        while self.work(|keeper| Ok(keeper.is_handing_over())).await.unwrap_or_default() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn answer(&self, request: Request, packed: impl Read + Send + 'static) -> Result<Answer> {
        match request {
            Request::State => {
                let (open, held) = self.state().unzip();
                Ok(Answer::State { open, held: held.unwrap_or_default() })
            }
            Request::Unlock { opening, autolock } => {
                let Extracted { bytes, entries, .. } = self
                    .work(move |keeper| {
                        if !keeper.has_memory() {
                            return Err(Error::new(Kind::Failure, "this pod has no memory for a vault")
                                .hint("it is older than this tazpod: `tazpod up --recreate`"));
                        }
                        let sealed = Receiving::open(Path::new(RUN), SILENCE, TRANSFER)
                            .context(Kind::Failure, || "cannot open the pipe that the vault comes through")?;
                        keeper.unlock(*opening, sealed, Limits::default())
                    })
                    .await?;
                *self.autolock.lock().unwrap_or_else(PoisonError::into_inner) = (autolock, Instant::now());
                self.opened.notify_one();
                Ok(Answer::Unlocked { bytes, entries })
            }
            Request::Save { force } => Ok(Answer::Saved(self.save(force).await?)),
            Request::Lock { force, tip } => {
                let _closing = self.closing().await;
                if tip.is_some() {
                    self.work(move |keeper| keeper.taken(tip)).await?;
                }
                self.work_alone(move |keeper| {
                    let saved = keeper.lock(force, &now())?;
                    let (holders, unknown) = holders();
                    Ok(Answer::Locked { saved, holders, unknown, beside: beside() })
                })
                .await
            }
            Request::HandOver { force, tip } => {
                let handing = move |keeper: &mut Keeper| {
                    keeper.taken(tip)?;
                    let pipe = |bytes| {
                        Giving::open(Path::new(RUN), TAKING_SILENCE, longest_taking(bytes))
                            .context(Kind::Failure, || "cannot open the pipe that the vault goes through")
                    };
                    keeper.hand_over(force, pipe, &now())
                };
                self.work(handing).await.map(Answer::Handed)
            }
            Request::Freeze { tip } => {
                let freeze = move |keeper: &mut Keeper| keeper.taken(tip).and_then(|()| keeper.freeze());
                self.work(freeze).await.map(|()| Answer::Done)
            }
            Request::Collected { n } => {
                self.work(move |keeper| keeper.collected(n)).await?;
                // It takes a while, and nobody has to wait for it; what stays, the next save removes.
                let vault = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = vault.work(|keeper| keeper.tidy()).await {
                        log(&error);
                    }
                });
                Ok(Answer::Done)
            }
            Request::List => {
                self.work(|keeper| keeper.list()).await.map(|entries| Answer::Listed { entries })
            }
            Request::Add { replace } => {
                let stage = self.work(|keeper| keeper.stage()).await?;
                // Without the keeper: whoever sends slowly holds up nobody.
                let filling = tokio::task::spawn_blocking(move || {
                    let extracted = stage.fill(packed, Limits::default())?;
                    Ok::<_, Error>((stage, extracted))
                });
                let filled = filling.await.context(Kind::Failure, || "the vault's keeper broke off")?;
                let (stage, Extracted { bytes, entries, .. }) = filled?;
                let saved = self
                    .work(move |keeper| {
                        keeper.add(&stage, replace)?;
                        keeper.save(false, &now())
                    })
                    .await?;
                Ok(Answer::Added { bytes, entries, saved })
            }
            Request::Remove { paths, recursive } => {
                let paths: Vec<_> = paths.into_iter().map(PathBuf::from).collect();
                self.work(move |keeper| keeper.remove(&paths, recursive)).await.map(|()| Answer::Done)
            }
        }
    }
}

/// How long the host may take all of what it asked to be saved. Programs of the pod can open the pipe, too, and end each silence: they
/// must not keep the keeper long.
fn longest_taking(bytes: u64) -> Duration {
    TRANSFER.min(TAKING_SILENCE + Duration::from_secs(bytes / TAKEN))
}

fn log(error: &Error) {
    // PID 1's stderr is the pod's log.
    let _ = io::stderr().write_all(format!("tazpod: the vault: {error}\n").as_bytes());
}

/// What a save that nobody asked for has left out.
fn note(saved: &Saved) {
    match saved {
        Saved::Held { why, .. } => {
            log(&Error::new(Kind::Conflict, format!("the save is held, because {why}")))
        }
        Saved::Made { skipped, .. } => {
            for skipped in skipped {
                log(&Error::new(Kind::Failure, format!("not saved: {skipped}")));
            }
        }
        Saved::Unchanged => {}
    }
}

/// The variables of a tree's file for them; none where it has no such file.
fn read_variables(tree: &Path) -> Result<BTreeMap<String, String>> {
    let name = variables::NAME;
    let failed = || format!("cannot read `{name}`");
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let opened = Root::open(tree).and_then(|root| root.at(name.as_ref(), flags, rustix::fs::Mode::empty()));
    let file = match opened {
        Ok(file) => std::fs::File::from(file),
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(Error::new(Kind::Failure, failed()).with_source(source)),
    };
    variables::read(file, name)
}

/// Answers programs of the pod, for ever. A pod without memory for a vault has no such socket.
pub async fn serve_pod(vault: Vault) {
    let path = Path::new(VAULT_MEMORY).join(SOCKET);
    let Ok(listener) = UnixListener::bind(&path) else { return };
    let served = Arc::new(Semaphore::new(SERVED));
    loop {
        let Ok(served) = Arc::clone(&served).acquire_owned().await else { return };
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(SILENCE))?;
            stream.set_write_timeout(Some(SILENCE))?;
            Ok(stream)
        });
        let Ok(stream) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let vault = vault.clone();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let _served = served;
            let answer = runtime.block_on(answer_program(&vault, &stream));
            let answer = answer.unwrap_or_else(|error| Answer::refusal(&error));
            // A program that has gone needs no answer.
            let _ = (&stream).write_all(&answer.to_bytes());
        });
    }
}

async fn answer_program(vault: &Vault, stream: &UnixStream) -> Result<Answer> {
    let unknown = || Error::new(Kind::Failure, "not a request that this agent knows");
    let stream = stream.try_clone().map_err(|source| unknown().with_source(source))?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let limit = LONGEST_REQUEST as u64;
    (&mut reader).take(limit).read_until(b'\n', &mut line).map_err(|source| unknown().with_source(source))?;
    let request: Request = serde_json::from_slice(&line).map_err(|source| unknown().with_source(source))?;
    if !request.is_for_everybody() {
        return Err(Error::new(Kind::Usage, "this is for the host to ask"));
    }
    vault.answer(request, reader).await
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
    let mut line = BytesMut::with_capacity(LONGEST_REQUEST);
    let end = loop {
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            break Some(end);
        }
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) if line.len() + data.len() <= LONGEST_REQUEST => {
                line.extend_from_slice(&data);
                // It may have the identity in it.
                if let Ok(mut data) = data.try_into_mut() {
                    data.zeroize();
                }
            }
            Some(ChannelMsg::Data { .. } | ChannelMsg::Eof | ChannelMsg::Close) | None => break None,
            Some(_) => {}
        }
    };
    let Some(end) = end else { return channel.close().await };
    let request = serde_json::from_slice::<Request>(line.get(..end).unwrap_or_default());
    line.get_mut(..end).unwrap_or_default().zeroize();
    line.advance(end + 1);
    let answer = match request {
        Ok(request) => {
            let (sender, receiver) = mpsc::channel(16);
            let runtime = tokio::runtime::Handle::current();
            let packed = Incoming { runtime, queue: receiver, rest: line.freeze(), ended: false };
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
                answer = vault.answer(request, packed) => answer,
                never = feed => never,
            }
        }
        Err(error) => {
            Err(Error::new(Kind::Failure, "not a request that this agent knows").with_source(error))
        }
    };
    let answer = answer.unwrap_or_else(|error| Answer::refusal(&error));
    channel.data_bytes(answer.to_bytes()).await?;
    channel.eof().await?;
    channel.close().await
}

/// What follows a request, as a reader for another thread. A connection that breaks off, or is silent, is an error, not an end.
struct Incoming {
    runtime: tokio::runtime::Handle,
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
            let next = async { tokio::time::timeout(SILENCE, self.queue.recv()).await };
            match self.runtime.block_on(next) {
                Ok(Some(Some(data))) => self.rest = data,
                Ok(Some(None)) => self.ended = true,
                Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // A client that was stopped must not keep the keeper.
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Programs with a file of the vault open or mapped, or in its directory; and how many could not be looked into.
fn holders() -> (Vec<(String, i32)>, usize) {
    let inside = |path: io::Result<PathBuf>| path.is_ok_and(|path| path.starts_with(VAULT_MEMORY));
    let (mut found, mut unknown) = (Vec::new(), 0);
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let process = entry.path();
        let descriptors = match std::fs::read_dir(process.join("fd")) {
            Ok(descriptors) => descriptors.flatten(),
            // Of another user, or shut off from its own. What has ended meanwhile is not there at all.
            Err(error) => {
                unknown += usize::from(error.kind() == io::ErrorKind::PermissionDenied && pid != 1);
                continue;
            }
        };
        let maps = || {
            let maps = std::fs::read(process.join("maps")).unwrap_or_default();
            String::from_utf8_lossy(&maps).contains(&format!(" {VAULT_MEMORY}/"))
        };
        let holds = inside(std::fs::read_link(process.join("cwd")))
            || descriptors.into_iter().any(|descriptor| inside(std::fs::read_link(descriptor.path())))
            || maps();
        if holds && pid != 1 {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            found.push((name.trim_end().to_owned(), pid));
        }
    }
    (found, unknown)
}

/// What is in the vault's memory and neither its nor the agent's.
fn beside() -> Vec<String> {
    let ours = ["open", SOCKET, SERVICES];
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let memory = Path::new(VAULT_MEMORY);
    let others = entries(memory).filter(|entry| !ours.iter().any(|name| entry.file_name() == *name));
    // Those that want the vault have ended; what they kept should be gone. Tokens are files.
    let kept =
        entries(&memory.join(SERVICES)).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    others.chain(kept).map(|entry| entry.path().to_string_lossy().into_owned()).take(MOST_TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::commit::Commit;
    use crate::vault::keeper::tests::Pod;

    #[test]
    fn names_of_any_bytes_go_through_a_request() {
        let paths = [b"a/b".to_vec(), "caf\u{e9}".into(), b"caf\xe9".to_vec(), b"\xff\n\"/\x80".to_vec()];
        let names = paths.iter().map(|path| PathBuf::from(OsString::from_vec(path.clone())).into());
        let line = serde_json::to_vec(&Request::Remove { paths: names.collect(), recursive: true }).unwrap();
        let Ok(Request::Remove { paths: names, .. }) = serde_json::from_slice(&line) else {
            panic!("{line:?}")
        };
        let got = names.into_iter().map(|name| PathBuf::from(name).into_os_string().into_vec());
        assert_eq!(got.collect::<Vec<_>>(), paths);
        // As agents and clients before did it.
        let before = r#"{"request":"remove","paths":["a/b"],"recursive":false}"#;
        let plain = Request::Remove { paths: vec![Name::Text("a/b".into())], recursive: false };
        assert_eq!(serde_json::to_string(&plain).unwrap(), before);
        assert!(
            matches!(serde_json::from_str(before), Ok(Request::Remove { paths, .. }) if paths.len() == 1)
        );
    }

    #[test]
    fn the_keeper_is_not_kept_longer_than_the_vault_is_large() {
        assert_eq!(longest_taking(5 << 20), TAKING_SILENCE);
        assert_eq!(longest_taking(500 << 20), Duration::from_secs(72));
        assert_eq!(longest_taking(u64::MAX), TRANSFER);
    }

    #[tokio::test]
    async fn what_is_the_hosts_to_ask_no_program_of_the_pod_may() {
        let vault = Vault::new("/nowhere".into());
        let ask = async |line: &str| {
            let (mut program, keeper) = UnixStream::pair().unwrap();
            program.write_all(format!("{line}\n").as_bytes()).unwrap();
            drop(program);
            answer_program(&vault, &keeper).await.unwrap_err()
        };
        let tip = Some(Hash([7; 32]));
        for request in [
            Request::Lock { force: false, tip },
            Request::HandOver { force: false, tip: None },
            Request::Freeze { tip },
            Request::Collected { n: 1 },
        ] {
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(ask(&line).await.to_string(), "this is for the host to ask", "{line}");
        }
        assert_eq!(ask(r#"{"request":"lock","force":false,"tip":null}"#).await.kind(), Kind::Locked);
        assert!(ask("nonsense").await.to_string().contains("not a request"));
    }

    /// What was handed over to the host, and not yet taken: by whom it was saved before the pod ended, and what waits.
    async fn closed(
        tell: impl FnOnce(&mut Keeper, Hash) + Send + 'static,
        patience: Duration,
    ) -> (Vec<u64>, Duration) {
        let mut pod = Pod::new();
        pod.begin(&["a", "b"]);
        pod.write("a", "changed");
        let handed = pod.keeper.hand_over(false, |_| Ok(io::sink()), &now()).unwrap();
        let Handed::Sent { commit, .. } = handed else { panic!("{handed:?}") };
        let commit = Commit::read(commit.into_bytes()).unwrap();
        let spool = pod.spool();
        let vault = Vault { keeper: Arc::new(Mutex::new(pod.keeper)), ..Vault::new("/nowhere".into()) };
        vault.work(|_| Ok(())).await.unwrap();
        let begun = Instant::now();
        let told = async {
            tokio::time::sleep(3 * PAUSE).await;
            let tell = move |keeper: &mut Keeper| {
                tell(keeper, commit.hash);
                Ok(())
            };
            vault.work(tell).await
        };
        let (told, ()) = tokio::join!(told, vault.close(begun + patience));
        told.unwrap();
        let waited = begun.elapsed();
        assert!(!vault.is_open() && spool.held().unwrap().is_empty());
        (spool.load().unwrap().outbox.iter().map(|outgoing| outgoing.commit.body.n).collect(), waited)
    }

    #[tokio::test]
    async fn a_pod_that_ends_waits_for_the_host_and_locks_once() {
        let (waits, waited) = closed(|keeper, tip| keeper.taken(Some(tip)).unwrap(), LAST_PATIENCE).await;
        assert!(
            waits.is_empty() && waited >= 3 * PAUSE && waited < LAST_PATIENCE,
            "{waits:?} after {waited:?}"
        );
        // The host is gone: not for long, and what it may have is saved here.
        let (waits, waited) = closed(|_, _| {}, 4 * PAUSE).await;
        assert!(waits == [2] && waited >= 4 * PAUSE && waited < LAST_PATIENCE, "{waits:?} after {waited:?}");
    }

    #[tokio::test]
    async fn services_begin_when_nobody_locks_any_more() {
        let vault = Vault::new("/nowhere".into());
        assert!(!vault.is_for_services());
        *vault.open.lock().unwrap() = Some((VaultId([1; 16]), false));
        assert!(vault.is_for_services());
        let (one, two) = (vault.closing().await, vault.closing().await);
        drop(one);
        assert!(!vault.is_for_services());
        drop(two);
        assert!(vault.is_for_services());
    }
}
