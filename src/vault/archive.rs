//! Sealing a tree, and opening what was sealed: tar, zstd, age, in this order.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;

use flate2::CrcReader;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use tar::EntryType;
use zstd::zstd_safe::CParameter;

use super::behind::{Behind, behind};
use super::key::Recipient;
use super::tree::{Entry, Kind as EntryKind, LONGEST_PATH, Root, Tree, stays_inside};
use crate::error::{Context as _, Error, Kind, Result};

/// Of a mixed tree it leaves 4 % more than zstd's default, 3, in half the time; keys and tokens do not compress at all.
const LEVEL: i32 = 1;
/// How many threads compress, besides the one that reads and seals.
const COMPRESSORS: u32 = 2;
/// How much a thread compresses at a time, in bytes: with zstd's own choice small trees keep one thread busy and the others not.
const JOB: u32 = 1 << 20;
/// The largest window that is opened, as a power of two: 8 MiB.
const LARGEST_WINDOW: u32 = 23;
/// How much is read or written at a time, in bytes.
const PIECE: usize = 128 << 10;
/// How much is deciphered at a time, in bytes: to wake another thread costs as much as some of it.
const AHEAD_PIECE: usize = 256 << 10;
/// How many of these are deciphered ahead of being written: what compresses well takes longer to write, what does not to decipher.
const AHEAD: usize = 16;
/// Owner of everything in archives: the pod's user, which is also who opens them.
const OWNER: u64 = 1000;
/// How much of an archive is read between one file's end and the next one's beginning, in bytes: the library holds names and pax records
/// in memory, however long they say that they are.
const BETWEEN: u64 = 64 << 10;
/// What of a file is zero and as long as this, from a multiple of it on, takes no memory: the size of a page, in bytes.
const PAGE: usize = 4096;
const ZEROS: &[u8] = &[0; PAGE];

/// What a sealed tree may have in it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Limits {
    /// Whether this tree has more.
    pub fn are_exceeded_by(&self, tree: &Tree) -> bool {
        tree.bytes() > self.bytes || tree.entries.len() as u64 > self.entries
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 16 << 30, entries: 1_000_000 }
    }
}

/// What came out.
#[derive(Debug, Default)]
pub struct Extracted {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// The CRC-32 of each file's bytes.
    pub sums: HashMap<PathBuf, u32>,
}

/// Seals the entries of `tree`, found below `root`.
///
/// # Errors
/// Where the output cannot be written. A file that has vanished is left out and counts as torn.
pub fn seal<W: Write + Send>(root: &Root, tree: &Tree, recipient: &Recipient, into: W) -> Result<Packed<W>> {
    let failed = || "cannot write the sealed generation";
    let sealing = |into: Behind| -> Result<_> {
        let mut packer = Packer::new(recipient.seal(into)?)?;
        for entry in &tree.entries {
            packer.add(root, entry, &entry.path)?;
        }
        let Packed { into, torn, unreadable, sums } = packer.finish()?;
        into.finish().and_then(|mut into| into.flush()).context(Kind::Failure, failed)?;
        Ok((torn, unreadable, sums))
    };
    let (sealed, written) = behind(into, sealing).context(Kind::Failure, || "cannot start a thread")?;
    // Where this failed, the other says only that it could not go on.
    let into = written.context(Kind::Failure, failed)?;
    let (torn, unreadable, sums) = sealed?;
    Ok(Packed { into, torn, unreadable, sums })
}

/// The CRC-32 of what is in a file of this size, as [`Packed::sums`] has it; of what has become longer, not all.
///
/// # Errors
/// Where it cannot be read.
pub fn sum(root: &Root, path: &Path, size: u64) -> io::Result<u32> {
    let file = File::from(root.at(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?);
    let file = file.take(size.saturating_add(1));
    let mut summing = CrcReader::new(BufReader::with_capacity(PIECE, file));
    io::copy(&mut summing, &mut io::sink())?;
    Ok(summing.crc().sum())
}

/// Packs files as generations have them, unsealed: tar, zstd.
pub struct Packer<W: Write> {
    archive: tar::Builder<zstd::Encoder<'static, W>>,
    torn: Vec<PathBuf>,
    unreadable: Vec<PathBuf>,
    sums: Vec<u32>,
}

/// What a [`Packer`] has done.
#[derive(Debug)]
pub struct Packed<W> {
    /// Where it was written to.
    pub into: W,
    /// Files that changed while they were read: what is packed of them may be half old and half new.
    pub torn: Vec<PathBuf>,
    /// Files that are not in it, because they cannot be read.
    pub unreadable: Vec<PathBuf>,
    /// The CRC-32 of each entry's bytes, in the order in which they were added; of what has none that of nothing.
    pub sums: Vec<u32>,
}

impl<W: Write> Packer<W> {
    /// Nothing is written before the first entry.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn new(into: W) -> Result<Packer<W>> {
        let failed = || "cannot compress";
        let mut compressor = zstd::Encoder::new(into, LEVEL).context(Kind::Failure, failed)?;
        compressor.include_checksum(true).context(Kind::Failure, failed)?;
        compressor.multithread(COMPRESSORS).context(Kind::Failure, failed)?;
        compressor.set_parameter(CParameter::JobSize(JOB)).context(Kind::Failure, failed)?;
        Ok(Packer {
            archive: tar::Builder::new(compressor),
            torn: Vec::new(),
            unreadable: Vec::new(),
            sums: Vec::new(),
        })
    }

    /// Adds an entry that is below `root`, under another name if you like. A directory comes before what is in it.
    ///
    /// # Errors
    /// Where the output cannot be written. What has vanished is left out and counts as torn.
    pub fn add(&mut self, root: &Root, entry: &Entry, name: &Path) -> Result<()> {
        let sum = self
            .try_add(root, entry, name)
            .context(Kind::Failure, || format!("cannot pack `{}`", entry.path.display()))?;
        self.sums.push(sum);
        Ok(())
    }

    fn try_add(&mut self, root: &Root, entry: &Entry, name: &Path) -> io::Result<u32> {
        let EntryKind::File(size) = entry.kind else {
            self.try_put(name, &entry.kind, entry.mode, entry.modified, io::empty())?;
            return Ok(0);
        };
        // Opened first: what cannot be opened must leave no trace in the archive.
        let file = match root.at(&entry.path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(source) => {
                let gone = source.kind() == io::ErrorKind::NotFound;
                if gone { &mut self.torn } else { &mut self.unreadable }.push(entry.path.clone());
                return Ok(0);
            }
        };
        let stamp = |file: &File| {
            file.metadata().map(|found| (found.len(), found.mtime(), found.mtime_nsec(), found.ctime_nsec()))
        };
        let before = stamp(&file)?;
        let mut summing = CrcReader::new(&file);
        self.try_put(name, &entry.kind, entry.mode, entry.modified, &mut summing)?;
        if stamp(&file)? != before || before.0 != size {
            self.torn.push(entry.path.clone());
        }
        Ok(summing.crc().sum())
    }

    /// Adds an entry that is in no tree. Of `data` exactly as much is taken as `kind` says.
    ///
    /// # Errors
    /// Where the output cannot be written.
    pub fn put(
        &mut self,
        name: &Path,
        kind: &EntryKind,
        mode: u32,
        modified: (i64, u32),
        data: impl Read,
    ) -> Result<()> {
        self.try_put(name, kind, mode, modified, data)
            .context(Kind::Failure, || format!("cannot pack `{}`", name.display()))
    }

    fn try_put(
        &mut self,
        name: &Path,
        kind: &EntryKind,
        mode: u32,
        (seconds, nanoseconds): (i64, u32),
        data: impl Read,
    ) -> io::Result<()> {
        let archive = &mut self.archive;
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(OWNER);
        header.set_gid(OWNER);
        header.set_mtime(u64::try_from(seconds).unwrap_or_default());
        header.set_size(0);
        if nanoseconds != 0 || seconds < 0 {
            // pax(1): a header of whole seconds is what others read.
            let time = decimal(seconds, nanoseconds);
            archive.append_pax_extensions([("mtime", time.as_bytes())])?;
        }
        match kind {
            EntryKind::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                if header.set_link_name_literal(target.as_os_str().as_bytes()).is_err() {
                    long(archive, EntryType::GNULongLink, target)?;
                }
                named(archive, header, name, io::empty())
            }
            EntryKind::Directory => {
                header.set_entry_type(EntryType::Directory);
                named(archive, header, name, io::empty())
            }
            EntryKind::File(size) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(*size);
                // Exactly as long as announced, whatever becomes of the file meanwhile.
                let data = data.chain(io::repeat(0)).take(*size);
                let piece = usize::try_from(*size).unwrap_or(PIECE).min(PIECE);
                named(archive, header, name, BufReader::with_capacity(piece, data))
            }
        }
    }

    /// Ends the archive; what it was written to may have an end of its own.
    ///
    /// # Errors
    /// Where the output cannot be written.
    pub fn finish(self) -> Result<Packed<W>> {
        let failed = || "cannot write the packed files";
        let compressor = self.archive.into_inner().context(Kind::Failure, failed)?;
        let into = compressor.finish().context(Kind::Failure, failed)?;
        Ok(Packed { into, torn: self.torn, unreadable: self.unreadable, sums: self.sums })
    }
}

/// The header has room for names of 100 bytes; longer ones come before it. (The library's own way fails for some that are no UTF-8.)
fn named<W: Write>(
    archive: &mut tar::Builder<W>,
    mut header: tar::Header,
    path: &Path,
    data: impl Read,
) -> io::Result<()> {
    let bytes = path.as_os_str().as_bytes();
    let field = &mut header.as_old_mut().name;
    match field.get_mut(..bytes.len()) {
        Some(room) => room.copy_from_slice(bytes),
        None => long(archive, EntryType::GNULongName, path)?,
    }
    if bytes.len() > header.as_old().name.len() {
        header.set_path("long-name")?;
    }
    header.set_cksum();
    archive.append(&header, data)
}

/// A name for the entry that follows.
fn long<W: Write>(archive: &mut tar::Builder<W>, kind: EntryType, name: &Path) -> io::Result<()> {
    let bytes = [name.as_os_str().as_bytes(), b"\0"].concat();
    let mut header = tar::Header::new_gnu();
    header.set_path("././@LongLink")?;
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    archive.append(&header, &bytes[..])
}

/// As pax(1) writes times.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    // Towards zero: -2 s and 0.25 s are -1.75 s.
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
}

fn parse_decimal(text: &str) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    // No second sign: the least number has no opposite.
    let seconds: i64 = whole.bytes().all(|c| c.is_ascii_digit()).then(|| whole.parse().ok())??;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

/// Extracts `plain`, the decrypted stream of a generation, into `root`, an empty directory. Only files, directories and links to
/// inside are taken; anything else is an error, and then what is there is to be thrown away. Reads to the end, so that what
/// authenticates the stream has been seen.
///
/// # Errors
/// [`Kind::Integrity`] where the archive is not one that [`seal`] makes, is cut, or exceeds the limits; [`Kind::Failure`] where
/// it cannot be written.
pub fn extract(plain: impl Read + Send, root: &Root, limits: Limits) -> Result<Extracted> {
    ahead(plain, |plain| unpack(plain, root, limits)).context(Kind::Failure, || "cannot start a thread")?
}

/// Has `from` read by a thread of its own, for `work`: deciphering takes about as long as decompressing and writing.
fn ahead<T>(mut from: impl Read + Send, work: impl FnOnce(&mut Ahead) -> T) -> io::Result<T> {
    std::thread::scope(|scope| {
        let (sender, pieces) = mpsc::sync_channel(AHEAD);
        let (used, free) = mpsc::channel::<Vec<u8>>();
        let reading = move || {
            loop {
                let mut piece = free.try_recv().unwrap_or_else(|_| Vec::with_capacity(AHEAD_PIECE));
                piece.clear();
                let read = from.by_ref().take(AHEAD_PIECE as u64).read_to_end(&mut piece);
                let last = !matches!(read, Ok(1..));
                // Whoever worked may have refused what came before.
                if sender.send(read.map(|_| piece)).is_err() || last {
                    return;
                }
            }
        };
        std::thread::Builder::new().spawn_scoped(scope, reading)?;
        Ok(work(&mut Ahead { pieces, used, piece: io::Cursor::default(), ended: false }))
    })
}

/// What another thread reads. Its end is said; without that it is no end.
struct Ahead {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    used: mpsc::Sender<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece.fill_buf()?.is_empty() && !self.ended {
            let piece = self.pieces.recv().map_err(|_| io::ErrorKind::UnexpectedEof)??;
            self.ended = piece.is_empty();
            let used = std::mem::replace(&mut self.piece, io::Cursor::new(piece));
            // The other thread may have no more to read.
            let _ = self.used.send(used.into_inner());
        }
        self.piece.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.piece.consume(count);
    }
}

fn unpack(plain: impl BufRead, root: &Root, limits: Limits) -> Result<Extracted> {
    let mut decompressor =
        zstd::Decoder::with_buffer(plain).context(Kind::Integrity, || "the generation is damaged")?;
    decompressor.window_log_max(LARGEST_WINDOW).context(Kind::Failure, || "cannot read the generation")?;
    let left = Rc::new(Cell::new(BETWEEN));
    let mut archive = tar::Archive::new(Metered { from: decompressor, left: Rc::clone(&left) });
    let mut extraction = Extraction {
        root,
        limits,
        left: &left,
        done: Extracted::default(),
        directories: Vec::new(),
        links: Vec::new(),
        near: HashMap::new(),
    };
    let entries = archive.entries().context(Kind::Integrity, || "the generation is damaged")?;
    for entry in entries {
        extraction.take(entry.context(Kind::Integrity, || "the generation is damaged")?)?;
        left.set(BETWEEN);
    }
    // After the archive's end there may be its padding, and then the ends of zstd and age, which must be right.
    let mut rest = archive.into_inner().from;
    let mut buffer = [0; 4096];
    let mut padding = 0;
    loop {
        let count = rest.read(&mut buffer).context(Kind::Integrity, || "the generation is damaged")?;
        padding += count;
        let nothing = buffer.iter().take(count).all(|byte| *byte == 0);
        if count == 0 {
            break;
        }
        if !nothing || padding > 1 << 20 {
            return Err(Error::new(Kind::Integrity, "the generation has something after its end"));
        }
    }
    extraction.finish()
}

/// A reader that fails beyond what is left to be read.
struct Metered<R> {
    from: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("a name or a record in it is too long"))?);
        Ok(count)
    }
}

struct Extraction<'a> {
    root: &'a Root,
    limits: Limits,
    /// How much more may be read.
    left: &'a Cell<u64>,
    done: Extracted,
    /// Made with permissions for us; they get their own at the end, inner ones first.
    directories: Vec<(PathBuf, u32, (i64, u32))>,
    /// Made last, so that nothing is written through them.
    links: Vec<(PathBuf, PathBuf, (i64, u32))>,
    /// The directory that was written to last.
    near: HashMap<PathBuf, OwnedFd>,
}

impl Extraction<'_> {
    fn take<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<()> {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&entry.path_bytes()));
        let refused = |what: &str| {
            Error::new(
                Kind::Integrity,
                format!("the generation has an entry that tazpod never makes: `{}` {what}", path.display()),
            )
        };
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() || path.as_os_str().len() > LONGEST_PATH {
            return Err(refused("leads elsewhere"));
        }
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(Error::new(
                Kind::Integrity,
                format!("the generation has more than {} entries", self.limits.entries),
            ));
        }
        let modified = match modified(&mut entry) {
            Some(modified) => modified,
            None => return Err(refused("has no time")),
        };
        let mode = entry.header().mode().map_err(|_| refused("has no permissions"))? & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory => {
                let (above, name) =
                    self.above(&path).map_err(|source| refused("lies nowhere").with_source(source))?;
                rustix::fs::mkdirat(above, name, Mode::RWXU)
                    .map_err(|source| unwritable(&path, source.into()))?;
                self.directories.push((path, mode, modified));
            }
            EntryType::Regular => self.file(entry, path, mode, modified)?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = PathBuf::from(std::ffi::OsStr::from_bytes(&target));
                if target.as_os_str().is_empty() || !stays_inside(&path, &target) {
                    return Err(refused("is a link to outside"));
                }
                self.links.push((path, target, modified));
            }
            _ => return Err(refused("is neither file, directory nor link")),
        }
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: tar::Entry<'_, R>,
        path: PathBuf,
        mode: u32,
        modified: (i64, u32),
    ) -> Result<()> {
        let size = entry.size();
        self.done.bytes = self.done.bytes.saturating_add(size);
        if self.done.bytes > self.limits.bytes {
            return Err(Error::new(
                Kind::Integrity,
                format!("the generation has more than {} bytes", self.limits.bytes),
            ));
        }
        let (above, name) = self.above(&path).map_err(|source| {
            Error::new(
                Kind::Integrity,
                format!("`{}` lies in no directory of the generation", path.display()),
            )
            .with_source(source)
        })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(above, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|source| unwritable(&path, source.into()))?;
        let file = File::from(file);
        // What follows the last byte is of the next entry.
        self.left.set(size);
        let mut summing = CrcReader::new(entry);
        let copied = copy(&mut summing, &file, &path)?;
        if copied != size {
            return Err(Error::new(
                Kind::Integrity,
                format!("`{}` is cut off in the generation", path.display()),
            ));
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .and_then(|()| rustix::fs::futimens(&file, &times(modified)))
            .map_err(|source| unwritable(&path, source.into()))?;
        self.done.sums.insert(path, summing.crc().sum());
        Ok(())
    }

    /// The directory that holds `path`, kept open for the next of its files.
    fn above<'p>(&mut self, path: &'p Path) -> io::Result<(&OwnedFd, &'p std::ffi::OsStr)> {
        let above = path.parent().unwrap_or(Path::new(""));
        if !self.near.contains_key(above) {
            let (directory, _) = self.root.parent(path)?;
            self.near.clear();
            self.near.insert(above.to_owned(), directory);
        }
        let directory = self.near.get(above).ok_or(io::ErrorKind::NotFound)?;
        Ok((directory, path.file_name().ok_or(io::ErrorKind::InvalidInput)?))
    }

    fn finish(mut self) -> Result<Extracted> {
        for (path, target, modified) in std::mem::take(&mut self.links) {
            let made = self.above(&path).and_then(|(above, name)| {
                rustix::fs::symlinkat(&target, above, name)?;
                Ok(rustix::fs::utimensat(above, name, &times(modified), AtFlags::SYMLINK_NOFOLLOW)?)
            });
            made.map_err(|source| unwritable(&path, source))?;
        }
        for (path, mode, modified) in self.directories.iter().rev() {
            let made =
                self.root.at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).and_then(|directory| {
                    rustix::fs::fchmod(directory.as_fd(), Mode::from_raw_mode(*mode))?;
                    Ok(rustix::fs::futimens(&directory, &times(*modified))?)
                });
            made.map_err(|source| unwritable(path, source))?;
        }
        Ok(self.done)
    }
}

/// Whose fault an error is tells whether the vault is damaged or the memory full. Pages of zeros become holes, so that a file with
/// holes takes no more memory than it took.
fn copy(mut from: impl Read, into: &File, path: &Path) -> Result<u64> {
    let mut piece = Vec::with_capacity(PIECE);
    let mut total = 0;
    loop {
        piece.clear();
        let read = from.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let count = read.context(Kind::Integrity, || "the generation is damaged")? as u64;
        if count == 0 {
            break;
        }
        let has_hole = piece.chunks(PAGE).any(|page| ZEROS.starts_with(page));
        let step = if has_hole { PAGE } else { PIECE };
        let mut at = total;
        for run in piece.chunks(step) {
            if !ZEROS.starts_with(run) {
                into.write_all_at(run, at).map_err(|source| unwritable(path, source))?;
            }
            at += run.len() as u64;
        }
        total += count;
    }
    into.set_len(total).map_err(|source| unwritable(path, source))?;
    Ok(total)
}

fn unwritable(path: &Path, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::AlreadyExists {
        return Error::new(Kind::Integrity, format!("`{}` is in the generation twice", path.display()));
    }
    let full = source.kind() == io::ErrorKind::StorageFull;
    let error = Error::new(Kind::Failure, format!("cannot write `{}` of the vault", path.display()))
        .with_source(source);
    if full {
        error.hint("the vault's memory in this pod is full: half of `[pod] memory`, or of this machine's; nothing was changed")
    } else {
        error
    }
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn modified<R: Read>(entry: &mut tar::Entry<'_, R>) -> Option<(i64, u32)> {
    if let Ok(Some(extensions)) = entry.pax_extensions() {
        for extension in extensions.filter_map(|extension| extension.ok()) {
            if extension.key() == Ok("mtime") {
                return parse_decimal(extension.value().ok()?);
            }
        }
    }
    Some((i64::try_from(entry.header().mtime().ok()?).ok()?, 0))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::vault::key::Identity;

    struct Vault {
        directory: tempfile::TempDir,
        identity: Identity,
    }

    impl Vault {
        fn new() -> Vault {
            let vault =
                Vault { directory: tempfile::tempdir().unwrap(), identity: Identity::generate().unwrap() };
            fs::create_dir(vault.at("tree")).unwrap();
            vault
        }

        fn at(&self, name: impl AsRef<Path>) -> PathBuf {
            self.directory.path().join(name)
        }

        fn tree(&self, name: &str) -> Tree {
            Tree::scan(&Root::open(&self.at(name)).unwrap()).unwrap()
        }

        fn seal(&self) -> Packed<Vec<u8>> {
            let root = Root::open(&self.at("tree")).unwrap();
            seal(&root, &Tree::scan(&root).unwrap(), &self.identity.recipient(), Vec::new()).unwrap()
        }

        fn extract_plain(&self, plain: impl Read + Send, limits: Limits) -> Result<Extracted> {
            let _ = fs::remove_dir_all(self.at("out"));
            fs::create_dir(self.at("out")).unwrap();
            extract(plain, &Root::open(&self.at("out")).unwrap(), limits)
        }

        fn extract(&self, sealed: &[u8]) -> Result<Extracted> {
            self.extract_plain(self.identity.open(sealed)?, Limits::default())
        }
    }

    /// All that is kept of a tree.
    fn kept(tree: Tree) -> Vec<(PathBuf, EntryKind, u32, (i64, u32))> {
        tree.entries.into_iter().map(|entry| (entry.path, entry.kind, entry.mode, entry.modified)).collect()
    }

    #[test]
    fn what_comes_out_is_what_went_in() {
        let vault = Vault::new();
        let odd = OsStr::from_bytes(b"tree/\xff\n\x01 odd \xe2\x98\xba");
        let long: PathBuf =
            ["tree"].into_iter().chain(std::iter::repeat_n("a-name-of-some-length", 20)).collect();
        fs::create_dir_all(vault.at(&long)).unwrap();
        fs::write(vault.at(long.join("x".repeat(255))), "deep").unwrap();
        fs::write(vault.at(odd), "odd").unwrap();
        fs::write(vault.at("tree/empty"), "").unwrap();
        for (length, byte) in [(99, b'n'), (100, b'n'), (101, 0xff), (255, 0xff)] {
            fs::write(vault.at(OsStr::from_bytes(&[&b"tree/"[..], &vec![byte; length]].concat())), "n")
                .unwrap();
            symlink(OsStr::from_bytes(&vec![byte; length]), vault.at(format!("tree/to-{length}"))).unwrap();
        }
        fs::write(vault.at("tree/large"), vec![7; 300_000]).unwrap();
        fs::hard_link(vault.at("tree/large"), vault.at("tree/linked")).unwrap();
        symlink("../empty", vault.at("tree/a-name-of-some-length").join("inside")).ok();
        symlink("empty", vault.at("tree/link")).unwrap();
        symlink("/etc/passwd", vault.at("tree/outside")).unwrap();
        fs::create_dir(vault.at("tree/closed")).unwrap();
        fs::write(vault.at("tree/closed/in"), "in").unwrap();
        for (name, mode) in [("tree/closed", 0o500), ("tree/closed/in", 0o400), ("tree/empty", 0o755)] {
            fs::set_permissions(vault.at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for (name, seconds, nanoseconds) in [("tree/empty", -5, 250_000_000), ("tree/link", 5, 999_999_999)] {
            let times = times((seconds, nanoseconds));
            rustix::fs::utimensat(rustix::fs::CWD, vault.at(name), &times, AtFlags::SYMLINK_NOFOLLOW)
                .unwrap();
        }
        let far = Timespec { tv_sec: i64::MIN, tv_nsec: 5 };
        let far = Timestamps { last_access: far, last_modification: far };
        // Whatever becomes of so odd a time, the rest is to come back.
        let _ = rustix::fs::utimensat(rustix::fs::CWD, vault.at("tree/large"), &far, AtFlags::empty());
        let Packed { into: bytes, torn, unreadable, .. } = vault.seal();
        assert_eq!((torn.len(), unreadable.len()), (0, 0));
        let extracted = vault.extract(&bytes).unwrap();
        let wanted = vault.tree("tree");
        assert_eq!((extracted.bytes, extracted.entries), (wanted.bytes(), wanted.entries.len() as u64));
        assert_eq!(kept(vault.tree("out")), kept(wanted));
        assert_eq!(fs::read(vault.at("out/linked")).unwrap(), vec![7; 300_000]);
        assert_eq!(
            fs::read(vault.at(OsStr::from_bytes(&[b"out", &odd.as_bytes()[4..]].concat()))).unwrap(),
            b"odd"
        );
    }

    #[test]
    fn holes_stay_holes() {
        let vault = Vault::new();
        let file = |name: &str, size: u64, parts: &[(u64, usize)]| {
            let file = File::create(vault.at("tree").join(name)).unwrap();
            parts.iter().for_each(|(at, length)| file.write_all_at(&vec![7; *length], *at).unwrap());
            file.set_len(size).unwrap();
        };
        file("hole", 1 << 30, &[]);
        file("amid", 64 << 20, &[(5_000_001, 10_000), (50_000_000, 1)]);
        file("ends", 20_000_003, &[(0, 1), (20_000_002, 1)]);
        file("page", 4096, &[]);
        file("odd", 4097, &[]);
        fs::write(vault.at("tree/zeros"), vec![0; 300_000]).unwrap();
        let tree = vault.tree("tree");
        vault.extract(&vault.seal().into).unwrap();
        assert_eq!(kept(vault.tree("out")), kept(tree));
        for name in ["amid", "ends", "page", "odd", "zeros"] {
            let [before, after] = ["tree", "out"].map(|tree| fs::read(vault.at(tree).join(name)).unwrap());
            assert!(before == after, "{name}");
        }
        for name in ["hole", "amid", "ends", "page", "odd", "zeros"] {
            let [before, after] = ["tree", "out"].map(|tree| vault.at(tree).join(name).metadata().unwrap());
            assert!(after.blocks() <= before.blocks(), "{name}: {} {}", before.blocks(), after.blocks());
        }
        assert_eq!(vault.at("out/zeros").metadata().unwrap().blocks(), 0);
    }

    #[test]
    fn what_has_no_name_is_left_out() {
        let vault = Vault::new();
        let name = "n".repeat(255);
        let mut above = rustix::fs::open(vault.at("tree"), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..17 {
            rustix::fs::symlinkat("x", &above, "link").unwrap();
            rustix::fs::mkdirat(&above, &name, Mode::RWXU).unwrap();
            above = rustix::fs::openat(&above, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let tree = vault.tree("tree");
        let longest = tree.entries.iter().map(|entry| entry.path.as_os_str().len()).max();
        assert_eq!(longest, Some(LONGEST_PATH));
        let mut lost: Vec<_> = tree.skipped.iter().map(|skipped| skipped.path.as_os_str().len()).collect();
        lost.sort_unstable();
        assert_eq!(lost, [LONGEST_PATH + 5, LONGEST_PATH + 256]);
        assert!(tree.skipped.iter().all(|skipped| skipped.lost), "{:?}", tree.skipped);
        vault.extract(&vault.seal().into).unwrap();
        assert_eq!(kept(vault.tree("out")), kept(tree));
    }

    #[test]
    fn nothing_that_is_cut_or_changed_comes_out() {
        let vault = Vault::new();
        let noise: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        fs::write(vault.at("tree/noise"), noise).unwrap();
        let bytes = vault.seal().into;
        // At the ends of age's chunks above all: whole chunks come before the error.
        let chunks = (0..).map(|n| 200 + n * (64 * 1024 + 16)).take_while(|cut| *cut < bytes.len());
        for cut in chunks.chain([0, 10, bytes.len() / 2, bytes.len() - 1]) {
            assert_eq!(vault.extract(&bytes[..cut]).unwrap_err().kind(), Kind::Integrity, "{cut}");
        }
        for index in (0..bytes.len()).step_by(1009) {
            let mut changed = bytes.clone();
            changed[index] ^= 0x10;
            assert_eq!(vault.extract(&changed).unwrap_err().kind(), Kind::Integrity, "{index}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(vault.extract(&longer).unwrap_err().kind(), Kind::Integrity);
        let stranger = Vault::new();
        let error = stranger.extract(&bytes).unwrap_err();
        assert!(error.to_string().contains("sealed to another identity"), "{error}");
    }

    #[test]
    fn archives_that_tazpod_never_makes() {
        let vault = Vault::new();
        let packed = |build: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
            let mut archive = tar::Builder::new(Vec::new());
            build(&mut archive);
            zstd::encode_all(&archive.into_inner().unwrap()[..], 1).unwrap()
        };
        let entry = |kind: EntryType, path: &'static str, link: &'static str, data: &'static [u8]| {
            packed(&|archive| {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_mode(0o644);
                header.set_mtime(1);
                header.set_size(data.len() as u64);
                // By hand: the library writes no such paths.
                header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
                header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
                header.set_cksum();
                archive.append(&header, data).unwrap();
            })
        };
        let regular = EntryType::Regular;
        for (bytes, says) in [
            (entry(regular, "../x", "", b"x"), "`../x` leads elsewhere"),
            (entry(regular, "/x", "", b"x"), "`/x` leads elsewhere"),
            (entry(regular, "a/../x", "", b"x"), "`a/../x` leads elsewhere"),
            (entry(regular, "", "", b"x"), "leads elsewhere"),
            (entry(regular, "a/x", "", b"x"), "`a/x` lies in no directory"),
            (entry(EntryType::Symlink, "x", "/etc", b""), "is a link to outside"),
            (entry(EntryType::Symlink, "x", "../y", b""), "is a link to outside"),
            (entry(EntryType::Symlink, "x", "", b""), "is a link to outside"),
            (entry(EntryType::Link, "x", "y", b""), "is neither file"),
            (entry(EntryType::Char, "x", "", b""), "is neither file"),
            (entry(EntryType::Block, "x", "", b""), "is neither file"),
            (entry(EntryType::Fifo, "x", "", b""), "is neither file"),
            (entry(EntryType::GNUSparse, "x", "", b""), ""),
        ] {
            let error = vault.extract_plain(&bytes[..], Limits::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        let twice = packed(&|archive| {
            for _ in 0..2 {
                let mut header = tar::Header::new_gnu();
                header.set_size(1);
                header.set_mode(0o600);
                header.set_mtime(1);
                archive.append_data(&mut header, "x", &b"x"[..]).unwrap();
            }
        });
        let error = vault.extract_plain(&twice[..], Limits::default()).unwrap_err();
        assert!(error.to_string().contains("`x` is in the generation twice"), "{error}");
        let through = packed(&|archive| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            header.set_mtime(1);
            archive.append_link(&mut header, "d", ".").unwrap();
            header.set_entry_type(EntryType::Regular);
            header.set_size(1);
            archive.append_data(&mut header, "d/x", &b"x"[..]).unwrap();
        });
        let error = vault.extract_plain(&through[..], Limits::default()).unwrap_err();
        assert!(error.to_string().contains("`d/x` lies in no directory"), "{error}");
        let trailing = zstd::encode_all(&[&[0; 1024][..], b"x"].concat()[..], 1).unwrap();
        assert!(vault.extract_plain(&trailing[..], Limits::default()).is_err());
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let vault = Vault::new();
        fs::write(vault.at("tree/zeros"), vec![0; 1 << 20]).unwrap();
        for number in 0..20 {
            fs::write(vault.at(format!("tree/{number}")), "").unwrap();
        }
        let bytes = vault.seal().into;
        assert!(bytes.len() < 10_000, "{}", bytes.len());
        for (limits, says) in [
            (Limits { bytes: (1 << 20) - 1, entries: 100 }, "more than 1048575 bytes"),
            (Limits { bytes: 1 << 30, entries: 20 }, "more than 20 entries"),
        ] {
            let error = vault.extract_plain(vault.identity.open(&bytes[..]).unwrap(), limits).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    /// What stands between files is held in memory.
    #[test]
    fn a_bomb_between_files_does_not_go_off() {
        let vault = Vault::new();
        let kinds = [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader];
        for kind in kinds.into_iter().chain([EntryType::XGlobalHeader, EntryType::Directory]) {
            let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_path("x").unwrap();
            header.set_mode(0o700);
            header.set_mtime(1);
            header.set_size(256 << 20);
            header.set_cksum();
            archive.append(&header, io::repeat(b'x').take(256 << 20)).unwrap();
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            header.set_cksum();
            archive.append(&header, io::empty()).unwrap();
            let bytes = archive.into_inner().unwrap().finish().unwrap();
            let error = vault.extract_plain(&bytes[..], Limits::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity, "{error}");
            let refused = if kind == EntryType::XGlobalHeader { "is neither" } else { "is too long" };
            assert!(error.to_string().contains(refused), "{kind:?}: {error}");
        }
    }

    #[test]
    fn files_that_change_meanwhile_are_told() {
        let vault = Vault::new();
        for name in ["shrinks", "stays", "vanishes"] {
            fs::write(vault.at("tree").join(name), "some text").unwrap();
        }
        let root = Root::open(&vault.at("tree")).unwrap();
        let tree = Tree::scan(&root).unwrap();
        fs::write(vault.at("tree/shrinks"), "some").unwrap();
        fs::remove_file(vault.at("tree/vanishes")).unwrap();
        let Packed { into: bytes, torn, .. } =
            seal(&root, &tree, &vault.identity.recipient(), Vec::new()).unwrap();
        assert_eq!(torn, [PathBuf::from("shrinks"), PathBuf::from("vanishes")]);
        vault.extract(&bytes).unwrap();
        assert_eq!(fs::read(vault.at("out/shrinks")).unwrap(), b"some\0\0\0\0\0");
        assert_eq!(fs::read(vault.at("out/stays")).unwrap(), b"some text");
    }

    #[test]
    fn times_as_pax_writes_them() {
        for (time, text) in
            [((5, 1), "5.000000001"), ((-2, 250_000_000), "-1.750000000"), ((0, 0), "0.000000000")]
        {
            assert_eq!(decimal(time.0, time.1), text);
            assert_eq!(parse_decimal(text), Some(time));
        }
        assert_eq!(parse_decimal("-1.75"), Some((-2, 250_000_000)));
        assert_eq!(parse_decimal("-3"), Some((-3, 0)));
        assert_eq!(parse_decimal("7"), Some((7, 0)));
        assert_eq!(parse_decimal("7.5x"), None);
        assert_eq!(parse_decimal(""), None);
        assert_eq!(parse_decimal("--9223372036854775808"), None);
    }
}
