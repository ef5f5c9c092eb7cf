//! SFTP version 3 on the wire: requests taken apart, replies put together.

use bytes::BufMut;
use rustix::fs::{Stat, StatVfs, StatVfsMountFlags};
use rustix::io::Errno;

/// Longest packet taken or sent, its length field apart: what OpenSSH allows.
pub const MAX_PACKET: usize = 256 * 1024;

/// Most file content in one packet: what is left when the longest header is on.
pub const MAX_CONTENT: usize = MAX_PACKET - 1024;

/// The one version spoken.
pub const VERSION: u32 = 3;

/// The types of packets.
pub mod kind {
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSTAT: u8 = 8;
    pub const SETSTAT: u8 = 9;
    pub const FSETSTAT: u8 = 10;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const RMDIR: u8 = 15;
    pub const REALPATH: u8 = 16;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const READLINK: u8 = 19;
    pub const SYMLINK: u8 = 20;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 200;
    pub const EXTENDED_REPLY: u8 = 201;
}

/// How a file is to be opened.
pub mod pflag {
    pub const READ: u32 = 0x01;
    pub const WRITE: u32 = 0x02;
    pub const APPEND: u32 = 0x04;
    pub const CREATE: u32 = 0x08;
    pub const TRUNCATE: u32 = 0x10;
    pub const EXCLUSIVE: u32 = 0x20;
}

/// Which attributes are present.
mod present {
    pub const SIZE: u32 = 0x01;
    pub const OWNER: u32 = 0x02;
    pub const MODE: u32 = 0x04;
    pub const TIMES: u32 = 0x08;
}

/// The codes of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// Why a request was not carried out.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    fn malformed() -> Refusal {
        Refusal::new(Code::BadMessage, "malformed request")
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        let code = match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Code::NoSuchFile,
            Errno::ACCESS | Errno::PERM => Code::PermissionDenied,
            Errno::NOSYS | Errno::OPNOTSUPP => Code::Unsupported,
            _ => Code::Failure,
        };
        Refusal::new(code, errno.to_string())
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Refusal::new(Code::Failure, error.to_string()),
        }
    }
}

/// Attributes that a client sends: what to set, or how to create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub size: Option<u64>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    /// Of access and of modification, in seconds.
    pub times: Option<(u32, u32)>,
}

/// The fields of a request, taken off its front one by one.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn new(packet: &'a [u8]) -> Fields<'a> {
        Fields(packet)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(Refusal::malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Refusal> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string: bytes, for the protocol does not say in what encoding.
    pub fn string(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(Refusal::malformed)?;
        self.0 = rest;
        Ok(head)
    }

    /// Attributes, always a request's last field: what extends them is left where it is.
    pub fn attributes(&mut self) -> Result<Attributes, Refusal> {
        let flags = self.u32()?;
        let mut attributes = Attributes::default();
        if flags & present::SIZE != 0 {
            attributes.size = Some(self.u64()?);
        }
        if flags & present::OWNER != 0 {
            attributes.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & present::MODE != 0 {
            attributes.mode = Some(self.u32()?);
        }
        if flags & present::TIMES != 0 {
            attributes.times = Some((self.u32()?, self.u32()?));
        }
        Ok(attributes)
    }
}

/// Adds a string to a packet.
pub fn put_string(packet: &mut Vec<u8>, string: &[u8]) {
    // No string comes near the range: packets are at most 256 KiB.
    packet.put_u32(string.len() as u32);
    packet.put_slice(string);
}

fn put_attributes(packet: &mut Vec<u8>, stat: &Stat) {
    packet.put_u32(present::SIZE | present::OWNER | present::MODE | present::TIMES);
    packet.put_u64(u64::try_from(stat.st_size).unwrap_or(0));
    packet.put_u32(stat.st_uid);
    packet.put_u32(stat.st_gid);
    packet.put_u32(stat.st_mode);
    // The protocol's clock is 32 bits wide.
    packet.put_u32(u32::try_from(stat.st_atime).unwrap_or(0));
    packet.put_u32(u32::try_from(stat.st_mtime).unwrap_or(0));
}

/// One entry of a name reply.
#[derive(Debug)]
pub struct Name {
    pub name: Vec<u8>,
    /// The line that `ls -l` would print.
    pub long: Vec<u8>,
    pub stat: Option<Stat>,
}

impl Name {
    /// A path and nothing else.
    pub fn bare(path: &[u8]) -> Name {
        Name { name: path.to_vec(), long: path.to_vec(), stat: None }
    }
}

/// The reply to one request, at the end of a buffer of replies.
#[derive(Debug)]
pub struct Reply<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    id: u32,
}

impl<'a> Reply<'a> {
    pub fn new(buffer: &'a mut Vec<u8>, id: u32) -> Reply<'a> {
        let start = buffer.len();
        Reply { buffer, start, id }
    }

    /// Whether nothing has been said.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == self.start
    }

    /// The packet of that type, in place of what has been said.
    fn packet<E>(
        &mut self,
        kind: u8,
        body: impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.buffer.truncate(self.start);
        self.buffer.put_u32(0);
        self.buffer.put_u8(kind);
        self.buffer.put_u32(self.id);
        let written = body(self.buffer);
        if written.is_err() {
            self.buffer.truncate(self.start);
        }
        let length = (self.buffer.len() - self.start).saturating_sub(4) as u32;
        if let Some(prefix) = self.buffer.get_mut(self.start..self.start + 4) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        written
    }

    fn sure_packet(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let Ok(()) = self.packet(kind, |packet| {
            body(packet);
            Ok::<(), std::convert::Infallible>(())
        });
    }

    pub fn version(buffer: &mut Vec<u8>, extensions: &[(&str, &str)]) {
        // The version stands where other replies have the request's number.
        Reply::new(buffer, VERSION).sure_packet(kind::VERSION, |packet| {
            for (name, version) in extensions {
                put_string(packet, name.as_bytes());
                put_string(packet, version.as_bytes());
            }
        });
    }

    pub fn status(&mut self, code: Code, message: &str) {
        self.sure_packet(kind::STATUS, |packet| {
            packet.put_u32(code as u32);
            put_string(packet, message.as_bytes());
            put_string(packet, b"en");
        });
    }

    pub fn handle(&mut self, handle: u32) {
        // In digits, because some clients hold handles to be text.
        self.sure_packet(kind::HANDLE, |packet| put_string(packet, handle.to_string().as_bytes()));
    }

    pub fn attributes(&mut self, stat: &Stat) {
        self.sure_packet(kind::ATTRS, |packet| put_attributes(packet, stat));
    }

    pub fn names(&mut self, names: &[Name]) {
        self.sure_packet(kind::NAME, |packet| {
            packet.put_u32(names.len() as u32);
            for name in names {
                put_string(packet, &name.name);
                put_string(packet, &name.long);
                match &name.stat {
                    Some(stat) => put_attributes(packet, stat),
                    None => packet.put_u32(0),
                }
            }
        });
    }

    /// Up to `length` bytes of content, which `read` puts straight into the reply.
    pub fn content(
        &mut self,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, Refusal>,
    ) -> Result<(), Refusal> {
        self.packet(kind::DATA, |packet| {
            let prefix = packet.len();
            packet.put_u32(0);
            let start = packet.len();
            packet.resize(start + length, 0);
            let count = read(packet.get_mut(start..).unwrap_or_default())?;
            packet.truncate(start + count);
            if let Some(prefix) = packet.get_mut(prefix..start) {
                prefix.copy_from_slice(&(count as u32).to_be_bytes());
            }
            Ok(())
        })
    }

    pub fn extended(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        self.sure_packet(kind::EXTENDED_REPLY, body);
    }

    pub fn file_system(&mut self, stat: &StatVfs) {
        const READ_ONLY: u64 = 1;
        const NO_SETUID: u64 = 2;
        let flags = [(StatVfsMountFlags::RDONLY, READ_ONLY), (StatVfsMountFlags::NOSUID, NO_SETUID)];
        let flags = flags.iter().filter(|(flag, _)| stat.f_flag.contains(*flag)).map(|(_, bit)| bit).sum();
        self.extended(|packet| {
            for field in [
                stat.f_bsize,
                stat.f_frsize,
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
                stat.f_favail,
                stat.f_fsid,
                flags,
                stat.f_namemax,
            ] {
                packet.put_u64(field);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_in_order_and_never_past_the_end() {
        let packet = [7, 0, 0, 0, 2, b'h', b'i', 0, 0, 0, 9, b'x'];
        let mut fields = Fields::new(&packet);
        assert_eq!(fields.u8(), Ok(7));
        assert_eq!(fields.string(), Ok(&b"hi"[..]));
        assert_eq!(fields.string(), Err(Refusal::malformed()));
    }

    #[test]
    fn attributes_hold_what_their_flags_say() {
        let mut packet = Vec::new();
        packet.put_u32(present::OWNER | present::TIMES | 0x8000_0000);
        for field in [1000, 100, 5, 6, 0] {
            packet.put_u32(field);
        }
        let expected = Attributes { owner: Some((1000, 100)), times: Some((5, 6)), ..Attributes::default() };
        assert_eq!(Fields::new(&packet).attributes(), Ok(expected));
    }

    #[test]
    fn a_refused_read_leaves_no_trace() {
        let mut buffer = b"before".to_vec();
        let mut reply = Reply::new(&mut buffer, 1);
        let refused = reply.content(100, |_| Err(Refusal::new(Code::Eof, "end of file")));
        assert!(refused.is_err() && reply.is_empty());
        assert_eq!(buffer, b"before");
    }

    #[test]
    fn content_is_as_long_as_what_was_read() {
        let mut buffer = Vec::new();
        let read = |space: &mut [u8]| {
            space[..2].copy_from_slice(b"ok");
            Ok(2)
        };
        Reply::new(&mut buffer, 0x0102_0304).content(100, read).unwrap();
        assert_eq!(buffer, [0, 0, 0, 11, kind::DATA, 1, 2, 3, 4, 0, 0, 0, 2, b'o', b'k']);
    }
}
