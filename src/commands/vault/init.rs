use super::passphrase::{self, NewPassphrase, PassphraseArgs};
use crate::agent::vault::now;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::vault::archive;
use crate::vault::commit::{Commit, Draft, Reason};
use crate::vault::id::VaultId;
use crate::vault::key::Keyring;
use crate::vault::local::{Local, Object};
use crate::vault::sync::Stopped;
use crate::vault::tree::{Root, Tree};

/// Make a new, empty vault, in the store and on this machine.
///
/// Its passphrase opens it, and nothing else does: write it down, and keep `tazpod vault card` beside it.
#[derive(Debug, clap::Args)]
#[command(mut_arg("generate", |argument| argument.conflicts_with("passphrase_fd")))]
pub struct Args {
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    new: NewPassphrase,
}

impl Args {
    /// Makes it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        if let Some(tip) = vault.local().load()?.tip {
            return Err(Error::new(
                Kind::Conflict,
                format!("this machine has a vault already: {}", tip.vault),
            )
            .hint("`tazpod vault status` shows it; `tazpod vault push` ends an init that was interrupted"));
        }
        vault.make_directory().await?;
        vault.examine(context).await?;
        let passphrase = self.passphrase.choose(context, &self.new).await?;
        let id = VaultId::random().map_err(|source| {
            Error::new(Kind::Failure, "the system has no randomness").with_source(source)
        })?;
        let keyring = Keyring::generate(id)?;
        let first = first(&vault.local(), &keyring, keyring.wrap(&passphrase)?)?;
        vault.local().enqueue(&first)?;
        let step = context.ui.step(format!("pushing to {}", vault.store.describe()));
        let pushed = vault.push(context).await;
        drop(step);
        if let Err(Stopped::Fork(_)) = &pushed {
            // Empty as it is, nobody needs it: the other one counts.
            vault.local().dequeue(1)?;
        }
        pushed?;
        vault.local().trust()?;
        context.ui.status(format!("made the vault {id} in {}", vault.store.describe()));
        context.ui.status(format!("fingerprint: {}", first.fingerprint()));
        context.ui.hint(
            "print `tazpod vault card` and keep it with the passphrase; `tazpod vault unlock` opens it",
        );
        Ok(())
    }
}

/// The commit of an empty tree.
fn first(local: &Local<'_>, keyring: &Keyring, wrapped: Vec<u8>) -> Result<Commit> {
    let failed = |source| Error::new(Kind::Failure, "cannot write the vault").with_source(source);
    let mut incoming = local.incoming(Object::Keys)?;
    std::io::Write::write_all(&mut incoming, &wrapped).map_err(failed)?;
    let (keys, _) = incoming.finish(None)?;
    let mut incoming = local.incoming(Object::Generation)?;
    let root = Root::open("/".as_ref()).map_err(failed)?;
    archive::seal(&root, &Tree::default(), &keyring.current().recipient(), &mut incoming)?;
    let (generation, size) = incoming.finish(None)?;
    let draft = Draft {
        generation,
        size,
        keys,
        recipients: None,
        kind: Reason::Init,
        second_parent: None,
        host: passphrase::host_name(),
        time: now(),
    };
    Commit::write(keyring.vault(), None, draft, &keyring.current().signer(&keyring.vault())?, None)
}
