//! The user's state directory: keys and sockets of pods, locks. What exists and runs is the engine's to say.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::files;
use crate::env;
use crate::error::{Context as _, Error, Kind, Result};
use crate::pod::spec::{Transport, VAULT_SPOOL};

/// How long to wait for another tazpod that works on the same pod.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the spool is while the run directory is replaced.
const VAULT_SPOOL_KEPT: &str = "spool";

/// `$XDG_STATE_HOME/tazpod`, 0700.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The directory by `TAZPOD_STATE_DIR`, `XDG_STATE_HOME` or `HOME`.
    ///
    /// # Errors
    /// Where none of them is set.
    pub fn of_user() -> Result<StateDir> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set(env::TAZPOD_STATE_DIR)
            .or_else(|| set(env::XDG_STATE_HOME).map(|path| path.join("tazpod")))
            .or_else(|| set(env::HOME).map(|path| path.join(".local/state/tazpod")))
            .map(StateDir)
            .ok_or_else(|| {
                Error::new(Kind::Config, "no home directory is known")
                    .hint("set `HOME` or `TAZPOD_STATE_DIR`")
            })
    }

    /// The directory of one pod, which may not exist.
    pub fn pod(&self, name: &str) -> PodDir {
        PodDir { path: self.0.join("pods").join(name), name: name.to_owned() }
    }

    /// The directory of a vault's local copy, which may not exist.
    pub fn vault(&self, name: &str) -> PathBuf {
        self.0.join("vaults").join(name)
    }

    /// The file for the log of one piece of work, in a directory that then exists.
    ///
    /// # Errors
    /// Where the directory cannot be made.
    pub fn log(&self, name: &str) -> Result<PathBuf> {
        let directory = self.0.join("logs");
        private_directory(&directory)?;
        Ok(directory.join(format!("{name}.log")))
    }

    /// Every pod directory that has a link record.
    pub fn pods(&self) -> Vec<(PodDir, LinkRecord)> {
        let Ok(entries) = fs::read_dir(self.0.join("pods")) else { return Vec::new() };
        let mut pods: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .map(|name| self.pod(&name))
            .filter_map(|pod| pod.record().ok().map(|record| (pod, record)))
            .collect();
        pods.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        pods
    }

    /// Takes the lock of one pod, so that two `up`s at once become one after the other. `waiting` is called
    /// once if another holds it.
    ///
    /// # Errors
    /// After five minutes of waiting, or where the file cannot be made.
    pub async fn lock(&self, name: &str, waiting: impl FnOnce()) -> Result<File> {
        let directory = self.0.join("locks");
        private_directory(&directory)?;
        let path = directory.join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| Error::io("open the lock", &path, source))?;
        let started = Instant::now();
        let mut waiting = Some(waiting);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) if started.elapsed() < LOCK_TIMEOUT => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::new(Kind::Failure, format!("another tazpod is at work on `{name}`"))
                        .hint("wait for it, or end it, and try again"));
                }
                Err(fs::TryLockError::Error(source)) => return Err(Error::io("lock", &path, source)),
            }
        }
    }
}

fn private_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::io("make the directory", path, source))
}

/// How the client reaches a pod's agent. Kept with the keys, because it must be known before the engine is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The engine's address.
    pub engine: String,
    /// The workspace on the host.
    pub workspace: PathBuf,
    /// The vertical.
    pub vertical: String,
    /// The transport.
    pub transport: Transport,
    /// The agent's public host key, in OpenSSH's format.
    pub host_key: String,
    /// The agent's binary in the pod.
    pub agent: String,
}

/// One pod's directory in the state directory.
#[derive(Clone, Debug)]
pub struct PodDir {
    path: PathBuf,
    name: String,
}

impl PodDir {
    /// The pod's full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that is mounted at `/run/tazpod`.
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// Where the agent leaves saves of the vault.
    pub fn spool(&self) -> PathBuf {
        let kept = self.path.join(VAULT_SPOOL_KEPT);
        if kept.is_dir() { kept } else { self.run().join(VAULT_SPOOL) }
    }

    /// The name of the vault that was opened in the pod last, as a file.
    pub fn vault_name(&self) -> PathBuf {
        self.path.join("vault")
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.run().join("agent.sock")
    }

    /// What the agent reads, and removes, when it starts.
    pub fn boot(&self) -> PathBuf {
        self.run().join("boot.json")
    }

    /// The pod's seccomp profile, where it has one of its own and its engine reads a file.
    pub fn seccomp(&self) -> PathBuf {
        self.path.join("seccomp.json")
    }

    /// The client's private key, in OpenSSH's format, 0600.
    pub fn client_key(&self) -> PathBuf {
        self.path.join("id_ed25519")
    }

    /// The agent's private host key, in OpenSSH's format, 0600.
    pub fn host_key(&self) -> PathBuf {
        self.path.join("host_ed25519")
    }

    /// The pinned host key, as OpenSSH's `UserKnownHostsFile`.
    pub fn known_hosts(&self) -> PathBuf {
        self.path.join("known_hosts")
    }

    /// Makes the directory, 0700, and the one to be mounted, with permissions `run_mode`.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn create(&self, run_mode: u32) -> Result<()> {
        private_directory(&self.path)?;
        files::make_directory(&self.run(), run_mode)
    }

    /// Makes a symbolic link here, or leaves it, and gives its path.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn link(&self, name: &str, target: &Path) -> Result<PathBuf> {
        let path = self.path.join(name);
        match std::os::unix::fs::symlink(target, &path) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io("make the link", &path, source))
            }
            _ => Ok(path),
        }
    }

    /// Puts a fresh, empty directory in place of the one to be mounted.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn renew_run(&self, run_mode: u32) -> Result<()> {
        let (run, kept) = (self.run(), self.path.join(VAULT_SPOOL_KEPT));
        let old = self.path.join(format!("run.old.{}", std::process::id()));
        let moved = |from: &Path, to: &Path| match fs::rename(from, to) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("move away", from, source))
            }
            _ => Ok(()),
        };
        // Saves of the vault that wait to be collected. Whenever this ends, they are in one of the two places.
        moved(&run.join(VAULT_SPOOL), &kept)?;
        moved(&run, &old)?;
        files::make_directory(&run, run_mode)?;
        moved(&kept, &run.join(VAULT_SPOOL))?;
        // What the pod's user left there may not be ours to remove; it is in nobody's way.
        let _ = fs::remove_dir_all(&old);
        Ok(())
    }

    /// Reads the link record.
    ///
    /// # Errors
    /// Where there is none, or it is not one of ours.
    pub fn record(&self) -> Result<LinkRecord> {
        let path = self.record_path();
        let text = fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
        serde_json::from_slice(&text)
            .context(Kind::Config, || format!("`{}` is not a link record", path.display()))
    }

    /// Writes the link record.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn save_record(&self, record: &LinkRecord) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(record).context(Kind::Failure, || "cannot write a link record")?;
        files::write_atomically(&self.record_path(), &text, 0o600)
    }

    /// Removes the directory with its keys. What a program of the pod left in the mounted directory may belong to
    /// another id; it stays until it can be removed, and is in nobody's way.
    ///
    /// # Errors
    /// Where the record or a key cannot be removed.
    pub fn remove(&self) -> Result<()> {
        for path in [self.record_path(), self.client_key(), self.host_key(), self.known_hosts()] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path, source));
                }
                _ => {}
            }
        }
        let _ = fs::remove_dir_all(&self.path);
        Ok(())
    }

    fn record_path(&self) -> PathBuf {
        self.path.join("link.json")
    }
}
