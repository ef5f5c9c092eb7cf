//! The power goes at any step of a long day: two machines, a pod's spool on each, one store, and every way in which a vault is
//! written. After each crash, and again at the end, a checker compares what is there with a log of what was acknowledged, what
//! failed, and what nobody knows. Its points, by the names that the assertions below have:
//!
//! - acknowledged: what was acknowledged is in the chain, waits to be, is a branch in the store, or is held;
//! - objects: each commit's objects exist, open, and match their names;
//! - one winner: a number has one commit, for ever;
//! - seen: a state once seen never vanishes, here or there;
//! - passphrase: exactly one passphrase opens the newest state, and after a rekey it is the new one;
//! - again: the same command, run again, succeeds;
//! - old or new: what a machine goes on with is what it had or what it was about to have, and whole;
//! - orphans: what nobody names any more is bounded, and no temporary file stays.
//!
//! That no plaintext reaches a disk is `tests/store/kill.rs`'s to show, with real sealing; here it is a toy's.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::commit::{Commit, Draft, Link, Reason};
use super::disk::Disk;
use super::id::{Hash, VaultId};
use super::key::Signer;
use super::local::{Local, Object, commit_key};
use super::sim::{Power, SimDisk, SimStore, Survives};
use super::sync::{self, Stopped};
use super::tests::wait;
use crate::error::{Error, Kind, Result};

const VAULT: VaultId = VaultId([7; 16]);

/// A machine: its own copy, and the spool of its pod, on one disk.
struct Site {
    name: &'static str,
    disk: SimDisk,
    store: SimStore,
}

impl Site {
    fn local(&self) -> Local<'_> {
        Local::new(&self.disk as &dyn Disk, "/vault".into())
    }

    fn spool(&self) -> Local<'_> {
        Local::new(&self.disk as &dyn Disk, "/spool".into())
    }
}

/// A toy's keyring: the passphrase that opens it, and seeds, the current one first.
#[derive(Clone)]
struct Keyring {
    hash: Hash,
    passphrase: String,
    seeds: Vec<u8>,
}

impl Keyring {
    fn read(hash: Hash, bytes: &[u8]) -> Keyring {
        let mut words = std::str::from_utf8(bytes).unwrap().split(' ');
        let passphrase = words.next().unwrap().to_owned();
        Keyring { hash, passphrase, seeds: words.map(|seed| seed.parse().unwrap()).collect() }
    }

    fn wrap(local: &Local<'_>, passphrase: &str, seeds: &[u8]) -> Result<Keyring> {
        let text = seeds.iter().fold(passphrase.to_owned(), |text, seed| format!("{text} {seed}"));
        let (hash, _) = keep(local, Object::Keys, text.as_bytes())?;
        Ok(Keyring::read(hash, text.as_bytes()))
    }

    fn signer(&self) -> Signer {
        signer(self.seeds[0])
    }

    /// What a generation has in it: "objects", "old or new".
    fn open(&self, sealed: &[u8]) -> String {
        let (seed, content) = std::str::from_utf8(sealed).unwrap().split_once(' ').unwrap();
        assert!(self.seeds.contains(&seed.parse().unwrap()), "objects: `{content}` does not open");
        content.to_owned()
    }
}

fn signer(seed: u8) -> Signer {
    Signer::from_seed(&[seed; 32])
}

fn keep(local: &Local<'_>, object: Object, bytes: &[u8]) -> Result<(Hash, u64)> {
    let mut incoming = local.incoming(object)?;
    incoming.write_all(bytes).map_err(|source| Error::io("write", Path::new("an object"), source))?;
    incoming.finish(None)
}

fn seal(local: &Local<'_>, seed: u8, content: &str) -> Result<(Hash, u64)> {
    keep(local, Object::Generation, format!("{seed} {content}").as_bytes())
}

/// What programs in a pod do while the vault is open there.
enum Doing<'a> {
    Save(&'a str),
    /// A save that the host asks for, and gets past the spool; one that is made before the keeper knows that it has it.
    HandOver(&'a str, Option<&'a str>),
    /// The host has the first, and is cut off before the keeper knows it; the pod saves the others by itself, and is locked.
    CutOff(&'a str, &'a [&'a str]),
    /// A save that looks wrong.
    Hold(&'a str),
}
use Doing::{CutOff, HandOver, Hold, Save};

#[derive(Default)]
struct Log {
    /// The store's commits, as they once were there.
    winners: BTreeMap<String, Vec<u8>>,
    /// Commits that somebody was told are safe, and what each went on as.
    acknowledged: BTreeMap<Hash, Option<Hash>>,
    /// The number up to which each machine has seen the store's commits.
    seen: BTreeMap<&'static str, u64>,
    /// What each machine may go on with: one content, and more while something is under way.
    contents: BTreeMap<&'static str, BTreeSet<String>>,
    /// The passphrase; while it is being changed, those that it may be.
    passphrases: BTreeSet<String>,
    crashes: usize,
}

struct Day {
    power: Power,
    survives: Survives,
    /// How many steps after a crash the next one comes.
    next: Cell<Option<u64>>,
    store: SimStore,
    one: Site,
    two: Site,
    log: RefCell<Log>,
    /// For names that nobody else has.
    count: Cell<u8>,
}

impl Day {
    fn new(limit: u64, survives: Survives, next: Option<u64>) -> Day {
        let (power, store) = (Power::for_steps(limit), SimStore::default());
        let site =
            |name| Site { name, disk: SimDisk::new(power.clone()), store: store.on_machine(power.clone()) };
        let (one, two) = (site("one"), site("two"));
        let log = RefCell::default();
        Day { power, survives, next: Cell::new(next), store, one, two, log, count: Cell::new(0) }
    }

    fn sites(&self) -> [&Site; 2] {
        [&self.one, &self.two]
    }

    fn fresh(&self) -> u8 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    // --- the log

    fn may_become(&self, site: &Site, content: &str) {
        self.log.borrow_mut().contents.entry(site.name).or_default().insert(content.to_owned());
    }

    fn has_become(&self, site: &Site, content: &str) {
        self.log.borrow_mut().contents.insert(site.name, BTreeSet::from([content.to_owned()]));
    }

    fn acknowledge(&self, commit: &Commit) {
        self.log.borrow_mut().acknowledged.insert(commit.hash, None);
    }

    /// It is about to be replaced by something newer.
    fn forget(&self, hash: Option<Hash>) {
        if let Some(hash) = hash {
            self.log.borrow_mut().acknowledged.remove(&hash);
        }
    }

    /// Does one thing, as often as the power goes meanwhile; afterwards the machine goes on with `then`.
    fn step(&self, site: &Site, between: &[&str], then: &str, act: impl Fn() -> Result<(), Stopped>) {
        between.iter().chain([&then]).for_each(|content| self.may_become(site, content));
        loop {
            let result = act();
            if !self.power.is_gone() {
                // "again", where there was a crash before.
                result.unwrap_or_else(|stopped| panic!("{then}: {}", Error::from(stopped)));
                break;
            }
            self.power.restore();
            self.sites().iter().for_each(|site| site.disk.crash(self.survives));
            self.log.borrow_mut().crashes += 1;
            self.check();
            if let Some(steps) = self.next.take() {
                self.power.fail_after(steps);
            }
        }
        self.has_become(site, then);
        self.power.aside(|| {
            assert_eq!(self.newest(site), then, "old or new");
            let state = site.local().load().unwrap();
            self.log.borrow_mut().seen.insert(site.name, state.seen.map_or(0, |seen| seen.n));
        });
    }

    // --- the commands, as `commands/vault` and `pod/vault.rs` have them; each may be interrupted

    fn head(site: &Site) -> Result<Commit> {
        let (local, state) = (site.local(), site.local().load()?);
        if let Some(outgoing) = state.outbox.last() {
            return Ok(outgoing.commit.clone());
        }
        let seen = state.seen.expect("there is a vault");
        let commit = local.commit(seen.n)?.expect("seen: the newest commit is here");
        assert_eq!(commit.hash, seen.hash, "seen");
        Ok(commit)
    }

    fn keyring(site: &Site, commit: &Commit) -> Result<Keyring> {
        let bytes = site.local().object(Object::Keys, &commit.body.keys, 1000)?;
        let keyring = Keyring::read(commit.body.keys, &bytes);
        assert_eq!(keyring.signer().id(), commit.body.vk, "passphrase: the keyring is another's");
        Ok(keyring)
    }

    fn draft(site: &Site, kind: Reason, (generation, size): (Hash, u64), keys: Hash) -> Draft {
        Draft {
            generation,
            size,
            keys,
            recipients: None,
            kind,
            second_parent: None,
            host: site.name.into(),
            time: String::new(),
        }
    }

    fn push(&self, site: &Site) -> Result<(), Stopped> {
        wait(sync::push(&site.local(), &site.store))?;
        Ok(site.local().tidy(&[Self::head(site)?.body.generation])?)
    }

    fn pull(&self, site: &Site) -> Result<(), Stopped> {
        wait(sync::pull(&site.local(), &site.store, None))?;
        Ok(site.local().tidy(&[Self::head(site)?.body.generation])?)
    }

    fn init(&self, site: &Site) -> Result<(), Stopped> {
        let local = site.local();
        // "`tazpod vault push` ends an init that was interrupted".
        if local.load()?.tip.is_none() {
            let seed = self.fresh();
            let passphrase = format!("first-{seed}");
            self.log.borrow_mut().passphrases.insert(passphrase.clone());
            let keyring = Keyring::wrap(&local, &passphrase, &[seed])?;
            let sealed = seal(&local, seed, "empty")?;
            let draft = Self::draft(site, Reason::Init, sealed, keyring.hash);
            local.enqueue(&Commit::write(VAULT, None, draft, &keyring.signer(), None)?)?;
        }
        self.push(site)
    }

    fn unlock(&self, site: &Site) -> Result<Keyring> {
        self.collect(site)?;
        let head = Self::head(site)?;
        let keyring = Self::keyring(site, &head)?;
        let local = site.local();
        let (_, mut sealed) = local.open(Object::Generation, &head.body.generation)?;
        let mut bytes = Vec::new();
        sealed
            .read_to_end(&mut bytes)
            .map_err(|source| Error::io("read", Path::new("a generation"), source))?;
        keyring.open(&bytes);
        let spool = site.spool();
        let left = spool.load()?.outbox.iter().any(|left| left.commit.body.n > head.body.n);
        assert!(!left, "acknowledged: the pod has what was not collected");
        spool.pin(&head.link())?;
        Ok(keyring)
    }

    fn save_in_pod(&self, site: &Site, keyring: &Keyring, content: &str) -> Result<()> {
        let spool = site.spool();
        let sealed = seal(&spool, keyring.seeds[0], content)?;
        let state = spool.load()?;
        let draft = Self::draft(site, Reason::Save, sealed, keyring.hash);
        let commit = Commit::write(VAULT, state.base.as_ref(), draft, &keyring.signer(), None)?;
        self.forget(state.outbox.last().filter(|last| !last.attempted).map(|last| last.commit.hash));
        spool.enqueue(&commit)?;
        self.acknowledge(&commit);
        spool.tidy(&[])
    }

    /// The pod's keeper seals, and the host keeps; then the keeper is told.
    fn hand_over(&self, site: &Site, keyring: &Keyring, content: &str, since: Option<&str>) -> Result<()> {
        let spool = site.spool();
        let (commit, replaced) = self.hand_to_host(site, keyring, content)?;
        if let Some(content) = since {
            self.save_in_pod(site, keyring, content)?;
        }
        let again = |link: &Link, since: &Commit| {
            let sealed = (since.body.generation, since.body.size);
            let draft = Self::draft(site, Reason::Save, sealed, keyring.hash);
            let following = Commit::write(VAULT, Some(link), draft, &keyring.signer(), None)?;
            self.log.borrow_mut().acknowledged.insert(since.hash, Some(following.hash));
            Ok(following)
        };
        spool.land(&commit, replaced, again)?;
        spool.tidy(&[])
    }

    /// The first half of that; with the commit, and what it takes the place of.
    fn hand_to_host(&self, site: &Site, keyring: &Keyring, content: &str) -> Result<(Commit, Option<Hash>)> {
        let (spool, local) = (site.spool(), site.local());
        let sealed = seal(&local, keyring.seeds[0], content)?;
        let state = spool.load()?;
        let draft = Self::draft(site, Reason::Save, sealed, keyring.hash);
        let commit = Commit::write(VAULT, state.base.as_ref(), draft, &keyring.signer(), None)?;
        local.append(&local.load()?, &commit)?;
        self.acknowledge(&commit);
        let replaced = state.outbox.last().filter(|last| !last.attempted).map(|last| last.commit.hash);
        self.forget(replaced);
        Ok((commit, replaced))
    }

    fn hold_in_pod(
        &self,
        site: &Site,
        keyring: &Keyring,
        content: &str,
        before: Option<Hash>,
    ) -> Result<Hash> {
        let spool = site.spool();
        let sealed = seal(&spool, keyring.seeds[0], content)?;
        let draft = Self::draft(site, Reason::Save, sealed, keyring.hash);
        let commit = Commit::write(VAULT, spool.load()?.base.as_ref(), draft, &keyring.signer(), None)?;
        spool.hold(&commit)?;
        self.acknowledge(&commit);
        self.forget(before);
        if let Some(before) = before {
            spool.let_go(&before)?;
            spool.tidy(&[])?;
        }
        Ok(commit.hash)
    }

    /// The vault is open in a pod for a while. What a crash takes from the pod's memory, its user does again.
    fn session(&self, site: &Site, doing: &[Doing<'_>]) -> Result<(), Stopped> {
        let keyring = self.unlock(site)?;
        let mut held = None;
        for what in doing {
            match what {
                Save(content) => self.save_in_pod(site, &keyring, content)?,
                HandOver(content, since) => self.hand_over(site, &keyring, content, *since)?,
                CutOff(content, later) => {
                    self.hand_to_host(site, &keyring, content)?;
                    later.iter().try_for_each(|content| self.save_in_pod(site, &keyring, content))?;
                }
                Hold(content) => held = Some(self.hold_in_pod(site, &keyring, content, held)?),
            }
        }
        Ok(self.collect(site)?)
    }

    /// The host takes over what the pod has saved.
    fn collect(&self, site: &Site) -> Result<()> {
        let (spool, local) = (site.spool(), site.local());
        for outgoing in spool.load()?.outbox {
            spool.mark_attempted(&outgoing.commit)?;
        }
        let mut last = None;
        for commit in spool.load()?.outbox.into_iter().map(|outgoing| outgoing.commit) {
            last = Some(commit.body.n);
            let state = local.load()?;
            let known = local.commit(commit.body.n)?.is_some_and(|known| known.hash == commit.hash)
                || state.outbox.iter().any(|known| known.commit.hash == commit.hash);
            if known {
                continue;
            }
            copy(&spool, &local, &commit)?;
            match Link::next(state.tip.as_ref(), &commit) {
                Ok(_) => local.enqueue(&commit)?,
                Err(_) => local.hold(&commit)?,
            }
        }
        let known: BTreeSet<_> = local.held()?.into_iter().map(|held| held.hash).collect();
        for commit in spool.held()?.into_iter().filter(|held| !known.contains(&held.hash)) {
            copy(&spool, &local, &commit)?;
            local.hold(&commit)?;
        }
        let Some(last) = last else { return Ok(()) };
        let state = spool.load()?;
        let mut seen = state.seen;
        for outgoing in state.outbox.iter().take_while(|outgoing| outgoing.commit.body.n <= last) {
            let link = Link::next(seen.as_ref(), &outgoing.commit)?;
            spool.advance(&link, &outgoing.commit)?;
            seen = Some(link);
        }
        spool.tidy(&[])
    }

    /// A commit of a generation that may be sealed to a retired identity.
    fn recommit(&self, site: &Site, wanted: &Commit, kind: Reason) -> Result<(), Stopped> {
        let (local, head) = (site.local(), Self::head(site)?);
        let keyring = Self::keyring(site, &head)?;
        let sealed = local.object(Object::Generation, &wanted.body.generation, 1000)?;
        let sealed = match keyring.open(&sealed) {
            _ if sealed.starts_with(format!("{} ", keyring.seeds[0]).as_bytes()) => {
                (wanted.body.generation, wanted.body.size)
            }
            content => seal(&local, keyring.seeds[0], &content)?,
        };
        let second_parent = (kind == Reason::Merge).then_some(wanted.hash);
        let draft = Draft { second_parent, ..Self::draft(site, kind, sealed, head.body.keys) };
        let tip = local.load()?.tip;
        let commit = Commit::write(VAULT, tip.as_ref(), draft, &keyring.signer(), None)?;
        local.enqueue(&commit)?;
        self.acknowledge(&commit);
        self.push(site)
    }

    fn restore(&self, site: &Site, content: &str) -> Result<(), Stopped> {
        let (local, state) = (site.local(), site.local().load()?);
        let mut all = local.held()?;
        for n in 1..=state.seen.map_or(0, |seen| seen.n) {
            all.extend(local.commit(n)?);
        }
        let objects = self.store.objects();
        let bytes = |commit: &Commit| {
            let bytes = local.object(Object::Generation, &commit.body.generation, 1000);
            bytes.ok().or_else(|| objects.get(&Object::Generation.key(&commit.body.generation)).cloned())
        };
        let has = |commit: &Commit| bytes(commit).is_some_and(|bytes| bytes.ends_with(content.as_bytes()));
        // The power may have gone while it was looked for.
        let Some(wanted) = all.into_iter().find(has) else {
            return Err(Error::new(Kind::Usage, format!("no `{content}`")).into());
        };
        let size = Some(wanted.body.size);
        wait(sync::fetch(&local, &site.store, Object::Generation, &wanted.body.generation, size))?;
        self.recommit(site, &wanted, Reason::Restore)
    }

    fn keep_theirs(&self, site: &Site) -> Result<(), Stopped> {
        site.local().set_aside()?;
        self.pull(site)
    }

    /// `mine` is what it is about: where it was set aside before a crash, `vault restore` is what is left.
    fn keep_mine(&self, site: &Site, mine: &str) -> Result<(), Stopped> {
        let aside = site.local().set_aside()?.into_iter().next();
        self.pull_keeping(site)?;
        match aside {
            Some(commit) => self.recommit(site, &commit, Reason::Merge),
            None => self.restore(site, mine),
        }
    }

    /// As [`Day::pull`], before what it has set aside is used.
    fn pull_keeping(&self, site: &Site) -> Result<(), Stopped> {
        wait(sync::pull(&site.local(), &site.store, None)).map(drop)
    }

    /// `race` comes between the new commit and its push.
    fn rekey(
        &self,
        site: &Site,
        rewrap_only: bool,
        race: impl Fn() -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let local = site.local();
        match wait(sync::push(&local, &site.store)) {
            // Of a run that was interrupted, and lost: the user keeps theirs, and begins again.
            Err(Stopped::Fork(fork)) if fork.mine.body.kind == Reason::Rekey => {
                drop(local.set_aside()?);
            }
            pushed => drop(pushed?),
        }
        loop {
            self.pull_keeping(site)?;
            let head = Self::head(site)?;
            let keyring = Self::keyring(site, &head)?;
            let fresh = self.fresh();
            let mut seeds = keyring.seeds.clone();
            if !rewrap_only {
                seeds.insert(0, fresh);
            }
            let passphrase = format!("changed-{fresh}");
            self.log.borrow_mut().passphrases.insert(passphrase.clone());
            let changed = Keyring::wrap(&local, &passphrase, &seeds)?;
            let content = keyring.open(&local.object(Object::Generation, &head.body.generation, 1000)?);
            let sealed = match rewrap_only {
                true => (head.body.generation, head.body.size),
                false => seal(&local, fresh, &content)?,
            };
            let draft = Self::draft(site, Reason::Rekey, sealed, changed.hash);
            let retiring = (!rewrap_only).then(|| keyring.signer());
            let tip = local.load()?.tip;
            let commit = Commit::write(VAULT, tip.as_ref(), draft, &changed.signer(), retiring.as_ref())?;
            local.enqueue(&commit)?;
            race()?;
            match wait(sync::push(&local, &site.store)) {
                Err(Stopped::Fork(_)) => local.dequeue(commit.body.n)?,
                pushed => {
                    pushed?;
                    self.log.borrow_mut().passphrases = BTreeSet::from([passphrase]);
                    return Ok(local.tidy(&[commit.body.generation])?);
                }
            }
        }
    }

    // --- what must hold

    /// What a machine goes on with: what its pod saved last, if the host has not taken that over; else the host's newest.
    fn newest(&self, site: &Site) -> String {
        let (spool, local) = (site.spool(), site.local());
        let state = local.load().unwrap();
        let held: BTreeSet<_> = local.held().unwrap().into_iter().map(|held| held.hash).collect();
        let known = |commit: &Commit| {
            local.commit(commit.body.n).unwrap().is_some_and(|known| known.hash == commit.hash)
                || state.outbox.iter().any(|known| known.commit.hash == commit.hash)
                || held.contains(&commit.hash)
        };
        let waiting = spool.load().unwrap().outbox.pop().map(|outgoing| outgoing.commit);
        let newest = match waiting.filter(|commit| !known(commit)) {
            Some(commit) => commit,
            None if state.tip.is_none() => return String::new(),
            None => Self::head(site).unwrap(),
        };
        let generation = newest.body.generation;
        // Between the two halves of a decision about a fork it may be the store's alone.
        let sealed = [&spool, &local].map(|place| place.object(Object::Generation, &generation, 1000).ok());
        let [spooled, here] = sealed;
        let sealed =
            spooled.or(here).or_else(|| object(&self.store.objects(), Object::Generation, &generation));
        let sealed = sealed.expect("objects: the newest generation is somewhere");
        let keyring =
            local.object(Object::Keys, &newest.body.keys, 1000).expect("objects: so is its keyring");
        Keyring::read(newest.body.keys, &keyring).open(&sealed)
    }

    fn check(&self) {
        let objects = self.store.objects();
        let mut log = self.log.borrow_mut();
        let mut somewhere = BTreeSet::new();
        let mut named = BTreeSet::new();
        let mut chain: Option<Link> = None;
        let (mut head, mut history) = (None, Vec::new());
        for (key, bytes) in &objects {
            if !key.starts_with("commits/") && !key.starts_with("branches/") {
                continue;
            }
            let commit = Commit::read(bytes.clone()).unwrap();
            somewhere.insert(commit.hash);
            let names = [(Object::Generation, commit.body.generation), (Object::Keys, commit.body.keys)];
            for (kind, hash) in names {
                let found = object(&objects, kind, &hash);
                assert!(found.is_some(), "objects: `{key}` names {kind:?} {hash}, which is not there");
                named.insert(kind.key(&hash));
            }
            if key.starts_with("commits/") {
                assert_eq!(*key, commit_key(commit.body.n));
                chain = Some(Link::next(chain.as_ref(), &commit).unwrap());
                history.extend(object(&objects, Object::Generation, &commit.body.generation));
                head = Some(commit);
            }
        }
        for (key, bytes) in &log.winners {
            assert_eq!(objects.get(key), Some(bytes), "one winner, seen: `{key}`");
        }
        log.winners = objects.iter().filter(|(key, _)| key.starts_with("commits/")).map(own).collect();
        if let Some(head) = head {
            let keyring = object(&objects, Object::Keys, &head.body.keys).unwrap();
            let keyring = Keyring::read(head.body.keys, &keyring);
            assert!(log.passphrases.contains(&keyring.passphrase), "passphrase: {}", keyring.passphrase);
            assert_eq!(keyring.signer().id(), head.body.vk, "passphrase");
            // It opens all of the history, too.
            for generation in &history {
                keyring.open(generation);
            }
        }
        let nameable = |key: &String| key.starts_with("gen/") || key.starts_with("keys/");
        let orphans = objects.keys().filter(|key| nameable(key) && !named.contains(*key)).count();
        assert!(orphans <= 2 * log.crashes, "orphans: {orphans}");
        for site in self.sites() {
            for place in [site.local(), site.spool()] {
                let waiting = place.load().unwrap().outbox.into_iter().map(|outgoing| outgoing.commit);
                somewhere.extend(waiting.chain(place.held().unwrap()).map(|commit| commit.hash));
            }
            let seen = site.local().load().unwrap().seen;
            let before = log.seen.get(site.name).copied().unwrap_or_default();
            assert!(seen.map_or(0, |seen| seen.n) >= before, "seen: `{}` has gone back", site.name);
            let there = seen.is_none_or(|seen| log.winners.contains_key(&commit_key(seen.n)));
            assert!(there, "seen: `{}` has seen what the store does not have", site.name);
        }
        for (hash, then) in &log.acknowledged {
            let mut both = then.iter().chain([hash]);
            assert!(both.any(|hash| somewhere.contains(hash)), "acknowledged: {hash} is nowhere");
        }
        for site in self.sites() {
            let newest = self.newest(site);
            let may = log.contents.get(site.name);
            assert!(
                may.map_or(newest.is_empty(), |may| may.contains(&newest)
                    || (newest.is_empty() && !log.seen.contains_key(site.name))),
                "old or new: `{}` has `{newest}` instead of {may:?}",
                site.name
            );
        }
    }
}

fn object(objects: &BTreeMap<String, Vec<u8>>, object: Object, hash: &Hash) -> Option<Vec<u8>> {
    let bytes = objects.get(&object.key(hash))?;
    assert_eq!(Hash::of(bytes), *hash, "objects: one is not what its name says");
    Some(bytes.clone())
}

fn own((key, bytes): (&String, &Vec<u8>)) -> (String, Vec<u8>) {
    (key.clone(), bytes.clone())
}

fn copy(from: &Local<'_>, to: &Local<'_>, commit: &Commit) -> Result<()> {
    let generation = commit.body.generation;
    if to.has(Object::Generation, &generation) {
        return Ok(());
    }
    let bytes = from.object(Object::Generation, &generation, 1000)?;
    keep(to, Object::Generation, &bytes).map(drop)
}

fn is_fork<T>(result: Result<T, Stopped>) -> Result<(), Stopped> {
    match result {
        Err(Stopped::Fork(_)) => Ok(()),
        Err(failed) => Err(failed),
        Ok(_) => panic!("there is no fork"),
    }
}

/// Everything that writes a vault, once or more.
fn long_day(day: &Day) {
    let (one, two) = (&day.one, &day.two);
    day.step(one, &[], "empty", || day.init(one));
    day.step(two, &[], "empty", || day.pull(two));

    // Saves in a pod, of which the second replaces the first; taken over, and pushed.
    day.step(one, &["a"], "b", || day.session(one, &[Save("a"), Save("b")]));
    day.step(one, &["c"], "d", || day.session(one, &[HandOver("c", None), Save("d")]));
    day.step(one, &[], "d", || day.push(one));
    // The host is cut off amid a hand-over: what the pod saves then is held, and can be had.
    let cut_off = [Save("before"), CutOff("sent", &["later", "latest"])];
    day.step(one, &["before", "later", "latest"], "sent", || day.session(one, &cut_off));
    day.step(one, &[], "sent", || day.push(one));
    day.step(one, &[], "latest", || day.restore(one, " latest"));
    // Saves that look wrong.
    let shrunk = [Hold("shrunk"), Hold("shrunk less"), Save("e")];
    day.step(one, &[], "e", || day.session(one, &shrunk));
    day.step(one, &[], "e", || day.push(one));
    day.step(two, &[], "e", || day.pull(two));
    day.step(two, &[], "b", || day.restore(two, " b"));
    day.step(one, &[], "b", || day.pull(one));

    // A fork, found twice; theirs goes on, and then ours is brought back.
    day.step(two, &[], "theirs", || day.session(two, &[Save("theirs")]));
    day.step(two, &[], "theirs", || day.push(two));
    day.step(one, &[], "mine", || day.session(one, &[Save("mine")]));
    day.step(one, &[], "mine", || is_fork(day.push(one)));
    day.step(one, &[], "mine, later", || day.session(one, &[HandOver("mine, later", None)]));
    day.step(one, &[], "mine, later", || is_fork(day.push(one)));
    day.step(one, &[], "mine, later", || is_fork(day.pull(one)));
    day.step(one, &["mine", "b"], "theirs", || day.keep_theirs(one));
    day.step(one, &[], "mine, later", || day.restore(one, " mine, later"));

    // Another one; ours goes on, on top of theirs.
    let doing = [Save("two's, at first"), HandOver("two's, then", Some("two's"))];
    day.step(two, &["two's, at first", "two's, then"], "two's", || day.session(two, &doing));
    day.step(one, &[], "one's", || day.session(one, &[Save("one's")]));
    day.step(one, &[], "one's", || day.push(one));
    day.step(two, &[], "two's", || is_fork(day.push(two)));
    let between = ["two's, then", "theirs", "one's"];
    day.step(two, &between, "two's", || day.keep_mine(two, " two's"));
    day.step(one, &[], "two's", || day.pull(one));

    // Another identity; only another passphrase; and one that somebody else's push comes before.
    day.step(one, &[], "two's", || day.rekey(one, false, || Ok(())));
    day.step(two, &[], "two's", || day.pull(two));
    day.step(two, &[], "two's", || day.rekey(two, true, || Ok(())));
    day.step(one, &[], "two's", || day.pull(one));
    let raced = Cell::new(false);
    let race = || -> Result<(), Stopped> {
        if raced.get() {
            return Ok(());
        }
        day.may_become(two, "first");
        match day.push(two) {
            // What it saved before a crash came after another try of the rekey.
            Err(Stopped::Fork(_)) => day.keep_theirs(two)?,
            pushed => pushed.and_then(|()| day.pull(two))?,
        }
        day.session(two, &[Save("first")])?;
        day.push(two)?;
        day.has_become(two, "first");
        raced.set(true);
        Ok(())
    };
    day.step(one, &["two's"], "first", || day.rekey(one, false, race));
    day.step(two, &[], "first", || day.pull(two));

    // What a pod saves after another machine pushed is held; so is what it signs with a retired key.
    let late = |rekeyed: bool| -> Result<(), Stopped> {
        let keyring = day.unlock(one)?;
        if rekeyed {
            day.rekey(two, false, || Ok(()))?;
        } else {
            day.may_become(two, "earlier");
            day.session(two, &[Save("earlier")])?;
            day.push(two)?;
            day.has_become(two, "earlier");
        }
        day.pull(one)?;
        day.save_in_pod(one, &keyring, "late")?;
        Ok(day.collect(one)?)
    };
    day.step(one, &["late"], "earlier", || late(false));
    day.step(one, &["late"], "earlier", || late(true));
    // Sealed to an identity that is retired by now.
    day.step(one, &[], "late", || day.restore(one, " late"));
    day.step(two, &[], "late", || day.pull(two));
    day.step(two, &[], "d", || day.restore(two, " d"));
    day.step(one, &[], "d", || day.pull(one));

    // A store that has gone back is refused by both, and nothing changes; once it is whole again, all goes on.
    day.step(one, &[], "after", || day.session(one, &[Save("after")]));
    let refused = || {
        let newest = day.store.objects().into_keys().rfind(|key| key.starts_with("commits/")).unwrap();
        let bytes = day.store.objects().remove(&newest);
        day.store.tamper(&newest, None);
        let results = [day.pull(one), day.push(one)];
        day.store.tamper(&newest, bytes);
        for result in results {
            match result.map_err(Error::from) {
                Err(error) if error.kind() == Kind::Integrity => {}
                Err(error) => return Err(error.into()),
                Ok(()) => panic!("the store has gone back, and nobody minds"),
            }
        }
        Ok(())
    };
    day.step(one, &[], "after", refused);
    day.step(one, &[], "after", || day.push(one));
    day.step(two, &[], "after", || day.pull(two));
}

/// One day with a crash after so many steps, and perhaps another; how many steps it had, and how many crashes.
fn live(limit: u64, survives: Survives, next: Option<u64>) -> (u64, usize) {
    let day = Day::new(limit, survives, next);
    long_day(&day);
    let steps = day.power.steps();
    day.power.restore();
    day.check();
    let heads = day.sites().map(|site| Day::head(site).unwrap().hash);
    assert_eq!(heads[0], heads[1]);
    for site in day.sites() {
        let files: Vec<_> =
            site.disk.files().iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let temporary: Vec<_> = files.iter().filter(|name| name.ends_with(".tmp")).collect();
        assert!(temporary.is_empty(), "orphans: {temporary:?}");
    }
    (steps, day.log.into_inner().crashes)
}

const WAYS: [Survives; 3] = [Survives::Synced, Survives::Names, Survives::Everything];

/// Some of what `crash_everything` tries, the same each time.
#[test]
fn a_long_day_survives_crashes() {
    let (steps, mut crashes) = live(u64::MAX, Survives::Synced, None);
    assert!(steps >= 1000 && crashes == 0, "{steps} steps");
    for (offset, survives) in WAYS.into_iter().enumerate() {
        for limit in (offset as u64 * 13..steps).step_by(83) {
            crashes += live(limit, survives, None).1;
        }
        for limit in (offset as u64 * 13..steps).step_by(197) {
            crashes += live(limit, survives, Some(limit % 29)).1;
        }
    }
    assert!(crashes > 200, "{crashes} crashes");
}

/// All of it: `bench/crash`.
#[test]
#[ignore = "it takes minutes"]
#[expect(clippy::print_stdout, reason = "it reports")]
fn crash_everything() {
    let every: usize = std::env::var("TAZPOD_CRASH_EVERY").map_or(1, |every| every.parse().unwrap());
    let (steps, _) = live(u64::MAX, Survives::Synced, None);
    println!("{steps} steps of a long day; of each {every} one");
    for survives in WAYS {
        let halves: Vec<(usize, usize)> = std::thread::scope(|scope| {
            let halves = [0, 1].map(|first| {
                scope.spawn(move || {
                    let (mut once, mut twice) = (0, 0);
                    for limit in (first..steps).step_by(2).step_by(every) {
                        // Names are random, and with them how many steps there are: the last may not come.
                        once += live(limit, survives, None).1;
                        // While the same command runs again, mostly.
                        if limit % 5 == 0 {
                            twice += usize::from(live(limit, survives, Some(limit % 61)).1 == 2);
                        }
                    }
                    (once, twice)
                })
            });
            halves.into_iter().map(|half| half.join().unwrap()).collect()
        });
        let (once, twice) = halves.iter().fold((0, 0), |sum, half| (sum.0 + half.0, sum.1 + half.1));
        println!("{survives:?} survives: {once} days with a crash, {twice} with two; nothing was lost");
    }
}
