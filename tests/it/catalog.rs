//! A project's own verticals, built on top of ours.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::errors::host_architecture;
use crate::rig::{Done, Engine, SmallPodman, TestImage, World, busybox, program};
use crate::services::Forward;

/// Not on rootless Podman, where fuse-overlayfs takes a minute for each layer over a gigabyte; the builder is the same.
mod docker {
    #[test]
    fn a_vertical_of_the_project() {
        super::a_vertical_of_the_project(crate::rig::Engine::Docker);
    }
    #[test]
    fn wrong_verticals() {
        super::wrong_verticals(crate::rig::Engine::Docker);
    }
    #[test]
    fn siblings() {
        super::siblings(crate::rig::Engine::Docker);
    }
    #[test]
    fn interrupted_siblings() {
        super::interrupted_siblings(crate::rig::Engine::Docker);
    }
    #[test]
    fn all_verticals() {
        super::all_verticals(crate::rig::Engine::Docker);
    }
}

mod podman {
    #[test]
    fn a_vertical_of_the_project() {
        super::a_vertical_of_the_project(crate::rig::Engine::Podman);
    }
    #[test]
    fn siblings() {
        super::siblings(crate::rig::Engine::Podman);
    }
    #[test]
    fn interrupted_siblings() {
        super::interrupted_siblings(crate::rig::Engine::Podman);
    }
    #[test]
    fn wrong_verticals() {
        super::wrong_verticals(crate::rig::Engine::Podman);
    }
    #[test]
    fn all_verticals() {
        super::all_verticals(crate::rig::Engine::Podman);
    }
}

fn read(desktop: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    desktop.read_exact(&mut bytes).unwrap();
    bytes
}

fn number(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// RFC 6143 up to the size of the screen, and how its pixels are to be sent.
fn greet(desktop: &mut TcpStream) -> (u16, u16) {
    assert_eq!(read(desktop, 12), b"RFB 003.008\n");
    desktop.write_all(b"RFB 003.008\n").unwrap();
    let count = read(desktop, 1)[0];
    // "None", 7.2.1; then that all is well, 7.1.3; then ClientInit, 7.3.1.
    assert!(read(desktop, count.into()).contains(&1));
    desktop.write_all(&[1]).unwrap();
    assert_eq!(read(desktop, 4), [0; 4]);
    desktop.write_all(&[1]).unwrap();
    let server = read(desktop, 24);
    read(desktop, number(&server[22..]).into());
    // SetPixelFormat, 7.5.1: 32 bits, little-endian, blue first; SetEncodings, 7.5.2: raw.
    let format = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
    desktop.write_all(&[&[0, 0, 0, 0][..], &format, &[2, 0, 0, 1, 0, 0, 0, 0]].concat()).unwrap();
    (number(&server), number(&server[2..]))
}

/// All of what is there to see, by FramebufferUpdateRequest, 7.5.3: pixels as 0xRRGGBB.
fn screen(desktop: &mut TcpStream, (width, height): (u16, u16)) -> Vec<u32> {
    let asked = [[0; 2], [0; 2], width.to_be_bytes(), height.to_be_bytes()].concat();
    desktop.write_all(&[&[3, 0][..], &asked].concat()).unwrap();
    let mut screen = vec![0; usize::from(width) * usize::from(height)];
    let mut missing = screen.len();
    while missing > 0 {
        let update = read(desktop, 4);
        assert_eq!(update[0], 0, "no FramebufferUpdate, 7.6.1");
        for _ in 0..number(&update[2..]) {
            let area = read(desktop, 12);
            assert_eq!(area[8..], [0; 4], "not raw, 7.7.1");
            let [x, y, columns, rows] = [0, 2, 4, 6].map(|at| usize::from(number(&area[at..])));
            for row in 0..rows {
                let pixels = read(desktop, columns * 4);
                let start = (y + row) * usize::from(width) + x;
                for (at, pixel) in pixels.chunks(4).enumerate() {
                    screen[start + at] = u32::from_le_bytes([pixel[0], pixel[1], pixel[2], 0]);
                }
            }
            missing = missing.saturating_sub(columns * rows);
        }
    }
    screen
}

/// Each test has a name of its own, so that tests do not meet.
fn vertical(world: &World, name: &str, parent: &str, containerfile: &str) {
    let entry = format!("tag = 'one'\n[[vertical]]\nname = '{name}'\nsummary = 'ours'\n{parent}\n");
    world.write(".tazpod/catalog.toml", &entry);
    world.write(&format!(".tazpod/{name}/Containerfile"), containerfile);
}

/// With all that the distribution, PyPI and npm supply; what else is missing is said.
fn all_verticals(engine: Engine) {
    let world = World::new(engine);
    let build = || {
        let program = program().to_string_lossy();
        let words = ["-k", "2", "1200", &program, "build", "all", "--allow-missing", "--json"];
        let done = Done::of(&world.bare_command("timeout", &words).output().unwrap());
        done.success().json()["images"].as_array().unwrap().clone()
    };
    let names = |images: &[Value]| {
        images.iter().map(|image| image["vertical"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let built = build();
    let tree = [
        "base",
        "aws",
        "k8s",
        "ai",
        "nvidia",
        "nvidia-python",
        "jupyter",
        "playwright",
        "devops",
        "githubrunner",
        "dev",
    ];
    assert_eq!(names(&built), tree);
    let expected = [
        "cannot reach ",
        "it comes by pixi, which is left out",
        "NVIDIA has CUDA 13.0 for Ubuntu 24.04, not for ",
    ];
    for image in built.iter().filter(|image| image["vertical"] != "base") {
        for tool in image["tools"].as_array().into_iter().flatten() {
            let left_out = tool["left_out"].as_str();
            assert!(left_out.is_none_or(|why| expected.iter().any(|start| why.starts_with(start))), "{tool}");
            assert!(left_out.is_some() || tool["version"].as_str().unwrap().contains('.'), "{tool}");
        }
    }
    let again = build();
    assert!(again.iter().all(|image| image["reason"].is_null()), "{again:?}");
    let table = world.run(&["images", "verify", "devops"]).success().stdout;
    let results = |tool: &str| table.lines().find(|line| line.starts_with(tool)).unwrap().to_owned();
    assert!(results("firebase").contains(" npm ") && results("firebase").ends_with(" ok"), "{table}");
    assert!(results("gcx").contains(" ok") || results("gcx").contains("missing: cannot reach "), "{table}");
    world.run(&["up", "ai", "--detach"]).success();
    let said = world.run(&["exec", "ai", "--", "aws", "--version"]).success();
    assert!(said.stdout.starts_with("aws-cli/2."), "{}", said.stdout);
    let added =
        world.run(&["exec", "ai", "--", "sh", "-c", "find / -xdev -name '*-ca.pem'; id -u"]).success();
    assert_eq!(added.stdout, "1000\n", "the host's certificates are for the build alone");
    world.run(&["down", "ai"]).success();
    notebooks_and_a_desktop(&world);
}

/// JupyterLab in a browser, and the desktop by RFC 6143, through their ports on this machine.
fn notebooks_and_a_desktop(world: &World) {
    world.run(&["up", "jupyter", "--detach"]).success();
    let line = Forward::start(world, &["jupyter"]).line();
    let mut forward = Forward::start(world, &["jupyter"]);
    let address = forward.line();
    let address = address.strip_prefix("jupyterlab: ").unwrap().trim_end();
    assert_eq!(address.split("token=").nth(1), line.trim_end().split("token=").nth(1));
    // The machine's own network: where the browser is must not matter.
    let browser = |address: &str| {
        let words = [
            "run",
            "--rm",
            "--network=host",
            "ghcr.io/tazpod/tazpod-playwright:stable",
            "timeout",
            "60",
            "chrome",
        ];
        let flags = ["--headless", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom", address];
        world.engine.client_stdout(&[&words[..], &flags].concat())
    };
    let page = browser(address);
    assert!(page.contains("jp-LauncherCard") && page.contains("jp-DirListing"), "{page}");
    let page = browser(address.split_once("?token=").unwrap().0);
    assert!(page.contains("Password or token:") && !page.contains("jp-DirListing"), "{page}");
    drop(forward);
    world.run(&["down", "jupyter"]).success();

    world.run(&["up", "playwright", "--detach"]).success();
    let mut forward = Forward::start(world, &["playwright"]);
    let address = forward.line();
    let mut desktop = TcpStream::connect(address.strip_prefix("wayvnc: vnc://").unwrap().trim_end()).unwrap();
    desktop.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let size = greet(&mut desktop);
    assert_eq!(size, (1920, 1080));
    // A terminal with its prompt, and the bar: letters of many shades.
    let started = Instant::now();
    loop {
        let colours = screen(&mut desktop, size).into_iter().collect::<HashSet<u32>>().len();
        if colours > 100 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{colours} colours");
    }
    let script = "import { chromium } from '/opt/tazpod/playwright/node_modules/@playwright/test/index.mjs';
        const browser = await chromium.launch({ channel: 'chrome', headless: false });
        const page = await browser.newPage();
        await page.setContent('<button onclick=\"this.textContent=6*7\">?</button>');
        await page.click('button');
        console.log(await page.textContent('button'));
        await browser.close();";
    let said =
        world.run(&["exec", "playwright", "--", "node", "--input-type=module", "-e", script]).success();
    assert_eq!(said.stdout, "42\n");
    drop(forward);
    world.run(&["down", "playwright"]).success();
}

fn a_vertical_of_the_project(engine: Engine) {
    let world = World::new(engine);
    // Of a run that failed.
    engine.client(&["rmi", "--force", "localhost/tazpod-acme:one"]);
    let stands = "ARG PARENT\nFROM ${PARENT}\nCOPY --chown=1000:1000 . /opt/acme/\n";
    let checks = "parent = 'base'\nverify = ['test -x /opt/acme/run.sh']\ntools = ['git']";
    vertical(&world, "acme", checks, stands);
    world.write(".tazpod/acme/.dockerignore", "secrets\n*.log\n!kept.log\nContainerfile\n");
    for name in ["run.sh", "secrets/key", "noise.log", "kept.log"] {
        world.write(&format!(".tazpod/acme/{name}"), "#!/bin/sh\necho it runs\n");
    }
    world
        .run(&["build", "acme", "--allow-missing"])
        .failure(5, "the image of `acme` is not what it should be: ");
    assert!(!engine.images().contains("tazpod-acme"));
    world.run(&["images", "verify", "acme"]).failure(5, "`localhost/tazpod-acme:one` is not there");
    world.bash("chmod 755 .tazpod/acme/run.sh").success();
    let good = fs::read_to_string(world.workspace.join(".tazpod/catalog.toml")).unwrap();
    world.write(".tazpod/catalog.toml", &good.replace("['git']", "['git', 'nowhere']"));
    let broken =
        world.run(&["build", "acme", "--allow-missing"]).failure(5, "`nowhere --version` ended with 127");
    assert!(!engine.images().contains("tazpod-acme"), "{}", broken.stderr);
    world.write(".tazpod/catalog.toml", &good);

    let done = world.run(&["up", "acme", "--detach", "--allow-missing"]).success();
    assert!(done.stderr.contains("built `localhost/tazpod-acme:one`"), "{}", done.stderr);
    let listed =
        world.run(&["exec", "acme", "--", "sh", "-c", "cd /opt/acme; find . -type f | sort"]).success();
    assert!(!listed.stdout.contains("secrets") && !listed.stdout.contains("noise"), "{}", listed.stdout);
    assert!(listed.stdout.contains("./kept.log\n./run.sh\n"), "{}", listed.stdout);
    assert_eq!(world.run(&["exec", "acme", "--", "/opt/acme/run.sh"]).success().stdout, "it runs\n");

    let table = world.run(&["images", "verify", "acme"]).success().stdout;
    let git = table.lines().find(|line| line.starts_with("git ")).unwrap();
    assert!(git.contains(" apt ") && git.ends_with(" ok"), "{table}");
    // As if somebody had given the name to another image.
    engine.client_stdout(&["tag", "ghcr.io/tazpod/tazpod-base:stable", "localhost/tazpod-acme:other"]);
    let catalog = fs::read_to_string(world.workspace.join(".tazpod/catalog.toml")).unwrap();
    world.write(".tazpod/catalog.toml", &catalog.replace("tag = 'one'", "tag = 'other'"));
    world.run(&["images", "verify", "acme"]).failure(5, "`test -x /opt/acme/run.sh` ended with 1");
    world.write(".tazpod/catalog.toml", &catalog);
    engine.client_stdout(&["rmi", "localhost/tazpod-acme:other"]);

    let listed = |world: &World| {
        let tree = world.run(&["images", "--json"]).success().json();
        let images = tree["images"].as_array().unwrap();
        images.iter().find(|image| image["vertical"] == "acme").unwrap().clone()
    };
    let acme = listed(&world);
    assert_eq!((acme["state"].as_str(), acme["parent"].as_str()), (Some("local"), Some("base")));
    let reason = |world: &World| {
        let report = world.run(&["build", "acme", "--dry-run", "--json", "--allow-missing"]).success().json();
        let images = report["images"].as_array().unwrap().clone();
        images.iter().find(|image| image["vertical"] == "acme").unwrap()["reason"].clone()
    };
    assert!(reason(&world).is_null());
    world.write(".tazpod/acme/noise.log", "more");
    assert!(reason(&world).is_null());
    world.write(".tazpod/acme/kept.log", "more");
    assert_eq!(reason(&world), "sources changed");
    let acme = listed(&world);
    assert_eq!(
        (acme["state"].as_str(), acme["reason"].as_str()),
        (Some("outdated"), Some("sources changed"))
    );
    world.run(&["down", "--all"]).success();

    let label = |name: &str| {
        let format = format!("{{{{index .Config.Labels \"{name}\"}}}}");
        engine.client_stdout(&["inspect", "--format", &format, "localhost/tazpod-acme:one"]).trim().to_owned()
    };
    let said = |name: &str| label(&format!("org.opencontainers.image.{name}"));
    assert_eq!(
        (said("title"), said("description"), said("version")),
        ("tazpod-acme".into(), "ours".into(), String::new())
    );
    assert_eq!(said("base.name"), "ghcr.io/tazpod/tazpod-base:stable");
    // Another project with a vertical of that name.
    let other = World::new(engine);
    vertical(&other, "acme", "parent = 'base'", "ARG PARENT\nFROM ${PARENT}\n");
    let directory = label("io.tazpod.directory");
    assert!(directory.ends_with("/.tazpod/acme"), "{directory}");
    let refused = other.run(&["up", "acme", "--detach"]);
    let refused = refused.failure(5, &format!("is the image of another project's `acme`, of `{directory}`"));
    assert!(refused.stderr.contains("`tazpod build acme`"), "{}", refused.stderr);
    let taken = other.run(&["build", "acme", "--allow-missing"]).success();
    assert!(taken.stderr.contains("was the image of another project"), "{}", taken.stderr);
    world.run(&["up", "acme", "--detach"]).failure(5, "is the image of another project's `acme`");
    let all = engine.images();
    assert!(!all.contains("tazpod-build:acme"), "{all}");
    engine.client_stdout(&["rmi", "localhost/tazpod-acme:one"]);
}

fn wrong_verticals(engine: Engine) {
    let world = World::new(engine);
    let build = || world.run(&["build", "broken", "--allow-missing"]);
    vertical(&world, "broken", "parent = 'base'", "FROM scratch\n");
    let done = build().failure(5, "the Containerfile of `broken` does not stand on its parent");
    assert!(done.stderr.contains("hint: begin it with `ARG PARENT`"), "{}", done.stderr);
    let alone = "user = 'root'\nhome = '/'";
    vertical(&world, "broken", alone, "FROM scratch\n\nCOPY nowhere /\n");
    build().failure(5, "(line 3 of its Containerfile)");
    vertical(&world, "broken", alone, "FRUM scratch\n");
    build().failure(5, "the image of `broken` did not build");
    fs::remove_file(world.workspace.join(".tazpod/broken/Containerfile")).unwrap();
    build().failure(5, "/.tazpod/broken/Containerfile`");
    for (parent, says) in [
        ("broken", "`broken` stands on itself"),
        ("other", "`broken` stands on itself"),
        ("k9s", "the parent `k9s` of `broken` is not there"),
    ] {
        let entry =
            |name, parent| format!("[[vertical]]\nname = '{name}'\nparent = '{parent}'\nsummary = ''\n");
        world.write(".tazpod/catalog.toml", &[entry("broken", parent), entry("other", "broken")].concat());
        let done = build().failure(3, &format!("catalog.toml`: {says}"));
        assert_eq!(done.stderr.contains("hint: did you mean `k8s`?"), parent == "k9s", "{}", done.stderr);
    }
    let all = engine.images();
    assert!(!all.contains("tazpod-build:broken") && !all.contains("tazpod-broken:one"), "{all}");
}

/// Of an image that others have built, its own user is the pod's.
#[test]
fn an_image_of_others() {
    let (engine, name) = (Engine::Docker, "localhost/tazpod-others-one:1");
    let world = World::new(engine);
    let busybox = busybox();
    let passwd = b"root:x:0:0::/:/bin/sh\njovian:x:1000:1000::/home/jovian:/bin/sh\n";
    let files = [("bin/sh", &busybox[..]), ("etc/passwd", passwd), ("home/jovian/here", b"")];
    let image = TestImage::load(engine, host_architecture(), &files);
    engine.client_stdout(&["tag", &image.name, name]);
    let entry = "[[foreign]]\nname = 'others'\nimage = 'localhost/tazpod-others-{name}:1'\nsummary = ''\nuser = 'jovian'\n\
                 home = '/home/jovian'\nnames = ['one']\n";
    world.write(".tazpod/catalog.toml", entry);
    world.run(&["up", "others:one", "--detach"]).success();
    let said = world.sh("echo $USER $HOME; pwd; test -e ~/here; echo $?; echo x >made").success();
    assert_eq!(said.stdout, "jovian /home/jovian\n/workspace\n0\n");
    let made = fs::metadata(world.workspace.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (world.caller.uid, world.caller.gid));
    world.run(&["down"]).success();
    engine.client_stdout(&["rmi", name]);
}

/// Two that are built at once, one that waits for its parent, and one that fails beside them.
fn siblings(engine: Engine) {
    let world = World::new(engine);
    let names = ["left", "right", "upon"];
    let references = names.map(|name| format!("localhost/tazpod-{name}:one"));
    for reference in &references {
        // Of a run that failed.
        engine.client(&["rmi", "--force", reference]);
    }
    let mut catalog = "tag = 'one'\n".to_owned();
    for (name, parent) in [("left", "base"), ("right", "base"), ("upon", "left")] {
        catalog.push_str(&format!("[[vertical]]\nname = '{name}'\nsummary = 'ours'\nparent = '{parent}'\n"));
        // Of no other's cache.
        let nonce = std::process::id();
        let times = format!("RUN : {name} {nonce}; date +%s >/tmp/begun; sleep 4; date +%s >/tmp/ended\n");
        world.write(
            &format!(".tazpod/{name}/Containerfile"),
            &format!("ARG PARENT\nFROM ${{PARENT}}\n{times}"),
        );
    }
    world.write(".tazpod/catalog.toml", &catalog);
    let build = |last: &str| {
        let report =
            world.run(&["build", "left", "right", last, "--allow-missing", "--json"]).success().json();
        let reason = |image: &Value| image["reason"].as_str().map(str::to_owned);
        report["images"].as_array().unwrap().iter().map(reason).collect::<Vec<_>>()
    };

    let containerfile = |name: &str| {
        fs::read_to_string(world.workspace.join(format!(".tazpod/{name}/Containerfile"))).unwrap()
    };
    let (left, right) = (containerfile("left"), containerfile("right"));
    world.write(".tazpod/right/Containerfile", "ARG PARENT\nFROM ${PARENT}\nRUN exit 7\n");
    let done = world.run(&["build", "right", "left", "--allow-missing"]);
    let done =
        done.failure(5, "the image of `right` did not build").failure(5, "error: did not build: `right`\n");
    let images = engine.images();
    assert!(images.contains(&references[0]) && !images.contains(&references[1]), "{images}\n{}", done.stderr);

    engine.client_stdout(&["rmi", &references[0]]);
    // Of no cache, again.
    world.write(".tazpod/left/Containerfile", &left.replace("RUN : ", "RUN : again "));
    world.write(".tazpod/right/Containerfile", &right);
    let missing = || Some("missing".to_owned());
    assert_eq!(build("upon"), [None, missing(), missing(), missing()]);
    let times = |reference: &str| {
        let said = engine.client_stdout(&[
            "run",
            "--rm",
            "--network=none",
            "--entrypoint",
            "cat",
            reference,
            "/tmp/begun",
            "/tmp/ended",
        ]);
        let mut numbers = said.lines().map(|line| line.parse::<u64>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    let [one, two, upon] = references.clone().map(|reference| times(&reference));
    assert!(one.0 < two.1 && two.0 < one.1, "not at once: {one:?} {two:?}");
    assert!(upon.0 >= one.1, "before its parent: {one:?} {upon:?}");

    let again = world.run(&["build", "left", "right", "upon", "--allow-missing"]).success();
    assert_eq!(again.stderr.matches("is current").count(), 4, "{}", again.stderr);
    world.write(".tazpod/left/Containerfile", &format!("{left}LABEL side=left\n"));
    let report =
        world.run(&["build", "upon", "right", "--dry-run", "--json", "--allow-missing"]).success().json();
    let reasons: Vec<_> =
        report["images"].as_array().unwrap().iter().map(|image| image["reason"].as_str()).collect();
    assert_eq!(reasons, [None, Some("sources changed"), Some("parent changed"), None]);
    for reference in references.iter().rev() {
        engine.client_stdout(&["rmi", reference]);
    }
}

/// None of them gets its name or leaves another; what was done is not done again.
fn interrupted_siblings(engine: Engine) {
    let world = World::new(engine);
    let names = ["early", "late"];
    for name in names {
        // Of a run that failed.
        engine.client(&["rmi", "--force", &format!("localhost/tazpod-{name}:one")]);
    }
    let mut catalog = "tag = 'one'\n".to_owned();
    for name in names {
        catalog.push_str(&format!("[[vertical]]\nname = '{name}'\nsummary = 'ours'\nparent = 'base'\n"));
    }
    world.write(".tazpod/catalog.toml", &catalog);
    // Of no other's cache.
    let nonce = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let write = |seconds: u32| {
        for name in names {
            let steps =
                format!("RUN : {name} {nonce}; printf 'done %s\\n' once\nRUN echo at it; sleep {seconds}\n");
            world.write(
                &format!(".tazpod/{name}/Containerfile"),
                &format!("ARG PARENT\nFROM ${{PARENT}}\n{steps}"),
            );
        }
    };
    write(60);
    let words = [&["-v", "build"], &names[..], &["--allow-missing"]].concat();
    let mut child = world
        .bare_command(&program().to_string_lossy(), &words)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut at_it = 0;
    let mut seen = Vec::new();
    for line in lines {
        at_it += usize::from(line.ends_with("at it"));
        seen.push(line);
        if at_it == names.len() {
            break;
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "{}", seen.join("\n"));
    assert_eq!(seen.iter().filter(|line| line.ends_with("done once")).count(), 2, "{}", seen.join("\n"));
    let started = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let images = engine.images();
    for name in names {
        assert!(!images.contains(&format!("localhost/tazpod-{name}:")), "{images}");
        assert!(!images.contains(&format!("tazpod-build:{name}-")), "{images}");
    }

    write(0);
    let again = world.run(&words).success().stderr;
    assert!(!again.lines().any(|line| line.ends_with("done once")), "{again}");
    for name in names {
        // Podman is still at the step that was interrupted.
        engine.client_stdout(&["rmi", "--force", &format!("localhost/tazpod-{name}:one")]);
    }
}

#[test]
fn a_disk_that_fills_up_in_a_build() {
    let mut world = World::new(Engine::Podman);
    let podman = SmallPodman::start(&mut world, 40, "");
    vertical(&world, "big", "user = 'root'\nhome = '/'", "FROM scratch\nCOPY big /\n");
    // The first fits once, the second not at all, of which Podman says nothing.
    for (size, says) in [(15, "no space left on device"), (45, "the engine does not say why")] {
        world.bash(&format!("head -c {size}000000 /dev/urandom >.tazpod/big/big")).success();
        let done = world.run(&["build", "big"]).failure(5, says);
        assert!(done.stderr.contains("hint: make room on the engine's disk"), "{}", done.stderr);
        assert!(done.stderr.len() < 1500, "{}", done.stderr);
        assert_eq!(podman.client(&["images", "--quiet"]), "");
    }
}

/// As in a partial clone whose server is silent.
#[test]
fn a_git_that_never_answers() {
    let mut world = World::new(Engine::Docker);
    let program = world.write("bin/git", "#!/bin/sh\ntouch asked; exec sleep 60\n");
    world.bash(&format!("chmod 755 {}", program.display())).success();
    let bin = program.parent().unwrap().to_string_lossy().into_owned();
    world.environment.push(("PATH".into(), format!("{bin}:/usr/bin:/bin")));
    let words = ["images", "affected", "--since", "HEAD"];
    let mut child = world.bare_command(&crate::rig::program().to_string_lossy(), &words).spawn().unwrap();
    world.wait_for("git", || world.workspace.join("asked").exists());
    let started = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// Apptainer is in no distribution here: a stand-in sees what it is asked.
#[test]
fn a_file_for_apptainer() {
    let mut world = World::new(Engine::Docker);
    let pull = |world: &World| world.run(&["pull", "base", "--sif", "base.sif"]);
    pull(&world)
        .failure(5, "there is no `apptainer` here")
        .failure(5, "`apptainer pull base.sif docker://ghcr.io/tazpod/tazpod-base:stable`");
    let program = world.write(
        "bin/apptainer",
        "#!/bin/sh\n[ \"$1 $2\" = 'pull --force' ] || exit 9\necho \"$4\" >\"$3\"\n. ./then\n",
    );
    world.bash(&format!("chmod 755 {}", program.display())).success();
    let bin = program.parent().unwrap().to_string_lossy().into_owned();
    world.environment.push(("PATH".into(), format!("{bin}:/usr/local/bin:/usr/bin:/bin")));
    let left = || fs::read_dir(&world.workspace).unwrap().count();
    world.write("then", "echo it broke off >&2; exit 7\n");
    let before = left();
    pull(&world).failure(5, "`apptainer` ended with exit status: 7").failure(5, "it broke off");
    assert_eq!(left(), before, "what was half written stays");
    world.write("then", "");
    pull(&world).success();
    let made = fs::read_to_string(world.workspace.join("base.sif")).unwrap();
    assert_eq!(made, "docker://ghcr.io/tazpod/tazpod-base:stable\n");
    pull(&world).failure(2, "`base.sif` is there already");
    world.run(&["pull", "base", "aws", "--sif", "x"]).failure(2, "hint: name one vertical");
}
