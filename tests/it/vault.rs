//! The vault, from a machine that makes it to another that opens it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};

use crate::on_every_engine;
use crate::ownership::Mounted;
use crate::rig::{Done, Engine, World, rig};
use crate::terminal::Terminal;

on_every_engine!(
    a_whole_life,
    a_wrong_passphrase_opens_nothing,
    what_is_not_locked_is_saved_when_the_pod_stops,
    two_pods,
    two_machines,
    a_whole_life_in_a_bucket,
    what_is_added_and_removed,
    what_a_program_has_mapped,
    what_goes_past_the_spool,
    what_a_pod_holds_when_it_ends,
    a_passphrase_that_does_not_come,
    from_inside_the_pod,
    variables_of_new_sessions,
    it_locks_by_itself,
    earlier_states_and_another_passphrase,
    what_cannot_be_read_stays,
    a_hostile_spool,
    nothing_of_it_is_in_plaintext,
    a_memory_that_is_full,
    a_disk_that_is_full,
);

const PASSPHRASE: &str = "six words by chance are enough\n";
/// Nothing else of the tests has this in it.
const MARKER: &str = "m4rk3r-0f-4-s3cr3t";
const NEW_PASSPHRASE: &str = "another six words by chance now\n";
/// What is nowhere in plaintext.
const SECRETS: [&str; 4] = [MARKER, "AGE-SECRET-KEY", PASSPHRASE, NEW_PASSPHRASE];

/// A machine whose store is this directory.
fn machine(engine: Engine, store: &Path) -> World {
    let world = World::new(engine);
    let config = world.directory.join("config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), format!("[vault]\naddress = \"{}\"\n", store.display())).unwrap();
    for path in [config.join("config.toml"), config] {
        std::os::unix::fs::chown(path, Some(world.caller.uid), Some(world.caller.gid)).unwrap();
    }
    world
}

/// A store that the callers of these machines may write.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

fn vault(world: &World, arguments: &[&str]) -> Done {
    let words: Vec<&str> = ["vault"].iter().chain(arguments).copied().collect();
    world.run_with(&words, PASSPHRASE.as_bytes())
}

fn init(world: &World) -> String {
    let done = vault(world, &["init", "--passphrase-fd", "0"]).success();
    let line = done.stderr.lines().find_map(|line| line.strip_prefix("fingerprint: ")).unwrap();
    line.to_owned()
}

fn unlock(world: &World) -> Done {
    vault(world, &["unlock", "--passphrase-fd", "0"])
}

fn status(world: &World) -> serde_json::Value {
    vault(world, &["status", "--json"]).success().json()
}

fn a_whole_life(engine: Engine) {
    let store = place();
    let here = machine(engine, &store.path().join("vault"));
    vault(&here, &["status"]).success();
    vault(&here, &["card"])
        .failure(10, "hint: `tazpod vault pull` fetches yours, `tazpod vault init` makes one");
    let fingerprint = init(&here);
    vault(&here, &["init", "--passphrase-fd", "0"]).failure(12, "this machine has a vault already");
    here.run(&["up", "--detach"]).success();
    unlock(&here).success();
    here.sh("cd /run/vault/open && mkdir -p .aws d && echo secret >d/token && chmod 400 d/token && echo key >.aws/credentials").success();
    assert_eq!(here.sh("stat -c %a /run/vault/open").success().stdout, "700\n");
    assert_eq!(here.sh("findmnt -no FSTYPE -T /run/vault/open").success().stdout, "tmpfs\n");
    let done = vault(&here, &["save"]).success();
    assert!(done.stderr.contains("saved as commit 2: 2 files"), "{}", done.stderr);
    assert!(vault(&here, &["save"]).success().stderr.contains("nothing has changed"));
    assert_eq!(status(&here)["pending"], serde_json::json!([2]));

    let mut holder =
        here.command("sh", &["-c", "exec $tazpod exec -- sh -c 'cd /run/vault/open; exec sleep 60'"]);
    let mut holder = holder.env("tazpod", crate::rig::program()).spawn().unwrap();
    here.wait_for("a program to work in the vault", || {
        here.sh("readlink /proc/[0-9]*/cwd").stdout.contains("/run/vault/open")
    });
    here.sh("echo more >>/run/vault/open/.aws/credentials").success();
    // What is mapped needs no descriptor any more; what another user's program has nobody sees; a file may have a name outside.
    let maps = "import mmap, time; f = open('/run/vault/open/d/token'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); f.close(); time.sleep(60)";
    here.sh(&format!("setsid python3 -c \"{maps}\" </dev/null >/dev/null 2>&1 &")).success();
    here.sh("setsid sudo sleep 60 </dev/null >/dev/null 2>&1 & cd /run/vault && ln open/d/token copy && touch $(printf '\\377')")
        .success();
    here.wait_for("a program to map a file of the vault", || {
        here.sh("cat /proc/[0-9]*/maps 2>/dev/null | grep -c /d/token").stdout != "0\n"
            && here.sh("pgrep -u root -x sleep").code == 0
    });
    let done = vault(&here, &["lock"]).success();
    for said in ["`python3` (", "cannot be looked into", "`/run/vault/copy` is left in the pod's memory"] {
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
    }
    here.sh("cd /run/vault && rm -f copy $(printf '\\377')").success();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(done.stderr.contains("`sleep` ("), "{}", done.stderr);
    assert!(
        done.stderr.contains("pushed commit 2") || done.stderr.contains("pushed commit 3"),
        "{}",
        done.stderr
    );
    here.sh("test ! -e /run/vault/open/d").success();
    vault(&here, &["lock"]).failure(10, "the vault is locked");
    vault(&here, &["save"]).failure(10, "the vault is locked");
    let now = status(&here);
    assert_eq!((now["pending"].clone(), now["open"].clone()), (serde_json::json!([]), serde_json::json!([])));
    assert_eq!(now["fingerprint"], fingerprint.as_str());

    // Another machine, with nothing but the card and the passphrase.
    let card = vault(&here, &["card"]).success().stdout;
    assert!(card.contains(&format!("tazpod vault pull --card {fingerprint}")), "{card}");
    assert!(!card.contains("AGE-SECRET-KEY"), "{card}");
    let there = machine(engine, &store.path().join("vault"));
    vault(&there, &["pull", "--card", &"0".repeat(64)]).failure(13, "is not the one on the card");
    assert!(status(&there)["commit"].is_null());
    vault(&there, &["pull", "--card", &fingerprint]).success();
    there.run(&["up", "--detach"]).success();
    unlock(&there).success();
    let listed = there.sh("cd /run/vault/open && find . -type f -exec stat -c '%n %a' {} + | sort && cat d/token .aws/credentials ~/.aws/credentials");
    assert_eq!(
        listed.success().stdout,
        "./.aws/credentials 644\n./d/token 400\nsecret\nkey\nmore\nkey\nmore\n"
    );

    let history = vault(&there, &["history", "--json"]).success().json();
    let kinds: Vec<_> =
        history["commits"].as_array().unwrap().iter().map(|commit| commit["kind"].clone()).collect();
    assert_eq!(kinds.last().unwrap(), "init");
    by_hand(&here, &store.path().join("vault"));
}

/// With age, zstd and tar alone, as `docs/vault-format.md` has it.
fn by_hand(world: &World, store: &Path) {
    let recipe = include_str!("../../docs/vault-format.md");
    let lines = recipe
        .lines()
        .skip_while(|line| !line.starts_with("    commit="))
        .take_while(|line| line.starts_with("    "));
    let script: String = lines.map(|line| format!("{}\n", line.trim())).collect();
    assert!(script.contains("age -d -i ids"), "{script}");
    let copy = world.directory.join("copy");
    let copied = Command::new("cp").arg("-r").arg(store).arg(&copy).status().unwrap();
    assert!(copied.success());
    let line = format!("set -e; cd {}; {script} cat d/token; echo read: done", copy.display());
    let mut terminal = Terminal::program(world, &["bash".into(), "-c".into(), line], 24, 80);
    terminal.wait("passphrase");
    terminal.send(PASSPHRASE);
    terminal.wait("read: done");
    assert!(terminal.text().contains("secret"), "{}", terminal.text());
}

fn a_wrong_passphrase_opens_nothing(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    for (passphrase, says) in
        [("\n", "is empty"), ("short\n", "is easy to guess"), ("aaaaaaaaaaaaaaaa\n", "is easy to guess")]
    {
        world.run_with(&["vault", "init", "--passphrase-fd", "0"], passphrase.as_bytes()).failure(11, says);
    }
    vault(&world, &["init"]).failure(2, "hint: `--passphrase-fd FD` reads it");
    assert!(fs::read_dir(store.path().join("vault/commits")).is_err());
    init(&world);
    world.run(&["up", "--detach"]).success();
    let wrong = world.run_with(&["vault", "unlock", "--passphrase-fd", "0"], b"six words by mistake\n");
    wrong.failure(11, "this is not the vault's passphrase");
    let mut terminal = Terminal::start(&world, &["vault", "unlock"]);
    for n in 1..=3 {
        terminal.wait("passphrase of the vault: ");
        // What it says of each try is its own line.
        terminal
            .wait_until("another question", |text| text.matches("passphrase of the vault: ").count() == n);
        terminal.send("wrong\n");
    }
    assert_eq!(terminal.end(), 11);
    assert!(!terminal.text().contains("wrong\n"), "{}", terminal.text());
    world.sh("test ! -e /run/vault/open").success();
    unlock(&world).success();
    unlock(&world).failure(10, "is open in");
}

fn what_is_not_locked_is_saved_when_the_pod_stops(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    world.sh("echo one >/run/vault/open/a").success();
    world.run(&["stop"]).success();
    assert_eq!(status(&world)["pending"], serde_json::json!([2]));
    world.run(&["start"]).success();
    world.sh("test ! -e /run/vault/open/a").success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/a; echo two >/run/vault/open/b").success().stdout, "one\n");
    world.run(&["down"]).success();
    vault(&world, &["push"]).success();
    assert_eq!(status(&world)["pushed"], status(&world)["commit"]);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/a /run/vault/open/b").success().stdout, "one\ntwo\n");
    // A pod that is killed loses what was not saved, and nothing else.
    world.sh("rm /run/vault/open/a").success();
    vault(&world, &["save"]).success();
    world.sh("echo three >/run/vault/open/c").success();
    engine.client_stdout(&["kill", &world.pod()]);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("ls /run/vault/open").success().stdout, "b\n");
}

/// The first one saves, the second one's saves are held.
fn two_pods(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    let other = world.directory.join("other");
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::chown(&other, Some(world.caller.uid), Some(world.caller.gid)).unwrap();
    let other = other.to_string_lossy().into_owned();
    world.run(&["up", "--detach", "-C", &other]).success();
    let sh = |line: &str| world.run(&["exec", "-C", &other, "--", "sh", "-c", line]).success();
    unlock(&world).success();
    world.sh("echo first >/run/vault/open/a").success();
    vault(&world, &["save"]).success();
    let done = vault(&world, &["unlock", "--passphrase-fd", "0", "-C", &other]).success();
    assert!(done.stderr.contains(&format!("it is open in `{}` first", world.pod())), "{}", done.stderr);
    assert_eq!(sh("cat /run/vault/open/a").stdout, "first\n");
    for text in ["second", "third"] {
        sh(&format!("sleep 1; echo {text} >/run/vault/open/a"));
        vault(&world, &["save", "-C", &other]).failure(12, "the save is held, because the vault was open in");
    }
    vault(&world, &["save", "--force", "-C", &other]).failure(12, "the save is held");
    world.sh("echo more >>/run/vault/open/a").success();
    vault(&world, &["lock"]).success();
    vault(&world, &["lock", "-C", &other]).failure(12, "the save is held");
    assert_eq!(status(&world)["open"], serde_json::json!([]));
    let history = vault(&world, &["history", "--json"]).success().json();
    let of_state = |state: &str| {
        let commits = history["commits"].as_array().unwrap().clone();
        commits.into_iter().filter(|commit| commit["state"] == state).collect::<Vec<_>>()
    };
    assert_eq!((of_state("pushed").len(), of_state("pending").len()), (3, 0));
    // The newest of them has what the pod had last; nothing is lost.
    let held = of_state("held");
    let newest = held[0]["hash"].as_str().unwrap();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/a").success().stdout, "first\nmore\n");
    vault(&world, &["lock"]).success();
    vault(&world, &["restore", &newest[..12], "--passphrase-fd", "0"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/a").success().stdout, "third\n");
    world.run(&["down", "-C", &other]).success();
}

/// init, add, lock, push, and on a second machine pull, unlock, compare: on a server of S3's kind.
fn a_whole_life_in_a_bucket(engine: Engine) {
    let bucket = crate::bucket();
    let machine = || {
        let mut world = World::new(engine);
        let config = world.directory.join("config");
        fs::create_dir_all(&config).unwrap();
        let text = format!("[vault]\naddress = \"s3://{}/vault\"\nendpoint = \"{}\"\n", bucket.0, bucket.1);
        fs::write(config.join("config.toml"), text).unwrap();
        let keys = crate::servers::keys();
        world.environment.push(("AWS_ACCESS_KEY_ID".into(), keys.id));
        world.environment.push(("AWS_SECRET_ACCESS_KEY".into(), keys.secret));
        world
    };
    let here = machine();
    let fingerprint = init(&here);
    here.run(&["up", "--detach"]).success();
    unlock(&here).success();
    let files = here.write("secrets/.aws/credentials", "[default]\naws_access_key_id = X\n");
    let secrets = files.parent().unwrap().parent().unwrap();
    fs::write(secrets.join("blob"), (0..3_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .unwrap();
    let sum = "cd /run/vault/open && find . -type f | sort | xargs sha256sum";
    vault(&here, &["import", &secrets.to_string_lossy()]).success();
    let before = here.sh(sum).success().stdout;
    assert_eq!(before.lines().count(), 2, "{before}");
    vault(&here, &["lock", "--no-push"]).success();
    vault(&here, &["push"]).success();
    let there = machine();
    vault(&there, &["pull", "--card", &fingerprint]).success();
    there.run(&["up", "--detach"]).success();
    unlock(&there).success();
    assert_eq!(there.sh(sum).success().stdout, before);
    // And back again.
    there.sh("echo there >/run/vault/open/.aws/config").success();
    vault(&there, &["lock"]).success();
    vault(&here, &["pull"]).success();
    unlock(&here).success();
    assert_eq!(here.sh("cat ~/.aws/config").success().stdout, "there\n");
    let verified = vault(&here, &["verify", "--read-data", "--json"]).success().json();
    assert_eq!((verified["commits"].as_u64(), verified["problems"].as_array().unwrap().len()), (Some(3), 0));
    vault(&here, &["unlock", "--passphrase-fd", "0"]).failure(10, "is open in");
}

/// The paths that `vault ls --json` lists.
fn names(listed: &serde_json::Value) -> Vec<String> {
    let entries = listed["entries"].as_array().unwrap().iter();
    entries.map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
}

fn what_is_added_and_removed(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    world.write("keys/id", "secret");
    world.write("keys/deep/other", "other");
    world.write("kubeconfig", "cluster");
    std::os::unix::fs::symlink("id", world.workspace.join("keys/link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", world.workspace.join("keys/outside")).unwrap();
    vault(&world, &["add", "kubeconfig"]).failure(10, "the vault is locked");
    unlock(&world).success();
    assert!(vault(&world, &["ls"]).success().stderr.contains("the vault is empty"));
    vault(&world, &["add", "kubeconfig", "--to", ".kube"]).success();
    let done = vault(&world, &["add", "keys"]).success();
    assert!(done.stderr.contains("outside` is not added: a link to"), "{}", done.stderr);
    let listed = vault(&world, &["ls", "--json"]).success().json();
    assert_eq!(
        names(&listed),
        [".kube", ".kube/kubeconfig", "keys", "keys/deep", "keys/deep/other", "keys/id", "keys/link"]
    );
    assert_eq!(
        world.sh("cat ~/.kube/kubeconfig /run/vault/open/keys/link").success().stdout,
        "clustersecret"
    );
    // All or nothing.
    world.write("keys/id", "newer");
    world.write("keys/fresh", "fresh");
    let done = vault(&world, &["add", "keys"]).failure(12, "is in the vault already; nothing was added");
    assert!(done.stderr.contains("hint: `--force` replaces it"), "{}", done.stderr);
    world.sh("test ! -e /run/vault/open/keys/fresh").success();
    vault(&world, &["add", "keys", "--force"]).success();
    assert_eq!(world.sh("cat /run/vault/open/keys/id").success().stdout, "newer");
    vault(&world, &["add", "missing"]).failure(1, "cannot read `missing`");
    // Deeper than paths can say.
    let made = world.write("deep/x", "x");
    let name = "n".repeat(255);
    let mut above = rustix::fs::open(made.parent().unwrap(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..17 {
        rustix::fs::mkdirat(&above, &name, Mode::from_raw_mode(0o755)).unwrap();
        above = rustix::fs::openat(&above, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let done = vault(&world, &["add", "deep"]).failure(1, "2 of these are not in the vault as they are here");
    assert!(done.stderr.contains("its path is longer than 4095 bytes"), "{}", done.stderr);
    assert!(done.stderr.contains("hint: remove nothing yet"), "{}", done.stderr);
    assert_eq!(world.sh("cat /run/vault/open/deep/x").success().stdout, "x");
    vault(&world, &["rm", "-r", "deep"]).success();
    vault(&world, &["add", "kubeconfig", "--to", "../x"]).failure(2, "below the vault's own root");
    // Not through what programs in the pod have put there.
    world.sh("ln -s /workspace /run/vault/open/way").success();
    vault(&world, &["add", "kubeconfig", "--to", "way"]).failure(12, "is a file or a link in the vault");
    vault(&world, &["rm", "way/kubeconfig"]).failure(2, "is not in the vault");
    vault(&world, &["rm", "way", "keys"]).failure(2, "`keys` is a directory");
    vault(&world, &["rm", "nothing"]).failure(2, "hint: `tazpod vault ls` lists what is");
    vault(&world, &["rm", "-r", "way", "keys"]).success();
    assert_eq!(names(&vault(&world, &["ls", "--json"]).success().json()), [".kube", ".kube/kubeconfig"]);
    assert!(world.workspace.join("kubeconfig").exists());
    // A file of variables, and what is none.
    world.write("good.env", "# of the team\nexport TOKEN='a b'\nURL=https://x/y?z=1\n");
    world.write("bad.env", "TOKEN=1\nnot a variable\n");
    let done = vault(&world, &["import", "bad.env"]).failure(2, "has a line that is not NAME=VALUE");
    assert!(!done.stderr.contains("not a variable"), "{}", done.stderr);
    assert!(vault(&world, &["import", "good.env"]).success().stderr.contains("TOKEN, URL"));
    vault(&world, &["import", "good.env"]).failure(12, "is in the vault already");
    vault(&world, &["import", "kubeconfig"]).failure(2, "hint: `--format legacy|directory|env`");
    // Of the predecessor: the file of `vault::legacy`'s own test, made by another program.
    let sealed = include_str!("../../src/vault/legacy.rs").split("const SEALED: &str = \"").nth(1).unwrap();
    let sealed = STANDARD.decode(sealed.split('"').next().unwrap()).unwrap();
    world.write("old.tar.aes", "");
    fs::write(world.workspace.join("old.tar.aes"), sealed).unwrap();
    let import = ["vault", "import", "old.tar.aes", "--to", "old", "--passphrase-fd", "0"];
    let wrong = "is not the passphrase of that vault, or the file is damaged";
    world.run_with(&import, b"not this\n").failure(11, wrong);
    world.run_with(&import, b"an old passphrase\n").success();
    assert_eq!(world.sh("cat /run/vault/open/old/.aws/credentials").success().stdout, "key = legacy\n");
}

/// No time tells that a program has written to a page that it had mapped before.
fn what_a_program_has_mapped(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    world.sh("echo one >/run/vault/open/db; echo other >/run/vault/open/other").success();
    let program = "import mmap, os, sys, time
file = open('/run/vault/open/db', 'r+b')
pages = mmap.mmap(file.fileno(), 4)
file.close()
if sys.argv[1] == 'writes': pages[0:3] = b'two'
assert pages[3:] == b'\\n'
open('/tmp/begun', 'w')
while not os.path.exists('/tmp/go'): time.sleep(0.05)
pages[0:3] = sys.argv[2].encode()
pages.close()
open('/tmp/done', 'w')
";
    world.write("program.py", program);
    let begin = |how: &str| {
        world.sh("rm -f /tmp/begun /tmp/go /tmp/done").success();
        world.sh(&format!("setsid python3 program.py {how} </dev/null >/dev/null 2>&1 &")).success();
        world.wait_for("the first of it", || world.sh("test -e /tmp/begun").code == 0);
    };
    let go_on = || {
        world.sh("touch /tmp/go").success();
        world.wait_for("the rest of it", || world.sh("test -e /tmp/done").code == 0);
    };
    begin("writes red");
    vault(&world, &["save"]).success();
    go_on();
    // By itself it saves what shows; who asks, or locks, gets all.
    if engine != Engine::Docker {
        assert!(vault(&world, &["save"]).success().stderr.contains("saved as commit"));
        assert!(vault(&world, &["save"]).success().stderr.contains("nothing has changed"));
    }
    vault(&world, &["lock"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/db").success().stdout, "red\n");
    // What is as it was is no new commit.
    let commit = status(&world)["commit"].clone();
    vault(&world, &["lock"]).success();
    assert_eq!(status(&world)["commit"], commit);
    // Who has only read it before leaves no trace at all.
    unlock(&world).success();
    begin("reads new");
    go_on();
    vault(&world, &["lock"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/db").success().stdout, "new\n");
    // Nor in a save that is held.
    world.sh("cd /run/vault/open && echo 3 >3; echo 4 >4").success();
    vault(&world, &["save"]).success();
    begin("writes end");
    world.sh("cd /run/vault/open && rm 3 4 other").success();
    vault(&world, &["save"]).failure(12, "it has 1 of 4 files");
    go_on();
    vault(&world, &["lock"]).failure(12, "the save is held");
    let contents = held_contents(&world, "db");
    assert!(contents.contains(&"end\n".to_owned()), "{contents:?}");
}

/// What the saves that are held have in this file. Restores them.
fn held_contents(world: &World, file: &str) -> Vec<String> {
    let history = vault(world, &["history", "--json"]).success().json();
    let commits = history["commits"].as_array().unwrap().iter();
    let held = commits.filter(|commit| commit["state"] == "held");
    held.map(|commit| {
        let hash = commit["hash"].as_str().unwrap();
        vault(world, &["restore", hash, "--passphrase-fd", "0"]).success();
        unlock(world).success();
        let found = world.sh(&format!("cat /run/vault/open/{file}")).success().stdout;
        vault(world, &["lock"]).success();
        found
    })
    .collect()
}

/// What the host asks for comes to it at once; where a program of the pod takes something away, by the spool.
fn what_goes_past_the_spool(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    let spooled = || world.sh("ls /run/tazpod/vault/gen 2>/dev/null").stdout;
    let save = |content: &str| {
        let write = format!("head -c 3000000 /dev/urandom >large; echo {content} >a");
        world.sh(&format!("cd /run/vault/open; {write}")).success();
        vault(&world, &["save"]).success();
    };
    save("first");
    assert_eq!(status(&world)["pending"], serde_json::json!([2]));
    // Nothing was ever there.
    assert_eq!(spooled(), "");
    world.sh("echo more >/run/vault/open/b; tazpod vault save").success();
    assert!(spooled().contains(".age"), "{}", spooled());
    let thief =
        "setsid sh -c 'while :; do timeout 1 cat /run/tazpod/sealed; done' </dev/null >/dev/null 2>&1 &";
    world.sh(thief).success();
    for content in ["second", "third"] {
        save(content);
    }
    world.sh("pkill -f '[r]un/tazpod/sealed'").success();
    assert_eq!(world.run(&["vault", "history", "--json"]).success().json()["commits"][0]["n"], 4);
    vault(&world, &["lock"]).success();
    unlock(&world).success();
    assert_eq!(
        world.sh("cd /run/vault/open; cat a b; stat -c %s large").success().stdout,
        "third\nmore\n3000000\n"
    );
}

/// Whatever is wrong with the vault when its pod ends: what can be saved is there afterwards.
fn what_a_pod_holds_when_it_ends(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    world.sh("cd /run/vault/open && for n in 1 2 3 4; do echo $n >$n; done").success();
    vault(&world, &["save"]).success();
    world.sh("cd /run/vault/open && rm 1 2 3").success();
    vault(&world, &["save"]).failure(12, "it has 1 of 4 files");
    world.sh("cd /run/vault/open && echo edited >4; echo roots | sudo tee roots >/dev/null; sudo chmod 600 roots").success();
    engine.client_stdout(&["stop", &world.pod()]);
    vault(&world, &["push"]).success();
    world.run(&["start"]).success();
    let contents = held_contents(&world, "4");
    assert!(contents.len() == 2 && contents.contains(&"edited\n".to_owned()), "{contents:?}");
}

/// Whoever gives the passphrase takes their time, and is then not waited for any more.
fn a_passphrase_that_does_not_come(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    for (command, source) in [("unlock", "--passphrase-fd"), ("passphrase", "--passphrases-fd")] {
        let mut child = world
            .bare_command(&crate::rig::program().to_string_lossy(), &["vault", command, source, "0"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"half of it").unwrap();
        world.wait_for("it to be read", || rustix::io::ioctl_fionread(&stdin).unwrap() == 0);
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(130), "{}", String::from_utf8_lossy(&done.stderr));
    }
    unlock(&world).success();
}

fn from_inside_the_pod(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    let inside = |line: &str| world.sh(&format!("PATH=$PATH:$HOME/.local/bin; {line}"));
    assert!(inside("tazpod vault status").success().stdout.contains("the vault is locked"));
    inside("tazpod vault ls").failure(10, "the vault is locked");
    inside("tazpod vault unlock").failure(2, "that is done outside");
    // Its own terminal is not asked: what is typed there, programs of the pod may read.
    let mut terminal = Terminal::start(&world, &["attach"]);
    terminal.wait("❯");
    terminal.send("tazpod vault unlock; echo it ended: $?\r");
    terminal.wait("the passphrase is then asked for outside the pod");
    let wrong = |terminal: &mut Terminal| {
        for n in 1..=3 {
            terminal.wait_until("a question", |text| text.matches("passphrase of the vault: ").count() == n);
            terminal.send("wrong\n");
        }
    };
    terminal.escape("u");
    wrong(&mut terminal);
    terminal.wait("Enter goes on to the session");
    terminal.send("\r");
    // The session's screen, as it was; and once more.
    let question = "passphrase of the vault: ";
    terminal
        .wait_until("the session again", |text| !text.contains(question) && text.contains("outside the pod"));
    terminal.escape("u");
    terminal.wait("passphrase of the vault: ");
    terminal.send(PASSPHRASE);
    terminal.wait("it ended: 0");
    terminal.send("tazpod vault unlock; echo again: $?\r");
    terminal.wait("again: 10");
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    inside("echo secret >/tmp/token && tazpod vault add /tmp/token --to d && tazpod vault save").success();
    assert!(inside("tazpod vault status --json").success().json()["open"].is_string());
    assert!(inside("tazpod vault ls").success().stdout.contains("d/token"));
    // Names are bytes.
    inside("f=$(printf 'caf\\351') && touch /run/vault/open/$f && tazpod vault rm $f && test ! -e /run/vault/open/$f")
        .success();
    // The keeper gives nobody in the pod what only the host may ask.
    let tip = "7".repeat(64);
    for request in
        ["{\"request\":\"freeze\"}", &format!("{{\"request\":\"lock\",\"force\":true,\"tip\":\"{tip}\"}}")]
    {
        let asked = inside(&format!(
            "printf '%s\\n' '{request}' | python3 -c 'import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(\"/run/vault/tazpod.sock\")\ns.sendall(sys.stdin.buffer.read())\nprint(s.recv(4096).decode())'",
        ));
        assert!(asked.success().stdout.contains("this is for the host to ask"), "{request}");
    }
    inside("tazpod vault rm -r d && tazpod vault add /tmp/token && tazpod vault lock").success();
    world.sh("test ! -e /run/vault/open/token").success();
    vault(&world, &["push"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/token").success().stdout, "secret\n");
}

fn variables_of_new_sessions(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    world.sh("echo kept >/run/vault/open/kept").success();
    world.write("x.env", "TOKEN=of-the-vault\nOTHER=\"two words\"\n");
    vault(&world, &["import", "x.env"]).success();
    assert_eq!(world.sh("echo $TOKEN, $OTHER").success().stdout, "of-the-vault, two words\n");
    let explicit = world.run(&["exec", "-e", "TOKEN=mine", "--", "sh", "-c", "echo $TOKEN"]).success();
    assert_eq!(explicit.stdout, "mine\n");
    let mut terminal = Terminal::start(&world, &["attach"]);
    terminal.wait("❯");
    terminal.send("echo \"<$TOKEN>\"\n");
    terminal.wait("<of-the-vault>");
    let pod = world.pod();
    assert!(!engine.client_stdout(&["inspect", &pod]).contains("of-the-vault"));
    // Neither nonsense nor a link takes a session's start with it.
    world.sh("echo nonsense >/run/vault/open/.env").success();
    assert_eq!(world.sh("echo ${TOKEN-none}").success().stdout, "none\n");
    world.sh("ln -sf /etc/passwd /run/vault/open/.env").success();
    assert_eq!(world.sh("echo ${TOKEN-none}").success().stdout, "none\n");
    vault(&world, &["lock"]).success();
    assert_eq!(world.sh("echo ${TOKEN-none}").success().stdout, "none\n");
}

fn it_locks_by_itself(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    let config = world.directory.join("config/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}lock_after = \"soon\"\n")).unwrap();
    vault(&world, &["status"]).failure(3, "`soon` is no length of time");
    fs::write(&config, format!("{text}links = [\"../x\"]\n")).unwrap();
    vault(&world, &["status"]).failure(3, "`../x` is no directory below the home");
    fs::write(&config, format!("{text}lock_after = \"3s\"\nlinks = [\".config/own\"]\n")).unwrap();
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    world
        .sh("cd /run/vault/open && echo kept >a && mkdir -p .config/own .aws && echo own >.config/own/a")
        .success();
    let open = || status(&world)["open"].as_array().unwrap().len();
    assert_eq!(open(), 1);
    // The keeper looks every half minute.
    let locked = || {
        (0..60).any(|_| {
            std::thread::sleep(std::time::Duration::from_secs(1));
            open() == 0
        })
    };
    // Not while a program has a file of it open: it looks once in that time.
    world.sh("setsid sleep 40 </run/vault/open/a >/dev/null 2>&1 &").success();
    let begun = std::time::Instant::now();
    while begun.elapsed().as_secs() < 35 {
        assert_eq!(open(), 1, "it is locked under a program, after {} s", begun.elapsed().as_secs());
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    assert!(locked(), "the idle vault is not locked");
    vault(&world, &["push"]).success();
    // With the last session; before there was one, it stays open.
    fs::write(&config, format!("{text}lock_with_last_session = true\nlinks = [\".config/own\"]\n")).unwrap();
    unlock(&world).success();
    let linked = world.sh("cat /run/vault/open/a ~/.config/own/a && test ! -e ~/.aws").success();
    assert_eq!(linked.stdout, "kept\nown\n");
    let mut terminal = Terminal::start(&world, &["attach"]);
    terminal.wait("❯");
    terminal.send("exit\n");
    assert!(locked(), "the vault is not locked with the last session");
}

fn two_machines(engine: Engine) {
    let store = place();
    let (one, two) =
        (machine(engine, &store.path().join("vault")), machine(engine, &store.path().join("vault")));
    init(&one);
    vault(&two, &["init", "--passphrase-fd", "0"]).failure(12, "the store has a vault already");
    vault(&two, &["pull"]).success();
    for world in [&one, &two] {
        world.run(&["up", "--detach"]).success();
        unlock(world).success();
        world.sh("cat /etc/hostname >/run/vault/open/mine").success();
    }
    vault(&one, &["lock"]).success();
    let done = vault(&two, &["lock"]).failure(12, "the vault has forked at commit 2");
    assert!(done.stderr.contains("both are kept"), "{}", done.stderr);
    assert!(done.stderr.contains("`tazpod vault pull --keep theirs`"), "{}", done.stderr);
    // Its own side is what it goes on with, until the user decides.
    assert_eq!(status(&two)["pending"], serde_json::json!([2]));
    let branches = fs::read_dir(store.path().join("vault/branches")).unwrap();
    let names = branches.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("0000000002-")).count(), 1);
    unlock(&two).success();
    let mine = two.sh("cat /run/vault/open/mine").success().stdout;
    vault(&two, &["pull", "--keep", "theirs"]).failure(10, "the vault is open in");
    vault(&two, &["lock", "--no-push"]).success();
    vault(&two, &["pull", "--keep", "mine", "--passphrase-fd", "0"]).success();
    vault(&one, &["pull"]).success();
    unlock(&one).success();
    assert_eq!(one.sh("cat /run/vault/open/mine").success().stdout, mine);
    assert_eq!(vault(&one, &["history", "--json"]).success().json()["commits"][0]["kind"], "merge");
    let verified = vault(&one, &["verify", "--read-data", "--json"]).success().json();
    assert_eq!((verified["commits"].as_u64(), verified["problems"].as_array().unwrap().len()), (Some(3), 0));
}

/// An earlier state, another passphrase, and what each of them opens.
fn earlier_states_and_another_passphrase(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    let fingerprint = init(&world);
    world.run(&["up", "--detach"]).success();
    for text in ["one", "two"] {
        unlock(&world).success();
        world.sh(&format!("echo {text} >/run/vault/open/a")).success();
        vault(&world, &["restore", "2", "--passphrase-fd", "0"]).failure(10, "the vault is open in");
        vault(&world, &["lock"]).success();
    }
    vault(&world, &["restore", "9", "--passphrase-fd", "0"]).failure(2, "this machine has no commit `9`");
    let new = NEW_PASSPHRASE;
    let both = format!("{PASSPHRASE}{new}");
    let change =
        |input: &str| world.run_with(&["vault", "passphrase", "--passphrases-fd", "0"], input.as_bytes());
    change(new).failure(11, "this is not the vault's passphrase");
    change(&format!("{PASSPHRASE}short\n")).failure(11, "is easy to guess");
    let done = change(&both).success();
    assert!(!done.stderr.contains(&fingerprint), "{}", done.stderr);
    unlock(&world).failure(11, "this is not the vault's passphrase");
    let with_new = |arguments: &[&str]| world.run_with(arguments, new.as_bytes());
    // Sealed to the identity that is retired now.
    with_new(&["vault", "restore", "2", "--passphrase-fd", "0"]).success();
    with_new(&["vault", "unlock", "--passphrase-fd", "0"]).success();
    assert_eq!(world.sh("cat /run/vault/open/a; echo three >/run/vault/open/a").success().stdout, "one\n");
    vault(&world, &["lock"]).success();
    let history = vault(&world, &["history", "--json"]).success().json();
    let kinds: Vec<_> =
        history["commits"].as_array().unwrap().iter().map(|commit| commit["kind"].clone()).collect();
    assert_eq!(kinds, ["save", "restore", "rekey", "save", "save", "init"]);
    // The first card still leads to the vault, through the chain.
    let there = machine(engine, &store.path().join("vault"));
    vault(&there, &["pull", "--card", &fingerprint]).success();
    vault(&there, &["verify", "--read-data"]).success();
}

/// Nothing is removed that could not be saved.
fn what_cannot_be_read_stays(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    world.sh("echo mine >/run/vault/open/mine; echo roots | sudo tee /run/vault/open/roots >/dev/null; sudo chmod 600 /run/vault/open/roots").success();
    vault(&world, &["save"]).failure(12, "`roots` cannot be read");
    for command in [&["vault", "lock"][..], &["stop"], &["down"]] {
        let done = world.run(command).failure(12, "not everything can be saved: `roots` cannot be read");
        assert!(done.stderr.contains("hint: make it readable"), "{}", done.stderr);
    }
    assert_eq!(
        world.sh("sudo cat /run/vault/open/roots /run/vault/open/mine").success().stdout,
        "roots\nmine\n"
    );
    let done = vault(&world, &["save", "--force"]).success();
    assert!(done.stderr.contains("not saved: `roots`: cannot be read"), "{}", done.stderr);
    // It is still in no save.
    vault(&world, &["lock"]).failure(12, "not everything can be saved: `roots` cannot be read");
    vault(&world, &["lock", "--force"]).success();
    world.sh("test ! -e /run/vault/open/mine").success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/*").success().stdout, "mine\n");
    // A directory of root's can be saved, and not removed.
    world.sh("sudo mkdir /run/vault/open/d && sudo touch /run/vault/open/d/f").success();
    vault(&world, &["lock"]).failure(1, "hint: the vault is saved and locked, but this is left");
    vault(&world, &["push"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("ls /run/vault/open/d").success().stdout, "f\n");
    // What could not be removed then is in the way still.
    world.run(&["down"]).failure(1, "hint: the vault is saved and locked, but this is left");
    world.run(&["down"]).success();
}

/// A program in the pod can leave anything where the host looks.
fn a_hostile_spool(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    world.sh("echo one >/run/vault/open/a").success();
    vault(&world, &["save"]).success();
    for mischief in [
        "echo x >outbox/0000000009",
        "ln -s /etc/passwd outbox/0000000003",
        "mkfifo outbox/0000000003",
        "echo x >seen.json",
    ] {
        world.sh(&format!("cd /run/tazpod/vault && cp seen.json /tmp/kept && {mischief}")).success();
        let done = vault(&world, &["save"]);
        assert_ne!(done.code, 124, "it hangs: {mischief}");
        vault(&world, &["push"]).success();
        world
            .sh("cd /run/tazpod/vault && rm -f outbox/0000000009 outbox/0000000003 && cp /tmp/kept seen.json")
            .success();
    }
    world.sh("echo two >/run/vault/open/a").success();
    vault(&world, &["lock"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/a").success().stdout, "two\n");
}

/// Nobody asks for it, and the pod ends without a word.
#[test]
fn it_saves_by_itself() {
    let store = place();
    let world = machine(Engine::Docker, &store.path().join("vault"));
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    world.sh("echo kept >/run/vault/open/a").success();
    let written = Instant::now();
    while world.sh("ls /run/tazpod/vault/outbox").stdout.is_empty() {
        assert!(written.elapsed() < Duration::from_secs(90), "{}", status(&world));
        std::thread::sleep(Duration::from_millis(500));
    }
    let pod = world.pod();
    world.engine.client_stdout(&["kill", &pod]);
    let pushed = vault(&world, &["push"]).success().stderr;
    assert!(pushed.contains("pushed commit 2"), "{pushed}");
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    assert_eq!(world.sh("cat /run/vault/open/a").success().stdout, "kept\n");
}

/// Searches everything that outlives the vault's being open.
fn nothing_of_it_is_in_plaintext(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    let begun = tempfile::NamedTempFile::new().unwrap();
    init(&world);
    world.run(&["up", "--detach"]).success();
    unlock(&world).success();
    // Put together in the pod, so that no command line has it.
    let (front, back) = MARKER.split_at(5);
    world
        .sh(&format!(
            "printf '%s%s' {front} {back} >/run/vault/open/secret; grep -c . /run/vault/open/secret"
        ))
        .success();
    vault(&world, &["save"]).success();
    world.write("of-mine", "nothing secret\n");
    vault(&world, &["add", "of-mine"]).success();
    vault(&world, &["lock"]).success();
    let change = format!("{PASSPHRASE}{NEW_PASSPHRASE}");
    world.run_with(&["vault", "passphrase", "--passphrases-fd", "0"], change.as_bytes()).success();
    let by_new = |arguments: &[&str]| world.run_with(arguments, NEW_PASSPHRASE.as_bytes()).success();
    by_new(&["vault", "restore", "2", "--passphrase-fd", "0"]);
    by_new(&["vault", "unlock", "--passphrase-fd", "0"]);
    world.sh("test -s /run/vault/open/secret").success();
    let pod = world.pod();
    let inspected = engine.client_stdout(&["inspect", &pod]);
    let logged = engine.client(&["logs", &pod]);
    let processes =
        world.sh("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'").stdout;
    let mut outside = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for name in ["cmdline", "environ"] {
            outside.extend(fs::read(process.path().join(name)).unwrap_or_default());
        }
    }
    vault(&world, &["lock"]).success();
    // All of its layers, as root; what is in its memory is no part of that.
    let mut exporting = engine.command(&["export", &pod]);
    let mut exported = exporting.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut find = Command::new("grep");
    // Programs that know such keys have the beginning of one in them.
    let secrets = [MARKER, PASSPHRASE.trim(), NEW_PASSPHRASE.trim()];
    // In memory, and on no command line: another engine's test looks at those.
    let patterns = |words: &[&str]| {
        let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.write_all(words.join("\n").as_bytes()).unwrap();
        file
    };
    let all = patterns(&secrets);
    find.args(["-aoF", "-f"]).arg(all.path());
    let found = find.stdin(exported.stdout.take().unwrap()).output().unwrap();
    assert!(exported.wait().unwrap().success());
    assert_eq!((found.status.code(), String::from_utf8_lossy(&found.stdout)), (Some(1), "".into()));
    let outside = String::from_utf8_lossy(&outside).into_owned();
    let logs = [String::from_utf8_lossy(&logged.stdout), String::from_utf8_lossy(&logged.stderr)].concat();
    // Other tests are at work there.
    assert!(secrets.iter().all(|secret| !outside.contains(secret)), "a process of the host's has a secret");
    for (what, text) in [("inspect", inspected), ("logs", logs), ("processes", processes)] {
        for secret in SECRETS.map(str::trim) {
            assert!(!text.contains(secret), "{what} has `{secret}`");
        }
    }
    // The rest of the host's disk, the engines' stores included, as far as it is younger than this test, and one file that is to be found.
    let mut control = tempfile::NamedTempFile::new_in(Path::new(&rig("TAZPOD_RIG_DIR")).join("tmp")).unwrap();
    let sought = format!("{}-of-{engine:?}-{}", MARKER.to_uppercase(), std::process::id());
    control.write_all(sought.as_bytes()).unwrap();
    let mut find = Command::new("find");
    find.args(["/", "/tmp", "/var/tmp", "-xdev", "-type", "f", "-newer"]).arg(begun.path());
    let marker = patterns(&[MARKER, &sought]);
    find.args(["-exec", "grep", "-lsaF", "-f"]).arg(marker.path());
    let found = find.args(["{}", "+"]).output().unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let control = control.path().to_string_lossy();
    assert!(!found.is_empty() && found.lines().all(|line| line == control), "{found}");
    for directory in [&world.directory, &store.path().to_owned()] {
        let all = patterns(&SECRETS.map(str::trim));
        let found =
            Command::new("grep").args(["-rlsF", "-f"]).arg(all.path()).arg(directory).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    }
}

fn a_memory_that_is_full(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    init(&world);
    let limited = |memory: &str| {
        world.write(".tazpod/config.toml", &format!("[pod]\nmemory = \"{memory}\"\n"));
        world.run(&["up", "--detach", "--recreate"]).success();
    };
    limited("256m");
    unlock(&world).success();
    world.sh("echo kept >/run/vault/open/kept").success();
    let fill = "tr '\\0' x </dev/zero | head -c 200M >/run/vault/open/fill";
    world.sh(fill).failure(1, "No space left on device");
    world.write("more", "more\n");
    vault(&world, &["add", "more"])
        .failure(1, "the vault's memory in this pod is full: half of `[pod] memory`");
    assert_eq!(names(&vault(&world, &["ls", "--json"]).success().json()), ["fill", "kept"]);
    // Saving takes none of that memory.
    vault(&world, &["save"]).success();
    world.sh("truncate -s 100M /run/vault/open/fill").success();
    vault(&world, &["add", "more"]).success();
    vault(&world, &["lock"]).success();
    // The same vault where there is less.
    limited("128m");
    unlock(&world).failure(1, "half of `[pod] memory`");
    assert!(status(&world)["open"].as_array().unwrap().is_empty());
    assert_eq!(world.sh("du -s /run/vault | cut -f1").success().stdout, "0\n");
    limited("256m");
    unlock(&world).success();
    assert_eq!(world.sh("cd /run/vault/open && cat kept more").success().stdout, "kept\nmore\n");
    // Holes take none of it, afterwards too.
    world.sh("cd /run/vault/open && truncate -s 1G hole && echo end >>hole").success();
    vault(&world, &["lock"]).success();
    unlock(&world).success();
    let found = world.sh("cd /run/vault/open && stat -c '%s %b' hole && tail -c 4 hole").success().stdout;
    assert_eq!(found, "1073741828 8\nend\n");
}

fn a_disk_that_is_full(engine: Engine) {
    let store = place();
    let world = machine(engine, &store.path().join("vault"));
    let kept = world.state.join("vaults");
    world.run(&["up", "--detach"]).success();
    fs::create_dir(&kept).unwrap();
    let options = format!("size=6m,uid={},gid={},mode=700", world.caller.uid, world.caller.gid);
    let _disk = Mounted::on(&kept, &["-t", "tmpfs", "-o", &options, "tmpfs"]);
    init(&world);
    unlock(&world).success();
    let digest = "cd /run/vault/open && sha256sum large";
    world.sh("head -c 10M /dev/urandom >/run/vault/open/large").success();
    let expected = world.sh(digest).success().stdout;
    let full = vault(&world, &["save"]).failure(1, "cannot take over what the pod saved");
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    let full =
        vault(&world, &["lock"]).failure(1, "hint: it stays with the pod; `tazpod vault push` tries again");
    assert!(full.stderr.contains("the vault is locked in"), "{}", full.stderr);
    let room = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&kept).status().unwrap();
    assert!(room.success());
    vault(&world, &["push"]).success();
    assert_eq!(status(&world)["pending"], serde_json::json!([]));
    unlock(&world).success();
    assert_eq!(world.sh(digest).success().stdout, expected);
}
