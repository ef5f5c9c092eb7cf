use serde::Serialize;

use crate::adapters::engine::PodSummary;
use crate::context::Context;
use crate::error::Result;
use crate::pod::spec::label;
use crate::ui::table;

/// List pods of every workspace.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct List {
    version: u32,
    pods: Vec<Pod>,
}

#[derive(Debug, Serialize)]
struct Pod {
    name: String,
    vertical: String,
    workspace: String,
    state: String,
    status: String,
    image: String,
}

impl Args {
    /// Lists them.
    pub async fn run(self, context: &Context) -> Result<()> {
        let engine = context.engine()?;
        let pods: Vec<Pod> =
            engine.pods(&[(label::VERTICAL, "")]).await?.into_iter().map(Pod::from).collect();
        if self.json {
            return context.ui.json(&List { version: 1, pods });
        }
        if pods.is_empty() {
            context.ui.status(format!("no pods at `{}`; `tazpod up` makes one", engine.endpoint()));
            return Ok(());
        }
        let rows: Vec<_> = pods
            .into_iter()
            .map(|pod| [pod.name, pod.vertical, pod.state, pod.status, pod.workspace])
            .collect();
        context.ui.data(table(["NAME", "VERTICAL", "STATE", "STATUS", "WORKSPACE"], &rows))
    }
}

impl From<PodSummary> for Pod {
    fn from(summary: PodSummary) -> Pod {
        let label = |name| summary.label(name).to_owned();
        Pod {
            vertical: label(label::VERTICAL),
            workspace: label(label::WORKSPACE),
            name: summary.name,
            state: summary.state,
            status: summary.status,
            image: summary.image,
        }
    }
}
