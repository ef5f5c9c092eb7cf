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
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
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

/// Answers a request.
pub(super) fn answer(agent: &Agent, request: &[u8]) -> Answer {
    match serde_json::from_slice(request) {
        Ok(Request::Status) => Answer::Status(Status {
            build: crate::BUILD.to_owned(),
            sessions: agent.sessions.list().into_iter().map(SessionStatus::from).collect(),
            missing_share: agent.boot.missing_share().map(|path| path.display().to_string()),
            shares: agent.boot.shares.clone(),
        }),
        Err(error) => Answer::Refused { reason: format!("not a request that this agent knows: {error}") },
    }
}

impl From<super::session::Summary> for SessionStatus {
    fn from(summary: super::session::Summary) -> SessionStatus {
        let started = summary.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        SessionStatus { name: summary.name, pid: summary.pid, clients: summary.clients, started }
    }
}

/// Seconds since 1970 as how long ago that is.
pub fn age(started: u64) -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH + std::time::Duration::from_secs(started)).unwrap_or_default()
}
