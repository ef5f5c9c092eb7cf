//! Forks whose sides have different keys.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::{Machine, PASSPHRASE};

const NEW: &str = "another six words by chance now\n";

/// Copies the objects of a store into another.
fn bring(from: &Path, to: &Path) {
    for directory in ["gen", "keys"] {
        for entry in fs::read_dir(from.join(directory)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(directory).join(entry.file_name())).unwrap();
        }
    }
}

/// Two machines with the same vault, each with its own copy of the store's directory.
fn with_a_copy_each(place: &Path) -> [Machine; 2] {
    let [at_one, at_two] = ["one", "two"].map(|name| place.join(name));
    let one = Machine::new(&at_one);
    one.init();
    one.run("cp", &["-r", &at_one.to_string_lossy(), &at_two.to_string_lossy()], "").success();
    let two = Machine::new(&at_two);
    two.vault(&["pull"]).success();
    [one, two]
}

/// A machine that has changed the passphrase, and lost the number of that commit to another machine's, as a synchroniser of directories
/// does it.
fn with_other_keys(place: &Path) -> Machine {
    let at = |name: &str| place.join(name);
    let [one, two] = with_a_copy_each(place);
    let both = format!("{PASSPHRASE}{NEW}");
    one.vault_with(&["passphrase", "--passphrases-fd", "0"], &both).success();
    let key = two.ssh_key("key", &["-t", "ed25519"], "");
    two.vault(&["recipients", "add", "--file", &key]).success();
    let second = |store: &str| -> PathBuf { at(store).join("commits/0000000002") };
    let conflict = at("one").join("commits/0000000002.sync-conflict-20261122-101112-ABCDEFG");
    fs::rename(second("one"), conflict).unwrap();
    fs::copy(second("two"), second("one")).unwrap();
    bring(&at("two"), &at("one"));
    one.vault(&["pull"]).failure(12, "has forked at commit 2");
    one
}

/// Each side has gone on: nobody has signed both newest commits.
#[test]
fn sides_that_share_no_key_are_a_fork() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let [one, two] = with_a_copy_each(place.path());
    let change = ["passphrase", "--passphrases-fd", "0"];
    one.vault_with(&change, &format!("{PASSPHRASE}{NEW}")).success();
    one.vault_with(&change, &format!("{NEW}{PASSPHRASE}")).success();
    for comment in ["first", "second"] {
        let key = two.ssh_key(comment, &["-t", "ed25519"], "");
        two.vault(&["recipients", "add", "--file", &key]).success();
    }
    for n in ["0000000002", "0000000003"] {
        let name = |store: &str| at(store).join("commits").join(n);
        fs::rename(name("one"), format!("{}.sync-conflict-20261122-101112-ABCDEFG", name("one").display()))
            .unwrap();
        fs::copy(name("two"), name("one")).unwrap();
    }
    bring(&at("two"), &at("one"));
    let told = one.vault_with(&["verify"], "").failure_plain(13, "");
    let beside = |n: u8| format!("is another commit {n}: `tazpod vault pull --keep theirs`");
    assert!(told.stderr.contains(&beside(2)) && told.stderr.contains(&beside(3)), "{}", told.stderr);
    one.vault(&["pull"]).failure(12, "has forked at commit 3");
    one.vault(&["pull", "--keep", "theirs"]).success();
    one.vault_with(&["verify"], "").success();
    one.vault(&["recipients", "ls"]).success();
}

#[test]
fn mine_goes_on_under_the_keys_of_the_other_side() {
    let place = tempfile::tempdir().unwrap();
    let one = with_other_keys(place.path());
    let mine_then_theirs = format!("{NEW}{PASSPHRASE}");
    let keep = ["pull", "--keep", "mine", "--passphrase-fd", "0"];
    // Nothing is put aside for a passphrase that is wrong.
    one.vault_with(&keep, "not the passphrase\n").failure_plain(11, "this is not the vault's passphrase");
    one.vault(&["pull"]).failure(12, "has forked at commit 2");
    let done = one.vault_with(&keep, &mine_then_theirs).success();
    assert!(
        done.stderr.contains("its passphrase and recipients are those of the side that goes on"),
        "{}",
        done.stderr
    );
    assert_eq!((one.head("kind"), one.head("n")), ("merge".into(), 3.into()));
    one.vault_with(&["verify", "--read-data"], "").success();
    // The newest state opens with the passphrase of the side that goes on, and only with that.
    one.vault(&["recipients", "ls"]).success();
    one.vault_with(&["recipients", "ls", "--passphrase-fd", "0"], NEW).failure_plain(11, "");
    let again = one.vault_with(&keep, &mine_then_theirs).success();
    assert!(again.stderr.contains("there is no fork"), "{}", again.stderr);
}

#[test]
fn what_was_sealed_by_other_keys_is_restored_with_them() {
    let place = tempfile::tempdir().unwrap();
    let one = with_other_keys(place.path());
    one.vault(&["pull", "--keep", "theirs"]).success();
    let history = one.vault_with(&["history", "--json"], "").success().json();
    let held =
        history["commits"].as_array().unwrap().iter().find(|commit| commit["state"] == "held").unwrap();
    let restore = ["restore", held["hash"].as_str().unwrap(), "--passphrase-fd", "0"];
    let done = one.vault_with(&restore, &format!("{PASSPHRASE}{NEW}")).success();
    assert!(done.stderr.contains("was sealed by other keys"), "{}", done.stderr);
    assert_eq!((one.head("kind"), one.head("n")), ("restore".into(), 3.into()));
    one.vault(&["recipients", "ls"]).success();
}

/// Nothing waits to be pushed, and the store is not the one that has it all.
#[test]
fn a_push_of_nothing_to_another_store() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let [one, two] = with_a_copy_each(place.path());
    one.vault_with(&["push"], "").success();
    let told = two.vault_with(&["push"], "").success();
    assert!(told.stderr.contains("nothing to push: the store has commit 1"), "{}", told.stderr);
    for directory in ["commits", "gen", "keys"] {
        fs::remove_dir_all(at("one").join(directory)).unwrap();
    }
    let told = one.vault_with(&["push"], "").failure(13, "does not have commit 1");
    assert!(!told.stderr.contains("the store has commit"), "{}", told.stderr);
    assert!(!at("one").join("gen").exists());
    fs::remove_dir_all(at("one")).unwrap();
    one.vault_with(&["push"], "").failure_plain(14, "one");
}

/// The sealed state of the newest commit is lost: what is left can be had.
#[test]
fn an_earlier_state_is_restored_where_the_newest_is_lost() {
    let place = tempfile::tempdir().unwrap();
    let [one, _] = with_a_copy_each(place.path());
    let at_one = place.path().join("one");
    let first = one.head("gen");
    let change = ["passphrase", "--passphrases-fd", "0"];
    one.vault_with(&change, &format!("{PASSPHRASE}{NEW}")).success();
    one.vault_with(&change, &format!("{NEW}{PASSPHRASE}")).success();
    let lost = one.head("gen");
    assert_ne!(first, lost);
    fs::remove_file(at_one.join(format!("gen/{}.age", lost.as_str().unwrap()))).unwrap();
    let three = Machine::new(&at_one);
    let told = three.vault(&["pull"]).failure(13, "the store does not have `gen/");
    assert!(told.stderr.contains("`restore` takes one"), "{}", told.stderr);
    three.vault_with(&["push"], "").failure(13, "the store does not have `gen/");
    three.vault(&["restore", "1"]).success();
    assert_eq!(three.head("n"), 4);
    one.vault(&["pull"]).success();
    // Where it is still there, a push is enough.
    let newest = at_one.join(format!("gen/{}.age", one.head("gen").as_str().unwrap()));
    fs::remove_file(&newest).unwrap();
    let told = one.vault_with(&["push"], "").success();
    assert!(
        told.stderr.contains("1 objects were missing or damaged there, and are whole again"),
        "{}",
        told.stderr
    );
    assert!(newest.exists());
}
