use super::agent_mount;
use crate::agent;
use crate::context::Context;
use crate::error::Result;

/// What runs in the pod.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Be PID 1.
    Run,
    /// Carry the link over stdio.
    Connect,
    /// Mount the workspace of a pod (in a helper container).
    Mount(agent_mount::Args),
}

impl Args {
    /// Runs it.
    pub async fn run(self, context: &Context) -> Result<u8> {
        match self.role {
            Role::Run => agent::run().await,
            Role::Connect => agent::connect::run().map(|()| 0),
            Role::Mount(args) => args.run(context),
        }
    }
}
