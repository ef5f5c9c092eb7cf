//! What the kernel is told of a file's pages.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Begins to write `size` bytes at `offset`, both of them bytes, to the disk, and does not wait: a sync that comes later has less to wait for. It
/// is no sync: neither the size nor a disk's cache is seen to.
///
/// # Errors
/// As `sync_file_range(2)`.
pub fn begin_writing_back(file: &File, offset: u64, size: u64) -> io::Result<()> {
    let (offset, size) = (offset.cast_signed(), size.cast_signed());
    // SAFETY: a descriptor that is open as long as the call takes, and three numbers.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, size, libc::SYNC_FILE_RANGE_WRITE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
