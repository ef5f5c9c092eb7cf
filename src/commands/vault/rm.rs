use std::path::PathBuf;

use super::Open;
use crate::agent::vault::Request;
use crate::context::Context;
use crate::error::Result;
use crate::pod::target::PodArgs;

/// Remove files from the open vault.
///
/// Saved states keep them: `tazpod vault restore` brings them back. If most of the vault is gone afterwards, the next
/// save is held until `tazpod vault save --force`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to remove, as `tazpod vault ls` shows it.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<PathBuf>,
    /// Remove directories with all that is in them.
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    open: KeeperArgs,
}

/// The pod that is meant, where the names that follow the command are not its.
#[derive(Debug, clap::Args)]
pub struct KeeperArgs {
    /// The pod in which the vault is open; this workspace's only pod if left out.
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    /// The workspace, instead of this directory or one above it.
    #[arg(short = 'C', long, value_name = "DIR")]
    workspace: Option<PathBuf>,
}

impl KeeperArgs {
    /// The keeper of the vault.
    pub async fn find(self, context: &Context) -> Result<Open> {
        Open::find(context, &PodArgs { pod: self.pod, workspace: self.workspace }).await
    }
}

impl Args {
    /// Removes it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let names: Vec<_> = self.names.iter().map(|name| name.display().to_string()).collect();
        let request = Request::Remove { paths: self.names, recursive: self.recursive };
        self.open.find(context).await?.ask(&request, None).await?;
        context.ui.status(format!("removed from the vault: {}", names.join(", ")));
        Ok(())
    }
}
