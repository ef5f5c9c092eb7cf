//! Machines that write to one bucket at the same moment, on a real server.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tazpod::adapters::store::{Place, S3Config};
use tazpod::error::{Error, Kind};
use tazpod::vault::copies;
use tazpod::vault::id::Hash;
use tazpod::vault::key::Keyring;
use tazpod::vault::local::Object;
use tazpod::vault::prune::{self, Rules};
use tazpod::vault::store::{Created, Listed, Result as StoreResult, Store};
use tazpod::vault::sync::{Pushed, Stopped, branch_key};

use crate::machine::{Machine, keyring};
use crate::{block_on, open, part, servers};

/// How often two machines race: `bench/races` asks for more.
const ROUNDS: &str = "TAZPOD_STORE_ROUNDS";

/// Two machines that have the same state of a vault in a bucket.
fn pair(config: &S3Config) -> [Machine; 2] {
    let machines = ["one", "two"].map(Machine::new);
    let store = open(config);
    machines[0].save(b"base");
    machines[0].push(&*store).unwrap();
    machines[1].pull(&*store).unwrap();
    machines
}

/// What both machines' pushes gave, at the same moment.
fn push_at_once(config: &S3Config, machines: &[Machine; 2]) -> [Result<Pushed, Stopped>; 2] {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let pushes = machines.each_ref().map(|machine| {
            let barrier = &barrier;
            scope.spawn(move || {
                let store = open(config);
                barrier.wait();
                machine.push(&*store)
            })
        });
        pushes.map(|push| push.join().unwrap())
    })
}

/// Of two results, the place of the one that is right; the other is a fork.
#[track_caller]
fn winner(results: &[Result<Pushed, Stopped>; 2]) -> usize {
    match results {
        [Ok(_), Err(Stopped::Fork(_))] => 0,
        [Err(Stopped::Fork(_)), Ok(_)] => 1,
        other => panic!("{other:?}"),
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "it reports")]
fn of_two_writers_one_wins_each_time_and_nothing_is_lost() {
    let rounds = std::env::var(ROUNDS).map_or(50, |rounds| rounds.parse().unwrap());
    let config = part(servers::seaweedfs());
    let machines = pair(&config);
    let barrier = Barrier::new(2);
    // By the number of the commit: who won, and what lost.
    let won: Mutex<BTreeMap<u64, Vec<Hash>>> = Mutex::default();
    let lost: Mutex<BTreeMap<u64, Vec<String>>> = Mutex::default();
    thread::scope(|scope| {
        for machine in &machines {
            let (config, barrier, won, lost) = (&config, &barrier, &won, &lost);
            scope.spawn(move || {
                let store = open(config);
                for round in 0..rounds {
                    let commit = machine.save(format!("{} {round}", machine.name).as_bytes());
                    barrier.wait();
                    let n = commit.body.n;
                    match machine.push(&*store) {
                        Ok(_) => won.lock().unwrap().entry(n).or_default().push(commit.hash),
                        Err(Stopped::Fork(fork)) => {
                            assert_eq!(fork.mine, commit);
                            assert_eq!(
                                block_on(store.size(&branch_key(&commit))).unwrap(),
                                Some(commit.bytes.len() as u64)
                            );
                            lost.lock().unwrap().entry(n).or_default().push(branch_key(&commit));
                            block_on(copies::decide(&machine.local(), &*store)).unwrap();
                            let pulled = machine.pull(&*store).unwrap().unwrap();
                            assert_eq!(pulled.head, fork.theirs);
                        }
                        Err(Stopped::Failed(error)) => panic!("{} in round {round}: {error}", machine.name),
                    }
                    barrier.wait();
                }
            });
        }
    });
    let (won, lost) = (won.into_inner().unwrap(), lost.into_inner().unwrap());
    let store = open(&config);
    assert_eq!(machines[0].verify(&*store).commits, rounds + 1);
    for n in 2..=rounds + 1 {
        let there = crate::suite::get(&*store, &format!("commits/{n:010}")).unwrap();
        assert_eq!(won[&n], [Hash::of(&there)], "commit {n}");
        assert_eq!(lost[&n].len(), 1, "commit {n}");
    }
    let branches: Vec<String> =
        block_on(store.list("branches/", "")).unwrap().into_iter().map(|listed| listed.key).collect();
    assert_eq!(branches, lost.into_values().flatten().collect::<Vec<_>>());
    // What lost can be had: its generation is there, too.
    let held = machines.each_ref().map(|machine| machine.local().held().unwrap());
    for held in held.iter().flatten() {
        let key = format!("gen/{}.age", held.body.generation);
        assert_eq!(block_on(store.size(&key)).unwrap(), Some(held.body.size));
    }
    let [one, two] = held.map(|held| held.len() as u64);
    assert_eq!(one + two, rounds);
    println!(
        "{rounds} rounds: one writer won each time, {two} times the first and {one} times the second; nothing is lost"
    );
}

#[test]
fn of_two_inits_one_wins() {
    for _ in 0..10 {
        let config = part(servers::seaweedfs());
        let machines = ["one", "two"].map(Machine::new);
        for machine in &machines {
            machine.save(machine.name.as_bytes());
        }
        let results = push_at_once(&config, &machines);
        let first = winner(&results);
        let [one, two] = results;
        let refused = Error::from(if first == 0 { two.unwrap_err() } else { one.unwrap_err() });
        assert_eq!(refused.kind(), Kind::Conflict);
        assert!(refused.to_string().contains("the store has a vault already"), "{refused}");
        let newcomer = Machine::new("new");
        newcomer.pull(&*open(&config)).unwrap();
        assert_eq!(newcomer.content(), machines[first].name.as_bytes());
        newcomer.verify(&*open(&config));
    }
}

#[test]
fn a_rekey_and_a_push_do_not_mix() {
    for _ in 0..10 {
        let config = part(servers::seaweedfs());
        let machines = pair(&config);
        let fresh = keyring().0.rotated().unwrap();
        machines[0].save(b"saved");
        machines[1].rekey(b"base", &fresh);
        let first = winner(&push_at_once(&config, &machines));
        let store = open(&config);
        let newcomer = Machine::new("new");
        let head = newcomer.pull(&*store).unwrap().unwrap().head;
        newcomer.verify(&*store);
        let signer = |keyring: &Keyring| keyring.current().signer(&keyring.vault()).unwrap();
        let expected = if first == 0 { &keyring().0 } else { &fresh };
        assert_eq!(head.body.vk, signer(expected).id());
        let local = newcomer.local();
        // One keyring opens the newest state: that of its commit.
        let (_, sealed) = local.open(Object::Generation, &head.body.generation).unwrap();
        let mut content = String::new();
        expected.current().open(sealed).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, if first == 0 { "saved" } else { "base" });
    }
}

/// A store in which, before the request of one number, somebody else prunes all that can be pruned.
struct Pruned<'s> {
    store: &'s dyn Place,
    by: &'s Machine,
    at: usize,
    requests: AtomicUsize,
    removed: AtomicUsize,
}

impl Pruned<'_> {
    async fn turn(&self) {
        if self.requests.fetch_add(1, Ordering::SeqCst) == self.at {
            let rules = Rules {
                keep_last: 1.try_into().ok(),
                keep_within: None,
                spare: Duration::ZERO,
                accept_lost: false,
            };
            let plan = prune::plan(&self.by.local(), self.store, &rules).await.unwrap();
            let removed = |_: &_| {
                self.removed.fetch_add(1, Ordering::SeqCst);
            };
            prune::carry_out(self.store, &plan, removed).await.unwrap();
        }
    }
}

impl Store for Pruned<'_> {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        size: u64,
        sha256: [u8; 32],
        body: &'a mut (dyn Read + Send),
    ) -> BoxFuture<'a, StoreResult<()>> {
        Box::pin(async move {
            self.turn().await;
            self.store.put(key, size, sha256, body).await
        })
    }

    fn create<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> BoxFuture<'a, StoreResult<Created>> {
        Box::pin(async move {
            self.turn().await;
            self.store.create(key, bytes).await
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a str,
        limit: u64,
        into: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, StoreResult<Option<u64>>> {
        Box::pin(async move {
            self.turn().await;
            self.store.get(key, limit, into).await
        })
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, StoreResult<Option<u64>>> {
        Box::pin(async move {
            self.turn().await;
            self.store.size(key).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, StoreResult<Vec<Listed>>> {
        Box::pin(async move {
            self.turn().await;
            self.store.list(prefix, after).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, StoreResult<()>> {
        self.store.delete(key)
    }
}

#[test]
fn pruning_between_the_steps_of_a_push_takes_nothing_from_it() {
    let mut unnamed = 0;
    for at in 0.. {
        let config = part(servers::seaweedfs());
        let [one, two] = pair(&config);
        let place = open(&config);
        // Both a generation and keyring that nobody names until the commit is there, and one more commit after it.
        let fresh = keyring().0.rotated().unwrap();
        one.rekey(b"sealed anew", &fresh);
        let store = Pruned {
            store: &*place,
            by: &two,
            at,
            requests: AtomicUsize::new(0),
            removed: AtomicUsize::new(0),
        };
        one.push(&store).unwrap();
        let verified = two.verify(&*place);
        assert_eq!(verified.commits, 2);
        let newcomer = Machine::new("new");
        newcomer.pull(&*place).unwrap();
        let removed = store.removed.into_inner();
        unnamed += usize::from(removed > 0 && verified.pruned == 0);
        if store.requests.into_inner() <= at {
            assert!(at > 8, "{at} requests");
            break;
        }
    }
    assert!(unnamed >= 3, "what the push had put was removed {unnamed} times");
}
