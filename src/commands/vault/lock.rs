use crate::agent::vault::{Answer, Request};
use crate::context::Context;
use crate::error::{Kind, Result};
use crate::link::inside;
use crate::pod::target::PodArgs;
use crate::pod::vault::{self, Vault};
use crate::vault::keeper::Saved;

/// Save the vault, push it, and take it out of the pod's RAM.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// Make what is in the pod current even if it looks wrong, as with most files gone.
    #[arg(long)]
    force: bool,
    /// Leave what is saved on this machine.
    #[arg(long)]
    no_push: bool,
}

impl Args {
    /// Locks it.
    pub async fn run(self, context: &Context) -> Result<()> {
        if let Some(socket) = inside::socket() {
            let answer = inside::ask(&socket, &Request::Lock { force: self.force, tip: None }, None).await?;
            let saved = locked(context, answer)?;
            context.ui.status("the vault is locked");
            super::report(context, &saved)?;
            if let Saved::Made { .. } = saved {
                context.ui.hint("`tazpod vault push` on the host brings it into the store");
            }
            return Ok(());
        }
        let (pod, link) = super::reach(context, &self.pod).await?;
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        let step = context.ui.step("locking the vault");
        let answer = link.vault(&Request::Lock { force: self.force, tip: vault.tip()? }, None).await;
        drop(step);
        if answer.as_ref().is_err_and(|error| error.kind() == Kind::Locked) {
            // By itself, a moment ago perhaps: what was saved then is to go on all the same.
            super::check_current(vault.collect(context, &pod, Some(&link)).await?)?;
            if !self.no_push {
                super::push_all(context, &vault).await?;
            }
        }
        let saved = locked(context, answer?)?;
        context.ui.status(format!("the vault is locked in `{}`", pod.name()));
        let current = vault.collect(context, &pod, Some(&link)).await?;
        super::report(context, &saved)?;
        super::check_current(current)?;
        if self.no_push {
            return Ok(());
        }
        super::push_all(context, &vault).await
    }
}

/// The last save; of what is left a warning.
fn locked(context: &Context, answer: Answer) -> Result<Saved> {
    let Answer::Locked { saved, holders, unknown, beside } = answer else {
        return Err(vault::unexpected(&answer));
    };
    for (name, pid) in holders {
        context.ui.warn(format!(
            "`{name}` ({pid} in the pod) still has files of the vault open, or works in its directory"
        ));
    }
    if unknown > 0 {
        context.ui.warn(format!(
            "{unknown} programs in the pod, of other users or shut off, may have: they cannot be looked into"
        ));
    }
    for path in beside {
        context
            .ui
            .warn(format!("`{path}` is left in the pod's memory: not the vault's, unless by another name"));
    }
    Ok(saved)
}
