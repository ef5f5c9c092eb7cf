use std::time::Duration;

use crate::adapters::engine::{Endpoint, Engine, PodSummary};
use crate::adapters::state::PodDir;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::spec::label;
use crate::pod::target::PodArgs;
use crate::pod::vault;

/// Between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(10);

/// Stop a pod; `start` or `up` brings it back as it was, without its running programs.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
}

impl Args {
    /// Stops it.
    pub async fn run(self, context: &Context) -> Result<()> {
        for Found { engine, pod, summary } in find(context, &self.pod, false).await? {
            let summary = summary.ok_or_else(|| gone(&pod))?;
            let _lock = lock(context, &pod).await?;
            let _step = context.ui.step(format!("stopping {}", pod.name()));
            vault::close_in(context, &pod).await?;
            engine.stop(&summary.name, GRACE).await?;
            vault::collect_from(context, &pod).await?;
            context.ui.status(format!("stopped {}", pod.name()));
        }
        Ok(())
    }
}

/// One tazpod at a time works on a pod.
pub async fn lock(context: &Context, pod: &PodDir) -> Result<std::fs::File> {
    let waiting = || context.ui.status(format!("waiting for another tazpod at work on {}", pod.name()));
    context.state()?.lock(pod.name(), waiting).await
}

/// A pod by record, container, or both.
pub struct Found {
    /// Its engine.
    pub engine: Engine,
    /// Its directory.
    pub pod: PodDir,
    /// Its container.
    pub summary: Option<PodSummary>,
}

/// The record is there, the container is not.
pub fn gone(pod: &PodDir) -> Error {
    Error::new(Kind::NoSuchPod, format!("the container of `{}` has gone", pod.name()))
        .hint("`tazpod up` makes a new one, `tazpod down` forgets it")
}

/// The pods that are meant, with their containers.
pub async fn find(context: &Context, wanted: &PodArgs, all: bool) -> Result<Vec<Found>> {
    let state = context.state()?;
    let records = if all {
        let workspace = crate::pod::workspace::find(wanted.workspace.as_deref())?;
        state.pods().into_iter().filter(|(_, record)| record.workspace == workspace).collect()
    } else {
        match wanted.find(&state) {
            Ok(found) => vec![found],
            // Pods whose record is lost are still known to the engine.
            Err(error) => return by_label(context, wanted).await.map(|found| vec![found]).ok_or(error),
        }
    };
    if records.is_empty() {
        let none = || Error::new(Kind::NoSuchPod, "no pod in this workspace");
        return by_label(context, wanted).await.map(|found| vec![found]).ok_or_else(none);
    }
    let mut found = Vec::new();
    for (pod, record) in records {
        let engine = Engine::new(Endpoint::parse(&record.engine)?)?;
        let pods = engine.pods_of(&record.workspace).await?;
        let summary = pods.into_iter().find(|summary| summary.name == pod.name());
        found.push(Found { engine, pod, summary });
    }
    Ok(found)
}

/// A pod without a record: by its full name, or as a pod of this workspace. An engine that does not answer knows none.
async fn by_label(context: &Context, wanted: &PodArgs) -> Option<Found> {
    let state = context.state().ok()?;
    let workspace = crate::pod::workspace::find(wanted.workspace.as_deref()).ok();
    let is_here = |path: &str| workspace.as_deref().is_some_and(|workspace| workspace.as_os_str() == path);
    let engine = context.engine().ok()?;
    let pods = engine.pods(&[(label::VERTICAL, "")]).await.ok()?;
    let mut pods = pods.into_iter().filter(|summary| match wanted.pod.as_deref() {
        Some(name) => {
            summary.name == name
                || summary.label(label::VERTICAL) == name && is_here(summary.label(label::WORKSPACE))
        }
        None => is_here(summary.label(label::WORKSPACE)),
    });
    let summary = pods.next().filter(|_| pods.next().is_none())?;
    // With a record it was not found by that record: more than one is there, and which is meant is not ours to guess.
    let pod = state.pod(&summary.name);
    pod.record().is_err().then(|| Found { engine, pod, summary: Some(summary) })
}
