use super::opening::OpenArgs;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::vault::commit::{Commit, Reason};
use crate::vault::copies::{self, Decided};
use crate::vault::id::Hash;
use crate::vault::key::Keyring;
use crate::vault::local::Object;
use crate::vault::sync::{self, Pulled, Stopped};

/// Fetch the newest state of the vault from the store. A vault that is open in a pod is not touched.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The fingerprint on the recovery card: on a machine that has not seen the vault, no other is taken.
    #[arg(long, value_name = "FINGERPRINT")]
    card: Option<Hash>,
    /// After a fork: which side goes on. The other one is kept, as a held commit here and as a branch in the store.
    #[arg(long, value_name = "SIDE")]
    keep: Option<Side>,
    /// Take what the store has, though it has not, or has another than, the commit that this machine has seen there: it was set back, and
    /// that was meant. What this machine had is held here.
    #[arg(long, conflicts_with = "keep")]
    accept_rollback: bool,
    #[command(flatten)]
    open: OpenArgs,
}

/// A side of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Side {
    /// What the store has; of two that a synchroniser brought together, the other machine's.
    Theirs,
    /// What this machine has. Takes the passphrase: it becomes a new commit on top of what the store has, unless it is that.
    Mine,
}

impl Args {
    /// Pulls.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        let seen = vault.local().load()?.seen;
        // Where it is missing here, it is what is to be fetched.
        let before = seen.and_then(|_| vault.head().ok());
        for (pod, record) in context.state()?.pods() {
            if pod.spool().is_dir()
                && let Ok(link) = vault::reach(&pod, &record).await
            {
                super::collect_other(context, &vault, &pod, link.as_ref()).await;
            }
        }
        if self.accept_rollback {
            self.accept_rollback(context, &vault).await?;
        }
        let (mut decided, mut keyring) = (Decided::default(), None);
        let mut pulled = self.fetch(context, &vault).await;
        // Nothing is put aside before there is something to decide.
        if let (Err(Stopped::Fork(_)), Some(side)) = (&pulled, self.keep) {
            super::closed(context, &vault).await?;
            if side == Side::Mine {
                // Before anything is set aside: it is needed below.
                keyring = Some(self.open.open(context, &vault, &vault.head()?).await?);
            }
            decided = copies::decide(&vault.local(), &*vault.store).await?;
            if let Some(mine) = &decided.mine {
                let (n, host, short) = (mine.body.n, &mine.body.host, mine.hash.short());
                context.ui.status(format!("what was saved as commit {n} on `{host}` is held: {short}"));
            }
            pulled = self.fetch(context, &vault).await;
        }
        let pulled = pulled?;
        let Some(pulled) = pulled else {
            return Err(Error::new(Kind::Store, format!("there is no vault in {}", vault.store.describe()))
                .hint(
                    "`tazpod vault init` makes one; `[vault] address` in `config.toml` says where to look",
                ));
        };
        let body = &pulled.head.body;
        match pulled.new {
            0 => context.ui.status(format!("commit {} is the newest", body.n)),
            new => context
                .ui
                .status(format!("pulled {new} commits; {} is the newest, of `{}`", body.n, body.host)),
        }
        if seen.is_none() && self.card.is_none() {
            context.ui.status(format!("fingerprint: {}", pulled.head.fingerprint()));
            context.ui.hint(
                "compare it with the one on the recovery card: this machine had not seen the vault before",
            );
        }
        let is_other = |before: &Commit| before.body.vk != body.vk;
        if self.keep == Some(Side::Theirs) && before.is_some_and(|before| is_other(&before)) {
            context.ui.warn(format!(
                "the side that goes on is signed by another key than this machine's was: be sure that it is yours; its fingerprint is {}",
                pulled.head.fingerprint()
            ));
        }
        if self.keep.is_some() && decided.mine.is_none() && decided.theirs.is_none() {
            context.ui.hint(
                "there is no fork; what an interrupted `--keep` put aside is held: `tazpod vault history`, then `restore`",
            );
        }
        let other = match self.keep {
            Some(Side::Mine) => decided.mine,
            Some(Side::Theirs) => decided.theirs,
            None => None,
        };
        if let Some(other) = other {
            let vk = |keyring: &Keyring| keyring.current().signer(&body.vault).map(|signer| signer.id());
            let (before, keyring) = match keyring {
                Some(keyring) if vk(&keyring)? == body.vk => (None, keyring),
                // The sides have different keys: one has changed the passphrase, say.
                before => (before, self.open.open(context, &vault, &pulled.head).await?),
            };
            let (generation, size) = (&other.body.generation, Some(other.body.size));
            sync::fetch(&vault.local(), &*vault.store, Object::Generation, generation, size).await?;
            let sealed =
                super::resealed_by(context, &vault, &self.open, [before.as_ref(), Some(&keyring)], &other);
            let sealed = sealed.await?;
            if other.body.keys != body.keys {
                context.ui.warn("its passphrase and recipients are those of the side that goes on; change them again if need be");
            }
            let commit = super::recommit(&vault, &keyring, sealed, Reason::Merge, Some(other.hash))?;
            let (n, host) = (commit.body.n, &other.body.host);
            context.ui.status(format!("commit {n} has what was saved as {} on `{host}`", other.body.n));
            super::push_all(context, &vault).await?;
        }
        vault.local().tidy(&[vault.head()?.body.generation])
    }

    async fn accept_rollback(&self, context: &Context, vault: &Vault) -> Result<()> {
        super::closed(context, vault).await?;
        let Some(aside) = sync::accept_rollback(&vault.local(), &*vault.store).await? else {
            context.ui.status("the store has not gone back");
            return Ok(());
        };
        for commit in aside {
            let (n, short) = (commit.body.n, commit.hash.short());
            context.ui.status(format!("commit {n} of this machine is held: {short}"));
            let (generation, size) = (&commit.body.generation, Some(commit.body.size));
            let (local, object) = (vault.local(), Object::Generation);
            match sync::fetch(&local, &*vault.store, object, generation, size).await.map_err(Error::from) {
                Ok(()) => context.ui.hint(format!("`tazpod vault restore {short}` makes it current again")),
                Err(error) => context.ui.warn(format!("its state is neither here nor in the store: {error}")),
            }
        }
        Ok(())
    }

    async fn fetch(&self, context: &Context, vault: &Vault) -> Result<Option<Pulled>, Stopped> {
        let _step = context.ui.step(format!("pulling from {}", vault.store.describe()));
        sync::pull(&vault.local(), &*vault.store, self.card).await
    }
}
