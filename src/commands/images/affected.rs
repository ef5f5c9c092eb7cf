use std::time::Duration;

use serde::Serialize;

use crate::build;
use crate::context::Context;
use crate::error::{Context as _, Error, Kind, Result};

/// How long git may take, which fetches in a partial clone.
const TIMEOUT: Duration = Duration::from_secs(300);

/// List the verticals whose images a change touches.
///
/// Those whose sources differ from the commit's, and all that stand on them; what is not committed counts. For jobs of CI that
/// build no more than they must.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The commit to compare with: `origin/main`, `HEAD~1`.
    #[arg(long, value_name = "REV")]
    since: String,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    verticals: Vec<String>,
}

impl Args {
    /// Lists them, a line each.
    pub async fn run(self, context: &Context) -> Result<()> {
        let directory = std::env::current_dir()
            .map_err(|source| Error::new(Kind::Usage, "the current directory is gone").with_source(source))?;
        let since = self.since;
        let looking = tokio::task::spawn_blocking(move || build::affected(&directory, &since));
        let found = tokio::time::timeout(TIMEOUT, looking).await.map_err(|_| {
            Error::new(Kind::Usage, format!("git did not say what changed in {} s", TIMEOUT.as_secs()))
        })?;
        let found = found.context(Kind::Failure, || "the comparison broke off")??;
        let verticals: Vec<String> = found.into_iter().map(|vertical| vertical.name).collect();
        if self.json {
            return context.ui.json(&Report { version: 1, verticals });
        }
        verticals.iter().try_for_each(|name| context.ui.data(name))
    }
}
