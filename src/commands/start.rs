use super::stop::{self, Found};
use super::up::spec_of;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::launch;
use crate::pod::spec::label;
use crate::pod::target::PodArgs;

/// Start a stopped pod, without entering it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
}

impl Args {
    /// Starts it.
    pub async fn run(self, context: &Context) -> Result<()> {
        for Found { engine, pod, summary } in stop::find(context, &self.pod, false).await? {
            let summary = summary.ok_or_else(|| stop::gone(&pod))?;
            let _lock = stop::lock(context, &pod).await?;
            if summary.is_running() {
                return Err(Error::new(Kind::Failure, format!("`{}` runs already", pod.name()))
                    .hint("`tazpod attach` enters it"));
            }
            let spec = spec_of(&summary)?;
            let (stopping, name) = (engine.clone(), summary.name.clone());
            let armed = context.arm(async move {
                // It was stopped before; a failure to stop it again is the engine's to show.
                let _ = stopping.stop(&name, std::time::Duration::from_secs(1)).await;
            });
            launch::start(context, &engine, &spec, summary.label(label::IMAGE), &pod).await?;
            context.disarm(armed);
            context.ui.status(format!("started {}", pod.name()));
        }
        Ok(())
    }
}
