use std::path::PathBuf;

use super::keeper::KeeperArgs;
use crate::agent::vault::Request;
use crate::context::Context;
use crate::error::Result;

/// Remove files from the open vault.
///
/// Saved states keep them: `tazpod vault restore` brings them back.
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

impl Args {
    /// Removes it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let names: Vec<_> = self.names.iter().map(|name| name.display().to_string()).collect();
        let paths = self.names.into_iter().map(Into::into).collect();
        let request = Request::Remove { paths, recursive: self.recursive };
        self.open.find(context).await?.ask(&request, None).await?;
        context.ui.status(format!("removed from the vault: {}", names.join(", ")));
        Ok(())
    }
}
