//! A named pipe in a pod's run directory, through which the keeper gets a sealed generation.
//!
//! What is sealed needs no second cipher, and SSH's takes as long as all the rest of an unlock. The request, the answer and the keys
//! go by SSH as ever. Programs of the pod can open the pipe, too: what they read is ciphertext, and what they write, or take away,
//! makes a generation that is not the commit's.

use std::fs::{self, File};
use std::io::{self, Read};
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
const CAPACITY: usize = 1 << 20;
/// The pod's user may be another than ours.
const READABLE: u32 = 0o644;

/// The host's end. Dropping it removes the pipe.
#[derive(Debug)]
pub struct Sending {
    path: PathBuf,
    /// What is written here the keeper reads; it never ends before the keeper has answered.
    pub sender: pipe::Sender,
}

impl Sending {
    /// Makes the pipe in a run directory.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn make(run: &Path) -> Result<Sending> {
        let path = run.join(NAME);
        let make = || {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(source),
                _ => {}
            }
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            let made = files::at(&path, FileType::Fifo)?;
            // Also for reading: it can be opened before the keeper has opened it.
            let sender = pipe::OpenOptions::new().read_write(true).open_sender(files::named(&made))?;
            fchmod(&sender, Mode::from_raw_mode(READABLE))?;
            // A smaller one does, too.
            let _ = rustix::pipe::fcntl_setpipe_size(&sender, CAPACITY);
            Ok(sender)
        };
        let sender = make().map_err(|source| Error::io("make a pipe at", &path, source))?;
        Ok(Sending { path, sender })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // The next one replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The keeper's end.
#[derive(Debug)]
pub struct Receiving {
    pipe: File,
    patience: Duration,
    end: Instant,
}

impl Receiving {
    /// Opens the pipe in a run directory. Whoever sends may be silent for `patience`, and take `limit` for all: programs of the pod
    /// can send as slowly as they like.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(run: &Path, patience: Duration, limit: Duration) -> io::Result<Receiving> {
        let made = files::at(&run.join(NAME), FileType::Fifo)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(files::named(&made), flags, Mode::empty())?.into();
        Ok(Receiving { pipe, patience, end: Instant::now() + limit })
    }
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let patience = self.patience.min(self.end.saturating_duration_since(Instant::now()));
            let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
            let ready = poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&patience))?;
            if ready == 0 || self.end <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.pipe.read(buffer) {
                // Somebody else was faster.
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
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
