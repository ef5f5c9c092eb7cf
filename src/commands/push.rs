use serde::Serialize;

use crate::build;
use crate::catalog::{Catalog, Lock, Origin, PROJECT_CATALOG, Reference, Vertical};
use crate::config::{PROJECT_CONFIG, ProjectConfig};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::workspace;

/// Push the images of verticals to their registry.
///
/// Under the tag of their catalog and as `latest` (`stable`, where that is the catalog's), ours with their version, too. All arrive before the first of them gets the tag that others
/// pull. Credentials are those of `docker login` or `podman login`. Tazpod's own images go to the `registry` of the project's configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The verticals, or `all` that have a registry of the project's.
    #[arg(value_name = "VERTICAL", required = true)]
    verticals: Vec<String>,
    /// Push under this tag alone.
    #[arg(long, value_name = "TAG", value_parser = tag)]
    tag: Option<String>,
    /// Push even what was built without tools that could not be fetched.
    #[arg(long)]
    allow_missing: bool,
    /// Write the digests into the project's `.tazpod/lock.toml`, for `up --locked`.
    #[arg(long)]
    lock: bool,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    images: Vec<ImageReport>,
}

#[derive(Serialize)]
struct ImageReport {
    vertical: String,
    repository: String,
    digest: String,
    tags: Vec<String>,
}

impl Args {
    /// Pushes them.
    pub async fn run(self, context: &Context) -> Result<()> {
        let project = workspace::project();
        let catalog = Catalog::of(project.as_deref())?;
        let mut lock = match (self.lock, &project) {
            (false, _) => None,
            (true, Some(project)) => Some(Lock::load(project)?),
            (true, None) => {
                return Err(Error::new(
                    Kind::Usage,
                    "there is no project here whose lock file this could be",
                )
                .hint("`tazpod init` makes one"));
            }
        };
        // Those that are compiled in are the project's to push only as copies.
        let copies = match &project {
            Some(project) => ProjectConfig::load(project)?.registry.is_some(),
            None => false,
        };
        let meant = |vertical: &Vertical| !vertical.is_local() && (copies || vertical.directory.is_some());
        let wanted = catalog.named(&self.verticals, meant)?;
        if wanted.is_empty() {
            return Err(Error::new(Kind::Config, "nothing here has a registry of this project's")
                .hint(format!("name one: `registry = \"registry.example.com/team\"` at the head of `{PROJECT_CATALOG}`, or in `{PROJECT_CONFIG}` for copies of ours")));
        }
        if let Some(foreign) = wanted.iter().find(|vertical| vertical.origin == Origin::Foreign) {
            return Err(Error::new(Kind::Usage, format!("`{}` is others' to push", foreign.name)));
        }
        let engine = context.engine()?;
        let pushed = build::push(context, &engine, &wanted, self.tag.as_deref(), self.allow_missing).await?;
        if let Some(lock) = &mut lock {
            lock.note(
                pushed.iter().map(|one| (one.vertical.clone(), format!("{}@{}", one.repository, one.digest))),
            )?;
        }
        if !self.json {
            return Ok(());
        }
        let images = pushed.into_iter().map(|one| ImageReport {
            vertical: one.vertical,
            repository: one.repository,
            digest: one.digest,
            tags: one.tags,
        });
        context.ui.json(&Report { version: 1, images: images.collect() })
    }
}

fn tag(text: &str) -> std::result::Result<String, &'static str> {
    let found = Reference::parse(&format!("tazpod:{text}"));
    let is_one = found.is_ok_and(|found| found.tag() == Some(text));
    is_one.then(|| text.to_owned()).ok_or(
        "a tag has letters, digits, `_`, `.` and `-`, 128 at most, and begins with none of the last two",
    )
}
