use super::stop::{self, Found};
use crate::context::Context;
use crate::error::Result;
use crate::pod::target::PodArgs;
use crate::pod::vault;

/// Stop a pod and remove it, with everything in it outside /workspace.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// All pods of this workspace.
    #[arg(long, conflicts_with = "pod")]
    all: bool,
}

impl Args {
    /// Removes it.
    pub async fn run(self, context: &Context) -> Result<()> {
        for Found { engine, pod, summary } in stop::find(context, &self.pod, self.all).await? {
            let _lock = stop::lock(context, &pod).await?;
            let _step = context.ui.step(format!("removing {}", pod.name()));
            if let Some(summary) = summary {
                vault::close_in(context, &pod).await?;
                engine.stop(&summary.name, stop::GRACE).await?;
                engine.remove(&summary.name).await?;
            }
            // What the pod has saved of the vault outlives it.
            vault::collect_from(context, &pod).await?;
            pod.remove()?;
            context.ui.status(format!("removed {}", pod.name()));
        }
        Ok(())
    }
}
