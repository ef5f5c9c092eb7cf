//! The real program on a real server, killed with SIGKILL after any time: again it succeeds, and nothing is lost.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use age::secrecy::SecretString;
use tazpod::adapters::store::{S3Config, S3Store};
use tazpod::vault::archive;
use tazpod::vault::commit::{Commit, Draft, Reason};
use tazpod::vault::disk::RealDisk;
use tazpod::vault::id::VaultId;
use tazpod::vault::key::{Keyring, LARGEST_KEYRING};
use tazpod::vault::local::{Local, Object, commit_key};
use tazpod::vault::store::Store as _;
use tazpod::vault::tree::{Root, Tree};

use crate::suite::Noise;
use crate::{access, block_on, servers, unique};

/// How many rounds: `bench/kill` asks for more.
const ROUNDS: &str = "TAZPOD_KILL_ROUNDS";
/// The program to kill, instead of the one that was built with the tests.
const PROGRAM: &str = "TAZPOD";
/// Nothing else has this in it.
const MARKER: &str = "m4rk3r-0f-k1ll3d-s3cr3ts";
/// Every so many rounds there are commands that take a passphrase, and a generation that goes in parts.
const SLOW: u64 = 10;

/// A user's directories, on a machine of its own as far as tazpod can tell.
struct Machine {
    directory: tempfile::TempDir,
    store: S3Config,
}

impl Machine {
    fn new(store: &S3Config) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        fs::create_dir(&config).unwrap();
        let text = format!("[vault]\naddress = \"{store}\"\nendpoint = \"{}\"\n", servers::seaweedfs());
        fs::write(config.join("config.toml"), text).unwrap();
        Machine { directory, store: store.clone() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("state/vaults/main")
    }

    fn local(&self) -> Local<'static> {
        Local::new(&RealDisk::PRIVATE, self.path())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| env!("CARGO_BIN_EXE_tazpod").into());
        let (directory, keys) = (self.directory.path(), servers::keys());
        let mut command = Command::new(program);
        command.arg("vault").args(arguments).env_clear().env("HOME", directory);
        command.env("TAZPOD_STATE_DIR", directory.join("state"));
        command.env("TAZPOD_CONFIG_DIR", directory.join("config"));
        command.env("AWS_ACCESS_KEY_ID", keys.id).env("AWS_SECRET_ACCESS_KEY", keys.secret);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; how long that took, too.
    fn run(&self, arguments: &[&str], input: &str) -> (Output, Duration) {
        let started = Instant::now();
        let mut child = self.command(arguments).spawn().unwrap();
        // One that does not read what it is given is right, too.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        (child.wait_with_output().unwrap(), started.elapsed())
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str], input: &str) -> Duration {
        let (output, took) = self.run(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        took
    }

    /// Runs it until it is killed; whether it was.
    fn kill(&self, arguments: &[&str], input: &str, after: Duration) -> bool {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap().signal() == Some(9)
    }

    /// The newest commit that it knows to be in the store.
    fn seen(&self) -> u64 {
        self.local().load().unwrap().seen.map_or(0, |seen| seen.n)
    }

    fn head(&self) -> Commit {
        let state = self.local().load().unwrap();
        assert_eq!(state.outbox, []);
        self.local().commit(state.seen.unwrap().n).unwrap().unwrap()
    }

    /// Files that a killed program left half-written.
    fn temporary(&self) -> Vec<PathBuf> {
        let directories = ["", "gen", "keys", "commits", "outbox", "held"];
        let entries = directories.iter().flat_map(|name| fs::read_dir(self.path().join(name)));
        let paths = entries.flatten().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).collect()
    }

    fn bucket(&self) -> S3Store {
        block_on(S3Store::open(&self.store, access()))
    }

    /// What the pod does elsewhere: the tree sealed, and a commit of it in the outbox.
    fn save(&self, keyring: &Keyring, wrapped: Option<&[u8]>, noise: u64, seed: u64) {
        let tree = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(tree.path().join("secret"), format!("{seed} {MARKER}\n")).unwrap();
        io::copy(&mut Noise::new(seed, noise), &mut fs::File::create(tree.path().join("noise")).unwrap())
            .unwrap();
        let (local, root) = (self.local(), Root::open(tree.path()).unwrap());
        let state = local.load().unwrap();
        let keys = match wrapped {
            Some(wrapped) => {
                let mut incoming = local.incoming(Object::Keys).unwrap();
                incoming.write_all(wrapped).unwrap();
                incoming.finish(None).unwrap().0
            }
            None => self.head().body.keys,
        };
        let mut incoming = local.incoming(Object::Generation).unwrap();
        let recipient = keyring.current().recipient();
        let tree = Tree::scan(&root).unwrap();
        archive::seal(&root, &tree, &recipient, &mut incoming).unwrap();
        let (generation, size) = incoming.finish(None).unwrap();
        let draft = Draft {
            generation,
            size,
            keys,
            recipients: None,
            kind: if state.base.is_some() { Reason::Save } else { Reason::Init },
            second_parent: None,
            host: "here".into(),
            time: String::new(),
        };
        let signer = keyring.current().signer(&keyring.vault()).unwrap();
        let commit = Commit::write(keyring.vault(), state.base.as_ref(), draft, &signer, None).unwrap();
        local.enqueue(&commit).unwrap();
    }

    /// The newest state's keyring, if this passphrase opens it.
    fn keyring(&self, passphrase: &str) -> Option<Keyring> {
        let wrapped = self.local().object(Object::Keys, &self.head().body.keys, LARGEST_KEYRING).unwrap();
        Keyring::unwrap(&wrapped, &SecretString::from(passphrase)).ok()
    }

    /// What its newest generation has in it.
    fn secret(&self, keyring: &Keyring) -> String {
        let (local, head) = (self.local(), self.head());
        let (_, sealed) = local.open(Object::Generation, &head.body.generation).unwrap();
        let mut tar = Vec::new();
        zstd::Decoder::new(keyring.open(sealed).unwrap()).unwrap().read_to_end(&mut tar).unwrap();
        let at = tar.windows(MARKER.len()).position(|found| found == MARKER.as_bytes()).unwrap();
        let line: Vec<u8> = tar[..at].iter().rev().take_while(|byte| **byte != 0).copied().collect();
        line.into_iter().rev().map(char::from).collect()
    }
}

/// One command, and what became of it.
struct Row {
    name: &'static str,
    /// How long it takes where nobody kills it.
    whole: Duration,
    rounds: u64,
    planned: u64,
    before: u64,
    after: u64,
    ended: u64,
}

impl Row {
    fn new(name: &'static str, planned: u64) -> Row {
        Row { name, whole: Duration::ZERO, rounds: 0, planned, before: 0, after: 0, ended: 0 }
    }

    /// When to kill: somewhere in the next part of the whole duration, and a little beyond.
    fn moment(&mut self, noise: &mut Noise) -> Duration {
        let mut bytes = [0; 4];
        noise.read_exact(&mut bytes).unwrap();
        let part = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
        self.rounds += 1;
        // In no order: neighbours in time would be neighbours in the server's state.
        let slot = (self.rounds * 7919) % self.planned;
        self.whole.mul_f64((slot as f64 + part) / self.planned as f64 * 1.05)
    }

    fn count(&mut self, killed: bool, committed: bool) {
        match (killed, committed) {
            (false, _) => self.ended += 1,
            (true, false) => self.before += 1,
            (true, true) => self.after += 1,
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "it reports")]
fn a_program_that_is_killed_loses_nothing() {
    let rounds: u64 = std::env::var(ROUNDS).map_or(20, |rounds| rounds.parse().unwrap());
    let config = unique(servers::seaweedfs());
    let (one, two) = (Machine::new(&config), Machine::new(&config));
    block_on(tazpod::adapters::store::Place::setup(&one.bucket())).unwrap();
    // Cheap to open; a new passphrase is wrapped as dearly as ever.
    let mut passphrase = "six words by chance are enough".to_owned();
    let mut keyring = Keyring::generate(VaultId::random().unwrap()).unwrap();
    let mut recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.as_str()));
    recipient.set_work_factor(4);
    let wrapped = keyring.wrap_to(&[&recipient]).unwrap();
    let slow_rounds = rounds.div_ceil(SLOW);
    let rows = [
        ("push", rounds),
        ("pull", rounds),
        ("restore", slow_rounds),
        ("passphrase", slow_rounds),
        ("prune", slow_rounds),
    ];
    let [mut push, mut pull, mut restore, mut change, mut prune] =
        rows.map(|(name, planned)| Row::new(name, planned));
    let mut noise = Noise::new(std::process::id().into(), u64::MAX);
    let in_store = |n: u64| block_on(one.bucket().size(&commit_key(n))).unwrap().is_some();
    let with_passphrase = ["--passphrase-fd", "0"];

    // How long they take, at the longest; the first commands of all are slower than others.
    for seed in 0..4 {
        one.save(&keyring, (seed == 0).then_some(wrapped.as_slice()), 300_000, seed);
        let took = [one.succeed(&["push"], ""), two.succeed(&["pull"], "")];
        if seed > 0 {
            [push.whole, pull.whole] = [push.whole.max(took[0]), pull.whole.max(took[1])];
        }
    }
    let mut temporary = (0, 0);
    for round in 1..=rounds {
        let seed = 1000 + round;
        let size = if round % SLOW == SLOW / 2 { 9 << 20 } else { 10_000 * (round % 40) };
        one.save(&keyring, None, size, seed);
        let n = one.seen() + 1;
        let killed = one.kill(&["push"], "", push.moment(&mut noise));
        push.count(killed, in_store(n));
        temporary.0 += one.temporary().len();
        one.succeed(&["push"], "");
        assert_eq!(one.secret(&keyring), format!("{seed} "));

        if round % SLOW == 0 {
            let wanted = (n - 1).to_string();
            let words = [&["restore", &wanted][..], &with_passphrase].concat();
            if restore.whole.is_zero() {
                restore.whole = one.succeed(&words, &passphrase);
                one.succeed(&[&["restore", &n.to_string()][..], &with_passphrase].concat(), &passphrase);
            }
            let n = one.seen() + 1;
            let killed = one.kill(&words, &passphrase, restore.moment(&mut noise));
            restore.count(killed, in_store(n));
            temporary.0 += one.temporary().len();
            one.succeed(&words, &passphrase);
            assert_eq!(one.secret(&keyring), format!("{} ", seed - 1));

            let words = ["passphrase", "--passphrases-fd", "0"];
            if change.whole.is_zero() {
                let new = "the first of many other passphrases";
                change.whole = one.succeed(&words, &format!("{passphrase}\n{new}\n"));
                passphrase = new.to_owned();
            }
            let n = one.seen() + 1;
            let new = format!("passphrase number {round} of the test");
            let both = format!("{passphrase}\n{new}\n");
            let killed = one.kill(&words, &both, change.moment(&mut noise));
            change.count(killed, in_store(n));
            temporary.0 += one.temporary().len();
            let (again, _) = one.run(&words, &both);
            // The second time the new one may count already: then the old one is none any more.
            let said = String::from_utf8_lossy(&again.stderr);
            let counts = again.status.success() || again.status.code() == Some(11);
            assert!(counts, "passphrase, again: {said}");
            assert!(one.keyring(&passphrase).is_none(), "the old passphrase opens the newest state: {said}");
            keyring = one.keyring(&new).expect("the new passphrase opens the newest state");
            passphrase = new;
            assert_eq!(one.secret(&keyring), format!("{} ", seed - 1));

            let words = ["prune", "--keep-last", "3"];
            if prune.whole.is_zero() {
                prune.whole = one.succeed(&["prune", "--keep-last", "9"], "");
            }
            let (planned, _) = one.run(&[&words[..], &["--dry-run", "--json"]].concat(), "");
            let planned: serde_json::Value = serde_json::from_slice(&planned.stdout).unwrap();
            let planned = planned["objects"].as_array().unwrap();
            assert!(!planned.is_empty(), "round {round}");
            let is_there = |object: &serde_json::Value| {
                block_on(one.bucket().size(object["key"].as_str().unwrap())).unwrap().is_some()
            };
            let killed = one.kill(&words, "", prune.moment(&mut noise));
            prune.count(killed, !planned.iter().any(is_there));
            one.succeed(&words, "");
            assert!(!planned.iter().any(is_there), "round {round}");
        }

        let newest = one.head();
        let killed = two.kill(&["pull"], "", pull.moment(&mut noise));
        pull.count(killed, two.seen() == newest.body.n);
        temporary.1 += two.temporary().len();
        two.succeed(&["pull"], "");
        assert_eq!(two.head().hash, newest.hash);
        assert_eq!(two.secret(&keyring), one.secret(&keyring));
        let (verified, _) = two.run(&["verify", "--read-data", "--json"], "");
        let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert_eq!(report["problems"], serde_json::json!([]), "round {round}");
        let left = [one.temporary(), two.temporary()].concat();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
    // Everything that was on a disk: both machines', and the server's.
    let server = servers::scratch();
    let places = [one.directory.path(), two.directory.path(), server.as_path()];
    for secret in [MARKER, "AGE-SECRET-KEY", &passphrase] {
        let found = Command::new("grep").args(["-rlsF", "-e", secret]).args(places).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "`{secret}` is on a disk");
    }
    println!("| command | rounds | takes | killed before it counted | after | it had ended |");
    println!("|---|---|---|---|---|---|");
    for row in [&push, &pull, &restore, &change, &prune] {
        let Row { name, whole, rounds, before, after, ended, .. } = row;
        println!("| `vault {name}` | {rounds} | {whole:.0?} | {before} | {after} | {ended} |");
    }
    println!(
        "temporary files after a kill: {} and {}; after the next command: none",
        temporary.0, temporary.1
    );
    println!("on any disk of the secrets: nothing; commits in the store: {}", one.seen());
    let count = |row: &Row| row.before + row.after;
    // Of so few rounds each kind must have come, or nothing was shown.
    assert!(push.before > 0 && push.after + push.ended > 0 && count(&pull) > 0, "nothing was killed in time");
}
