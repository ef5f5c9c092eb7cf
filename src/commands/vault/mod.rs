//! One file a command, as above.

mod add;
mod card;
mod history;
mod import;
mod init;
mod keeper;
mod lock;
mod ls;
mod opening;
mod passphrase;
mod plugin;
mod prune;
mod pull;
mod push;
mod recipients;
mod restore;
mod rm;
mod rotate;
mod save;
mod setup_storage;
mod status;
mod unlock;
mod verify;

use clap::Subcommand;

use crate::adapters::state::PodDir;
use crate::agent::vault::{Answer, Request, now};
use crate::commands::attach;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::link::{Link, inside};
use crate::pod::target::PodArgs;
use crate::pod::vault::{self, Vault, check_transport};
use crate::vault::commit::{Commit, Draft, Reason};
use crate::vault::id::Hash;
use crate::vault::keeper::Saved;
use crate::vault::key::Keyring;
use crate::vault::local::Object;

/// Secrets as files: open in a pod's RAM alone, sealed everywhere else.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Status(status::Args),
    Unlock(unlock::Args),
    Lock(lock::Args),
    Save(save::Args),
    Ls(ls::Args),
    Add(add::Args),
    Rm(rm::Args),
    Import(import::Args),
    Push(push::Args),
    Pull(pull::Args),
    History(history::Args),
    Restore(restore::Args),
    Verify(verify::Args),
    Passphrase(rotate::Args),
    Recipients(recipients::Args),
    Card(card::Args),
    Prune(prune::Args),
    SetupStorage(setup_storage::Args),
}

impl Args {
    /// Runs it.
    pub async fn run(self, context: &Context) -> Result<()> {
        if inside::socket().is_some() && !self.command.is_for_pods() {
            return Err(not_here());
        }
        match self.command {
            Command::Init(args) => args.run(context).await,
            Command::Status(args) => args.run(context).await,
            Command::Unlock(args) => args.run(context).await,
            Command::Lock(args) => args.run(context).await,
            Command::Save(args) => args.run(context).await,
            Command::Ls(args) => args.run(context).await,
            Command::Add(args) => args.run(context).await,
            Command::Rm(args) => args.run(context).await,
            Command::Import(args) => args.run(context).await,
            Command::Push(args) => args.run(context).await,
            Command::Pull(args) => args.run(context).await,
            Command::History(args) => args.run(context).await,
            Command::Restore(args) => args.run(context).await,
            Command::Verify(args) => args.run(context).await,
            Command::Passphrase(args) => args.run(context).await,
            Command::Recipients(args) => args.run(context).await,
            Command::Card(args) => args.run(context).await,
            Command::Prune(args) => args.run(context).await,
            Command::SetupStorage(args) => args.run(context).await,
        }
    }
}

impl Command {
    /// Whether it works inside a pod, too: on what is open there.
    fn is_for_pods(&self) -> bool {
        matches!(
            self,
            Command::Status(_)
                | Command::Unlock(_)
                | Command::Lock(_)
                | Command::Save(_)
                | Command::Ls(_)
                | Command::Add(_)
                | Command::Rm(_)
                | Command::Import(_)
        )
    }
}

/// Opens it in a pod by its passphrase, unless it is open there.
///
/// # Errors
/// As `tazpod vault unlock`.
pub async fn unlock(context: &Context, pod: PodArgs) -> Result<()> {
    let (_, link) = reach(context, &pod).await?;
    match is_open(Some(&link), true).await? {
        true => Ok(()),
        false => unlock::Args::new(pod).run(context).await,
    }
}

fn not_here() -> Error {
    Error::new(Kind::Usage, "this is the inside of a pod, and that is done outside")
        .hint("on the host: the vault's keys and its store are there alone")
}

/// The pod that is meant, and a link to its agent.
async fn reach(context: &Context, pod: &PodArgs) -> Result<(PodDir, Link)> {
    let (pod, record) = pod.find(&context.state()?)?;
    check_transport(&record)?;
    let link = attach::open(&pod, &record).await?;
    Ok((pod, link))
}

/// For commands that make commits themselves: the vault is open in no pod, and what pods have saved is here.
async fn closed(context: &Context, vault: &Vault) -> Result<()> {
    for (pod, record) in context.state()?.pods() {
        if !pod.spool().is_dir() {
            continue;
        }
        let link = vault::reach(&pod, &record).await?;
        check_closed(&pod, link.as_ref()).await?;
        collect_other(context, vault, &pod, link.as_ref()).await;
    }
    Ok(())
}

/// One writer at a time: where the vault is open elsewhere on this machine, it is to be locked there first.
async fn check_closed(pod: &PodDir, link: Option<&Link>) -> Result<()> {
    if is_open(link, true).await? {
        return Err(Error::new(Kind::Locked, format!("the vault is open in `{}`", pod.name()))
            .hint(format!("`tazpod vault lock {}` saves and closes it there", pod.name())));
    }
    Ok(())
}

/// Whether a pod has it open; one that does not run has not, and one whose saves are held counts only if `beside`.
async fn is_open(link: Option<&Link>, beside: bool) -> Result<bool> {
    let Some(link) = link else { return Ok(false) };
    let state = link.vault(&Request::State, None).await?;
    Ok(matches!(state, Answer::State { open: Some(_), held } if beside || !held))
}

/// Takes over what another pod has saved. One that left nonsense there is no reason not to go on.
async fn collect_other(context: &Context, vault: &Vault, pod: &PodDir, link: Option<&Link>) {
    if let Err(error) = vault.collect(context, pod, link).await {
        context.ui.warn(format!("what `{}` has saved could not be taken over: {error}", pod.name()));
    }
}

/// After a save: what was saved is current, or it is said that it is not.
fn check_current(current: bool) -> Result<()> {
    match current {
        true => Ok(()),
        false => Err(Error::new(Kind::Conflict, "what was saved is held: another state came first")
            .hint("`tazpod vault history` shows both, `tazpod vault restore` makes the held one current")),
    }
}

/// A commit of a generation that is there already, signed by the current identity, in the outbox.
fn recommit(
    vault: &Vault,
    keyring: &Keyring,
    (generation, size): (Hash, u64),
    kind: Reason,
    other: Option<Hash>,
) -> Result<Commit> {
    let head = vault.head()?;
    let draft = Draft {
        generation,
        size,
        keys: head.body.keys,
        recipients: head.body.recipients,
        kind,
        second_parent: other,
        host: passphrase::host_name(),
        time: now(),
    };
    let signer = keyring.current().signer(&head.body.vault)?;
    let local = vault.local();
    let commit = Commit::write(head.body.vault, local.load()?.tip.as_ref(), draft, &signer, None)?;
    local.enqueue(&commit)?;
    Ok(commit)
}

/// A commit's generation sealed to the current identity, which it may be already: its name and its size in bytes.
fn resealed(vault: &Vault, keyring: &Keyring, commit: &Commit) -> Result<(Hash, u64)> {
    resealed_from(vault, keyring, keyring, commit)
}

/// The same of a commit of any side of a fork, which may have keys of its own: the last keyring is the one that goes on, and where
/// none of them opens it, the commit's own is asked for.
async fn resealed_by(
    context: &Context,
    vault: &Vault,
    open: &opening::OpenArgs,
    keyrings: [Option<&Keyring>; 2],
    commit: &Commit,
) -> Result<(Hash, u64)> {
    let [_, Some(current)] = keyrings else { return Err(Error::new(Kind::Failure, "no keyring is open")) };
    let local = vault.local();
    for keyring in keyrings.into_iter().flatten() {
        let (_, sealed) = local.open(Object::Generation, &commit.body.generation)?;
        if keyring.open(sealed).is_ok() {
            return resealed_from(vault, keyring, current, commit);
        }
    }
    context.ui.status(format!("commit {} was sealed by other keys: what opened it then?", commit.body.n));
    let own = open.open(context, vault, commit).await?;
    resealed_from(vault, &own, current, commit)
}

fn resealed_from(
    vault: &Vault,
    opening: &Keyring,
    keyring: &Keyring,
    commit: &Commit,
) -> Result<(Hash, u64)> {
    let local = vault.local();
    let generation = || local.open(Object::Generation, &commit.body.generation);
    if keyring.current().open(generation()?.1).is_ok() {
        return Ok((commit.body.generation, commit.body.size));
    }
    let mut plain = opening.open(generation()?.1)?;
    let mut sealing = keyring.current().recipient().seal(local.incoming(Object::Generation)?)?;
    let failed = |source| Error::new(Kind::Failure, "cannot seal the vault anew").with_source(source);
    std::io::copy(&mut plain, &mut sealing).map_err(failed)?;
    sealing.finish().map_err(failed)?.finish(None)
}

/// Pushes, and says so.
async fn push_all(context: &Context, vault: &Vault) -> Result<()> {
    let step = context.ui.step(format!("pushing to {}", vault.store.describe()));
    let pushed = vault.push(context).await?;
    drop(step);
    pushed.numbers.iter().for_each(|n| context.ui.status(format!("pushed commit {n}")));
    Ok(())
}

/// Says what became of a save.
fn report(context: &Context, saved: &Saved) -> Result<()> {
    match saved {
        Saved::Unchanged => context.ui.status("nothing has changed"),
        Saved::Made { n, files, bytes, skipped } => {
            for skipped in skipped {
                context.ui.warn(format!("not saved: {skipped}"));
            }
            let size = crate::ui::size(i64::try_from(*bytes).unwrap_or(i64::MAX));
            context.ui.status(format!("saved as commit {n}: {files} files, {size}"));
        }
        Saved::Held { why, elsewhere } => {
            let error = Error::new(Kind::Conflict, format!("the save is held, because {why}"));
            return Err(match elsewhere {
                true => error.hint(
                    "it is kept, but not current; after `tazpod vault lock`, `tazpod vault history` shows it and `restore` makes it current",
                ),
                false => error.hint(
                    "it is kept, but not current; `tazpod vault save --force` makes what is in the pod current, `tazpod vault restore` the held one",
                ),
            });
        }
    }
    Ok(())
}
