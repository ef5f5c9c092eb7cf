//! The server as clients see it: by russh-sftp's client, and by bytes where that one cannot say it.

use std::fs as std_fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as ClientError;
use russh_sftp::client::rawsession::SftpResult;
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tempfile::TempDir;
use tokio::io::DuplexStream;

use super::wire::put_string;
use super::*;

/// A server over a stream that holds no more than a few packets.
fn start(home: &TempDir) -> (DuplexStream, JoinHandle<Result<()>>) {
    let (ours, theirs) = tokio::io::duplex(4096);
    (ours, tokio::spawn(serve(theirs, home.path().to_path_buf())))
}

async fn greeted(home: &TempDir) -> RawSftpSession {
    let client = RawSftpSession::new(start(home).0);
    client.init().await.unwrap();
    client
}

fn refusal<T>(result: SftpResult<T>) -> StatusCode {
    match result {
        Err(ClientError::Status(status)) => status.status_code,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    }
}

const NONE: FileAttributes = FileAttributes {
    size: None,
    uid: None,
    user: None,
    gid: None,
    group: None,
    permissions: None,
    atime: None,
    mtime: None,
};

/// What of `home` this process has open.
fn open_in(home: &TempDir) -> usize {
    let links = std_fs::read_dir("/proc/self/fd").unwrap();
    let targets = links.filter_map(|link| std_fs::read_link(link.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(home.path())).count()
}

/// A client that sends what it likes.
struct Raw(DuplexStream);

impl Raw {
    async fn greeted(home: &TempDir) -> (Raw, JoinHandle<Result<()>>) {
        let (stream, server) = start(home);
        let mut raw = Raw(stream);
        assert_eq!(raw.ask(kind::INIT, 3, &[]).await.0, kind::VERSION);
        (raw, server)
    }

    async fn send(&mut self, kind: u8, id: u32, body: &[u8]) {
        self.0.write_u32(body.len() as u32 + 5).await.unwrap();
        self.0.write_u8(kind).await.unwrap();
        self.0.write_u32(id).await.unwrap();
        self.0.write_all(body).await.unwrap();
    }

    async fn receive(&mut self) -> (u8, u32, Vec<u8>) {
        let length = self.0.read_u32().await.unwrap();
        let (kind, id) = (self.0.read_u8().await.unwrap(), self.0.read_u32().await.unwrap());
        let mut body = vec![0; length as usize - 5];
        self.0.read_exact(&mut body).await.unwrap();
        (kind, id, body)
    }

    async fn ask(&mut self, kind: u8, id: u32, body: &[u8]) -> (u8, u32, Vec<u8>) {
        self.send(kind, id, body).await;
        self.receive().await
    }

    /// The code of the status that a request is answered with.
    async fn status(&mut self, kind: u8, id: u32, body: &[u8]) -> u32 {
        let (answer, of, status) = self.ask(kind, id, body).await;
        assert_eq!((answer, of), (kind::STATUS, id));
        u32::from_be_bytes(*status.first_chunk().unwrap())
    }
}

fn strings<const N: usize>(strings: [&[u8]; N]) -> Vec<u8> {
    let mut body = Vec::new();
    strings.iter().for_each(|string| put_string(&mut body, string));
    body
}

#[tokio::test]
async fn files_are_written_and_read_at_offsets() {
    let home = TempDir::new().unwrap();
    let client = greeted(&home).await;
    let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
    let attributes = FileAttributes { permissions: Some(0o600), ..NONE };
    let file = client.open("file", flags, attributes).await.unwrap().handle;
    client.write(&file, 6, b"world".to_vec()).await.unwrap();
    client.write(&file, 0, b"hello ".to_vec()).await.unwrap();
    assert_eq!(client.read(&file, 3, 5).await.unwrap().data, b"lo wo");
    assert_eq!(client.read(&file, 9, 1000).await.unwrap().data, b"ld");
    assert_eq!(refusal(client.read(&file, 11, 1000).await), StatusCode::Eof);
    client.fsync(&file).await.unwrap();
    client.close(&file).await.unwrap();
    assert_eq!(refusal(client.read(&file, 0, 1).await), StatusCode::Failure);
    assert_eq!(std_fs::read(home.path().join("file")).unwrap(), b"hello world");
    let mode = std_fs::metadata(home.path().join("file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(refusal(client.open("file", flags, NONE).await), StatusCode::Failure);
}

#[tokio::test]
async fn files_are_appended_to_and_truncated() {
    let home = TempDir::new().unwrap();
    std_fs::write(home.path().join("file"), "one").unwrap();
    let client = greeted(&home).await;
    let append = client.open("file", OpenFlags::WRITE | OpenFlags::APPEND, NONE).await.unwrap().handle;
    client.write(&append, 0, b" two".to_vec()).await.unwrap();
    assert_eq!(std_fs::read(home.path().join("file")).unwrap(), b"one two");
    assert_eq!(refusal(client.read(&append, 0, 3).await), StatusCode::Failure);
    client.open("file", OpenFlags::WRITE | OpenFlags::TRUNCATE, NONE).await.unwrap();
    assert_eq!(std_fs::read(home.path().join("file")).unwrap(), b"");
}

#[tokio::test]
async fn a_read_is_no_longer_than_the_limit() {
    let home = TempDir::new().unwrap();
    std_fs::write(home.path().join("file"), vec![7; MAX_PACKET * 2]).unwrap();
    let client = greeted(&home).await;
    let limits = client.limits().await.unwrap();
    assert_eq!((limits.max_packet_len, limits.max_open_handles), (MAX_PACKET as u64, MAX_OPEN as u64));
    assert_eq!((limits.max_read_len, limits.max_write_len), (MAX_CONTENT as u64, MAX_CONTENT as u64));
    let file = client.open("file", OpenFlags::READ, NONE).await.unwrap().handle;
    assert_eq!(client.read(&file, 0, MAX_CONTENT as u32).await.unwrap().data.len(), MAX_CONTENT);
    assert_eq!(client.read(&file, 0, u32::MAX).await.unwrap().data.len(), MAX_CONTENT);
}

#[tokio::test]
async fn attributes_tell_links_from_what_they_lead_to() {
    let home = TempDir::new().unwrap();
    std_fs::write(home.path().join("file"), "12345").unwrap();
    let client = greeted(&home).await;
    // The target goes first, as OpenSSH has it.
    client.symlink("file", "link").await.unwrap();
    assert_eq!(std_fs::read_link(home.path().join("link")).unwrap(), Path::new("file"));
    assert_eq!(client.readlink("link").await.unwrap().files[0].filename, "file");
    let metadata = std_fs::metadata(home.path().join("file")).unwrap();
    let attributes = client.stat("link").await.unwrap().attrs;
    assert_eq!(attributes.size, Some(5));
    assert_eq!(attributes.permissions, Some(metadata.mode()));
    assert_eq!((attributes.uid, attributes.gid), (Some(metadata.uid()), Some(metadata.gid())));
    assert_eq!(attributes.mtime, u32::try_from(metadata.mtime()).ok());
    assert_eq!(client.lstat("link").await.unwrap().attrs.permissions.unwrap() & 0o170_000, 0o120_000);
    let directory = client.opendir(".").await.unwrap().handle;
    assert_eq!(client.fstat(&directory).await.unwrap().attrs.permissions.unwrap() & 0o170_000, 0o040_000);
}

#[tokio::test]
async fn attributes_are_set() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("file");
    std_fs::write(&path, "12345").unwrap();
    std::os::unix::fs::symlink("file", home.path().join("link")).unwrap();
    let owner = std_fs::metadata(&path).unwrap();
    let client = greeted(&home).await;
    let attributes = FileAttributes {
        size: Some(2),
        uid: Some(owner.uid()),
        gid: Some(owner.gid()),
        permissions: Some(0o100_751),
        atime: Some(1_000_000_001),
        mtime: Some(1_000_000_002),
        ..NONE
    };
    client.setstat("link", attributes).await.unwrap();
    let metadata = std_fs::metadata(&path).unwrap();
    assert_eq!((metadata.len(), metadata.mode()), (2, 0o100_751));
    assert_eq!((metadata.atime(), metadata.mtime()), (1_000_000_001, 1_000_000_002));
    let file = client.open("file", OpenFlags::WRITE, NONE).await.unwrap().handle;
    client.fsetstat(&file, FileAttributes { permissions: Some(0o640), ..NONE }).await.unwrap();
    assert_eq!(std_fs::metadata(&path).unwrap().mode(), 0o100_640);
}

#[tokio::test]
async fn a_link_has_times_of_its_own_but_no_mode() {
    let home = TempDir::new().unwrap();
    std_fs::write(home.path().join("file"), "").unwrap();
    std::os::unix::fs::symlink("file", home.path().join("link")).unwrap();
    let (mut raw, _server) = Raw::greeted(&home).await;
    let mut body = strings([b"lsetstat@openssh.com", b"link"]);
    for field in [8, 1_000_000_001, 1_000_000_002] {
        body.put_u32(field);
    }
    assert_eq!(raw.status(kind::EXTENDED, 1, &body).await, Code::Ok as u32);
    let link = std_fs::symlink_metadata(home.path().join("link")).unwrap();
    assert_eq!(link.mtime(), 1_000_000_002);
    assert_ne!(std_fs::metadata(home.path().join("file")).unwrap().mtime(), 1_000_000_002);
    let mut body = strings([b"lsetstat@openssh.com", b"link"]);
    body.put_u32(4);
    body.put_u32(0o600);
    assert_eq!(raw.status(kind::EXTENDED, 2, &body).await, Code::Unsupported as u32);
}

#[tokio::test]
async fn directories_are_made_listed_and_removed() {
    let home = TempDir::new().unwrap();
    let client = greeted(&home).await;
    client.mkdir("dir", FileAttributes { permissions: Some(0o700), ..NONE }).await.unwrap();
    assert_eq!(std_fs::metadata(home.path().join("dir")).unwrap().mode(), 0o040_700);
    assert_eq!(refusal(client.mkdir("dir", NONE).await), StatusCode::Failure);
    for number in 0..250 {
        std_fs::write(home.path().join(format!("dir/ü {number}")), "x").unwrap();
    }
    let handle = client.opendir("dir").await.unwrap().handle;
    let mut names = Vec::new();
    let end = loop {
        match client.readdir(&handle).await {
            Ok(batch) => {
                assert!(batch.files.len() <= MAX_ENTRIES);
                names.extend(batch.files);
            }
            end => break refusal(end),
        }
    };
    assert_eq!((end, names.len()), (StatusCode::Eof, 252));
    let file = names.iter().find(|file| file.filename == "ü 7").unwrap();
    assert_eq!(file.attrs.size, Some(1));
    assert!(file.longname.starts_with("-rw") && file.longname.ends_with(" ü 7"), "{}", file.longname);
    assert!(names.iter().any(|file| file.filename == ".."));
    assert_eq!(refusal(client.rmdir("dir").await), StatusCode::Failure);
    std_fs::remove_dir_all(home.path().join("dir")).unwrap();
    client.mkdir("dir", NONE).await.unwrap();
    client.rmdir("dir").await.unwrap();
    assert_eq!(refusal(client.opendir("dir").await), StatusCode::NoSuchFile);
}

#[tokio::test]
async fn renaming_replaces_only_the_posix_way() {
    let home = TempDir::new().unwrap();
    std_fs::write(home.path().join("old"), "old").unwrap();
    std_fs::write(home.path().join("new"), "new").unwrap();
    let client = greeted(&home).await;
    assert_eq!(refusal(client.rename("old", "new").await), StatusCode::Failure);
    client.rename("old", "moved").await.unwrap();
    assert_eq!(refusal(client.rename("old", "other").await), StatusCode::NoSuchFile);
    let names = strings([b"moved", b"new"]);
    let Packet::Status(status) = client.extended("posix-rename@openssh.com", names).await.unwrap() else {
        panic!("no status");
    };
    assert_eq!(status.status_code, StatusCode::Ok);
    assert_eq!(std_fs::read(home.path().join("new")).unwrap(), b"old");
    client.hardlink("new", "linked").await.unwrap();
    assert_eq!(std_fs::metadata(home.path().join("new")).unwrap().nlink(), 2);
    client.remove("new").await.unwrap();
    assert_eq!(refusal(client.remove("new").await), StatusCode::NoSuchFile);
    assert_eq!(std_fs::read(home.path().join("linked")).unwrap(), b"old");
}

#[tokio::test]
async fn real_paths_start_at_home_and_may_end_in_what_is_to_be() {
    let home = TempDir::new().unwrap();
    let root = home.path().canonicalize().unwrap();
    std_fs::create_dir(root.join("dir")).unwrap();
    std::os::unix::fs::symlink("dir", root.join("link")).unwrap();
    let client = greeted(&home).await;
    for (path, expected) in
        [(".", ""), ("", ""), ("dir/..", ""), ("link/new", "dir/new"), ("/../..", "/"), ("new/", "new")]
    {
        let names = client.realpath(path).await.unwrap().files;
        // Joining with nothing would leave a slash.
        let expected: PathBuf = root.join(expected).components().collect();
        assert_eq!(Path::new(&names[0].filename), expected, "{path}");
    }
    assert_eq!(refusal(client.realpath("nowhere/new").await), StatusCode::NoSuchFile);
    assert_eq!(refusal(client.stat("").await), StatusCode::NoSuchFile);
}

#[tokio::test]
async fn the_file_system_is_described() {
    let home = TempDir::new().unwrap();
    let client = greeted(&home).await;
    let described = client.statvfs(".").await.unwrap();
    let expected = fs::statvfs(home.path()).unwrap();
    assert_eq!((described.fragment_size, described.blocks), (expected.f_frsize, expected.f_blocks));
    assert_eq!(described.name_max, expected.f_namemax);
}

#[tokio::test]
async fn accounts_are_named_by_id() {
    let home = TempDir::new().unwrap();
    let (mut raw, _server) = Raw::greeted(&home).await;
    let body = strings([b"users-groups-by-id@openssh.com", &[0, 0, 0, 0, 255, 255, 255, 254], &[]]);
    let (kind, _, names) = raw.ask(kind::EXTENDED, 1, &body).await;
    assert_eq!(kind, kind::EXTENDED_REPLY);
    assert_eq!(names, strings([&strings([b"root", b""]), b""]));
}

#[tokio::test]
async fn opening_a_pipe_does_not_wait_for_its_other_end() {
    let home = TempDir::new().unwrap();
    fs::mknodat(CWD, home.path().join("pipe"), fs::FileType::Fifo, permissions(0o600), 0).unwrap();
    let client = greeted(&home).await;
    let pipe = client.open("pipe", OpenFlags::READ, NONE).await.unwrap().handle;
    assert_eq!(refusal(client.read(&pipe, 0, 1).await), StatusCode::Failure);
}

#[tokio::test]
async fn names_need_not_be_utf8() {
    let home = TempDir::new().unwrap();
    let (mut raw, _server) = Raw::greeted(&home).await;
    let name = b"caf\xe9";
    let mut body = strings([name]);
    body.put_u32(0);
    assert_eq!(raw.status(kind::MKDIR, 1, &body).await, Code::Ok as u32);
    assert!(home.path().join(OsStr::from_bytes(name)).is_dir());
    let (kind, _, real) = raw.ask(kind::REALPATH, 2, &strings([name])).await;
    assert_eq!(kind, kind::NAME);
    assert!(real.windows(name.len()).any(|window| window == name));
    assert_eq!(raw.status(kind::RMDIR, 3, &strings([b"caf\xef\xbf\xbd"])).await, Code::NoSuchFile as u32);
    assert_eq!(raw.status(kind::RMDIR, 4, &strings([name])).await, Code::Ok as u32);
}

#[tokio::test]
async fn nonsense_is_answered_with_its_number() {
    let home = TempDir::new().unwrap();
    let (mut raw, server) = Raw::greeted(&home).await;
    assert_eq!(raw.status(99, 11, &[]).await, Code::Unsupported as u32);
    assert_eq!(raw.status(kind::EXTENDED, 12, &strings([b"x@y"])).await, Code::Unsupported as u32);
    assert_eq!(raw.status(kind::STAT, 13, &[0, 0, 0, 200, b'x']).await, Code::BadMessage as u32);
    assert_eq!(raw.status(kind::OPEN, 14, &strings([b"x"])).await, Code::BadMessage as u32);
    assert_eq!(raw.status(kind::REMOVE, 15, &strings([b"x\0y"])).await, Code::Failure as u32);
    assert_eq!(raw.status(kind::CLOSE, 16, &strings([b"\xff"])).await, Code::Failure as u32);
    drop(raw);
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_speak_the_protocol_is_left() {
    let home = TempDir::new().unwrap();
    let (mut stream, server) = start(&home);
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert!(server.await.unwrap().unwrap_err().to_string().contains("1195725856 bytes"));

    let (stream, server) = start(&home);
    Raw(stream).send(kind::STAT, 1, &strings([b"."])).await;
    assert!(server.await.unwrap().unwrap_err().to_string().contains("greeting"));

    let (mut raw, server) = Raw::greeted(&home).await;
    raw.send(kind::INIT, 3, &[]).await;
    assert!(server.await.unwrap().unwrap_err().to_string().contains("greeting"));

    let (mut raw, server) = Raw::greeted(&home).await;
    raw.0.write_all(&[0, 0, 0, 2, 1, 1]).await.unwrap();
    assert!(server.await.unwrap().unwrap_err().to_string().contains("no request"));

    let (mut raw, server) = Raw::greeted(&home).await;
    raw.0.write_all(&[0, 0, 0, 9, 1, 1]).await.unwrap();
    drop(raw);
    assert!(server.await.unwrap().unwrap_err().to_string().contains("in the middle"));
}

#[tokio::test]
async fn so_many_files_may_be_open_and_all_are_closed_in_the_end() {
    let home = TempDir::new().unwrap();
    std_fs::write(home.path().join("file"), "x").unwrap();
    let (stream, server) = start(&home);
    let client = RawSftpSession::new(stream);
    client.init().await.unwrap();
    let mut handles = Vec::new();
    for _ in 0..MAX_OPEN - 1 {
        handles.push(client.open("file", OpenFlags::READ, NONE).await.unwrap().handle);
    }
    handles.push(client.opendir(".").await.unwrap().handle);
    assert_eq!(open_in(&home), MAX_OPEN);
    assert_eq!(refusal(client.opendir(".").await), StatusCode::Failure);
    let create = OpenFlags::WRITE | OpenFlags::CREATE;
    assert_eq!(refusal(client.open("new", create, NONE).await), StatusCode::Failure);
    assert!(!home.path().join("new").exists());
    client.close(&handles[0]).await.unwrap();
    let another = client.open("new", create, NONE).await.unwrap().handle;
    assert!(!handles.contains(&another));
    drop(client);
    server.await.unwrap().unwrap();
    assert_eq!(open_in(&home), 0);
}

#[tokio::test]
async fn a_client_may_ask_for_much_before_it_takes_any() {
    let home = TempDir::new().unwrap();
    std_fs::write(home.path().join("file"), vec![7; MAX_CONTENT]).unwrap();
    let (mut raw, server) = Raw::greeted(&home).await;
    let mut body = strings([b"file"]);
    body.put_u32(pflag::READ);
    body.put_u32(0);
    let (_, _, handle) = raw.ask(kind::OPEN, 0, &body).await;
    let mut read = handle;
    read.put_u64(0);
    read.put_u32(MAX_CONTENT as u32);
    for id in 0..1000 {
        raw.send(kind::READ, id, &read).await;
    }
    for id in 0..1000 {
        let (kind, of, content) = raw.receive().await;
        assert_eq!((kind, of, content.len()), (kind::DATA, id, MAX_CONTENT + 4));
    }
    assert!(!server.is_finished());
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_left_before_it_fills_the_memory() {
    let home = TempDir::new().unwrap();
    std_fs::write(home.path().join("file"), vec![7; MAX_CONTENT]).unwrap();
    let (mut raw, server) = Raw::greeted(&home).await;
    let mut body = strings([b"file"]);
    body.put_u32(pflag::READ);
    body.put_u32(0);
    let (_, _, handle) = raw.ask(kind::OPEN, 0, &body).await;
    let mut read = handle.clone();
    read.put_u64(0);
    read.put_u32(MAX_CONTENT as u32);
    for id in 0..10 {
        raw.send(kind::READ, id, &read).await;
    }
    let mut packet = Vec::new();
    packet.put_u32(MAX_PACKET as u32);
    packet.resize(MAX_PACKET + 4, 0);
    let mut sent = 0;
    while raw.0.write_all(&packet).await.is_ok() {
        sent += packet.len();
        assert!(sent < MAX_READ_AHEAD * 2);
    }
    assert!(server.await.unwrap().unwrap_err().to_string().contains("does not take its replies"));
    assert_eq!(open_in(&home), 0);
}
