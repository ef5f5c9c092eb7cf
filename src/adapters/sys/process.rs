//! Children in sessions of their own, and pseudo-terminals.

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
