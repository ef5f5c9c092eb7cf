//! Work that may run age's plugins, which ask for a PIN, or for a finger on a token.

use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use age::Callbacks;
use age::secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{mpsc, oneshot};

use crate::adapters::terminal;
use crate::context::Context;
use crate::error::{Error, Kind, Result};

/// How long a plugin may be silent.
const PATIENCE: Duration = Duration::from_secs(300);

/// Passes what a plugin says and asks to whoever has the terminal.
#[derive(Clone)]
pub struct Asking(mpsc::UnboundedSender<Question>);

struct Question {
    text: String,
    kind: Wanted,
    answer: blocking::Sender<SecretString>,
}

enum Wanted {
    Nothing,
    Public,
    Secret,
}

impl Asking {
    /// `None` where nobody can be asked.
    fn ask(&self, text: &str, kind: Wanted) -> Option<SecretString> {
        let (answer, answered) = blocking::channel();
        let text = text.chars().filter(|c| !c.is_control()).collect();
        self.0.send(Question { text, kind, answer }).ok()?;
        answered.recv().ok()
    }
}

impl Callbacks for Asking {
    fn display_message(&self, message: &str) {
        self.ask(message, Wanted::Nothing);
    }

    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        let no = no.unwrap_or("no");
        let answer = self.ask(&format!("{message} ({yes}, {no})"), Wanted::Public)?;
        Some(answer.expose_secret() == yes)
    }

    fn request_public_string(&self, description: &str) -> Option<String> {
        self.ask(description, Wanted::Public).map(|answer| answer.expose_secret().to_owned())
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        self.ask(description, Wanted::Secret)
    }
}

/// Does it in a thread, and meanwhile asks what plugins want to know. A signal ends the wait. `what` is waited for.
///
/// # Errors
/// [`Kind::Failure`] where it takes too long.
pub async fn in_thread<T: Send + 'static>(
    context: &Context,
    what: &str,
    work: impl FnOnce(Asking) -> T + Send + 'static,
) -> Result<T> {
    let (sender, mut questions) = mpsc::unbounded_channel();
    let (done, mut result) = oneshot::channel();
    // Whoever asked may have gone.
    thread::spawn(move || drop(done.send(work(Asking(sender)))));
    loop {
        tokio::select! {
            biased;
            Some(question) = questions.recv() => answer(context, question).await,
            result = &mut result => {
                // The thread has panicked.
                return result.map_err(|_| Error::new(Kind::Failure, format!("cannot use {what}")));
            }
            () = tokio::time::sleep(PATIENCE) => {
                let seconds = PATIENCE.as_secs();
                return Err(Error::new(Kind::Failure, format!("waited for {what} for {seconds} s")));
            }
        }
    }
}

async fn answer(context: &Context, question: Question) {
    let Question { text, kind, answer } = question;
    let prompt = format!("{text}: ");
    let answered = match kind {
        Wanted::Nothing => {
            context.ui.status(text);
            Ok(SecretString::default())
        }
        Wanted::Public => terminal::ask_public(&prompt, "").await,
        Wanted::Secret => terminal::ask_secret(&prompt, "").await,
    };
    // Without an answer the plugin is told that nobody could be asked.
    if let Ok(answered) = answered {
        let _ = answer.send(answered);
    }
}
