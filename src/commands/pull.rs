use std::path::PathBuf;

use crate::build::{self, PullPolicy};
use crate::catalog::{Catalog, LOCK, Lock, Vertical};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::workspace;

/// Pull the images of verticals from their registry.
///
/// With `--sif`, into a file for Apptainer, which must be installed; no engine is asked then.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The verticals, or `all` that can be built and have a registry; with `--locked`, those that the lock file has.
    #[arg(value_name = "VERTICAL", required = true)]
    verticals: Vec<String>,
    /// The images that the project's `.tazpod/lock.toml` names, by their digests.
    #[arg(long)]
    locked: bool,
    /// Convert the image to a SIF file for Apptainer instead.
    #[arg(long, value_name = "FILE")]
    sif: Option<PathBuf>,
}

impl Args {
    /// Pulls them.
    pub async fn run(self, context: &Context) -> Result<()> {
        let project = workspace::project();
        let catalog = Catalog::of(project.as_deref())?;
        let lock = match (self.locked, project) {
            (false, _) => None,
            (true, Some(project)) => Some(Lock::load(&project)?),
            (true, None) => {
                return Err(Error::new(Kind::Usage, "there is no project here, and so no lock file"));
            }
        };
        let mut references = Vec::new();
        let meant = |vertical: &Vertical| match &lock {
            Some(lock) => lock.image(&vertical.name).is_ok(),
            None => !vertical.is_local(),
        };
        for vertical in catalog.named(&self.verticals, meant)? {
            references.push(match &lock {
                Some(lock) => lock.image(&vertical.name)?.to_owned(),
                None if vertical.is_local() => {
                    let name = &vertical.name;
                    return Err(Error::new(Kind::Config, format!("`{name}` has no registry"))
                        .hint(format!("it can be built: `tazpod build {name}`")));
                }
                None => vertical.reference(),
            });
        }
        match (self.sif, references.as_slice()) {
            (None, []) => {
                // `all` of a lock file that has none.
                Err(Error::new(Kind::Config, format!("`{LOCK}` has no images"))
                    .hint("`tazpod push all --lock` writes them down"))
            }
            (None, references) => {
                let engine = context.engine()?;
                for reference in references {
                    build::ensure_reference(context, &engine, reference, PullPolicy::Always).await?;
                }
                Ok(())
            }
            (Some(file), [reference]) => build::convert(context, reference, &file).await,
            (Some(_), _) => {
                Err(Error::new(Kind::Usage, "one file is for one image").hint("name one vertical"))
            }
        }
    }
}
