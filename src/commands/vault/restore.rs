use super::opening::OpenArgs;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::vault::commit::{Commit, Reason};
use crate::vault::id::Hash;
use crate::vault::local::Object;
use crate::vault::pruned;
use crate::vault::sync;

/// Make an earlier state of the vault current again.
///
/// That is a new commit: nothing after it is lost. The vault must be locked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The number of the commit, or the hash of a held one or of a branch, or its beginning, as `vault history` shows them.
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
        let (wanted, failed) = match wanted {
            None if could_name(&self.commit) => match self.branch(context, &vault).await {
                Ok(branch) => (branch, None),
                Err(failed) => (None, Some(failed)),
            },
            wanted => (wanted, None),
        };
        let wanted = wanted.ok_or_else(|| {
            let error = Error::new(Kind::Usage, format!("this machine has no commit `{}`", self.commit)).hint(
                "`tazpod vault history` lists them, with `--branches` those of other machines, too; `tazpod vault pull` fetches what is new",
            );
            failed.into_iter().fold(error, Error::with_source)
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

    /// What another machine had, and lost a race with; all that it names is here then.
    async fn branch(&self, context: &Context, vault: &Vault) -> Result<Option<Commit>> {
        let local = vault.local();
        let branches = sync::branches(&local, &*vault.store).await?;
        let found = branches.into_iter().find(|branch| is_named(&branch.hash, &self.commit));
        if let Some(branch) = &found {
            if branch.body.vk != vault.head()?.body.vk {
                context.ui.warn(
                    "it is signed by a key that the vault does not have any more: be sure that it is yours",
                );
            }
            sync::fetch_all(&local, &*vault.store, branch).await?;
        }
        Ok(found)
    }
}

/// Whether a hash begins like this.
fn is_named(hash: &Hash, text: &str) -> bool {
    could_name(text) && hash.to_string().starts_with(text)
}

fn could_name(text: &str) -> bool {
    text.len() >= 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
