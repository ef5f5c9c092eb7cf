use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::context::Context;
use crate::error::{Error, Result};

/// Print the manual page, or write one for each command into a directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write `tazpod.1`, `tazpod-up.1`, … here instead.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Args {
    /// Prints or writes the pages.
    pub fn run(self, context: &Context) -> Result<()> {
        if let Some(directory) = self.directory {
            return clap_mangen::generate_to(Cli::command(), &directory)
                .map_err(|source| Error::io("write the pages to", &directory, source));
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|source| Error::io("write", "the page".as_ref(), source))?;
        context.ui.raw(&page)
    }
}
