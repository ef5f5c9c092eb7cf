//! System calls of mounts and namespaces that have no safe wrapper.

#![allow(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Maps the owners in a detached mount by a user namespace and makes the mount private, with what is mounted below
/// it if `recursive`.
///
/// # Errors
/// As mount_setattr(2): EINVAL where the file system refuses, EPERM where it is mapped already, ENOSYS before
/// Linux 5.12.
pub fn idmap(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attributes = MountAttr {
        set: libc::MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        user_namespace: u64::try_from(user_namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, and the kernel only reads the attributes, whose size it is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread a root and a working directory of its own, without which setns(2) refuses a mount
/// namespace in a process of several threads.
///
/// # Errors
/// As unshare(2).
pub fn unshare_root_and_cwd() -> io::Result<()> {
    // SAFETY: only unsharing the table of file descriptors is unsafe.
    Ok(unsafe { unshare_unsafe(UnshareFlags::FS) }?)
}

/// A child process in a user namespace of its own that has no maps yet. Dropping it ends and reaps the child.
#[derive(Debug)]
pub struct NamespaceHolder {
    child: Pid,
}

impl NamespaceHolder {
    /// Starts the child; when this returns, its user namespace is there.
    ///
    /// # Errors
    /// As fork(2) and unshare(2).
    pub fn start() -> io::Result<NamespaceHolder> {
        let (mut reader, writer) = io::pipe()?;
        // SAFETY: the child only makes async-signal-safe calls and never returns, as a fork of a process with
        // several threads must.
        let child = unsafe { libc::fork() };
        if child == 0 {
            hold_namespace(writer.as_raw_fd());
        }
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        drop(writer);
        let child = Pid::from_raw(child).ok_or_else(|| io::Error::other("a child without an id"))?;
        let holder = NamespaceHolder { child };
        let mut errno = [0; size_of::<libc::c_int>()];
        reader.read_exact(&mut errno)?;
        match libc::c_int::from_ne_bytes(errno) {
            0 => Ok(holder),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The child's process id.
    pub fn pid(&self) -> i32 {
        self.child.as_raw_nonzero().get()
    }
}

impl Drop for NamespaceHolder {
    fn drop(&mut self) {
        // Nothing else reaps our children, so the id is still the child's.
        let _ = kill_process(self.child, Signal::KILL);
        let _ = retry_on_intr(|| waitpid(Some(self.child), WaitOptions::empty()));
    }
}

/// The child of [`NamespaceHolder::start`]: reports the outcome of unshare(2) as an errno and waits for its end.
fn hold_namespace(report: RawFd) -> ! {
    // SAFETY: each call is async-signal-safe, and the buffer outlives the write.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // The pod's root owns the new namespace, as far as the kernel is concerned, and could trace this process.
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        let errno = match libc::unshare(libc::CLONE_NEWUSER) {
            0 => 0,
            _ => *libc::__errno_location(),
        };
        libc::write(report, (&raw const errno).cast(), size_of::<libc::c_int>());
        loop {
            libc::pause();
        }
    }
}
