use std::time::Duration;

use serde::Serialize;

use super::attach;
use super::stop::{self, Found};
use super::up::spec_of;
use crate::agent::control::{self, Answer, Request, ServiceState, ServiceStatus};
use crate::context::Context;
use crate::error::Result;
use crate::pod::ownership::Ownership;
use crate::pod::spec::label;
use crate::pod::target::PodArgs;

/// Show a pod's state, sessions and services.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    name: String,
    vertical: String,
    workspace: String,
    engine: String,
    state: String,
    image: String,
    ownership: Option<Ownership>,
    /// Build of the running agent.
    agent: Option<String>,
    /// Why the agent does not answer.
    problem: Option<String>,
    sessions: Vec<Session>,
    services: Vec<ServiceStatus>,
}

#[derive(Debug, Serialize)]
struct Session {
    name: String,
    pid: i32,
    clients: usize,
    started_unix: u64,
}

impl Args {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<()> {
        for Found { engine, pod, summary } in stop::find(context, &self.pod, false).await? {
            let summary = summary.ok_or_else(|| stop::gone(&pod))?;
            let mut report = Report {
                version: 1,
                name: summary.name.clone(),
                vertical: summary.label(label::VERTICAL).to_owned(),
                workspace: summary.label(label::WORKSPACE).to_owned(),
                engine: engine.endpoint().to_string(),
                state: summary.state.clone(),
                image: summary.image.clone(),
                ownership: spec_of(&summary).ok().map(|spec| spec.ownership),
                agent: None,
                problem: None,
                sessions: Vec::new(),
                services: Vec::new(),
            };
            if let Ok(spec) = spec_of(&summary) {
                report.image = spec.image;
            }
            if summary.is_running() {
                let asked = async {
                    let record = pod.record()?;
                    attach::open(&pod, &record).await?.control(&Request::Status).await
                };
                match asked.await {
                    Ok(Answer::Status(status)) => {
                        report.agent = Some(status.build);
                        report.problem = status
                            .missing_share
                            .map(|path| format!("`{path}` is not mounted; `tazpod up` mounts it again"));
                        report.services = status.services;
                        report.sessions = status.sessions.into_iter().map(Session::from).collect();
                    }
                    Ok(other) => report.problem = Some(format!("unexpected answer {other:?}")),
                    Err(error) => report.problem = Some(error.to_string()),
                }
            }
            if self.json {
                context.ui.json(&report)?;
            } else {
                print(context, &report)?;
            }
        }
        Ok(())
    }
}

fn print(context: &Context, report: &Report) -> Result<()> {
    let mut lines = vec![
        ("pod", report.name.clone()),
        ("state", report.state.clone()),
        ("vertical", report.vertical.clone()),
        ("workspace", report.workspace.clone()),
        ("image", report.image.clone()),
        ("engine", report.engine.clone()),
    ];
    lines.extend(report.agent.clone().map(|build| ("agent", build)));
    lines.extend(report.problem.clone().map(|problem| ("problem", problem)));
    for session in &report.sessions {
        let clients = match session.clients {
            1 => "1 client".to_owned(),
            n => format!("{n} clients"),
        };
        let age = control::age(session.started_unix);
        let text = format!("{} ({clients}, pid {}, for {})", session.name, session.pid, duration(age));
        lines.push(("session", text));
    }
    lines.extend(report.services.iter().map(|service| ("service", describe(service))));
    let lines: Vec<_> =
        lines.iter().map(|(name, value)| format!("{:<10} {value}", format!("{name}:"))).collect();
    context.ui.data(lines.join("\n"))
}

fn describe(ServiceStatus { name, port, starts, state }: &ServiceStatus) -> String {
    match state {
        ServiceState::Waiting { r#for: waited } => format!("{name} (waits for {waited})"),
        ServiceState::Running { pid, started } => {
            let port = port.map(|port| format!("port {port}, ")).unwrap_or_default();
            let starts = if *starts > 1 { format!(", start {starts}") } else { String::new() };
            format!("{name} ({port}pid {pid}, for {}{starts})", duration(control::age(*started)))
        }
        ServiceState::Ended { why } => format!("{name} ({why}; it is started again)"),
        ServiceState::Failed { why } => format!("{name} ({why}; it is not started again)"),
    }
}

fn duration(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

impl From<control::SessionStatus> for Session {
    fn from(status: control::SessionStatus) -> Session {
        Session { name: status.name, pid: status.pid, clients: status.clients, started_unix: status.started }
    }
}
