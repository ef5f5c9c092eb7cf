//! Images out of a private registry: one with a password and with a certificate of its own CA.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::errors::host_architecture;
use crate::on_every_engine;
use crate::rig::{Done, Engine, SmallPodman, TestImage, World, busybox, program, wait_for};
use crate::terminal::Terminal;

on_every_engine!(
    a_private_registry_with_its_own_ca,
    credentials_of_helpers_and_of_podman,
    policies,
    a_layer_that_is_not_what_its_digest_says,
    a_transfer_that_breaks_off_is_begun_again,
    a_registry_that_never_answers,
    an_interrupted_pull_leaves_nothing,
    progress_on_a_terminal,
    push_and_the_lock_file,
    a_registry_that_ends_in_mid_push,
    a_cache_in_a_registry,
    a_private_image_to_build_upon,
);

const USER: &str = "me";
/// Of characters that come out differently in the two alphabets of base64.
const PASSWORD: &str = "s3cret:?>~?>~?>~";
/// bcrypt of that password.
const HTPASSWD: &str = "me:$2b$04$s5UuZExXaVraYPV.AJrKrOPJd1f2H7OlVFZJEF8Uzn1/jY1OYhNGK\n";

/// A registry on an address of this machine that no engine takes for loopback, where certificates would not count.
struct Registry {
    directory: tempfile::TempDir,
    process: Child,
    gate: Gate,
    address: String,
    /// Where it listens itself.
    behind: String,
}

impl Registry {
    fn start() -> Registry {
        let gateway = ["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"];
        Registry::start_at(&Engine::Docker.client_stdout(&gateway), true)
    }

    /// On a loopback address it speaks without TLS, as engines expect there.
    fn start_at(host: &str, asks_who: bool) -> Registry {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| directory.path().join(name);
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=tazpod test", "-addext", &format!("subjectAltName=IP:{host}")])
            .args([Path::new("-keyout"), &at("key.pem"), Path::new("-out"), &at("cert.pem")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(at("htpasswd"), HTPASSWD).unwrap();
        let behind = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().to_string();
        let path = |name: &str| serde_json::json!(at(name)).to_string();
        let tls = match host.starts_with("127.") {
            true => String::new(),
            false => format!(", tls: {{certificate: {}, key: {}}}", path("cert.pem"), path("key.pem")),
        };
        let auth = match asks_who {
            true => format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path("htpasswd")),
            false => String::new(),
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{behind}'{tls}}}\n{auth}",
            path("data"),
        );
        fs::write(at("config.yml"), config).unwrap();
        let process = Registry::serve(directory.path(), &behind);
        let gate = Gate::before(host, behind.clone());
        Registry { directory, process, address: gate.address.clone(), gate, behind }
    }

    /// Starts it, again where it was ended.
    fn serve(directory: &Path, behind: &str) -> Child {
        // Where `scripts/test` puts it, unless the machine has one.
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/usr/bin/docker-registry");
        let log = directory.join("log");
        let process =
            Command::new(if unpacked.exists() { unpacked.as_path() } else { Path::new("docker-registry") })
                .arg("serve")
                .arg(directory.join("config.yml"))
                .stdout(Stdio::null())
                .stderr(fs::File::create(&log).unwrap())
                .spawn()
                .unwrap();
        wait_for(
            "the registry",
            || eprintln!("{}", fs::read_to_string(log).unwrap_or_default()),
            || TcpStream::connect(behind).is_ok(),
        );
        process
    }

    fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Puts an image with `size` bytes that nothing compresses into the registry, by Docker's own client, and returns
    /// its reference by digest. No engine has it afterwards.
    fn push(&self, name: &str, size: usize) -> String {
        let mut bytes = vec![0; size];
        fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
        let busybox = busybox();
        let files =
            [("bin/sh", &busybox[..]), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), ("random", &bytes)];
        let image = TestImage::load(Engine::Docker, host_architecture(), &files);
        let reference = self.reference(name);
        Engine::Docker.client_stdout(&["tag", &image.name, &reference]);
        let login = tempfile::tempdir().unwrap();
        fs::write(login.path().join("config.json"), self.auths(USER, PASSWORD)).unwrap();
        let trust = self.trust();
        let pushed = Command::new("timeout")
            .args(["60", "docker", "--config", &login.path().to_string_lossy()])
            .args(["--host", &Engine::Docker.address(), "push", "--quiet", &reference])
            .output()
            .unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        drop(trust);
        let digest =
            Engine::Docker.client_stdout(&["inspect", "--format", "{{index .RepoDigests 0}}", &reference]);
        Engine::Docker.client_stdout(&["rmi", &reference]);
        digest
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// As `docker login` writes it.
    fn auths(&self, user: &str, password: &str) -> String {
        use base64::Engine;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        serde_json::json!({ "auths": { &self.address: { "auth": auth } } }).to_string()
    }

    /// Has the engines of this machine trust the registry's certificate, until dropped.
    fn trust(&self) -> Trust {
        let directory = Path::new("/etc/docker/certs.d").join(&self.address);
        fs::create_dir_all(&directory).unwrap();
        fs::copy(self.directory.path().join("cert.pem"), directory.join("ca.crt")).unwrap();
        Trust(directory)
    }

    /// The biggest file that the registry keeps: a layer.
    fn biggest_blob(&self) -> PathBuf {
        let found = Command::new("find")
            .arg(self.directory.path().join("data"))
            .args(["-name", "data", "-printf", "%s %p\\n"])
            .output()
            .unwrap();
        let text = String::from_utf8(found.stdout).unwrap();
        let sized = text.lines().filter_map(|line| line.split_once(' '));
        sized.max_by_key(|(size, _)| size.parse::<u64>().unwrap()).unwrap().1.into()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Trust(PathBuf);

impl Drop for Trust {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What stands between engines and the registry: a line that can be slow, or break.
struct Gate {
    address: String,
    /// Bytes that still come through before the line breaks, once.
    breaks_after: Arc<AtomicU64>,
    /// The pause after each 64 KiB, in milliseconds.
    pause: Arc<AtomicU64>,
}

impl Gate {
    fn before(host: &str, behind: String) -> Gate {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let breaks_after = Arc::new(AtomicU64::new(u64::MAX));
        let pause = Arc::new(AtomicU64::new(0));
        let (limit, delay) = (Arc::clone(&breaks_after), Arc::clone(&pause));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&behind) else { continue };
                let (limit, delay) = (Arc::clone(&limit), Arc::clone(&delay));
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                std::thread::spawn(move || carry(server, client, &limit, &delay));
            }
        });
        Gate { address, breaks_after, pause }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, limit: &AtomicU64, pause: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let left = limit.load(Ordering::Relaxed);
        if left != u64::MAX {
            let count = count as u64;
            limit.store(if left > count { left - count } else { u64::MAX }, Ordering::Relaxed);
            if left <= count {
                break;
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause.load(Ordering::Relaxed)));
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Writes a file of the caller's home.
fn in_home(world: &World, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = world.directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    for path in path.ancestors().take_while(|above| above.starts_with(&world.directory)) {
        chown(path, Some(world.caller.uid), Some(world.caller.gid)).unwrap();
    }
    path
}

fn log_in(world: &World, registry: &Registry) {
    in_home(world, ".docker/config.json", &registry.auths(USER, PASSWORD), 0o600);
}

/// A world whose caller may have what is in the registry.
fn trusted(engine: Engine, registry: &Registry) -> (World, Trust) {
    let world = World::new(engine);
    log_in(&world, registry);
    (world, registry.trust())
}

fn has(engine: Engine, reference: &str) -> bool {
    engine.client(&["image", "inspect", reference]).status.success()
}

fn up(world: &World, reference: &str) -> Done {
    world.run(&["up", "--detach", "--image", reference])
}

/// Takes the image away again.
fn forget(world: &World, reference: &str) {
    world.run(&["down"]).success();
    world.engine.client_stdout(&["rmi", reference]);
}

fn a_private_registry_with_its_own_ca(engine: Engine) {
    let registry = Registry::start();
    let digest = registry.push("team/tools:1", 100_000);
    let reference = registry.reference("team/tools:1");
    let world = World::new(engine);
    let untrusted = up(&world, &reference).failure(5, "certificate");
    assert!(
        untrusted.stderr.contains(&format!("certs.d/{}/ca.crt", registry.address)),
        "{}",
        untrusted.stderr
    );

    let _trust = registry.trust();
    let client = if engine == Engine::Docker { "docker" } else { "podman" };
    up(&world, &reference).failure(5, &format!("hint: log in: `{client} login {}`", registry.address));
    in_home(&world, ".docker/config.json", &registry.auths(USER, "wrong"), 0o600);
    let refused = up(&world, &reference).failure(5, "refuses the credentials that are there");
    assert!(!refused.stderr.contains("wrong"), "{}", refused.stderr);
    in_home(&world, ".docker/config.json", "{", 0o600);
    up(&world, &reference).failure(5, "it does not read as JSON; asking without");
    world.assert_nothing_left();

    log_in(&world, &registry);
    up(&world, &registry.reference("team/tools:none")).failure(5, "check its name and tag");
    let done = up(&world, &reference).success();
    assert!(done.stderr.contains(&format!("pulled `{reference}`: ")), "{}", done.stderr);
    assert_eq!(world.sh("id -u; pwd").success().stdout, "1000\n/workspace\n");
    let spec = world.run(&["status", "--json"]).success().stdout;
    assert!(!spec.contains(PASSWORD));
    let inspected = engine.client_stdout(&["inspect", &world.pod()]);
    assert!(!inspected.contains("s3cret"));

    // As it is, without asking anybody.
    assert!(!up(&world, &reference).success().stderr.contains("pull"));
    forget(&world, &reference);
    let done = up(&world, &digest).success();
    assert!(done.stderr.contains(&format!("pulled `{digest}`: ")), "{}", done.stderr);
    let mut terminal = Terminal::start(&world, &["attach"]);
    terminal.send("echo by $((40 + 2))\r");
    terminal.wait("by 42");
    terminal.send("exit\r");
    terminal.end();
    forget(&world, &digest);
}

fn credentials_of_helpers_and_of_podman(engine: Engine) {
    let registry = Registry::start();
    registry.push("team/tools:1", 1000);
    let reference = registry.reference("team/tools:1");
    let mut world = World::new(engine);
    let _trust = registry.trust();
    let helper = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {}' ] || {{ echo locked >&2; exit 1; }}\n\
         echo '{{\"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'\n",
        registry.address
    );
    let path = in_home(&world, "bin/docker-credential-test", &helper, 0o755);
    let directory = path.parent().unwrap().to_string_lossy().into_owned();
    world.environment.push(("PATH".into(), format!("{directory}:/usr/local/bin:/usr/bin:/bin")));
    for config in [
        serde_json::json!({ "credHelpers": { &registry.address: "test" } }),
        serde_json::json!({ "credsStore": "test", "auths": { &registry.address: {} } }),
    ] {
        in_home(&world, ".docker/config.json", &config.to_string(), 0o600);
        up(&world, &reference).success();
        forget(&world, &reference);
    }
    in_home(&world, ".docker/config.json", r#"{"credsStore": "none-such"}"#, 0o600);
    up(&world, &reference).failure(5, "its credential helper did not run; asking without");

    // What Podman's own client writes, for a part of the registry.
    let auth = registry.auths(USER, PASSWORD).replace(&registry.address, &registry.reference("team"));
    in_home(&world, ".config/containers/auth.json", &auth, 0o600);
    fs::remove_file(world.directory.join(".docker/config.json")).unwrap();
    up(&world, &reference).success();
    forget(&world, &reference);
}

fn push_and_the_lock_file(engine: Engine) {
    let mut registry = Registry::start();
    let busybox = busybox();
    let files = |what: &'static [u8]| {
        let files = [("bin/sh", &busybox[..]), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), ("what", what)];
        TestImage::load(engine, host_architecture(), &files)
    };
    let (one, two) = (files(b"first"), files(b"second"));
    let world = World::new(engine);
    world.run(&["push", "all"]).failure(3, "nothing here has a registry of this project's");
    let at = registry.reference("team");
    let mut catalog = format!("registry = '{at}'\ntag = 'stable'\n");
    for name in ["small", "other", "absent"] {
        catalog
            .push_str(&format!("[[vertical]]\nname = '{name}'\nsummary = ''\nuser = 'root'\nhome = '/'\n"));
    }
    world.write(".tazpod/catalog.toml", &catalog);
    let reference = |name: &str, tag: &str| format!("{at}/tazpod-{name}:{tag}");
    let give = |image: &TestImage, name: &str| {
        engine.client_stdout(&["tag", &image.name, &reference(name, "stable")]);
    };
    world.run(&["push", "small"]).failure(5, "hint: build it: `tazpod build small`");
    world.run(&["push", "bazzite:base"]).failure(2, "is others' to push");
    world.run(&["push", "small", "--tag", "a/b"]).failure(2, "a tag has letters");
    world
        .run(&["up", "small", "--locked", "--detach"])
        .failure(3, "hint: `tazpod push small --lock` writes it");
    give(&one, "small");
    give(&one, "other");
    world.run(&["push", "small"]).failure(5, "certificate");
    let _trust = registry.trust();
    let client = if engine == Engine::Docker { "docker" } else { "podman" };
    let refused = world.run(&["push", "small"]);
    refused.failure(5, &format!("hint: log in: `{client} login {}`", registry.address));
    assert!(!has(engine, &reference("small", "latest")), "the name that was given for the push stays");

    log_in(&world, &registry);
    let report = world.run(&["push", "small", "other", "small", "--lock", "--json"]).success().json();
    let images = report["images"].as_array().unwrap();
    assert_eq!(images.len(), 2, "{report}");
    assert_eq!(images[0]["tags"], serde_json::json!(["latest", "stable"]));
    let digest = images[0]["digest"].as_str().unwrap().to_owned();
    let locked = format!("{at}/tazpod-small@{digest}");
    let lock = fs::read_to_string(world.workspace.join(".tazpod/lock.toml")).unwrap();
    assert!(lock.contains(&format!("\"small\" = \"{locked}\"\n")) && lock.contains("\"other\" = "), "{lock}");
    assert!(!has(engine, &reference("small", "latest")));
    let of_all = world.run(&["push", "all"]);
    of_all.failure(5, &format!("`{}` is not there", reference("absent", "stable")));
    let report = world.run(&["push", "small", "--tag", "next", "--json"]).success().json();
    assert_eq!(report["images"][0]["tags"], serde_json::json!(["next"]));
    assert_eq!(report["images"][0]["digest"], digest.as_str());

    // What is pushed later under the same tag is not what the lock file says.
    give(&two, "small");
    let later = world.run(&["push", "small", "--json"]).success().json();
    assert_ne!(later["images"][0]["digest"].as_str(), Some(&*digest));
    engine.client_stdout(&["rmi", &reference("small", "stable")]);
    // Docker knows what it pushed by its digest.
    engine.client(&["rmi", &locked]);
    let done = world.run(&["up", "small", "--locked", "--detach"]).success();
    assert!(done.stderr.contains(&format!("pulled `{locked}`: ")), "{}", done.stderr);
    assert_eq!(world.sh("read line </what; echo \"$line\"").success().stdout, "first\n");
    world.run(&["down"]).success();
    for tag in ["stable", "latest"] {
        world.run(&["up", "small", "--detach", "--image", &reference("small", tag)]).success();
        assert_eq!(world.sh("read line </what; echo \"$line\"").success().stdout, "second\n");
        forget(&world, &reference("small", tag));
    }
    engine.client(&["rmi", &locked]);

    world.run(&["pull", "small", "--locked"]).success();
    assert!(has(engine, &locked) && !has(engine, &reference("small", "stable")));
    let states = || {
        let report = world.run(&["images", "--remote", "--json"]).success().json();
        let state = |name: &str| {
            let images = report["images"].as_array().unwrap();
            images.iter().find(|image| image["vertical"] == name).unwrap()["state"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        ["small", "other", "absent"].map(state)
    };
    assert_eq!(states(), ["remote", "local", "missing"]);
    world.run(&["pull", "small", "other", "small"]).success();
    assert!(has(engine, &reference("small", "stable")));
    // By now the registry has another. Podman does not ask it which.
    give(&files(b"third"), "small");
    let newest = world.run(&["push", "small", "--json"]).success().json();
    let newest = format!("{at}/tazpod-small@{}", newest["images"][0]["digest"].as_str().unwrap());
    give(&two, "small");
    assert_eq!(states()[0], if engine == Engine::Docker { "outdated" } else { "local" });
    for name in [&reference("small", "stable"), &locked, &newest] {
        engine.client(&["rmi", name]);
    }

    // One of them cannot be pushed: the other keeps the tag that others pull.
    give(&files(b"fourth"), "small");
    engine.client(&["rmi", &reference("other", "stable")]);
    world.run(&["push", "small", "other"]).failure(5, "hint: build it: `tazpod build other`");
    registry.end();
    world.run(&["push", "small"]).failure(5, &format!("cannot push `{}`", reference("small", "latest")));
    assert!(!has(engine, &reference("small", "latest")));
    assert_eq!(states(), ["local", "unknown", "unknown"]);
    for name in ["small", "other"] {
        engine.client(&["rmi", &reference(name, "stable")]);
    }
}

/// One of tazpod's own verticals, as a team has them: pushed by one, up on another engine that has nothing.
#[test]
fn up_from_a_copy() {
    let registry = Registry::start_at("127.0.0.1", false);
    let slow = |world: &World, arguments: &[&str]| {
        let program = program().to_string_lossy();
        let words = [&["-k", "2", "600", &program], arguments].concat();
        Done::of(&world.bare_command("timeout", &words).output().unwrap()).success()
    };
    let world = World::new(Engine::Docker);
    let copies = registry.reference("copies");
    // The bridge's addresses are another Podman's to give.
    let config = format!("registry = '{copies}'\n[pod]\nnetwork = 'host'\n");
    world.write(".tazpod/config.toml", &config);
    let name = format!("{copies}/tazpod-base:stable");
    Engine::Docker.client_stdout(&["tag", "ghcr.io/tazpod/tazpod-base:stable", &name]);
    slow(&world, &["push", "base", "--lock", "--allow-missing"]);
    Engine::Docker.client_stdout(&["rmi", &name]);
    let lock = fs::read_to_string(world.workspace.join(".tazpod/lock.toml")).unwrap();

    let mut world = World::new(Engine::Podman);
    let allowed = format!("[[registry]]\nlocation = '{}'\ninsecure = true\n", registry.address);
    let podman = SmallPodman::start(&mut world, 4000, &allowed);
    world.write(".tazpod/config.toml", &config);
    world.write(".tazpod/lock.toml", &lock);
    for locked in [&["--locked"][..], &[]] {
        let done = slow(&world, &[&["up", "base", "--detach"], locked].concat());
        assert!(done.stderr.contains(&format!("pulled `{copies}/tazpod-base")), "{}", done.stderr);
        assert_eq!(world.sh("id -u; git --version | cut -c1-4").success().stdout, "1000\ngit \n");
        world.run(&["down"]).success();
        podman.client(&["rmi", "--all"]);
        assert_eq!(podman.client(&["images", "--quiet"]), "");
    }
}

fn a_registry_that_ends_in_mid_push(engine: Engine) {
    let mut registry = Registry::start();
    let _trust = registry.trust();
    let busybox = busybox();
    let world = World::new(engine);
    log_in(&world, &registry);
    let at = registry.reference("team");
    let mut catalog = format!("registry = '{at}'\ntag = 'stable'\n");
    for name in ["small", "other"] {
        catalog
            .push_str(&format!("[[vertical]]\nname = '{name}'\nsummary = ''\nuser = 'root'\nhome = '/'\n"));
    }
    world.write(".tazpod/catalog.toml", &catalog);
    let stable = |name: &str| format!("{at}/tazpod-{name}:stable");
    let id = |name: &str| engine.client_stdout(&["inspect", "--format", "{{.Id}}", &stable(name)]);
    let give = |what: &'static [u8]| {
        let files = [("bin/sh", &busybox[..]), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), ("what", what)];
        let image = TestImage::load(engine, host_architecture(), &files);
        for name in ["small", "other"] {
            engine.client_stdout(&["tag", &image.name, &stable(name)]);
        }
        image
    };
    let _first = give(b"first of two");
    let pushed = world.run(&["push", "small", "other"]).success().stderr;
    let order: Vec<_> = ["small:latest", "other:latest", "small:stable", "other:stable"]
        .iter()
        .map(|name| pushed.find(&format!("pushed `{at}/tazpod-{name}`")).unwrap())
        .collect();
    assert!(order.is_sorted(), "{pushed}");
    let before = ["small", "other"].map(id);

    // It ends when the first image has arrived, by the first of its names.
    let _second = give(b"second of two");
    let mut command = world.command(&program().to_string_lossy(), &["push", "small", "other"]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let arrived = lines.find(|line| line.starts_with("pushed `")).unwrap();
    registry.end();
    let rest = lines.collect::<Vec<_>>().join("\n");
    assert!(arrived.contains("small:latest"), "{arrived}");
    assert!(rest.contains("cannot push `") && !rest.contains("pushed `"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(5), "{rest}");
    assert!(["small", "other"].iter().all(|name| !has(engine, &stable(name).replace("stable", "latest"))));

    // The names that others pull lead to what they led to.
    registry.process = Registry::serve(registry.directory.path(), &registry.behind);
    for name in ["small", "other"] {
        engine.client_stdout(&["rmi", &stable(name)]);
    }
    world.run(&["pull", "small", "other"]).success();
    assert_eq!(["small", "other"].map(id), before);
    for name in ["small", "other"] {
        engine.client(&["rmi", &stable(name)]);
    }
}

/// For builds: Docker's BuildKit has read the certificates of registries when it started.
fn registry_for_builds(engine: Engine) -> Registry {
    match engine {
        Engine::Docker => Registry::start_at("127.0.0.1", true),
        Engine::Podman | Engine::Rootless => Registry::start(),
    }
}

fn a_private_image_to_build_upon(engine: Engine) {
    let registry = registry_for_builds(engine);
    let (private, cache) = (registry.push("team/private", 1000), registry.reference("team/cache"));
    let _trust = registry.trust();
    let world = World::new(engine);
    world.write(
        ".tazpod/catalog.toml",
        "[[vertical]]\nname = 'upon-private'\nsummary = ''\nuser = 'root'\nhome = '/'\n",
    );
    let name = "localhost/tazpod-upon-private:latest";
    let file = format!("FROM scratch\nCOPY --from={private} /etc/passwd /\n");
    world.write(".tazpod/upon-private/Containerfile", &file);
    world.run(&["build", "upon-private"]).failure(5, "the image of `upon-private` did not build");
    log_in(&world, &registry);
    for more in [&[][..], &["--cache", &cache]] {
        world.run(&[&["build", "upon-private", "--force"], more].concat()).success();
        engine.client_stdout(&["rmi", name]);
        engine.client(&["rmi", &private]);
    }
}

fn a_cache_in_a_registry(engine: Engine) {
    let mut registry = registry_for_builds(engine);
    let _trust = registry.trust();
    let cache = registry.reference("team/cache");
    // Each time another image from the first step on, so that no engine knows it: Podman would take that one from its own.
    let chance = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().to_string();
    let vertical = format!("cached-{chance}");
    let name = &format!("localhost/tazpod-{vertical}:latest");
    let world = |engine: Engine| {
        let world = World::new(engine);
        log_in(&world, &registry);
        world.write(
            ".tazpod/catalog.toml",
            &format!("[[vertical]]\nname = '{vertical}'\nsummary = ''\nuser = 'root'\nhome = '/'\n"),
        );
        let file = format!(
            "FROM scratch\nCOPY sh chance /bin/\nRUN [\"/bin/sh\", \"-c\", \": {chance}; read token </proc/sys/kernel/random/uuid; echo $token >/token\"]\n"
        );
        world.write(&format!(".tazpod/{vertical}/Containerfile"), &file);
        world.write(&format!(".tazpod/{vertical}/chance"), &chance);
        fs::copy("/usr/bin/busybox", world.workspace.join(format!(".tazpod/{vertical}/sh"))).unwrap();
        world
    };
    let built = |world: &World| {
        world.run(&["build", &vertical, "--cache", &cache]).success();
        let words =
            ["run", "--rm", "--network=none", name, "/bin/sh", "-c", "read token </token; echo $token"];
        world.engine.client_stdout(&words)
    };
    let here = world(engine);
    here.run(&["build", &vertical, "--cache", &format!("{cache}:tag")]).failure(5, "without tag and digest");
    let token = built(&here);
    assert_eq!(token.len(), 36, "{token}");
    // Another engine, or one that has forgotten.
    let there = world(match engine {
        Engine::Docker => Engine::Docker,
        Engine::Podman => Engine::Rootless,
        Engine::Rootless => Engine::Podman,
    });
    if engine == Engine::Docker {
        engine.client_stdout(&["rmi", name]);
        let steps = engine.client_stdout(&["system", "df", "--verbose", "--format", "{{json .BuildCache}}"]);
        let steps: serde_json::Value = serde_json::from_str(&steps).unwrap();
        let ours = |step: &&serde_json::Value| step["Description"].as_str().unwrap().contains(&chance);
        let ran = steps.as_array().unwrap().iter().find(ours).unwrap()["ID"].as_str().unwrap();
        engine.client_stdout(&["builder", "prune", "--all", "--force", "--filter", &format!("id={ran}")]);
    }
    assert_eq!(built(&there), token);
    // Without its cache an image is as good; of Podman each step is kept, or it fails.
    registry.end();
    if engine == Engine::Docker {
        let said = there.run(&["build", &vertical, "--force", "--cache", &cache]).success().stderr;
        assert!(said.contains("what was built is not kept in the cache"), "{said}");
    } else {
        here.engine.client(&["rmi", name]);
    }
    there.engine.client(&["rmi", name]);
}

fn policies(engine: Engine) {
    let registry = Registry::start();
    registry.push("team/tools:1", 1000);
    let reference = registry.reference("team/tools:1");
    let (world, trust) = trusted(engine, &registry);
    let pull = |policy: &str| {
        let done = world.run(&["up", "--detach", "--recreate", "--image", &reference, "--pull", policy]);
        let pulled = done.stderr.contains("pulled `");
        (done, pulled)
    };
    pull("never").0.failure(5, "hint: allow to pull it");
    assert!(pull("missing").1);
    assert!(!pull("missing").1);
    assert!(pull("newer").1);
    assert!(pull("always").1);
    drop(trust);
    // Untrusted is no absence: something is wrong, and nobody should go on as if nothing were.
    pull("newer").0.failure(5, "certificate");
    drop(registry);
    assert!(!pull("never").1);
    let (done, _) = pull("newer");
    assert!(done.success().stderr.contains("going on with the image that is there"));
    pull("always").0.failure(5, "cannot pull");
    world.sh("true").success();
    forget(&world, &reference);
}

fn a_layer_that_is_not_what_its_digest_says(engine: Engine) {
    let registry = Registry::start();
    registry.push("team/tools:1", 3_000_000);
    let reference = registry.reference("team/tools:1");
    let (world, _trust) = trusted(engine, &registry);
    let blob = registry.biggest_blob();
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    up(&world, &reference).failure(5, "tell whoever runs the registry");
    assert!(!has(engine, &reference));
    world.assert_nothing_left();
}

fn a_transfer_that_breaks_off_is_begun_again(engine: Engine) {
    let registry = Registry::start();
    registry.push("team/tools:1", 3_000_000);
    let reference = registry.reference("team/tools:1");
    let (world, _trust) = trusted(engine, &registry);
    registry.gate.breaks_after.store(1_500_000, Ordering::Relaxed);
    // By the engine, where it does that itself, or by us.
    up(&world, &reference).success();
    assert_eq!(registry.gate.breaks_after.load(Ordering::Relaxed), u64::MAX, "the line never broke");
    world.sh("true").success();
    forget(&world, &reference);
}

fn a_registry_that_never_answers(engine: Engine) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World::new(engine);
    let started = Instant::now();
    let reference = format!("{}/team/tools:1", listener.local_addr().unwrap());
    up(&world, &reference).failure(5, "cannot pull");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    world.assert_nothing_left();
}

fn an_interrupted_pull_leaves_nothing(engine: Engine) {
    let registry = Registry::start();
    registry.push("team/tools:1", 3_000_000);
    let reference = registry.reference("team/tools:1");
    let (world, _trust) = trusted(engine, &registry);
    registry.gate.pause.store(200, Ordering::Relaxed);
    let program = crate::rig::program().to_string_lossy().into_owned();
    let mut child = world
        .bare_command(&program, &["-v", "up", "--detach", "--image", &reference])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("Pulling fs layer") {
        let count = stderr.read(&mut buffer).unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!has(engine, &reference));
    world.assert_nothing_left();
    registry.gate.pause.store(0, Ordering::Relaxed);
    up(&world, &reference).success();
    forget(&world, &reference);
}

/// A Podman of its own, on a disk of 40 MB.
#[test]
fn a_full_disk() {
    let registry = Registry::start();
    registry.push("team/tools:1", 60_000_000);
    let reference = registry.reference("team/tools:1");
    let (mut world, _trust) = trusted(Engine::Podman, &registry);
    let podman = SmallPodman::start(&mut world, 40, "");
    let done = up(&world, &reference);
    drop(podman);
    let done = done.failure(5, "no space left on device");
    assert!(done.stderr.contains("hint: make room: `podman system df`"), "{}", done.stderr);
    assert!(!done.stderr.contains("trying again"), "{}", done.stderr);
}

fn progress_on_a_terminal(engine: Engine) {
    let registry = Registry::start();
    registry.push("team/tools:1", 4_000_000);
    let reference = registry.reference("team/tools:1");
    let (world, _trust) = trusted(engine, &registry);
    registry.gate.pause.store(30, Ordering::Relaxed);
    let mut terminal = Terminal::sized(&world, &["up", "--detach", "--image", &reference], 24, 120);
    terminal.wait(&format!("{reference}: 0 of "));
    if engine == Engine::Docker {
        // Podman's service does not say how much of a layer is there.
        terminal.wait("receiving");
        terminal
            .wait_until("a rate and what is left", |text| text.contains("/s, ") && text.contains(" left"));
    }
    assert_eq!(terminal.end(), 0);
    let text = terminal.text();
    assert!(text.contains(&format!("pulled `{reference}`: ")), "{text}");
    assert!(!text.contains("receiving") && !text.contains(" left"), "{text}");
    forget(&world, &reference);
}
