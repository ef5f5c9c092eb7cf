//! Whose files are whose: written from the pod, read on the host, and the other way round.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::on_every_engine;
use crate::rig::{Caller, Engine, Proxy, World, rig, rig_number};

/// A user of the host who is neither the caller nor in the pod.
const STRANGER: u32 = 4321;

const ROOT: Caller = Caller { uid: 0, gid: 0 };

on_every_engine!(
    after_a_restart,
    after_a_restart_by_others,
    a_git_worktree,
    a_git_worktree_without_its_repository,
    host_ids,
    a_mount_that_vanished,
    a_file_system_that_refuses,
    a_file_system_in_ram,
    the_pods_user_has_no_capabilities,
);

#[test]
fn a_refusing_file_system_below_docker() {
    a_refusing_file_system_below(Engine::Docker);
}

#[test]
fn a_refusing_file_system_below_podman() {
    a_refusing_file_system_below(Engine::Podman);
}

mod table {
    use super::*;

    fn check(engine: Engine, uid: u32, gid: u32) {
        files_belong_to_the_caller(&world(engine, Caller { uid, gid }));
    }

    #[test]
    fn docker_root() {
        check(Engine::Docker, 0, 0);
    }

    #[test]
    fn docker_uid_1000() {
        check(Engine::Docker, 1000, 1000);
    }

    #[test]
    fn docker_another_uid() {
        check(Engine::Docker, 1234, 1234);
    }

    #[test]
    fn docker_another_uid_and_gid() {
        check(Engine::Docker, 1234, 2345);
    }

    #[test]
    fn docker_another_gid() {
        check(Engine::Docker, 1000, 100);
    }

    #[test]
    fn docker_uid_and_gid_crossed() {
        check(Engine::Docker, 1001, 1000);
    }

    #[test]
    fn podman_root() {
        check(Engine::Podman, 0, 0);
    }

    #[test]
    fn podman_uid_1000() {
        check(Engine::Podman, 1000, 1000);
    }

    #[test]
    fn podman_another_uid_and_gid() {
        check(Engine::Podman, 1234, 2345);
    }

    #[test]
    fn rootless() {
        check(Engine::Rootless, rig_number("TAZPOD_RIG_UID"), rig_number("TAZPOD_RIG_GID"));
    }
}

/// A world of a caller who may use the engine.
fn world(engine: Engine, caller: Caller) -> World {
    let mut world = World::of(engine, caller, "workspace");
    if engine == Engine::Podman && caller != ROOT {
        // Rootful Podman has no group: an administrator would open the socket in some such way.
        Proxy::before(&mut world);
    }
    world
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let found = std::fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

fn files_belong_to_the_caller(world: &World) {
    let Caller { uid, gid } = world.caller;
    let caller = (uid, gid);
    let on_host = |name: &str| owner(world.workspace.join(name));
    let gives = |line: &str| world.sh(line).success().stdout;
    world.run(&["up", "--detach"]).success();
    assert_eq!(gives("id -u; id -g"), "1000\n1000\n");

    // What the pod makes is the caller's.
    gives(
        "echo x > made && mkdir -p deep/er && ln -s made link && mkfifo fifo && ln made hard && touch deep/er/file",
    );
    gives("chmod 640 made && cp -a made copy && mv copy deep/moved && touch -d @0 made");
    for name in ["made", "deep", "deep/er", "deep/er/file", "deep/moved", "link", "fifo", "hard"] {
        assert_eq!(on_host(name), caller, "{name}");
    }
    assert_eq!(gives("stat -c %u:%g made deep . "), "1000:1000\n1000:1000\n1000:1000\n");

    // What the caller makes is the pod's user's.
    world.write("theirs/file", "from the host\n");
    assert_eq!(gives("stat -c %u:%g theirs theirs/file"), "1000:1000\n1000:1000\n");
    gives(
        "echo more >> theirs/file && chmod 600 theirs/file && mv theirs/file theirs/renamed && rm -r theirs",
    );
    assert!(!world.workspace.join("theirs").exists());

    // What root makes in the pod is root's, there and on the host, unless root there is somebody else.
    gives("sudo touch roots && sudo mkdir -m 700 private && sudo touch private/file");
    assert_eq!(gives("stat -c %u:%g roots"), "0:0\n");
    let root = match (world.engine, caller) {
        (Engine::Rootless, _) => {
            let found = on_host("roots");
            assert!(
                found.0 >= 100_000 && found.1 >= 100_000,
                "{found:?} is one of the caller's subordinate ids"
            );
            found
        }
        (_, (0, 0)) => (2_147_400_000, 2_147_400_000),
        _ => (0, 0),
    };
    assert_eq!(on_host("roots"), root);
    assert_eq!(on_host("private/file"), root);
    world.sh("ls private").failure(2, "Permission denied");
    gives("rm -f roots && sudo rm -r private");
    gives("sudo chown 1000:1000 $(sudo mktemp -p . given.XXXX) && sudo chown root made");
    assert_eq!(on_host("made").0, root.0);
    gives("sudo chown 1000 made && echo y > made");
    assert_eq!(on_host("made"), caller);

    // Files of others on the host, root's say, are in nobody's way.
    for id in [0, STRANGER] {
        let theirs = world.workspace.join("others");
        std::fs::write(&theirs, "others'").unwrap();
        chown(&theirs, Some(id), Some(id)).unwrap();
        assert_eq!(gives("cat others"), "others'");
        if world.engine != Engine::Rootless {
            gives("sudo touch others && sudo sh -c 'echo more >> others'");
            assert_eq!(on_host("others"), (id, id));
        }
        gives("rm -f others");
    }

    // A setgid directory hands its group down: the caller's own, and another's.
    gives("mkdir -m 2775 ours && touch ours/file && mkdir ours/sub");
    assert_eq!((on_host("ours/file"), on_host("ours/sub")), (caller, caller));
    assert_eq!(std::fs::metadata(world.workspace.join("ours/sub")).unwrap().mode() & 0o7777, 0o2755);
    if world.engine != Engine::Rootless {
        let shared = world.workspace.join("shared");
        std::fs::create_dir(&shared).unwrap();
        chown(&shared, Some(uid), Some(STRANGER)).unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o2775)).unwrap();
        gives("touch shared/file");
        assert_eq!(on_host("shared/file"), (uid, STRANGER));
    }

    world.run(&["down"]).success();
    world.assert_nothing_left();
    assert_eq!(owner(&world.workspace), caller, "the workspace itself is as it was");
}

fn after_a_restart(engine: Engine) {
    let world = World::up(engine);
    world.sh("touch before").success();
    world.run(&["stop"]).success();
    world.run(&["start"]).success();
    world.sh("rm before && touch after").success();
    assert_eq!(owner(world.workspace.join("after")), (world.caller.uid, world.caller.gid));
}

fn after_a_restart_by_others(engine: Engine) {
    let world = World::up(engine);
    let name = world.pod();
    engine.client_stdout(&["restart", "-t", "5", &name]);
    // Without tazpod nobody mounts the workspace: then nobody works in the pod.
    world.wait_for("the pod to end", || {
        engine.client_stdout(&["inspect", "--format", "{{.State.Running}}", &name]) == "false"
    });
    world.run(&["exec", "--", "true"]).failure(125, "does not run");
    world.run(&["up", "--detach"]).success();
    world.sh("touch after").success();
    assert_eq!(owner(world.workspace.join("after")), (world.caller.uid, world.caller.gid));
}

fn a_git_worktree(engine: Engine) {
    let world = World::new(engine);
    let host = |line: &str| {
        let done = world.bash(line);
        assert_eq!(done.code, 0, "{line}: {}", done.stderr);
        done.stdout
    };
    host(
        "git init -q -b main ../main && git -C ../main -c user.name=N -c user.email=e@x commit -q --allow-empty -m first",
    );
    host("git -C ../main worktree add -q -b topic \"$PWD\"");
    let done = world.run(&["up", "--detach"]).success();
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    world.sh("git status --short && touch new && git add new").success();
    world.sh("git -c user.name=N -c user.email=e@x commit -q -m second").success();
    assert_eq!(host("git log --format=%s"), "second\nfirst\n");
    host("git -c user.name=N -c user.email=e@x commit -q --allow-empty -m third && git gc -q");
    assert_eq!(world.sh("git log --format=%s").success().stdout, "third\nsecond\nfirst\n");
    assert_eq!(host("find ../main . ! -uid $(id -u) -o ! -gid $(id -g)"), "", "all is the caller's");
    // The repository is there at its own path, and what is beside it is not.
    let main = world.directory.join("main");
    world.sh(&format!("test -d '{}/.git' && ! ls '{}' | grep .", main.display(), main.display())).success();
}

fn a_git_worktree_without_its_repository(engine: Engine) {
    let world = World::new(engine);
    world.write(".git", "gitdir: /nowhere/.git/worktrees/w\n");
    let done = world.run(&["up", "--detach"]).success();
    assert!(done.stderr.contains("`/nowhere/.git/worktrees/w` is not there"), "{}", done.stderr);
    world.sh("touch made").success();
}

fn host_ids(engine: Engine) {
    let worlds = match engine {
        Engine::Docker => vec![World::new(engine), world(engine, Caller { uid: 1234, gid: 2345 })],
        Engine::Podman => vec![World::new(engine)],
        // It maps the caller to 1000 whatever is wished.
        Engine::Rootless => return assert_eq!(ids_in_the_pod(&World::new(engine)), (1000, 1000)),
    };
    for world in worlds {
        let Caller { uid, gid } = world.caller;
        assert_eq!(ids_in_the_pod(&world), (uid, gid));
    }
}

/// With `--ownership host-ids`, after seeing that files and home are the user's.
fn ids_in_the_pod(world: &World) -> (u32, u32) {
    world.run(&["up", "--detach", "--ownership", "host-ids"]).success();
    world.sh("touch made && mkdir -p deep/er && rm -r deep").success();
    assert_eq!(owner(world.workspace.join("made")), (world.caller.uid, world.caller.gid));
    world.sh("cd && touch file && test -O . && whoami && sudo touch roots && rm -f roots").success();
    let ids = world.sh("id -u; id -g").success().stdout;
    let mut ids = ids.lines().map(|id| id.parse().unwrap());
    (ids.next().unwrap(), ids.next().unwrap())
}

/// Takes the workspace's mount away, as only root of the host can.
fn unmount_in(world: &World) {
    let pid = world.engine.client_stdout(&["inspect", "--format", "{{.State.Pid}}", &world.pod()]);
    // Rootless Podman's containers can be entered only as their own root.
    let namespaces: &[&str] =
        if world.engine == Engine::Rootless { &["-U", "-m", "-p"] } else { &["-m", "-p"] };
    let mut command = Command::new("nsenter");
    let output =
        command.args(["-t", &pid]).args(namespaces).args(["umount", "-l", "/workspace"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn a_mount_that_vanished(engine: Engine) {
    let world = World::up(engine);
    world.sh("touch before; sudo touch roots").success();
    unmount_in(&world);
    world.sh("touch lost").failure(125, "`/workspace` is not mounted in this pod");
    let status = world.run(&["status", "--json"]).success().json();
    assert!(status["problem"].as_str().unwrap().contains("`/workspace` is not mounted"), "{status}");
    if engine == Engine::Rootless {
        // An engine's own mount is not ours to make again.
        world.run(&["up", "--detach"]).failure(1, "`tazpod stop`");
        world.sh("true").failure(125, "not mounted");
        world.run(&["stop"]).success();
        world.run(&["start"]).success();
    } else {
        // Past the agent, too, nothing can be written beneath.
        let pod = world.pod();
        for user in ["1000", "0"] {
            for line in [
                "echo x > /workspace/lost",
                "sudo sh -c 'echo x > /workspace/lost'",
                "sudo mkdir /workspace/lost",
            ] {
                let output = engine.client(&["exec", "-u", user, &pod, "sh", "-c", line]);
                assert!(!output.status.success(), "{user}: {line}");
            }
        }
        engine.client(&["exec", "-u", "0", &pod, "mount", "-o", "remount,rw", "/workspace"]);
        engine.client(&["exec", "-u", "0", &pod, "umount", "/workspace"]);
        assert!(!engine.client(&["exec", "-u", "0", &pod, "touch", "/workspace/lost"]).status.success());
        let done = world.run(&["up", "--detach"]).success();
        assert!(done.stderr.contains("mounting /workspace again"), "{}", done.stderr);
    }
    world.sh("rm before && rm -f roots && touch after && ! ls | grep lost").success();
    assert_eq!(owner(world.workspace.join("after")), (world.caller.uid, world.caller.gid));
    assert_eq!(world.run(&["status", "--json"]).success().json()["problem"], serde_json::Value::Null);
}

/// A mount of the host, taken away at the end.
pub struct Mounted(PathBuf);

impl Mounted {
    /// An overlay on this directory of the world, the caller's.
    fn overlay(world: &World, on: &Path) -> Mounted {
        let layer = |name: &str| {
            let path = world.directory.join(name);
            std::fs::create_dir(&path).unwrap();
            chown(&path, Some(world.caller.uid), Some(world.caller.gid)).unwrap();
            path.display().to_string()
        };
        let options =
            format!("lowerdir={},upperdir={},workdir={}", layer("lower"), layer("upper"), layer("work"));
        Mounted::on(on, &["-t", "overlay", "-o", &options, "overlay"])
    }

    pub fn on(path: &Path, arguments: &[&str]) -> Mounted {
        let output = Command::new("mount").args(arguments).arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Mounted(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

/// Whether the engine sees what is mounted now. Rootless Podman has mounts of its own, into which the host's come where
/// they are shared, as systemd makes them.
fn sees_new_mounts(engine: Engine) -> bool {
    if engine != Engine::Rootless {
        return true;
    }
    let output =
        Command::new("findmnt").args(["-no", "PROPAGATION", "-T", &rig("TAZPOD_RIG_DIR")]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains("shared")
}

/// Where the engine has another directory at the workspace's path than the caller.
fn assert_hidden(world: &World) {
    let says = format!("what the engine mounts at `/workspace` is not `{}`", world.workspace.display());
    let done = world.run(&["up", "--detach"]).failure(4, &says);
    assert!(done.stderr.contains("restart the engine"), "{}", done.stderr);
    world.assert_nothing_left();
}

fn a_file_system_that_refuses(engine: Engine) {
    let mut callers = vec![engine.caller()];
    if engine == Engine::Docker {
        callers.push(Caller { uid: 1234, gid: 2345 });
    }
    for caller in callers {
        let world = world(engine, caller);
        let _overlay = Mounted::overlay(&world, &world.workspace);
        let workspace = world.workspace.display();
        if !sees_new_mounts(engine) {
            return assert_hidden(&world);
        }
        if engine == Engine::Rootless {
            // It needs no idmapped mount.
            world.run(&["up", "--detach"]).success();
        } else {
            let done = world.run(&["up", "--detach"]).failure(1, "its file system, overlay, refuses");
            assert!(done.stderr.contains(&format!("`{workspace}`")), "{}", done.stderr);
            assert!(done.stderr.contains("hint: `--ownership host-ids`"), "{}", done.stderr);
            world.assert_nothing_left();
            world.run(&["status"]).failure(6, "no pod");
            world.run(&["up", "--detach", "--ownership", "host-ids"]).success();
        }
        world.sh("touch made && mkdir -p deep/er").success();
        for name in ["made", "deep/er"] {
            assert_eq!(owner(world.workspace.join(name)), (caller.uid, caller.gid));
        }
        world.run(&["down"]).success();
        world.assert_nothing_left();
    }
}

fn a_refusing_file_system_below(engine: Engine) {
    let world = World::new(engine);
    let below = world.write("sub/mount/.keep", "").parent().unwrap().to_owned();
    let _overlay = Mounted::overlay(&world, &below);
    let done = world.run(&["up", "--detach"]).failure(1, "its file system, overlay, refuses");
    assert!(done.stderr.contains(&format!("`{}`", below.display())), "{}", done.stderr);
    world.assert_nothing_left();
}

fn a_file_system_in_ram(engine: Engine) {
    let world = World::new(engine);
    let options = format!("size=1m,uid={},gid={},mode=755", world.caller.uid, world.caller.gid);
    let _ram = Mounted::on(&world.workspace, &["-t", "tmpfs", "-o", &options, "tmpfs"]);
    if !sees_new_mounts(engine) {
        return assert_hidden(&world);
    }
    world.run(&["up", "--detach"]).success();
    world.sh("touch made").success();
    assert_eq!(owner(world.workspace.join("made")), (world.caller.uid, world.caller.gid));
}

fn the_pods_user_has_no_capabilities(engine: Engine) {
    let world = World::up(engine);
    let none = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n";
    assert_eq!(world.sh("grep -E 'Cap(Inh|Prm|Eff)' /proc/self/status").success().stdout, none);
    assert_eq!(world.sh("grep -E 'Cap(Inh|Prm|Eff)' /proc/1/status").success().stdout, none);
    assert_eq!(world.sh("grep CapAmb /proc/self/status").success().stdout, "CapAmb:\t0000000000000000\n");
    world.sh("cat /etc/shadow").failure(1, "Permission denied");
    assert_eq!(world.sh("sudo id -u").success().stdout, "0\n");
}
