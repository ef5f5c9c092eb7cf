use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::Vault;
use crate::ui;
use crate::vault::sync::{self, Verified};

/// Check what the store has: signatures, order, and that nothing is missing. Changes nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read every object, and compare its hash.
    #[arg(long)]
    read_data: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    store: String,
    commits: u64,
    objects: u64,
    bytes: u64,
    pruned: u64,
    unnamed: u64,
    problems: Vec<String>,
}

impl Args {
    /// Checks it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let step = context.ui.step(format!("checking {}", vault.store.describe()));
        let found = sync::verify(&vault.local(), &*vault.store, self.read_data).await?;
        drop(step);
        let Verified { commits, objects, bytes, pruned, unnamed, mut problems, aside } = found;
        problems.extend(aside);
        let bad = problems.len();
        if self.json {
            let store = vault.store.describe();
            let report = Report { version: 1, store, commits, objects, bytes, pruned, unnamed, problems };
            context.ui.json(&report)?;
        } else {
            problems.iter().for_each(|problem| context.ui.warn(problem));
            let size = ui::size(i64::try_from(bytes).unwrap_or(i64::MAX));
            context.ui.data(format!(
                "{commits} commits, {objects} objects of {size}, {pruned} more that were pruned, {unnamed} that no commit names"
            ))?;
        }
        if bad > 0 {
            let what = format!("{bad} things are wrong with {}", vault.store.describe());
            return Err(Error::new(Kind::Integrity, what)
                .hint("`tazpod vault push --read-data` on a machine that has the newest state puts back what of it is missing or damaged"));
        }
        Ok(())
    }
}
