//! What commands share that open the vault: by its passphrase, or by the identity of a recipient.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::passphrase::{PassphraseArgs, TRIES};
use super::plugin;
use crate::adapters::terminal;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::vault::commit::Commit;
use crate::vault::key::{Keyring, NotOpened};
use crate::vault::recipient::{self, Identities};

/// A file of keys is not larger, in bytes.
pub const LARGEST: u64 = 64 << 10;
/// Room for what comes through a pipe, in bytes: what is moved to a larger place leaves a copy behind.
const ROOM: u64 = 1 << 20;

/// What opens the vault.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct OpenArgs {
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Open it with the identity of a recipient, instead of the passphrase: a file of age's, or a private key of OpenSSH's.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_fd")]
    identity: Option<PathBuf>,
}

impl OpenArgs {
    /// Opens the keyring of a commit.
    pub async fn open(&self, context: &Context, vault: &Vault, commit: &Commit) -> Result<Keyring> {
        let Some(path) = &self.identity else {
            return Ok(self.passphrase.open(context, vault, commit).await?.0);
        };
        let wrapped = vault.keyring_for_recipients(commit)?;
        let identities = read(context, path).await?;
        let step = context.ui.step("opening the keyring");
        let opened = plugin::in_thread(context, "an identity", move |asking| {
            let identities = identities.unwrapping(asking)?;
            let identities: Vec<_> = identities.iter().map(|identity| &**identity).collect();
            Keyring::unwrap_with(&wrapped, &identities)
        });
        let opened = opened.await?;
        drop(step);
        let keyring = opened.map_err(|failed| match failed {
            NotOpened::Other(error) => error,
            NotOpened::Passphrase => Error::new(
                Kind::Passphrase,
                format!("`{}` is the identity of none of the vault's recipients", path.display()),
            )
            .hint("`tazpod vault recipients ls` lists them; the passphrase opens the vault, too"),
        })?;
        vault::check_keyring(commit, &keyring)?;
        Ok(keyring)
    }
}

/// Reads a file of identities; asks for the passphrase of a key that has one.
async fn read(context: &Context, path: &Path) -> Result<Identities> {
    let bytes = read_file(context, path, LARGEST).await?;
    let wrong = |error: Error| error.hint(format!("`--identity {}`", path.display()));
    // In a thread: of some keys that are malformed the crate does not tell, it panics.
    let parsed = plugin::in_thread(context, "this identity", move |_| Identities::parse(&bytes)).await?;
    let key = match parsed.map_err(wrong)? {
        Identities::Encrypted(key) => key,
        identities => return Ok(identities),
    };
    let prompt = format!("passphrase of `{}`: ", path.display());
    let instead = "without a terminal `--identity` takes keys that are not encrypted";
    for _ in 0..TRIES {
        let passphrase = terminal::ask_secret(&prompt, instead).await?;
        let key = key.clone();
        let decrypted =
            plugin::in_thread(context, "the key", move |_| recipient::decrypt(&key, passphrase)).await?;
        match decrypted {
            Some(identities) => return Ok(identities),
            None => context.ui.warn("this is not the key's passphrase"),
        }
    }
    Err(Error::new(Kind::Passphrase, format!("this is not the passphrase of `{}`", path.display())))
}

/// A file of secrets whole, if it is not larger than `limit`, in bytes. It may be a pipe, which takes its time.
///
/// # Errors
/// [`Kind::Usage`] where it is larger; as read(2).
pub async fn read_file(context: &Context, path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let opened = path.to_owned();
    let name = format!("`{}`", path.display());
    let read = plugin::in_thread(context, &name, move |_| {
        let file = File::open(&opened)?;
        let size = file.metadata().map(|found| if found.is_file() { found.len() } else { ROOM })?;
        let room = usize::try_from(size.min(limit) + 1).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(limit + 1).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    });
    let bytes = read.await?.map_err(|source| Error::io("read", path, source))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::new(Kind::Usage, format!("{name} is larger than {limit} bytes"))),
        false => Ok(bytes),
    }
}
