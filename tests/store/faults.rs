//! A push and a pull through a line on which, at each request in turn, one thing goes wrong.

use std::time::Duration;

use tazpod::adapters::store::{Access, Limits, S3Config, S3Store};
use tazpod::error::{Error, Kind};
use tazpod::vault::sync::Stopped;

use crate::fake::{Fake, Reply};
use crate::machine::Machine;
use crate::suite::Noise;
use crate::{access, block_on, open, part, servers};

/// A store that is asked through somebody, and does not try again by itself.
fn through(fake: &Fake, config: &S3Config, hashes: bool) -> S3Store {
    let config = S3Config { endpoint: Some(fake.address.clone()), ..config.clone() };
    let limits = Limits { connect: Duration::from_secs(5), silence: Duration::from_secs(20), attempts: 1 };
    block_on(S3Store::open(&config, Access { limits, hashes, ..access() }))
}

/// Whether it succeeded; it fails with an error of the store's, or says that what came is not right.
#[track_caller]
fn succeeded<T>(result: Result<T, Stopped>, context: &str) -> bool {
    match result {
        Ok(_) => true,
        Err(Stopped::Fork(fork)) => panic!("{context}: {fork:?}"),
        Err(Stopped::Failed(error)) => {
            assert!(matches!(error.kind(), Kind::Store | Kind::Integrity), "{context}: {error}");
            false
        }
    }
}

/// `size` is that of what is saved, in bytes; with hashes it goes in one request, if that does not go wrong.
fn at_each_request(size: usize, hashes: bool, fault: fn() -> Reply) {
    let config = part(servers::seaweedfs());
    let direct = open(&config);
    let (one, two) = (Machine::new("one"), Machine::new("two"));
    one.save(b"base");
    one.push(&*direct).unwrap();
    two.pull(&*direct).unwrap();
    for at in 0.. {
        let context = format!("request {at}");
        let fake = Fake::before(servers::seaweedfs(), move |request| match request.number == at {
            true => fault(),
            false => Reply::Serve,
        });
        let store = through(&fake, &config, hashes);
        let content = Noise::bytes(at as u64, size);
        let before = two.content();
        let commit = one.save(&content);
        let (key, bytes) = (format!("commits/{:010}", commit.body.n), commit.bytes.clone());
        if succeeded(one.push(&store), &context) {
            // What was acknowledged is there, and nothing waits.
            assert!(crate::suite::get(&*direct, &key) == Some(bytes.clone()), "{context}");
            assert!(one.local().load().unwrap().outbox.is_empty(), "{context}");
        }
        if succeeded(two.pull(&store), &context) && two.content() == content {
            assert!(crate::suite::get(&*direct, &key) == Some(bytes.clone()), "{context}");
        } else {
            assert!(two.content() == before, "{context}: neither the old state nor the new one");
        }
        let met = fake.log().len() > at;
        let again = |stopped: Stopped| panic!("{context}, again: {}", Error::from(stopped));
        one.push(&*direct).map_err(again).unwrap();
        two.pull(&*direct).map_err(again).unwrap();
        assert!(two.content() == content, "{context}");
        assert!(crate::suite::get(&*direct, &key) == Some(bytes), "{context}");
        one.verify(&*direct);
        if !met {
            assert!(at > 12, "{at} requests");
            return;
        }
    }
}

macro_rules! faults {
    ($($name:ident: $size:expr, $hashes:expr, $reply:expr;)*) => {
        $(#[test] fn $name() { at_each_request($size, $hashes, || $reply); })*
    };
}

const SMALL: usize = 200_000;
/// Goes in parts, or in one request.
const LARGE: usize = 9 << 20;

faults!(
    a_request_that_is_lost: SMALL, false, Reply::HangUp;
    a_request_that_is_cut: SMALL, false, Reply::SendHalf;
    a_large_request_that_is_cut: LARGE, false, Reply::SendHalf;
    a_whole_request_that_is_cut: LARGE, true, Reply::SendHalf;
    a_request_with_a_wrong_byte: SMALL, false, Reply::Corrupt;
    a_whole_request_with_a_wrong_byte: LARGE, true, Reply::Corrupt;
    an_answer_that_is_lost: SMALL, false, Reply::ServeAndHangUp;
    a_whole_answer_that_is_lost: LARGE, true, Reply::ServeAndHangUp;
    an_answer_that_is_cut: SMALL, false, Reply::ServeHalf;
    a_large_answer_that_is_cut: LARGE, false, Reply::ServeHalf;
    an_answer_with_a_wrong_byte: SMALL, false, Reply::CorruptAnswer;
    an_answer_that_is_slow: SMALL, false, Reply::Slowly;
    a_conflict: SMALL, false, Reply::Refuse(409, "ConditionalRequestConflict");
    a_precondition: SMALL, false, Reply::Refuse(412, "PreconditionFailed");
    an_error: SMALL, false, Reply::Refuse(500, "InternalError");
    a_store_that_is_busy: SMALL, false, Reply::Refuse(503, "SlowDown");
);

/// What a proxy says of a large body; a line that does not last; a server that only listens.
#[test]
fn what_does_not_get_through_whole_goes_in_parts() {
    for reply in [
        || Reply::Refuse(413, "EntityTooLarge"),
        || Reply::Refuse(500, "InternalError"),
        || Reply::Corrupt,
        || Reply::SendHalf,
        || Reply::HangUp,
        || Reply::Stall,
    ] {
        let config = part(servers::seaweedfs());
        let one = Machine::new("one");
        let fake = Fake::before(servers::seaweedfs(), move |request| {
            let whole = request.method == "PUT" && request.key.contains("gen/") && request.query.is_empty();
            if whole { reply() } else { Reply::Serve }
        });
        let config_there = S3Config { endpoint: Some(fake.address.clone()), ..config.clone() };
        let limits = Limits { silence: Duration::from_secs(1), ..Limits::default() };
        let store = block_on(S3Store::open(&config_there, Access { limits, hashes: true, ..access() }));
        one.save(&Noise::bytes(1, LARGE));
        one.push(&store).unwrap();
        let log = fake.log();
        let puts = |parts: bool| {
            let is_put = |line: &&String| line.starts_with("PUT") && line.contains("gen/");
            log.iter().filter(is_put).filter(|line| line.contains("partNumber") == parts).count()
        };
        assert_eq!((puts(false), puts(true)), (1, 2), "{log:#?}");
        one.verify(&*open(&config));
    }
}
