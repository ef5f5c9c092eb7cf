use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::context::Context;
use crate::error::Result;
use crate::pod::vault::Vault;
use crate::ui;
use crate::vault::commit::Commit;
use crate::vault::local::Object;
use crate::vault::pruned::Pruned;
use crate::vault::sync;

/// Show the vault's commits that this machine has, newest first.
///
/// `*` is the line that everybody follows; `o`, beside it, is a side that lost, or a save that looked wrong: held here or, of other
/// machines, a branch in the store, until `restore` makes it current. A merge names the side that it took.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ask the store for sides that lost on other machines, too.
    #[arg(long)]
    branches: bool,
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
    /// What it follows; of a merge also the side that it took.
    parents: Vec<String>,
    kind: &'static str,
    host: String,
    time: String,
    /// Of the sealed generation, in bytes.
    size: u64,
    /// `pushed`, `pending`, `held`, `branch`, or `pruned`: the state is gone, the commit is not.
    state: &'static str,
}

impl CommitReport {
    fn of(commit: &Commit, state: &'static str) -> CommitReport {
        let body = &commit.body;
        CommitReport {
            n: body.n,
            hash: commit.hash.to_string(),
            parents: body.parents.iter().map(ToString::to_string).collect(),
            kind: body.kind.describe(),
            host: body.host.clone(),
            time: body.time.clone(),
            size: body.size,
            state,
        }
    }
}

impl CommitReport {
    fn into_row(self) -> [String; 8] {
        let short = |hash: &str| hash.chars().take(10).collect::<String>();
        let line = if matches!(self.state, "held" | "branch") { "| o" } else { "*" };
        let hash = match self.parents.get(1) {
            Some(other) => format!("{} <- {}", short(&self.hash), short(other)),
            None => short(&self.hash),
        };
        let size = ui::size(i64::try_from(self.size).unwrap_or(i64::MAX));
        [
            line.into(),
            self.n.to_string(),
            self.state.into(),
            self.kind.into(),
            size,
            self.time,
            self.host,
            hash,
        ]
    }
}

impl Args {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let local = vault.local();
        let state = local.load()?;
        let pruned = state.seen.map(|seen| Pruned::here(&local, &seen.vault)).transpose()?;
        let mut pushed = Vec::new();
        for n in 1..=state.seen.map_or(0, |seen| seen.n) {
            pushed.extend(local.commit(n)?);
        }
        // By the last commit of each state: one that was restored after it was pruned is there.
        let last: BTreeMap<_, _> =
            pushed.iter().map(|commit| (commit.body.generation, commit.body.n)).collect();
        let gone = |commit: &Commit| {
            let (generation, n) = (&commit.body.generation, last.get(&commit.body.generation).copied());
            let key = Object::Generation.key(generation);
            let recorded = pruned.as_ref().zip(n).is_some_and(|(pruned, n)| pruned.covers(&key, n));
            recorded && !local.has(Object::Generation, generation)
        };
        let report = |commit| CommitReport::of(commit, if gone(commit) { "pruned" } else { "pushed" });
        let mut commits: Vec<CommitReport> = pushed.iter().map(report).collect();
        commits.extend(state.outbox.iter().map(|outgoing| CommitReport::of(&outgoing.commit, "pending")));
        commits.extend(local.held()?.iter().map(|commit| CommitReport::of(commit, "held")));
        if self.branches {
            let _step = context.ui.step(format!("asking {}", vault.store.describe()));
            let branches = sync::branches(&local, &*vault.store).await?;
            let known: BTreeSet<String> = commits.iter().map(|commit| commit.hash.clone()).collect();
            let others = branches.iter().filter(|commit| !known.contains(&commit.hash.to_string()));
            commits.extend(others.map(|commit| CommitReport::of(commit, "branch")));
        }
        commits.sort_by(|a, b| (b.n, &b.time).cmp(&(a.n, &a.time)));
        if self.json {
            return context.ui.json(&Report { version: 1, commits });
        }
        let rows: Vec<[String; 8]> = commits.into_iter().map(CommitReport::into_row).collect();
        context.ui.data(ui::table(["", "N", "STATE", "KIND", "SIZE", "TIME", "HOST", "HASH"], &rows))
    }
}
