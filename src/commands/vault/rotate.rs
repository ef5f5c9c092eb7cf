//! Other keys for the vault: what `passphrase` and `recipients` share, and `passphrase` itself.

use std::fs::File;

use age::secrecy::SecretString;

use super::passphrase::{self, NewPassphrase, PassphraseArgs};
use super::plugin;
use crate::agent::vault::now;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::vault::commit::{Commit, Draft, Reason};
use crate::vault::id::Hash;
use crate::vault::key::Keyring;
use crate::vault::local::Object;
use crate::vault::sync;

/// Give the vault another passphrase, and another identity.
///
/// The vault must be locked, and the store in reach. From then on the old passphrase opens nothing new; what was sealed before, and copied
/// by somebody who knows it, stays readable to them. The fingerprint changes: print the card again. Recipients stay.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read both passphrases from this file descriptor: the current one on the first line, the new one on the second.
    #[arg(long, value_name = "FD")]
    passphrases_fd: Option<u32>,
    #[command(flatten)]
    rewrap: RewrapArgs,
    #[command(flatten)]
    new: NewPassphrase,
}

/// Whether the identity stays.
#[derive(Debug, clap::Args)]
pub struct RewrapArgs {
    /// Only wrap the keyring anew, and leave the identity. Who could open the vault until now, and has an old copy of the keyring, can
    /// then open what is sealed later, too.
    #[arg(long)]
    rewrap_only: bool,
}

impl Args {
    /// Changes it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let source = PassphraseArgs::of(self.passphrases_fd);
        let rekey = Rekey::begin(context, &source).await.map_err(|error| match error.kind() {
            Kind::Passphrase => {
                error.hint("if a change was interrupted, the new passphrase may count already")
            }
            _ => error,
        })?;
        let chosen = source.choose(context, &self.new).await?;
        let keyring = self.rewrap.apply(&rekey.keyring)?;
        rekey.finish(context, keyring, &chosen, "the passphrase is changed").await
    }
}

impl RewrapArgs {
    /// The keyring with a new identity, unless that stays.
    pub fn apply(&self, keyring: &Keyring) -> Result<Keyring> {
        if self.rewrap_only { Ok(keyring.clone()) } else { keyring.rotated() }
    }
}

/// A change of keys, about to be made: the vault is in no pod, pushed and pulled, and its keyring is open.
pub struct Rekey {
    vault: Vault,
    _lock: File,
    head: Commit,
    /// As it is.
    pub keyring: Keyring,
    /// As it is.
    pub passphrase: SecretString,
}

impl Rekey {
    /// Brings the vault into that state.
    pub async fn begin(context: &Context, source: &PassphraseArgs) -> Result<Rekey> {
        let vault = Vault::open(context).await?;
        let lock = vault::lock(context).await?;
        super::closed(context, &vault).await?;
        super::push_all(context, &vault).await?;
        let step = context.ui.step(format!("pulling from {}", vault.store.describe()));
        sync::pull(&vault.local(), &*vault.store, None).await?;
        drop(step);
        let head = vault.head()?;
        let (keyring, passphrase) = source.open(context, &vault, &head).await?;
        Ok(Rekey { vault, _lock: lock, head, keyring, passphrase })
    }

    /// Makes another keyring count, wrapped by this passphrase and to its recipients.
    pub async fn finish(
        self,
        context: &Context,
        keyring: Keyring,
        passphrase: &SecretString,
        done: &str,
    ) -> Result<()> {
        let step = context.ui.step("sealing the vault anew");
        // First of all, as plugins may refuse.
        let wrapping = keyring.clone();
        let recipients = plugin::in_thread(context, "the plugins of the recipients", move |asking| {
            wrapping.wrap_to_recipients(&asking)
        });
        let recipients = recipients.await??;
        let commit = self.commit(&keyring, &keyring.wrap(passphrase)?, recipients.as_deref())?;
        drop(step);
        let pushed = super::push_all(context, &self.vault).await;
        if let Err(error) = &pushed
            && error.kind() == Kind::Conflict
        {
            // Another machine was first. Its state is sealed to the old identity: this one is to be made again.
            self.vault.local().dequeue(commit.body.n)?;
            return Err(Error::new(
                Kind::Conflict,
                "another machine pushed meanwhile; passphrase and recipients are as they were",
            )
            .hint("try again"));
        }
        pushed.map_err(|error| error.hint("on this machine the change counts already"))?;
        context.ui.status(done);
        if commit.body.vk != self.head.body.vk {
            context.ui.status(format!("fingerprint: {}", commit.fingerprint()));
            context.ui.hint(
                "print `tazpod vault card` again; copies that somebody has already taken open as before",
            );
        }
        self.vault.local().trust()?;
        self.vault.local().tidy(&[commit.body.generation])
    }

    /// One commit that names both keyrings and the generation: there is no moment with one and not the other.
    fn commit(&self, keyring: &Keyring, wrapped: &[u8], to_recipients: Option<&[u8]>) -> Result<Commit> {
        let local = self.vault.local();
        let keep = |object, bytes: &[u8]| -> Result<Hash> {
            let mut incoming = local.incoming(object)?;
            std::io::Write::write_all(&mut incoming, bytes)
                .map_err(|source| Error::new(Kind::Failure, "cannot write the vault").with_source(source))?;
            Ok(incoming.finish(None)?.0)
        };
        let keys = keep(Object::Keys, wrapped)?;
        let recipients = to_recipients.map(|bytes| keep(Object::Recipients, bytes)).transpose()?;
        let (generation, size) = super::resealed(&self.vault, keyring, &self.head)?;
        let draft = Draft {
            generation,
            size,
            keys,
            recipients,
            kind: Reason::Rekey,
            second_parent: None,
            host: passphrase::host_name(),
            time: now(),
        };
        let id = self.head.body.vault;
        let (signer, retiring) = (keyring.current().signer(&id)?, self.keyring.current().signer(&id)?);
        let retiring = (signer.id() != retiring.id()).then_some(&retiring);
        let commit = Commit::write(id, local.load()?.tip.as_ref(), draft, &signer, retiring)?;
        local.enqueue(&commit)?;
        Ok(commit)
    }
}
