//! Children in sessions of their own, pseudo-terminals, and this process's own memory.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use tokio::io::unix::AsyncFd;

/// Makes the child the leader of a new session and, if `terminal`, its stdin the controlling terminal.
pub fn lead_session(command: &mut Command, terminal: bool) {
    let prepare = move || {
        rustix::process::setsid()?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory of the parent.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Gives back the memory that has pages of this program's code: nearly all of it is needed once, or never. What is used comes back from
/// the page cache, which all processes of the file share.
///
/// # Errors
/// Where proc(5) cannot be read; madvise(2)'s.
pub fn release_code() -> io::Result<()> {
    let address = |text: &str| usize::from_str_radix(text, 16).map_err(io::Error::other);
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some("r-xp"), inode) = (fields.next(), fields.next(), fields.nth(2)) else {
            continue;
        };
        let Some((start, end)) = range.split_once('-').filter(|_| inode.is_some_and(|inode| inode != "0"))
        else {
            continue;
        };
        let (start, end) = (address(start)?, address(end)?);
        // SAFETY: a private mapping of a file that was never writable: its pages come back as they were.
        if unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Puts a descriptor on the runtime.
///
/// # Errors
/// Where it cannot be polled.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns its descriptor and always gives the same one.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// A pseudo-terminal, pty(7): the controlling end and the terminal itself, neither inherited by children.
///
/// # Errors
/// Where the system has none left.
pub fn open_pty() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = openpt(flags)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let terminal = ioctl_tiocgptpeer(&controller, flags)?;
    Ok((controller, terminal))
}

/// A copy of a descriptor that this process was started with.
///
/// # Errors
/// `EBADF` where there is none of this number.
pub fn inherited(descriptor: u32) -> io::Result<File> {
    let number = i32::try_from(descriptor).map_err(|_| io::ErrorKind::InvalidInput)?;
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is borrowed for one call, which fails where nothing is open under this number. What it is a copy of
    // stays as it was.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned().map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_given_back_and_comes_back() {
        let resident = || {
            let (mut code, mut sum) = (false, 0);
            for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
                if !line.split(' ').next().unwrap().ends_with(':') {
                    code = line.contains(" r-xp ");
                }
                let rss = line.strip_prefix("Rss:").filter(|_| code);
                sum += rss.map_or(0, |rss| rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
            }
            sum
        };
        // Code that the rest of this test does not need.
        assert!(toml::from_str::<toml::Table>("a = [1, 2]").is_ok() && resident() > 0);
        let before = resident();
        release_code().unwrap();
        let after = resident();
        assert!(after < before, "{after} kB of {before}");
    }
}
