use serde::Serialize;

use crate::adapters::store::{Outcome, Probe, Role, Step};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::ui;

/// Make the store's place, or check it: once for each store, with credentials that may.
///
/// A bucket is made if it is not there, keeps versions, is never public, encrypts, and clears up what is left over. Then the server is
/// tried out: whether it honours what a vault needs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the least that credentials for this purpose must allow, as an IAM policy, and ask nothing of the store.
    #[arg(long, value_name = "PURPOSE", conflicts_with = "json")]
    policy: Option<Purpose>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What credentials are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Purpose {
    /// Pull, save and push. They remove nothing, and overwrite no commit.
    Daily,
    /// `vault prune` as well.
    Maintenance,
    /// This command.
    Setup,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    store: String,
    steps: Vec<StepReport>,
    /// What the server honours; of a directory nothing.
    probe: Option<ProbeReport>,
}

#[derive(Serialize)]
struct StepReport {
    what: &'static str,
    /// `done`, `was-so`, `not-supported`, `failed` or `warning`.
    outcome: &'static str,
    why: Option<String>,
}

#[derive(Serialize)]
struct ProbeReport {
    conditional_create: bool,
    checksums: bool,
    hashes: bool,
    read_after_write: bool,
    list_after_write: bool,
    may_delete: bool,
}

impl StepReport {
    fn of(step: Step) -> StepReport {
        let (outcome, why) = match step.outcome {
            Outcome::Done => ("done", None),
            Outcome::WasSo => ("was-so", None),
            Outcome::NotSupported => ("not-supported", None),
            Outcome::Failed(why) => ("failed", Some(Error::from(why).to_string())),
            Outcome::Warning(why) => ("warning", Some(why)),
        };
        StepReport { what: step.what, outcome, why }
    }
}

impl ProbeReport {
    fn of(probe: Probe) -> ProbeReport {
        let Probe { conditional_create, checksums, hashes, read_after_write, list_after_write, may_delete } =
            probe;
        ProbeReport { conditional_create, checksums, hashes, read_after_write, list_after_write, may_delete }
    }
}

impl Args {
    /// Sets it up.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        if let Some(purpose) = self.policy {
            let role = match purpose {
                Purpose::Daily => Role::Daily,
                Purpose::Maintenance => Role::Maintenance,
                Purpose::Setup => Role::Setup,
            };
            let policy = vault.policy(role).ok_or_else(|| {
                let store = vault.store.describe();
                Error::new(Kind::Usage, format!("the store, `{store}`, is a directory: it has no IAM policy"))
                    .hint("its permissions are those of the file system; `[vault] address` in `config.toml` names a bucket")
            })?;
            return context.ui.data(policy);
        }
        let _lock = vault::lock(context).await?;
        let step = context.ui.step(format!("setting up {}", vault.store.describe()));
        let steps: Vec<_> = vault.store.setup().await?.into_iter().map(StepReport::of).collect();
        drop(step);
        let failed = steps.iter().filter(|step| step.outcome == "failed").count();
        if !self.json {
            let rows: Vec<[String; 3]> = steps
                .iter()
                .map(|step| {
                    let outcome = step.outcome.replace('-', " ");
                    [outcome, step.what.to_owned(), step.why.clone().unwrap_or_default()]
                })
                .collect();
            context.ui.data(ui::table(["OUTCOME", "WHAT", "WHY"], &rows))?;
        }
        let probe = vault.probe(context).await;
        if self.json {
            // What was set up is told, whatever became of the rest.
            let (store, found) = (vault.store.describe(), probe.as_ref().ok().copied().flatten());
            context.ui.json(&Report { version: 1, store, steps, probe: found.map(ProbeReport::of) })?;
        }
        if let Some(probe) = probe? {
            probe.shortcomings().iter().for_each(|shortcoming| context.ui.warn(shortcoming));
        }
        match failed {
            0 => Ok(()),
            failed => Err(Error::new(
                Kind::Store,
                format!("{failed} things of {} are not set up", vault.store.describe()),
            )
            .hint("`tazpod vault setup-storage --policy setup` shows what the credentials must allow")),
        }
    }
}
