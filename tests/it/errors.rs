//! What goes wrong is said clearly, with a code to go by, and leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use rustix::process::{Pid, Signal, kill_process};

use crate::lifecycle::foreign_image;
use crate::on_every_engine;
use crate::rig::{Caller, Done, Engine, Proxy, TestImage, World, program};
use crate::terminal::Terminal;

on_every_engine!(
    without_a_pod,
    odd_names_of_workspaces,
    an_image_without_a_shell,
    an_image_of_another_architecture,
    an_image_that_is_not_there,
    a_pod_of_another_build,
    a_pod_of_another_version,
    containers_of_others,
    a_name_taken_meanwhile,
    signals_at_any_moment,
    signals_at_each_request,
    an_engine_that_dies,
    exec_does_without_the_engine,
    lost_state,
);

/// Not on rootless Podman, where fuse-overlayfs takes a minute for each layer over a gigabyte; the builder is the same.
mod builds {
    use super::Engine;

    #[test]
    fn docker_fails() {
        super::a_build_that_fails(Engine::Docker);
    }

    #[test]
    fn podman_fails() {
        super::a_build_that_fails(Engine::Podman);
    }

    #[test]
    fn docker_is_interrupted() {
        super::an_interrupted_build_leaves_nothing(Engine::Docker);
    }

    #[test]
    fn podman_is_interrupted() {
        super::an_interrupted_build_leaves_nothing(Engine::Podman);
    }
}

/// A world whose engine is not there: what needs none must not ask for it.
fn without_engine() -> World {
    let mut world = World::new(Engine::Docker);
    world.environment.push(("TAZPOD_ENGINE".into(), "unix:///nowhere/engine.sock".into()));
    world
}

/// A world of an ordinary user, without an address of an engine.
fn ordinary() -> World {
    let mut world = World::new(Engine::Rootless);
    world.environment.push(("TAZPOD_ENGINE".into(), String::new()));
    world
}

#[test]
fn no_engine() {
    let mut world = ordinary();
    world.environment.push(("XDG_RUNTIME_DIR".into(), world.directory.display().to_string()));
    let done = world.run(&["--engine", "podman", "up"]).failure(4, "no engine found on this machine");
    let socket = world.directory.join("podman/podman.sock");
    assert!(done.stderr.contains(&format!("looked at `{}`", socket.display())), "{}", done.stderr);
    assert!(done.stderr.contains("`--engine`"), "{}", done.stderr);

    let address = |path: &std::path::Path| format!("unix://{}", path.display());
    let missing = world.directory.join("missing.sock");
    let dead = world.directory.join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    fs::set_permissions(&dead, fs::Permissions::from_mode(0o777)).unwrap();
    let file = world.write("file", "");
    for path in [missing, dead, file] {
        let engine = address(&path);
        for command in ["up", "ls"] {
            let done = world.run(&["--engine", &engine, command]);
            let done = done.failure(4, &format!("cannot reach the engine at `{engine}`"));
            assert!(done.stderr.contains("hint: is it running?"), "{}", done.stderr);
        }
    }
    assert!(!world.state.join("pods").exists());
}

#[test]
fn what_answers_is_no_engine() {
    let world = ordinary();
    let path = world.directory.join("other.sock");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            // Clients that leave early are a case, too.
            let _ = std::io::Write::write_all(&mut client.unwrap(), b"220 mail.example.com ESMTP\r\n");
        }
    });
    let address = format!("unix://{}", path.display());
    world.run(&["--engine", &address, "up"]).failure(4, &address);
    world.run(&["--engine", &address, "ls"]).failure(4, &address);
}

#[test]
fn no_permission() {
    let mut world = World::of(Engine::Docker, Caller { uid: 4321, gid: 4321 }, "workspace");
    world.in_group = false;
    for engine in [Engine::Docker, Engine::Podman, Engine::Rootless] {
        world.environment.push(("TAZPOD_ENGINE".into(), engine.address()));
        for command in [&["up"][..], &["ls"]] {
            let says = format!("no permission to use the engine at `{}`", engine.address());
            let done = world.run(command).failure(4, &says);
            assert!(done.stderr.contains("hint: join the group"), "{}", done.stderr);
        }
    }
    assert!(!world.state.join("pods").exists());
}

#[test]
fn usage() {
    let world = without_engine();
    world.run(&[]).failure(2, "Usage: tazpod");
    world.run(&["upp"]).failure(2, "'up'");
    world.run(&["up", "--detatch"]).failure(2, "'--detach'");
    world.run(&["exec", "ls"]).failure(2, "COMMAND");
    world
        .run(&["up", "jupiter"])
        .failure(2, "no vertical is called `jupiter`\nhint: did you mean `jupyter`?");
    world.run(&["up", "kubernetes"]).failure(2, "hint: there are base, ");
    world.run(&["init", "bse"]).failure(2, "did you mean `base`?");
    world.run(&["up", "--ownership", "mine"]).failure(2, "host-ids");
    world.run(&["down", "--all", "base"]).failure(2, "cannot be used with");
    for nonsense in ["nonsense", "ftp://host", "dockr"] {
        let done =
            world.run(&["--engine", nonsense, "up"]).failure(2, &format!("`{nonsense}` is not the address"));
        assert!(done.stderr.contains("`unix:///PATH`"), "{}", done.stderr);
    }
}

#[test]
fn configuration() {
    let world = without_engine();
    let path = world.workspace.join(".tazpod/config.toml");
    let cases = [
        (
            "vertical = 'base'\nverticl = 'k8s'\n",
            ":2`: unknown key `verticl`\nhint: did you mean `vertical`?",
        ),
        ("[pod]\n\nmemroy = '2g'\n", ":3`: unknown key `pod.memroy`\nhint: did you mean `pod.memory`?"),
        ("[pood]\nimage = 'x'\n", ":1`: unknown key `pood`\nhint: did you mean `pod`?"),
        ("something_else_entirely = 1\n", "hint: known keys: vertical, "),
        ("vertical = 'base'\n[pod\n", ":2`: "),
        ("vertical = \n", ":1`: "),
        ("\n\nvertical = 3\n", ":3`: "),
        ("[pod]\nownership = 'mine'\n", ":2`: "),
        ("[pod]\nmemory = 'lots'\n", ":2`: `lots` is not an amount of memory, as `8g`"),
    ];
    for (text, says) in cases {
        world.write(".tazpod/config.toml", text);
        let done = world.run(&["up"]).failure(3, says);
        assert!(done.stderr.contains(&path.display().to_string()), "{}", done.stderr);
    }
    fs::write(&path, b"vertical = '\xff'\n").unwrap();
    world.run(&["up"]).failure(3, &format!("cannot read `{}`", path.display()));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    world.run(&["up"]).failure(3, &format!("cannot read `{}`", path.display()));
    fs::remove_dir(&path).unwrap();
    world.write(".tazpod/config.toml", "vertical = 'bse'\n");
    world.run(&["up"]).failure(2, "did you mean `base`?");

    // The user's own.
    let mut world = ordinary();
    world.write("../config/config.toml", "[attach]\ndetatch = '^]'\n");
    world.environment.push(("XDG_RUNTIME_DIR".into(), "/nowhere".into()));
    world.run(&["ls"]).failure(
        3,
        "config/config.toml:2`: unknown key `attach.detatch`\nhint: did you mean `attach.detach`?",
    );
}

#[test]
fn unusable_workspaces() {
    let world = {
        let mut world = ordinary();
        world.environment.push(("TAZPOD_ENGINE".into(), "unix:///nowhere/engine.sock".into()));
        world
    };
    let file = world.write("file", "").display().to_string();
    let closed = world.write("closed/in/file", "").parent().unwrap().to_owned();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o311)).unwrap();
    let beyond = closed.parent().unwrap().join("none/x").display().to_string();
    let closed = closed.display().to_string();
    for (path, why) in [
        ("/nowhere/at/all", "No such file or directory"),
        (&beyond, "No such file or directory"),
        (&file, "Not a directory"),
        (&closed, "Permission denied"),
        ("/", "`/` cannot be a workspace"),
    ] {
        for command in [&["up"][..], &["init"]] {
            let done = world.run(&[command, &["-C", path]].concat()).failure(2, why);
            assert!(done.stderr.contains(&format!("`{path}`")), "{}", done.stderr);
        }
    }
    world
        .bash("mkdir gone && cd gone && rmdir ../gone && $tazpod up")
        .failure(2, "the current directory is gone");
    world
        .bash("d=$(printf 'bad\\377name') && mkdir \"$d\" && cd \"$d\" && $tazpod up")
        .failure(2, "is not UTF-8");
    assert!(!world.state.exists() || !world.state.join("pods").exists());
}

#[test]
fn what_needs_no_engine() {
    let world = without_engine();
    let mut commands = vec![vec!["--help".to_owned()], vec!["--version".into()], vec!["help".into()]];
    for command in tazpod::cli::Cli::command().get_subcommands() {
        commands.push(vec![command.get_name().to_owned(), "--help".into()]);
        commands.push(vec![command.get_name().to_owned(), "-h".into()]);
    }
    assert!(commands.len() > 30, "{commands:?}");
    for command in &commands {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        let done = world.run(&words).success();
        assert!(
            done.stdout.len() > 10 && done.stderr.is_empty(),
            "{command:?}: {}{}",
            done.stdout,
            done.stderr
        );
    }
    world.run(&["man"]).success();
    for (shell, check) in [("bash", "bash -n"), ("zsh", "zsh -n"), ("fish", "fish -n")] {
        let script = world.run(&["completions", shell]).success().stdout;
        assert!(script.contains("recreate"), "{script}");
        world.write("script", &script);
        // Those whose shell is here are read by it.
        world.bash(&format!("! type {shell} >/dev/null 2>&1 || {check} script")).success();
    }
    world.run(&["completions", "csh"]).failure(2, "fish");
    assert!(!world.state.join("pods").exists());
}

#[test]
fn init() {
    let world = ordinary();
    let done = world.run(&["init", "k8s"]).success();
    assert_eq!(done.stdout, "");
    let path = world.workspace.join(".tazpod/config.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("vertical = \"k8s\"\n"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().uid(), world.caller.uid);
    let done = world.run(&["init"]).failure(3, &format!("`{}` exists already", path.display()));
    assert!(done.stderr.contains("hint: edit it"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    // What it wrote is understood, comments taken off too.
    let open = text.replace("# image", "image").replace("# env ", "env ").replace("# network", "network");
    world.write(
        ".tazpod/config.toml",
        &open.replace("# memory", "memory").replace("# ownership", "ownership"),
    );
    let dry = world.run(&["--engine", &Engine::Rootless.address(), "up", "--dry-run"]).success().json();
    assert_eq!(
        (dry["spec"]["vertical"].as_str(), dry["spec"]["network"].as_str()),
        (Some("k8s"), Some("host"))
    );
    assert_eq!(
        (dry["spec"]["memory"].as_i64(), dry["spec"]["env"]["EDITOR"].as_str()),
        (Some(8 << 30), Some("nvim"))
    );
}

#[test]
fn streams_that_are_closed_or_full() {
    let world = World::up(Engine::Docker);
    let full = |command: &str, code: i32| {
        let done = world
            .bash(&format!("$tazpod {command} >/dev/full"))
            .failure(code, "cannot write to standard output");
        assert!(done.stderr.contains("No space left"), "{}", done.stderr);
    };
    for command in
        ["ls", "ls --json", "status", "images", "completions bash", "--help", "up --help", "--version"]
    {
        full(command, 1);
        for line in ["| true", "| head -c1 >/dev/null"] {
            let done = world.bash(&format!("$tazpod {command} {line}")).success();
            assert_eq!(done.stderr, "", "{command} {line}");
        }
        let done = world.bash(&format!("$tazpod {command} >&-")).success();
        assert_eq!(done.stderr, "", "{command} >&-");
        world.bash(&format!("$tazpod {command} 2>&- <&-")).success();
    }
    full("exec -- echo x", 125);
    let done =
        world.bash("set -o pipefail; $tazpod exec -- yes | head -c 10000 | tail -c 2").failure(141, "");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("y\n", ""));
    world.wait_for("the command to end", || !world.sh("cat /proc/[0-9]*/comm").stdout.contains("yes\n"));
    assert_eq!(world.bash("$tazpod exec -- cat <&-").success().stdout, "");
    assert_eq!(world.bash("$tazpod exec -- sh -c 'echo x; echo y >&2' >&-").success().stderr, "y\n");
    assert_eq!(world.bash("$tazpod exec -- sh -c 'echo x; echo y >&2' 2>&-").success().stdout, "x\n");
    world.bash("$tazpod up --recreate <&- >&- 2>&-").success();
    world.bash("$tazpod down 2>/dev/full").success();
}

fn without_a_pod(engine: Engine) {
    let world = World::new(engine);
    for command in [
        &["status"][..],
        &["stop"],
        &["start"],
        &["down"],
        &["down", "--all"],
        &["attach"],
        &["logs"],
        &["proxy"],
    ] {
        let done = world.run(command);
        assert_eq!(done.code, 6, "{command:?}: {}", done.stderr);
        assert!(done.stderr.starts_with("error: no pod in this workspace\n"), "{command:?}: {}", done.stderr);
    }
    world.run(&["status", "k8s"]).failure(6, "no pod `k8s` in this workspace");
    let done = world.run(&["exec", "--", "true"]).failure(125, "no pod in this workspace");
    assert!(done.stderr.contains("hint: `tazpod up` makes one"), "{}", done.stderr);
    world.run(&["exec", "k8s", "--", "true"]).failure(125, "no pod `k8s` in this workspace");
    world.assert_nothing_left();
}

fn odd_names_of_workspaces(engine: Engine) {
    for name in
        [" a b\u{fc}\u{65e5} ", "q'u\"o`t", "c,o:m=;", "100% %41 $HOME \\ \\n", "-n\new\ttab", "{{.ID}}*?[a]"]
    {
        let world = World::of(engine, engine.caller(), name);
        world.write("sub dir,\u{fc}/file", "from the host");
        world.run(&["up", "--detach"]).success();
        assert_eq!(
            world.sh("cat 'sub dir,\u{fc}/file' && touch made").success().stdout,
            "from the host",
            "{name:?}"
        );
        let made = fs::metadata(world.workspace.join("made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (world.caller.uid, world.caller.gid), "{name:?}");
        let list = world.run(&["ls", "--json"]).success().json();
        let path = world.workspace.to_str().unwrap();
        assert!(
            list["pods"].as_array().unwrap().iter().any(|pod| pod["workspace"] == path),
            "{name:?}: {list}"
        );
        world.run(&["ls"]).success();
        let done = world.run(&["up", "--detach"]).success();
        assert!(!done.stderr.contains("differs"), "{name:?}: {}", done.stderr);
        world.run(&["stop"]).success();
        world.run(&["start"]).success();
        world.sh("rm made").success();
        world.run(&["down"]).success();
        world.run(&["status"]).failure(6, "no pod");
    }
}

fn an_image_without_a_shell(engine: Engine) {
    let image = TestImage::load(engine, host_architecture(), &[("etc/passwd", b"root:x:0:0::/:\n")]);
    let world = World::new(engine);
    world.run(&["up", "--detach", "--image", &image.name]).success();
    world.run(&["exec", "--", "/bin/sh"]).failure(127, "`/bin/sh`: command not found");
    world.run(&["exec", "--", "sh", "-c", "true"]).failure(127, "`sh`: command not found");
    let done = world.run(&["exec", "--", "/usr/local/bin/tazpod", "--version"]).success();
    assert!(done.stdout.starts_with("tazpod "), "{}", done.stdout);
    world.run(&["exec", "--", "/usr/local/bin/tazpod", "init"]).success();
    let made = fs::metadata(world.workspace.join(".tazpod/config.toml")).unwrap();
    assert_eq!((made.uid(), made.gid()), (world.caller.uid, world.caller.gid));
    let mut terminal = Terminal::start(&world, &["attach"]);
    assert_eq!(terminal.end(), 127);
    terminal.wait("this image has no shell");
    assert_eq!(world.run(&["status", "--json"]).success().json()["sessions"].as_array().unwrap().len(), 0);
}

/// As OCI names it.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn an_image_of_another_architecture(engine: Engine) {
    let other = if host_architecture() == "arm64" { "amd64" } else { "arm64" };
    let image = TestImage::load(engine, other, &[("etc/passwd", b"root:x:0:0::/:\n")]);
    let world = World::new(engine);
    let says = format!("`{}` is for {other}, the engine's machine is {}", image.name, host_architecture());
    let done = world.run(&["up", "--image", &image.name]).failure(5, &says);
    assert!(done.stderr.contains("hint: pull or build it"), "{}", done.stderr);
    world.assert_nothing_left();
}

fn an_image_that_is_not_there(engine: Engine) {
    let world = World::new(engine);
    let image = "localhost:1/no/such-image:9";
    world.run(&["up", "--image", image]).failure(5, &format!("`{image}`"));
    world.run(&["up", "--image", image, "--pull", "never"]).failure(5, "hint: allow to pull it");
    world.run(&["up", "--image", "UPPER CASE"]).failure(5, "`UPPER CASE`");
    world.assert_nothing_left();
}

/// Has the next builds of `base` run another script in the place of the one that brings tools.
fn instead_of_tools(proxy: &Proxy, script: &str) {
    let old = "set -eu\numask 022\n# shellcheck source=images/base/apt.sh";
    let script = format!("{script:#<width$}", width = old.len());
    // As if the engine did not have the image, which other tests need.
    proxy.rewrite(&[("tazpod-base:stable/json", "tazpod-none:stable/json"), (old, &script)]);
}

/// Builds of other tests may be under way: what there is of a build has its process's number, and that process runs.
fn assert_no_build_left(engine: Engine) {
    let left = || -> BTreeSet<String> {
        let images = engine.images();
        let tags = images.lines().filter_map(|line| line.split_once("tazpod-build:")).map(|(_, tag)| tag);
        let has_ended = |tag: &&str| {
            let process = tag.trim_end_matches("-below").rsplit('-').next().unwrap();
            fs::metadata(format!("/proc/{process}")).is_err()
        };
        tags.filter(has_ended).map(str::to_owned).collect()
    };
    // One that has ended since they were listed has taken its own away.
    let left: Vec<_> = left().intersection(&left()).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn a_build_that_fails(engine: Engine) {
    let mut world = World::new(engine);
    let proxy = Proxy::before(&mut world);
    let build = |script: &str| {
        instead_of_tools(&proxy, script);
        world.run(&["build", "base"])
    };
    let done = build("echo so it goes; exit 7 ").failure(5, "the image of `base` did not build, at step ");
    let containerfile = include_str!("../../images/base/Containerfile");
    let wanted = containerfile.lines().position(|line| line.ends_with("tools.sh base")).unwrap() + 1;
    assert!(done.stderr.contains(&format!(" (line {wanted} of its Containerfile): ")), "{}", done.stderr);
    assert!(done.stderr.contains("  so it goes\n"), "{}", done.stderr);
    let log = world.state.join("logs/build-base.log");
    assert!(done.stderr.contains(&format!("the whole output is in `{}`", log.display())), "{}", done.stderr);
    assert!(fs::read_to_string(log).unwrap().contains("so it goes"));

    let done = build("echo left out: nvm: no way; exit 1 ")
        .failure(5, "cannot fetch all tools of `base`: nvm: no way");
    assert!(done.stderr.contains("hint: build it without them: `--allow-missing`"), "{}", done.stderr);
    assert_no_build_left(engine);
}

fn an_interrupted_build_leaves_nothing(engine: Engine) {
    let mut world = World::new(engine);
    let proxy = Proxy::before(&mut world);
    instead_of_tools(&proxy, "echo at it; sleep 60; exit 1 ");
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = world
            .bare_command(&program().to_string_lossy(), &["-v", "build", "base"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let seen: Vec<String> = lines.take_while(|line| !line.ends_with("at it")).collect();
        let running = child.try_wait().unwrap().is_none();
        assert!(running, "{}", seen.join("\n"));
        let started = Instant::now();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        assert_no_build_left(engine);
    }
}

fn a_pod_of_another_build(engine: Engine) {
    let mut world = World::new(engine);
    let proxy = Proxy::before(&mut world);
    let older: String = tazpod::BUILD.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect();
    proxy.rewrite(&[(tazpod::BUILD, &older)]);
    world.run(&["up", "--detach"]).success();
    proxy.rewrite(&[]);
    world.sh("echo kept > ~/kept").success();
    let done = world.run(&["up", "--detach"]).success();
    assert!(done.stderr.contains(&format!("agent: {older} -> {}", tazpod::BUILD)), "{}", done.stderr);
    assert!(done.stderr.contains("hint: `tazpod up --recreate` replaces it"), "{}", done.stderr);
    assert_eq!(world.sh("cat ~/kept").success().stdout, "kept\n");
    let done = world.run(&["up", "--detach", "--recreate"]).success();
    assert!(!done.stderr.contains("agent: "), "{}", done.stderr);
    let done = world.run(&["up", "--detach"]).success();
    assert!(!done.stderr.contains("differs"), "{}", done.stderr);
}

fn a_pod_of_another_version(engine: Engine) {
    let mut world = World::new(engine);
    let proxy = Proxy::before(&mut world);
    // The specification in the label, as a version without sockets might have written it.
    proxy.rewrite(&[("\\\"transport\\\"", "\\\"transp0rt\\\"")]);
    world.run(&["up", "--detach"]).success();
    proxy.rewrite(&[]);
    let done = world.run(&["up", "--detach"]).failure(1, "was made by another version of tazpod");
    assert!(done.stderr.contains("`tazpod up --recreate`"), "{}", done.stderr);
    world.sh("touch made").success();
    world.run(&["status"]).success();
    world.run(&["stop"]).success();
    world.run(&["start"]).failure(1, "was made by another version of tazpod");
    world.run(&["up", "--detach", "--recreate"]).success();
    world.run(&["up", "--detach"]).success();
    world.run(&["down"]).success();
    world.assert_nothing_left();
}

fn pod_name(world: &World) -> String {
    let dry = world.run(&["up", "--dry-run"]).success().json();
    dry["spec"]["name"].as_str().unwrap().to_owned()
}

/// A container that others made; it goes at the end.
struct Decoy(Engine, String);

impl Decoy {
    fn named(engine: Engine, name: &str) -> Decoy {
        engine.client_stdout(&["create", "--name", name, &foreign_image(engine), "/bin/sleep", "1000"]);
        Decoy(engine, name.to_owned())
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let found = self.0.client_stdout(&["inspect", "--format", "{{.State.Status}} {{.Path}}", &self.1]);
        assert!(["created /bin/sleep", "configured /bin/sleep"].contains(&found.as_str()), "{found}");
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        self.0.client(&["rm", "-f", &self.1]);
    }
}

fn containers_of_others(engine: Engine) {
    let world = World::new(engine);
    let name = pod_name(&world);
    let decoys = [format!("{name}-2"), format!("x-{name}"), name.trim_end_matches("-base").to_owned()];
    let decoys = decoys.map(|name| Decoy::named(engine, &name));
    for command in [&["status"][..], &["stop"], &["down", "--all"], &["start"]] {
        assert_eq!(world.run(command).code, 6);
    }
    world.run(&["up", "--detach"]).success();
    world.sh("true").success();
    world.run(&["up", "--detach", "--recreate"]).success();
    world.run(&["stop"]).success();
    world.run(&["down", "--all"]).success();
    decoys.iter().for_each(Decoy::assert_untouched);

    let exact = Decoy::named(engine, &name);
    for command in [&["up"][..], &["up", "--recreate"]] {
        let says = format!("the name `{name}` is taken by a container that tazpod did not make");
        let done = world.run(command).failure(4, &says);
        assert!(done.stderr.contains("hint: rename or remove that container"), "{}", done.stderr);
    }
    for command in [&["stop", name.as_str()][..], &["down", &name], &["down"], &["status"], &["start"]] {
        assert_eq!(world.run(command).code, 6, "{command:?}");
    }
    exact.assert_untouched();
    world.assert_nothing_left();
}

fn a_name_taken_meanwhile(engine: Engine) {
    let mut world = World::new(engine);
    let name = pod_name(&world);
    let proxy = Proxy::before(&mut world);
    let (sender, decoy) = mpsc::channel();
    let taken = name.clone();
    proxy.at("/containers/create", move || sender.send(Decoy::named(engine, &taken)).unwrap());
    world.run(&["up"]).failure(4, &format!("cannot create `{name}`"));
    decoy.recv().unwrap().assert_untouched();
    world.assert_nothing_left();
}

/// Starts `up`, has it interrupted, and sees that it came up whole or left nothing. Returns its exit code.
#[track_caller]
fn interrupted(world: &World, signal: Signal, when: impl FnOnce(Pid)) -> Option<i32> {
    let child = world
        .bare_command(&program().to_string_lossy(), &["up", "--detach"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    when(Pid::from_child(&child));
    let output = child.wait_with_output().unwrap();
    let done = Done::of(&output);
    match output.status.code() {
        Some(0) => {
            world.sh("touch made").success();
            world.run(&["down"]).success();
        }
        Some(130) => assert!(done.stderr.contains("error: interrupted"), "{signal:?}: {}", done.stderr),
        // Before it had set its own handlers there was nothing to undo.
        None => assert_eq!(done.stderr, "", "{signal:?}"),
        Some(other) => panic!("{signal:?}: {other}: {}", done.stderr),
    }
    world.assert_nothing_left();
    output.status.code()
}

const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

fn signals_at_any_moment(engine: Engine) {
    let mut worlds = Vec::new();
    for (number, delay) in [0, 50, 100, 200, 300, 400, 600, 800].into_iter().enumerate() {
        let caller = match engine {
            // Half of them through the helper container.
            Engine::Docker if number % 2 == 0 => Caller { uid: 1234, gid: 2345 },
            _ => engine.caller(),
        };
        let world = World::of(engine, caller, "workspace");
        let signal = SIGNALS[number % 3];
        interrupted(&world, signal, |pid| {
            // Not to wait for something: to hit it wherever it is.
            std::thread::sleep(Duration::from_millis(delay));
            let _ = kill_process(pid, signal);
        });
        worlds.push(world);
    }
    // Nor did anything come afterwards.
    for world in worlds {
        world.assert_nothing_left();
    }
}

fn signals_at_each_request(engine: Engine) {
    let caller = match engine {
        Engine::Docker => Caller { uid: 1234, gid: 2345 },
        _ => engine.caller(),
    };
    let mut worlds = Vec::new();
    // The last is the helper's, which shares the host's directory.
    let moments = ["/info", "/images/", "/containers/create", "/start", "container:"];
    for (number, moment) in moments.into_iter().enumerate() {
        if moment == "container:" && engine != Engine::Docker {
            continue;
        }
        let mut world = World::of(engine, caller, "workspace");
        let proxy = Proxy::before(&mut world);
        let (sender, pid) = mpsc::channel();
        let (done, hit) = mpsc::channel();
        let signal = SIGNALS[number % 3];
        proxy.at(moment, move || {
            kill_process(pid.recv().unwrap(), signal).unwrap();
            done.send(()).unwrap();
        });
        let code = interrupted(&world, signal, |pid| sender.send(pid).unwrap());
        hit.try_recv().unwrap_or_else(|_| panic!("no request with `{moment}`"));
        assert_eq!(code, Some(130), "{moment}");
        worlds.push(world);
    }
    for world in worlds {
        world.assert_nothing_left();
    }
}

fn an_engine_that_dies(engine: Engine) {
    for moment in ["/info", "/images/", "/containers/create", "/start"] {
        let mut world = World::new(engine);
        let proxy = Proxy::before(&mut world);
        let cut = proxy.clone();
        proxy.at(moment, move || cut.cut());
        let done = world.run(&["up", "--detach"]).failure(4, &proxy.path.display().to_string());
        assert!(done.stderr.contains("hint: is it running?"), "{moment}: {}", done.stderr);
        world.run(&["up", "--detach"]).failure(4, "cannot reach the engine");
        world.run(&["ls"]).failure(4, "cannot reach the engine");
        proxy.mend();
        // What could not be undone is taken up again.
        world.run(&["up", "--detach"]).success();
        world.sh("touch made").success();
        world.run(&["down"]).success();
        world.assert_nothing_left();
    }
}

fn exec_does_without_the_engine(engine: Engine) {
    let mut world = World::new(engine);
    let proxy = Proxy::before(&mut world);
    world.run(&["up", "--detach"]).success();
    let mut running = world.command(&program().to_string_lossy(), &["exec", "--", "cat"]);
    let mut running = running.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    proxy.cut();
    assert_eq!(world.sh("echo hello").success().stdout, "hello\n");
    std::io::Write::write_all(&mut running.stdin.take().unwrap(), b"still here").unwrap();
    assert_eq!(running.wait_with_output().unwrap().stdout, b"still here");
    world.run(&["status"]).failure(4, "cannot reach the engine");
    world.run(&["down"]).failure(4, "cannot reach the engine");
    world.sh("true").success();
    proxy.mend();
    world.run(&["down"]).success();
    world.assert_nothing_left();
}

fn lost_state(engine: Engine) {
    let world = World::up(engine);
    let name = world.pod();
    let lose = || fs::remove_dir_all(world.state.join("pods")).unwrap();
    lose();
    world.run(&["exec", "--", "true"]).failure(125, "no pod in this workspace");
    assert_eq!(world.run(&["status", "--json"]).success().json()["state"], "running");
    let done = world.run(&["up", "--detach"]).failure(1, "its agent does not know this machine");
    assert!(done.stderr.contains("`tazpod stop` and `tazpod start`"), "{}", done.stderr);
    world.run(&["stop"]).success();
    world.run(&["start"]).success();
    world.sh("touch made").success();
    lose();
    world.run(&["down", &name]).success();
    world.assert_nothing_left();
    world.run(&["up", "--detach"]).success();
    lose();
    world.run(&["down", "--all"]).success();
    world.assert_nothing_left();

    // The other way round: the engine forgot it.
    world.run(&["up", "--detach"]).success();
    engine.client_stdout(&["rm", "-f", &name]);
    for command in [&["status"][..], &["stop"], &["start"]] {
        let done = world.run(command).failure(6, "has gone");
        assert!(done.stderr.contains("`tazpod down` forgets it"), "{}", done.stderr);
    }
    assert_eq!(world.run(&["exec", "--", "true"]).code, 125);
    world.run(&["up", "--detach"]).success();
    world.sh("true").success();
    engine.client_stdout(&["rm", "-f", &name]);
    world.run(&["down"]).success();
    world.assert_nothing_left();
}

/// Each exit code of `docs/cli.md` that can be had so far, by its number.
#[test]
fn exit_codes() {
    let world = World::new(Engine::Docker);
    let code = |arguments: &[&str]| world.run(arguments).code;
    assert_eq!(code(&["status"]), 6);
    assert_eq!(code(&["up", "--detach"]), 0);
    assert_eq!(code(&["start"]), 1);
    assert_eq!(code(&["up", "--nonsense"]), 2);
    assert_eq!(code(&["--engine", "unix:///nowhere", "ls"]), 4);
    assert_eq!(code(&["up", "--recreate", "--image", "localhost:1/no:1", "--pull", "never"]), 5);
    assert_eq!(code(&["status"]), 0, "an image that is missing costs no pod");
    assert_eq!(code(&["exec", "nobody", "--", "true"]), 125);
    assert_eq!(code(&["exec", "--", "/etc/passwd"]), 126);
    assert_eq!(code(&["exec", "--", "nothing"]), 127);
    assert_eq!(code(&["exec", "--", "sh", "-c", "exit 42"]), 42);
    world.write(".tazpod/config.toml", "x = 1\n");
    assert_eq!(code(&["up"]), 3);
}
