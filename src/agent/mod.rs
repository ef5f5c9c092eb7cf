//! The agent, PID 1 of the pod: it reaps, forwards signals, owns sessions, and is an SSH server on a Unix socket.

pub mod boot;
mod command;
pub mod connect;
pub mod control;
mod forward;
pub mod input;
mod pty;
mod reaper;
mod screen;
mod server;
mod session;
mod sftp;
mod user;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Context as _, Error, Kind, Result};
use crate::pod::spec::RUN;
use boot::Boot;
use reaper::Reaper;
use session::Sessions;
use user::User;

/// How long processes get between SIGTERM and SIGKILL; less than the engine's own grace.
const STOP_GRACE: Duration = Duration::from_secs(7);

/// What every connection needs.
pub(crate) struct Agent {
    boot: Boot,
    user: User,
    reaper: Arc<Reaper>,
    sessions: Sessions,
}

/// Runs as PID 1 until SIGTERM; returns the exit code.
///
/// # Errors
/// Where the boot record is missing, which is so after a start by anything but tazpod, or the socket cannot be made.
pub async fn run() -> Result<u8> {
    drop_capabilities()?;
    // Programs of the same uid must not read keys out of this process.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context(Kind::Failure, || "cannot close this process to others")?;
    let mut terminate = signal(SignalKind::terminate()).context(Kind::Failure, || "cannot handle signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context(Kind::Failure, || "cannot handle signals")?;
    let directory = Path::new(RUN);
    let boot = Boot::take(directory)?;
    let reaper = Reaper::start()?;
    let user = User::current();
    let listener = listen(&directory.join("agent.sock"))?;
    let agent = Arc::new(Agent { boot, user, reaper: Arc::clone(&reaper), sessions: Sessions::default() });
    tokio::select! {
        result = server::serve(listener, Arc::clone(&agent)) => result?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    agent.sessions.hang_up();
    stop_everything(&reaper).await;
    Ok(0)
}

/// Podman gives a container's capabilities also to a user who is not root, and to all that this user starts. They are
/// meant for `sudo`, which has them from the bounding set.
fn drop_capabilities() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let none = CapabilitySet::empty();
    // Without inheritable ones there are no ambient ones.
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).context(Kind::Failure, || "cannot give up capabilities")
}

fn listen(path: &Path) -> Result<UnixListener> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove the stale socket", path, source));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|source| Error::io("listen on", path, source))?;
    // The directory above, on the host, keeps others out; the client may have another uid than the pod's user.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .map_err(|source| Error::io("open up", path, source))?;
    Ok(listener)
}

/// Ends every process of the pod that this user may signal.
async fn stop_everything(reaper: &Reaper) {
    let signal_all = |signal| {
        // -1 as PID 1: every process of this pid namespace but PID 1 itself. None left is not an error.
        let _ = rustix::process::kill_process_group(rustix::process::Pid::INIT, signal);
        reaper.signal_all(signal)
    };
    signal_all(Signal::HUP);
    signal_all(Signal::TERM);
    if tokio::time::timeout(STOP_GRACE, reaper.no_children()).await.is_err() {
        signal_all(Signal::KILL);
    }
}
