//! Files written whole or not at all, and opened as what they are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result};

/// Writes `bytes` to `path` with permissions `mode`, by temporary file, fsync, rename and fsync of the directory.
///
/// # Errors
/// Any of these steps; the old file, if there was one, is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(name);
    let written = (|| {
        // Left by a process of the same id that died; never written through, should it be a link.
        let _ = fs::remove_file(&temporary);
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The mode at creation is subject to the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    written.map_err(|source| {
        // The temporary file may not exist; the error that counts is the one above.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path, source)
    })
}

/// Makes the directory and its parents, this one with permissions `mode`.
///
/// # Errors
/// Where it cannot be made.
pub fn make_directory(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|source| Error::io("make the directory", path, source))
}

/// Opens what is there and of this type, but for being named: a descriptor to be reopened by [`named`]. For what programs of a pod can
/// replace: a symbolic link is never followed.
///
/// # Errors
/// Where it is not there, or something else.
pub fn at(path: &Path, kind: FileType) -> io::Result<OwnedFd> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) == kind {
        true => Ok(found),
        false => Err(io::Error::other(format!("not a {}", format!("{kind:?}").to_lowercase()))),
    }
}

/// The path, of any length, of what a descriptor is for.
pub fn named(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_with_the_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_atomically(&path, b"one", 0o600).unwrap();
        write_atomically(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn failure_names_the_path_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/key");
        let error = write_atomically(&path, b"one", 0o600).unwrap_err();
        assert!(error.to_string().contains("missing/key"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
