//! The vault as the host has it: its local copy, its store, and what pods have saved.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;

use super::spec::Transport;
use crate::adapters::engine::{Endpoint, Engine};
use crate::adapters::files;
use crate::adapters::state::{LinkRecord, PodDir};
use crate::adapters::store::{self, Access, Login, Place, Probe, Role, StoreConfig, StoreSettings};
use crate::agent::vault::{Answer, AutoLock, Request};
use crate::config::VaultConfig;
use crate::context::Context;
use crate::env;
use crate::error::{Error, Kind, Result};
use crate::link::Link;
use crate::vault::archive::Limits;
use crate::vault::commit::{Commit, Link as Chain};
use crate::vault::disk::{Disk, ReadOnly, RealDisk};
use crate::vault::id::Hash;
use crate::vault::keeper::{Handed, LINKED, Saved};
use crate::vault::key::{Keyring, LARGEST_KEYRING, NotOpened};
use crate::vault::local::{Local, Object};
use crate::vault::sync::{self, Pushed, Stopped};
use crate::vault::tree::Root;

/// The name of the user's only vault.
const NAME: &str = "main";
/// What was found of the store, in the vault's directory.
const EXAMINED: &str = "store.json";
/// How much of a generation is copied at a time, in bytes.
const PIECE: usize = 256 << 10;

/// The vault of this user on this machine.
pub struct Vault {
    path: PathBuf,
    /// Where its sealed generations live.
    pub store: Box<dyn Place>,
    /// As the user wrote it, or the default.
    pub settings: StoreSettings,
    /// When pods lock it without being told.
    pub autolock: AutoLock,
    /// Directories of the pod's home that lead into it.
    pub links: Vec<PathBuf>,
    config: StoreConfig,
}

impl Vault {
    /// By the user's configuration; without any, its store is a directory in the user's data directory.
    ///
    /// # Errors
    /// [`Kind::Config`] for a store's address that is none.
    pub async fn open(context: &Context) -> Result<Vault> {
        let VaultConfig { store: mut settings, lock_after, lock_with_last_session, links } =
            context.user_config()?.vault;
        if settings.address.is_empty() {
            settings.address = data_directory()?.join("vaults").join(NAME).to_string_lossy().into_owned();
        }
        let autolock = AutoLock {
            idle_s: lock_after.map(|length| length.as_secs()),
            last_session: lock_with_last_session,
        };
        let config = StoreConfig::new(&settings)?;
        let path = context.state()?.vault(NAME);
        let found = Probe::load(&path.join(EXAMINED), &config);
        let (read_back, hashes) = found.map_or((false, false), |found| (!found.checksums, found.hashes));
        let store = store::open(&config, Access { read_back, hashes, ..Access::default() }).await;
        let links = links.unwrap_or_else(|| LINKED.iter().map(PathBuf::from).collect());
        Ok(Vault { path, store, settings, autolock, links, config })
    }

    /// What is here.
    pub fn local(&self) -> Local<'static> {
        Local::new(&RealDisk::PRIVATE, self.path.clone())
    }

    /// Makes the store's place, if it is a directory: a bucket is for its owner to make.
    ///
    /// # Errors
    /// Where that is not possible.
    pub async fn make_directory(&self) -> Result<()> {
        if let StoreConfig::Directory(_) = &self.config {
            self.store.setup().await?;
        }
        Ok(())
    }

    /// Tries out what the store honours, and keeps it; of a directory there is nothing to ask.
    ///
    /// # Errors
    /// The store's own.
    pub async fn probe(&self, context: &Context) -> Result<Option<Probe>> {
        if let StoreConfig::Directory(_) = &self.config {
            return Ok(None);
        }
        let _step = context.ui.step(format!("trying out {}", self.store.describe()));
        let found = self.store.probe().await?;
        let made = RealDisk::PRIVATE.make_directory(&self.path);
        made.map_err(|source| Error::io("make the directory", &self.path, source))?;
        found.save(&self.path.join(EXAMINED), &self.config)?;
        Ok(Some(found))
    }

    /// Before anything is pushed: what the store honours is known, and enough.
    ///
    /// # Errors
    /// [`Kind::Store`] where it is not; the store's own.
    pub async fn examine(&self, context: &Context) -> Result<()> {
        let found = match Probe::load(&self.path.join(EXAMINED), &self.config) {
            Some(found) => found,
            None => match self.probe(context).await? {
                Some(found) => {
                    let others = found.shortcomings().into_iter().filter(|said| *said != Probe::OVERWRITES);
                    others.for_each(|said| context.ui.warn(format!("{}: {said}", self.store.describe())));
                    found
                }
                None => return Ok(()),
            },
        };
        if found.conditional_create {
            return Ok(());
        }
        let what = format!("`{}` is not safe to push to: {}", self.store.describe(), Probe::OVERWRITES);
        if self.settings.accept_overwrites == Some(true) {
            context.ui.warn(what);
            return Ok(());
        }
        Err(Error::new(Kind::Store, what)
            .hint("take a store that honours it; when this one does, `tazpod vault setup-storage` sees that")
            .hint("if only one machine ever pushes, `accept_overwrites = true` in `[vault]` of `config.toml` takes it"))
    }

    /// Brings what waits here into the store, if that is fit for it.
    ///
    /// # Errors
    /// As [`Vault::examine`] and [`sync::push`].
    pub async fn push(&self, context: &Context) -> Result<Pushed, Stopped> {
        if !self.local().load()?.outbox.is_empty() {
            self.examine(context).await?;
        }
        sync::push(&self.local(), &*self.store).await
    }

    /// The least that credentials for a role must allow in the store; a directory has no such thing.
    pub fn policy(&self, role: Role) -> Option<String> {
        match &self.config {
            StoreConfig::S3(config) => Some(store::policy(config, role)),
            StoreConfig::Directory(_) => None,
        }
    }

    /// What a login to the store takes, besides secrets; a directory takes none.
    ///
    /// # Errors
    /// Where AWS's files cannot be read.
    pub async fn login(&self) -> Result<Login> {
        match &self.config {
            StoreConfig::S3(config) => store::login(config).await,
            StoreConfig::Directory(_) => Ok(Login::default()),
        }
    }

    /// The newest commit that this machine knows.
    ///
    /// # Errors
    /// [`Kind::Locked`] where there is no vault here.
    pub fn head(&self) -> Result<Commit> {
        let local = self.local();
        let state = local.load()?;
        if let Some(newest) = state.outbox.last() {
            return Ok(newest.commit.clone());
        }
        let none = || {
            Error::new(Kind::Locked, "this machine has no vault")
                .hint("`tazpod vault pull` fetches yours, `tazpod vault init` makes one")
        };
        local.newest(&state.seen.ok_or_else(none)?)
    }

    /// Opens the keyring that a commit names. Takes half a second, and 256 MiB.
    ///
    /// # Errors
    /// The passphrase; [`Kind::Integrity`] where the keyring is not the vault's.
    pub fn keyring(&self, commit: &Commit, passphrase: &SecretString) -> Result<Keyring, NotOpened> {
        let wrapped = self.local().object(Object::Keys, &commit.body.keys, LARGEST_KEYRING)?;
        let keyring = Keyring::unwrap(&wrapped, passphrase)?;
        check_keyring(commit, &keyring)?;
        // Nobody else can wrap one by this passphrase. What a side of a fork has says nothing of the pin.
        if self.head().is_ok_and(|head| head.hash == commit.hash) {
            self.local().trust()?;
        }
        Ok(keyring)
    }

    /// The keyring that a commit names, wrapped to recipients; [`check_keyring`] is due once it is open. Anybody can wrap one to a
    /// public key: it is given only where this machine knows that the vault is the user's.
    ///
    /// # Errors
    /// [`Kind::Passphrase`] where there is none; [`Kind::Integrity`] where it cannot be trusted.
    pub fn keyring_for_recipients(&self, commit: &Commit) -> Result<Vec<u8>> {
        let Some(recipients) = commit.body.recipients else {
            return Err(Error::new(Kind::Passphrase, "nothing but its passphrase opens the vault")
                .hint("`tazpod vault recipients add` lets other keys open it"));
        };
        if !self.local().is_trusted()? {
            return Err(Error::new(Kind::Integrity, "nothing shows yet that this is your vault").hint(
                "on this machine open it once with the passphrase, or `tazpod vault pull --card FINGERPRINT`",
            ));
        }
        self.local().object(Object::Recipients, &recipients, LARGEST_KEYRING)
    }

    /// Has a pod save, for [`Vault::collect`].
    ///
    /// What is sealed comes here at once, past the pod's spool, if nothing is in the way: so it goes to disk only once.
    ///
    /// # Errors
    /// As [`Link::vault`]; where what comes cannot be kept.
    pub async fn save(&self, pod: &PodDir, link: &Link, force: bool) -> Result<Saved> {
        if let Some(saved) = self.take(pod, link, force).await? {
            return Ok(saved);
        }
        match link.vault(&Request::Save { force }, None).await? {
            Answer::Saved(saved) => Ok(saved),
            other => Err(unexpected(&other)),
        }
    }

    /// The newest commit that this machine has.
    ///
    /// # Errors
    /// As [`Local::load`].
    pub fn tip(&self) -> Result<Option<Hash>> {
        Ok(self.local().load()?.tip.map(|tip| tip.hash))
    }

    /// Takes what the keeper hands over; nothing where it is for an ordinary save.
    async fn take(&self, pod: &PodDir, link: &Link, force: bool) -> Result<Option<Saved>> {
        let local = self.local();
        let state = local.load()?;
        let mut incoming = local.incoming(Object::Generation)?;
        let tip = state.tip.as_ref().map(|tip| tip.hash);
        // Of more, programs of the pod have their part.
        let mut room = Limits::default().bytes;
        let take = |bytes: &[u8]| match room.checked_sub(bytes.len() as u64) {
            Some(left) => {
                room = left;
                incoming.write_all(bytes)
            }
            None => Err(io::ErrorKind::FileTooLarge.into()),
        };
        let handed = match link.hand_over(&pod.run(), (force, tip), take).await {
            Ok(Answer::Handed(handed)) => handed,
            Err(error) if error.kind() == Kind::Locked => return Err(error),
            // An older agent, a program that reads along: the spool is safe from them.
            Ok(_) | Err(_) => return Ok(None),
        };
        let (text, saved) = match handed {
            Handed::Sent { commit, saved } => (commit, saved),
            Handed::Unchanged => return Ok(Some(Saved::Unchanged)),
            Handed::Not => return Ok(None),
        };
        let commit = Commit::read(text.into_bytes())?;
        if Chain::next(state.tip.as_ref(), &commit).is_err() {
            // Something waits in the spool, or there is a fork.
            return Ok(None);
        }
        match incoming.finish(Some(&commit.body.generation)) {
            Ok((_, size)) if size == commit.body.size => local.append(&state, &commit)?,
            Err(error) if error.kind() != Kind::Integrity => return Err(error),
            // Programs of the pod can take something away, or add something.
            _ => return Ok(None),
        }
        Ok(Some(saved))
    }

    /// Takes over what a pod has saved. `link` is there where the pod runs. Whether all of it is current now: else somebody
    /// saved meanwhile, and it is held.
    ///
    /// # Errors
    /// Where something that the pod has saved cannot be taken over: it stays where it is.
    pub async fn collect(&self, context: &Context, pod: &PodDir, link: Option<&Link>) -> Result<bool> {
        let path = pod.spool();
        if !path.is_dir() {
            return Ok(true);
        }
        let mut is_beside = false;
        if let Some(link) = link {
            // From here on what waits does not change any more.
            link.vault(&Request::Freeze { tip: self.tip()? }, None).await?;
            is_beside = matches!(link.vault(&Request::State, None).await?, Answer::State { held: true, .. });
        }
        let root = Root::open(&path).map_err(|source| Error::io("open", &path, source))?;
        let disk = ReadOnly(root);
        let spool = Local::new(&disk as &dyn Disk, PathBuf::new());
        let local = self.local();
        let held: Vec<_> = local.held()?.into_iter().map(|held| held.hash).collect();
        let (mut last, mut current) = (None, true);
        for outgoing in spool.load()?.outbox {
            if link.is_some() && !outgoing.attempted {
                // Saved since the freeze: the next time.
                break;
            }
            let commit = outgoing.commit;
            last = Some(commit.body.n);
            let state = local.load()?;
            let known = local.commit(commit.body.n)?.is_some_and(|known| known.hash == commit.hash)
                || held.contains(&commit.hash)
                || state.outbox.iter().any(|known| known.commit.hash == commit.hash);
            if known {
                continue;
            }
            if state.tip.is_none_or(|tip| tip.vault != commit.body.vault) {
                context.ui.warn(format!(
                    "`{}` has saved another vault, {}: left there",
                    pod.name(),
                    commit.body.vault
                ));
                return Ok(false);
            }
            copy(&spool, &local, &commit)?;
            if Chain::next(state.tip.as_ref(), &commit).is_ok() {
                local.append(&state, &commit)?;
            } else {
                // Somebody else saved meanwhile: nothing is lost, and nothing is merged silently.
                local.hold(&commit)?;
                current = false;
                let short = commit.hash.short();
                context.ui.warn(format!(
                    "what `{}` saved as commit {} is held: another state came first; `tazpod vault restore {short}` makes it current",
                    pod.name(),
                    commit.body.n,
                ));
            }
        }
        let known: Vec<_> = local.held()?.into_iter().map(|held| held.hash).collect();
        // Beside another pod each save replaces the one before, until the vault is locked there.
        let held = if is_beside { Vec::new() } else { spool.held()? };
        for commit in held.into_iter().filter(|held| !known.contains(&held.hash)) {
            if let Err(error) = copy(&spool, &local, &commit) {
                // Replaced meanwhile by a better one.
                if !spool.has(Object::Generation, &commit.body.generation) {
                    continue;
                }
                return Err(error);
            }
            local.hold(&commit)?;
            context.ui.warn(format!(
                "a save of `{}` is held: {}; `tazpod vault history` shows it",
                pod.name(),
                commit.hash.short()
            ));
        }
        if let (Some(link), Some(n)) = (link, last) {
            link.vault(&Request::Collected { n }, None).await?;
        }
        Ok(current)
    }
}

/// An opened keyring is the one that the signer of this commit has.
///
/// # Errors
/// [`Kind::Integrity`] where it is not.
pub fn check_keyring(commit: &Commit, keyring: &Keyring) -> Result<()> {
    let signer = keyring.current().signer(&commit.body.vault)?;
    match keyring.vault() == commit.body.vault && signer.id() == commit.body.vk {
        true => Ok(()),
        false => Err(Error::new(Kind::Integrity, "the keyring is not the one of the vault's newest commit")
            .hint("somebody may have put another in its place")),
    }
}

/// The agent of a pod that runs; nobody's where it does not. A pod that runs and does not answer may have the vault open.
///
/// # Errors
/// Where it runs and does not answer, or its engine does not.
pub async fn reach(pod: &PodDir, record: &LinkRecord) -> Result<Option<Link>> {
    let engine = || Engine::new(Endpoint::parse(&record.engine)?);
    let failed = match Link::open(pod, record, engine).await {
        Ok(link) => return Ok(Some(link)),
        Err(failed) => failed,
    };
    let pods = engine()?.pods_of(&record.workspace).await?;
    match pods.iter().any(|found| found.name == pod.name() && found.is_running()) {
        true => Err(failed.hint("it may have the vault open; stop it first")),
        false => Ok(None),
    }
}

/// Before a pod ends: a vault that is open in it is saved and locked, and what it has saved is taken over.
///
/// # Errors
/// Where not everything can be saved: the pod is to go on running.
pub async fn close_in(context: &Context, pod: &PodDir) -> Result<()> {
    if !pod.vault_name().exists() && !pod.spool().is_dir() {
        return Ok(());
    }
    let vault = Vault::open(context).await?;
    let _lock = lock(context).await?;
    // A pod that cannot be reached saves when it is stopped.
    let link = match pod.record() {
        Ok(record) => reach(pod, &record).await.unwrap_or_default(),
        Err(_) => None,
    };
    if let Some(link) = &link
        && let Answer::State { open: Some(_), .. } = link.vault(&Request::State, None).await?
    {
        let _step = context.ui.step("saving and locking the vault");
        let forced =
            |error: Error| error.hint(format!("`tazpod vault lock --force {}` leaves it out", pod.name()));
        let lock = Request::Lock { force: false, tip: vault.tip()? };
        let answer = link.vault(&lock, None).await.map_err(forced)?;
        if let Answer::Locked { saved: Saved::Held { why, .. }, .. } = answer {
            context.ui.warn(format!("the last save of the vault is held, because {why}"));
        }
    }
    vault.collect(context, pod, link.as_ref()).await.map(drop)
}

/// One tazpod at a time works on the vault of this machine.
///
/// # Errors
/// After five minutes of waiting.
pub async fn lock(context: &Context) -> Result<File> {
    context
        .state()?
        .lock("vault", || context.ui.status("waiting for another tazpod at work on the vault"))
        .await
}

fn copy(from: &Local<'_>, to: &Local<'_>, commit: &Commit) -> Result<()> {
    let generation = commit.body.generation;
    if to.has(Object::Generation, &generation) {
        return Ok(());
    }
    let (_, reader) = from.open(Object::Generation, &generation)?;
    let mut incoming = to.incoming(Object::Generation)?;
    // No more than the commit says, whatever the pod put there.
    let reader = BufReader::with_capacity(PIECE, reader.take(commit.body.size));
    incoming.fill(reader).map_err(|source| {
        Error::new(Kind::Failure, "cannot take over what the pod saved")
            .with_source(source)
            .hint("it stays with the pod; `tazpod vault push` tries again")
    })?;
    incoming.finish(Some(&generation)).map(drop)
}

/// Takes over what a pod that has ended has saved.
///
/// # Errors
/// As [`Vault::collect`].
pub async fn collect_from(context: &Context, pod: &PodDir) -> Result<()> {
    if !pod.spool().is_dir() {
        return Ok(());
    }
    let vault = Vault::open(context).await?;
    let _lock = lock(context).await?;
    let left = |error: Error| error.hint(format!("what was saved is in `{}`", pod.spool().display()));
    vault.collect(context, pod, None).await.map(drop).map_err(left)
}

/// The pod's spool is on this machine.
///
/// # Errors
/// [`Kind::Failure`] where it is not: such pods cannot have a vault yet.
pub fn check_transport(record: &LinkRecord) -> Result<()> {
    match record.transport {
        Transport::Socket => Ok(()),
        Transport::Exec => {
            Err(Error::new(Kind::Failure, "a vault cannot be opened in a pod of another machine yet"))
        }
    }
}

fn data_directory() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(env::TAZPOD_DATA_DIR)
        .or_else(|| set(env::XDG_DATA_HOME).map(|path| path.join("tazpod")))
        .or_else(|| set(env::HOME).map(|path| path.join(".local/share/tazpod")))
        .ok_or_else(|| Error::new(Kind::Config, "no home directory is known").hint("set `HOME`"))
}

/// What an answer of another kind than that of the request is.
pub fn unexpected(answer: &Answer) -> Error {
    Error::new(Kind::Failure, format!("the agent gave an unexpected answer: {answer:?}"))
}

/// Makes sure that a file with this content is there.
pub fn note(path: &Path, content: &str) -> Result<()> {
    files::write_atomically(path, content.as_bytes(), 0o600)
}
