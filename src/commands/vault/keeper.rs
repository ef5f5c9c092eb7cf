//! What commands share that work on an open vault, from outside its pod or inside.

use std::io::{PipeWriter, Read};
use std::path::PathBuf;

use crate::agent::vault::{Answer, Request};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::link::{Link, inside};
use crate::pod::target::PodArgs;
use crate::pod::vault;
use crate::vault::archive::Packed;
use crate::vault::tree::Skipped;

/// The pod that is meant, where the names that follow the command are not its.
#[derive(Debug, clap::Args)]
pub struct KeeperArgs {
    /// The pod in which the vault is open; this workspace's only pod if left out.
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    /// The workspace, instead of this directory or one above it.
    #[arg(short = 'C', long, value_name = "DIR")]
    workspace: Option<PathBuf>,
}

impl KeeperArgs {
    /// The keeper of the vault.
    ///
    /// # Errors
    /// As [`Keeper::find`].
    pub async fn find(self, context: &Context) -> Result<Keeper> {
        Keeper::find(context, &PodArgs { pod: self.pod, workspace: self.workspace }).await
    }
}

/// The keeper of an open vault: that of a pod of this machine, or, inside a pod, its own.
pub enum Keeper {
    /// Of a pod.
    Pod(Box<Link>),
    /// By its socket.
    Here(PathBuf),
}

impl Keeper {
    /// That of a pod which is named, or found.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub async fn find(context: &Context, pod: &PodArgs) -> Result<Keeper> {
        match inside::socket() {
            Some(socket) => Ok(Keeper::Here(socket)),
            None => super::reach(context, pod).await.map(|(_, link)| Keeper::Pod(Box::new(link))),
        }
    }

    /// Asks it; what `packed` gives follows the request.
    ///
    /// # Errors
    /// What it refuses.
    pub async fn ask(&self, request: &Request, packed: Option<&mut (dyn Read + Send)>) -> Result<Answer> {
        match self {
            Keeper::Pod(link) => link.vault(request, packed).await,
            Keeper::Here(socket) => inside::ask(socket, request, packed).await,
        }
    }

    /// Adds what `pack` packs, which has a thread of its own: it is nowhere whole. What it skips is told before.
    ///
    /// # Errors
    /// What it refuses; [`Kind::Failure`] where something was left out.
    pub async fn add(
        &self,
        context: &Context,
        replace: bool,
        skipped: &[Skipped],
        pack: impl FnOnce(PipeWriter) -> Result<Packed<PipeWriter>> + Send + 'static,
    ) -> Result<()> {
        for Skipped { path, why, .. } in skipped {
            context.ui.warn(format!("`{}` is not added: {why}", path.display()));
        }
        let failed = |source| Error::new(Kind::Failure, "cannot make a pipe").with_source(source);
        let (mut reader, writer) = std::io::pipe().map_err(failed)?;
        let packing = std::thread::spawn(move || pack(writer).map(|packed| (packed.torn, packed.unreadable)));
        let asked = self.ask(&Request::Add { replace }, Some(&mut reader)).await;
        // One that waits for a reader has none any more.
        drop(reader);
        let broke = || Error::new(Kind::Failure, "packing broke off");
        let packed = packing.join().map_err(|_| broke()).and_then(|packed| packed);
        let packed = match (asked, packed) {
            (Err(refused), _) if refused.kind() != Kind::Integrity => return Err(refused),
            (_, Err(error)) => return Err(error),
            (Err(refused), Ok(_)) => return Err(refused),
            (Ok(answer), Ok(left_out)) => (answer, left_out),
        };
        let (answer, (torn, unreadable)) = packed;
        let Answer::Added { bytes, entries, saved } = answer else { return Err(vault::unexpected(&answer)) };
        let size = crate::ui::size(i64::try_from(bytes).unwrap_or(i64::MAX));
        context.ui.status(format!("added {entries} entries, {size}"));
        for path in &torn {
            context.ui.warn(format!("`{}` changed while it was read", path.display()));
        }
        for path in &unreadable {
            context.ui.warn(format!("`{}` cannot be read", path.display()));
        }
        let reported = super::report(context, &saved);
        let more = torn.len() + unreadable.len() + skipped.iter().filter(|skipped| skipped.lost).count();
        if more == 0 {
            return reported;
        }
        let what = format!("{more} of these are not in the vault as they are here");
        Err(match reported {
            Ok(()) => Error::new(Kind::Failure, what).hint("remove nothing yet"),
            Err(held) => held.hint(format!("{what}: remove nothing yet")),
        })
    }
}
