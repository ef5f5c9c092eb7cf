use std::path::PathBuf;

use crate::adapters::files;
use crate::catalog::Catalog;
use crate::config::PROJECT_CONFIG;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::workspace;

/// Make a project configuration, `.tazpod/config.toml`, to be committed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The vertical that `up` is to take.
    #[arg(default_value = "base")]
    vertical: String,
    /// The workspace, instead of this directory.
    #[arg(short = 'C', long, value_name = "DIR")]
    workspace: Option<PathBuf>,
}

const TEMPLATE: &str = r#"# What `tazpod up` makes here. Commit this file; it holds no secrets.
vertical = "{vertical}"

[pod]
# An image instead of the vertical's:
# image = "registry.example.com/team/dev:1"
# Environment of every process in the pod (`docker inspect` shows it):
# env = { EDITOR = "nvim" }
# The engine's network, and a limit of memory:
# network = "host"
# memory = "8g"
# "host-ids" runs the pod's user with your own ids, for file systems without idmapped mounts:
# ownership = "auto"
"#;

impl Args {
    /// Writes it.
    pub fn run(self, context: &Context) -> Result<()> {
        let here = PathBuf::from(".");
        let workspace = workspace::find(Some(self.workspace.as_deref().unwrap_or(&here)))?;
        let vertical = Catalog::of(Some(&workspace))?.find(&self.vertical)?.name.clone();
        let path = workspace.join(PROJECT_CONFIG);
        if path.exists() {
            return Err(Error::new(Kind::Config, format!("`{}` exists already", path.display()))
                .hint("edit it, or remove it first"));
        }
        if let Some(directory) = path.parent() {
            files::make_directory(directory, 0o755)?;
        }
        files::write_atomically(&path, TEMPLATE.replace("{vertical}", &vertical).as_bytes(), 0o644)?;
        context.ui.status(format!("wrote {}", path.display()));
        context.ui.hint("`tazpod up` brings the pod up");
        Ok(())
    }
}
