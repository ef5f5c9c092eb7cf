use std::num::NonZeroU64;
use std::time::Duration;

use serde::Serialize;

use crate::context::Context;
use crate::error::Result;
use crate::pod::vault::{self, Vault};
use crate::ui;
use crate::vault::prune::{self, Doomed, Rules};
use crate::vault::pruned;

/// Remove from the store what is not needed any more. Nothing else ever does.
///
/// Without further options only objects that no commit names go, leftovers of pushes that broke off. Commits always stay, and so does
/// the newest state.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the states of the newest so many commits; those of earlier ones go.
    #[arg(long, value_name = "N")]
    keep_last: Option<NonZeroU64>,
    /// Keep the states of commits that the store got within this time, as in `90d`, `12h` or `8w`; those of earlier ones go.
    #[arg(long, value_name = "TIME", value_parser = time)]
    keep_within: Option<Duration>,
    /// Count as pruned what the store has lost of earlier states: it does not stand in the way any more, and `verify` is content.
    #[arg(long)]
    accept_lost: bool,
    /// Show what would go.
    #[arg(long)]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    store: String,
    /// Whether nothing was removed.
    dry_run: bool,
    objects: Vec<ObjectReport>,
    /// Of all of them.
    bytes: u64,
    /// How many objects no commit names, and are too young to go.
    spared: u64,
}

#[derive(Serialize)]
struct ObjectReport {
    key: String,
    size: u64,
    /// The last commit that names it.
    commit: Option<u64>,
}

impl Args {
    /// Removes it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        let Args { keep_last, keep_within, accept_lost, dry_run, json } = self;
        let step = context.ui.step(format!("checking {}", vault.store.describe()));
        let rules = Rules { keep_last, keep_within, spare: Rules::SPARE, accept_lost };
        let plan = prune::plan(&vault.local(), &*vault.store, &rules).await?;
        drop(step);
        if !json && !plan.objects.is_empty() {
            let rows: Vec<[String; 3]> = plan.objects.iter().map(row).collect();
            context.ui.data(ui::table(["OBJECT", "SIZE", "COMMIT"], &rows))?;
        }
        let mut gone = Vec::new();
        if dry_run {
            gone.clone_from(&plan.objects);
        } else {
            let step = context.ui.step(format!("pruning {}", vault.store.describe()));
            prune::carry_out(&*vault.store, &plan, |object| gone.push(object.clone())).await?;
            pruned::fetch(&vault.local(), &*vault.store).await?;
            drop(step);
        }
        let (count, bytes) = (gone.len(), gone.iter().map(|object| object.size).sum());
        if json {
            let objects = gone.into_iter();
            return context.ui.json(&Report {
                version: 1,
                store: vault.store.describe(),
                dry_run,
                objects: objects
                    .map(|Doomed { key, size, commit }| ObjectReport { key, size, commit })
                    .collect(),
                bytes,
                spared: plan.spared,
            });
        }
        let size = ui::size(i64::try_from(bytes).unwrap_or(i64::MAX));
        let verb = if dry_run { "would remove" } else { "removed" };
        context.ui.status(format!("{verb} {count} objects, {size}"));
        if plan.spared > 0 {
            context.ui.status(format!(
                "{} objects that no commit names are younger than a day, and stay",
                plan.spared
            ));
        }
        Ok(())
    }
}

fn row(object: &Doomed) -> [String; 3] {
    let size = ui::size(i64::try_from(object.size).unwrap_or(i64::MAX));
    let commit = object.commit.map_or_else(|| "none".to_owned(), |n| n.to_string());
    [object.key.clone(), size, commit]
}

/// `12h`, `90d` or `8w`. No shorter units, as other times have them: who means three months by `3m` must not keep three minutes.
fn time(text: &str) -> Result<Duration, String> {
    let hours = |unit| match unit {
        'h' => Some(1),
        'd' => Some(24),
        'w' => Some(24 * 7),
        _ => None,
    };
    let amount = text.char_indices().next_back().and_then(|(at, unit)| {
        let number: NonZeroU64 = text.get(..at)?.parse().ok()?;
        number.get().checked_mul(hours(unit)?)?.checked_mul(60 * 60)
    });
    amount
        .map(Duration::from_secs)
        .ok_or_else(|| "it is a number of hours, days or weeks: `12h`, `90d`, `8w`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let hours = |hours: u64| Ok(Duration::from_secs(hours * 3600));
        assert_eq!((time("12h"), time("90d"), time("8w")), (hours(12), hours(90 * 24), hours(8 * 7 * 24)));
        for bad in [
            "",
            "d",
            "0d",
            "-1d",
            "90",
            "90m",
            "1.5d",
            "99999999999999999999d",
            "18446744073709551615w",
            "5é",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
