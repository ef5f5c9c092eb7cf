//! A user's machine: what it has of a vault, and the binary on it.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use age::secrecy::SecretString;
use rustix::process::{Pid, Signal, kill_process};
use tazpod::adapters::store::{S3Config, StoreConfig};
use tazpod::vault::commit::{Commit, Draft, Reason};
use tazpod::vault::disk::RealDisk;
use tazpod::vault::id::{Hash, VaultId};
use tazpod::vault::key::Keyring;
use tazpod::vault::local::{Local, Object};
use tazpod::vault::store::Store;
use tazpod::vault::sync::{self, Pulled, Pushed, Stopped, Verified};

use crate::{block_on, servers};

/// Of the vault that all machines here have, unless they make one.
pub const PASSPHRASE: &str = "six words by chance are enough\n";

/// The vault's keyring, and it wrapped by the passphrase.
pub fn keyring() -> &'static (Keyring, Vec<u8>) {
    static KEYRING: OnceLock<(Keyring, Vec<u8>)> = OnceLock::new();
    KEYRING.get_or_init(|| {
        let keyring = Keyring::generate(VaultId([7; 16])).unwrap();
        let wrapped = keyring.wrap(&SecretString::from(PASSPHRASE.trim())).unwrap();
        (keyring, wrapped)
    })
}

pub struct Machine {
    pub name: String,
    directory: tempfile::TempDir,
}

/// What a run of the binary gave.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    fn of(output: Output) -> Done {
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn success(self) -> Done {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn failure(self, code: i32, says: &str) -> Done {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(says), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}\n{}", self.stdout, self.stderr))
    }
}

impl Machine {
    pub fn new(name: &str) -> Machine {
        Machine { name: name.to_owned(), directory: tempfile::tempdir().unwrap() }
    }

    pub fn local(&self) -> Local<'static> {
        Local::new(&RealDisk::PRIVATE, self.vault())
    }

    /// Where that is.
    pub fn vault(&self) -> PathBuf {
        self.directory.path().join("state/vaults/main")
    }

    /// Keeps an object, unless it is here.
    fn keep(&self, object: Object, bytes: &[u8]) -> (Hash, u64) {
        let (local, hash) = (self.local(), Hash::of(bytes));
        if !local.has(object, &hash) {
            let mut incoming = local.incoming(object).unwrap();
            incoming.write_all(bytes).unwrap();
            incoming.finish(Some(&hash)).unwrap();
        }
        (hash, bytes.len() as u64)
    }

    /// Saves this as the vault's content: a commit in the outbox.
    pub fn save(&self, content: &[u8]) -> Commit {
        let (keyring, wrapped) = keyring();
        let kind = if self.local().load().unwrap().base.is_some() { Reason::Save } else { Reason::Init };
        self.commit(content, kind, keyring, wrapped, None)
    }

    /// Gives the vault another identity.
    pub fn rekey(&self, content: &[u8], fresh: &Keyring) -> Commit {
        self.commit(content, Reason::Rekey, fresh, b"wrapped by another passphrase", Some(&keyring().0))
    }

    /// Saves after that.
    pub fn save_by(&self, content: &[u8], fresh: &Keyring) -> Commit {
        self.commit(content, Reason::Save, fresh, b"wrapped by another passphrase", None)
    }

    fn commit(
        &self,
        content: &[u8],
        kind: Reason,
        keyring: &Keyring,
        wrapped: &[u8],
        retiring: Option<&Keyring>,
    ) -> Commit {
        let mut sealing = keyring.current().recipient().seal(Vec::new()).unwrap();
        sealing.write_all(content).unwrap();
        let (generation, size) = self.keep(Object::Generation, &sealing.finish().unwrap());
        let (keys, _) = self.keep(Object::Keys, wrapped);
        let draft = Draft {
            generation,
            size,
            keys,
            recipients: None,
            kind,
            second_parent: None,
            host: self.name.clone(),
            time: "2026-01-01T00:00:00Z".into(),
        };
        let (local, vault) = (self.local(), keyring.vault());
        let signer = |keyring: &Keyring| keyring.current().signer(&vault).unwrap();
        let retiring = retiring.map(signer);
        let base = local.load().unwrap().base;
        let commit = Commit::write(vault, base.as_ref(), draft, &signer(keyring), retiring.as_ref()).unwrap();
        local.enqueue(&commit).unwrap();
        commit
    }

    /// What is current here.
    pub fn content(&self) -> Vec<u8> {
        let (local, state) = (self.local(), self.local().load().unwrap());
        let head = match state.outbox.last() {
            Some(outgoing) => outgoing.commit.clone(),
            None => local.commit(state.seen.unwrap().n).unwrap().unwrap(),
        };
        let (_, sealed) = local.open(Object::Generation, &head.body.generation).unwrap();
        let mut content = Vec::new();
        keyring().0.open(sealed).unwrap().read_to_end(&mut content).unwrap();
        content
    }

    pub fn push(&self, store: &dyn Store) -> Result<Pushed, Stopped> {
        block_on(sync::push(&self.local(), store))
    }

    pub fn pull(&self, store: &dyn Store) -> Result<Option<Pulled>, Stopped> {
        block_on(sync::pull(&self.local(), store, None))
    }

    /// All of the store, which must be as it should.
    #[track_caller]
    pub fn verify(&self, store: &dyn Store) -> Verified {
        let verified = block_on(sync::verify(&self.local(), store, true)).unwrap();
        assert_eq!(verified.problems, [""; 0]);
        verified
    }

    /// Writes the configuration: this store, and more lines of `[vault]`.
    pub fn configure(&self, config: &StoreConfig, more: &str) {
        let endpoint = match config {
            StoreConfig::S3(S3Config { endpoint: Some(endpoint), .. }) => {
                format!("endpoint = \"{endpoint}\"\n")
            }
            _ => String::new(),
        };
        let directory = self.directory.path().join("config");
        fs::create_dir_all(&directory).unwrap();
        let text = format!("[vault]\naddress = \"{config}\"\n{endpoint}{more}\n");
        fs::write(directory.join("config.toml"), text).unwrap();
    }

    /// Takes another machine's configuration.
    pub fn configure_as(&self, other: &Machine) {
        let path = |machine: &Machine| machine.directory.path().join("config/config.toml");
        fs::create_dir_all(path(self).parent().unwrap()).unwrap();
        fs::copy(path(other), path(self)).unwrap();
    }

    /// A file of the vault's local copy.
    pub fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.path().join("state/vaults/main").join(name)).ok()
    }

    /// What AWS's tools have on it: the files `config` and `credentials`.
    pub fn aws(&self, config: &str, credentials: &str) {
        let directory = self.directory.path().join(".aws");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config"), config).unwrap();
        fs::write(directory.join("credentials"), credentials).unwrap();
    }

    /// Runs `tazpod vault …`, with the passphrase at its standard input.
    pub fn run(&self, arguments: &[&str]) -> Done {
        let keys = servers::keys();
        self.run_with(arguments, &[("AWS_ACCESS_KEY_ID", &keys.id), ("AWS_SECRET_ACCESS_KEY", &keys.secret)])
    }

    /// The same with these variables, and no keys but theirs.
    pub fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut child = self.command(arguments, variables).spawn().unwrap();
        // A program that does not read it is a case, not a failure.
        let _ = child.stdin.take().unwrap().write_all(PASSPHRASE.as_bytes());
        Done::of(child.wait_with_output().unwrap())
    }

    /// Runs it until `is_there` is so, interrupts it as Ctrl-C does, and waits for it to end, which may not take long.
    #[track_caller]
    pub fn interrupt(&self, arguments: &[&str], is_there: impl Fn() -> bool) -> Done {
        let keys = servers::keys();
        let variables = [("AWS_ACCESS_KEY_ID", &*keys.id), ("AWS_SECRET_ACCESS_KEY", &*keys.secret)];
        let child = self.command(arguments, &variables).spawn().unwrap();
        let started = Instant::now();
        while !is_there() {
            assert!(started.elapsed() < Duration::from_secs(60), "{arguments:?} does not come so far");
            thread::sleep(Duration::from_millis(10));
        }
        // That of `timeout`, which passes it on, and does not wait for long.
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        Done::of(child.wait_with_output().unwrap())
    }

    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", "120"])
            .arg(Path::new(env!("CARGO_BIN_EXE_tazpod")))
            .arg("vault")
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("TAZPOD_STATE_DIR", at("state"))
            .env("TAZPOD_CONFIG_DIR", at("config"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}
