use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::context::Context;
use crate::error::Result;

/// Print completions for a shell.
///
/// For bash: `tazpod completions bash > ~/.local/share/bash-completion/completions/tazpod`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

impl Args {
    /// Prints the script.
    pub fn run(self, context: &Context) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tazpod", &mut script);
        context.ui.raw(&script)
    }
}
