use serde::Serialize;

use crate::build::{self, Options};
use crate::catalog::{Catalog, Origin, Vertical};
use crate::context::Context;
use crate::error::Result;

/// Build the image of a vertical, and of those that it stands on.
///
/// What has not changed is left alone. Where no registry is in reach, the root filesystem is bootstrapped from the
/// distribution's mirror, with the host's `mmdebstrap` or `debootstrap`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The vertical, or `all` that can be built.
    #[arg(value_name = "VERTICAL", default_value = "all")]
    vertical: String,
    /// Build even if nothing changed, every step of it.
    #[arg(long)]
    force: bool,
    /// Bootstrap the root filesystem anew.
    #[arg(long)]
    rootfs: bool,
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
}

impl Args {
    /// Builds, or says what it would build.
    pub async fn run(self, context: &Context) -> Result<()> {
        let catalog = Catalog::builtin()?;
        let wanted: Vec<&Vertical> = if self.vertical == "all" {
            catalog.verticals().iter().filter(|vertical| vertical.origin == Origin::Built).collect()
        } else {
            vec![catalog.find(&self.vertical)?]
        };
        let engine = context.engine()?;
        let options = Options { force: self.force, rootfs: self.rootfs };
        let mut images: Vec<ImageReport> = Vec::new();
        for vertical in wanted {
            let steps = build::plan(&catalog, &engine, vertical, options).await?;
            if !self.dry_run {
                build::build(context, &engine, vertical, options).await?;
            }
            for member in catalog.chain(vertical)? {
                if images.iter().any(|image| image.vertical == member.name) {
                    continue;
                }
                let step = steps.iter().find(|step| step.vertical == member);
                let image = engine.image(&member.reference()).await?;
                images.push(ImageReport {
                    vertical: member.name.clone(),
                    reference: member.reference(),
                    reason: step.map(|step| step.reason.describe()),
                    id: image.as_ref().map(|image| image.id.clone()),
                    size: image.map(|image| image.size),
                });
            }
        }
        if self.json {
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
