//! A disk and a store that fail on purpose, for tests of what survives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;

use super::disk::{Disk, NewFile};
use super::id::Hash;
use super::store::{Created, Kind, Listed, Result, Store, StoreError};

/// The power supply: counts steps, and fails for good after so many.
#[derive(Clone, Default)]
pub struct Power(Arc<Mutex<(u64, Option<u64>)>>);

impl Power {
    /// Fails from the step after `limit` on.
    pub fn for_steps(limit: u64) -> Power {
        Power(Arc::new(Mutex::new((0, Some(limit)))))
    }

    /// Whether it has failed.
    pub fn is_gone(&self) -> bool {
        let (steps, limit) = *self.0.lock().unwrap();
        limit.is_some_and(|limit| steps > limit)
    }

    /// Fails so many steps from now.
    pub fn fail_after(&self, steps: u64) {
        let mut state = self.0.lock().unwrap();
        state.1 = Some(state.0.saturating_add(steps));
    }

    /// Never fails again.
    pub fn restore(&self) {
        self.0.lock().unwrap().1 = None;
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.0.lock().unwrap().0
    }

    /// Does what takes no power: a look from outside.
    pub fn aside(&self, look: impl FnOnce()) {
        let state = std::mem::take(&mut *self.0.lock().unwrap());
        look();
        *self.0.lock().unwrap() = state;
    }

    fn step(&self) -> io::Result<()> {
        self.0.lock().unwrap().0 += 1;
        if self.is_gone() { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }
}

/// What a crash leaves.
#[derive(Clone, Copy, Debug)]
pub enum Survives {
    /// Only what was synced.
    Synced,
    /// All names, and of files what was synced: a rename may reach the disk before the data.
    Names,
    /// Everything: the process was killed, the machine runs on.
    Everything,
}

#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Default)]
struct Names {
    files: HashMap<u64, File>,
    next: u64,
    now: BTreeMap<PathBuf, u64>,
    synced: BTreeMap<PathBuf, u64>,
    directories: BTreeSet<PathBuf>,
}

/// A disk that forgets what was not synced.
#[derive(Clone, Default)]
pub struct SimDisk {
    names: Arc<Mutex<Names>>,
    power: Power,
}

impl SimDisk {
    /// With this power supply.
    pub fn new(power: Power) -> SimDisk {
        SimDisk { power, ..SimDisk::default() }
    }

    /// The machine starts again.
    pub fn crash(&self, survives: Survives) {
        let mut names = self.lock();
        let names = &mut *names;
        match survives {
            Survives::Synced => names.now = names.synced.clone(),
            Survives::Names | Survives::Everything => names.synced = names.now.clone(),
        }
        for file in names.files.values_mut() {
            match survives {
                Survives::Everything => file.synced = file.now.clone(),
                Survives::Synced | Survives::Names => file.now = file.synced.clone(),
            }
        }
    }

    /// The names of all files that are there.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().now.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap()
    }

    fn id(&self, path: &Path) -> io::Result<u64> {
        self.lock().now.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct Writing {
    disk: SimDisk,
    id: u64,
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.power.step()?;
        self.disk.lock().files.get_mut(&self.id).unwrap().now.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for Writing {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.power.step()?;
        let mut names = self.disk.lock();
        let file = names.files.get_mut(&self.id).unwrap();
        file.synced = file.now.clone();
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile + '_>> {
        self.power.step()?;
        let mut names = self.lock();
        if !path.parent().is_some_and(|directory| names.directories.contains(directory)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        names.next += 1;
        let id = names.next;
        names.files.insert(id, File::default());
        names.now.insert(path.to_owned(), id);
        Ok(Box::new(Writing { disk: self.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send + '_>> {
        self.power.step()?;
        let id = self.id(path)?;
        Ok(Box::new(Cursor::new(self.lock().files[&id].now.clone())))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let id = self.id(path)?;
        Ok(self.lock().files[&id].now.len() as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.power.step()?;
        let id = self.id(from)?;
        let mut names = self.lock();
        names.now.remove(from);
        names.now.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.power.step()?;
        self.lock().now.remove(path);
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.power.step()?;
        let names = self.lock();
        let inside = names.now.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.power.step()?;
        self.lock().directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.power.step()?;
        let mut names = self.lock();
        let names = &mut *names;
        if !names.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        names.synced.retain(|path, _| path.parent() != Some(directory));
        let inside = names.now.iter().filter(|(path, _)| path.parent() == Some(directory));
        names.synced.extend(inside.map(|(path, id)| (path.clone(), *id)));
        Ok(())
    }
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It arrives, and the answer does not.
    ReplyLost,
    /// It does not arrive.
    RequestLost,
    /// 503.
    Busy,
    /// 200, and nothing is kept.
    Lie,
}

/// A store that several machines share.
#[derive(Clone, Default)]
pub struct SimStore {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Its clock, and when each object was written by it.
    times: Arc<Mutex<(Duration, BTreeMap<String, Duration>)>>,
    power: Power,
    /// For the request of this number, from 0 on.
    fault: Arc<Mutex<Faults>>,
}

/// Requests so far, and the one that goes wrong.
type Faults = (u64, Option<(u64, Fault)>);

impl SimStore {
    /// The same store, from a machine with this power supply.
    pub fn on_machine(&self, power: Power) -> SimStore {
        let (objects, times) = (Arc::clone(&self.objects), Arc::clone(&self.times));
        SimStore { objects, times, power, fault: Arc::default() }
    }

    /// Time passes in the store.
    pub fn pass(&self, time: Duration) {
        self.times.lock().unwrap().0 += time;
    }

    fn written(&self, key: &str) {
        let mut times = self.times.lock().unwrap();
        let now = times.0;
        times.1.insert(key.to_owned(), now);
    }

    /// Has one request go wrong.
    pub fn fail(&self, request: u64, fault: Fault) {
        *self.fault.lock().unwrap() = (0, Some((request, fault)));
    }

    /// Whether that request has come.
    pub fn has_failed(&self) -> bool {
        let (requests, fault) = *self.fault.lock().unwrap();
        fault.is_some_and(|(request, _)| requests > request)
    }

    /// All objects.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.objects.lock().unwrap().clone()
    }

    /// Puts anything anywhere, as a bucket's owner can.
    pub fn tamper(&self, key: &str, bytes: Option<Vec<u8>>) {
        let mut objects = self.objects.lock().unwrap();
        match bytes {
            Some(bytes) => objects.insert(key.to_owned(), bytes),
            None => objects.remove(key),
        };
    }

    /// The power may go before the request and after it.
    fn request<T>(
        &self,
        writes: bool,
        act: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T,
    ) -> Result<Option<T>> {
        let gone = |source: io::Error| StoreError::new(Kind::Other, source.to_string());
        self.power.step().map_err(gone)?;
        let fault = {
            let mut fault = self.fault.lock().unwrap();
            let (number, wanted) = *fault;
            fault.0 += 1;
            wanted.filter(|(request, _)| *request == number).map(|(_, fault)| fault)
        };
        let lost = || StoreError::new(Kind::Unreachable, "the connection broke");
        match fault {
            Some(Fault::RequestLost) => return Err(lost()),
            Some(Fault::Busy) => return Err(StoreError::new(Kind::Busy, "503")),
            Some(Fault::Lie) if writes => return Ok(None),
            _ => {}
        }
        let answer = act(&mut self.objects.lock().unwrap());
        self.power.step().map_err(gone)?;
        if fault == Some(Fault::ReplyLost) { Err(lost()) } else { Ok(Some(answer)) }
    }
}

impl Store for SimStore {
    fn describe(&self) -> String {
        "sim".to_owned()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        size: u64,
        _: [u8; 32],
        body: &'a mut (dyn Read + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes)
                .map_err(|source| StoreError::new(Kind::Other, source.to_string()))?;
            assert_eq!(bytes.len() as u64, size);
            // A put confirms what it did.
            let kept = self.request(true, |objects| {
                self.written(key);
                let before = objects.insert(key.to_owned(), bytes.clone());
                // What was damaged may become whole again.
                let whole = |before: &Vec<u8>| key.contains(&Hash::of(before).to_string());
                assert!(before.is_none_or(|before| before == bytes || !whole(&before)), "{key} changed");
            })?;
            kept.ok_or_else(|| StoreError::new(Kind::Corrupt, "the store kept nothing"))
        })
    }

    fn create<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> BoxFuture<'a, Result<Created>> {
        Box::pin(async move {
            let answer = self.request(true, |objects| match objects.contains_key(key) {
                true => Created::Exists,
                false => {
                    self.written(key);
                    objects.insert(key.to_owned(), bytes.to_owned());
                    Created::Made
                }
            });
            match answer {
                Ok(answer) => Ok(answer.unwrap_or(Created::Made)),
                Err(why) if why.is_transient() => Ok(Created::Unknown(why)),
                Err(why) => Err(why),
            }
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a str,
        limit: u64,
        into: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move {
            let Some(bytes) = self.request(false, |objects| objects.get(key).cloned())?.flatten() else {
                return Ok(None);
            };
            if bytes.len() as u64 > limit {
                return Err(StoreError::new(Kind::Corrupt, "too large"));
            }
            into.write_all(&bytes).map_err(|source| StoreError::new(Kind::Other, source.to_string()))?;
            Ok(Some(bytes.len() as u64))
        })
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move {
            Ok(self.request(false, |objects| objects.get(key).map(|bytes| bytes.len() as u64))?.flatten())
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        Box::pin(async move {
            let found = self.request(false, |objects| {
                let wanted =
                    objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
                let times = self.times.lock().unwrap();
                let listed = wanted.map(|(key, bytes)| Listed {
                    key: key.clone(),
                    size: bytes.len() as u64,
                    modified: SystemTime::UNIX_EPOCH + times.1.get(key).copied().unwrap_or_default(),
                });
                listed.collect()
            });
            Ok(found?.unwrap_or_default())
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.request(true, |objects| drop(objects.remove(key))).map(drop) })
    }
}
