//! One file a command, as above.

mod card;
mod history;
mod init;
mod lock;
mod passphrase;
mod pull;
mod push;
mod save;
mod status;
mod unlock;

use clap::Subcommand;

use crate::adapters::state::PodDir;
use crate::commands::attach;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::link::Link;
use crate::pod::target::PodArgs;
use crate::pod::vault::check_transport;
use crate::vault::keeper::Saved;

/// Secrets as files: open in a pod's RAM alone, sealed everywhere else.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Status(status::Args),
    Unlock(unlock::Args),
    Lock(lock::Args),
    Save(save::Args),
    Push(push::Args),
    Pull(pull::Args),
    History(history::Args),
    Card(card::Args),
}

impl Args {
    /// Runs it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Command::Init(args) => args.run(context).await,
            Command::Status(args) => args.run(context).await,
            Command::Unlock(args) => args.run(context).await,
            Command::Lock(args) => args.run(context).await,
            Command::Save(args) => args.run(context).await,
            Command::Push(args) => args.run(context).await,
            Command::Pull(args) => args.run(context).await,
            Command::History(args) => args.run(context).await,
            Command::Card(args) => args.run(context).await,
        }
    }
}

/// The pod that is meant, and a link to its agent.
async fn reach(context: &Context, pod: &PodArgs) -> Result<(PodDir, Link)> {
    let (pod, record) = pod.find(&context.state()?)?;
    check_transport(&record)?;
    let link = attach::open(&pod, &record).await?;
    Ok((pod, link))
}

/// Says what became of a save.
fn report(context: &Context, saved: &Saved) -> Result<()> {
    match saved {
        Saved::Unchanged => context.ui.status("nothing has changed"),
        Saved::Made { n, files, bytes, skipped } => {
            for skipped in skipped {
                context.ui.warn(format!("not saved: {skipped}"));
            }
            let size = crate::ui::size(i64::try_from(*bytes).unwrap_or(i64::MAX));
            context.ui.status(format!("saved as commit {n}: {files} files, {size}"));
        }
        Saved::Held { why } => {
            return Err(Error::new(Kind::Conflict, format!("the save is held, because {why}"))
                .hint("it is kept, but not current; `--force` makes what is in the pod current"));
        }
    }
    Ok(())
}
