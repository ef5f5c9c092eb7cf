use super::opening::OpenArgs;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::vault::commit::Reason;
use crate::vault::id::Hash;
use crate::vault::local::Object;
use crate::vault::pruned;
use crate::vault::sync;

/// Make an earlier state of the vault current again.
///
/// That is a new commit: nothing after it is lost. The vault must be locked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The number of the commit, or the hash of a held one, or its beginning, as `vault history` shows them.
    #[arg(value_name = "COMMIT")]
    commit: String,
    #[command(flatten)]
    open: OpenArgs,
}

impl Args {
    /// Restores it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        super::closed(context, &vault).await?;
        let local = vault.local();
        let head = vault.head()?;
        let numbered = match self.commit.parse::<u64>() {
            Ok(n) => match local.load()?.outbox.into_iter().find(|outgoing| outgoing.commit.body.n == n) {
                Some(outgoing) => Some(outgoing.commit),
                None => local.commit(n)?,
            },
            Err(_) => None,
        };
        // The beginning of a hash may be all digits.
        let wanted = match numbered {
            Some(commit) => Some(commit),
            None => local.held()?.into_iter().find(|held| is_named(&held.hash, &self.commit)),
        };
        let wanted = wanted.ok_or_else(|| {
            Error::new(Kind::Usage, format!("this machine has no commit `{}`", self.commit)).hint(
                "`tazpod vault history` lists them, `tazpod vault pull` fetches those of other machines",
            )
        })?;
        if wanted.body.generation == head.body.generation {
            context.ui.status(format!("commit {} has this state already", head.body.n));
            // Of a restore that was interrupted, perhaps.
            return super::push_all(context, &vault).await;
        }
        let keyring = self.open.open(context, &vault, &head).await?;
        let fetched = sync::fetch(
            &local,
            &*vault.store,
            Object::Generation,
            &wanted.body.generation,
            Some(wanted.body.size),
        )
        .await;
        if let Err(failed) = fetched {
            return Err(pruned::explain(&*vault.store, &wanted, failed.into()).await);
        }
        let sealed = super::resealed_by(context, &vault, &self.open, [None, Some(&keyring)], &wanted).await?;
        let commit = super::recommit(&vault, &keyring, sealed, Reason::Restore, None)?;
        context.ui.status(format!("commit {} has the state of {}", commit.body.n, self.commit));
        super::push_all(context, &vault).await?;
        local.tidy(&[commit.body.generation])
    }
}

/// Whether a hash begins like this.
fn is_named(hash: &Hash, text: &str) -> bool {
    text.len() >= 4 && hash.to_string().starts_with(text)
}
