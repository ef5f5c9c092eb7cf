//! A caller on an engine of the rig: the binary as users run it, a workspace, a state directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The three engines of `scripts/rig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Docker,
    Podman,
    Rootless,
}

/// Makes a test of each named function on each engine.
#[macro_export]
macro_rules! on_every_engine {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        mod docker { $( #[test] $(#[$meta])* fn $name() { super::$name($crate::rig::Engine::Docker) } )* }
        mod podman { $( #[test] $(#[$meta])* fn $name() { super::$name($crate::rig::Engine::Podman) } )* }
        mod rootless { $( #[test] $(#[$meta])* fn $name() { super::$name($crate::rig::Engine::Rootless) } )* }
    };
}

/// A line of `target/rig/env`. Without a rig a test fails: it does not pass for want of an engine.
pub fn rig(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rig/env");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}: start the engines with `scripts/rig up`", path.display())
    });
    let prefix = format!("{name}=");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in {}", path.display())).trim_matches(['\'', '"']).to_owned()
}

/// The rig's numbers.
pub fn rig_number(name: &str) -> u32 {
    rig(name).parse().unwrap()
}

/// The binary under test, where every caller can run it.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let directory = PathBuf::from(rig("TAZPOD_RIG_DIR")).join("test-bin");
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.join(format!("tazpod-{}", std::process::id()));
        fs::copy(env!("CARGO_BIN_EXE_tazpod"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    })
}

impl Engine {
    /// The engine's address.
    pub fn address(self) -> String {
        rig(match self {
            Engine::Docker => "TAZPOD_RIG_DOCKER",
            Engine::Podman => "TAZPOD_RIG_PODMAN",
            Engine::Rootless => "TAZPOD_RIG_ROOTLESS",
        })
    }

    /// The engine's own client, to look from outside.
    pub fn client(self, arguments: &[&str]) -> Output {
        let address = self.address();
        let program: &[&str] = match self {
            Engine::Docker => &["docker", "--host", &address],
            Engine::Podman | Engine::Rootless => &["podman", "--remote", "--url", &address],
        };
        Command::new("timeout").args(["-k", "2", "60"]).args(program).args(arguments).output().unwrap()
    }

    /// What the engine's own client prints; it must succeed.
    pub fn client_stdout(self, arguments: &[&str]) -> String {
        let output = self.client(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The caller that this engine is for: root, or the rig's ordinary user.
    pub fn caller(self) -> Caller {
        match self {
            Engine::Docker | Engine::Podman => Caller { uid: 0, gid: 0 },
            Engine::Rootless => {
                Caller { uid: rig_number("TAZPOD_RIG_UID"), gid: rig_number("TAZPOD_RIG_GID") }
            }
        }
    }
}

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

/// One caller's world; what it made is removed at the end.
pub struct World {
    pub engine: Engine,
    pub caller: Caller,
    pub directory: PathBuf,
    pub workspace: PathBuf,
    pub state: PathBuf,
    /// More environment.
    pub environment: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Done {
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Done {
    /// The same, if it succeeded.
    #[track_caller]
    pub fn success(self) -> Done {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The same, if it failed with this code and said this on stderr.
    #[track_caller]
    pub fn failure(self, code: i32, says: &str) -> Done {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(self.stderr.contains(says), "`{says}` is not in: {}", self.stderr);
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl World {
    /// A world of the engine's usual caller.
    pub fn new(engine: Engine) -> World {
        World::of(engine, engine.caller(), "workspace")
    }

    /// A world of this caller, its workspace of this name.
    pub fn of(engine: Engine, caller: Caller, workspace: &str) -> World {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = PathBuf::from(rig("TAZPOD_RIG_DIR")).join("test-worlds");
        fs::create_dir_all(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let directory = root.join(format!("{}-{number}", std::process::id()));
        let (workspace, state) = (directory.join(workspace), directory.join("state"));
        for path in [&directory, &workspace, &state] {
            fs::create_dir_all(path).unwrap();
            chown(path, Some(caller.uid), Some(caller.gid)).unwrap();
        }
        World { engine, caller, directory, workspace, state, environment: Vec::new() }
    }

    /// A world with its pod up.
    pub fn up(engine: Engine) -> World {
        let world = World::new(engine);
        world.run(&["up", "--detach"]).success();
        world
    }

    /// A command line as this caller, in the workspace, ended after a minute.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "2", "120"]);
        for word in self.as_caller() {
            command.arg(word);
        }
        command.arg(program).args(arguments).current_dir(&self.workspace).env_clear();
        for (name, value) in self.variables() {
            command.env(name, value);
        }
        command
    }

    /// What runs a program as this caller.
    pub fn as_caller(&self) -> Vec<String> {
        if self.caller.uid == 0 {
            return Vec::new();
        }
        let words = [
            "setpriv".to_owned(),
            "--reuid".into(),
            self.caller.uid.to_string(),
            "--regid".into(),
            self.caller.gid.to_string(),
            "--groups".into(),
            rig("TAZPOD_RIG_DOCKER_GROUP"),
        ];
        words.to_vec()
    }

    /// The whole environment of this caller's programs.
    pub fn variables(&self) -> Vec<(String, String)> {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut variables = vec![
            set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            set("HOME", &self.directory.to_string_lossy()),
            set("TAZPOD_STATE_DIR", &self.state.to_string_lossy()),
            set("TAZPOD_CONFIG_DIR", &self.directory.join("config").to_string_lossy()),
            set("TAZPOD_ENGINE", &self.engine.address()),
            set("TERM", "xterm-256color"),
        ];
        variables.extend(self.environment.iter().cloned());
        variables
    }

    /// Runs tazpod with these arguments to its end, stdin closed.
    pub fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, b"")
    }

    /// Runs tazpod with these arguments and this input to its end.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Done {
        self.run_bytes(arguments, input).into()
    }

    /// The same, with its output as bytes.
    pub fn run_bytes(&self, arguments: &[&str], input: &[u8]) -> Output {
        complete(&mut self.command(&program().to_string_lossy(), arguments), input)
    }

    /// Runs a shell line in the pod.
    pub fn sh(&self, line: &str) -> Done {
        self.run(&["exec", "--", "sh", "-c", line])
    }

    /// The full name of this workspace's pod.
    pub fn pod(&self) -> String {
        let status = self.run(&["status", "--json"]).success().json();
        status["name"].as_str().unwrap().to_owned()
    }

    /// Waits for something to become true.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut check: impl FnMut() -> bool) {
        wait_for(what, || (), &mut check);
    }

    /// Writes a file into the workspace, the caller's own.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.workspace.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        for path in path.ancestors().take_while(|above| above.starts_with(&self.workspace)) {
            chown(path, Some(self.caller.uid), Some(self.caller.gid)).unwrap();
        }
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // By record, for a test may have left pods of other verticals.
        if fs::read_dir(self.state.join("pods")).is_ok_and(|pods| pods.count() > 0) {
            let done = self.run(&["down", "--all", "-C", &self.workspace.to_string_lossy()]);
            if done.code != 0 && !std::thread::panicking() {
                eprintln!("down: {}", done.stderr);
            }
        }
        // Files of the pod's user may be left where a test failed.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Runs a command with this input to its end.
pub fn complete(command: &mut Command, input: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that does not read all its input is a case, not a failure.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Waits up to 20 s for something to become true, else says what it was and dumps what is there.
#[track_caller]
pub fn wait_for(what: &str, dump: impl FnOnce(), mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        if started.elapsed() > Duration::from_secs(20) {
            dump();
            panic!("waited 20 s for: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
