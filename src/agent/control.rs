//! The subsystem by which a client asks the agent about itself: one JSON request, one JSON answer.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Agent;
use super::boot::ExpectedShare;

/// The subsystem's name (RFC 4250, 4.6.1: local names have an `@`).
pub const SUBSYSTEM: &str = "control@tazpod";

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// What the agent is and which sessions there are.
    Status,
    /// Where services listen, and with which token.
    Services,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Services`].
    Services {
        /// Those that listen.
        services: Vec<Address>,
    },
    /// Not done.
    Refused {
        /// Why.
        reason: String,
    },
}

/// The agent's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version and hash of the sources.
    pub build: String,
    /// Sessions by name.
    pub sessions: Vec<SessionStatus>,
    /// Services.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// A share that is not mounted as it must be.
    pub missing_share: Option<String>,
    /// The shares as they must be.
    pub shares: Vec<ExpectedShare>,
}

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its name.
    pub name: String,
    /// Process id of its program in the pod.
    pub pid: i32,
    /// Clients attached now.
    pub clients: usize,
    /// When it began, in seconds since 1970.
    pub started: u64,
}

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Where it listens on the pod's loopback interface.
    pub port: Option<u16>,
    /// How often it was started.
    pub starts: u32,
    /// What it is about.
    #[serde(flatten)]
    pub state: ServiceState,
}

/// What a service is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ServiceState {
    /// Not started: something is not there yet.
    Waiting {
        /// What.
        r#for: String,
    },
    /// It runs.
    Running {
        /// Process id in the pod.
        pid: i32,
        /// When it began, in seconds since 1970.
        started: u64,
    },
    /// It has ended, and will be started again.
    Ended {
        /// How.
        why: String,
    },
    /// It cannot be started in this image, and is not tried again.
    Failed {
        /// Why.
        why: String,
    },
}

/// Where a service listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Address {
    /// The service.
    pub name: String,
    /// On the pod's loopback interface.
    pub port: u16,
    /// As the catalog has it, with `{port}` left to be filled in and the token, which is secret, in its place.
    pub url: Option<String>,
}

/// Answers a request.
pub(super) fn answer(agent: &Agent, request: &[u8]) -> Answer {
    match serde_json::from_slice(request) {
        Ok(Request::Status) => Answer::Status(Status {
            build: crate::BUILD.to_owned(),
            sessions: agent.sessions.list().into_iter().map(SessionStatus::from).collect(),
            services: agent.services.list(),
            missing_share: agent.boot.missing_share().map(|path| path.display().to_string()),
            shares: agent.boot.shares.clone(),
        }),
        Ok(Request::Services) => Answer::Services { services: agent.services.addresses() },
        Err(error) => Answer::Refused { reason: format!("not a request that this agent knows: {error}") },
    }
}

impl From<super::session::Summary> for SessionStatus {
    fn from(summary: super::session::Summary) -> SessionStatus {
        let started = seconds(summary.started);
        SessionStatus { name: summary.name, pid: summary.pid, clients: summary.clients, started }
    }
}

/// Since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Seconds since 1970 as how long ago that is.
pub fn age(started: u64) -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH + std::time::Duration::from_secs(started)).unwrap_or_default()
}
