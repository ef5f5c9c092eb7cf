use crate::agent::vault::{Answer, Request};
use crate::context::Context;
use crate::error::Result;
use crate::link::inside;
use crate::pod::target::PodArgs;
use crate::pod::vault::{self, Vault};

/// Save what has changed in the open vault now.
///
/// It is saved by itself too: half a minute after a change, when it is locked, and when the pod stops.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// Make what is in the pod current even if it looks wrong, as with most files gone.
    #[arg(long)]
    force: bool,
}

impl Args {
    /// Saves it.
    pub async fn run(self, context: &Context) -> Result<()> {
        if let Some(socket) = inside::socket() {
            let answer = inside::ask(&socket, &Request::Save { force: self.force }, None).await?;
            let Answer::Saved(saved) = answer else { return Err(vault::unexpected(&answer)) };
            return super::report(context, &saved);
        }
        let (pod, link) = super::reach(context, &self.pod).await?;
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        let saved = vault.save(&pod, &link, self.force).await?;
        let current = vault.collect(context, &pod, Some(&link)).await?;
        super::report(context, &saved)?;
        super::check_current(current)
    }
}
