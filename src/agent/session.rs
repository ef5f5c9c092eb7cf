//! Sessions: named terminals that outlive their clients.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::process::{Pid, Signal};
use tokio::sync::{Notify, mpsc, oneshot};

use super::Agent;
use super::input::Input;
use super::pty::{Pty, Size};
use super::reaper::{ExitCode, signal_group};
use super::screen::Screen;
use crate::adapters::sys::process::lead_session;
use crate::env;

/// Bytes of output that may wait for one client before the program is held up.
const BACKLOG_LIMIT: usize = 256 * 1024;

/// How long a client that does not read may hold the program up, before it is left behind.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is read of a program's output at once.
const CHUNK: usize = 16 * 1024;

/// The sessions of a pod, by name.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<BTreeMap<String, Arc<Session>>>);

/// A named terminal with its program.
#[derive(Debug)]
pub struct Session {
    name: String,
    leader: Pid,
    started: SystemTime,
    pty: Pty,
    input: Input,
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug)]
struct State {
    screen: Screen,
    size: Size,
    clients: HashMap<u64, Client>,
    next_client: u64,
}

#[derive(Debug)]
struct Client {
    size: Size,
    events: mpsc::UnboundedSender<Event>,
    backlog: Arc<AtomicUsize>,
    /// Missed output; gets the whole screen once it reads again.
    behind: bool,
}

/// What a client is sent.
#[derive(Debug)]
pub enum Event {
    /// For its terminal.
    Output(Bytes),
    /// The program ended.
    End(ExitCode),
}

/// A client's end of a session; dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    session: Arc<Session>,
    id: u64,
    backlog: Arc<AtomicUsize>,
}

/// A session, to report.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Process id of the program in the pod.
    pub pid: i32,
    /// Clients attached now.
    pub clients: usize,
    /// When it began.
    pub started: SystemTime,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// Attaches to the session of this name, which is made if there is none.
    ///
    /// # Errors
    /// Where no terminal can be had or the shell cannot be started; [`io::ErrorKind::NotFound`] where the image has
    /// none.
    pub fn attach(
        agent: &Arc<Agent>,
        name: &str,
        size: Size,
        environment: &BTreeMap<String, String>,
        directory: Option<&str>,
    ) -> io::Result<(Attachment, mpsc::UnboundedReceiver<Event>)> {
        let mut sessions = lock(&agent.sessions.0);
        let session = match sessions.get(name) {
            Some(session) => Arc::clone(session),
            None => {
                let session = Session::start(agent, name, size, environment, directory)?;
                sessions.insert(name.to_owned(), Arc::clone(&session));
                session
            }
        };
        Ok(session.attach(size))
    }

    /// All of them.
    pub fn list(&self) -> Vec<Summary> {
        lock(&self.0).values().map(|session| session.summary()).collect()
    }
    /// Hangs up every terminal.
    pub fn hang_up(&self) {
        for session in lock(&self.0).values() {
            signal_group(session.leader, Signal::HUP);
        }
    }
}

impl Session {
    fn start(
        agent: &Arc<Agent>,
        name: &str,
        size: Size,
        environment: &BTreeMap<String, String>,
        directory: Option<&str>,
    ) -> io::Result<Arc<Session>> {
        let no_shell = || io::Error::new(io::ErrorKind::NotFound, "this image has no shell");
        let shell = agent.user.shell.as_deref().ok_or_else(no_shell)?;
        let (pty, terminal) = Pty::open(size)?;
        let mut environment = environment.clone();
        environment.insert(env::LINK_SESSION.to_owned(), name.to_owned());
        let mut command = Command::new(shell);
        let program = shell.file_name().unwrap_or_default().to_string_lossy();
        std::os::unix::process::CommandExt::arg0(&mut command, format!("-{program}"));
        command
            .env_clear()
            .envs(agent.environment(&environment))
            .current_dir(agent.user.directory(directory))
            .stdin(Stdio::from(terminal.try_clone()?))
            .stdout(Stdio::from(terminal.try_clone()?))
            .stderr(Stdio::from(terminal));
        lead_session(&mut command, true);
        let (leader, ended) = agent.reaper.spawn(&mut command)?;
        // The command holds the terminal's other end; as long as it lives, its last close goes unnoticed.
        drop(command);
        let session = Arc::new(Session {
            name: name.to_owned(),
            leader,
            started: SystemTime::now(),
            input: Input::new(pty.clone(), None),
            pty,
            state: Mutex::new(State {
                screen: Screen::new(size),
                size,
                clients: HashMap::new(),
                next_client: 0,
            }),
            room: Notify::new(),
        });
        tokio::spawn(Arc::clone(&session).pump(Arc::clone(agent), ended));
        Ok(session)
    }

    fn attach(self: Arc<Session>, size: Size) -> (Attachment, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let id = {
            let mut state = lock(&self.state);
            self.resize(&mut state, size);
            let client = Client { size, events, backlog: Arc::clone(&backlog), behind: false };
            client.send(Bytes::from(state.screen.restore()));
            let id = state.next_client;
            state.next_client += 1;
            state.clients.insert(id, client);
            id
        };
        (Attachment { session: self, id, backlog }, receiver)
    }

    fn resize(&self, state: &mut State, size: Size) {
        if state.size != size {
            state.size = size;
            state.screen.resize(size);
            // Fails only where the program is gone, and then nobody looks.
            let _ = self.pty.resize(size);
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            name: self.name.clone(),
            pid: self.leader.as_raw_nonzero().get(),
            clients: lock(&self.state).clients.len(),
            started: self.started,
        }
    }

    /// Carries the program's output to the screen and the clients until it ends.
    async fn pump(self: Arc<Session>, agent: Arc<Agent>, mut ended: oneshot::Receiver<ExitCode>) {
        let mut buffer = vec![0; CHUNK];
        let code = loop {
            self.wait_for_room().await;
            tokio::select! {
                read = self.pty.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => self.publish(self.read_more(&mut buffer, count)),
                    _ => break (&mut ended).await.unwrap_or(255),
                },
                code = &mut ended => {
                    // What it wrote last; whoever still holds the terminal is hung up when it closes.
                    loop {
                        let count = self.pty.read_available(&mut buffer);
                        if count == 0 {
                            break;
                        }
                        self.publish(buffer.get(..count).unwrap_or_default());
                        self.wait_for_room().await;
                    }
                    break code.unwrap_or(255);
                }
            }
        };
        lock(&agent.sessions.0).remove(&self.name);
        agent.activity.end_session();
        for client in lock(&self.state).clients.values() {
            // A client that has gone needs no end.
            let _ = client.events.send(Event::End(code));
        }
    }

    /// A terminal gives 4 KiB at most at once: takes what else is there.
    fn read_more<'a>(&self, buffer: &'a mut [u8], mut count: usize) -> &'a [u8] {
        while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match self.pty.read_available(rest) {
                0 => break,
                more => count += more,
            }
        }
        buffer.get(..count).unwrap_or_default()
    }

    fn publish(&self, output: &[u8]) {
        let output = Bytes::copy_from_slice(output);
        let mut state = lock(&self.state);
        state.screen.process(&output);
        for client in state.clients.values().filter(|client| !client.behind) {
            client.send(output.clone());
        }
    }

    /// Returns when no client has too much waiting, or those that have were left behind.
    async fn wait_for_room(&self) {
        let crowded = || {
            let state = lock(&self.state);
            state.clients.values().any(|client| !client.behind && client.waiting() > BACKLOG_LIMIT)
        };
        while crowded() {
            if tokio::time::timeout(PATIENCE, self.room.notified()).await.is_err() {
                for client in lock(&self.state).clients.values_mut() {
                    client.behind |= client.waiting() > BACKLOG_LIMIT;
                }
            }
        }
    }
}

impl Client {
    fn waiting(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    fn send(&self, output: Bytes) {
        self.backlog.fetch_add(output.len(), Ordering::Relaxed);
        // A client that has gone detaches by itself.
        let _ = self.events.send(Event::Output(output));
    }
}

impl Attachment {
    /// The client has taken this much output.
    pub fn taken(&self, count: usize) {
        let before = self.backlog.fetch_sub(count, Ordering::Relaxed);
        if before > BACKLOG_LIMIT && before.saturating_sub(count) <= BACKLOG_LIMIT {
            self.session.room.notify_one();
        }
        if before == count {
            let mut state = lock(&self.session.state);
            let State { screen, clients, .. } = &mut *state;
            if let Some(client) = clients.get_mut(&self.id).filter(|client| client.behind) {
                client.behind = false;
                client.send(Bytes::from(screen.refresh()));
            }
        }
    }

    /// Input from this client. Its size becomes the session's: the one who types is the one who looks.
    pub async fn input(&self, data: Bytes) {
        {
            let mut state = lock(&self.session.state);
            if let Some(size) = state.clients.get(&self.id).map(|client| client.size) {
                self.session.resize(&mut state, size);
            }
        }
        self.session.input.push(data).await;
    }

    /// The client's terminal changed its size.
    pub fn resize(&self, size: Size) {
        let mut state = lock(&self.session.state);
        if let Some(client) = state.clients.get_mut(&self.id) {
            client.size = size;
        }
        self.session.resize(&mut state, size);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        lock(&self.session.state).clients.remove(&self.id);
        self.session.room.notify_one();
    }
}
