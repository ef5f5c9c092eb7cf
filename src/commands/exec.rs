use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::attach;
use crate::context::Context;
use crate::env;
use crate::error::{Error, Kind, Result};
use crate::link::{lost, relay};
use crate::pod::spec::WORKSPACE;
use crate::pod::target::PodArgs;

/// Run a command in a pod.
///
/// The exit code is the command's; 125 is tazpod's own failure, 126 and 127 are as in a shell. Streams are binary,
/// signals are passed on, and below the workspace the command starts in the same directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// Give the command a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Set a variable of the command's environment.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Args {
    /// Runs it; the exit code is the command's.
    pub async fn run(self, context: &Context) -> Result<u8> {
        if self.tty && !crate::adapters::terminal::is_interactive() {
            return Err(
                Error::new(Kind::Usage, "`--tty` needs a terminal, and this is none").hint("leave it out")
            );
        }
        let (pod, record) = self.pod.find(&context.state()?)?;
        let link = attach::open(&pod, &record).await?;
        let channel = link.channel().await?;
        for variable in &self.env {
            let (name, value) = variable
                .split_once('=')
                .ok_or_else(|| Error::new(Kind::Usage, format!("`{variable}` is not NAME=VALUE")))?;
            channel.set_env(false, name, value).await.map_err(lost)?;
        }
        if let Some(directory) = directory(&record.workspace) {
            channel.set_env(false, env::LINK_DIRECTORY, directory).await.map_err(lost)?;
        }
        channel.set_env(false, env::LINK_EXEC, "argv").await.map_err(lost)?;
        if self.tty {
            relay::request_terminal(&channel).await?;
        }
        let mut command = Vec::new();
        for word in &self.command {
            command.extend_from_slice(word.as_bytes());
            command.push(0);
        }
        channel.exec(false, command).await.map_err(lost)?;
        relay::command(channel, self.tty).await
    }
}

/// Where the current directory is in the pod, if it lies below the workspace.
fn directory(workspace: &Path) -> Option<String> {
    let current = std::env::current_dir().ok()?;
    let below = current.strip_prefix(workspace).ok()?;
    Some(Path::new(WORKSPACE).join(below).to_str()?.to_owned())
}
