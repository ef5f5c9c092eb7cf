use std::cell::Cell;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::adapters::engine::{Endpoint, Engine};
use crate::adapters::state::{LinkRecord, PodDir};
use crate::adapters::terminal;
use crate::context::Context;
use crate::env;
use crate::error::{Error, Kind, Result};
use crate::link::escape::{self, Detector, Escape};
use crate::link::relay::{self, Left};
use crate::link::{Link, lost};
use crate::pod::target::PodArgs;

/// How often what an open vault has saved is pushed while somebody is attached.
const PUSH_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The session that `up` and `attach` take where none is named.
pub const DEFAULT_SESSION: &str = "main";

/// Return to a pod's shell, screen and all.
///
/// The session goes on when its terminal is closed; to leave it running, type Enter, `~`, `.`, and to open the vault Enter, `~`, `u`
/// (`[attach]` in the configuration names other keys). Several terminals can be attached to one session.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// The session, made if there is none of this name.
    #[arg(short, long, default_value = DEFAULT_SESSION)]
    session: String,
    /// Open the vault first, unless it is open.
    #[arg(long)]
    unlock: bool,
}

impl Args {
    /// Attaches; the exit code is that of the session's shell, 0 after detaching.
    pub async fn run(self, context: &Context) -> Result<u8> {
        let (pod, _) = self.pod.find(&context.state()?)?;
        if self.unlock && terminal::is_interactive() {
            context.ui.status("Ctrl-D instead of the passphrase leaves the vault locked");
            match super::vault::unlock(context, self.pod).await {
                Ok(()) => {}
                Err(no) if no.kind() == Kind::Interrupted => {}
                Err(failed) => {
                    context.ui.error(&failed);
                    // The session's screen covers what is said here. Whatever is typed goes on.
                    let _ = terminal::ask_public("Enter goes on to the session ", "").await;
                }
            }
        }
        enter(context, &pod, &self.session).await
    }
}

/// Attaches to a session of a running pod.
pub async fn enter(context: &Context, pod: &PodDir, session: &str) -> Result<u8> {
    if !terminal::is_interactive() {
        return Err(Error::new(Kind::Usage, "a session needs a terminal, and this is none")
            .hint("without a terminal use `tazpod exec -- COMMAND`"));
    }
    let keys = context.user_config()?.attach;
    let detector = Detector::parse(&[
        (Escape::Detach, keys.detach.as_deref().unwrap_or(escape::DETACH)),
        (Escape::Unlock, keys.unlock.as_deref().unwrap_or(escape::UNLOCK)),
    ])?;
    let record = pod.record()?;
    let link = open(pod, &record).await?;
    let channel = link.channel().await?;
    channel.set_env(false, env::LINK_SESSION, session).await.map_err(lost)?;
    relay::request_terminal(&channel).await?;
    channel.request_shell(false).await.map_err(lost)?;
    let failed = Cell::new(false);
    let left = tokio::select! {
        left = relay::session(channel, detector) => left?,
        never = push_now_and_then(context, pod, &failed) => never,
    };
    if failed.get() {
        context.ui.warn("what the vault has saved could not be pushed; `tazpod vault push` says why");
    }
    match left {
        Left::Ended(status) => Ok(status),
        Left::Detached => {
            context.ui.status(format!("detached from {}; `tazpod attach` returns", pod.name()));
            Ok(0)
        }
        Left::Unlock => Err(again(pod, session)),
    }
}

/// Has the vault opened and attaches again, in place of this process: its thread that reads the terminal cannot be stopped, and would
/// take what is typed there.
fn again(pod: &PodDir, session: &str) -> Error {
    // It may have been replaced meanwhile, by a newer one or by none.
    let replaced = || PathBuf::from("/proc/self/exe");
    let program = std::env::current_exe().ok().filter(|program| program.exists()).unwrap_or_else(replaced);
    let session = format!("--session={session}");
    let source = Command::new(&program).args(["attach", pod.name(), &session, "--unlock"]).exec();
    Error::io("run", &program, source)
}

/// Brings what the pod's open vault has saved into the store, every few minutes. By another process: a slow store holds up no
/// terminal, and what a push takes of memory is given back. What it has to say is in a log.
async fn push_now_and_then<T>(context: &Context, pod: &PodDir, failed: &Cell<bool>) -> T {
    loop {
        tokio::time::sleep(PUSH_INTERVAL).await;
        if pod.vault_name().exists()
            && let Ok(mut pushing) = push_in_background(context)
        {
            // It has timeouts of its own; it goes on when this one ends.
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                match pushing.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) => break failed.set(!status.success()),
                    Err(_) => break,
                }
            }
        }
    }
}

fn push_in_background(context: &Context) -> Result<Child> {
    let log = context.state()?.log("vault-push")?;
    let failed = |source| Error::io("push in the background, with the log", &log, source);
    let output = File::create(&log).map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["vault", "push"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    // Not the terminal's: what is typed there is not for it.
    command.process_group(0).spawn().map_err(failed)
}

/// A link by the pod's own record.
pub async fn open(pod: &PodDir, record: &LinkRecord) -> Result<Link> {
    Link::open(pod, record, || Engine::new(Endpoint::parse(&record.engine)?)).await
}
