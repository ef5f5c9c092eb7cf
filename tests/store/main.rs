//! One conformance suite over every store: a directory, and S3 servers as others wrote them. `scripts/test` runs it.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod child;
mod commands;
mod copies;
mod fake;
mod faults;
mod interrupted;
mod kill;
mod machine;
mod races;
mod refused;
mod s3;
mod servers;
mod suite;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tazpod::adapters::store::{
    Access, DirectoryStore, Limits, Place, Probe, S3Config, S3Store, StoreConfig, StoreSettings,
};

use suite::Subject;

/// What a good store honours.
const ALL: Probe = Probe {
    conditional_create: true,
    checksums: true,
    hashes: true,
    read_after_write: true,
    list_after_write: true,
    may_delete: true,
};

macro_rules! conformance {
    ($subject:ident: $($test:ident),* $(,)?) => {
        mod $subject {
            $(
                #[test]
                fn $test() {
                    crate::suite::$test(&crate::$subject());
                }
            )*
        }
    };
}

macro_rules! everything {
    ($($subject:ident),*) => {
        $(conformance!($subject:
            what_is_put_can_be_got,
            a_key_is_created_once,
            of_eight_one_wins,
            what_is_not_there_is_none,
            a_list_is_sorted_and_bounded,
            a_long_list_is_whole,
            a_limit_holds,
            other_bytes_than_announced_are_not_kept,
            a_large_object_may_go_in_one_request,
            errors_of_the_callers_files_are_told,
            a_missing_place_is_not_an_empty_one,
            the_probe_finds_what_is_honoured,
            setting_up_twice_changes_nothing,
        );)*
    };
}

everything!(directory, seaweedfs, ministack);

// All but conditions, which it ignores; the probe says so.
conformance!(rclone:
    what_is_put_can_be_got,
    what_is_not_there_is_none,
    a_list_is_sorted_and_bounded,
    a_limit_holds,
    other_bytes_than_announced_are_not_kept,
    a_large_object_may_go_in_one_request,
    errors_of_the_callers_files_are_told,
    a_missing_place_is_not_an_empty_one,
    the_probe_finds_what_is_honoured,
    setting_up_twice_changes_nothing,
);

fn directory() -> Subject {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("store");
    Subject {
        elsewhere: Box::new(DirectoryStore::new(&parent.path().join("missing"))),
        open: Box::new(move || Box::new(DirectoryStore::new(&root))),
        honours: ALL,
        unsupported: 0,
        _directory: Some(parent),
    }
}

fn seaweedfs() -> Subject {
    // Blocking public access.
    bucket(servers::seaweedfs(), ALL, 1)
}

fn ministack() -> Subject {
    bucket(servers::ministack(), ALL, 0)
}

fn rclone() -> Subject {
    // It has none of a bucket's configuration, and compares MD5 alone.
    bucket(servers::rclone(), Probe { conditional_create: false, hashes: false, ..ALL }, 4)
}

fn bucket(endpoint: &'static str, honours: Probe, unsupported: usize) -> Subject {
    let config = unique(endpoint);
    Subject {
        elsewhere: open(&unique(endpoint)),
        open: Box::new(move || open(&config)),
        honours,
        unsupported,
        _directory: None,
    }
}

/// A part of a bucket of SeaweedFS's that nobody has used, as it is seen from `endpoint`. One bucket for all: each takes some of the few
/// volumes that the server has.
fn part(endpoint: &str) -> S3Config {
    static BUCKET: OnceLock<String> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let bucket = BUCKET.get_or_init(|| {
        let config = unique(servers::seaweedfs());
        block_on(open(&config).setup()).unwrap();
        config.bucket
    });
    at(endpoint, bucket, &format!("/part-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A bucket that nobody has used, with a prefix every other time.
fn unique(endpoint: &str) -> S3Config {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let prefix = if number % 4 < 2 { "/team/vault" } else { "" };
    at(endpoint, &format!("tazpod-{}-{number}", std::process::id()), prefix)
}

fn at(endpoint: &str, bucket: &str, prefix: &str) -> S3Config {
    let settings = StoreSettings {
        address: format!("s3://{bucket}{prefix}"),
        endpoint: Some(endpoint.to_owned()),
        ..StoreSettings::default()
    };
    match StoreConfig::new(&settings).unwrap() {
        StoreConfig::S3(config) => config,
        StoreConfig::Directory(_) => unreachable!(),
    }
}

fn access() -> Access {
    Access { keys: Some(servers::keys()), ..Access::default() }
}

fn impatient() -> Access {
    let limits = Limits { connect: Duration::from_secs(2), silence: Duration::from_secs(1), attempts: 2 };
    Access { limits, ..access() }
}

fn open(config: &S3Config) -> Box<dyn Place> {
    Box::new(block_on(S3Store::open(config, access())))
}

/// Whether the server at a port of this machine is one, and ready.
fn ready(port: u16) -> bool {
    let config = at(&format!("http://127.0.0.1:{port}"), "tazpod-ready", "");
    let store = block_on(S3Store::open(&config, impatient()));
    block_on(store.setup()).is_ok()
}

/// Runs a future as the binary does: on one thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
