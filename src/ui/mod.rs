//! The one place that prints: data on stdout, status on stderr.

mod size;
mod table;
mod transfer;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use crate::error::{Error, Kind, Result};
pub use size::size;
pub use table::table;
pub use transfer::{Phase, Transfer};

/// How much status is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors and warnings.
    Quiet,
    /// What is done.
    Normal,
    /// How it is done.
    Verbose,
}

/// Shown for work that takes longer than this.
const PROGRESS_AFTER: Duration = Duration::from_millis(250);

/// Where commands say things.
#[derive(Clone, Debug)]
pub struct Ui {
    verbosity: Verbosity,
    terminal: bool,
    color: bool,
    bars: MultiProgress,
}

impl Ui {
    /// `no_color` is whether `NO_COLOR` is set and not empty.
    pub fn new(verbosity: Verbosity, no_color: bool) -> Ui {
        let terminal = io::stderr().is_terminal();
        let target = match verbosity {
            // Hides itself where stderr is no terminal.
            Verbosity::Normal => ProgressDrawTarget::stderr(),
            Verbosity::Quiet | Verbosity::Verbose => ProgressDrawTarget::hidden(),
        };
        let bars = MultiProgress::with_draw_target(target);
        Ui { verbosity, terminal, color: terminal && !no_color, bars }
    }

    /// Whether `-v` was given.
    pub fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// One line of data on stdout.
    ///
    /// # Errors
    /// Where stdout cannot be written; a reader that went away ends the process as it ends others: silently.
    pub fn data(&self, text: impl AsRef<str>) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout_result(writeln!(stdout, "{}", text.as_ref()).and_then(|()| stdout.flush()))
    }

    /// Bytes on stdout, as they are.
    ///
    /// # Errors
    /// As [`Ui::data`].
    pub fn raw(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout_result(stdout.write_all(bytes).and_then(|()| stdout.flush()))
    }

    /// A value as JSON on stdout, indented.
    ///
    /// # Errors
    /// As [`Ui::data`].
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|source| Error::new(Kind::Failure, "cannot write JSON").with_source(source))?;
        self.data(text)
    }

    /// What is being done, on stderr; silent with `-q`.
    pub fn status(&self, text: impl AsRef<str>) {
        if self.verbosity >= Verbosity::Normal {
            self.stderr(&printable(text.as_ref()));
        }
    }

    /// A detail, with `-v` only.
    pub fn verbose(&self, text: impl AsRef<str>) {
        if self.is_verbose() {
            self.stderr(text.as_ref());
        }
    }

    /// Something that is not as it should be, but does not stop the work.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.stderr(&format!("{} {}", self.paint("33;1", "warning:"), printable(text.as_ref())));
    }

    /// Advice.
    pub fn hint(&self, text: impl AsRef<str>) {
        if self.verbosity >= Verbosity::Normal {
            self.stderr(&format!("{} {}", self.paint("36", "hint:"), printable(text.as_ref())));
        }
    }

    /// The error printer.
    pub fn error(&self, error: &Error) {
        self.stderr(&format!("{} {}", self.paint("31;1", "error:"), printable(&error.to_string())));
        for hint in error.hints() {
            self.stderr(&format!("{} {}", self.paint("36", "hint:"), printable(hint)));
        }
    }

    /// Starts a step of work whose name appears on a terminal if it takes longer than 250 ms.
    pub fn step(&self, text: impl Into<String>) -> Step {
        let text = text.into();
        let shown = self.verbosity >= Verbosity::Normal && self.terminal;
        let ticker = shown.then(|| {
            let line = format!("\r\x1b[K{} {text}", self.paint("36", "…"));
            tokio::spawn(async move {
                tokio::time::sleep(PROGRESS_AFTER).await;
                let mut stderr = io::stderr().lock();
                // Status is a courtesy: a closed stderr must not end the work.
                let _ = stderr.write_all(line.as_bytes()).and_then(|()| stderr.flush());
            })
        });
        self.verbose(format!("{text} …"));
        Step { ui: self.clone(), text, ticker, started: Instant::now() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn stderr(&self, text: &str) {
        // They draw themselves again below.
        let _ = self.bars.clear();
        let mut stderr = io::stderr().lock();
        let erase = if self.terminal { "\r\x1b[K" } else { "" };
        // As in `step`: a closed stderr must not end the work.
        let _ = writeln!(stderr, "{erase}{text}");
    }
}

/// A text in which nothing is left that a terminal obeys, but ends of lines: names come from others.
pub fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if obeyed(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// What became of a write to stdout.
///
/// # Errors
/// As [`Ui::data`].
pub fn stdout_result(written: io::Result<()>) -> Result<()> {
    match written {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Failure, "cannot write to standard output").with_source(source))
        }
        _ => Ok(()),
    }
}

/// A step of work; dropping it takes its line off the terminal.
#[derive(Debug)]
pub struct Step {
    ui: Ui,
    text: String,
    ticker: Option<tokio::task::JoinHandle<()>>,
    started: Instant,
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(ticker) = self.ticker.take() {
            ticker.abort();
            if self.started.elapsed() >= PROGRESS_AFTER {
                let mut stderr = io::stderr().lock();
                let _ = stderr.write_all(b"\r\x1b[K").and_then(|()| stderr.flush());
            }
        }
        self.ui.verbose(format!("{} took {} ms", self.text, self.started.elapsed().as_millis()));
    }
}
