//! Services: programs that the agent keeps running while the pod does. What they write is in the pod's log.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Agent;
use super::control::{Address, ServiceState, ServiceStatus, seconds};
use super::reaper::{ExitCode, signal_group};
use crate::adapters::files;
use crate::adapters::sys::process::lead_session;
use crate::env;
use crate::error::{Context as _, Error, Kind, Result};
use crate::pod::spec::{Service, VAULT_MEMORY};
use crate::vault::keeper::remove_tree;

/// Where tokens are, and what services of the vault keep, in the pod's RAM.
pub(super) const DIRECTORY: &str = "services";
/// Bytes of chance in a token.
const TOKEN: usize = 32;
/// How soon a service that has ended is started again; each time twice as late …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this …
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// … until it has run for so long.
const STEADY: Duration = Duration::from_secs(60);
/// How often what it waits for is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long it gets between SIGTERM and SIGKILL when the vault is locked.
const GRACE: Duration = Duration::from_secs(10);
/// What a shell says where there is no such program, or it cannot be run.
const NO_PROGRAM: [ExitCode; 2] = [126, 127];

/// The pod's services.
#[derive(Debug, Default)]
pub struct Services(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    service: Service,
    state: ServiceState,
    starts: u32,
}

impl Services {
    /// Known, and not started.
    pub fn new(services: &[Service]) -> Services {
        let kept = services.iter().map(|service| Kept {
            service: service.clone(),
            state: ServiceState::Waiting { r#for: "the workspace".into() },
            starts: 0,
        });
        Services(Mutex::new(kept.collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, state: ServiceState) {
        if let Some(kept) = self.lock().iter_mut().find(|kept| kept.service.name == name) {
            kept.starts += u32::from(matches!(state, ServiceState::Running { .. }));
            kept.state = state;
        }
    }

    /// All of them.
    pub fn list(&self) -> Vec<ServiceStatus> {
        let status = |kept: &Kept| ServiceStatus {
            name: kept.service.name.clone(),
            port: kept.service.port,
            starts: kept.starts,
            state: kept.state.clone(),
        };
        self.lock().iter().map(status).collect()
    }

    /// Of those that listen.
    pub fn addresses(&self) -> Vec<Address> {
        let address = |kept: &Kept| {
            let service = &kept.service;
            let url =
                service.url.as_ref().map(|url| match wants_token(service).then(|| token(&service.name)) {
                    Some(Ok((_, token))) => url.replace("{token}", &token),
                    _ => url.clone(),
                });
            Some(Address { name: service.name.clone(), port: service.port?, url })
        };
        self.lock().iter().filter_map(address).collect()
    }
}

/// Starts them all, each as soon as it can, and again when it has ended, until what is returned is dropped.
pub(super) fn keep_running(agent: &Arc<Agent>) -> JoinSet<()> {
    let kept = agent.boot.services.iter().map(|service| keep(Arc::clone(agent), service.clone()));
    kept.collect()
}

async fn keep(agent: Arc<Agent>, service: Service) {
    let name = service.name.as_str();
    let mut pause = FIRST_PAUSE;
    loop {
        while let Some(missing) = missing(&agent, &service) {
            agent.services.set(name, ServiceState::Waiting { r#for: missing.into() });
            tokio::time::sleep(LOOK).await;
        }
        let begun = Instant::now();
        let dependent = service.vault.then(|| agent.vault.serves());
        let why = match start(&agent, &service) {
            Ok((leader, ended)) => {
                let started = seconds(SystemTime::now());
                agent
                    .services
                    .set(name, ServiceState::Running { pid: leader.as_raw_nonzero().get(), started });
                let ended = run(&agent, &service, leader, ended).await;
                if service.vault {
                    // What it kept of the vault there goes with it.
                    let kept = memory(name);
                    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || remove_tree(&kept)).await {
                        log(name, &error.to_string());
                    }
                }
                drop(dependent);
                match ended {
                    None => continue,
                    Some(code) if NO_PROGRAM.contains(&code) => Err(format!("it ended with status {code}")),
                    Some(code) => {
                        if code == 0 {
                            // Its work was done, and there may be more.
                            pause = FIRST_PAUSE;
                        }
                        Ok(format!("it ended with status {code}"))
                    }
                }
            }
            Err(error) => {
                drop(dependent);
                let why = format!("it cannot be started: {error}");
                let never = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
                if never { Err(why) } else { Ok(why) }
            }
        };
        let why = match why {
            Ok(why) => why,
            Err(why) => {
                log(name, &format!("{why}; it is not started again"));
                agent.services.set(name, ServiceState::Failed { why });
                return;
            }
        };
        if begun.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        log(name, &format!("{why}; it is started again in {} s", pause.as_secs()));
        agent.services.set(name, ServiceState::Ended { why });
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What must be there first.
fn missing(agent: &Agent, service: &Service) -> Option<&'static str> {
    if agent.boot.missing_share().is_some() {
        return Some("the workspace");
    }
    (service.vault && !agent.vault.is_for_services()).then_some("the vault to be opened")
}

/// Its status; `None` where it was ended because the vault is, or is to be, locked.
async fn run(
    agent: &Agent,
    service: &Service,
    leader: Pid,
    mut ended: oneshot::Receiver<ExitCode>,
) -> Option<ExitCode> {
    let locked = async {
        while agent.vault.is_for_services() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        code = &mut ended => return Some(code.unwrap_or(255)),
        () = locked, if service.vault => {}
    }
    signal_group(leader, Signal::TERM);
    // And who is left of its group.
    let _ = tokio::time::timeout(GRACE, &mut ended).await;
    let _ = kill_process_group(leader, Signal::KILL);
    None
}

fn start(agent: &Agent, service: &Service) -> io::Result<(Pid, oneshot::Receiver<ExitCode>)> {
    let [program, arguments @ ..] = service.command.as_slice() else {
        return Err(ErrorKind::NotFound.into());
    };
    let mut extra = BTreeMap::new();
    extra.extend(service.port.map(|port| (env::TAZPOD_PORT.to_owned(), port.to_string())));
    if wants_token(service) {
        let (path, _) = token(&service.name).map_err(io::Error::other)?;
        extra.insert(env::TAZPOD_TOKEN_FILE.to_owned(), path.to_string_lossy().into_owned());
    }
    if service.vault {
        make_private(&memory(&service.name))?;
    }
    let environment = if service.vault { agent.environment(&extra) } else { agent.user.environment(&extra) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(agent.user.directory(None))
        .stdin(Stdio::null());
    lead_session(&mut command, false);
    agent.reaper.spawn(&mut command)
}

/// The directory in RAM of a service of the vault.
fn memory(name: &str) -> PathBuf {
    Path::new(VAULT_MEMORY).join(DIRECTORY).join(name)
}

fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn wants_token(service: &Service) -> bool {
    service.url.as_ref().is_some_and(|url| url.contains("{token}"))
}

/// The file of a service's token, and what is in it. It is made when it is first asked for, and stays the same while the pod runs.
fn token(name: &str) -> Result<(PathBuf, String)> {
    let directory = Path::new(VAULT_MEMORY).join(DIRECTORY);
    let path = directory.join(format!("{name}.token"));
    match fs::read_to_string(&path) {
        Ok(text) => return Ok((path, text)),
        Err(source) if source.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(Error::io("read", &path, source)),
    }
    let mut random = [0; TOKEN];
    getrandom::fill(&mut random).context(Kind::Failure, || "the system has no randomness")?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    make_private(&directory).map_err(|source| Error::io("make", &directory, source))?;
    files::write_atomically(&path, text.as_bytes(), 0o600)?;
    Ok((path, text))
}

fn log(name: &str, text: &str) {
    // PID 1's stderr is the pod's log.
    let _ = io::stderr().write_all(format!("tazpod: the service {name}: {text}\n").as_bytes());
}
