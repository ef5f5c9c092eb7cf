//! A command for one client: it ends when the client goes, its streams are the channel's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use russh::server::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

use super::Agent;
use super::input::Input;
use super::pty::{Pty, Size};
use super::reaper::{ExitCode, signal_group};
use crate::adapters::sys::process::lead_session;
use crate::env;

/// The extended data that is stderr (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// What is read at once, and asked of the kernel for a pipe.
const CHUNK: usize = 256 * 1024;

/// What to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// Program and arguments; `None` is the login shell, interactive.
    pub argv: Option<Vec<OsString>>,
    /// Environment besides the user's own.
    pub environment: BTreeMap<String, String>,
    /// Where to run it.
    pub directory: Option<String>,
    /// The terminal, if the client asked for one.
    pub terminal: Option<Size>,
    /// Whether the client counts what was taken of its input.
    pub counts: bool,
}

impl Request {
    /// The command of an `exec` request: NUL-terminated arguments where the client said so, else a line for the
    /// login shell, as SSH servers do it.
    pub fn argv(command: &[u8], environment: &BTreeMap<String, String>, agent: &Agent) -> Vec<OsString> {
        if environment.get(env::LINK_EXEC).is_some_and(|value| value == "argv") {
            let arguments = command.strip_suffix(b"\0").unwrap_or(command);
            return arguments
                .split(|&byte| byte == 0)
                .map(|word| OsStr::from_bytes(word).to_owned())
                .collect();
        }
        let shell = agent.user.shell.clone().map_or_else(|| "/bin/sh".into(), OsString::from);
        vec![shell, "-c".into(), OsStr::from_bytes(command).to_owned()]
    }
}

struct Running {
    leader: Pid,
    ended: oneshot::Receiver<ExitCode>,
    input: Option<Input>,
    pty: Option<Pty>,
    pipes: Option<(pipe::Receiver, pipe::Receiver)>,
}

/// Runs it on a channel to its end.
pub async fn serve(
    agent: Arc<Agent>,
    request: Request,
    mut reading: ChannelReadHalf,
    writing: Arc<ChannelWriteHalf<Msg>>,
) -> Result<(), russh::Error> {
    let mut running = match start(&agent, &request, &writing) {
        Ok(running) => running,
        Err(error) => {
            let program = request.argv.as_ref().and_then(|argv| argv.first());
            let name = program.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let (code, reason) = match error.kind() {
                io::ErrorKind::NotFound if request.argv.is_none() => (127, error.to_string()),
                io::ErrorKind::NotFound => (127, format!("`{name}`: command not found")),
                io::ErrorKind::PermissionDenied => (126, format!("`{name}`: permission denied")),
                _ => (126, format!("`{name}`: {error}")),
            };
            return refuse(&writing, code, &reason).await;
        }
    };
    let (finish, finishing) = watch::channel(false);
    let outputs = {
        let (pty, pipes) = (running.pty.clone(), running.pipes.take());
        let writing = Arc::clone(&writing);
        async move {
            match (pty, pipes) {
                (Some(pty), _) => copy_pty(pty, &writing, finishing).await,
                (None, Some((out, err))) => {
                    tokio::join!(
                        copy_pipe(out, &writing, None, finishing.clone()),
                        copy_pipe(err, &writing, Some(STDERR), finishing)
                    );
                }
                (None, None) => {}
            }
        }
    };
    // A task of its own: input that waits for the command must not hold up its output.
    let mut outputs = AbortOnDrop(tokio::spawn(outputs));
    let (mut code, mut drained) = (None, false);
    while code.is_none() || !drained {
        tokio::select! {
            message = reading.wait() => if !handle(message, &mut running).await {
                signal_group(running.leader, Signal::HUP);
                return Ok(());
            },
            ended = &mut running.ended, if code.is_none() => {
                code = Some(ended.unwrap_or(255));
                // What else holds the streams open, a daemon say, is not waited for.
                let _ = finish.send(true);
            }
            _ = &mut outputs.0, if !drained => drained = true,
        }
    }
    finish_channel(&writing, code.unwrap_or(255)).await
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the client why nothing runs, and ends the channel.
///
/// # Errors
/// Where the connection is gone.
pub async fn refuse(
    writing: &ChannelWriteHalf<Msg>,
    code: ExitCode,
    reason: &str,
) -> Result<(), russh::Error> {
    writing.extended_data_bytes(STDERR, format!("tazpod: {reason}\r\n").into_bytes()).await?;
    finish_channel(writing, code).await
}

/// Sends the exit status and ends the channel.
///
/// # Errors
/// Where the connection is gone.
pub async fn finish_channel(writing: &ChannelWriteHalf<Msg>, code: ExitCode) -> Result<(), russh::Error> {
    writing.exit_status(code).await?;
    writing.eof().await?;
    writing.close().await
}

/// Handles what the client sends; false once it has gone.
async fn handle(message: Option<ChannelMsg>, running: &mut Running) -> bool {
    match message {
        Some(ChannelMsg::Data { data }) => {
            if let Some(input) = &running.input {
                input.push(data).await;
            }
        }
        Some(ChannelMsg::Eof) if running.pty.is_none() => running.input = None,
        Some(ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height }) => {
            if let Some(pty) = &running.pty {
                // Fails only where the program is gone.
                let _ = pty.resize(Size::from_request(col_width, row_height, pix_width, pix_height));
            }
        }
        Some(ChannelMsg::Signal { signal }) => {
            if let Some(signal) = signal_of(&signal) {
                signal_group(running.leader, signal);
            }
        }
        Some(ChannelMsg::Close) | None => return false,
        Some(_) => {}
    }
    true
}

fn start(agent: &Agent, request: &Request, writing: &Arc<ChannelWriteHalf<Msg>>) -> io::Result<Running> {
    let client = request.counts.then(|| Arc::clone(writing));
    let mut command = match request.argv.as_deref() {
        Some([program, arguments @ ..]) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        Some([]) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command given")),
        None => {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "this image has no shell");
            let shell = agent.user.shell.as_deref().ok_or_else(missing)?;
            let mut command = Command::new(shell);
            let name = shell.file_name().unwrap_or_default().to_string_lossy();
            std::os::unix::process::CommandExt::arg0(&mut command, format!("-{name}"));
            command
        }
    };
    command
        .env_clear()
        .envs(agent.environment(&request.environment))
        .current_dir(agent.user.directory(request.directory.as_deref()));
    if let Some(size) = request.terminal {
        let (pty, terminal) = Pty::open(size)?;
        command
            .stdin(Stdio::from(terminal.try_clone()?))
            .stdout(Stdio::from(terminal.try_clone()?))
            .stderr(Stdio::from(terminal));
        lead_session(&mut command, true);
        let (leader, ended) = agent.reaper.spawn(&mut command)?;
        let input = Some(Input::new(pty.clone(), client));
        return Ok(Running { leader, ended, input, pty: Some(pty), pipes: None });
    }
    let (stdin, stdin_end) = io::pipe()?;
    let (stdout_end, stdout) = io::pipe()?;
    let (stderr_end, stderr) = io::pipe()?;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    lead_session(&mut command, false);
    let (leader, ended) = agent.reaper.spawn(&mut command)?;
    let input = Some(Input::new(pipe::Sender::from_owned_fd(stdin_end.into())?, client));
    let receiver = |end: io::PipeReader| {
        let fd = OwnedFd::from(end);
        // A small pipe works too.
        let _ = rustix::pipe::fcntl_setpipe_size(&fd, CHUNK);
        pipe::Receiver::from_owned_fd(fd)
    };
    let pipes = Some((receiver(stdout_end)?, receiver(stderr_end)?));
    Ok(Running { leader, ended, input, pty: None, pipes })
}

/// Copies until the end of file, or, once `finishing`, until nothing is there.
async fn copy_pipe(
    mut pipe: pipe::Receiver,
    writing: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
    mut finishing: watch::Receiver<bool>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(32 * 1024);
        let count = tokio::select! {
            biased;
            read = pipe.read_buf(&mut buffer) => read.unwrap_or(0),
            // Asked of the kernel: the runtime may not have heard yet of what the process wrote last.
            _ = finishing.wait_for(|finished| *finished) => {
                let mut last = vec![0; 32 * 1024];
                let count = rustix::io::read(&pipe, &mut last).unwrap_or(0);
                buffer.extend_from_slice(last.get(..count).unwrap_or_default());
                count
            }
        };
        if count == 0 || send(writing, stream, buffer.split().freeze()).await.is_err() {
            return;
        }
    }
}

async fn copy_pty(pty: Pty, writing: &ChannelWriteHalf<Msg>, mut finishing: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = tokio::select! {
            biased;
            read = pty.read(&mut buffer) => read.unwrap_or(0),
            _ = finishing.wait_for(|finished| *finished) => pty.read_available(&mut buffer),
        };
        let Some(data) = buffer.get(..count).filter(|data| !data.is_empty()) else { return };
        if send(writing, None, Bytes::copy_from_slice(data)).await.is_err() {
            return;
        }
    }
}

async fn send(writing: &ChannelWriteHalf<Msg>, stream: Option<u32>, data: Bytes) -> Result<(), russh::Error> {
    match stream {
        None => writing.data_bytes(data).await,
        Some(stream) => writing.extended_data_bytes(stream, data).await,
    }
}

fn signal_of(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(name) if name == "USR2" => Signal::USR2,
        Sig::Custom(_) => return None,
    })
}
