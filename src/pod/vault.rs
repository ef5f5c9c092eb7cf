//! The vault as the host has it: its local copy, its store, and what pods have saved.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;

use super::spec::Transport;
use crate::adapters::files;
use crate::adapters::state::{LinkRecord, PodDir};
use crate::adapters::store::{self, Access, Place, StoreConfig, StoreSettings};
use crate::agent::vault::{Answer, Request};
use crate::context::Context;
use crate::env;
use crate::error::{Error, Kind, Result};
use crate::link::Link;
use crate::vault::commit::Commit;
use crate::vault::disk::{Disk, ReadOnly, RealDisk};
use crate::vault::key::{Keyring, LARGEST_KEYRING, NotOpened};
use crate::vault::local::{Local, Object};
use crate::vault::tree::Root;

/// The name of the user's only vault.
const NAME: &str = "main";

/// The vault of this user on this machine.
pub struct Vault {
    path: PathBuf,
    /// Where its sealed generations live.
    pub store: Box<dyn Place>,
    /// As the user wrote it, or the default.
    pub settings: StoreSettings,
    config: StoreConfig,
}

impl Vault {
    /// By the user's configuration; without any, its store is a directory in the user's data directory.
    ///
    /// # Errors
    /// [`Kind::Config`] for a store's address that is none.
    pub async fn open(context: &Context) -> Result<Vault> {
        let settings = match context.user_config()?.vault {
            Some(settings) => settings,
            None => StoreSettings {
                address: data_directory()?.join("vaults").join(NAME).to_string_lossy().into_owned(),
                ..StoreSettings::default()
            },
        };
        let config = StoreConfig::new(&settings)?;
        let store = store::open(&config, Access::default()).await;
        Ok(Vault { path: context.state()?.vault(NAME), store, settings, config })
    }

    /// What is here.
    pub fn local(&self) -> Local<'static> {
        Local::new(&RealDisk::PRIVATE, self.path.clone())
    }

    /// Makes the store's place, if it is a directory: a bucket is made by `setup-storage` alone.
    ///
    /// # Errors
    /// Where that is not possible.
    pub async fn make_directory(&self) -> Result<()> {
        if let StoreConfig::Directory(_) = &self.config {
            self.store.setup().await?;
        }
        Ok(())
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
        let seen = state.seen.ok_or_else(none)?;
        local.commit(seen.n)?.filter(|commit| commit.hash == seen.hash).ok_or_else(|| {
            Error::new(Kind::Integrity, format!("commit {} is missing from this machine", seen.n))
                .hint("`tazpod vault pull` fetches it again")
        })
    }

    /// Opens the keyring that a commit names. Takes half a second, and 256 MiB.
    ///
    /// # Errors
    /// The passphrase; [`Kind::Integrity`] where the keyring is not the vault's.
    pub fn keyring(&self, commit: &Commit, passphrase: &SecretString) -> Result<Keyring, NotOpened> {
        let wrapped = self.local().object(Object::Keys, &commit.body.keys, LARGEST_KEYRING)?;
        let keyring = Keyring::unwrap(&wrapped, passphrase)?;
        let signer = keyring.current().signer(&commit.body.vault)?;
        if keyring.vault() != commit.body.vault || signer.id() != commit.body.vk {
            return Err(NotOpened::Other(
                Error::new(Kind::Integrity, "the keyring is not the one of the vault's newest commit")
                    .hint("somebody may have put another in its place"),
            ));
        }
        Ok(keyring)
    }

    /// Takes over what a pod has saved. `link` is there where the pod runs.
    ///
    /// # Errors
    /// Where something that the pod has saved cannot be taken over: it stays where it is.
    pub async fn collect(&self, context: &Context, pod: &PodDir, link: Option<&Link>) -> Result<()> {
        let spool = pod.spool();
        if !spool.is_dir() {
            return Ok(());
        }
        if let Some(link) = link {
            // From here on what waits does not change any more.
            link.vault(&Request::Freeze, None).await?;
        }
        let root = Root::open(&spool).map_err(|source| Error::io("open", &spool, source))?;
        let disk = ReadOnly(root);
        let spool = Local::new(&disk as &dyn Disk, PathBuf::new());
        let local = self.local();
        let mut last = None;
        for outgoing in spool.load()?.outbox {
            let commit = outgoing.commit;
            last = Some(commit.body.n);
            let state = local.load()?;
            let known = state.seen.is_some_and(|seen| seen.n >= commit.body.n)
                || state.outbox.iter().any(|known| known.commit.hash == commit.hash);
            if known {
                continue;
            }
            copy(&spool, &local, &commit)?;
            if let Err(error) = local.enqueue(&commit) {
                // Somebody else saved meanwhile: nothing is lost, and nothing is merged silently.
                local.hold(&commit)?;
                context.ui.warn(format!("what `{}` saved is held: {error}", pod.name()));
            }
        }
        for commit in spool.held()? {
            copy(&spool, &local, &commit)?;
            local.hold(&commit)?;
        }
        if let (Some(link), Some(n)) = (link, last) {
            link.vault(&Request::Collected { n }, None).await?;
        }
        Ok(())
    }
}

fn copy(from: &Local<'_>, to: &Local<'_>, commit: &Commit) -> Result<()> {
    let generation = commit.body.generation;
    if to.has(Object::Generation, &generation) {
        return Ok(());
    }
    let (_, reader) = from.open(Object::Generation, &generation)?;
    let mut incoming = to.incoming(Object::Generation)?;
    // No more than the commit says, whatever the pod put there.
    io::copy(&mut reader.take(commit.body.size), &mut incoming).map_err(|source| {
        Error::new(Kind::Failure, "cannot take over what the pod saved").with_source(source)
    })?;
    incoming.finish(Some(&generation)).map(drop)
}

/// Takes over what a pod has saved, if it ever had a vault open; for commands after which the pod may be gone.
///
/// # Errors
/// As [`Vault::collect`].
pub async fn collect_from(context: &Context, pod: &PodDir) -> Result<()> {
    if !pod.spool().is_dir() {
        return Ok(());
    }
    let vault = Vault::open(context).await?;
    vault.collect(context, pod, None).await
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
