//! What commands share that need the passphrase. It never leaves this machine's memory.

use std::io::Read as _;

use age::secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::plugin;
use crate::adapters::sys::process;
use crate::adapters::terminal;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::Vault;
use crate::vault::commit::Commit;
use crate::vault::key::{Keyring, NotOpened};
use crate::vault::words;

/// How often a passphrase may be typed wrong.
pub const TRIES: u32 = 3;
/// What is said of a wrong one.
const WRONG: &str = "this is not the vault's passphrase";
/// A passphrase that was chosen has at least so many characters.
const SHORTEST: usize = 12;
/// A passphrase is not longer, in bytes.
const LONGEST: usize = terminal::SECRET_LIMIT;
/// What to do without a terminal.
const INSTEAD: &str = "`--passphrase-fd FD` reads it from a file descriptor";

/// Where the passphrase comes from.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct PassphraseArgs {
    /// Read the passphrase from this file descriptor, up to its end or a newline, instead of the terminal.
    #[arg(long, value_name = "FD")]
    passphrase_fd: Option<u32>,
}

impl PassphraseArgs {
    /// From this descriptor, or the terminal.
    pub fn of(passphrase_fd: Option<u32>) -> PassphraseArgs {
        PassphraseArgs { passphrase_fd }
    }

    /// A new passphrase, typed twice, or six words by chance.
    pub async fn choose(&self, context: &Context, new: &NewPassphrase) -> Result<SecretString> {
        let passphrase = match self.passphrase_fd {
            _ if new.generate => return generated(context).await,
            Some(descriptor) => given(context, descriptor).await?,
            None => {
                let question = "new passphrase (leave it empty for six words by chance): ";
                let passphrase = terminal::ask_secret(question, INSTEAD).await?;
                if passphrase.expose_secret().is_empty() {
                    return generated(context).await;
                }
                let again = terminal::ask_secret("the same again: ", INSTEAD).await?;
                if passphrase.expose_secret() != again.expose_secret() {
                    return Err(Error::new(Kind::Passphrase, "the two passphrases are not the same"));
                }
                passphrase
            }
        };
        let text = passphrase.expose_secret();
        let distinct: std::collections::BTreeSet<char> = text.chars().collect();
        if text.is_empty() {
            return Err(Error::new(Kind::Passphrase, "the passphrase is empty"));
        }
        if !new.weak && (text.chars().count() < SHORTEST || distinct.len() < SHORTEST / 2) {
            return Err(Error::new(Kind::Passphrase, "the passphrase is easy to guess").hint(format!(
                "take {SHORTEST} characters or more, best six words by chance (`--generate`); `--weak` takes it as it is"
            )));
        }
        Ok(passphrase)
    }

    /// Opens the keyring of a commit; asks again where the passphrase was wrong. The passphrase comes with it.
    pub async fn open(
        &self,
        context: &Context,
        vault: &Vault,
        commit: &Commit,
    ) -> Result<(Keyring, SecretString)> {
        self.try_with(context, "passphrase of the vault: ", WRONG, |passphrase| {
            Ok((vault.keyring(commit, passphrase)?, passphrase.clone()))
        })
        .await
    }

    /// Opens something; asks again where the passphrase was wrong.
    pub async fn try_with<T>(
        &self,
        context: &Context,
        prompt: &str,
        wrong: &str,
        open: impl Fn(&SecretString) -> Result<T, NotOpened>,
    ) -> Result<T> {
        for _ in 0..TRIES {
            let passphrase = match self.passphrase_fd {
                Some(descriptor) => given(context, descriptor).await?,
                None => terminal::ask_secret(prompt, INSTEAD).await?,
            };
            let step = context.ui.step("opening the keyring");
            let opened = open(&passphrase);
            drop(step);
            match opened {
                Ok(opened) => return Ok(opened),
                Err(NotOpened::Other(error)) => return Err(error),
                Err(NotOpened::Passphrase) if self.passphrase_fd.is_some() => break,
                Err(NotOpened::Passphrase) => context.ui.warn(wrong),
            }
        }
        Err(Error::new(Kind::Passphrase, wrong))
    }
}

/// How a new passphrase is chosen.
#[derive(Debug, clap::Args)]
pub struct NewPassphrase {
    /// Have six words chosen by chance, and shown once: on the terminal, or, where there is none, on standard output.
    #[arg(long)]
    generate: bool,
    /// Take a passphrase that is easy to guess.
    #[arg(long)]
    weak: bool,
}

/// Six words, shown once, and typed by whoever has written them down.
async fn generated(context: &Context) -> Result<SecretString> {
    let words = words::generate()?;
    if terminal::show(words.expose_secret()).is_err() {
        context.ui.data(words.expose_secret())?;
        return Ok(words);
    }
    for _ in 0..TRIES {
        let typed = terminal::ask_secret("write these words down, and type them: ", INSTEAD).await?;
        if typed.expose_secret() == words.expose_secret() {
            return Ok(words);
        }
        context.ui.warn("these are other words");
    }
    Err(Error::new(Kind::Passphrase, "what was typed is not what was shown"))
}

/// Whoever gives it may take their time.
async fn given(context: &Context, descriptor: u32) -> Result<SecretString> {
    plugin::in_thread(context, "the passphrase", move |_| read(descriptor)).await?
}

fn read(descriptor: u32) -> Result<SecretString> {
    let failed = |source| {
        Error::new(Kind::Usage, format!("cannot read the passphrase from file descriptor {descriptor}"))
            .with_source(source)
    };
    let mut file = process::inherited(descriptor).map_err(failed)?;
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut byte = [0];
    // One by one: what comes after the line may be another's.
    while file.read(&mut byte).map_err(failed)? == 1 && byte != *b"\n" {
        if text.len() == LONGEST {
            let what = format!("the passphrase is longer than {LONGEST} bytes");
            return Err(Error::new(Kind::Usage, what));
        }
        text.extend(byte);
    }
    let text = std::str::from_utf8(&text)
        .map_err(|source| Error::new(Kind::Usage, "the passphrase is not UTF-8").with_source(source))?;
    Ok(SecretString::from(text.strip_suffix('\r').unwrap_or(text)))
}

/// What commits call this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
