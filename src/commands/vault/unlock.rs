use age::secrecy::ExposeSecret as _;

use super::opening::OpenArgs;
use super::passphrase;
use crate::adapters::exposure;
use crate::agent::vault::{Answer, Request};
use crate::config::ProjectConfig;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::target::PodArgs;
use crate::pod::vault::{self, Vault};
use crate::ui;
use crate::vault::commit::Link as Chain;
use crate::vault::keeper::Opening;
use crate::vault::local::Object;

/// Open the vault in a pod's RAM.
///
/// The passphrase stays on this machine. The files appear at /run/vault/open, for the pod's user alone; `.aws`, `.kube`, `.ssh`
/// and the like of the pod's home lead there. What changes is saved by itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    #[command(flatten)]
    open: OpenArgs,
}

impl Args {
    /// Opens it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let (pod, link) = super::reach(context, &self.pod).await?;
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        if let Answer::State { open: Some(id), .. } = link.vault(&Request::State, None).await? {
            return Err(Error::new(
                Kind::Locked,
                format!("the vault {id} is open in `{}` already", pod.name()),
            ));
        }
        let mut elsewhere = None;
        for (other, record) in context.state()?.pods() {
            if other.name() != pod.name() && other.vault_name().exists() {
                let link = vault::reach(&other, &record).await?;
                if super::is_open(link.as_ref(), false).await? {
                    elsewhere = Some(other.name().to_owned());
                }
                super::collect_other(context, &vault, &other, link.as_ref()).await;
            }
        }
        vault.collect(context, &pod, Some(&link)).await?;
        let commit = vault.head()?;
        let keyring = self.open.open(context, &vault, &commit).await?;
        let body = &commit.body;
        let opening = Opening {
            identity: keyring.current().to_line().expose_secret().to_owned(),
            head: Chain { vault: body.vault, vk: body.vk, n: body.n, hash: commit.hash },
            keys: body.keys,
            recipients: body.recipients,
            host: passphrase::host_name(),
            elsewhere: elsewhere.clone(),
            links: vault.links.clone(),
        };
        let request = Request::Unlock { opening: Box::new(opening), autolock: vault.autolock };
        vault::note(&pod.vault_name(), &body.vault.to_string())?;
        let step = context.ui.step("opening the vault");
        let local = vault.local();
        let (_, mut sealed) = local.open(Object::Generation, &body.generation)?;
        let answer = link.vault(&request, Some(&mut *sealed)).await?;
        drop(step);
        let Answer::Unlocked { bytes, entries } = answer else { return Err(vault::unexpected(&answer)) };
        let size = ui::size(i64::try_from(bytes).unwrap_or(i64::MAX));
        context.ui.status(format!(
            "commit {} is open in `{}`: {entries} entries, {size}",
            body.n,
            pod.name()
        ));
        if let Some(elsewhere) = elsewhere {
            context
                .ui
                .warn(format!("it is open in `{elsewhere}` first: what changes here is held, not current"));
        }
        let config = pod.record().and_then(|record| ProjectConfig::load(&record.workspace));
        let swaps = config.is_ok_and(|config| config.pod.memory.is_none());
        if let Some(swap) = exposure::swap().filter(|_| swaps) {
            context.ui.warn(format!("this machine swaps to {swap}: what is open can end up there"));
            context
                .ui
                .hint("encrypt it, or switch it off: `swapoff -a`; with `[pod] memory` a pod does not swap");
        }
        Ok(())
    }
}
