//! What every store must do.

use std::io::{self, Read, Write};
use std::sync::Barrier;
use std::thread;

use sha2::{Digest, Sha256};
use tazpod::adapters::store::{Outcome, Place, Probe};
use tazpod::vault::store::{Created, Kind};

use crate::block_on;

const MIB: usize = 1024 * 1024;

/// A place to test, and how to open it again.
pub struct Subject {
    /// Opens it.
    pub open: Box<dyn Fn() -> Box<dyn Place> + Sync>,
    /// The same server or disk, at a place that does not exist.
    pub elsewhere: Box<dyn Place>,
    /// What it honours.
    pub honours: Probe,
    /// What it has besides objects: steps of its setup that it does not support.
    pub unsupported: usize,
    /// Kept until the test ends.
    pub _directory: Option<tempfile::TempDir>,
}

impl Subject {
    /// Whether large objects go in one request: to servers that compare the hash that they are told.
    fn in_one_request(&self) -> bool {
        self.honours.hashes && self._directory.is_none()
    }

    fn ready(&self) -> Box<dyn Place> {
        let store = (self.open)();
        block_on(store.setup()).unwrap();
        store
    }
}

/// Bytes that look random and are the same each time.
pub struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    pub fn new(seed: u64, length: u64) -> Noise {
        Noise { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, left: length }
    }

    pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        Noise::new(seed, length as u64).read_to_end(&mut bytes).unwrap();
        bytes
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (buffer.len() as u64).min(self.left) as usize;
        for chunk in buffer[..length].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.copy_from_slice(&self.state.to_le_bytes()[..chunk.len()]);
        }
        self.left -= length as u64;
        Ok(length)
    }
}

pub fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn put(store: &dyn Place, key: &str, bytes: &[u8]) {
    block_on(store.put(key, bytes.len() as u64, hash(bytes), &mut &bytes[..])).unwrap();
}

pub fn get(store: &dyn Place, key: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = block_on(store.get(key, u64::MAX, &mut bytes)).unwrap();
    assert_eq!(size, size.map(|_| bytes.len() as u64));
    size.map(|_| bytes)
}

fn keys(store: &dyn Place, prefix: &str, after: &str) -> Vec<String> {
    block_on(store.list(prefix, after)).unwrap().into_iter().map(|object| object.key).collect()
}

fn made(created: Created) -> bool {
    match created {
        Created::Made => true,
        Created::Exists => false,
        Created::Unknown(error) => panic!("{error:?}"),
    }
}

pub fn what_is_put_can_be_got(subject: &Subject) {
    let store = subject.ready();
    for (seed, size) in [0, 1, 5 * MIB, 8 * MIB, 8 * MIB + 1, 20 * MIB].into_iter().enumerate() {
        let bytes = Noise::bytes(seed as u64, size);
        let key = format!("gen/{size}.age");
        put(&*store, &key, &bytes);
        assert_eq!(block_on(store.size(&key)).unwrap(), Some(size as u64));
        assert!(get(&*store, &key).unwrap() == bytes, "{size} bytes come back as others");
        let listed = block_on(store.list(&key, "")).unwrap();
        assert_eq!(listed.iter().map(|object| object.size).collect::<Vec<_>>(), [size as u64]);
        assert!(listed[0].modified.elapsed().unwrap_or_default().as_secs() < 600);
    }
    let again = Noise::bytes(9, 100);
    put(&*store, "gen/0.age", &again);
    assert_eq!(get(&*store, "gen/0.age").unwrap(), again);
}

pub fn a_key_is_created_once(subject: &Subject) {
    let store = subject.ready();
    assert!(made(block_on(store.create("commits/0000000001", b"first")).unwrap()));
    assert!(!made(block_on(store.create("commits/0000000001", b"second")).unwrap()));
    assert!(!made(block_on(store.create("commits/0000000001", b"first")).unwrap()));
    assert_eq!(get(&*store, "commits/0000000001").unwrap(), b"first");
    // What was put is there, too.
    put(&*store, "commits/0000000002", b"put");
    assert!(!made(block_on(store.create("commits/0000000002", b"created")).unwrap()));
    assert!(made(block_on(store.create("commits/0000000003", b"")).unwrap()));
    assert_eq!(get(&*store, "commits/0000000003").unwrap(), b"");
}

pub fn of_eight_one_wins(subject: &Subject) {
    // Some rounds at once: SeaweedFS takes seconds for each of them.
    const LANES: usize = 5;
    let store = subject.ready();
    let name = |round: usize| format!("commits/{round:010}");
    let winners: Vec<(usize, Vec<String>)> = thread::scope(|scope| {
        let lane = |lane: usize| (lane..20).step_by(LANES).map(|round| (round, race(subject, &name(round))));
        let lanes: Vec<_> = (0..LANES).map(|number| scope.spawn(move || lane(number).collect())).collect();
        let joined: Vec<Vec<_>> = lanes.into_iter().map(|lane| lane.join().unwrap()).collect();
        joined.into_iter().flatten().collect()
    });
    assert_eq!(winners.len(), 20);
    for (round, winners) in winners {
        let there = get(&*store, &name(round)).unwrap();
        assert_eq!(winners, [String::from_utf8(there).unwrap()], "round {round}");
    }
}

/// Those of eight who are told that they made an object.
fn race(subject: &Subject, key: &str) -> Vec<String> {
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (barrier, open) = (&barrier, &subject.open);
                scope.spawn(move || {
                    let store = open();
                    let body = format!("racer {racer} for {key}");
                    barrier.wait();
                    // Somebody else being at it is an answer, too.
                    let created = block_on(store.create(key, body.as_bytes())).unwrap();
                    matches!(created, Created::Made).then_some(body)
                })
            })
            .collect();
        racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
    })
}

pub fn what_is_not_there_is_none(subject: &Subject) {
    let store = subject.ready();
    put(&*store, "gen/there", b"x");
    for key in ["gen/missing", "missing/missing", "gen/there/below"] {
        if key != "gen/there/below" {
            assert_eq!(get(&*store, key), None, "{key}");
            assert_eq!(block_on(store.size(key)).unwrap(), None, "{key}");
        }
        assert_eq!(keys(&*store, key, ""), [""; 0]);
    }
    block_on(store.delete("gen/missing")).unwrap();
    block_on(store.delete("gen/there")).unwrap();
    block_on(store.delete("gen/there")).unwrap();
    assert_eq!(get(&*store, "gen/there"), None);
    assert_eq!(keys(&*store, "", ""), [""; 0]);
}

pub fn a_list_is_sorted_and_bounded(subject: &Subject) {
    let store = subject.ready();
    let all = [
        "branches/7-abc",
        "commits/0000000001",
        "commits/0000000002",
        "commits/0000000002.sync-conflict-20260101-120000-ABCDEFG",
        "commits/0000000010",
        "gen/aa.age",
        "gen/ab.age",
        "keys/aa-r.age",
        "keys/aa.age",
    ];
    for key in all.iter().rev() {
        put(&*store, key, key.as_bytes());
    }
    assert_eq!(keys(&*store, "", ""), all);
    assert_eq!(keys(&*store, "commits/", ""), all[1..5]);
    assert_eq!(keys(&*store, "commits/", "commits/0000000001"), all[2..5]);
    assert_eq!(keys(&*store, "commits/", "commits/0000000003"), all[4..5]);
    assert_eq!(keys(&*store, "commits/", "commits/0000000010"), [""; 0]);
    assert_eq!(keys(&*store, "commits/00000000", ""), all[1..5]);
    assert_eq!(keys(&*store, "commits/0000000002", ""), all[2..4]);
    assert_eq!(keys(&*store, "gen/a", "gen/aa.age"), all[6..7]);
    assert_eq!(keys(&*store, "k", ""), all[7..]);
    assert_eq!(keys(&*store, "", "keys/"), all[7..]);
}

pub fn a_long_list_is_whole(subject: &Subject) {
    const MANY: usize = 1010;
    let store = subject.ready();
    let name = |number: usize| format!("commits/{number:010}");
    thread::scope(|scope| {
        for worker in 0..4 {
            let open = &subject.open;
            scope.spawn(move || {
                let store = open();
                for number in (worker..MANY).step_by(4) {
                    assert!(made(block_on(store.create(&name(number), b"x")).unwrap()));
                }
            });
        }
    });
    let all: Vec<String> = (0..MANY).map(name).collect();
    assert_eq!(keys(&*store, "commits/", ""), all);
    assert_eq!(keys(&*store, "commits/", &name(3)), all[4..]);
    assert_eq!(keys(&*store, "commits/", &name(1005)), all[1006..]);
}

pub fn a_limit_holds(subject: &Subject) {
    let store = subject.ready();
    let bytes = Noise::bytes(1, 3 * MIB);
    put(&*store, "gen/x", &bytes);
    let mut into = Vec::new();
    assert_eq!(
        block_on(store.get("gen/x", bytes.len() as u64, &mut into)).unwrap(),
        Some(bytes.len() as u64)
    );
    for limit in [0, 1, bytes.len() as u64 - 1] {
        let mut into = Vec::new();
        let error = block_on(store.get("gen/x", limit, &mut into)).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{error:?}");
        assert!(into.len() as u64 <= limit);
    }
}

pub fn other_bytes_than_announced_are_not_kept(subject: &Subject) {
    let store = subject.ready();
    for size in [10, 17 * MIB] {
        let bytes = Noise::bytes(2, size);
        let key = format!("gen/{size}");
        let attempt = |announced: usize, sha256, mut body: &[u8]| {
            let error = block_on(store.put(&key, announced as u64, sha256, &mut body)).unwrap_err();
            assert_eq!(error.kind, Kind::Corrupt, "{error:?}");
        };
        let refused = |there: Option<&[u8]>| {
            attempt(size, hash(b"other"), &bytes);
            attempt(size, hash(&bytes), &bytes[1..]);
            attempt(size - 1, hash(&bytes), &bytes);
            attempt(size + 1, hash(&bytes), &bytes);
            assert!(get(&*store, &key).as_deref() == there, "{size} bytes");
        };
        refused(None);
        put(&*store, &key, &bytes);
        refused(Some(&bytes));
    }
}

pub fn a_large_object_may_go_in_one_request(subject: &Subject) {
    let store = subject.ready();
    let bytes = Noise::bytes(4, 17 * MIB);
    let mut others = bytes.clone();
    others[9 * MIB] ^= 1;
    let put = |size: usize, mut body: &[u8]| {
        block_on(store.put_whole("gen/x", size as u64, hash(&bytes), &mut body))
    };
    // Before it is known what the store honours, and where it is none of S3's.
    assert!(!put(bytes.len(), &bytes).unwrap());
    block_on(store.probe()).unwrap();
    if !put(bytes.len(), &bytes).unwrap() {
        assert!(!subject.in_one_request());
        assert_eq!(get(&*store, "gen/x"), None);
        return;
    }
    assert!(subject.in_one_request() && get(&*store, "gen/x").unwrap() == bytes);
    block_on(store.delete("gen/x")).unwrap();
    for (size, body) in [
        (bytes.len(), &others[..]),
        (bytes.len(), &bytes[1..]),
        (bytes.len() - 1, &bytes),
        (bytes.len() + 1, &bytes),
    ] {
        assert_eq!(put(size, body).unwrap_err().kind, Kind::Corrupt);
        assert_eq!(get(&*store, "gen/x"), None);
    }
    let mut body = Broken(Noise::new(3, 17 * MIB as u64));
    let broken = block_on(store.put_whole("gen/x", 17 * MIB as u64 + 1, [0; 32], &mut body)).unwrap_err();
    assert!(tazpod::error::Error::from(broken).to_string().contains("the disk is on fire"));
    // Others are in memory, or would waste too much where a line breaks.
    for size in [8 * MIB, (200 * MIB) + 1] {
        assert!(!put(size, &bytes).unwrap());
    }
    assert_eq!(get(&*store, "gen/x"), None);
}

/// Breaks after the first bytes.
struct Broken(Noise);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Ok(0) => Err(io::Error::other("the disk is on fire")),
            other => other,
        }
    }
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("the disk is full"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn errors_of_the_callers_files_are_told(subject: &Subject) {
    let store = subject.ready();
    for size in [10, 17 * MIB as u64] {
        let mut body = Broken(Noise::new(3, size));
        let error = block_on(store.put("gen/x", size + 1, [0; 32], &mut body)).unwrap_err();
        assert!(tazpod::error::Error::from(error).to_string().contains("the disk is on fire"));
        assert_eq!(get(&*store, "gen/x"), None);
    }
    put(&*store, "gen/y", b"y");
    let error = block_on(store.get("gen/y", 10, &mut Closed)).unwrap_err();
    assert!(!error.is_transient());
    assert!(tazpod::error::Error::from(error).to_string().contains("the disk is full"));
}

pub fn a_missing_place_is_not_an_empty_one(subject: &Subject) {
    let store = &subject.elsewhere;
    let check = |result: Result<(), tazpod::vault::store::StoreError>| {
        assert_eq!(result.unwrap_err().kind, Kind::NoPlace);
    };
    check(block_on(store.list("commits/", "")).map(drop));
    check(block_on(store.get("commits/1", 10, &mut Vec::new())).map(drop));
    check(block_on(store.size("commits/1")).map(drop));
    check(block_on(store.put("gen/x", 1, hash(b"x"), &mut &b"x"[..])));
    check(block_on(store.create("commits/1", b"x")).map(drop));
    check(block_on(store.probe()).map(drop));
    // None of these made it.
    check(block_on(store.list("", "")).map(drop));
}

pub fn the_probe_finds_what_is_honoured(subject: &Subject) {
    let store = subject.ready();
    for _ in 0..2 {
        let found = block_on(store.probe()).unwrap();
        assert_eq!(found, subject.honours, "{:?}", found.shortcomings());
        assert_eq!(found.shortcomings().is_empty(), found.conditional_create);
    }
    let mut left = keys(&*store, "", "");
    // Where writers who race all win, one of them may come after the object was removed.
    left.retain(|key| subject.honours.conditional_create || !key.ends_with("/race"));
    assert_eq!(left, [""; 0]);
}

pub fn setting_up_twice_changes_nothing(subject: &Subject) {
    let store = (subject.open)();
    let outcomes = |steps: Vec<tazpod::adapters::store::Step>| {
        let unsupported = steps.iter().filter(|step| matches!(step.outcome, Outcome::NotSupported)).count();
        let failed: Vec<_> = steps
            .iter()
            .filter(|step| matches!(step.outcome, Outcome::Failed(_) | Outcome::Warning(_)))
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(unsupported, subject.unsupported, "{steps:?}");
        steps.iter().filter(|step| matches!(step.outcome, Outcome::Done)).count()
    };
    assert!(outcomes(block_on(store.setup()).unwrap()) > 0);
    put(&*store, "gen/x", b"x");
    assert_eq!(outcomes(block_on(store.setup()).unwrap()), 0);
    assert_eq!(get(&*store, "gen/x").unwrap(), b"x");
}
