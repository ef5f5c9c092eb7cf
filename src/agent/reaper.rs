//! Children of PID 1: its own, whose ends somebody waits for, and orphans.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

use crate::error::{Context as _, Kind, Result};

/// How a process ended, as a shell would put it: its status, or 128 and the signal.
pub type ExitCode = u32;

/// Waits for every child of this process.
#[derive(Debug, Default)]
pub struct Reaper {
    waiting: Mutex<HashMap<i32, oneshot::Sender<ExitCode>>>,
    childless: Notify,
}

impl Reaper {
    /// Starts reaping on the current runtime.
    ///
    /// # Errors
    /// Where SIGCHLD cannot be handled.
    pub fn start() -> Result<Arc<Reaper>> {
        let reaper = Arc::new(Reaper::default());
        let mut children = signal(SignalKind::child()).context(Kind::Failure, || "cannot handle SIGCHLD")?;
        let reaping = Arc::clone(&reaper);
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                reaping.reap();
            }
        });
        Ok(reaper)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<ExitCode>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child whose end can be waited for.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Pid, oneshot::Receiver<ExitCode>)> {
        // Held over the start, so that the child cannot be reaped before it is known.
        let mut waiting = self.lock();
        let child = command.spawn()?;
        let (sender, receiver) = oneshot::channel();
        waiting.insert(child.id().cast_signed(), sender);
        Ok((Pid::from_child(&child), receiver))
    }

    fn reap(&self) {
        let mut waiting = self.lock();
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                        // Whoever asked may have gone.
                        let _ = sender.send(exit_code(status));
                    }
                }
                Ok(None) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.childless.notify_waiters();
                    return;
                }
            }
        }
    }

    /// Completes when this process has no children left.
    pub async fn no_children(&self) {
        loop {
            let childless = self.childless.notified();
            self.reap();
            if matches!(wait(WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD)) {
                return;
            }
            childless.await;
        }
    }
}

fn exit_code(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u32::try_from(code).ok()).unwrap_or(255)
}

/// Signals a process group by its leader; one that is gone is fine.
pub fn signal_group(leader: Pid, signal: Signal) {
    if kill_process_group(leader, signal).is_err() {
        let _ = kill_process(leader, signal);
    }
}
