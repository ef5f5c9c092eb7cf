//! The few operations on files that the vault's safety hangs on, so that tests can lose what was not synced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags};

use super::tree::Root;
use crate::adapters::sys::files;

/// After so many bytes, the disk begins to write them: it is not idle until the end, which waits for all.
const WRITE_BACK: u64 = 4 << 20;

/// A file that is being written.
pub trait NewFile: Write + Send {
    /// What was written survives a crash; the name does once its directory is synced.
    ///
    /// # Errors
    /// As fsync(2).
    fn sync(&mut self) -> io::Result<()>;
}

/// A file system, or what pretends to be one.
pub trait Disk: Send + Sync {
    /// A new file; one that is there is replaced.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile + '_>>;
    /// A file to be read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send + '_>>;
    /// A file's size in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// As rename(2).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// As unlink(2); what is not there is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted; none where there is no directory. Names that are no UTF-8 are not ours.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// A directory, and those above it; it survives a crash.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory survive a crash.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// The machine's own.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk {
    file_mode: u32,
    directory_mode: u32,
}

impl RealDisk {
    /// What it makes is its user's alone.
    pub const PRIVATE: RealDisk = RealDisk { file_mode: 0o600, directory_mode: 0o700 };
    /// What it makes others can read, and remove: a directory above keeps out who is not meant.
    pub const SHARED: RealDisk = RealDisk { file_mode: 0o644, directory_mode: 0o777 };
}

/// A directory that somebody else writes: no link in it is followed, nothing but regular files is read, nothing is changed.
#[derive(Debug)]
pub struct ReadOnly(pub Root);

impl ReadOnly {
    fn file(&self, path: &Path) -> io::Result<File> {
        // Without waiting for whoever has the other end of a FIFO.
        let file = File::from(self.0.at(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

impl Disk for ReadOnly {
    fn create(&self, _: &Path) -> io::Result<Box<dyn NewFile + '_>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.file(path)?))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.file(path)?.metadata().map(|found| found.len())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let directory = match self.0.at(directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            directory => directory?,
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// A file on its way to the disk.
struct Written {
    file: File,
    size: u64,
    /// Of these bytes, so many are on their way.
    begun: u64,
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.size += count as u64;
        let waiting = self.size - self.begun;
        if waiting >= WRITE_BACK {
            // A file system that cannot: the sync does it all.
            let _ = files::begin_writing_back(&self.file, self.begun, waiting);
            self.begun = self.size;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for Written {
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile + '_>> {
        self.remove(path)?;
        let file = File::options().write(true).create_new(true).mode(self.file_mode).open(path)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(self.file_mode))?;
        Ok(Box::new(Written { file, size: 0, begun: 0 }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send + '_>> {
        // Others may write where this is: no link, and no waiting for whoever has the other end of a FIFO.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        if file.metadata()?.is_file() { Ok(Box::new(file)) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        fs::symlink_metadata(path).map(|found| found.len())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(source),
            _ => Ok(()),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(directory) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(self.directory_mode))?;
        // Each of those above has a new name in it, or is the last that had none.
        path.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty()).try_for_each(|above| {
            match self.sync_directory(above) {
                // Those that are not ours to open are not ours to have made.
                Err(source) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                other => other,
            }
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
