use crate::context::Context;
use crate::error::{Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::vault::sync;

/// Bring what was saved into the store.
///
/// Pods that run are asked to save first. What is interrupted goes on with the next push.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read the newest state back, and put it there again if it is damaged.
    #[arg(long)]
    read_data: bool,
}

impl Args {
    /// Pushes.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        for (pod, record) in context.state()?.pods() {
            if !pod.spool().is_dir() {
                continue;
            }
            let link = match vault::reach(&pod, &record).await {
                Ok(link) => link,
                Err(error) => {
                    context.ui.warn(format!("`{}` cannot be asked to save: {error}", pod.name()));
                    continue;
                }
            };
            // A vault that is locked has nothing to save.
            if let Some(link) = &link
                && let Err(error) = vault.save(&pod, link, false).await
                && error.kind() != Kind::Locked
            {
                context.ui.warn(format!("what has changed in `{}` could not be saved: {error}", pod.name()));
            }
            super::collect_other(context, &vault, &pod, link.as_ref()).await;
        }
        let head = vault.head()?;
        let step = context.ui.step(format!("pushing to {}", vault.store.describe()));
        let pushed = vault.push(context).await?;
        pushed.numbers.iter().for_each(|n| context.ui.status(format!("pushed commit {n}")));
        let healed = match pushed.numbers.is_empty() || self.read_data {
            true => sync::heal(&vault.local(), &*vault.store, self.read_data).await?,
            false => 0,
        };
        drop(step);
        if pushed.numbers.is_empty() {
            context.ui.status(format!("nothing to push: the store has commit {}", head.body.n));
        }
        if healed > 0 {
            context.ui.status(format!("{healed} objects were missing or damaged there, and are whole again"));
        }
        vault.local().tidy(&[head.body.generation])
    }
}
