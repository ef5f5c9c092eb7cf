//! Machines that share a store.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

/// The passphrase of the tests.
pub const PASSPHRASE: &str = "six words by chance are enough\n";
/// How long a dialogue may take: key derivation is slow in a debug build.
const PATIENCE: Duration = Duration::from_secs(60);

/// A user's machine, as far as the vault knows it.
pub struct Machine {
    directory: tempfile::TempDir,
    store: PathBuf,
}

/// What a command said.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Machine {
    /// Whose store is this directory.
    pub fn new(store: &Path) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let config = format!("[vault]\naddress = \"{}\"\n", store.display());
        fs::write(directory.path().join("config.toml"), config).unwrap();
        fs::create_dir(directory.path().join("bin")).unwrap();
        Machine { directory, store: store.to_owned() }
    }

    /// A path of this machine's.
    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path of this machine's, as a word of a command.
    pub fn word(&self, name: &str) -> String {
        self.at(name).to_string_lossy().into_owned()
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.word("bin"))),
            ("HOME", self.word("")),
            ("TAZPOD_STATE_DIR", self.word("state")),
            ("TAZPOD_CONFIG_DIR", self.word("")),
            ("TERM", "xterm".into()),
        ]
    }

    /// Runs a program in its directory, without a terminal.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> Done {
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(program).args(arguments).current_dir(&self.directory);
        command.env_clear().envs(self.variables());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end without having read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Done { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// `tazpod vault …`, with this input.
    pub fn vault_with(&self, arguments: &[&str], input: &str) -> Done {
        self.run(env!("CARGO_BIN_EXE_tazpod"), &[&["vault"][..], arguments].concat(), input)
    }

    /// `tazpod vault …`, with the passphrase.
    pub fn vault(&self, arguments: &[&str]) -> Done {
        self.vault_with(&[arguments, &["--passphrase-fd", "0"]].concat(), PASSPHRASE)
    }

    /// A new vault; its fingerprint.
    pub fn init(&self) -> String {
        let done = self.vault(&["init"]).success();
        done.stderr.lines().find_map(|line| line.strip_prefix("fingerprint: ")).unwrap().to_owned()
    }

    /// A field of the newest commit in the store.
    pub fn head(&self, field: &str) -> serde_json::Value {
        let mut names: Vec<_> =
            fs::read_dir(self.store.join("commits")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let text = fs::read_to_string(names.last().unwrap()).unwrap();
        let body: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        body[field].clone()
    }

    /// The keyring that the newest commit has for recipients.
    pub fn for_recipients(&self) -> PathBuf {
        let hash = self.head("recipients");
        self.store.join(format!("keys/{}-r.age", hash.as_str().unwrap()))
    }

    /// A key of OpenSSH's own making; the path of its public half.
    pub fn ssh_key(&self, name: &str, options: &[&str], passphrase: &str) -> String {
        let path = self.word(name);
        let made = [options, &["-q", "-C", "me@host", "-N", passphrase, "-f", path.as_str()]].concat();
        self.run("ssh-keygen", &made, "").success();
        format!("{path}.pub")
    }

    /// A program of this machine's.
    pub fn program(&self, name: &str, text: &str) {
        let path = self.at("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// `tazpod vault …` on a terminal: `answer` gets the screen's text, and gives what to type, until it has ended.
    pub fn dialogue(
        &self,
        arguments: &[&str],
        mut answer: impl FnMut(&str) -> Option<String>,
    ) -> (u32, String) {
        let size = PtySize { rows: 24, cols: 200, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_tazpod"));
        command.arg("vault");
        command.args(arguments);
        command.cwd(self.directory.path());
        command.env_clear();
        self.variables().into_iter().for_each(|(name, value)| command.env(name, value));
        let mut child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, shown) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&screen));
        let reading = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shown.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let mut writer = pair.master.take_writer().unwrap();
        let text = || String::from_utf8_lossy(&screen.lock().unwrap()).into_owned();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if let Some(typed) = answer(&text()) {
                writer.write_all(typed.as_bytes()).unwrap();
                writer.flush().unwrap();
            }
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("it waits: {}", text());
            }
            thread::sleep(Duration::from_millis(20));
        };
        drop((writer, pair.master));
        reading.join().unwrap();
        (status.exit_code(), text())
    }
}

impl Done {
    #[track_caller]
    pub fn success(self) -> Done {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    /// It failed, and said what to do.
    #[track_caller]
    pub fn failure(self, code: i32, says: &str) -> Done {
        assert!(self.stderr.contains("hint: "), "{}", self.stderr);
        self.failure_plain(code, says)
    }

    /// It failed, and there is nothing to be advised.
    #[track_caller]
    pub fn failure_plain(self, code: i32, says: &str) -> Done {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(says), "`{says}` is not in: {}", self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Types the next of these answers whenever its question has come once more.
pub fn answers<'a>(answers: &'a [(&'a str, &'a str)]) -> impl FnMut(&str) -> Option<String> + 'a {
    let mut given = 0;
    move |screen| {
        let (question, answer) = answers.get(given)?;
        let before = answers[..given].iter().filter(|(other, _)| other == question).count();
        (screen.matches(question).count() > before).then(|| {
            given += 1;
            format!("{answer}\n")
        })
    }
}
