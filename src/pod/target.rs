//! Which pod a command means.

use std::path::{Path, PathBuf};

use super::name::pod_name;
use crate::adapters::state::{LinkRecord, PodDir, StateDir};
use crate::error::{Error, Kind, Result, nearest};

/// The arguments that name a pod.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PodArgs {
    /// A vertical of this workspace, or a pod's full name; this workspace's only pod if left out.
    #[arg(value_name = "POD")]
    pub pod: Option<String>,
    /// The workspace, instead of this directory or one above it.
    #[arg(short = 'C', long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
}

impl PodArgs {
    /// The pod that is meant, by what is known on this machine; the engine is not asked.
    ///
    /// # Errors
    /// [`Kind::NoSuchPod`] where there is none, or more than one.
    pub fn find(&self, state: &StateDir) -> Result<(PodDir, LinkRecord)> {
        let start = match &self.workspace {
            Some(path) => std::fs::canonicalize(path).map_err(|source| {
                Error::new(Kind::Usage, format!("cannot use `{}` as the workspace", path.display()))
                    .with_source(source)
            })?,
            None => std::env::current_dir().unwrap_or_default(),
        };
        if let Some(found) = self.pod.as_deref().and_then(|pod| direct(state, &start, pod)) {
            return Ok(found);
        }
        choose(self.pod.as_deref(), &start, state.pods())
    }
}

/// By name alone, without reading every record: for the fast path.
fn direct(state: &StateDir, start: &Path, pod: &str) -> Option<(PodDir, LinkRecord)> {
    if pod.contains('/') {
        return None;
    }
    let names = start.ancestors().map(|workspace| pod_name(workspace, pod)).chain([pod.to_owned()]);
    names.map(|name| state.pod(&name)).find_map(|pod| pod.record().ok().map(|record| (pod, record)))
}

fn choose(
    wanted: Option<&str>,
    start: &Path,
    pods: Vec<(PodDir, LinkRecord)>,
) -> Result<(PodDir, LinkRecord)> {
    // The nearest directory upwards that has pods is the workspace.
    let workspace =
        start.ancestors().find(|above| pods.iter().any(|(_, record)| record.workspace == **above));
    let here = || pods.iter().filter(|(_, record)| Some(record.workspace.as_path()) == workspace);
    if let Some(wanted) = wanted {
        let error = Error::new(Kind::NoSuchPod, format!("no pod `{wanted}` in this workspace"));
        let names =
            here().map(|(_, record)| record.vertical.as_str()).chain(pods.iter().map(|(pod, _)| pod.name()));
        return Err(match nearest(wanted, names) {
            Some(name) => error.hint(format!("did you mean `{name}`?")),
            None => error.hint("`tazpod ls` lists pods, `tazpod up VERTICAL` makes one"),
        });
    }
    let names: Vec<_> = here().map(|(_, record)| record.vertical.clone()).collect();
    let mut found = pods.iter().filter(|(_, record)| Some(record.workspace.as_path()) == workspace);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err(Error::new(Kind::NoSuchPod, "no pod in this workspace")
            .hint("`tazpod up` makes one, `tazpod ls` lists those of other workspaces")),
        (Some(_), Some(_)) => Err(Error::new(Kind::NoSuchPod, "more than one pod in this workspace")
            .hint(format!("name one of them: {}", names.join(", ")))),
    }
}
