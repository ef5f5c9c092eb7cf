//! A store that refuses: what the user reads, that nothing is changed, and that it goes on as soon as the store does.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tazpod::adapters::store::{S3Config, StoreConfig};

use crate::fake::{Fake, Reply, Request};
use crate::machine::Machine;
use crate::{block_on, open, part, servers};

/// What the server answers, and the advice on it.
const REFUSALS: [(u16, &str, &str); 4] = [
    (400, "ExpiredToken", LOGIN),
    (
        403,
        "RequestTimeTooSkewed",
        "hint: set this machine's clock: the store refuses what is signed at another time\n",
    ),
    (403, "AccessDenied", DENIED),
    // A proxy's.
    (403, "", DENIED),
];
const LOGIN: &str = "hint: log in again; for AWS `aws sso login`, or set the profile in `config.toml`\n";
const DENIED: &str = "hint: the credentials must allow to read, write and list there; \
                      for a bucket `tazpod vault setup-storage --policy daily` prints the least\n";

/// What it is asked then.
type Meant = fn(&Request) -> bool;

#[test]
fn a_push_that_is_refused() {
    let points: [Meant; 3] = [
        |_| true,
        |request| request.method == "PUT" && request.key.contains("commits/"),
        // Of what this machine has seen there: not a store that has gone back.
        |request| request.method == "GET" && request.key.contains("commits/"),
    ];
    at_each(&points, |one, _, content, refused| {
        let n = one.save(content).body.n;
        refused(one, "push");
        let outbox = one.local().load().unwrap().outbox;
        assert_eq!(outbox.iter().map(|outgoing| outgoing.commit.body.n).collect::<Vec<_>>(), [n]);
        one.run(&["push"]).success();
    });
}

#[test]
fn a_pull_that_is_refused() {
    let points: [Meant; 3] = [
        |_| true,
        |request| request.method == "GET" && request.key.contains("commits/"),
        |request| request.method == "GET" && request.key.contains("gen/"),
    ];
    at_each(&points, |one, two, content, refused| {
        let before = two.content();
        one.save(content);
        one.run(&["push"]).success();
        refused(two, "pull");
        assert_eq!(two.content(), before);
    });
}

#[test]
fn a_bucket_that_may_not_be_listed_is_not_an_empty_one() {
    at_each(&[|request| request.query.contains("list-type")], |one, two, content, refused| {
        one.save(content);
        one.run(&["push"]).success();
        let new = Machine::new("new");
        new.configure_as(two);
        refused(&new, "pull");
        assert!(new.local().load().unwrap().seen.is_none());
        new.run(&["pull"]).success();
        assert_eq!(new.content(), content);
    });
}

/// Each refusal of these requests, to two machines that have the same state.
fn at_each(points: &[Meant], story: impl Fn(&Machine, &Machine, &[u8], &dyn Fn(&Machine, &str))) {
    for (at, is_meant) in points.iter().copied().enumerate() {
        let config = part(servers::seaweedfs());
        // The place in the list, while it refuses.
        let refusing: Arc<Mutex<Option<usize>>> = Arc::default();
        let on = refusing.clone();
        let fake = Fake::before(servers::seaweedfs(), move |request| match *on.lock().unwrap() {
            Some(which) if is_meant(request) => Reply::Refuse(REFUSALS[which].0, REFUSALS[which].1),
            _ => Reply::Serve,
        });
        let through = StoreConfig::S3(S3Config { endpoint: Some(fake.address.clone()), ..config.clone() });
        let (one, two) = (Machine::new("one"), Machine::new("two"));
        for machine in [&one, &two] {
            machine.configure(&through, "");
        }
        one.save(b"first");
        one.run(&["push"]).success();
        two.run(&["pull"]).success();
        let store = open(&config);
        for (which, (status, code, hint)) in REFUSALS.into_iter().enumerate() {
            let context = format!("{status} {code} at {at}");
            story(&one, &two, context.as_bytes(), &|machine, command| {
                let commits = || block_on(store.list("commits/", "")).unwrap();
                let before = commits();
                *refusing.lock().unwrap() = Some(which);
                let done = machine.run(&[command]).failure(14, "error: cannot ").failure(14, code);
                *refusing.lock().unwrap() = None;
                assert!(done.stderr.ends_with(hint), "{context}: {}", done.stderr);
                assert_eq!(commits(), before, "{context}");
            });
            two.run(&["pull"]).success();
            assert_eq!(two.content(), context.as_bytes());
        }
        two.verify(&*store);
    }
}

#[test]
fn a_login_that_is_over() {
    let machine = Machine::new("one");
    let config = part(servers::seaweedfs());
    machine.configure(&StoreConfig::S3(config.clone()), "profile = \"work\"");
    machine.aws(
        "[profile work]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = vault\n\
         [sso-session corp]\nsso_start_url = https://corp.example/start\nsso_region = eu-central-1\n",
        "",
    );
    machine.save(b"first");
    for (command, says) in [("push", "error: cannot look into `s3://"), ("pull", "error: cannot list `s3://")]
    {
        let done = machine.run_with(&[command], &[]).failure(14, says).failure(14, "the cached SSO token\n");
        assert!(done.stderr.ends_with(LOGIN), "{}", done.stderr);
    }
    assert_eq!(machine.run(&["status", "--json"]).success().json()["pending"], json!([1]));
    machine.run(&["push"]).success();
    machine.verify(&*open(&config));
}
