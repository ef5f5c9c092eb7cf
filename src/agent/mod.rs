//! The agent, PID 1 of the pod: it reaps, forwards signals, owns sessions, and is an SSH server on a Unix socket.

mod activity;
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
mod services;
mod session;
mod sftp;
mod user;
pub mod vault;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Context as _, Error, Kind, Result};
use crate::pod::spec::RUN;
use activity::Activity;
use boot::Boot;
use reaper::Reaper;
use services::Services;
use session::Sessions;
use user::User;
use vault::Vault;

/// How long processes get between SIGTERM and SIGKILL; less than the engine's own grace.
const STOP_GRACE: Duration = Duration::from_secs(7);

/// What every connection needs.
pub(crate) struct Agent {
    boot: Boot,
    user: User,
    reaper: Arc<Reaper>,
    sessions: Sessions,
    services: Services,
    activity: Activity,
    vault: Vault,
}

impl Agent {
    /// The environment of a new process: the agent's own, the user's, the open vault's, then `extra`.
    fn environment(&self, extra: &BTreeMap<String, String>) -> BTreeMap<OsString, OsString> {
        let mut variables = self.vault.variables();
        variables.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
        self.user.environment(&variables)
    }
}

/// Runs as PID 1 until SIGTERM; returns the exit code.
///
/// # Errors
/// Where the boot record is missing, which is so after a start by anything but tazpod, or the socket cannot be made.
pub async fn run() -> Result<u8> {
    // Programs of the same uid must not read keys out of this process.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context(Kind::Failure, || "cannot close this process to others")?;
    drop_capabilities().context(Kind::Failure, || "cannot drop capabilities")?;
    // What crashes may have had secrets in memory. Who wants core dumps raises it: `ulimit -c`.
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    setrlimit(Resource::Core, limit).context(Kind::Failure, || "cannot limit core dumps")?;
    let mut terminate = signal(SignalKind::terminate()).context(Kind::Failure, || "cannot handle signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context(Kind::Failure, || "cannot handle signals")?;
    let directory = Path::new(RUN);
    let boot = Boot::take(directory)?;
    let reaper = Reaper::start()?;
    let user = User::current();
    let listener = listen(&directory.join("agent.sock"))?;
    let vault = Vault::new(user.home.clone());
    let agent = Arc::new(Agent {
        services: Services::new(&boot.services),
        boot,
        user,
        reaper: Arc::clone(&reaper),
        sessions: Sessions::default(),
        activity: Activity::default(),
        vault: vault.clone(),
    });
    let mut services = services::keep_running(&agent);
    tokio::spawn(vault.clone().look_after(Arc::clone(&agent)));
    tokio::spawn(vault::serve_pod(vault.clone()));
    tokio::select! {
        result = server::serve(listener, Arc::clone(&agent)) => result?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    services.abort_all();
    agent.sessions.hang_up();
    // Once at once, in case the engine's patience ends first; once more when nobody writes any more. What is waited for, is within one grace.
    let latest = Instant::now() + STOP_GRACE;
    let (_, ()) = tokio::join!(vault.save_at_end(), stop_everything(&reaper));
    vault.close(latest).await;
    Ok(0)
}

/// Keeps the bounding set, which `sudo` needs, and nothing else: Podman gives an ordinary user's process all of a pod's
/// capabilities as ambient ones, capabilities(7), under which it would pass every permission check.
fn drop_capabilities() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
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
    for signal in [Signal::HUP, Signal::TERM] {
        signal_all(signal);
    }
    if tokio::time::timeout(STOP_GRACE, reaper.no_children()).await.is_err() {
        signal_all(Signal::KILL);
    }
}

fn signal_all(signal: Signal) {
    // The group of INIT is kill(2)'s -1: every process but PID 1 itself. None left is not an error.
    let _ = rustix::process::kill_process_group(rustix::process::Pid::INIT, signal);
}
