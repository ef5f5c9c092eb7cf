//! OpenSSH's own programs through `tazpod proxy`, and what tazpod makes of an agent that is none.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::on_every_engine;
use crate::rig::{Done, Engine, World, complete, program};
use crate::terminal::Terminal;

on_every_engine!(ssh_runs_commands, scp_copies_both_ways, ssh_forwards_ports, another_key_is_refused);

/// What does not depend on the engine.
mod any {
    use crate::rig::Engine;

    macro_rules! tests {
        ($($name:ident),* $(,)?) => { $( #[test] fn $name() { super::$name(Engine::Docker) } )* };
    }

    tests!(
        ssh_carries_binary_data_both_ways,
        ssh_gives_a_terminal,
        ssh_attaches_to_the_session,
        ssh_forwards_sockets,
        ssh_forwards_ports_of_this_machine,
        a_stalled_forward_does_not_stall_others,
        a_stalled_channel_does_not_stall_others,
        sftp_works_on_files,
        keys_are_renewed_on_the_way,
        another_agent_is_refused,
        a_socket_that_never_answers,
    );
}

/// OpenSSH set up by `tazpod ssh-config`.
struct Ssh<'a> {
    world: &'a World,
    pod: String,
    config: PathBuf,
}

impl Ssh<'_> {
    fn new(world: &World) -> Ssh<'_> {
        let text = world.run(&["ssh-config"]).success().stdout;
        let ssh = Ssh { world, pod: world.pod(), config: world.directory.join("ssh_config") };
        ssh.configure(&text);
        ssh
    }

    fn configure(&self, text: &str) {
        fs::write(&self.config, text).unwrap();
        chown(&self.config, Some(self.world.caller.uid), Some(self.world.caller.gid)).unwrap();
    }

    /// `ssh`, `scp` or `sftp` with these arguments.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut all = vec!["-F", self.config.to_str().unwrap()];
        all.extend(arguments);
        self.world.command(program, &all)
    }

    /// A line for the pod's shell, after these options.
    fn run(&self, options: &[&str], line: &str) -> Done {
        let arguments: Vec<_> = options.iter().copied().chain([self.pod.as_str(), line]).collect();
        complete(&mut self.command("ssh", &arguments), b"").into()
    }

    /// In a terminal of 24 by 80.
    fn terminal(&self, arguments: &[&str]) -> Terminal {
        let mut words = self.world.as_caller();
        words.extend(["ssh".into(), "-F".into(), self.config.to_string_lossy().into_owned()]);
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        Terminal::program(self.world, &words, 24, 80)
    }

    /// In the background with these options and without a command, until dropped.
    fn background(&self, options: &[&str]) -> Background {
        let mut arguments = vec!["-N", "-o", "ExitOnForwardFailure=yes"];
        arguments.extend(options);
        arguments.push(&self.pod);
        Background(self.command("ssh", &arguments).stdin(Stdio::null()).spawn().unwrap())
    }
}

/// A program that is ended with the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // `timeout`, which passes it on. It may have ended.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..u32::try_from(length).unwrap()).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Connects as soon as somebody listens.
fn connect(world: &World, port: u16) -> TcpStream {
    let mut found = None;
    world.wait_for("the forwarded port", || {
        found = TcpStream::connect(("127.0.0.1", port)).ok();
        found.is_some()
    });
    let found = found.unwrap();
    found.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    found
}

/// What comes back of a connection to an echo after all was sent.
fn echo(connection: &TcpStream, data: &[u8]) -> Vec<u8> {
    let mut sending = connection.try_clone().unwrap();
    let data = data.to_vec();
    let sender = std::thread::spawn(move || {
        sending.write_all(&data).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    let mut connection = connection;
    connection.read_to_end(&mut back).unwrap();
    sender.join().unwrap();
    back
}

/// Listens in the pod, on a port or a path, and does something with each connection `$c`.
fn listen(world: &World, at: &str, each: &str) {
    let socket = match at.parse::<u16>() {
        Ok(port) => {
            format!("IO::Socket::INET->new(Listen=>9,LocalAddr=>'127.0.0.1',LocalPort=>{port},ReuseAddr=>1)")
        }
        Err(_) => format!("IO::Socket::UNIX->new(Listen=>9,Local=>'{at}')"),
    };
    let script = format!(
        "use IO::Socket; $s={socket} or die; print qq(up\\n); close STDOUT; $SIG{{CHLD}}='IGNORE'; \
         while($c=$s->accept){{ if(!fork){{ {each}; exit }} close $c }}"
    );
    world.write(".listener.pl", &script);
    assert_eq!(
        world.sh("perl .listener.pl </dev/null 2>/dev/null & wait -n 2>/dev/null || sleep 0.3").stdout,
        "up\n"
    );
}

const ECHO: &str = "while(sysread($c,$b,65536)){print $c $b}";

fn ssh_runs_commands(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let done = ssh.run(&[], "id -u; pwd; echo error >&2; exit 7");
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (7, "1000\n/workspace\n", "error\n"));
    assert_eq!(ssh.run(&["-o", "SetEnv=GREETING=hello"], "echo $GREETING").success().stdout, "hello\n");
    assert_eq!(ssh.run(&[], "tty").stdout, "not a tty\n");
    assert_eq!(ssh.run(&[], "no-such-command").code, 127);
    assert_eq!(ssh.run(&[], "kill -TERM $$").code, 128 + 15);
    // From anywhere, by the pod's full name.
    let mut command = ssh.command("ssh", &[&ssh.pod, "echo ok"]);
    assert_eq!(Done::from(complete(command.current_dir("/"), b"")).success().stdout, "ok\n");
    // The shell that is a login shell has what a user's shell has.
    assert_eq!(ssh.run(&["-T"], "echo $HOME $USER").success().stdout, "/home/tazpod tazpod\n");
    let mut shell = ssh.command("ssh", &["-T", &ssh.pod]);
    assert_eq!(
        Done::from(complete(&mut shell, b"echo in a shell; exit 3\n")).failure(3, "").stdout,
        "in a shell\n"
    );
}

fn ssh_carries_binary_data_both_ways(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let data = noise(8_000_000);
    for options in [&[][..], &["-C"], &["-o", "RekeyLimit=1M"], &["-c", "chacha20-poly1305@openssh.com"]] {
        let arguments: Vec<_> = options.iter().copied().chain([ssh.pod.as_str(), "cat"]).collect();
        let output = complete(&mut ssh.command("ssh", &arguments), &data);
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == data, "{options:?}: {} bytes came back", output.stdout.len());
    }
}

fn ssh_gives_a_terminal(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let mut terminal = ssh.terminal(&["-tt", &ssh.pod, "stty size; echo $TERM; exit 9"]);
    assert_eq!(terminal.end(), 9);
    terminal.wait("24 80\nxterm-256color");
    let mut terminal = ssh.terminal(&[&ssh.pod]);
    terminal.wait_until("a prompt", |text| text.contains(['$', '❯']));
    terminal.send("stty size; echo $((6 * 7)) $0\r");
    terminal.wait("24 80\n42 -bash");
    terminal.resize_in(&world, 33, 99);
    terminal.send("clear; stty size\r");
    terminal.wait("33 99");
    terminal.send("sleep 1000\r");
    world.wait_for("the program", || world.sh("pgrep -x sleep").code == 0);
    terminal.send("\x03");
    world.wait_for("the end of the program", || world.sh("pgrep -x sleep").code == 1);
    terminal.send("exit 5\r");
    assert_eq!(terminal.end(), 5);
    let status = world.run(&["status", "--json"]).success().json();
    assert!(status["sessions"].as_array().unwrap().is_empty(), "a shell of its own is no session");
}

fn ssh_attaches_to_the_session(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let mut ours = Terminal::start(&world, &["attach"]);
    ours.wait_until("a prompt", |text| text.contains(['$', '❯']));
    ours.send("where=ma''in; clear; echo he''re\r");
    ours.wait("here");
    let mut theirs = ssh.terminal(&["-o", "SetEnv=TAZPOD_SESSION=main", &ssh.pod]);
    theirs.wait("here");
    theirs.send("echo in $where\r");
    theirs.wait("in main");
    ours.wait("in main");
    // The end of the connection, by OpenSSH's own keys, is not that of the session.
    theirs.detach();
    assert_eq!(theirs.end(), 255);
    ours.send("exit 4\r");
    assert_eq!(ours.end(), 4);
}

fn ssh_forwards_ports(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    listen(&world, "7001", ECHO);
    let port = free_port();
    let closed = free_port();
    let _ssh =
        ssh.background(&["-L", &format!("{port}:localhost:7001"), "-L", &format!("{closed}:127.0.0.1:7999")]);
    let data = noise(3_000_000);
    let connections: Vec<_> = (0..3).map(|_| connect(&world, port)).collect();
    for connection in &connections {
        assert!(echo(connection, &data) == data);
    }
    // Where nobody listens the connection ends, and only that one.
    let mut refused = connect(&world, closed);
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
    assert!(echo(&connect(&world, port), b"still") == b"still");
}

fn ssh_forwards_sockets(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    listen(&world, "/tmp/echo.sock", ECHO);
    let port = free_port();
    let _ssh = ssh.background(&["-L", &format!("{port}:/tmp/echo.sock")]);
    let data = noise(1_000_000);
    assert!(echo(&connect(&world, port), &data) == data);
}

fn ssh_forwards_ports_of_this_machine(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let here = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut data = Vec::new();
                connection.read_to_end(&mut data).unwrap();
                data.reverse();
                connection.write_all(&data).unwrap();
            });
        }
    });
    let _ssh = ssh.background(&["-R", &format!("7003:127.0.0.1:{here}")]);
    let client = "use IO::Socket; $s=IO::Socket::INET->new('127.0.0.1:7003') or exit 9; \
                  print $s 'x' x 500000, 'abc'; shutdown($s, 1); local $/; $d = <$s>; print substr($d, 0, 4), length($d)";
    world.write("client.pl", client);
    let mut done = None;
    world.wait_for("the forwarded port", || {
        done = Some(world.sh("perl client.pl"));
        done.as_ref().is_some_and(|done| done.code != 9)
    });
    assert_eq!(done.unwrap().success().stdout, "cbax500003");

    // The pod chooses the port, and the end of the connection closes it.
    let mut child = ssh
        .command("ssh", &["-N", "-R", &format!("0:127.0.0.1:{here}"), &ssh.pod])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let background = Background(child);
    std::io::BufRead::read_line(&mut stderr, &mut told).unwrap();
    let port = told
        .strip_prefix("Allocated port ")
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_else(|| panic!("{told}"));
    let use_port = format!("sed s/7003/{port}/ client.pl | perl");
    assert_eq!(world.sh(&use_port).success().stdout, "cbax500003");
    drop(background);
    world.wait_for("the port to be closed", || world.sh(&use_port).code == 9);
}

fn a_stalled_forward_does_not_stall_others(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    listen(&world, "7001", ECHO);
    listen(&world, "7002", "print $c 'x' x 65536 while 1");
    listen(&world, "7003", "sleep 1000");
    let (good, talker, deaf) = (free_port(), free_port(), free_port());
    let forward = |port: u16, to: u16| format!("{port}:127.0.0.1:{to}");
    let _ssh = ssh.background(&[
        "-L",
        &forward(good, 7001),
        "-L",
        &forward(talker, 7002),
        "-L",
        &forward(deaf, 7003),
    ]);
    // One that sends and is not read, one that is sent to and does not read.
    let mut unread = connect(&world, talker);
    unread.read_exact(&mut [0; 1000]).unwrap();
    let mut unreading = connect(&world, deaf);
    unreading.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let chunk = noise(1_000_000);
    for _ in 0..24 {
        if unreading.write_all(&chunk).is_err() {
            break;
        }
    }
    let data = noise(3_000_000);
    assert!(echo(&connect(&world, good), &data) == data);
    unread.read_exact(&mut vec![0; 10_000_000]).unwrap();
}

fn a_stalled_channel_does_not_stall_others(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let control = world.directory.join("control");
    let control = control.to_str().unwrap();
    let _master = ssh.background(&["-M", "-S", control]);
    world.wait_for("the master", || fs::metadata(control).is_ok());
    let start = |line: &str| {
        let mut command = ssh.command("ssh", &["-S", control, &ssh.pod, line]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    // One whose output nobody reads, one that does not read its input.
    let mut unread = start("cat /dev/zero");
    unread.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).unwrap();
    let mut deaf = start("echo ready; sleep 1000");
    deaf.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let mut input = deaf.stdin.take().unwrap();
    std::thread::spawn(move || {
        // Ends when the test ends the reader.
        let _ = input.write_all(&vec![0; 24_000_000]);
    });
    let (_unread, _deaf) = (Background(unread), Background(deaf));
    let data = noise(8_000_000);
    for _ in 0..3 {
        let output = complete(&mut ssh.command("ssh", &["-S", control, &ssh.pod, "cat"]), &data);
        assert!(
            output.stdout == data,
            "{} bytes: {}",
            output.stdout.len(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(ssh.run(&["-S", control], "exit 6").code, 6);
}

fn scp_copies_both_ways(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let data = noise(3_000_001);
    let tree = world.write("tree/a file", "text\n").parent().unwrap().to_owned();
    fs::write(tree.join("big"), &data).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::create_dir(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/ü"), "deep\n").unwrap();
    fs::set_permissions(tree.join("a file"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(tree.join("big"), fs::Permissions::from_mode(0o604)).unwrap();
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    fs::File::open(tree.join("big")).unwrap().set_modified(old).unwrap();
    for path in ["big", "empty", "sub", "sub/ü"] {
        chown(tree.join(path), Some(world.caller.uid), Some(world.caller.gid)).unwrap();
    }
    let scp = |from: &str, to: &str| {
        Done::from(complete(&mut ssh.command("scp", &["-q", "-r", "-p", from, to]), b""))
    };
    scp(tree.to_str().unwrap(), &format!("{}:there", ssh.pod)).success();
    let look =
        "cd ~/there && cat 'a file' sub/ü && stat -c '%a %Y' big && stat -c '%a' 'a file' && wc -c < empty";
    assert_eq!(world.sh(look).success().stdout, "text\ndeep\n604 1234567890\n751\n0\n");
    let back = world.directory.join("back");
    scp(&format!("{}:there", ssh.pod), back.to_str().unwrap()).success();
    assert!(fs::read(back.join("big")).unwrap() == data);
    let found = fs::metadata(back.join("big")).unwrap();
    assert_eq!((found.mode() & 0o777, found.mtime()), (0o604, 1_234_567_890));
    assert_eq!(fs::read_to_string(back.join("sub/ü")).unwrap(), "deep\n");
    assert_ne!(scp(&format!("{}:missing", ssh.pod), back.to_str().unwrap()).code, 0);
}

fn sftp_works_on_files(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let data = noise(5_000_000);
    fs::write(world.directory.join("big"), &data).unwrap();
    let batch = world.directory.join("batch");
    let (big, back) = (world.directory.join("big"), world.directory.join("back"));
    let script = format!(
        "mkdir /tmp/box\ncd /tmp/box\nput {}\nrename big 'the name'\nchmod 600 'the name'\nln -s 'the name' link\n\
         ls -l\nget link {}\nmkdir sub\nrmdir sub\nput {0} gone\nrm gone\ndf /tmp/box\npwd\n",
        big.display(),
        back.display()
    );
    fs::write(&batch, script).unwrap();
    let run = |batch: &std::path::Path| {
        Done::from(complete(&mut ssh.command("sftp", &["-q", "-b", batch.to_str().unwrap(), &ssh.pod]), b""))
    };
    let done = run(&batch).success();
    assert!(done.stdout.contains("-rw-------"), "{}", done.stdout);
    assert!(done.stdout.contains("Remote working directory: /tmp/box"), "{}", done.stdout);
    assert!(fs::read(&back).unwrap() == data);
    assert_eq!(
        world.sh("ls /tmp/box; stat -c '%u %a' '/tmp/box/the name'").success().stdout,
        "link\nthe name\n1000 600\n"
    );
    fs::write(&batch, "get /no/such/file\n").unwrap();
    run(&batch).failure(1, "not found");
}

fn keys_are_renewed_on_the_way(engine: Engine) {
    let world = World::up(engine);
    const SIZE: u64 = 1200 << 20;
    let mut out =
        world.command(&program().to_string_lossy(), &["exec", "--", "head", "-c", "1200M", "/dev/zero"]);
    let mut out = out.stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(std::io::copy(&mut out.stdout.take().unwrap(), &mut std::io::sink()).unwrap(), SIZE);
    assert!(out.wait().unwrap().success());
    let mut input =
        world.command(&program().to_string_lossy(), &["exec", "--", "sh", "-c", "wc -c; echo end"]);
    let mut input = input.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::copy(&mut std::io::repeat(0).take(SIZE), &mut input.stdin.take().unwrap()).unwrap();
    let output = input.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{SIZE}\nend\n"));
}

/// A new key pair; the private one as OpenSSH writes it.
fn new_key(world: &World) -> PathBuf {
    let path = world.directory.join("other_key");
    let made = world
        .command("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", path.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(made.success());
    path
}

fn another_key_is_refused(engine: Engine) {
    let world = World::up(engine);
    let ssh = Ssh::new(&world);
    let key = new_key(&world);
    let right = world.state.join("pods").join(&ssh.pod).join("id_ed25519");
    let text = fs::read_to_string(&ssh.config).unwrap();
    ssh.configure(&text.replace(right.to_str().unwrap(), key.to_str().unwrap()));
    ssh.run(&[], "echo in").failure(255, "Permission denied (publickey)");

    // tazpod itself with another key, which says what helps; and it does.
    fs::copy(&key, &right).unwrap();
    world.sh("true").failure(125, "it does not know this machine's key");
    world.run(&["stop"]).success();
    world.run(&["start"]).success();
    world.sh("true").success();
    ssh.configure(&text);
    ssh.run(&[], "true").success();
}

/// The agent's socket as this machine's programs find it.
fn socket(world: &World) -> PathBuf {
    world.state.join("pods").join(world.pod()).join("run/agent.sock")
}

fn another_agent_is_refused(engine: Engine) {
    let world = World::up(engine);
    let key = new_key(&world);
    let socket = socket(&world);
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    // A whole agent with a key of its own, started by a program in the pod that wants to be it.
    let boot = serde_json::json!({
        "pod": "x", "host_key": fs::read_to_string(&key).unwrap(), "client_key": public.trim(), "shares": [],
    });
    world.write("boot.json", &boot.to_string());
    world
        .sh("cp boot.json /run/tazpod/boot.json && mv /run/tazpod/agent.sock /run/tazpod/real.sock")
        .success();
    // Nobody there.
    world.sh("true").failure(125, "does not run");
    // A link to the right one, which might as well lead out of the directory.
    symlink("real.sock", &socket).unwrap();
    world.sh("true").failure(125, "not a socket");
    world.run(&["proxy"]).failure(6, "not a socket");
    fs::remove_file(&socket).unwrap();
    fs::hard_link(socket.with_file_name("real.sock"), &socket).unwrap();
    world.sh("setsid ~/.local/bin/tazpod agent run >~/rogue 2>&1 </dev/null &").success();
    world.wait_for("the rogue", || {
        Ssh::new(&world).run(&[], "true").stderr.contains("HOST IDENTIFICATION HAS CHANGED")
    });
    world.sh("true").failure(125, "is not the agent that `up` started");
    world.run(&["attach"]).failure(2, "");
    let mut terminal = Terminal::start(&world, &["attach"]);
    assert_eq!(terminal.end(), 1);
    terminal.wait("is not the agent");
    let status = world.run(&["status", "--json"]).success().json();
    assert!(status["problem"].as_str().unwrap().contains("is not the agent"), "{status}");
    // The engine does not ask it.
    world.run(&["stop"]).success();
    world.run(&["start"]).success();
    world.sh("true").success();
}

fn a_socket_that_never_answers(engine: Engine) {
    let world = World::up(engine);
    let socket = socket(&world);
    world.sh("mv /run/tazpod/agent.sock /run/tazpod/real.sock").success();
    for (each, says, at_most) in [
        ("print $c qq(SSH-2.0-other\\r\\n)", "cannot talk to the agent", 5),
        ("print $c qq(no ssh at all\\n) x 10", "cannot talk to the agent", 5),
        ("sleep 1000", "it did not answer within 20 s", 30),
    ] {
        let _ = fs::remove_file(&socket);
        let script = format!(
            "use IO::Socket; $s=IO::Socket::UNIX->new(Listen=>9,Local=>'agent.sock') or die; \
             while($c=$s->accept){{ {each}; close $c }}"
        );
        // From outside of the pod, where the file is the same.
        let mut listener = Command::new("timeout");
        listener.args(["100", "perl", "-e", &script]).current_dir(socket.parent().unwrap());
        let _listener = Background(listener.spawn().unwrap());
        world.wait_for("the impostor", || socket.exists());
        let started = Instant::now();
        world.sh("true").failure(125, says);
        assert!(started.elapsed() < Duration::from_secs(at_most), "{each}: {:?}", started.elapsed());
    }
}
