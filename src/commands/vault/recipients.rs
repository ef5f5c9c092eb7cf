use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::opening::{LARGEST, OpenArgs, read_file};
use super::passphrase::PassphraseArgs;
use super::rotate::{Rekey, RewrapArgs};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::vault::{self, Vault};
use crate::ui;
use crate::vault::recipient::Recipient;

/// Let other keys open the vault, besides the passphrase.
///
/// Who is on the list is sealed too, so that all of these ask for the passphrase.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(AddArgs),
    Rm(RmArgs),
    Ls(LsArgs),
}

/// Which recipients are meant.
#[derive(Debug, clap::Args)]
struct Given {
    /// `age1…`, `ssh-ed25519 …`, `ssh-rsa …`, or `age1NAME1…` of the age plugin `age-plugin-NAME`. What stands behind it is its comment.
    #[arg(value_name = "RECIPIENT", required_unless_present = "file")]
    recipients: Vec<String>,
    /// Take the recipients from this file, one a line, as ~/.ssh/id_ed25519.pub has one.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
}

/// Let these keys open the vault.
#[derive(Debug, clap::Args)]
struct AddArgs {
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Let these keys open the vault no more.
///
/// The vault gets another identity, as with `vault passphrase`: they open nothing that is sealed from then on. What was sealed before,
/// and copied by somebody who has one of them, stays readable to them.
#[derive(Debug, clap::Args)]
struct RmArgs {
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    rewrap: RewrapArgs,
}

/// List the keys that open the vault besides the passphrase.
#[derive(Debug, clap::Args)]
struct LsArgs {
    #[command(flatten)]
    open: OpenArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    recipients: Vec<RecipientReport>,
}

#[derive(Serialize)]
struct RecipientReport {
    /// `age`, `ssh-ed25519`, `ssh-rsa` or `age-plugin-NAME`.
    kind: String,
    recipient: String,
    comment: String,
}

impl Args {
    /// Runs it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Command::Add(args) => args.run(context).await,
            Command::Rm(args) => args.run(context).await,
            Command::Ls(args) => args.run(context).await,
        }
    }
}

impl Given {
    /// Each line that was given.
    async fn lines(&self, context: &Context) -> Result<Vec<String>> {
        let mut lines = self.recipients.clone();
        for path in &self.file {
            let bytes = read_file(context, path, LARGEST).await?;
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            let before = lines.len();
            lines.extend(
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .map(str::to_owned),
            );
            if lines.len() == before {
                return Err(Error::new(
                    Kind::Usage,
                    format!("there is no recipient in `{}`", path.display()),
                ));
            }
        }
        Ok(lines)
    }
}

impl AddArgs {
    async fn run(self, context: &Context) -> Result<()> {
        let lines = self.given.lines(context).await?;
        let new = lines.iter().map(|line| Recipient::parse(line)).collect::<Result<Vec<_>>>()?;
        let rekey = Rekey::begin(context, &self.passphrase).await?;
        let mut recipients = rekey.keyring.recipients().to_vec();
        for recipient in new {
            if recipients.iter().any(|there| there.key() == recipient.key()) {
                return Err(Error::new(Kind::Usage, format!("`{recipient}` is a recipient already"))
                    .hint("nothing was changed"));
            }
            recipients.push(recipient);
        }
        let done = count(recipients.len());
        let keyring = rekey.keyring.with_recipients(recipients);
        let passphrase = rekey.passphrase.clone();
        rekey.finish(context, keyring, &passphrase, &done).await
    }
}

impl RmArgs {
    async fn run(self, context: &Context) -> Result<()> {
        let lines = self.given.lines(context).await?;
        let rekey = Rekey::begin(context, &self.passphrase).await?;
        let mut recipients = rekey.keyring.recipients().to_vec();
        for line in lines {
            let parsed = Recipient::parse(&line);
            let meant = |there: &Recipient| match &parsed {
                Ok(recipient) => there.key() == recipient.key(),
                Err(_) => there.comment() == line && !line.is_empty(),
            };
            let found = recipients.iter().filter(|there| meant(there)).count();
            if found == 1 {
                recipients.retain(|there| !meant(there));
                continue;
            }
            let error = match parsed {
                _ if found > 1 => {
                    Error::new(Kind::Usage, format!("`{line}` is the comment of {found} recipients"))
                }
                Ok(recipient) => {
                    Error::new(Kind::Usage, format!("`{recipient}` is no recipient of the vault"))
                }
                Err(error) => error,
            };
            return Err(error.hint(
                "nothing was changed; `tazpod vault recipients ls` lists them: give the key, or its comment",
            ));
        }
        let done = count(recipients.len());
        let keyring = self.rewrap.apply(&rekey.keyring)?.with_recipients(recipients);
        let passphrase = rekey.passphrase.clone();
        rekey.finish(context, keyring, &passphrase, &done).await
    }
}

fn count(recipients: usize) -> String {
    match recipients {
        0 => "nothing but its passphrase opens the vault".to_owned(),
        1 => "one recipient opens the vault besides the passphrase".to_owned(),
        n => format!("{n} recipients open the vault besides the passphrase"),
    }
}

impl LsArgs {
    async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let _lock = vault::lock(context).await?;
        let keyring = self.open.open(context, &vault, &vault.head()?).await?;
        let recipients = keyring.recipients().iter();
        if self.json {
            let recipients = recipients.map(|recipient| RecipientReport {
                kind: recipient.kind(),
                recipient: recipient.key(),
                comment: recipient.comment().to_owned(),
            });
            return context.ui.json(&Report { version: 1, recipients: recipients.collect() });
        }
        let rows: Vec<[String; 3]> = recipients
            .map(|recipient| [recipient.kind(), recipient.comment().to_owned(), recipient.key()])
            .collect();
        context.ui.data(ui::table(["KIND", "COMMENT", "RECIPIENT"], &rows))
    }
}
