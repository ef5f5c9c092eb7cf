//! What must never happen, tried: losing what was acknowledged, two winners of one number, a state that was seen and is gone, an
//! object that does not fit its name, a commit whose objects are missing.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use super::commit::{Commit, Draft, Link, Reason};
use super::disk::Disk;
use super::id::{Hash, VaultId};
use super::key::Signer;
use super::local::{Local, Object, commit_key};
use super::prune::{self, Rules};
use super::sim::{Fault, Power, SimDisk, SimStore, Survives};
use super::store::Store as _;
use super::sync::{self, Stopped};
use crate::error::{Kind, Result};

const VAULT: VaultId = VaultId([6; 16]);
const KEYS: &[u8] = b"wrapped keyring";

struct Machine {
    name: &'static str,
    disk: SimDisk,
    store: SimStore,
    seed: u8,
}

impl Machine {
    fn new(name: &'static str, shared: &SimStore, power: Power) -> Machine {
        Machine { name, disk: SimDisk::new(power.clone()), store: shared.on_machine(power), seed: 1 }
    }

    fn local(&self) -> Local<'_> {
        Local::new(&self.disk as &dyn Disk, "/vault".into())
    }

    fn keep(&self, object: Object, bytes: &[u8]) -> Result<Hash> {
        let local = self.local();
        let mut incoming = local.incoming(object)?;
        incoming.write_all(bytes).map_err(|source| crate::error::Error::io("write", "x".as_ref(), source))?;
        Ok(incoming.finish(None)?.0)
    }

    /// A commit of this content, in the outbox. Sealing is not what these tests are about.
    fn save(&self, content: &str) -> Result<Commit> {
        let (keys, generation) =
            (self.keep(Object::Keys, KEYS)?, self.keep(Object::Generation, content.as_bytes())?);
        let base = self.local().load()?.base;
        let kind = if base.is_some() { Reason::Save } else { Reason::Init };
        let draft = Draft {
            generation,
            size: content.len() as u64,
            keys,
            recipients: None,
            kind,
            second_parent: None,
            host: self.name.into(),
            time: String::new(),
        };
        let commit = Commit::write(VAULT, base.as_ref(), draft, &Signer::from_seed(&[self.seed; 32]), None)?;
        self.local().enqueue(&commit)?;
        Ok(commit)
    }

    fn push(&self) -> Result<Vec<u64>, Stopped> {
        wait(sync::push(&self.local(), &self.store)).map(|pushed| pushed.numbers)
    }

    fn pull(&self) -> Result<Option<(u64, usize)>, Stopped> {
        let pulled = wait(sync::pull(&self.local(), &self.store, None))?;
        Ok(pulled.map(|pulled| (pulled.head.body.n, pulled.new)))
    }

    /// What is current here.
    fn content(&self) -> String {
        let state = self.local().load().unwrap();
        let head = match state.outbox.last() {
            Some(outgoing) => outgoing.commit.clone(),
            None => self.local().commit(state.seen.unwrap().n).unwrap().unwrap(),
        };
        let bytes = self.local().object(Object::Generation, &head.body.generation, 1000).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Everything that a store must be, whatever happened; the contents by number.
fn check(store: &SimStore) -> Vec<String> {
    let objects = store.objects();
    let mut chain: Option<Link> = None;
    let mut contents = Vec::new();
    let mut named = BTreeSet::new();
    for (key, bytes) in objects.range("commits/".to_owned().."commits0".to_owned()) {
        let commit = Commit::read(bytes.clone()).unwrap();
        assert_eq!(*key, commit_key(commit.body.n));
        chain = Some(Link::next(chain.as_ref(), &commit).unwrap());
        for key in [Object::Generation.key(&commit.body.generation), Object::Keys.key(&commit.body.keys)] {
            assert!(objects.contains_key(&key), "commit {} names `{key}`, which is not there", commit.body.n);
            named.insert(key);
        }
        let generation = &objects[&Object::Generation.key(&commit.body.generation)];
        assert_eq!(Hash::of(generation), commit.body.generation);
        contents.push(String::from_utf8(generation.clone()).unwrap());
    }
    let orphans = objects.keys().filter(|key| !named.contains(*key) && !key.starts_with("commits/")).count();
    assert!(orphans <= 2, "{orphans} orphans");
    contents
}

/// One machine's day; `after` is called when a crash may have come, and says whether one has.
fn day(machine: &Machine, crashed: impl Fn() -> bool) -> Vec<String> {
    // What the user has been told is safe: saved here, and pushed.
    let mut acknowledged = Vec::new();
    let again = |step: &dyn Fn() -> Result<(), Stopped>| {
        let result = step();
        if crashed() {
            return step().unwrap();
        }
        result.unwrap();
    };
    for content in ["one", "two", "three"] {
        again(&|| {
            machine.save(content)?;
            Ok(())
        });
        again(&|| {
            machine.pull()?;
            machine.push()?;
            Ok(())
        });
        acknowledged.push(content.to_owned());
    }
    again(&|| {
        machine.save("four, replaced")?;
        machine.save("four")?;
        Ok(())
    });
    again(&|| machine.push().map(drop));
    acknowledged.push("four".to_owned());
    acknowledged
}

#[test]
fn a_crash_at_any_step_loses_nothing() {
    let mut points = 0;
    for survives in [Survives::Synced, Survives::Names, Survives::Everything] {
        for limit in 0.. {
            let store = SimStore::default();
            let power = Power::for_steps(limit);
            let machine = Machine::new("a", &store, power.clone());
            let crashed = Cell::new(false);
            let acknowledged = day(&machine, || {
                let gone = power.is_gone();
                if gone {
                    power.restore();
                    machine.disk.crash(survives);
                    crashed.set(true);
                }
                gone
            });
            power.restore();
            let mut contents = check(&store);
            // A step that was done again after the crash may stand there twice.
            contents.dedup();
            contents.retain(|content| content != "four, replaced");
            assert_eq!(contents, acknowledged, "{survives:?} at step {limit}");
            assert_eq!(machine.content(), "four");
            assert_eq!(machine.local().load().unwrap().outbox, []);
            let left: Vec<_> =
                machine.disk.files().into_iter().filter(|path| path.starts_with("/vault/outbox")).collect();
            assert!(left.len() <= 2, "{left:?}");
            // Another machine gets the same.
            let other = Machine::new("b", &store, Power::default());
            other.pull().unwrap();
            assert_eq!(other.content(), "four");
            points += 1;
            if !crashed.get() {
                break;
            }
        }
    }
    assert!(points > 300, "{points} points");
}

#[test]
fn a_save_after_a_push_that_broke_off_is_no_fork_with_oneself() {
    for limit in 0.. {
        let store = SimStore::default();
        let power = Power::for_steps(limit);
        let machine = Machine::new("a", &store, power.clone());
        let _ = machine.save("one").map_err(Stopped::from).and_then(|_| machine.push());
        let crashed = power.is_gone();
        power.restore();
        machine.disk.crash(Survives::Synced);
        machine.save("two").unwrap();
        machine.pull().unwrap();
        machine.push().unwrap();
        assert_eq!(check(&store).last().unwrap(), "two", "at step {limit}");
        if !crashed {
            break;
        }
    }
}

#[test]
fn a_request_that_goes_wrong_is_settled() {
    for fault in [Fault::ReplyLost, Fault::RequestLost, Fault::Busy, Fault::Lie] {
        for request in 0.. {
            let store = SimStore::default();
            let machine = Machine::new("a", &store, Power::default());
            machine.save("one").unwrap();
            machine.push().unwrap();
            machine.save("two").unwrap();
            machine.store.fail(request, fault);
            // It may succeed all the same, or say so; it may not do half of it for good.
            let first = machine.push();
            if first.is_ok() {
                assert_eq!(check(&store), ["one", "two"], "{fault:?} of request {request}");
            }
            machine.store.fail(u64::MAX, fault);
            machine.push().unwrap();
            assert_eq!(check(&store), ["one", "two"], "{fault:?} of request {request}");
            assert_eq!(machine.pull().unwrap(), Some((2, 0)));
            machine.store.fail(request, fault);
            let _ = machine.push();
            machine.save("three").unwrap();
            machine.store.fail(request, fault);
            if machine.push().is_ok() && !machine.store.has_failed() {
                break;
            }
        }
    }
}

#[test]
fn two_machines_that_saved_at_once_fork_and_keep_both() {
    let store = SimStore::default();
    let (one, two) =
        (Machine::new("one", &store, Power::default()), Machine::new("two", &store, Power::default()));
    one.save("first").unwrap();
    one.push().unwrap();
    assert_eq!(two.pull().unwrap(), Some((1, 1)));
    one.save("mine").unwrap();
    two.save("theirs").unwrap();
    one.push().unwrap();
    for stopped in [two.push().unwrap_err(), two.pull().unwrap_err(), two.push().unwrap_err()] {
        let Stopped::Fork(fork) = stopped else { panic!("no fork: {stopped:?}") };
        assert_eq!((fork.theirs.body.host.as_str(), fork.mine.body.host.as_str()), ("one", "two"));
    }
    // Nothing of either is lost, and what was current is.
    assert_eq!((two.content().as_str(), one.content().as_str()), ("theirs", "mine"));
    let mine = two.local().load().unwrap().outbox.remove(0).commit;
    assert_eq!(store.objects()[&sync::branch_key(&mine)], mine.bytes);
    assert!(store.objects().contains_key(&Object::Generation.key(&mine.body.generation)));
    assert_eq!(one.pull().unwrap(), Some((2, 0)));
}

#[test]
fn what_the_store_has_lost_of_the_newest_is_put_again() {
    let store = SimStore::default();
    let (one, two) =
        (Machine::new("one", &store, Power::default()), Machine::new("two", &store, Power::default()));
    let first = one.save("first").unwrap();
    one.push().unwrap();
    let heal = |machine: &Machine| wait(sync::heal(&machine.local(), &machine.store, false));
    assert_eq!(heal(&one).unwrap(), 0);
    let lost = Object::Generation.key(&first.body.generation);
    wait(one.store.delete(&lost)).unwrap();
    two.pull().unwrap_err();
    assert_eq!(heal(&one).unwrap(), 1);
    assert_eq!(two.pull().unwrap(), Some((1, 0)));
    // Damaged, and of the same size: only who reads it sees that.
    let good = store.objects()[&lost].clone();
    let damaged = [&[good[0] ^ 1][..], &good[1..]].concat();
    store.tamper(&lost, Some(damaged));
    assert_eq!(heal(&one).unwrap(), 0);
    let read = || wait(sync::heal(&one.local(), &one.store, true)).unwrap();
    assert_eq!((read(), read()), (1, 0));
    assert_eq!(store.objects()[&lost], good);
    // Of what is not the newest any more it is not its business.
    two.save("second").unwrap();
    two.push().unwrap();
    wait(one.store.delete(&lost)).unwrap();
    assert_eq!(heal(&one).unwrap(), 0);
    assert!(!store.objects().contains_key(&lost));
}

#[test]
fn two_inits_have_one_winner_who_is_named() {
    let store = SimStore::default();
    let (one, two) =
        (Machine::new("one", &store, Power::default()), Machine::new("two", &store, Power::default()));
    one.save("a").unwrap();
    two.save("b").unwrap();
    one.push().unwrap();
    let error = crate::error::Error::from(two.push().unwrap_err());
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(
        error.to_string().contains("the store has a vault already") && error.to_string().contains("`one`"),
        "{error}"
    );
}

/// Two machines that both have the first commit.
fn pair(store: &SimStore) -> (Machine, Machine) {
    let (one, two) =
        (Machine::new("one", store, Power::default()), Machine::new("two", store, Power::default()));
    one.save("1").unwrap();
    one.push().unwrap();
    two.pull().unwrap();
    (one, two)
}

#[test]
fn a_push_from_behind_is_a_fork_and_a_pull_before_it_is_none() {
    let store = SimStore::default();
    let (one, two) = pair(&store);
    for content in ["2", "3"] {
        one.save(content).unwrap();
        one.push().unwrap();
    }
    assert_eq!(two.pull().unwrap(), Some((3, 2)));
    two.save("4").unwrap();
    assert_eq!(two.push().unwrap(), [4]);
    assert_eq!(check(&store), ["1", "2", "3", "4"]);
    assert_eq!(one.pull().unwrap(), Some((4, 1)));
    assert_eq!(one.content(), "4");
}

#[test]
fn what_a_buckets_owner_can_do_is_noticed() {
    let fresh = || {
        let store = SimStore::default();
        let machine = Machine::new("a", &store, Power::default());
        for content in ["1", "2", "3"] {
            machine.save(content).unwrap();
            machine.push().unwrap();
        }
        (store, machine)
    };
    let newcomer = |store: &SimStore| Machine::new("new", store, Power::default());
    let said = |machine: &Machine| {
        let error = crate::error::Error::from(machine.pull().unwrap_err());
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
        assert!(!error.hints().is_empty(), "{error}");
        error.to_string()
    };

    // Rolled back.
    let (store, machine) = fresh();
    store.tamper(&commit_key(3), None);
    assert!(said(&machine).contains("does not have commit 3"));
    assert_eq!(machine.content(), "3");
    // Emptied.
    for key in store.objects().into_keys() {
        store.tamper(&key, None);
    }
    assert!(said(&machine).contains("does not have commit 3"));
    assert_eq!(newcomer(&store).pull().unwrap(), None);
    // Another vault, or another history of this one.
    let (other, machine) = fresh();
    for (key, bytes) in other.objects() {
        store.tamper(&key, Some(bytes));
    }
    let (_, pinned) = fresh();
    let elsewhere = Machine { store: other.on_machine(Power::default()), ..pinned };
    assert!(said(&elsewhere).contains("has another commit 3"));
    // A commit in the middle is missing, or forged, or moved.
    other.tamper(&commit_key(2), None);
    assert!(said(&newcomer(&other)).contains("does not follow the one before it"));
    let stranger = Machine { seed: 9, ..Machine::new("x", &SimStore::default(), Power::default()) };
    let forged = stranger.save("forged").unwrap();
    other.tamper(&commit_key(2), Some(forged.bytes));
    assert!(said(&newcomer(&other)).contains("commit 1 of the vault"));
    other.tamper(&commit_key(2), Some(b"nonsense".to_vec()));
    assert!(said(&newcomer(&other)).contains("is not valid"));
    drop(machine);
    // What comes after the one that was seen: by a retired or a strange key, of another vault; met by a push, too.
    let (store, machine) = fresh();
    let at = machine.local().load().unwrap().seen.unwrap();
    let write = |vault, by: u8, from: &Link| {
        let newest = Commit::read(store.objects()[&commit_key(3)].clone()).unwrap().body;
        let draft = Draft {
            generation: newest.generation,
            size: newest.size,
            keys: newest.keys,
            recipients: None,
            kind: Reason::Save,
            second_parent: None,
            host: String::new(),
            time: String::new(),
        };
        Commit::write(vault, Some(from), draft, &Signer::from_seed(&[by; 32]), None).unwrap()
    };
    let elsewhere = write(VaultId([5; 16]), 1, &at);
    for (bytes, says) in [
        (write(VAULT, 9, &at).bytes, "a key that does not sign for this vault"),
        (elsewhere.bytes.clone(), "is of another vault"),
        (write(VAULT, 1, &Link { hash: Hash([1; 32]), ..at }).bytes, "does not follow the one before it"),
    ] {
        store.tamper(&commit_key(4), Some(bytes));
        assert!(said(&machine).contains(says));
        assert_eq!((machine.local().load().unwrap().seen, machine.content().as_str()), (Some(at), "3"));
    }
    machine.save("waits").unwrap();
    for (bytes, says) in [(b"nonsense".to_vec(), "is not valid"), (elsewhere.bytes, "is of another vault")] {
        store.tamper(&commit_key(4), Some(bytes));
        let error = crate::error::Error::from(machine.push().unwrap_err());
        assert!(error.to_string().contains(says) && !error.hints().is_empty(), "{error}");
        assert_eq!(machine.content(), "waits");
    }
    // Commits under names of others.
    let (store, _) = fresh();
    store.tamper("commits/+000000001", Some(store.objects()[&commit_key(1)].clone()));
    assert_eq!(newcomer(&store).pull().unwrap(), Some((3, 3)));
    store.tamper(&commit_key(4), store.objects().remove(&commit_key(3)));
    store.tamper(&commit_key(3), None);
    assert!(said(&newcomer(&store)).contains("has as commit 4 is commit 3"));
    // A generation that is another, or none, or far too large; the same of the keys.
    let (store, _) = fresh();
    let newest = Commit::read(store.objects()[&commit_key(3)].clone()).unwrap();
    for (object, hash) in [(Object::Generation, newest.body.generation), (Object::Keys, newest.body.keys)] {
        let key = object.key(&hash);
        let good = store.objects().remove(&key);
        for (bytes, says) in [
            (Some(b"x".to_vec()), "is something else"),
            (None, "does not have `"),
            (Some(vec![0; 2 << 20]), "too large"),
        ] {
            store.tamper(&key, bytes);
            let machine = newcomer(&store);
            assert!(said(&machine).contains(says));
            // Without the keys nothing of it counts as seen; from the commits alone one can go on.
            let seen = machine.local().load().unwrap().seen.map(|seen| seen.n);
            assert_eq!(seen, (object == Object::Generation).then_some(3));
            let files = machine.disk.files();
            let has_some = files.iter().any(|path| path.starts_with("/vault/gen"));
            assert_eq!(has_some, object == Object::Keys, "{files:?}");
        }
        store.tamper(&key, good);
    }
}

#[test]
fn what_is_missing_here_is_not_passed_over() {
    let store = SimStore::default();
    let (one, two) = pair(&store);
    one.save("2").unwrap();
    one.push().unwrap();
    two.save("waiting").unwrap();
    let seen = one.local().load().unwrap().seen.unwrap();
    one.save("3").unwrap();
    // Damaged here: a push does not know what it stands on, and a rollback could hold nothing of it.
    let path = std::path::Path::new("/vault").join(commit_key(seen.n));
    let mut file = crate::vault::disk::Disk::create(&one.disk, &path).unwrap();
    file.write_all(b"nonsense").unwrap();
    drop(file);
    let missing = |stopped: Stopped| {
        let error = crate::error::Error::from(stopped);
        assert_eq!(error.kind(), Kind::Integrity);
        assert!(error.to_string().contains("commit 2 is missing from this machine"), "{error}");
    };
    missing(one.push().unwrap_err());
    store.tamper(&commit_key(2), None);
    missing(wait(sync::accept_rollback(&one.local(), &one.store)).unwrap_err());
    assert_eq!(one.local().load().unwrap().outbox.len(), 1);
}

#[test]
fn where_the_newest_state_is_lost_an_earlier_one_goes_on() {
    let store = SimStore::default();
    let (one, two) = pair(&store);
    let newest = one.save("2").unwrap();
    let lost = newest.body.generation;
    one.push().unwrap();
    store.tamper(&Object::Generation.key(&lost), None);
    // Who has the recovery card can go on with another key than the passphrase.
    let card = Machine::new("card", &store, Power::default());
    wait(sync::pull(&card.local(), &card.store, Some(newest.fingerprint()))).unwrap_err();
    assert!(card.local().is_trusted().unwrap());
    two.pull().unwrap_err();
    two.pull().unwrap_err();
    // What this machine has is all that there is.
    two.local().tidy(&[lost]).unwrap();
    assert!(two.local().has(Object::Generation, &Hash::of(b"1")));
    let heal = |machine: &Machine| wait(sync::heal(&machine.local(), &machine.store, false));
    let error = crate::error::Error::from(heal(&two).unwrap_err());
    assert!(error.kind() == Kind::Integrity && error.to_string().contains("does not have"), "{error}");
    two.save("1 again").unwrap();
    assert_eq!(two.push().unwrap(), [3]);
    let newcomer = Machine::new("new", &store, Power::default());
    assert_eq!(newcomer.pull().unwrap(), Some((3, 3)));
    assert_eq!(newcomer.content(), "1 again");
}

#[test]
fn a_push_of_nothing_is_no_success_in_a_store_that_has_gone_back() {
    let store = SimStore::default();
    let (one, _) = pair(&store);
    let heal = || {
        wait(sync::heal(&one.local(), &one.store, false))
            .map_err(|stopped| crate::error::Error::from(stopped).kind())
    };
    assert_eq!(heal(), Ok(0));
    let other = SimStore::default();
    Machine { seed: 7, ..Machine::new("x", &other, Power::default()) }.save("x").unwrap();
    let strange = Machine { seed: 7, ..Machine::new("x", &other, Power::default()) };
    let strange = strange.save("x").unwrap();
    for there in [None, Some(strange.bytes)] {
        for key in store.objects().into_keys() {
            store.tamper(&key, None);
        }
        store.tamper(&commit_key(1), there);
        let before = store.objects();
        assert_eq!(heal(), Err(Kind::Integrity));
        assert_eq!(store.objects(), before);
    }
}

#[test]
fn what_the_store_has_is_not_always_what_was_written() {
    let store = SimStore::default();
    let machine = Machine::new("a", &store, Power::default());
    let commit = machine.save("some text").unwrap();
    let (keys, generation) =
        (Object::Keys.key(&commit.body.keys), Object::Generation.key(&commit.body.generation));
    // Of a push that broke off before it was looked at.
    store.tamper(&keys, Some(b"something else".to_vec()));
    store.tamper(&generation, Some(b"some".to_vec()));
    machine.local().mark_attempted(&commit).unwrap();
    machine.push().unwrap();
    let problems = || wait(sync::verify(&machine.local(), &machine.store, true)).unwrap().problems;
    assert_eq!(problems(), [""; 0]);
    store.tamper(&generation, Some(b"some".to_vec()));
    store.tamper(&keys, Some(b"wrapped_keyring".to_vec()));
    assert_eq!(wait(sync::heal(&machine.local(), &machine.store, false)).unwrap(), 2);
    assert_eq!(problems(), [""; 0]);
}

#[test]
fn a_side_that_never_was_in_the_store_gets_there_before_the_other_goes_on() {
    let store = SimStore::default();
    let (one, two) = pair(&store);
    one.save("mine").unwrap();
    one.push().unwrap();
    let first = two.save("theirs").unwrap();
    two.local().mark_attempted(&first).unwrap();
    let second = two.save("theirs, later").unwrap();
    assert!(matches!(two.pull(), Err(Stopped::Fork(_))));
    let decided = wait(super::copies::decide(&two.local(), &two.store)).unwrap();
    assert_eq!(decided.mine, Some(second.clone()));
    two.pull().unwrap();
    let objects = store.objects();
    for commit in [&first, &second] {
        assert_eq!(objects[&sync::branch_key(commit)], commit.bytes);
        assert!(objects.contains_key(&Object::Generation.key(&commit.body.generation)));
    }
    assert_eq!(wait(sync::branches(&one.local(), &one.store)).unwrap(), [first, second.clone()]);
    // What is missing of one hinders nobody, and is told.
    let verify = || wait(sync::verify(&one.local(), &one.store, true)).unwrap();
    assert_eq!((verify().problems.len(), verify().aside.len()), (0, 0));
    let key = Object::Generation.key(&second.body.generation);
    store.tamper(&key, None);
    let short = second.hash.short();
    assert_eq!(verify().aside, [format!("`{key}`, of the branch {short}, is missing or damaged")]);
    assert_eq!(pruned(&one, RULES).unwrap(), [""; 0]);
    // Another vault's is none of this one's.
    let stranger = Machine::new("three", &store, Power::default());
    stranger.save("x").unwrap();
    let before = store.objects();
    wait(super::copies::decide(&stranger.local(), &stranger.store)).unwrap();
    assert_eq!(store.objects(), before);
}

#[test]
fn who_lost_a_race_is_told_so_when_that_side_is_kept() {
    let mut told = 0;
    for fault in [Fault::ReplyLost, Fault::RequestLost, Fault::Busy, Fault::Lie] {
        for request in 0.. {
            let store = SimStore::default();
            let (one, two) = pair(&store);
            one.save("mine").unwrap();
            let mine = two.save("theirs").unwrap();
            one.push().unwrap();
            two.store.fail(request, fault);
            if let Err(Stopped::Fork(_)) = two.push() {
                told += 1;
                assert_eq!(
                    store.objects().get(&sync::branch_key(&mine)),
                    Some(&mine.bytes),
                    "{fault:?} {request}"
                );
            }
            if !two.store.has_failed() {
                break;
            }
        }
    }
    assert!(told > 4, "{told}");
}

#[test]
fn what_was_pushed_before_a_crash_does_not_wait_again_after_a_rollback() {
    let mut left = 0;
    for limit in 0.. {
        let store = SimStore::default();
        let power = Power::default();
        let machine = Machine::new("a", &store, power.clone());
        for content in ["1", "2"] {
            machine.save(content).unwrap();
            machine.push().unwrap();
        }
        machine.save("3").unwrap();
        power.fail_after(limit);
        let _ = machine.push();
        let crashed = power.is_gone();
        power.restore();
        machine.disk.crash(Survives::Synced);
        machine.push().unwrap();
        left += u32::from(machine.disk.files().contains(&"/vault/outbox/0000000003".into()));
        store.tamper(&commit_key(3), None);
        store.tamper(&commit_key(2), None);
        wait(sync::accept_rollback(&machine.local(), &machine.store)).unwrap().unwrap();
        let state = machine.local().load().unwrap();
        assert_eq!((state.seen.map(|seen| seen.n), state.outbox), (Some(1), Vec::new()), "at step {limit}");
        if !crashed {
            break;
        }
    }
    assert!(left > 0, "no crash left anything");
}

#[test]
fn verifying_finds_what_is_wrong() {
    let store = SimStore::default();
    let machine = Machine::new("a", &store, Power::default());
    let verify = |read| wait(sync::verify(&machine.local(), &machine.store, read)).unwrap();
    for content in ["1", "2"] {
        machine.save(content).unwrap();
        machine.push().unwrap();
    }
    let found = verify(true);
    assert_eq!((found.commits, found.objects, found.unnamed), (2, 3, 0));
    assert_eq!(found.problems, [""; 0]);
    store.tamper("gen/stray.age", Some(Vec::new()));
    assert_eq!(verify(false).unnamed, 1);
    let head = Commit::read(store.objects()[&commit_key(2)].clone()).unwrap();
    let key = Object::Generation.key(&head.body.generation);
    store.tamper(&key, Some(b"x".to_vec()));
    assert_eq!(verify(false).problems, [""; 0]);
    assert_eq!(verify(true).problems, [format!("`{key}`, of commit 2, is damaged")]);
    store.tamper(&key, Some(b"xx".to_vec()));
    assert_eq!(verify(false).problems, [format!("`{key}`, of commit 2, has 2 bytes instead of 1")]);
    store.tamper(&key, None);
    assert_eq!(verify(false).problems, [format!("`{key}`, of commit 2, is missing")]);
    store.tamper("commits/0000000002.sync-conflict-x", Some(Vec::new()));
    store.tamper(&commit_key(2), None);
    let problems = verify(false).problems;
    assert!(problems[0].contains("is no commit; a synchroniser"), "{problems:?}");
    assert!(problems[1].contains("commit 2 is missing, which this machine has seen"), "{problems:?}");
    store.tamper(&commit_key(1), Some(b"x".to_vec()));
    assert!(verify(false).problems.iter().any(|problem| problem.starts_with("commit 1: ")));
}

#[test]
fn a_side_that_is_set_aside_is_held_and_makes_way() {
    for limit in 0.. {
        let store = SimStore::default();
        let power = Power::for_steps(u64::MAX);
        let (one, two) =
            (Machine::new("one", &store, Power::default()), Machine::new("two", &store, power.clone()));
        one.save("first").unwrap();
        one.push().unwrap();
        two.pull().unwrap();
        for machine in [&one, &two] {
            machine.save(machine.name).unwrap();
        }
        one.push().unwrap();
        two.push().unwrap_err();
        two.save("later").unwrap();
        power.fail_after(limit);
        let done = two.local().set_aside().and_then(|_| Ok(two.pull()?));
        let crashed = power.is_gone();
        power.restore();
        if crashed {
            two.disk.crash(Survives::Synced);
            two.local().set_aside().unwrap();
            two.pull().unwrap();
        } else {
            done.unwrap();
        }
        assert_eq!(two.content(), "one");
        let held: BTreeSet<_> = two.local().held().unwrap().into_iter().map(|commit| commit.body.n).collect();
        assert_eq!(held, BTreeSet::from([2, 3]), "at step {limit}");
        if !crashed {
            break;
        }
    }
}

#[test]
fn a_card_tells_the_vault_from_another() {
    let store = SimStore::default();
    let machine = Machine::new("a", &store, Power::default());
    let first = machine.save("1").unwrap();
    machine.push().unwrap();
    let pull = |card| {
        let newcomer = Machine::new("new", &store, Power::default());
        let pulled = wait(sync::pull(&newcomer.local(), &newcomer.store, Some(card)));
        pulled.map(|pulled| pulled.unwrap().head.body.n)
    };
    assert_eq!(pull(first.fingerprint()).unwrap(), 1);
    let error = crate::error::Error::from(pull(Hash([1; 32])).unwrap_err());
    assert!(error.to_string().contains("is not the one on the card"), "{error}");
}

#[test]
fn a_save_replaces_what_was_never_sent_and_nothing_else() {
    let store = SimStore::default();
    let machine = Machine::new("a", &store, Power::default());
    let outbox = || machine.local().load().unwrap().outbox;
    machine.save("1").unwrap();
    machine.save("1, better").unwrap();
    assert_eq!(outbox().len(), 1);
    machine.local().mark_attempted(&outbox()[0].commit).unwrap();
    machine.save("2").unwrap();
    let stranger = Machine::new("b", &SimStore::default(), Power::default()).save("x").unwrap();
    assert_eq!(machine.local().enqueue(&stranger).unwrap_err().kind(), Kind::Integrity);
    assert_eq!(outbox().len(), 2);
    assert_eq!(machine.push().unwrap(), [1, 2]);
    assert_eq!(check(&store), ["1, better", "2"]);
    // Only what is current stays here.
    let head = machine.local().commit(2).unwrap().unwrap();
    machine.local().tidy(&[head.body.generation]).unwrap();
    let generations = machine.disk.list("/vault/gen".as_ref()).unwrap();
    assert_eq!(generations, [format!("{}.age", head.body.generation)]);
}

const HOUR: Duration = Duration::from_secs(3600);
const RULES: Rules = Rules { keep_last: None, keep_within: None, spare: Rules::SPARE, accept_lost: false };

/// What was removed.
fn pruned(machine: &Machine, rules: Rules) -> Result<Vec<String>, Stopped> {
    wait(async {
        let plan = prune::plan(&machine.local(), &machine.store, &rules).await?;
        let mut gone = Vec::new();
        prune::carry_out(&machine.store, &plan, |object| gone.push(object.key.clone())).await?;
        Ok(gone)
    })
}

#[test]
fn pruning_keeps_what_it_is_told_to() {
    let last = |n: u64| Rules { keep_last: n.try_into().ok(), ..RULES };
    let within = |hours| Rules { keep_within: Some(HOUR * hours), ..RULES };
    for (rules, kept) in [
        (RULES, &["1", "2", "3", "4"][..]),
        (last(1), &["4"]),
        (last(3), &["2", "3", "4"]),
        (last(9), &["1", "2", "3", "4"]),
        // The newest is older than that.
        (within(1), &["4"]),
        (within(29), &["3", "4"]),
        (Rules { keep_last: 3.try_into().ok(), ..within(29) }, &["2", "3", "4"]),
    ] {
        let store = SimStore::default();
        let machine = Machine::new("a", &store, Power::default());
        for content in ["1", "2", "3", "4"] {
            machine.save(content).unwrap();
            machine.push().unwrap();
            store.pass(HOUR * 10);
        }
        let gone = pruned(&machine, rules).unwrap();
        assert_eq!(gone.len(), 4 - kept.len(), "{rules:?}");
        let left: BTreeSet<String> = store
            .objects()
            .into_iter()
            .filter(|(key, _)| key.starts_with("gen/"))
            .map(|(_, bytes)| String::from_utf8(bytes).unwrap())
            .collect();
        assert_eq!(left, kept.iter().map(|content| content.to_string()).collect(), "{rules:?}");
        let found = wait(sync::verify(&machine.local(), &machine.store, true)).unwrap();
        assert_eq!((found.problems, found.pruned), (Vec::new(), gone.len() as u64));
        assert_eq!(Machine::new("b", &store, Power::default()).pull().unwrap(), Some((4, 4)));
        machine.save("5").unwrap();
        machine.push().unwrap();
    }
}

#[test]
fn what_nobody_names_goes_after_a_day_and_what_somebody_does_stays() {
    let store = SimStore::default();
    let (one, two) = pair(&store);
    // A branch, a commit that waits with its generation there already, a held one, a leftover, and what is somebody else's.
    one.save("2").unwrap();
    two.save("lost").unwrap();
    one.push().unwrap();
    two.push().unwrap_err();
    one.local().hold(&one.save("held").unwrap()).unwrap();
    one.save("waiting").unwrap();
    for content in ["waiting", "held", "leftover"] {
        store.tamper(&Object::Generation.key(&Hash::of(content.as_bytes())), Some(content.into()));
    }
    store.tamper("gen/README", Some(b"mine".to_vec()));
    store.pass(HOUR * 23);
    assert_eq!(pruned(&one, RULES).unwrap(), [""; 0]);
    store.pass(HOUR);
    let leftover = Object::Generation.key(&Hash::of(b"leftover"));
    assert_eq!(pruned(&one, RULES).unwrap(), std::slice::from_ref(&leftover));
    assert_eq!(
        pruned(&one, Rules { keep_last: 1.try_into().ok(), ..RULES }).unwrap(),
        [Object::Generation.key(&Hash::of(b"1"))]
    );
    // Named after it was pruned, and lost then: that is no pruning.
    one.save("leftover").unwrap();
    one.push().unwrap();
    let newest = one.save("newest").unwrap().body.n;
    one.push().unwrap();
    store.tamper(&leftover, None);
    let verify = || wait(sync::verify(&one.local(), &one.store, false)).unwrap();
    let n = newest - 1;
    assert_eq!(verify().problems, [format!("`{leftover}`, of commit {n}, is missing")]);
    let refused = |rules| {
        let refused = crate::error::Error::from(pruned(&one, rules).unwrap_err());
        assert!(
            refused.kind() == Kind::Integrity && refused.to_string().contains("nothing is pruned"),
            "{refused}"
        );
    };
    refused(RULES);
    // It can be given up, with what is cut off; not so what the newest commit names, or one that waits here.
    let accept = Rules { accept_lost: true, ..RULES };
    let key = |content: &str| Object::Generation.key(&Hash::of(content.as_bytes()));
    for (content, tampered) in [("newest", None), ("newest", Some(b"x".to_vec()))] {
        store.tamper(&key(content), tampered);
        refused(accept);
        store.tamper(&key(content), Some(content.into()));
    }
    one.save("leftover").unwrap();
    refused(accept);
    one.save("other").unwrap();
    store.tamper(&key("2"), Some(b"cut".to_vec()));
    let before = verify().pruned;
    // By now nobody names what waited first.
    let expected = BTreeSet::from([leftover, key("2"), key("waiting")]);
    assert_eq!(BTreeSet::from_iter(pruned(&one, accept).unwrap()), expected);
    assert_eq!((verify().problems, verify().pruned), (Vec::new(), before + 2));
    assert_eq!(store.objects().get(&key("2")), None);
    assert_eq!(pruned(&one, RULES).unwrap(), [""; 0]);
}

/// Between the last look at the commits and the removal itself.
#[test]
fn a_commit_that_names_what_is_being_removed_is_told_and_can_be_healed() {
    let store = SimStore::default();
    let (one, two) = pair(&store);
    // A push that broke off before its commit was there, and another leftover, which goes first.
    let commit = two.save("late").unwrap();
    let late = Object::Generation.key(&commit.body.generation);
    let names = (0..).map(|n| format!("leftover {n}").into_bytes());
    let mut others = names.map(|content| (Object::Generation.key(&Hash::of(&content)), content));
    let (first, content) = others.find(|(key, _)| *key < late).unwrap();
    store.tamper(&late, Some(b"late".to_vec()));
    store.tamper(&first, Some(content));
    two.local().mark_attempted(&commit).unwrap();
    store.pass(HOUR * 24);
    let failed = wait(async {
        let plan = prune::plan(&one.local(), &one.store, &RULES).await.unwrap();
        let removed = |object: &prune::Doomed| {
            if object.key == first {
                let pushed = std::thread::scope(|scope| scope.spawn(|| two.push()).join().unwrap());
                assert_eq!(pushed.unwrap(), [2]);
            }
        };
        prune::carry_out(&one.store, &plan, removed).await.unwrap_err()
    });
    let failed = crate::error::Error::from(failed);
    assert_eq!(failed.kind(), Kind::Integrity);
    assert!(
        failed.to_string().contains(&format!("`two` has pushed a commit that names `{late}`")),
        "{failed}"
    );
    let verify = || wait(sync::verify(&one.local(), &one.store, true)).unwrap().problems;
    assert_eq!(verify(), [format!("`{late}`, of commit 2, is missing")]);
    assert_eq!(wait(sync::heal(&two.local(), &two.store, false)).unwrap(), 1);
    assert_eq!(verify(), [""; 0]);
}

#[test]
fn a_record_that_is_none_is_told() {
    let store = SimStore::default();
    let machine = Machine::new("a", &store, Power::default());
    for content in ["1", "2"] {
        machine.save(content).unwrap();
        machine.push().unwrap();
    }
    let key = Object::Generation.key(&Hash::of(b"1"));
    let (name, record) = super::pruned::record(VAULT, 2, [key.as_str()].into_iter()).unwrap();
    store.tamper(&key, None);
    store.tamper(&name, Some([&record[..], b"gen/x\n"].concat()));
    let problems = || wait(sync::verify(&machine.local(), &machine.store, false)).unwrap().problems;
    assert_eq!(
        problems(),
        [format!("`{name}` is no record of what was pruned"), format!("`{key}`, of commit 1, is missing")]
    );
    store.tamper(&name, Some(record));
    assert_eq!(problems(), [""; 0]);
    // Whoever can write to a store fills no machine with records.
    for n in 0..65_u8 {
        let junk = vec![n; 1 << 20];
        store.tamper(&format!("pruned/{}", Hash::of(&junk)), Some(junk));
    }
    assert!(problems().last().unwrap().contains("not all of it was read"));
    wait(super::pruned::fetch(&machine.local(), &machine.store)).unwrap();
    let kept: usize = machine.local().records(1 << 20).unwrap().iter().map(|(_, bytes)| bytes.len()).sum();
    assert!((63 << 20..=64 << 20).contains(&kept), "{kept}");
    for n in 0..65_u8 {
        store.tamper(&format!("pruned/{}", Hash::of(&vec![n; 1 << 20])), None);
    }
    // The newest state is never pruned, whatever a record says.
    let key = Object::Generation.key(&Hash::of(b"2"));
    let (name, record) = super::pruned::record(VAULT, 9, [key.as_str()].into_iter()).unwrap();
    store.tamper(&name, Some(record));
    store.tamper(&key, None);
    assert_eq!(problems(), [format!("`{key}`, of commit 2, is missing")]);
}

#[test]
fn pruning_that_breaks_off_harms_nothing() {
    for limit in 0.. {
        let store = SimStore::default();
        let power = Power::default();
        let machine = Machine::new("a", &store, power.clone());
        for content in ["1", "2", "3", "4"] {
            machine.save(content).unwrap();
            machine.push().unwrap();
        }
        let rules = Rules { keep_last: 2.try_into().ok(), ..RULES };
        power.fail_after(limit);
        let done = pruned(&machine, rules);
        let crashed = power.is_gone();
        power.restore();
        machine.disk.crash(Survives::Synced);
        let verify = || wait(sync::verify(&machine.local(), &machine.store, true)).unwrap();
        assert_eq!(verify().problems, [""; 0], "at step {limit}");
        if crashed {
            pruned(&machine, rules).unwrap();
        } else {
            assert_eq!(done.unwrap().len(), 2);
        }
        assert_eq!((verify().pruned, verify().problems), (2, Vec::new()), "at step {limit}");
        assert_eq!(Machine::new("b", &store, Power::default()).pull().unwrap(), Some((4, 4)));
        if !crashed {
            assert!(limit > 20, "{limit} steps");
            break;
        }
    }
}
