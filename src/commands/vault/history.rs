use serde::Serialize;

use crate::context::Context;
use crate::error::Result;
use crate::pod::vault::Vault;
use crate::ui;
use crate::vault::commit::Commit;

/// Show the vault's commits that this machine has, newest first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    commits: Vec<CommitReport>,
}

#[derive(Serialize)]
struct CommitReport {
    n: u64,
    hash: String,
    kind: &'static str,
    host: String,
    time: String,
    /// Of the sealed generation, in bytes.
    size: u64,
    /// `pushed`, `pending` or `held`.
    state: &'static str,
}

impl CommitReport {
    fn of(commit: &Commit, state: &'static str) -> CommitReport {
        let body = &commit.body;
        CommitReport {
            n: body.n,
            hash: commit.hash.to_string(),
            kind: body.kind.describe(),
            host: body.host.clone(),
            time: body.time.clone(),
            size: body.size,
            state,
        }
    }
}

impl Args {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let local = Vault::open(context).await?.local();
        let state = local.load()?;
        let mut commits: Vec<CommitReport> = Vec::new();
        for n in 1..=state.seen.map_or(0, |seen| seen.n) {
            commits.extend(local.commit(n)?.map(|commit| CommitReport::of(&commit, "pushed")));
        }
        commits.extend(state.outbox.iter().map(|outgoing| CommitReport::of(&outgoing.commit, "pending")));
        commits.extend(local.held()?.iter().map(|commit| CommitReport::of(commit, "held")));
        commits.sort_by_key(|commit| std::cmp::Reverse(commit.n));
        if self.json {
            return context.ui.json(&Report { version: 1, commits });
        }
        let rows: Vec<[String; 7]> = commits
            .into_iter()
            .map(|commit| {
                let size = ui::size(i64::try_from(commit.size).unwrap_or(i64::MAX));
                let short = commit.hash.chars().take(10).collect();
                [
                    commit.n.to_string(),
                    commit.state.into(),
                    commit.kind.into(),
                    size,
                    commit.time,
                    commit.host,
                    short,
                ]
            })
            .collect();
        context.ui.data(ui::table(["N", "STATE", "KIND", "SIZE", "TIME", "HOST", "HASH"], &rows))
    }
}
