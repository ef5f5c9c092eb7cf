//! A named pipe in a pod's run directory, through which the keeper gets a sealed generation, or the host one.
//!
//! What is sealed needs no second cipher, and SSH's takes as long as all the rest of an unlock. The request, the answer and the keys
//! go by SSH as ever. Programs of the pod can open the pipe, too: what they read is ciphertext, and what they write, or take away,
//! makes a generation that is not the commit's.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, fchmod, mknodat};
use tokio::net::unix::pipe;

use crate::adapters::files;
use crate::error::{Error, Result};

/// In the run directory. One tazpod at a time works on the vault.
const NAME: &str = "sealed";
/// How much is on its way at most, in bytes: what Linux lets everybody ask for.
pub const CAPACITY: usize = 1 << 20;
/// The pod's user may be another than ours.
const READABLE: u32 = 0o644;
const WRITABLE: u32 = 0o622;

/// A pipe of the host's. Dropping it removes it.
#[derive(Debug)]
struct Made(PathBuf);

impl Made {
    /// In a run directory, in the place of what was there. `open` opens it, by the name that it is given.
    fn new<T: AsFd>(
        run: &Path,
        mode: u32,
        open: impl FnOnce(&pipe::OpenOptions, String) -> io::Result<T>,
    ) -> Result<(Made, T)> {
        let path = run.join(NAME);
        let make = || {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(source),
                _ => {}
            }
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            let made = files::at(&path, FileType::Fifo)?;
            // For both: it can be opened before the keeper has opened it, and does not end when the keeper has closed it.
            let end = open(pipe::OpenOptions::new().read_write(true), files::named(&made))?;
            fchmod(&end, Mode::from_raw_mode(mode))?;
            // A smaller one does, too.
            let _ = rustix::pipe::fcntl_setpipe_size(&end, CAPACITY);
            Ok(end)
        };
        let end = make().map_err(|source| Error::io("make a pipe at", &path, source))?;
        Ok((Made(path), end))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // The next one replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

/// The host's end of one to the keeper.
#[derive(Debug)]
pub struct Sending {
    _made: Made,
    /// What is written here the keeper reads; it never ends before the keeper has answered.
    pub sender: pipe::Sender,
}

impl Sending {
    /// Makes the pipe in a run directory.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn make(run: &Path) -> Result<Sending> {
        let (made, sender) = Made::new(run, READABLE, |options, path| options.open_sender(path))?;
        Ok(Sending { _made: made, sender })
    }
}

/// The host's end of one from the keeper.
#[derive(Debug)]
pub struct Taking {
    _made: Made,
    /// What is read here the keeper has written; it never ends: all is there once the keeper has answered.
    pub receiver: pipe::Receiver,
}

impl Taking {
    /// Makes the pipe in a run directory.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn make(run: &Path) -> Result<Taking> {
        let (made, receiver) = Made::new(run, WRITABLE, |options, path| options.open_receiver(path))?;
        Ok(Taking { _made: made, receiver })
    }
}

/// The keeper's end, of either.
#[derive(Debug)]
struct Kept {
    pipe: File,
    patience: Duration,
    end: Instant,
}

impl Kept {
    fn open(run: &Path, flags: OFlags, patience: Duration, limit: Duration) -> io::Result<Kept> {
        let made = files::at(&run.join(NAME), FileType::Fifo)?;
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(files::named(&made), flags, Mode::empty())?.into();
        Ok(Kept { pipe, patience, end: Instant::now() + limit })
    }

    /// Does it once it can be done.
    fn when_ready(
        &mut self,
        flags: PollFlags,
        mut act: impl FnMut(&mut File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let patience = self.patience.min(self.end.saturating_duration_since(Instant::now()));
            let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
            let ready = poll(&mut [PollFd::new(&self.pipe, flags)], Some(&patience))?;
            if ready == 0 || self.end <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match act(&mut self.pipe) {
                // Somebody else was faster.
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

/// The keeper's end of one from the host.
#[derive(Debug)]
pub struct Receiving(Kept);

impl Receiving {
    /// Opens the pipe in a run directory. Whoever sends may be silent for `patience`, and take `limit` for all: programs of the pod
    /// can send as slowly as they like.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(run: &Path, patience: Duration, limit: Duration) -> io::Result<Receiving> {
        Kept::open(run, OFlags::RDONLY, patience, limit).map(Receiving)
    }
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.when_ready(PollFlags::IN, |pipe| pipe.read(buffer))
    }
}

/// The keeper's end of one to the host.
#[derive(Debug)]
pub struct Giving(Kept);

impl Giving {
    /// Opens the pipe in a run directory. Whoever reads may be silent for `patience`, and take `limit` for all.
    ///
    /// # Errors
    /// Where there is none, or nobody has it open.
    pub fn open(run: &Path, patience: Duration, limit: Duration) -> io::Result<Giving> {
        Kept::open(run, OFlags::WRONLY, patience, limit).map(Giving)
    }
}

impl Write for Giving {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.when_ready(PollFlags::OUT, |pipe| pipe.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    fn open(run: &Path, limit: Duration) -> io::Result<Receiving> {
        Receiving::open(run, PATIENCE, limit * 1000)
    }

    #[tokio::test]
    async fn what_is_sent_arrives_and_silence_and_the_end_are_told_apart() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(open(run.path(), PATIENCE).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut sending = Sending::make(run.path()).unwrap();
        sending.sender.write_all(b"sealed").await.unwrap();
        let mut receiving = open(run.path(), PATIENCE).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receiving.read(&mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"sealed");
        assert_eq!(receiving.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::TimedOut);
        // As a program of the pod could: a byte now and then, for ever.
        let mut slow = open(run.path(), Duration::ZERO).unwrap();
        sending.sender.write_all(b"x").await.unwrap();
        assert_eq!(slow.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(receiving.read(&mut buffer).unwrap(), 1);
        drop(sending);
        assert_eq!(receiving.read(&mut buffer).unwrap(), 0);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn who_takes_a_little_now_and_then_does_not_prolong_it() {
        let run = tempfile::tempdir().unwrap();
        let taking = Taking::make(run.path()).unwrap();
        let (patience, limit) = (10 * PATIENCE, 20 * PATIENCE);
        let mut giving = Giving::open(run.path(), patience, limit).unwrap();
        let begun = Instant::now();
        let giving = tokio::task::spawn_blocking(move || {
            loop {
                if let Err(error) = giving.write_all(&[0; CAPACITY]) {
                    return (error.kind(), begun.elapsed());
                }
            }
        });
        let mut little = vec![0; CAPACITY / 16];
        while !giving.is_finished() {
            assert!(begun.elapsed() < 10 * limit, "it does not end");
            let _ = taking.receiver.try_read(&mut little);
            tokio::time::sleep(PATIENCE / 5).await;
        }
        let (kind, taken) = giving.await.unwrap();
        assert!(kind == io::ErrorKind::TimedOut && taken >= limit / 2, "{kind} after {taken:?}");
    }

    #[tokio::test]
    async fn what_somebody_put_there_is_replaced_and_not_followed() {
        let run = tempfile::tempdir().unwrap();
        let other = run.path().join("other");
        fs::write(&other, "private").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&other, run.path().join(NAME)).unwrap();
        assert_eq!(open(run.path(), PATIENCE).unwrap_err().to_string(), "not a fifo");
        let error = files::at(&run.path().join(NAME), FileType::Socket).unwrap_err();
        assert_eq!(error.to_string(), "not a socket");
        drop(Sending::make(run.path()).unwrap());
        assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&other).unwrap(), "private");
        fs::create_dir(run.path().join(NAME)).unwrap();
        let error = Sending::make(run.path()).unwrap_err().to_string();
        assert!(error.starts_with("cannot make a pipe at"), "{error}");
    }
}
