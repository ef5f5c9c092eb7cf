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
}

impl Args {
    /// Runs it.
    pub async fn run(self, _: &Context) -> Result<u8> {
        match self.role {
            Role::Run => agent::run().await,
            Role::Connect => agent::connect::run().map(|()| 0),
        }
    }
}
