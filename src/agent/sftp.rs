//! The SFTP server: version 3 of the protocol with OpenSSH's extensions, over the real file system.
//!
//! Requests are answered strictly in order, off the runtime's thread, as many at a time as have arrived. Names are
//! bytes throughout. The client is the pod's own user and has a shell, so no path is out of bounds to it; what it
//! cannot do is hold more than a bounded amount of memory and files.
//!
//! The server half of russh-sftp is not used. It makes text of names, so that one that is not UTF-8 reaches another
//! file; it goes on after a stream has failed, which never ends and never yields; and it does not read while it
//! writes, which stops a connection of russh for good.

mod listing;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustix::fs::{self, AtFlags, CWD, Dir, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Context, Error, Kind, Result};
use listing::Accounts;
use wire::{Attributes, Code, Fields, MAX_CONTENT, MAX_PACKET, Name, Refusal, Reply, kind, pflag};

/// Most files and directories open at a time.
const MAX_OPEN: usize = 256;

/// Most entries in one reply to a listing, as in OpenSSH.
const MAX_ENTRIES: usize = 100;

/// Once so much is ready to be sent, requests wait until it has been.
const MAX_REPLIES: usize = 512 * 1024;

/// About how many bytes of requests are answered at a time; a packet must fit.
const BATCH: usize = 1024 * 1024;

/// How far requests are read ahead: twice what OpenSSH has under way at most.
const MAX_READ_AHEAD: usize = 32 * 1024 * 1024;

/// What is read off the stream at a time.
const CHUNK: usize = 64 * 1024;

/// The extensions offered, with their versions.
const EXTENSIONS: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("users-groups-by-id@openssh.com", "1"),
];

/// Serves one client until it closes the stream; relative paths start at `home`.
///
/// An error is the stream's, or a client's that does not speak the protocol; failed requests are the client's to
/// report. Whatever was open is closed in either case.
///
/// The stream is read whatever else is going on. A connection of russh stands still, with all of its channels, while
/// one of them is not read: for as long as a slow disk takes if that is waited for, for good if a write is.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    home: PathBuf,
) -> Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut backlog, mut output) = (Backlog::default(), BytesMut::new());
    let (mut reading, mut sending) = (true, false);
    let mut idle = Some(Session::new(home));
    let mut busy = None;
    let result = loop {
        if output.len() < MAX_REPLIES
            && let Some(mut session) = idle.take()
        {
            match session.accept(&mut backlog) {
                Ok(true) => busy = Some(spawn_blocking(move || session.answer_all())),
                Ok(false) => idle = Some(session),
                Err(error) => break Err(error),
            }
        }
        if idle.is_some() && backlog.len() >= MAX_READ_AHEAD {
            break Err(Error::new(Kind::Failure, "the SFTP client does not take its replies"));
        }
        tokio::select! {
            read = backlog.receive(&mut reader), if reading && backlog.len() < MAX_READ_AHEAD => match read {
                Ok(more) => reading = more,
                Err(error) => break Err(error),
            },
            sent = send(&mut writer, &mut output), if sending => match sent {
                Ok(()) => sending = false,
                Err(error) => break Err(error),
            },
            answered = finish(&mut busy), if busy.is_some() => match answered {
                Ok((session, replies)) => {
                    (idle, busy) = (Some(session), None);
                    output.extend_from_slice(&replies);
                    sending = true;
                }
                Err(error) => break Err(error),
            },
            else => break match backlog.len() == 0 {
                true => Ok(()),
                false => Err(Error::new(Kind::Failure, "the SFTP client left in the middle of a request")),
            },
        }
    };
    // On some file systems, closing waits for the data to be written.
    let _ = spawn_blocking(move || drop(idle)).await;
    result
}

/// Sends all of `output`; what is left when dropped is sent by the next call.
async fn send(writer: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> Result<()> {
    let sent = async {
        while !output.is_empty() {
            if writer.write_buf(output).await? == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
        }
        writer.flush().await
    };
    sent.await.context(Kind::Failure, || "cannot write to the SFTP client")
}

/// Waits for the answers that are being made; does not finish if there are none.
async fn finish(busy: &mut Option<JoinHandle<Result<Answered>>>) -> Result<Answered> {
    match busy {
        Some(busy) => busy.await.context(Kind::Failure, || "the SFTP session broke off")?,
        None => std::future::pending().await,
    }
}

/// The session, for the next requests, and the replies to the last.
type Answered = (Session, Vec<u8>);

/// What has been read and is not being answered yet.
#[derive(Debug, Default)]
struct Backlog {
    /// Whole packets, about as many at a time as are answered at a time.
    batches: VecDeque<Bytes>,
    rest: BytesMut,
}

impl Backlog {
    fn len(&self) -> usize {
        self.batches.iter().map(Bytes::len).sum::<usize>() + self.rest.len()
    }

    /// Reads what has come; whether there may be more.
    async fn receive(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> Result<bool> {
        self.rest.reserve(CHUNK);
        let count = reader.read_buf(&mut self.rest).await;
        let count = count.context(Kind::Failure, || "cannot read from the SFTP client")?;
        // A buffer moves all that it holds when it grows, so it must not hold the whole backlog.
        if self.rest.len() >= BATCH {
            let batch = self.split()?;
            self.batches.push_back(batch);
        }
        Ok(count > 0)
    }

    /// The requests whose turn it is; none if no packet has come whole.
    fn next(&mut self) -> Result<Bytes> {
        match self.batches.pop_front() {
            Some(batch) => Ok(batch),
            None => self.split(),
        }
    }

    /// Takes the whole packets off the front.
    fn split(&mut self) -> Result<Bytes> {
        let mut whole = 0;
        while let Some(length) = next_packet(self.rest.get(whole..).unwrap_or_default())? {
            whole += size_of::<u32>() + length;
        }
        Ok(self.rest.split_to(whole).freeze())
    }
}

/// The length of the packet at the front of `input`, if all of it is there.
fn next_packet(input: &[u8]) -> Result<Option<usize>> {
    let Some((prefix, rest)) = input.split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > MAX_PACKET {
        return Err(Error::new(Kind::Failure, format!("the SFTP client sent a packet of {length} bytes")));
    }
    Ok((length <= rest.len()).then_some(length))
}

/// What a handle stands for.
#[derive(Debug)]
enum Opened {
    File(OwnedFd),
    Directory(Dir),
}

/// What attributes are to be set on.
#[derive(Clone, Copy, Debug)]
enum Target<'a> {
    /// What the path leads to.
    Path(&'a Path),
    /// What is at the path, be it a link.
    Link(&'a Path),
    Handle(BorrowedFd<'a>),
}

/// One client's session: all that it has open.
#[derive(Debug)]
struct Session {
    home: PathBuf,
    /// Whole packets, yet to be answered.
    requests: Bytes,
    greeted: bool,
    opened: HashMap<u32, Opened>,
    last_handle: u32,
    accounts: Option<Accounts>,
}

impl Session {
    fn new(home: PathBuf) -> Session {
        Session {
            home,
            requests: Bytes::new(),
            greeted: false,
            opened: HashMap::new(),
            last_handle: 0,
            accounts: None,
        }
    }

    /// Takes over the next requests if there are none left; whether there is something to answer.
    fn accept(&mut self, backlog: &mut Backlog) -> Result<bool> {
        if self.requests.is_empty() {
            self.requests = backlog.next()?;
        }
        Ok(!self.requests.is_empty())
    }

    /// Answers requests, all unless there get to be enough replies.
    fn answer_all(mut self) -> Result<Answered> {
        let mut replies = Vec::new();
        while replies.len() < MAX_REPLIES {
            let Some(length) = next_packet(&self.requests)? else { break };
            self.requests.advance(size_of::<u32>());
            let packet = self.requests.split_to(length);
            self.answer(&packet, &mut replies)?;
        }
        Ok((self, replies))
    }

    /// Answers one request; the error is that of a client which does not speak the protocol.
    fn answer(&mut self, packet: &[u8], replies: &mut Vec<u8>) -> Result<()> {
        let mut fields = Fields::new(packet);
        let (Ok(kind), Ok(id)) = (fields.u8(), fields.u32()) else {
            return Err(Error::new(Kind::Failure, "the SFTP client sent a packet that is no request"));
        };
        if (kind == kind::INIT) == self.greeted {
            return Err(Error::new(Kind::Failure, "the SFTP client did not begin with a greeting"));
        }
        if kind == kind::INIT {
            self.greeted = true;
            Reply::version(replies, &EXTENSIONS);
            return Ok(());
        }
        let mut reply = Reply::new(replies, id);
        match self.carry_out(kind, &mut fields, &mut reply) {
            Ok(()) if reply.is_empty() => reply.status(Code::Ok, "Success"),
            Ok(()) => {}
            Err(refusal) => reply.status(refusal.code, &refusal.message),
        }
        Ok(())
    }

    /// Carries out one request; if nothing is put in the reply, success is.
    fn carry_out(&mut self, kind: u8, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        match kind {
            kind::OPEN => self.open(fields, reply)?,
            kind::CLOSE => self.close(fields)?,
            kind::READ => self.read(fields, reply)?,
            kind::WRITE => self.write(fields)?,
            kind::LSTAT => reply.attributes(&fs::lstat(self.path(fields)?)?),
            kind::FSTAT => reply.attributes(&fs::fstat(self.descriptor(fields)?)?),
            kind::STAT => reply.attributes(&fs::stat(self.path(fields)?)?),
            kind::SETSTAT => set(Target::Path(&self.path(fields)?), fields.attributes()?)?,
            kind::FSETSTAT => set(Target::Handle(self.descriptor(fields)?), fields.attributes()?)?,
            kind::OPENDIR => self.open_directory(fields, reply)?,
            kind::READDIR => self.read_directory(fields, reply)?,
            kind::REMOVE => fs::unlink(self.path(fields)?)?,
            kind::MKDIR => {
                let path = self.path(fields)?;
                fs::mkdir(path, permissions(fields.attributes()?.mode.unwrap_or(0o777)))?;
            }
            kind::RMDIR => fs::rmdir(self.path(fields)?)?,
            kind::REALPATH => self.real_path(fields, reply)?,
            kind::RENAME => rename(&self.path(fields)?, &self.path(fields)?)?,
            kind::READLINK => {
                let target = fs::readlink(self.path(fields)?, Vec::new())?;
                reply.names(&[Name::bare(target.as_bytes())]);
            }
            kind::SYMLINK => {
                // In the draft the link comes first; in OpenSSH, and so in every client, its target does.
                let target = fields.string()?;
                fs::symlink(target, self.path(fields)?)?;
            }
            kind::EXTENDED => {
                let name = fields.string()?;
                self.extended(name, fields, reply)?;
            }
            _ => return Err(Refusal::new(Code::Unsupported, "unknown request")),
        }
        Ok(())
    }

    fn extended(
        &mut self,
        name: &[u8],
        fields: &mut Fields<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Refusal> {
        match name {
            b"posix-rename@openssh.com" => fs::rename(self.path(fields)?, self.path(fields)?)?,
            b"hardlink@openssh.com" => fs::link(self.path(fields)?, self.path(fields)?)?,
            b"fsync@openssh.com" => fs::fsync(self.descriptor(fields)?)?,
            b"statvfs@openssh.com" => reply.file_system(&fs::statvfs(self.path(fields)?)?),
            b"fstatvfs@openssh.com" => reply.file_system(&fs::fstatvfs(self.descriptor(fields)?)?),
            b"lsetstat@openssh.com" => set(Target::Link(&self.path(fields)?), fields.attributes()?)?,
            b"limits@openssh.com" => reply.extended(|packet| {
                for limit in [MAX_PACKET, MAX_CONTENT, MAX_CONTENT, MAX_OPEN] {
                    packet.put_u64(limit as u64);
                }
            }),
            b"users-groups-by-id@openssh.com" => self.name_accounts(fields, reply)?,
            _ => return Err(Refusal::new(Code::Unsupported, "unknown extension")),
        }
        Ok(())
    }

    /// Takes a path off the request; it stays bytes, whatever they are.
    fn path(&self, fields: &mut Fields<'_>) -> Result<PathBuf, Refusal> {
        match fields.string()? {
            // Joined, it would be the home.
            [] => Err(Errno::NOENT.into()),
            path => Ok(self.home.join(OsStr::from_bytes(path))),
        }
    }

    fn handle(fields: &mut Fields<'_>) -> Result<u32, Refusal> {
        let handle = std::str::from_utf8(fields.string()?).ok().and_then(|handle| handle.parse().ok());
        handle.ok_or_else(unknown_handle)
    }

    /// Takes a handle off the request, of whatever is open.
    fn descriptor(&self, fields: &mut Fields<'_>) -> Result<BorrowedFd<'_>, Refusal> {
        match self.opened.get(&Self::handle(fields)?) {
            Some(Opened::File(file)) => Ok(file.as_fd()),
            Some(Opened::Directory(directory)) => Ok(directory.fd()?),
            None => Err(unknown_handle()),
        }
    }

    /// Opens and gives out a handle, unless too much is open already.
    fn admit(
        &mut self,
        open: impl FnOnce() -> Result<Opened, Refusal>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Refusal> {
        if self.opened.len() >= MAX_OPEN {
            return Err(Refusal::new(Code::Failure, format!("more than {MAX_OPEN} files open")));
        }
        let opened = open()?;
        // Numbers are not used again soon, so a stale handle is an error rather than another file.
        let mut handle = self.last_handle.wrapping_add(1);
        while self.opened.contains_key(&handle) {
            handle = handle.wrapping_add(1);
        }
        self.last_handle = handle;
        self.opened.insert(handle, opened);
        reply.handle(handle);
        Ok(())
    }

    fn open(&mut self, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let path = self.path(fields)?;
        let flags = open_flags(fields.u32()?);
        let mode = permissions(fields.attributes()?.mode.unwrap_or(0o666));
        self.admit(|| Ok(Opened::File(fs::open(path, flags, mode)?)), reply)
    }

    fn open_directory(&mut self, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let path = self.path(fields)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.admit(|| Ok(Opened::Directory(Dir::new(fs::open(path, flags, Mode::empty())?)?)), reply)
    }

    fn close(&mut self, fields: &mut Fields<'_>) -> Result<(), Refusal> {
        self.opened.remove(&Self::handle(fields)?).map(drop).ok_or_else(unknown_handle)
    }

    fn read(&self, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let file = self.descriptor(fields)?;
        let offset = fields.u64()?;
        let length = MAX_CONTENT.min(fields.u32()? as usize);
        reply.content(length, |buffer| match rustix::io::pread(file, buffer, offset)? {
            0 => Err(end_of_file()),
            count => Ok(count),
        })
    }

    fn write(&self, fields: &mut Fields<'_>) -> Result<(), Refusal> {
        let file = self.descriptor(fields)?;
        let mut offset = fields.u64()?;
        let mut content = fields.string()?;
        while !content.is_empty() {
            let count = rustix::io::pwrite(file, content, offset)?;
            if count == 0 {
                return Err(Errno::IO.into());
            }
            content = content.get(count..).unwrap_or_default();
            offset = offset.saturating_add(count as u64);
        }
        Ok(())
    }

    fn read_directory(&mut self, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let handle = Self::handle(fields)?;
        let Some(Opened::Directory(directory)) = self.opened.get_mut(&handle) else {
            return Err(unknown_handle());
        };
        let accounts = self.accounts.get_or_insert_with(Accounts::read);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut names = Vec::new();
        let mut size = 0;
        while names.len() < MAX_ENTRIES && size < MAX_CONTENT / 2 {
            let Some(entry) = directory.read() else { break };
            let name = entry?.file_name().to_bytes().to_vec();
            // An entry may be gone since it was read.
            let Ok(stat) = fs::statat(directory.fd()?, &*name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let long = listing::line(&name, &stat, accounts, now);
            size += name.len() + long.len();
            names.push(Name { name, long, stat: Some(stat) });
        }
        if names.is_empty() {
            return Err(end_of_file());
        }
        reply.names(&names);
        Ok(())
    }

    fn real_path(&self, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let path = self.home.join(OsStr::from_bytes(fields.string()?));
        let real = match (path.canonicalize(), path.parent(), path.file_name()) {
            // A path that is about to be made has a place already.
            (Err(error), Some(parent), Some(name)) if error.kind() == std::io::ErrorKind::NotFound => {
                parent.canonicalize()?.join(name)
            }
            (real, _, _) => real?,
        };
        reply.names(&[Name::bare(real.as_os_str().as_bytes())]);
        Ok(())
    }

    fn name_accounts(&mut self, fields: &mut Fields<'_>, reply: &mut Reply<'_>) -> Result<(), Refusal> {
        let accounts = self.accounts.get_or_insert_with(Accounts::read);
        let mut list = |name: fn(&Accounts, u32) -> Option<&str>| -> Result<Vec<u8>, Refusal> {
            let mut ids = Fields::new(fields.string()?);
            let mut names = Vec::new();
            // A name is longer than its id: not all of them might fit.
            while !ids.is_empty() && names.len() < MAX_CONTENT / 2 {
                wire::put_string(&mut names, name(accounts, ids.u32()?).unwrap_or_default().as_bytes());
            }
            Ok(names)
        };
        let (users, groups) = (list(Accounts::user)?, list(Accounts::group)?);
        reply.extended(|packet| {
            wire::put_string(packet, &users);
            wire::put_string(packet, &groups);
        });
        Ok(())
    }
}

fn unknown_handle() -> Refusal {
    Refusal::new(Code::Failure, "no such handle")
}

fn end_of_file() -> Refusal {
    Refusal::new(Code::Eof, "end of file")
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

fn open_flags(pflags: u32) -> OFlags {
    // No waiting for the other end of a pipe, and no terminal for PID 1 to come under.
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= match (pflags & pflag::READ != 0, pflags & (pflag::WRITE | pflag::APPEND) != 0) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    for (pflag, flag) in [
        (pflag::APPEND, OFlags::APPEND),
        (pflag::CREATE, OFlags::CREATE),
        (pflag::TRUNCATE, OFlags::TRUNC),
        (pflag::EXCLUSIVE, OFlags::EXCL),
    ] {
        flags.set(flag, pflags & pflag != 0);
    }
    flags
}

/// Renames as version 3 has it: what is there already is not replaced.
fn rename(old: &Path, new: &Path) -> Result<(), Refusal> {
    match fs::renameat_with(CWD, old, CWD, new, RenameFlags::NOREPLACE) {
        // Not every file system can refuse by itself.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::lstat(new) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(_) => Ok(fs::rename(old, new)?),
        },
        result => Ok(result?),
    }
}

/// Sets what can be set, and reports the first thing that cannot.
fn set(target: Target<'_>, attributes: Attributes) -> Result<(), Refusal> {
    // A change of size changes the time, and a change of owner the mode.
    let outcomes = [
        attributes.size.map(|size| target.resize(size)),
        attributes.owner.map(|(user, group)| target.give_to(user, group)),
        attributes.mode.map(|mode| target.permit(permissions(mode))),
        attributes.times.map(|(access, modification)| target.date(access, modification)),
    ];
    Ok(outcomes.into_iter().flatten().collect::<Result<(), Errno>>()?)
}

impl Target<'_> {
    fn resize(self, size: u64) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self {
            Target::Path(path) => fs::ftruncate(fs::open(path, flags, Mode::empty())?, size),
            Target::Link(_) => Err(Errno::OPNOTSUPP),
            Target::Handle(handle) => fs::ftruncate(handle, size),
        }
    }

    fn give_to(self, user: u32, group: u32) -> Result<(), Errno> {
        // This id means no change.
        let user = (user != u32::MAX).then(|| Uid::from_raw(user));
        let group = (group != u32::MAX).then(|| Gid::from_raw(group));
        match self {
            Target::Path(path) => fs::chown(path, user, group),
            Target::Link(path) => fs::chownat(CWD, path, user, group, AtFlags::SYMLINK_NOFOLLOW),
            Target::Handle(handle) => fs::fchown(handle, user, group),
        }
    }

    fn permit(self, mode: Mode) -> Result<(), Errno> {
        match self {
            Target::Path(path) => fs::chmod(path, mode),
            Target::Link(path) if fs::FileType::from_raw_mode(fs::lstat(path)?.st_mode).is_symlink() => {
                // Links have no permissions on Linux.
                Err(Errno::OPNOTSUPP)
            }
            Target::Link(path) => fs::chmod(path, mode),
            Target::Handle(handle) => fs::fchmod(handle, mode),
        }
    }

    fn date(self, access: u32, modification: u32) -> Result<(), Errno> {
        let [last_access, last_modification] =
            [access, modification].map(|seconds| Timespec { tv_sec: seconds.into(), tv_nsec: 0 });
        let times = Timestamps { last_access, last_modification };
        match self {
            Target::Path(path) => fs::utimensat(CWD, path, &times, AtFlags::empty()),
            Target::Link(path) => fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW),
            Target::Handle(handle) => fs::futimens(handle, &times),
        }
    }
}
