//! A pod from `up` to `down`, and commands in it.

use std::os::unix::fs::MetadataExt;

use crate::errors::host_architecture;
use crate::on_every_engine;
use crate::rig::{Engine, TestImage, World, busybox};
use crate::terminal::Terminal;

on_every_engine!(
    the_main_job,
    exec_returns_what_the_command_does,
    exec_carries_binary_data_both_ways,
    exec_passes_signals_on,
    exec_starts_in_the_same_directory,
    stop_and_start,
    a_second_up_changes_nothing,
    two_ups_at_once,
    drift_is_shown_and_not_acted_upon,
    dry_run_changes_nothing,
    orphans_are_reaped,
    a_foreign_image,
    an_image_of_busybox_alone,
    no_capabilities_without_sudo,
    strangers_do_not_lock_the_owner_out,
    a_replaced_workspace_is_noticed,
    down_works_whatever_the_pod_left_behind,
    the_link_over_exec,
);

fn the_main_job(engine: Engine) {
    let world = World::up(engine);
    assert_eq!(world.sh("id -u; id -g; pwd").success().stdout, "1000\n1000\n/workspace\n");
    world.sh("echo from the pod > made && mkdir -p deep/er && touch deep/er/file").success();
    for name in ["made", "deep", "deep/er/file"] {
        let found = std::fs::metadata(world.workspace.join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (world.caller.uid, world.caller.gid), "{name}");
    }
    assert_eq!(std::fs::read_to_string(world.workspace.join("made")).unwrap(), "from the pod\n");
    world.write("from-host", "hello");
    assert_eq!(world.sh("cat from-host && rm from-host").success().stdout, "hello");
    assert!(!world.workspace.join("from-host").exists());

    let status = world.run(&["status", "--json"]).success().json();
    assert_eq!((status["state"].as_str(), status["vertical"].as_str()), (Some("running"), Some("base")));
    assert_eq!(status["problem"], serde_json::Value::Null);
    let name = status["name"].as_str().unwrap();
    let list = world.run(&["ls", "--json"]).success().json();
    assert!(list["pods"].as_array().unwrap().iter().any(|pod| pod["name"] == name), "{list}");

    world.run(&["down"]).success();
    world.run(&["status"]).failure(6, "no pod in this workspace");
    assert!(!engine.client(&["inspect", name]).status.success(), "the container is gone");
    assert_eq!(std::fs::read_dir(world.state.join("pods")).unwrap().count(), 0, "and so are its keys");
}

fn exec_returns_what_the_command_does(engine: Engine) {
    let world = World::up(engine);
    let done = world.sh("echo out; echo err >&2; exit 7");
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (7, "out\n", "err\n"));
    world.run(&["exec", "--", "no-such-command"]).failure(127, "`no-such-command`: command not found");
    world.run(&["exec", "--", "/etc/passwd"]).failure(126, "permission denied");
    assert_eq!(world.sh("kill -KILL $$").code, 128 + 9);
    world.run(&["exec", "base", "--", "true"]).success();
    world.run(&["exec", &world.pod(), "--", "true"]).success();
    world.run(&["exec", "bse", "--", "true"]).failure(125, "did you mean `base`?");
    let arguments = ["exec", "--", "printf", "%s|", "a b", "", "$HOME", "'\"", "ü\n"];
    assert_eq!(world.run(&arguments).success().stdout, "a b||$HOME|'\"|ü\n|");
    assert_eq!(world.run(&["exec", "-e", "A=b c", "--", "sh", "-c", "echo $A"]).success().stdout, "b c\n");
    // A daemon that keeps the streams open is not waited for.
    let started = std::time::Instant::now();
    assert_eq!(world.sh("sleep 60 & echo started").success().stdout, "started\n");
    assert!(started.elapsed().as_secs() < 30);
}

fn exec_carries_binary_data_both_ways(engine: Engine) {
    let world = World::up(engine);
    let data: Vec<u8> = (0..24_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let output = world.run_bytes(&["exec", "--", "cat"], &data);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), data.len());
    assert!(output.stdout == data, "what came back is what went in");
    // The end of the input arrives, and so does all of the output of a command that ends at once.
    assert_eq!(
        world.run_with(&["exec", "--", "wc", "-c"], &data[..1_000_001]).success().stdout.trim(),
        "1000001"
    );
    for _ in 0..5 {
        assert_eq!(world.sh("head -c 300000 /dev/zero").success().stdout.len(), 300_000);
    }
    // More input than anybody reads, and output at the same time.
    assert!(world.run_bytes(&["exec", "--", "head", "-c", "3"], &data).stdout == data[..3]);
}

fn exec_passes_signals_on(engine: Engine) {
    let world = World::up(engine);
    let script = "trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = world
        .command(&crate::rig::program().to_string_lossy(), &["exec", "--", "sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    // `timeout` passes the signal on to tazpod.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    child.wait().unwrap();
    assert_eq!(rest, "got TERM\n");

    // A client that is killed takes its command with it.
    let mut child = world
        .command(&crate::rig::program().to_string_lossy(), &["exec", "--", "sleep", "4321"])
        .spawn()
        .unwrap();
    let running = || world.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout.contains("sleep 4321");
    world.wait_for("the command to run", running);
    std::process::Command::new("pkill")
        .args(["-KILL", "-f", &format!("^{}.*exec -- sleep 4321", crate::rig::program().display())])
        .status()
        .unwrap();
    child.wait().unwrap();
    world.wait_for("the command to end", || !running());
}

fn exec_starts_in_the_same_directory(engine: Engine) {
    let world = World::up(engine);
    world.write("sub dir/ü/file", "");
    let mut command = world.command(&crate::rig::program().to_string_lossy(), &["exec", "--", "pwd"]);
    let output = command.current_dir(world.workspace.join("sub dir/ü")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/workspace/sub dir/ü\n");
}

fn stop_and_start(engine: Engine) {
    let world = World::up(engine);
    world.sh("echo kept > ~/kept").success();
    world.run(&["start"]).failure(1, "runs already");
    let started = std::time::Instant::now();
    world.run(&["stop"]).success();
    assert!(started.elapsed().as_secs() < 9, "PID 1 stops when it is told to");
    world.run(&["exec", "--", "true"]).failure(125, "does not run");
    assert_eq!(world.run(&["status", "--json"]).success().json()["state"], "exited");
    world.run(&["stop"]).success();
    world.run(&["start"]).success();
    assert_eq!(world.sh("cat ~/kept; touch again").success().stdout, "kept\n");
    assert_eq!(std::fs::metadata(world.workspace.join("again")).unwrap().uid(), world.caller.uid);
    world.run(&["stop"]).success();
    world.run(&["up", "--detach"]).success();
    assert_eq!(world.sh("cat ~/kept").success().stdout, "kept\n");
}

fn a_second_up_changes_nothing(engine: Engine) {
    let world = World::up(engine);
    let id = |world: &World| world.engine.client_stdout(&["inspect", "--format", "{{.Id}}", &world.pod()]);
    let before = id(&world);
    world.sh("sleep 1000 >/dev/null 2>&1 & echo $! > ~/pid").success();
    let done = world.run(&["up", "--detach"]).success();
    assert!(!done.stderr.contains("differs"), "{}", done.stderr);
    world.sh("kill -0 $(cat ~/pid)").success();
    assert_eq!(id(&world), before);
    // Without a terminal there is nothing to enter, which is not a failure.
    let done = world.run(&["up"]).success();
    assert!(done.stderr.contains("tazpod exec"), "{}", done.stderr);
}

fn two_ups_at_once(engine: Engine) {
    let world = World::new(engine);
    let start = || {
        let mut command = world.command(&crate::rig::program().to_string_lossy(), &["up", "--detach"]);
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children = [start(), start(), start()];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    world.sh("true").success();
    let list = world.run(&["ls", "--json"]).success().json();
    let workspace = world.workspace.to_string_lossy();
    let ours = list["pods"].as_array().unwrap().iter().filter(|pod| pod["workspace"] == *workspace).count();
    assert_eq!(ours, 1);
}

fn drift_is_shown_and_not_acted_upon(engine: Engine) {
    let world = World::up(engine);
    world.sh("echo kept > ~/kept").success();
    world.write(".tazpod/config.toml", "[pod]\nenv = { GREETING = \"hello\" }\n");
    let done = world.run(&["up", "--detach"]).success();
    assert!(done.stderr.contains("env.GREETING: (none) -> hello"), "{}", done.stderr);
    assert!(done.stderr.contains("--recreate"), "{}", done.stderr);
    assert_eq!(world.sh("cat ~/kept; echo \"$GREETING\"").success().stdout, "kept\n\n");
    let dry = world.run(&["up", "--dry-run"]).success().json();
    assert_eq!(dry["differences"][0]["field"], "env.GREETING");
    world.run(&["up", "--detach", "--recreate"]).success();
    assert_eq!(world.sh("ls ~/kept 2>/dev/null; echo $GREETING").success().stdout, "hello\n");
    let done = world.run(&["up", "--detach"]).success();
    assert!(!done.stderr.contains("differs"), "{}", done.stderr);
}

fn dry_run_changes_nothing(engine: Engine) {
    let world = World::new(engine);
    let dry = world.run(&["up", "--dry-run"]).success().json();
    assert_eq!(dry["state"], "absent");
    assert_eq!(dry["spec"]["shares"][0]["source"], *world.workspace.to_string_lossy());
    assert_eq!(dry["spec"]["shares"][0]["target"], "/workspace");
    world.run(&["status"]).failure(6, "no pod");
    assert!(!world.state.join("pods").exists());
}

fn orphans_are_reaped(engine: Engine) {
    let world = World::up(engine);
    world.sh("for i in 1 2 3 4 5; do (sh -c 'sleep 0.2 & exit' &); done").success();
    world.wait_for("no zombies", || {
        let states = world.sh("sleep 0.3; cat /proc/[0-9]*/stat").stdout;
        !states.lines().any(|line| line.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    });
}

fn a_foreign_image(engine: Engine) {
    let world = World::new(engine);
    world.run(&["up", "--detach", "--image", &foreign_image(engine)]).success();
    assert_eq!(
        world.sh("id -u; whoami; echo $HOME; cd && touch x && echo yes").success().stdout,
        "1000\ntazpod\n/home/tazpod\nyes\n"
    );
    world.sh("touch made").success();
    assert_eq!(std::fs::metadata(world.workspace.join("made")).unwrap().uid(), world.caller.uid);
}

/// Nothing of glibc, of Debian or of a distribution at all: the binary brings what it needs, as it must on Alpine.
fn an_image_of_busybox_alone(engine: Engine) {
    let busybox = busybox();
    let files = [("bin/sh", &busybox[..]), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n")];
    let image = TestImage::load(engine, host_architecture(), &files);
    let world = World::new(engine);
    world.run(&["up", "--detach", "--image", &image.name]).success();
    assert_eq!(
        world.sh("id -u; pwd; echo $HOME; echo x > made").success().stdout,
        "1000\n/workspace\n/home/tazpod\n"
    );
    assert_eq!(std::fs::metadata(world.workspace.join("made")).unwrap().uid(), world.caller.uid);
    let mut terminal = Terminal::start(&world, &["attach"]);
    terminal.send("echo in the $((40 + 2))\r");
    terminal.wait("in the 42");
    terminal.send("exit 7\r");
    assert_eq!(terminal.end(), 7);
}

/// An image that has neither agent nor user: the root that `base` stands on.
pub fn foreign_image(engine: Engine) -> String {
    let images = engine.images();
    let found = images.lines().find(|name| name.contains("tazpod-rootfs") || name.contains("ubuntu"));
    found.unwrap_or_else(|| panic!("no root image among {images}")).to_owned()
}

fn the_link_over_exec(engine: Engine) {
    let mut world = World::new(engine);
    world.environment.push(("TAZPOD_LINK".into(), "exec".into()));
    world.run(&["up", "--detach"]).success();
    assert_eq!(world.sh("id -u; pwd; touch made").success().stdout, "1000\n/workspace\n");
    assert_eq!(std::fs::metadata(world.workspace.join("made")).unwrap().uid(), world.caller.uid);
    let data = vec![7; 3_000_000];
    assert!(world.run_bytes(&["exec", "--", "cat"], &data).stdout == data);
    world.run(&["stop"]).success();
    world.run(&["start"]).success();
    world.sh("true").success();
}

fn no_capabilities_without_sudo(engine: Engine) {
    let world = World::up(engine);
    let status = world.sh("grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status").success().stdout;
    for line in status.lines() {
        assert!(line.ends_with("0000000000000000"), "{status}");
    }
    world.sh("echo x > /etc/x").failure(2, "Permission denied");
    assert_eq!(world.sh("sudo id -u").success().stdout, "0\n");
}

fn strangers_do_not_lock_the_owner_out(engine: Engine) {
    let world = World::up(engine);
    let socket = world.state.join("pods").join(world.pod()).join("run/agent.sock");
    let silent: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    for _ in 0..3 {
        let commands: Vec<_> = (0..15)
            .map(|_| {
                world
                    .command(&crate::rig::program().to_string_lossy(), &["exec", "--", "true"])
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut command in commands {
            assert!(command.wait().unwrap().success());
        }
    }
    drop(silent);
}

fn a_replaced_workspace_is_noticed(engine: Engine) {
    let world = World::up(engine);
    let old = world.directory.join("old");
    std::fs::rename(&world.workspace, &old).unwrap();
    std::fs::create_dir(&world.workspace).unwrap();
    std::os::unix::fs::chown(&world.workspace, Some(world.caller.uid), Some(world.caller.gid)).unwrap();
    let done = world.run(&["up", "--detach"]).success();
    assert!(done.stderr.contains("still has the old one"), "{}", done.stderr);
    world.run(&["stop"]).success();
    world.run(&["up", "--detach"]).success();
    world.sh("touch new").success();
    assert!(world.workspace.join("new").exists());
}

fn down_works_whatever_the_pod_left_behind(engine: Engine) {
    let world = World::up(engine);
    world
        .sh("mkdir -p /run/tazpod/x/y && chmod 0 /run/tazpod/x/y && ln -s /etc/passwd /run/tazpod/z")
        .success();
    world.run(&["up", "--detach", "--recreate"]).success();
    world.sh("mkdir -p /run/tazpod/x/y").success();
    world.run(&["stop"]).success();
    world.run(&["start"]).success();
    world.sh("true").success();
    world.run(&["down"]).success();
    world.run(&["status"]).failure(6, "no pod");
}
