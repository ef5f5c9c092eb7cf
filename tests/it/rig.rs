//! A caller on an engine of the rig: the binary as users run it, a workspace, a state directory.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

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
        // Of runs that have ended.
        for old in fs::read_dir(&directory).unwrap().flatten() {
            let process = old.file_name().to_string_lossy().replace("tazpod-", "/proc/");
            if !Path::new(&process).exists() {
                let _ = fs::remove_file(old.path());
            }
        }
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
        self.command(arguments).output().unwrap()
    }

    /// The engine's own client, yet to be run.
    pub fn command(self, arguments: &[&str]) -> Command {
        let address = self.address();
        let program: &[&str] = match self {
            Engine::Docker => &["docker", "--host", &address],
            Engine::Podman | Engine::Rootless => &["podman", "--remote", "--url", &address],
        };
        let mut command = Command::new("timeout");
        command.args(["-k", "2", "60"]).args(program).args(arguments);
        command
    }

    /// What the engine's own client prints; it must succeed.
    pub fn client_stdout(self, arguments: &[&str]) -> String {
        let output = self.client(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The names of all images, a line each.
    pub fn images(self) -> String {
        let mut images = String::new();
        // Podman fails to list images while another test removes one.
        wait_for(
            "the list of images",
            || (),
            || {
                let listed = self.client(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
                images = String::from_utf8_lossy(&listed.stdout).into_owned();
                listed.status.success()
            },
        );
        images
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
    /// Whether the caller is in the group of Docker's socket.
    pub in_group: bool,
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
    /// What a finished command did.
    pub fn of(output: &Output) -> Done {
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

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
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // At once, past the harness, which shows it when all tests have ended.
                let thread = std::thread::current();
                let _ = writeln!(std::io::stderr(), "{}: {panic}", thread.name().unwrap_or_default());
                hook(panic);
            }));
        });
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
        World { engine, caller, directory, workspace, state, in_group: true, environment: Vec::new() }
    }

    /// A world with its pod up.
    pub fn up(engine: Engine) -> World {
        let world = World::new(engine);
        world.run(&["up", "--detach"]).success();
        world
    }

    /// A command line as this caller, in the workspace, ended after two minutes.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "2", "120"]).args(self.as_caller()).arg(program).args(arguments);
        self.place(&mut command);
        command
    }

    /// The same with nothing in between, for signals: it is ours to end.
    pub fn bare_command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut words = self.as_caller();
        words.push(program.to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(arguments);
        self.place(&mut command);
        command
    }

    fn place(&self, command: &mut Command) {
        command.current_dir(&self.workspace).env_clear().envs(self.variables());
    }

    /// What runs a program as this caller.
    pub fn as_caller(&self) -> Vec<String> {
        if self.caller.uid == 0 {
            return Vec::new();
        }
        let (uid, gid) = (self.caller.uid.to_string(), self.caller.gid.to_string());
        let group = rig("TAZPOD_RIG_DOCKER_GROUP");
        let mut words = vec!["setpriv", "--reuid", &uid, "--regid", &gid];
        words.extend(if self.in_group { vec!["--groups", &group] } else { vec!["--clear-groups"] });
        words.into_iter().map(str::to_owned).collect()
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
        Done::of(&self.run_bytes(arguments, input))
    }

    /// Runs a line of bash as this caller, where `$tazpod` is the binary.
    pub fn bash(&self, line: &str) -> Done {
        let mut command = self.command("bash", &["-c", line]);
        Done::of(&command.env("tazpod", program()).output().unwrap())
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

    /// The names of this workspace's containers, as the engine has them.
    pub fn containers(&self) -> Vec<String> {
        let label = format!("label=io.tazpod.workspace={}", self.workspace.display());
        let names = self.engine.client_stdout(&["ps", "-a", "--filter", &label, "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }

    /// Sees that nothing is left: no container, no directory of a pod, no helper.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.containers(), [""; 0]);
        let pods = fs::read_dir(self.state.join("pods"));
        let pods: Vec<_> = pods.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(pods, Vec::<PathBuf>::new());
        // Those of other tests come and go with their processes.
        let words = ["ps", "-a", "--filter", "label=io.tazpod.helper", "--format", "{{.Labels}}"];
        let is_left = |rest: &str| {
            let process: String = rest.chars().skip(1).take_while(char::is_ascii_digit).collect();
            fs::metadata(format!("/proc/{process}/exe")).is_err()
        };
        self.wait_for("helper containers to go", || {
            !self.engine.client_stdout(&words).split("io.tazpod.helper").skip(1).any(is_left)
        });
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
            // A pod that is left would fail other tests; one that is gone may have left what only root can remove.
            let gone = done.code == 0 || done.stderr.contains("no pod in this workspace");
            assert!(gone || std::thread::panicking(), "down: {}", done.stderr);
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

/// The program, static.
pub fn busybox() -> Vec<u8> {
    fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox")).unwrap()
}

/// An image made of these files, owned by root; it goes at the end.
pub struct TestImage {
    engine: Engine,
    pub name: String,
}

impl TestImage {
    /// Gives the engine an image of one layer.
    pub fn load(engine: Engine, architecture: &str, files: &[(&str, &[u8])]) -> TestImage {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("localhost/tazpod-test-{}-{number}:latest", std::process::id());
        let layer = tar(files);
        let digest: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
        let config = serde_json::json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        let manifest =
            serde_json::json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in [
            ("manifest.json", manifest.to_string().as_bytes()),
            ("config.json", config.to_string().as_bytes()),
            ("layer.tar", &layer),
        ] {
            append(&mut archive, path, content);
        }
        file.write_all(&archive.into_inner().unwrap()).unwrap();
        engine.client_stdout(&["load", "-i", &file.path().to_string_lossy()]);
        TestImage { engine, name }
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        self.engine.client(&["rmi", &self.name]);
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        append(&mut archive, path, content);
    }
    archive.into_inner().unwrap()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(if path.starts_with("bin/") { 0o755 } else { 0o644 });
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}

/// A socket in front of an engine's, which everybody may use, and which can fail.
#[derive(Clone)]
pub struct Proxy {
    pub path: PathBuf,
    state: Arc<Mutex<ProxyState>>,
}

#[derive(Default)]
struct ProxyState {
    cut: bool,
    streams: Vec<UnixStream>,
    hook: Option<(String, Box<dyn FnOnce() + Send>)>,
    /// Pairs of the same length.
    rewrite: Vec<(String, String)>,
}

impl Proxy {
    /// Listens in the world's directory, which then uses it.
    pub fn before(world: &mut World) -> Proxy {
        let path = world.directory.join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let engine = world.engine.address().trim_start_matches("unix://").to_owned();
        let proxy = Proxy { path, state: Arc::default() };
        let serving = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                serving.serve(client.unwrap(), &engine);
            }
        });
        world.environment.push(("TAZPOD_ENGINE".into(), format!("unix://{}", proxy.path.display())));
        proxy
    }

    fn serve(&self, client: UnixStream, engine: &str) {
        let mut state = self.state.lock().unwrap();
        if state.cut {
            return;
        }
        let server = UnixStream::connect(engine).unwrap();
        let copy = |stream: &UnixStream| stream.try_clone().unwrap();
        state.streams.extend([copy(&client), copy(&server)]);
        let (proxy, from, to) = (self.clone(), copy(&client), copy(&server));
        std::thread::spawn(move || proxy.pass_requests(from, to));
        std::thread::spawn(move || {
            // Broken connections are what it is for.
            let _ = std::io::copy(&mut &server, &mut &client);
            let _ = client.shutdown(Shutdown::Write);
        });
    }

    fn pass_requests(&self, mut from: UnixStream, mut to: UnixStream) {
        let mut buffer = vec![0; 256 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut data = buffer[..count].to_vec();
            let find =
                |data: &[u8], text: &str| data.windows(text.len()).position(|part| part == text.as_bytes());
            let mut state = self.state.lock().unwrap();
            let due = state.hook.take_if(|(pattern, _)| find(&data, pattern).is_some());
            for (old, new) in &state.rewrite {
                while let Some(position) = find(&data, old) {
                    data[position..position + old.len()].copy_from_slice(new.as_bytes());
                }
            }
            drop(state);
            if let Some((_, hook)) = due {
                hook();
            }
            if to.write_all(&data).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Does this once, when a request with this text comes, before it is passed on.
    pub fn at(&self, pattern: &str, hook: impl FnOnce() + Send + 'static) {
        self.state.lock().unwrap().hook = Some((pattern.to_owned(), Box::new(hook)));
    }

    /// Replaces texts in requests by others of the same length, from now on these alone.
    pub fn rewrite(&self, pairs: &[(&str, &str)]) {
        assert!(pairs.iter().all(|(old, new)| old.len() == new.len()));
        self.state.lock().unwrap().rewrite =
            pairs.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect();
    }

    /// Ends every connection, and lets no other come.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut = true;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections come again.
    pub fn mend(&self) {
        self.state.lock().unwrap().cut = false;
    }
}

/// A Podman of its own, on a disk in memory.
pub struct SmallPodman {
    disk: tempfile::TempDir,
    service: Child,
}

impl SmallPodman {
    /// From now on the engine of `world`, with room for this many megabytes, and with this `registries.conf`.
    pub fn start(world: &mut World, size: usize, registries: &str) -> SmallPodman {
        // Its runroot may have 50 bytes.
        let disk = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}m"), "tmpfs"]).arg(disk.path());
        assert!(mount.status().unwrap().success());
        fs::write(disk.path().join("registries.conf"), registries).unwrap();
        let socket = disk.path().join("podman.sock");
        let address = format!("unix://{}", socket.display());
        let service = SmallPodman::command(disk.path())
            .args(["system", "service", "--time=0", &address])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the service", || (), || socket.exists());
        world.environment.push(("TAZPOD_ENGINE".into(), address));
        SmallPodman { disk, service }
    }

    fn command(disk: &Path) -> Command {
        let at = |name: &str| disk.join(name);
        let mut command = Command::new("podman");
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run")).arg("--tmpdir").arg(at("tmp"));
        command.env("CONTAINERS_CONF", format!("{}/etc/containers.conf", rig("TAZPOD_RIG_DIR")));
        command.env("TMPDIR", disk).env("CONTAINERS_REGISTRIES_CONF", at("registries.conf"));
        command
    }

    /// What its own client prints.
    pub fn client(&self, arguments: &[&str]) -> String {
        let output = SmallPodman::command(self.disk.path()).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for SmallPodman {
    fn drop(&mut self) {
        // Of a test that failed.
        self.client(&["rm", "--all", "--force", "--time=0"]);
        let _ = self.service.kill();
        let _ = self.service.wait();
        let _ = Command::new("umount").args(["-R", "-l"]).arg(self.disk.path()).status();
    }
}
