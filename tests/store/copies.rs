//! Directories that a synchroniser keeps in step, and what it does where both sides made the same file.

use std::fs;
use std::path::Path;

use tazpod::adapters::store::DirectoryStore;
use tazpod::error::{Error, Kind};
use tazpod::vault::copies;
use tazpod::vault::sync::{self, Stopped};

use crate::block_on;
use crate::machine::{Machine, keyring};

/// Brings two directories together as Syncthing does: a file of one side goes to the other; of two that differ the first side's keeps
/// the name, and the other becomes a conflict copy.
pub fn bring_together(one: &Path, two: &Path) {
    bring_together_by(one, two, |_| true);
}

/// The same, where `first_wins` says of each name whose file keeps it.
fn bring_together_by(one: &Path, two: &Path, first_wins: impl Fn(&str) -> bool) {
    for directory in ["commits", "gen", "keys", "branches", "pruned"] {
        let (left, right) = (one.join(directory), two.join(directory));
        for path in [&left, &right] {
            fs::create_dir_all(path).unwrap();
        }
        for name in names(&left).into_iter().chain(names(&right)) {
            let read = |at: &Path| fs::read(at.join(&name)).ok();
            let (winner, loser) = match (read(&left), read(&right)) {
                (Some(mine), Some(theirs)) if mine != theirs => {
                    if first_wins(&name) {
                        (mine, Some(theirs))
                    } else {
                        (theirs, Some(mine))
                    }
                }
                (Some(mine), _) => (mine, None),
                (None, theirs) => (theirs.unwrap(), None),
            };
            for at in [&left, &right] {
                fs::write(at.join(&name), &winner).unwrap();
                if let Some(loser) = &loser {
                    fs::write(at.join(format!("{name}.sync-conflict-20261122-101112-ABCDEFG")), loser)
                        .unwrap();
                }
            }
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// Two machines with a directory each, and one state.
struct Pair {
    machines: [Machine; 2],
    places: [tempfile::TempDir; 2],
}

impl Pair {
    fn new() -> Pair {
        let pair = Pair {
            machines: [Machine::new("one"), Machine::new("two")],
            places: [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()],
        };
        pair.push(0, "base");
        pair.meet(|_| true);
        pair.machines[1].pull(&pair.store(1)).unwrap();
        pair
    }

    fn store(&self, at: usize) -> DirectoryStore {
        DirectoryStore::new(self.places[at].path())
    }

    fn push(&self, at: usize, content: &str) {
        self.machines[at].save(content.as_bytes());
        self.machines[at].push(&self.store(at)).unwrap();
    }

    fn meet(&self, first_wins: impl Fn(&str) -> bool) {
        bring_together_by(self.places[0].path(), self.places[1].path(), first_wins);
    }

    fn fork(&self, at: usize) -> bool {
        match self.machines[at].pull(&self.store(at)) {
            Ok(_) => false,
            Err(Stopped::Fork(_)) => true,
            Err(Stopped::Failed(error)) => panic!("machine {at}: {error}"),
        }
    }
}

#[test]
fn a_copy_of_the_same_bytes_is_nothing() {
    let pair = Pair::new();
    let commits = pair.places[0].path().join("commits");
    fs::copy(commits.join("0000000001"), commits.join("0000000001.sync-conflict-20261122-101112-ABCDEFG"))
        .unwrap();
    pair.push(0, "two");
    assert!(!pair.fork(0));
    pair.machines[0].verify(&pair.store(0));
    // Neither is what is no commit of this vault: it is told, and hinders nobody.
    fs::write(commits.join("0000000002.sync-conflict-20261122-101112-ABCDEFG"), "nonsense").unwrap();
    pair.push(0, "three");
    assert!(!pair.fork(0));
    let found = block_on(sync::verify(&pair.machines[0].local(), &pair.store(0), false)).unwrap();
    assert!(found.problems[0].contains("a synchroniser may have left it"), "{:?}", found.problems);
}

#[test]
fn a_store_that_has_gone_back_is_no_fork() {
    let pair = Pair::new();
    pair.push(0, "mine");
    pair.push(1, "theirs");
    // Another commit 2, and no copy that would show how it came there.
    fs::copy(
        pair.places[1].path().join("commits/0000000002"),
        pair.places[0].path().join("commits/0000000002"),
    )
    .unwrap();
    let error = Error::from(pair.machines[0].pull(&pair.store(0)).unwrap_err());
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    let decided = block_on(copies::decide(&pair.machines[0].local(), &pair.store(0))).unwrap();
    assert!(decided.mine.is_none() && decided.theirs.is_none());
    let error = Error::from(pair.machines[0].pull(&pair.store(0)).unwrap_err());
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
}

/// Whoever's key was retired can make no fork where that is known.
#[test]
fn a_retired_key_forks_nothing() {
    let pair = Pair::new();
    let fresh = keyring().0.rotated().unwrap();
    pair.machines[0].rekey(b"sealed anew", &fresh);
    pair.machines[0].push(&pair.store(0)).unwrap();
    pair.machines[0].save_by(b"on", &fresh);
    pair.machines[0].push(&pair.store(0)).unwrap();
    for n in 2..=3 {
        pair.push(1, &format!("retired {n}"));
    }
    pair.meet(|_| true);
    assert!(!pair.fork(0));
    pair.machines[0].save_by(b"and on", &fresh);
    pair.machines[0].push(&pair.store(0)).unwrap();
    let found = block_on(sync::verify(&pair.machines[0].local(), &pair.store(0), false)).unwrap();
    let problems = found.problems;
    assert!(problems.iter().any(|problem| problem.contains("no side of a fork here")), "{problems:?}");
}

/// Each side went on for a while, and the synchroniser chose file by file: every outcome of that, and whoever decides first.
#[test]
fn histories_that_were_mixed_are_sorted_out() {
    for outcome in 0..8_u32 {
        for first in 0..2 {
            let pair = Pair::new();
            for n in 2..=3 {
                pair.push(0, &format!("one {n}"));
            }
            for n in 2..=3 + outcome as usize % 2 {
                pair.push(1, &format!("two {n}"));
            }
            let wins = |name: &str| ((outcome / 2) >> (name.parse::<u32>().unwrap() - 2)) & 1 == 0;
            pair.meet(wins);
            let forks = [pair.fork(0), pair.fork(1)];
            assert!(forks[0] || forks[1], "outcome {outcome}");
            let decide = |at: usize| {
                let before = pair.machines[at].content();
                let decided = block_on(copies::decide(&pair.machines[at].local(), &pair.store(at))).unwrap();
                let pulled = pair.machines[at].pull(&pair.store(at));
                pulled.unwrap_or_else(|stopped| panic!("outcome {outcome}: {}", Error::from(stopped)));
                let after = pair.machines[at].content();
                let held = pair.machines[at].local().held().unwrap();
                // What this machine had is current, or it is held, and it was said.
                let mine = decided.mine.map(|commit| commit.hash);
                assert!(
                    before == after || held.iter().any(|held| Some(held.hash) == mine),
                    "outcome {outcome}"
                );
            };
            decide(first);
            pair.meet(|_| first == 0);
            if pair.fork(1 - first) {
                decide(1 - first);
            }
            pair.meet(|_| first == 1);
            for at in 0..2 {
                assert!(!pair.fork(at), "outcome {outcome}, first {first}, machine {at}");
                pair.machines[at].verify(&pair.store(at));
            }
            assert_eq!(pair.machines[0].content(), pair.machines[1].content());
            // And on they go.
            pair.push(0, "on");
            pair.meet(|_| true);
            assert!(!pair.fork(1));
            assert_eq!(pair.machines[1].content(), b"on");
        }
    }
}
