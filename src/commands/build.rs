use std::collections::HashMap;

use serde::Serialize;

use crate::build::{self, Options, ToolReport};
use crate::catalog::{Catalog, Reference};
use crate::context::Context;
use crate::error::Result;
use crate::pod::workspace;

/// Build the images of verticals, and of those that they stand on.
///
/// Parents come first; those that do not stand on each other are built at once.
/// What has not changed is left alone. Where no registry is in reach, the root filesystem is bootstrapped from the
/// distribution's mirror, with the host's `mmdebstrap` or `debootstrap`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The verticals, or `all` that can be built.
    #[arg(value_name = "VERTICAL", default_value = "all")]
    verticals: Vec<String>,
    /// Build even if nothing changed, every step of it.
    #[arg(long)]
    force: bool,
    /// Bootstrap the root filesystem anew, and build what stands on it.
    #[arg(long)]
    rootfs: bool,
    /// Build even without tools that cannot be fetched here; the table of tools lists them.
    #[arg(long)]
    allow_missing: bool,
    /// Look for what steps made in this repository, and keep it there: `registry.example.com/team/cache`.
    #[arg(long, value_name = "REPOSITORY")]
    cache: Option<String>,
    /// Say what would be built, and why.
    #[arg(long)]
    dry_run: bool,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    dry_run: bool,
    images: Vec<ImageReport>,
}

#[derive(Serialize)]
struct ImageReport {
    vertical: String,
    reference: String,
    /// Why it was, or would be, built; missing where it is current.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Missing where it is yet to be built.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<i64>,
    /// Missing where it was not built now.
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<ToolReport>>,
}

impl Args {
    /// Builds, or says what it would build.
    pub async fn run(self, context: &Context) -> Result<()> {
        let catalog = Catalog::of(workspace::project().as_deref())?;
        let wanted = catalog.named(&self.verticals, |_| true)?;
        let engine = context.engine()?;
        let cache = self.cache.as_deref().map(Reference::of_repository).transpose()?;
        let options = Options {
            force: self.force,
            rootfs: self.rootfs,
            allow_missing: self.allow_missing,
            cache: cache.as_ref(),
        };
        let mut images: Vec<ImageReport> = Vec::new();
        let steps = build::plan(&catalog, &engine, &wanted, options).await?;
        let mut findings = match self.dry_run || steps.is_empty() {
            true => HashMap::new(),
            false => build::build(context, &engine, &catalog, &wanted, options).await?,
        };
        for vertical in wanted {
            for member in catalog.chain(vertical) {
                if images.iter().any(|image| image.vertical == member.name) {
                    continue;
                }
                let step = steps.iter().find(|step| step.vertical == member);
                images.push(ImageReport {
                    vertical: member.name.clone(),
                    reference: member.reference(),
                    reason: step.map(|step| step.reason.describe()),
                    id: None,
                    size: None,
                    tools: findings
                        .remove(&member.name)
                        .map(|found| found.into_iter().map(ToolReport::of).collect()),
                });
            }
        }
        if self.json {
            let references: Vec<String> = images.iter().map(|image| image.reference.clone()).collect();
            for (image, found) in images.iter_mut().zip(engine.images(&references).await?) {
                image.id = found.as_ref().map(|found| found.id.clone());
                image.size = found.map(|found| found.size);
            }
            return context.ui.json(&Report { version: 1, dry_run: self.dry_run, images });
        }
        for image in images {
            match (image.reason, self.dry_run) {
                (None, _) => context.ui.status(format!("`{}` is current", image.vertical)),
                (Some(reason), true) => {
                    context.ui.data(format!("build {} as {}: {reason}", image.vertical, image.reference))?;
                }
                (Some(_), false) => {}
            }
        }
        Ok(())
    }
}
