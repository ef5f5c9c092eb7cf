use serde::Serialize;

use crate::adapters::exposure;
use crate::agent::vault::{Answer, Request};
use crate::commands::attach;
use crate::context::Context;
use crate::error::Result;
use crate::link::inside;
use crate::pod::spec::VAULT_MEMORY;
use crate::pod::vault::{self, Vault};
use crate::vault::id::VaultId;

/// Show what this machine knows of the vault, and where it is open. The store is not asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    store: String,
    vault: Option<String>,
    fingerprint: Option<String>,
    /// The newest commit here.
    commit: Option<u64>,
    /// The newest commit that the store is known to have.
    pushed: Option<u64>,
    /// Commits that wait to be pushed.
    pending: Vec<u64>,
    /// Saves that looked wrong.
    held: usize,
    /// Pods in which it is open.
    open: Vec<String>,
    /// How this machine may write memory to its disks.
    exposed_by: Vec<String>,
}

impl Args {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<()> {
        if let Some(socket) = inside::socket() {
            return self.inside(context, inside::ask(&socket, &Request::State, None).await?);
        }
        let vault = Vault::open(context).await?;
        let local = vault.local();
        let state = local.load()?;
        let head = state.tip.map(|_| vault.head()).transpose()?;
        let mut report = Report {
            version: 1,
            store: vault.store.describe(),
            vault: head.as_ref().map(|head| head.body.vault.to_string()),
            fingerprint: head.as_ref().map(|head| head.fingerprint().to_string()),
            commit: head.as_ref().map(|head| head.body.n),
            pushed: state.seen.map(|seen| seen.n),
            pending: state.outbox.iter().map(|outgoing| outgoing.commit.body.n).collect(),
            held: local.held()?.len(),
            open: Vec::new(),
            exposed_by: exposure::swap()
                .map(|swap| format!("swap ({swap})"))
                .into_iter()
                .chain(exposure::core_dumps().map(|program| format!("core dumps ({program})")))
                .collect(),
        };
        for (pod, record) in context.state()?.pods() {
            if !pod.vault_name().exists() {
                continue;
            }
            let Ok(link) = attach::open(&pod, &record).await else { continue };
            if let Ok(Answer::State { open: Some(_), .. }) = link.vault(&Request::State, None).await {
                report.open.push(pod.name().to_owned());
            }
        }
        if self.json {
            return context.ui.json(&report);
        }
        let number = |n: Option<u64>| n.map_or_else(|| "none".to_owned(), |n| n.to_string());
        let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        let lines = [
            ("store", report.store),
            ("vault", report.vault.unwrap_or_else(|| "none".into())),
            ("fingerprint", report.fingerprint.unwrap_or_else(|| "none".into())),
            ("commit", number(report.commit)),
            ("pushed", number(report.pushed)),
            ("pending", list(report.pending.iter().map(u64::to_string).collect())),
            ("held", report.held.to_string()),
            ("open in", list(report.open)),
            ("exposed by", list(report.exposed_by)),
        ];
        let lines: Vec<_> =
            lines.iter().map(|(name, value)| format!("{:<12} {value}", format!("{name}:"))).collect();
        context.ui.data(lines.join("\n"))
    }

    /// What a pod knows of itself.
    fn inside(&self, context: &Context, answer: Answer) -> Result<()> {
        let Answer::State { open, .. } = answer else { return Err(vault::unexpected(&answer)) };
        if self.json {
            return context.ui.json(&Inside { version: 1, open });
        }
        match open {
            Some(vault) => context.ui.data(format!("the vault {vault} is open at {VAULT_MEMORY}/open")),
            None => context.ui.data("the vault is locked; `tazpod vault unlock` on the host opens it"),
        }
    }
}

#[derive(Serialize)]
struct Inside {
    version: u32,
    open: Option<VaultId>,
}
