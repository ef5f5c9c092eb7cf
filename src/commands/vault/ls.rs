use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::keeper::Keeper;
use crate::agent::vault::{Answer, Request};
use crate::context::Context;
use crate::error::Result;
use crate::pod::target::PodArgs;
use crate::pod::vault;
use crate::ui;
use crate::vault::keeper::{Listed, ListedKind};

/// List what is in the open vault: names, sizes, times; not what is in the files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    entries: Vec<Listed>,
}

impl Args {
    /// Lists it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let answer = Keeper::find(context, &self.pod).await?.ask(&Request::List, None).await?;
        let Answer::Listed { entries } = answer else { return Err(vault::unexpected(&answer)) };
        if self.json {
            return context.ui.json(&Report { version: 1, entries });
        }
        if entries.is_empty() {
            context.ui.status("the vault is empty; `tazpod vault add` puts files into it");
            return Ok(());
        }
        context.ui.data(ui::table(
            ["MODE", "SIZE", "MODIFIED", "NAME"],
            &entries.iter().map(row).collect::<Vec<_>>(),
        ))
    }
}

fn row(entry: &Listed) -> [String; 4] {
    let (size, name) = match &entry.kind {
        ListedKind::Directory => (String::new(), format!("{}/", entry.path)),
        ListedKind::File => (ui::size(i64::try_from(entry.size).unwrap_or(i64::MAX)), entry.path.clone()),
        ListedKind::Link(target) => (String::new(), format!("{} -> {target}", entry.path)),
    };
    let time = OffsetDateTime::from_unix_timestamp(entry.modified).ok();
    let time = time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
    // A name of two lines would be two entries.
    let name = ui::printable(&name).replace('\n', "\\n");
    [format!("{:03o}", entry.mode), size, time, name]
}
