//! The vault's commands on real stores, as far as they take no engine.

use serde_json::json;
use tazpod::adapters::store::{S3Config, StoreConfig};
use tazpod::vault::commit::{Commit, Draft, Reason};
use tazpod::vault::id::VaultId;
use tazpod::vault::key::Keyring;

use crate::fake::{Fake, Reply};
use crate::machine::{Machine, keyring};
use crate::{block_on, open, part, servers, unique};

fn bucket(endpoint: &str) -> StoreConfig {
    StoreConfig::S3(unique(endpoint))
}

/// A machine whose store is a part of a bucket that was set up.
fn ready() -> (Machine, S3Config) {
    let (machine, config) = (Machine::new("one"), part(servers::seaweedfs()));
    machine.configure(&StoreConfig::S3(config.clone()), "");
    (machine, config)
}

fn pending(machine: &Machine) -> serde_json::Value {
    machine.run(&["status", "--json"]).success().json()["pending"].clone()
}

#[test]
fn a_place_is_set_up_and_tried_out() {
    let machine = Machine::new("one");
    machine.configure(&bucket(servers::seaweedfs()), "");
    let missing = machine.run(&["init", "--passphrase-fd", "0"]).failure(14, "cannot look into `s3://");
    assert!(missing.stderr.contains("`tazpod vault setup-storage`"), "{}", missing.stderr);
    let report = machine.run(&["setup-storage", "--json"]).success().json();
    assert_eq!((&report["version"], &report["probe"]["conditional_create"]), (&json!(1), &json!(true)));
    let outcome = |report: &serde_json::Value, at: usize| report["steps"][at]["outcome"].clone();
    assert_eq!([0, 1, 2].map(|at| outcome(&report, at)), ["done", "done", "not-supported"]);
    let text = machine.run(&["setup-storage"]).success().stdout;
    assert!(text.contains("was so         the bucket exists\n"), "{text}");
    assert!(text.contains("not supported  nothing in it can be public"), "{text}");

    let directory = tempfile::tempdir().unwrap();
    machine.configure(&StoreConfig::Directory(directory.path().join("vault")), "");
    let report = machine.run(&["setup-storage", "--json"]).success().json();
    assert_eq!((outcome(&report, 0), report["probe"].clone()), (json!("done"), json!(null)));
    // A file where the directory should be.
    std::fs::write(directory.path().join("file"), "").unwrap();
    machine.configure(&StoreConfig::Directory(directory.path().join("file")), "");
    machine.run(&["setup-storage"]).failure(14, "is not a directory");
}

#[test]
fn a_step_that_fails_is_told_and_the_others_are_done() {
    let fake = Fake::before(servers::seaweedfs(), |request| match request.query.as_str() {
        query if query.starts_with("versioning") => Reply::Refuse(403, "AccessDenied"),
        _ => Reply::Serve,
    });
    let machine = Machine::new("one");
    machine.configure(&bucket(&fake.address), "");
    let done = machine.run(&["setup-storage", "--json"]).failure(14, "1 things of s3://");
    assert!(done.stderr.contains("--policy setup"), "{}", done.stderr);
    let steps = done.json()["steps"].clone();
    assert_eq!((&steps[0]["outcome"], &steps[1]["outcome"]), (&json!("done"), &json!("failed")));
    assert!(steps[1]["why"].as_str().unwrap().contains("AccessDenied"), "{steps}");
    assert_eq!(steps[4]["outcome"], "done");
}

#[test]
fn policies_are_printed_and_nothing_is_asked() {
    let machine = Machine::new("one");
    machine.configure(&StoreConfig::parse("s3://nobody-has-this/vault").unwrap(), "");
    let policy = |purpose| machine.run(&["setup-storage", "--policy", purpose]).success().json();
    let text = |purpose| policy(purpose)["Statement"].to_string();
    assert!(text("daily").contains("arn:aws:s3:::nobody-has-this/vault/commits/*"));
    assert!(!text("daily").contains("DeleteObject") && text("maintenance").contains("DeleteObject"));
    assert!(text("setup").contains("PutBucketVersioning"));
    machine
        .run(&["setup-storage", "--policy", "yearly"])
        .failure(2, "possible values: daily, maintenance, setup");
    machine.configure(&StoreConfig::Directory("/nowhere".into()), "");
    let done = machine.run(&["setup-storage", "--policy", "daily"]).failure(2, "is a directory");
    assert!(done.stderr.contains("hint: "), "{}", done.stderr);
}

#[test]
fn a_store_that_ignores_conditions_is_refused() {
    let machine = Machine::new("one");
    let config = bucket(servers::rclone());
    machine.configure(&config, "");
    let done = machine.run(&["setup-storage"]).success();
    assert!(done.stderr.contains("warning: it ignores `If-None-Match`"), "{}", done.stderr);
    let done =
        machine.run(&["init", "--passphrase-fd", "0"]).failure(14, "is not safe to push to: it ignores");
    assert!(done.stderr.contains("`accept_overwrites = true` in `[vault]`"), "{}", done.stderr);
    // Nothing was begun.
    assert_eq!(machine.run(&["status", "--json"]).success().json()["commit"], json!(null));
    machine.save(b"first");
    machine.run(&["push"]).failure(14, "is not safe to push to");
    assert_eq!(pending(&machine), json!([1]));

    machine.configure(&config, "accept_overwrites = true");
    for n in [1, 2] {
        let done = machine.run(&["push"]).success();
        assert!(done.stderr.contains(&format!("pushed commit {n}")), "{}", done.stderr);
        assert!(done.stderr.contains("warning: ") && done.stderr.contains("not safe"), "{}", done.stderr);
        machine.save(format!("after {n}").as_bytes());
    }
    machine.configure(&config, "accept_overwrite = true");
    machine.run(&["push"]).failure(3, "did you mean `vault.accept_overwrites`?");
}

#[test]
fn a_good_store_is_tried_out_once() {
    let fake = Fake::before(servers::seaweedfs(), |_| Reply::Serve);
    let machine = Machine::new("one");
    machine.configure(&StoreConfig::S3(part(&fake.address)), "");
    let probes = || fake.log().iter().filter(|line| line.contains("probe/")).count();
    machine.run(&["init", "--passphrase-fd", "0"]).success();
    let (first, kept) = (probes(), machine.file("store.json").unwrap());
    assert!(first > 0 && kept.contains("\"conditional_create\": true"), "{kept}");
    machine.run(&["verify"]).success();
    machine.run(&["push"]).success();
    assert_eq!(probes(), first);
    machine.run(&["setup-storage"]).success();
    assert!(probes() > first);
    // The same bucket's name elsewhere is another store.
    let elsewhere = Fake::before(servers::seaweedfs(), |_| Reply::Serve);
    let other = Machine::new("two");
    other.configure(&StoreConfig::S3(part(&elsewhere.address)), "");
    other.run(&["setup-storage"]).success();
    let kept = other.file("store.json").unwrap();
    assert!(kept.contains(&elsewhere.address) && !kept.contains(&fake.address), "{kept}");
}

#[test]
fn what_a_store_does_not_check_is_read_back_ever_after() {
    // It honours conditions, and looks at no checksum.
    let fake = Fake::start(|_| Reply::Serve);
    let machine = Machine::new("one");
    machine.configure(&bucket(&fake.address), "");
    machine.save(b"first");
    let done = machine.run(&["push"]).success();
    assert!(done.stderr.contains("accepts objects whose checksum is wrong"), "{}", done.stderr);
    machine.save(b"second");
    let before = fake.log().len();
    let done = machine.run(&["push"]).success();
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    let log = fake.log().split_off(before);
    let put = log.iter().find(|line| line.starts_with("PUT") && line.contains("gen/")).unwrap();
    assert!(log.contains(&put.replace("PUT", "GET")), "{log:#?}");
}

#[test]
fn an_unplugged_store_leaves_what_was_saved_pending() {
    let (machine, config) = ready();
    machine.save(b"first");
    machine.run(&["push"]).success();
    machine.save(b"second");
    let (_socket, address) = servers::nobody();
    let gone = S3Config { endpoint: Some(address), ..config.clone() };
    machine.configure(&StoreConfig::S3(gone), "");
    let done = machine.run(&["push"]).failure(14, "cannot look into `s3://");
    assert!(done.stderr.contains("hint: nothing is lost"), "{}", done.stderr);
    assert_eq!(pending(&machine), json!([2]));
    machine.run(&["prune"]).failure(14, "cannot list");
    machine.configure(&StoreConfig::S3(config), "");
    machine.run(&["push"]).success();
    assert_eq!(pending(&machine), json!([]));
    machine.run(&["verify", "--read-data"]).success();
}

#[test]
fn history_is_pruned_and_told_from_what_is_lost() {
    let (machine, config) = ready();
    let store = open(&config);
    let mut commits = Vec::new();
    for content in ["one", "two", "three", "four"] {
        commits.push(machine.save(content.as_bytes()));
        machine.push(&*store).unwrap();
    }
    machine.run(&["prune", "--keep-last", "0"]).failure(2, "--keep-last");
    machine.run(&["prune", "--keep-within", "0d"]).failure(2, "`12h`, `90d`, `8w`");
    // Without rules nothing that a commit names goes, and what nobody names is young.
    block_on(store.create("gen/stray", b"x")).unwrap();
    let stray = format!("gen/{}.age", "0".repeat(64));
    block_on(store.create(&stray, b"x")).unwrap();
    let done = machine.run(&["prune", "--json"]).success().json();
    assert_eq!((&done["objects"], &done["spared"]), (&json!([]), &json!(1)));
    let done = machine.run(&["prune", "--keep-within", "1h"]).success();
    assert!(done.stderr.contains("removed 0 objects"), "{}", done.stderr);

    let generation = |n: usize| format!("gen/{}.age", commits[n - 1].body.generation);
    let expected = json!([generation(1), generation(2)]);
    let objects = |done: &serde_json::Value| {
        let all = done["objects"].as_array().unwrap().iter();
        json!(all.map(|object| object["key"].clone()).collect::<Vec<_>>())
    };
    let tried = machine.run(&["prune", "--keep-last", "2", "--dry-run", "--json"]).success().json();
    assert_eq!((objects(&tried), &tried["dry_run"]), (expected.clone(), &json!(true)));
    assert_eq!(block_on(store.list("pruned/", "")).unwrap(), []);
    machine.run(&["verify"]).success();
    let done = machine.run(&["prune", "--keep-last", "2", "--json"]).success().json();
    assert_eq!((objects(&done), done["bytes"].clone()), (expected, tried["bytes"].clone()));
    assert_eq!(block_on(store.size(&generation(1))).unwrap(), None);
    let verified = machine.run(&["verify", "--json"]).success().json();
    assert_eq!((&verified["commits"], &verified["pruned"]), (&json!(4), &json!(2)));
    assert!(machine.run(&["prune", "--keep-last", "2"]).success().stderr.contains("removed 0 objects"));

    let restore = |n: &str| machine.run(&["restore", n, "--passphrase-fd", "0"]);
    machine.local().tidy(&[commits[3].body.generation]).unwrap();
    let done = restore("1").failure(2, "the state of commit 1 is gone: it was pruned");
    assert!(done.stderr.contains("hint: `tazpod vault history`"), "{}", done.stderr);
    let newcomer = Machine::new("two");
    newcomer.configure(&StoreConfig::S3(config), "");
    newcomer.run(&["pull"]).success();
    for machine in [&machine, &newcomer] {
        let history = machine.run(&["history", "--json"]).success().json();
        let states = [0, 1, 2, 3].map(|at| history["commits"][at]["state"].clone());
        assert_eq!(states, ["pushed", "pushed", "pruned", "pruned"], "{}", machine.name);
    }
    restore("3").success();
    // What is lost is no less lost.
    block_on(store.delete(&generation(3))).unwrap();
    machine.run(&["verify"]).failure(13, &format!("warning: `{}`, of commit 5, is missing", generation(3)));
    let refused = machine.run(&["prune", "--keep-last", "1"]).failure(13, "so nothing is pruned");
    assert!(refused.stderr.contains("`--accept-lost`"), "{}", refused.stderr);
    // Of an earlier state it can be given up.
    machine.run(&["prune", "--accept-lost"]).failure(13, "so nothing is pruned");
    machine.save(b"six");
    machine.run(&["push"]).success();
    machine.run(&["prune"]).failure(13, "so nothing is pruned");
    machine.run(&["prune", "--accept-lost"]).success();
    assert_eq!(machine.run(&["verify", "--json"]).success().json()["pruned"], json!(3));
}

#[test]
fn the_daily_role_prunes_nothing() {
    let (machine, config) = ready();
    for content in ["one", "two"] {
        machine.save(content.as_bytes());
        machine.push(&*open(&config)).unwrap();
    }
    let daily = Fake::before(servers::seaweedfs(), |request| match request.method.as_str() {
        "DELETE" => Reply::Refuse(403, "AccessDenied"),
        _ => Reply::Serve,
    });
    let endpoint = Some(daily.address.clone());
    machine.configure(&StoreConfig::S3(S3Config { endpoint, ..config.clone() }), "");
    let tried = machine.run(&["prune", "--keep-last", "1", "--dry-run"]).success();
    assert!(tried.stderr.contains("would remove 1 objects"), "{}", tried.stderr);
    let done =
        machine.run(&["prune", "--keep-last", "1"]).failure(14, "these credentials may remove nothing");
    assert!(done.stderr.contains("--policy maintenance"), "{}", done.stderr);
    machine.configure(&StoreConfig::S3(config.clone()), "");
    let verified = machine.verify(&*open(&config));
    assert_eq!((verified.pruned, verified.objects), (0, 3));
    // A machine that has never seen the vault does not judge it.
    let stranger = Machine::new("two");
    stranger.configure(&StoreConfig::S3(config), "");
    stranger.run(&["prune"]).failure(10, "has not seen the vault");
}

#[test]
fn a_commit_that_this_machine_has_lost_is_pulled_again() {
    let (machine, config) = ready();
    machine.save(b"one");
    machine.push(&*open(&config)).unwrap();
    let path = machine.vault().join("commits/0000000001");
    for broken in [None, Some("nonsense")] {
        match broken {
            None => std::fs::remove_file(&path).unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
        }
        machine.run(&["pull"]).success();
        assert_eq!(machine.content(), b"one");
        machine.run(&["card"]).success();
    }
}

#[test]
fn a_card_has_what_a_login_takes_and_no_secret() {
    let (machine, config) = ready();
    let config = StoreConfig::S3(config);
    let head = machine.save(b"first");
    let fingerprint = head.fingerprint();
    machine.aws(
        "[default]\nregion = us-east-1\n\
         [profile work]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = vault\n\
         region = eu-central-1\ncredential_process = print-keys --with s3cret\n\
         [sso-session corp]\nsso_start_url = https://corp.example/start\nsso_region = eu-west-1\n\
         sso_registration_scopes = sso:account:access\n",
        "[work]\naws_access_key_id = AKIAs3cret\naws_secret_access_key = s3cret\naws_session_token = s3cret\n",
    );
    let card = |more: &str, variables: &[(&str, &str)]| {
        machine.configure(&config, more);
        let done = machine.run_with(&["card"], variables).success();
        assert_eq!(done.stderr, "");
        let (begin, end) =
            ("in ~/.config/tazpod/config.toml:\n\n", &format!("    tazpod vault pull --card {fingerprint}"));
        let (_, rest) = done.stdout.split_once(begin).unwrap();
        rest.split_once(end)
            .unwrap()
            .0
            .replace(&config.to_string(), "S3")
            .replace(servers::seaweedfs(), "SERVER")
    };
    let expected = "    [vault]
    address = \"S3\"
    endpoint = \"SERVER\"
    profile = \"work\"
    path_style = true
    accept_overwrites = false

in ~/.aws/config:

    [profile work]
    sso_session = corp
    sso_account_id = 123456789012
    sso_role_name = vault
    region = eu-central-1
    # and an access key, which is not on this card
    # and a program that gives credentials, which is not on this card
    [sso-session corp]
    sso_start_url = https://corp.example/start
    sso_region = eu-west-1
    sso_registration_scopes = sso:account:access

log in to the store (`aws sso login --profile work`), and then:

";
    let settings = "path_style = true\naccept_overwrites = false\n";
    assert_eq!(card(&format!("profile = \"work\"\n{settings}"), &[]), expected);
    // As the environment chooses it, where nobody will on a fresh machine.
    assert_eq!(card(settings, &[("AWS_PROFILE", "work")]), expected);
    let without = card("", &[]);
    assert!(
        without.contains("    [default]\n    region = us-east-1\n\nlog in to the store, and then:"),
        "{without}"
    );
    assert!(!without.contains("profile") && !without.contains("path_style"), "{without}");

    machine.aws("not what it should be\n", "");
    let done = machine.run_with(&["card"], &[]).success();
    assert!(done.stdout.contains("log in to the store, and then:"), "{}", done.stdout);
    let said = "warning: the card does not have how to log in: cannot read AWS's configuration files: ";
    assert!(done.stderr.starts_with(said), "{}", done.stderr);
}

#[test]
fn a_fork_is_decided_where_the_store_may_only_be_read() {
    let (one, config) = ready();
    one.save(b"base");
    one.push(&*open(&config)).unwrap();
    let two = Machine::new("two");
    two.pull(&*open(&config)).unwrap();
    one.save(b"theirs");
    one.push(&*open(&config)).unwrap();
    two.save(b"mine");
    let reader = Fake::before(servers::seaweedfs(), |request| match request.method.as_str() {
        "GET" | "HEAD" => Reply::Serve,
        _ => Reply::Refuse(403, "AccessDenied"),
    });
    two.configure(&StoreConfig::S3(S3Config { endpoint: Some(reader.address.clone()), ..config }), "");
    two.run(&["pull"]).failure(12, "the vault has forked at commit 2");
    two.run(&["pull", "--keep", "theirs"]).success();
    assert_eq!(two.content(), b"theirs");
    let history = two.run(&["history", "--json"]).success().json();
    assert_eq!(
        history["commits"].as_array().unwrap().iter().filter(|commit| commit["state"] == "held").count(),
        1
    );
}

#[test]
fn a_fork_of_a_synchroniser_is_decided_on_each_side() {
    for (first, second) in [("mine", "theirs"), ("theirs", "mine"), ("mine", "mine")] {
        let (one, two, place) = forked();
        for machine in [&one, &two] {
            machine.save(b"more");
            machine.run(&["push"]).failure(12, "the vault has forked at commit 2");
            let done = machine.run(&["pull"]).failure(12, "the vault has forked at commit 2");
            assert!(done.stderr.contains("hint: both are kept"), "{}", done.stderr);
            machine.local().dequeue(3).unwrap();
        }
        one.run(&["verify"]).failure(13, "is another commit 2: `tazpod vault pull --keep theirs`");
        one.run(&["pull", "--keep", first, "--passphrase-fd", "0"]).success();
        let chosen = if first == "mine" { "of one" } else { "of two" };
        assert_eq!(one.content(), chosen.as_bytes(), "{first}");
        // Whoever was first is not in the way; the other one's pin has lost its name, and that is its own to decide.
        one.run(&["push"]).success();
        two.run(&["pull"]).failure(12, "the vault has forked at commit 2");
        two.run(&["pull", "--keep", second, "--passphrase-fd", "0"]).success();
        let chosen = if second == "mine" { "of two" } else { chosen };
        assert_eq!(two.content(), chosen.as_bytes(), "{first}, {second}");
        one.run(&["pull"]).success();
        assert_eq!(one.content(), two.content());
        let newcomer = Machine::new("new");
        newcomer.configure(&StoreConfig::Directory(place.path().to_owned()), "");
        newcomer.run(&["pull"]).success();
        assert_eq!(newcomer.content(), two.content());
        newcomer.run(&["verify", "--read-data"]).success();
        // So it can by a machine that had no part in it.
        let history = newcomer.run(&["history", "--branches", "--json"]).success().json();
        let commits = history["commits"].as_array().unwrap();
        let lost: Vec<_> = commits.iter().filter(|commit| commit["state"] == "branch").collect();
        assert!(!lost.is_empty() && lost.iter().all(|commit| commit["n"] == 2), "{history}");
        let drawn = newcomer.run(&["history", "--branches"]).success().stdout;
        assert_eq!(drawn.lines().filter(|line| line.starts_with("| o  2")).count(), lost.len(), "{drawn}");
        assert!(!newcomer.run(&["history"]).success().stdout.contains("| o"));
        let (hash, side) = (lost[0]["hash"].as_str().unwrap(), lost[0]["host"].as_str().unwrap());
        newcomer.run(&["restore", &hash[..10], "--passphrase-fd", "0"]).success();
        assert_eq!(newcomer.content(), format!("of {side}").as_bytes());
        newcomer.run(&["verify", "--read-data"]).success();
        newcomer
            .run(&["restore", "00000000", "--passphrase-fd", "0"])
            .failure(2, "this machine has no commit");
        // Both sides can still be had, wherever it was decided.
        let sides = |machine: &Machine| machine.local().held().unwrap().iter().any(|held| held.body.n == 2);
        assert!(sides(&one) && sides(&two));
    }
}

/// Two machines that each pushed commit 2 to its own copy of a directory, after the copies were brought together: the first one's has
/// the name.
fn forked() -> (Machine, Machine, tempfile::TempDir) {
    let (one, two) = (Machine::new("one"), Machine::new("two"));
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let at = |place: &tempfile::TempDir| StoreConfig::Directory(place.path().to_owned());
    one.configure(&at(&places[0]), "");
    two.configure(&at(&places[1]), "");
    one.save(b"base");
    one.run(&["push"]).success();
    crate::copies::bring_together(places[0].path(), places[1].path());
    two.run(&["pull"]).success();
    for machine in [&one, &two] {
        machine.save(format!("of {}", machine.name).as_bytes());
        machine.run(&["push"]).success();
    }
    crate::copies::bring_together(places[0].path(), places[1].path());
    // One directory from here on, as if both were always in step.
    two.configure(&at(&places[0]), "");
    let [place, _] = places;
    (one, two, place)
}

#[test]
fn a_store_that_was_set_back_is_taken_if_that_is_meant() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (Machine::new("one"), Machine::new("two"));
    for machine in [&one, &two] {
        machine.configure(&StoreConfig::Directory(place.path().to_owned()), "");
    }
    for n in 1..=6 {
        one.save(format!("state {n}").as_bytes());
        one.run(&["push"]).success();
        if n == 3 {
            two.run(&["pull"]).success();
        }
    }
    assert!(one.run(&["pull", "--accept-rollback"]).success().stderr.contains("the store has not gone back"));
    // A backup of when there were four, and another machine that goes on from it.
    let commits = place.path().join("commits");
    for n in 5..=6 {
        std::fs::remove_file(commits.join(format!("{n:010}"))).unwrap();
    }
    one.save(b"not pushed");
    one.run(&["push"]).failure(13, "does not have commit 6, which this machine has seen there");
    let refused = one.run(&["pull"]).failure(13, "does not have commit 6");
    assert!(refused.stderr.contains("`tazpod vault pull --accept-rollback`"), "{}", refused.stderr);
    two.run(&["pull"]).success();
    two.save(b"another 5");
    two.run(&["push"]).success();

    let done = one.run(&["pull", "--accept-rollback"]).success();
    assert!(done.stderr.contains("commit 7 of this machine is held: "), "{}", done.stderr);
    assert!(done.stderr.contains("commit 6 of this machine is held: "), "{}", done.stderr);
    assert_eq!(one.content(), b"another 5");
    one.run(&["push"]).success();
    one.run(&["verify", "--read-data"]).success();
    let held = one.local().held().unwrap();
    let newest = held.iter().find(|held| held.body.n == 7).unwrap();
    one.run(&["restore", &newest.hash.to_string(), "--passphrase-fd", "0"]).success();
    assert_eq!(one.content(), b"not pushed");
    two.run(&["pull"]).success();
    assert_eq!(two.content(), b"not pushed");

    // Of another vault's store nothing is taken.
    for entry in std::fs::read_dir(&commits).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    one.run(&["pull", "--accept-rollback"]).failure(13, "has no commit that this machine has seen there");
    assert_eq!(one.content(), b"not pushed");
}

#[test]
fn what_is_forged_in_a_store_is_told_and_not_taken() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (Machine::new("one"), Machine::new("two"));
    for machine in [&one, &two] {
        machine.configure(&StoreConfig::Directory(place.path().to_owned()), "");
    }
    let (vault, retired) = (VaultId([7; 16]), &keyring().0);
    let fresh = Keyring::generate(vault).unwrap();
    one.save(b"first");
    one.run(&["push"]).success();
    let second = one.rekey(b"second", &fresh);
    one.run(&["push"]).success();
    two.run(&["pull"]).success();
    let third = one.save_by(b"third", &fresh);
    one.run(&["push"]).success();

    let at = place.path().join("commits/0000000003");
    let body = third.body.clone();
    let draft = Draft {
        generation: body.generation,
        size: body.size,
        keys: body.keys,
        recipients: None,
        kind: Reason::Save,
        second_parent: None,
        host: body.host,
        time: body.time,
    };
    let retired = retired.current().signer(&vault).unwrap();
    let by_retired = Commit::write(vault, Some(&second.link()), draft, &retired, None).unwrap().bytes;
    let forged = String::from_utf8(third.bytes.clone()).unwrap().replace("\"one\"", "\"two\"").into_bytes();
    for (bytes, says) in [
        (forged, "is not valid: a signature does not fit"),
        (by_retired, "is signed by a key that does not sign for this vault"),
    ] {
        std::fs::write(&at, bytes).unwrap();
        let told = two.run(&["pull"]).failure(13, says);
        assert!(told.stderr.contains("hint: `tazpod vault verify`"), "{}", told.stderr);
        assert_eq!(two.local().load().unwrap().seen, Some(second.link()));
        two.run(&["verify"]).failure(13, says);
    }
    std::fs::write(&at, &third.bytes).unwrap();

    let at = place.path().join(format!("gen/{}.age", third.body.generation));
    let good = std::fs::read(&at).unwrap();
    std::fs::write(&at, [&[good[0] ^ 1][..], &good[1..]].concat()).unwrap();
    let told = two.run(&["pull"]).failure(13, "is something else");
    assert!(told.stderr.contains("hint: `tazpod vault push --read-data`"), "{}", told.stderr);
    let told = one.run(&["verify", "--read-data"]).failure(13, "is damaged");
    assert!(told.stderr.contains("hint: `tazpod vault push --read-data`"), "{}", told.stderr);
    // Who does not have it cannot put it back, and a push that does not read does not see it.
    two.run(&["push", "--read-data"]).failure(13, "the store does not have `gen/");
    let told = one.run(&["push"]).success();
    assert!(told.stderr.contains("nothing to push") && !told.stderr.contains("damaged"), "{}", told.stderr);
    let told = one.run(&["push", "--read-data"]).success();
    assert!(told.stderr.contains("1 objects were missing or damaged there"), "{}", told.stderr);
    assert_eq!(std::fs::read(&at).unwrap(), good);
    two.run(&["pull"]).success();
    two.run(&["verify", "--read-data"]).success();
}
