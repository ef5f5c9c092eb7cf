use futures_util::TryStreamExt;

use super::stop::{self, Found};
use crate::context::Context;
use crate::error::Result;
use crate::pod::target::PodArgs;

/// Show what a pod's agent and services wrote.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// Go on as more is written.
    #[arg(short, long)]
    follow: bool,
    /// The last lines only: a number, or `all`.
    #[arg(long, default_value = "all", value_name = "N")]
    tail: String,
}

impl Args {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<()> {
        for Found { engine, pod, summary } in stop::find(context, &self.pod, false).await? {
            let summary = summary.ok_or_else(|| stop::gone(&pod))?;
            let mut log = Box::pin(engine.logs(&summary.name, self.follow, &self.tail));
            while let Some(chunk) = log.try_next().await? {
                context.ui.raw(&chunk)?;
            }
        }
        Ok(())
    }
}
