use std::path::Path;
use std::time::Duration;

use age::secrecy::ExposeSecret as _;

use super::opening::OpenArgs;
use super::passphrase;
use crate::adapters::{exposure, terminal};
use crate::agent::vault::{Answer, Request};
use crate::config::ProjectConfig;
use crate::context::Context;
use crate::env;
use crate::error::{Error, Kind, Result};
use crate::link::inside;
use crate::pod::target::PodArgs;
use crate::pod::vault::{self, Vault};
use crate::ui;
use crate::vault::keeper::Opening;
use crate::vault::local::Object;

/// How often a program in the pod looks whether it was opened …
const GLANCE: Duration = Duration::from_millis(300);
/// … and for how long.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Open the vault in a pod's RAM.
///
/// The passphrase stays on this machine. The files appear at /run/vault/open, for the pod's user alone; `.aws`, `.kube`, `.ssh`
/// and the like of the pod's home lead there. What changes is saved by itself. In a session, Enter, `~`, `u` does the same, and comes
/// back; inside a pod this waits for that.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    #[command(flatten)]
    open: OpenArgs,
}

impl Args {
    /// By the passphrase, from the terminal.
    pub fn new(pod: PodArgs) -> Args {
        Args { pod, open: OpenArgs::default() }
    }

    /// Opens it.
    pub async fn run(self, context: &Context) -> Result<()> {
        if let Some(socket) = inside::socket() {
            return self.wait(context, &socket).await;
        }
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
            head: commit.link(),
            generation: body.generation,
            size: body.size,
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
        if !local.has(Object::Generation, &body.generation) {
            let what = format!("the sealed state of commit {} is not on this machine", body.n);
            return Err(Error::new(Kind::Integrity, what).hint(
                "`tazpod vault pull` fetches it; where it is lost, `tazpod vault history` lists earlier states, and `restore` takes one",
            ));
        }
        let (size, mut sealed) = local.open(Object::Generation, &body.generation)?;
        if size != body.size {
            let what = format!("the sealed state of commit {} is cut off, or longer than it was", body.n);
            return Err(Error::new(Kind::Integrity, what).hint("`tazpod vault pull` fetches it again"));
        }
        let answer = link.unlock(&pod.run(), &request, &mut *sealed).await?;
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

    /// Inside a pod: no program of it gets the passphrase. Its user has it asked for outside, by keys that no program here sees.
    async fn wait(self, context: &Context, socket: &Path) -> Result<()> {
        let in_session = terminal::is_interactive() && std::env::var_os(env::LINK_SESSION).is_some();
        if !in_session || self.open != OpenArgs::default() {
            return Err(super::not_here());
        }
        let mut said = false;
        let waiting = async {
            while !matches!(
                inside::ask(socket, &Request::State, None).await?,
                Answer::State { open: Some(_), .. }
            ) {
                if !said {
                    context.ui.warn("type Enter, ~, u: the passphrase is then asked for outside the pod");
                    context.ui.hint("never type it at a question that comes without these keys");
                    said = true;
                }
                tokio::time::sleep(GLANCE).await;
            }
            Ok::<_, Error>(())
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(waited) => waited?,
            Err(_) => return Err(Error::new(Kind::Locked, "the vault is still locked")),
        }
        match said {
            true => context.ui.status("the vault is open"),
            false => return Err(Error::new(Kind::Locked, "the vault is open in this pod already")),
        }
        Ok(())
    }
}
