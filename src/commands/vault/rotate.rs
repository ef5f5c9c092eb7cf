use super::passphrase::{self, PassphraseArgs};
use crate::agent::vault::now;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::vault::commit::{Commit, Draft, Reason};
use crate::vault::key::Keyring;
use crate::vault::local::Object;
use crate::vault::sync;

/// Give the vault another passphrase, and another identity.
///
/// The vault must be locked, and the store in reach. From then on the old passphrase opens nothing new; what was sealed before, and copied
/// by somebody who knows it, stays readable to them. The fingerprint changes: print the card again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read both passphrases from this file descriptor: the current one on the first line, the new one on the second.
    #[arg(long, value_name = "FD")]
    passphrases_fd: Option<u32>,
    /// Only wrap the keyring anew, and leave the identity. Who has the old passphrase and an old copy of the keyring can then open
    /// what is sealed later, too.
    #[arg(long)]
    rewrap_only: bool,
    /// Take a passphrase that is easy to guess.
    #[arg(long)]
    weak: bool,
}

impl Args {
    /// Changes it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        super::closed(context, &vault).await?;
        super::push_all(context, &vault).await?;
        let step = context.ui.step(format!("pulling from {}", vault.store.describe()));
        sync::pull(&vault.local(), &*vault.store, None).await?;
        drop(step);
        let head = vault.head()?;
        let source = PassphraseArgs::of(self.passphrases_fd);
        let keyring = source.open(context, &vault, &head).await?;
        let chosen = source.choose(self.weak).await?;
        let step = context.ui.step("sealing the vault anew");
        let commit = rekey(&vault, &head, &keyring, self.rewrap_only, |keyring| keyring.wrap(&chosen))?;
        drop(step);
        let pushed = super::push_all(context, &vault).await;
        if let Err(error) = &pushed
            && error.kind() == Kind::Conflict
        {
            // Another machine was first. Its state is sealed to the old identity: this one is to be made again.
            vault.local().dequeue(commit.body.n)?;
            return Err(Error::new(
                Kind::Conflict,
                "another machine pushed meanwhile; the passphrase is as it was",
            )
            .hint("try again"));
        }
        pushed.map_err(|error| error.hint("the new passphrase counts on this machine already"))?;
        context.ui.status("the passphrase is changed");
        context.ui.status(format!("fingerprint: {}", commit.fingerprint()));
        context
            .ui
            .hint("print `tazpod vault card` again; copies that somebody has already taken open as before");
        vault.local().tidy(&[commit.body.generation])
    }
}

/// One commit that names both the keyring and the generation: there is no moment with one and not the other.
fn rekey(
    vault: &Vault,
    head: &Commit,
    keyring: &Keyring,
    rewrap_only: bool,
    wrap: impl FnOnce(&Keyring) -> Result<Vec<u8>>,
) -> Result<Commit> {
    let local = vault.local();
    let rotated = if rewrap_only { keyring.clone() } else { keyring.rotated()? };
    let failed = |source| Error::new(Kind::Failure, "cannot write the vault").with_source(source);
    let mut incoming = local.incoming(Object::Keys)?;
    std::io::Write::write_all(&mut incoming, &wrap(&rotated)?).map_err(failed)?;
    let (keys, _) = incoming.finish(None)?;
    let (generation, size) = super::resealed(vault, &rotated, head)?;
    let draft = Draft {
        generation,
        size,
        keys,
        recipients: None,
        kind: Reason::Rekey,
        second_parent: None,
        host: passphrase::host_name(),
        time: now(),
    };
    let id = head.body.vault;
    let (signer, retiring) = (rotated.current().signer(&id)?, keyring.current().signer(&id)?);
    let retiring = (!rewrap_only).then_some(&retiring);
    let commit = Commit::write(id, local.load()?.tip.as_ref(), draft, &signer, retiring)?;
    local.enqueue(&commit)?;
    Ok(commit)
}
