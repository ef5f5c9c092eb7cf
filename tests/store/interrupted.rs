//! Pushes and pulls that are interrupted while the store does not answer: they end at once, and the next ones succeed.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, mkfifoat};
use serde_json::json;
use tazpod::adapters::store::{S3Config, StoreConfig};

use crate::fake::{Fake, Reply, Request};
use crate::machine::{Done, Machine};
use crate::suite::Noise;
use crate::{open, part, servers};

#[track_caller]
fn told(done: Done) {
    assert_eq!((done.code, done.stderr.as_str()), (130, "error: interrupted\n"), "{}", done.stdout);
}

/// A server that says nothing any more to such a request, once it is told so.
fn stalling(is_meant: fn(&Request) -> bool) -> (Fake, Arc<AtomicBool>) {
    let stalls = Arc::new(AtomicBool::new(false));
    let on = stalls.clone();
    let fake = Fake::before(servers::seaweedfs(), move |request| {
        if on.load(Ordering::SeqCst) && is_meant(request) { Reply::Stall } else { Reply::Serve }
    });
    (fake, stalls)
}

#[test]
fn by_a_bucket_that_stalls() {
    let points: [fn(&Request) -> bool; 4] = [
        |_| true,
        |request| request.method == "PUT" && request.key.contains("gen/"),
        |request| request.method == "PUT" && request.key.contains("commits/"),
        |request| request.method == "GET" && request.key.contains("gen/"),
    ];
    for (at, is_meant) in points.into_iter().enumerate() {
        let (one, two, config) = (Machine::new("one"), Machine::new("two"), part(servers::seaweedfs()));
        let (fake, stalls) = stalling(is_meant);
        let through = S3Config { endpoint: Some(fake.address.clone()), ..config.clone() };
        for machine in [&one, &two] {
            machine.configure(&StoreConfig::S3(through.clone()), "");
        }
        one.save(b"first");
        one.run(&["push"]).success();
        two.run(&["pull"]).success();
        // It goes as a stream, of which the server has taken some.
        let content = Noise::bytes(1, 9 << 20);
        one.save(&content);
        let stall = |machine: &Machine, command: &str| {
            let before = fake.requests().len();
            stalls.store(true, Ordering::SeqCst);
            told(machine.interrupt(&[command], || fake.requests().iter().skip(before).any(is_meant)));
            stalls.store(false, Ordering::SeqCst);
        };
        if at < 3 {
            stall(&one, "push");
            assert_eq!(one.run(&["status", "--json"]).success().json()["pending"], json!([2]), "{at}");
            two.run(&["pull"]).success();
            assert_eq!(two.content(), b"first", "{at}");
        }
        one.run(&["push"]).success();
        if [0, 3].contains(&at) {
            stall(&two, "pull");
            assert_eq!(two.content(), b"first", "{at}");
        }
        two.run(&["pull"]).success();
        assert!(two.content() == content, "{at}");
        assert_eq!(two.verify(&*open(&config)).commits, 2);
    }
}

/// A pipe that nobody reads, in place of the lock, is as slow to open as a disk that is away.
#[test]
fn by_a_directory_that_hangs() {
    let (machine, place) = (Machine::new("one"), tempfile::tempdir().unwrap());
    machine.configure(&StoreConfig::Directory(place.path().to_owned()), "");
    machine.save(b"first");
    machine.run(&["push"]).success();
    machine.save(b"second");
    let lock = place.path().join(".lock");
    fs::remove_file(&lock).unwrap();
    mkfifoat(CWD, &lock, 0o600.into()).unwrap();
    let sent = || machine.local().load().unwrap().outbox[0].attempted;
    told(machine.interrupt(&["push"], sent));
    assert_eq!(machine.run(&["status", "--json"]).success().json()["pending"], json!([2]));
    assert!(!place.path().join("commits/0000000002").exists());
    fs::remove_file(&lock).unwrap();
    machine.run(&["push"]).success();
    machine.run(&["verify", "--read-data"]).success();
}
