use serde::Serialize;

use crate::build::{self, ToolReport};
use crate::catalog::Catalog;
use crate::context::Context;
use crate::error::Result;
use crate::pod::workspace;

/// Check what a vertical's image promises.
///
/// Runs its commands and the check of each tool in the image that the engine has, as the pod's user and without a network.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The vertical.
    vertical: String,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    vertical: String,
    tools: Vec<ToolReport>,
}

impl Args {
    /// Prints a table of tools; fails where one does not work.
    pub async fn run(self, context: &Context) -> Result<()> {
        let catalog = Catalog::of(workspace::project().as_deref())?;
        let vertical = catalog.find(&self.vertical)?;
        let findings = build::verify(context, &context.engine()?, vertical).await?;
        if self.json {
            let tools = findings.iter().cloned().map(ToolReport::of).collect();
            context.ui.json(&Report { version: 1, vertical: self.vertical, tools })?;
        } else if !findings.is_empty() {
            context.ui.data(build::table(&findings))?;
        } else if vertical.verify.is_empty() {
            context.ui.status(format!("`{}` names nothing to check", vertical.name));
        }
        build::failures(vertical, &findings).map_or(Ok(()), Err)
    }
}
