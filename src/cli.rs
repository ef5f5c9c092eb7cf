//! The command line. The doc comments are the help.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::context::Context;
use crate::error::Result;

/// Development environments in containers: a shell in milliseconds, your files yours.
///
/// `tazpod up` brings up the pod of this directory and enters it; `tazpod attach` returns to the same shell.
#[derive(Debug, Parser)]
#[command(name = "tazpod", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// The engine: `docker`, `podman`, `unix:///PATH` or `tcp://HOST:PORT`.
    #[arg(long, global = true, value_name = "ENGINE", env = crate::env::TAZPOD_ENGINE, help_heading = "Global options")]
    pub engine: Option<String>,
    /// Say nothing but errors and warnings.
    #[arg(short, long, global = true, help_heading = "Global options", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say how things are done, and how long they take.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Command {
    Init(commands::init::Args),
    Up(commands::up::Args),
    #[command(visible_alias = "enter")]
    Attach(commands::attach::Args),
    Exec(commands::exec::Args),
    Down(commands::down::Args),
    Start(commands::start::Args),
    Stop(commands::stop::Args),
    Ls(commands::ls::Args),
    Status(commands::status::Args),
    Logs(commands::logs::Args),
    Forward(commands::forward::Args),
    Images(commands::images::Args),
    Build(commands::build::Args),
    Pull(commands::pull::Args),
    Push(commands::push::Args),
    Vault(commands::vault::Args),
    SshConfig(commands::ssh_config::Args),
    Proxy(commands::proxy::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
    #[command(hide = true)]
    Agent(commands::agent::Args),
}

impl Command {
    /// Whether the command itself decides what signals do.
    pub fn handles_signals(&self) -> bool {
        matches!(self, Command::Exec(_) | Command::Agent(_) | Command::Proxy(_))
    }

    /// Runs it; the number is the exit code of the process.
    ///
    /// # Errors
    /// Each command's own.
    pub async fn run(self, context: &Context) -> Result<u8> {
        match self {
            Command::Init(args) => args.run(context).map(|()| 0),
            Command::Up(args) => args.run(context).await,
            Command::Attach(args) => args.run(context).await,
            Command::Exec(args) => args.run(context).await,
            Command::Down(args) => args.run(context).await.map(|()| 0),
            Command::Start(args) => args.run(context).await.map(|()| 0),
            Command::Stop(args) => args.run(context).await.map(|()| 0),
            Command::Ls(args) => args.run(context).await.map(|()| 0),
            Command::Status(args) => args.run(context).await.map(|()| 0),
            Command::Logs(args) => args.run(context).await.map(|()| 0),
            Command::Forward(args) => args.run(context).await.map(|()| 0),
            Command::Images(args) => args.run(context).await.map(|()| 0),
            Command::Build(args) => args.run(context).await.map(|()| 0),
            Command::Pull(args) => args.run(context).await.map(|()| 0),
            Command::Push(args) => args.run(context).await.map(|()| 0),
            Command::Vault(args) => args.run(context).await.map(|()| 0),
            Command::SshConfig(args) => args.run(context).map(|()| 0),
            Command::Proxy(args) => args.run(context).await.map(|()| 0),
            Command::Completions(args) => args.run(context).map(|()| 0),
            Command::Man(args) => args.run(context).map(|()| 0),
            Command::Agent(args) => args.run(context).await,
        }
    }
}
