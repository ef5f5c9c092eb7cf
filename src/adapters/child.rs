//! Programs of the host, run to their end, or ended with all that they started.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::mpsc;

/// How often to look whether the program ended.
const POLL: Duration = Duration::from_millis(20);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// A program that runs; dropping it asks it to end.
#[derive(Debug)]
pub struct Program {
    lines: mpsc::UnboundedReceiver<String>,
    group: Group,
}

impl Program {
    /// Starts `command`, without stdin, in a process group of its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(mut command: Command) -> io::Result<Program> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for us: what the program is told, and when, is ours to decide.
            .process_group(0)
            .spawn()?;
        let (sender, lines) = mpsc::unbounded_channel();
        if let Some(stdout) = child.stdout.take() {
            read_lines(stdout, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, sender);
        }
        Ok(Program { lines, group: Group(Arc::new(Mutex::new(child))) })
    }

    /// The next line of what it says, on stdout or stderr; `None` once all that could say something ended.
    pub async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// For whoever must end it from elsewhere.
    pub fn group(&self) -> Group {
        self.group.clone()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where the system does not say how it ended.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.group.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.group.signal(Signal::TERM);
    }
}

fn read_lines(from: impl Read + Send + 'static, to: mpsc::UnboundedSender<String>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut line) {
            if to.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
}

/// A program and all that it started.
#[derive(Clone, Debug)]
pub struct Group(Arc<Mutex<Child>>);

impl Group {
    /// Asks it to end, and makes it end where it does not within ten seconds.
    pub async fn end(&self) {
        self.signal(Signal::TERM);
        let started = Instant::now();
        while started.elapsed() < GRACE {
            if !matches!(self.ended(), Ok(None)) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        self.signal(Signal::KILL);
    }

    fn ended(&self) -> io::Result<Option<ExitStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_wait()
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Once it is reaped, its number may be another's.
        if let Ok(None) = child.try_wait()
            && let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            // It may end at this very moment.
            let _ = kill_process_group(group, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start(command).unwrap()
    }

    #[tokio::test]
    async fn lines_and_status() {
        let mut program = shell("echo one; printf two >&2; exit 3");
        let mut lines = vec![program.line().await.unwrap(), program.line().await.unwrap()];
        // Which pipe is read first is chance.
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(program.line().await, None);
        assert_eq!(program.wait().await.unwrap().code(), Some(3));
    }

    #[tokio::test]
    async fn ending_it_ends_what_it_started() {
        // The pipe is open until the grandchild, too, is gone.
        let mut program = shell("sleep 1000 & echo up; wait");
        assert!(program.line().await.is_some());
        program.group().end().await;
        assert_eq!(program.line().await, None);
        assert_eq!(program.wait().await.unwrap().code(), None);
    }

    #[tokio::test]
    async fn dropping_it_ends_it() {
        let program = shell("sleep 1000");
        let group = program.group();
        drop(program);
        group.end().await;
        assert!(matches!(group.ended(), Ok(Some(_))));
    }
}
