//! The S3 servers, one of each for the whole run. `scripts/setup.sh` installs them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
use tazpod::adapters::store::Keys;

const READY: Duration = Duration::from_secs(90);

/// The key that all of them accept.
pub fn keys() -> Keys {
    Keys { id: "TAZPODTESTKEY".into(), secret: "tazpod-test-secret".into(), session: None }
}

/// A server's address, `http://127.0.0.1:PORT`.
pub fn seaweedfs() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let disk = rustix::fs::statvfs(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // It writes nothing where less than a hundredth is free, and then says no more than "internal error".
        assert!(
            disk.f_bavail > disk.f_blocks / 50,
            "less than 2 % of the disk is free: too little for SeaweedFS"
        );
        start("seaweedfs", crate::ready, |directory, port| {
            let mut command = command("weed", directory);
            let data = directory.join("data");
            fs::create_dir(&data).unwrap();
            command.args(["mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]);
            command.args(["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
            // Each bucket takes several; by itself it would count what is free on the disk.
            command.arg("-volume.max=5000");
            command.arg(format!("-dir={}", data.display())).arg(format!("-s3.port={port}"));
            // It has a dozen ports, all fixed unless told otherwise, and sockets in /tmp.
            let others = ["master.port", "volume.port", "filer.port", "admin.port", "s3.port.grpc"];
            let grpc = ["master.port.grpc", "volume.port.grpc", "filer.port.grpc", "admin.port.grpc"];
            for (option, port) in others.iter().chain(&grpc).zip(free_ports(others.len() + grpc.len())) {
                command.arg(format!("-{option}={port}"));
            }
            for socket in ["filer", "s3"] {
                let path = directory.join(format!("{socket}.sock"));
                command.arg(format!("-{socket}.localSocket={}", path.display()));
            }
            let keys = keys();
            command.env("AWS_ACCESS_KEY_ID", keys.id).env("AWS_SECRET_ACCESS_KEY", keys.secret);
            command
        })
    })
}

/// See [`seaweedfs`]. It checks no signatures.
pub fn ministack() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        start("ministack", crate::ready, |directory, port| {
            let mut command = command("ministack", directory);
            command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
            command
        })
    })
}

/// See [`seaweedfs`]. It ignores conditions.
pub fn rclone() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| start("rclone", crate::ready, serve_s3))
}

/// The same behind TLS, and the file with its certificate.
pub fn rclone_with_tls() -> &'static (String, String) {
    static SERVER: OnceLock<(String, String)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let at = scratch();
        fs::create_dir_all(&at).unwrap();
        let [key, certificate] =
            ["key.pem", "cert.pem"].map(|name| at.join(name).to_str().unwrap().to_owned());
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=tazpod test", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", &key, "-out", &certificate])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Once it listens, it is ready.
        let address = start(
            "rclone-tls",
            |_| true,
            |directory, port| {
                let mut command = serve_s3(directory, port);
                command.args(["--cert", &certificate, "--key", &key]);
                command
            },
        );
        (address.replace("http://", "https://"), certificate)
    })
}

fn serve_s3(directory: &Path, port: u16) -> Command {
    let mut command = command("rclone", directory);
    let data = directory.join("data");
    fs::create_dir(&data).unwrap();
    let keys = keys();
    command.args(["serve", "s3", "--addr", &format!("127.0.0.1:{port}")]);
    command.arg("--auth-key").arg(format!("{},{}", keys.id, keys.secret)).arg(data);
    command
}

/// Numbers of ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// An address where nobody listens, nor can as long as the socket is there.
pub fn nobody() -> (OwnedFd, String) {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddrV4::try_from(getsockname(&socket).unwrap()).unwrap();
    (socket, format!("http://{address}"))
}

fn command(program: &str, directory: &Path) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/s3/bin").join(program);
    assert!(path.exists(), "`{}` is not there: `scripts/test` installs it", path.display());
    // It ends with whoever started it, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(path);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory).env("TMPDIR", directory);
    command
}

fn start(name: &str, ready: impl Fn(u16) -> bool, build: impl Fn(&Path, u16) -> Command) -> String {
    let mut logs = String::new();
    // Somebody else may take a port before the server does.
    for attempt in 0..3 {
        let directory = scratch().join(format!("{name}-{attempt}"));
        fs::create_dir_all(&directory).unwrap();
        let port = free_ports(1)[0];
        let log = directory.join("log");
        let mut command = build(&directory, port);
        let output = fs::File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let mut child = spawn(command);
        if answers(&mut child, port, &ready) {
            return format!("http://127.0.0.1:{port}");
        }
        let _ = child.kill();
        let _ = child.wait();
        logs += &fs::read_to_string(log).unwrap_or_default();
    }
    panic!("{name} does not start:\n{logs}");
}

/// Starts a process from a thread that stays: that is the parent whose death it is told of.
fn spawn(mut command: Command) -> Child {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        sender.send(command.spawn().unwrap()).unwrap();
        loop {
            thread::park();
        }
    });
    receiver.recv().unwrap()
}

/// Whether it answers requests in time. It may accept connections before.
fn answers(child: &mut Child, port: u16, ready: &dyn Fn(u16) -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < READY {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() && ready(port) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// A directory of this run's. Those of earlier runs are removed: what is here is killed, not ended.
pub fn scratch() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("store");
    for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
        let alive = entry.file_name().to_str().is_some_and(|id| Path::new("/proc").join(id).exists());
        if !alive {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    all.join(std::process::id().to_string())
}
