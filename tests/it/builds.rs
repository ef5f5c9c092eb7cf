//! Images that are built inside a pod, with the distribution's Buildah and by tazpod there.

use crate::on_every_engine;
use crate::rig::{Engine, World};

on_every_engine!(images_are_built_in_a_pod);

/// What a pod needs for it, as docs/images.md says.
const BUILDER: &str = r"ARG PARENT
FROM ${PARENT}
USER root
RUN apt-get -q update \
 && apt-get -q install -y --no-install-recommends buildah crun libcap2-bin netavark podman uidmap \
 && chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap \
 && setcap cap_setuid+ep /usr/bin/newuidmap \
 && setcap cap_setgid+ep /usr/bin/newgidmap \
 && rm -rf /var/lib/apt/lists/*
USER tazpod
";

/// An image that is Busybox alone, with a file of another user's.
const INNER: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc && echo 'me:x:1000:1000::/:/bin/sh' >/etc/passwd && echo here >/hello && chown 33:33 /hello
"#;

const CATALOG: &str = "[[vertical]]
name = 'builder'
parent = 'base'
summary = ''
[[vertical]]
name = 'inner'
user = 'me'
home = '/'
summary = ''
verify = ['grep here /hello']
tools = [{ name = 'busybox', check = 'busybox | head -1' }]
";

fn images_are_built_in_a_pod(engine: Engine) {
    let world = World::new(engine);
    world.write(".tazpod/catalog.toml", CATALOG);
    world.write(".tazpod/builder/Containerfile", BUILDER);
    world.write(".tazpod/inner/Containerfile", INNER);
    std::fs::copy("/usr/bin/busybox", world.workspace.join(".tazpod/inner/busybox")).unwrap();
    let up = ["up", "builder", "--detach", "--allow-missing"];

    // As pods are, none can be built.
    world.run(&up).success();
    let own_root = "unshare --map-root-user chroot / true 2>&1";
    let refused = world.sh(own_root);
    assert!(refused.code != 0 && refused.stdout.contains("peration not permitted"), "{}", refused.stdout);
    let bounds = "grep Cap /proc/self/status; ls /dev";
    let before = world.sh(bounds).success().stdout;
    world.run(&["down"]).success();

    world.write(".tazpod/config.toml", "[pod]\nbuilds = true\n");
    let made = world.run(&up).success();
    assert!(made.stderr.contains("it may call chroot, clone, "), "{}", made.stderr);
    assert_eq!(world.sh(bounds).success().stdout, before);
    world.sh(own_root).success();
    // Buildah by itself, with the layers of others' users.
    let build = "cd .tazpod/inner && buildah build --isolation chroot -t inner . 2>&1";
    let built = world.sh(build).success().stdout;
    assert!(built.contains("Successfully tagged localhost/inner:latest"), "{built}");
    let listed = "buildah unshare sh -c 'stat -c %u:%g \"$(buildah mount \"$(buildah from inner)\")/hello\"'";
    assert_eq!(world.sh(listed).success().stdout.trim(), "33:33");
    // tazpod with the engine that Podman is there.
    world.wait_for("the pod's engine", || world.sh("test -S /var/lib/tazpod/builds/podman.sock").code == 0);
    let built = world.sh("tazpod build inner 2>&1").success().stdout;
    assert!(built.contains("busybox") && built.contains("built `localhost/tazpod-inner:latest`"), "{built}");
    let again = world.sh("tazpod build inner 2>&1").success().stdout;
    assert!(again.contains("is current"), "{again}");
    // A vertical that is not what it should be is not tagged.
    world.write(".tazpod/catalog.toml", &CATALOG.replace("grep here", "grep gone"));
    world.write(".tazpod/inner/Containerfile", &format!("{INNER}RUN true\n"));
    let wrong = world.sh("tazpod build inner 2>&1");
    assert!(wrong.code != 0 && wrong.stdout.contains("`grep gone /hello` ended with 1"), "{}", wrong.stdout);
    let tagged = world.sh("buildah images --format '{{.Name}}'").success().stdout;
    assert_eq!(tagged.lines().filter(|name| name.contains("tazpod-")).count(), 1, "{tagged}");

    // Nothing of it stays.
    world.run(&["down"]).success();
    world.assert_nothing_left();
    engine.client_stdout(&["rmi", "localhost/tazpod-builder:latest"]);
    assert_eq!(engine.client_stdout(&["volume", "ls", "-q"]).lines().count(), 0);
}
