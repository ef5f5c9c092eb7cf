//! The one error type: what failed, on what, and what to do next.

use std::error::Error as StdError;
use std::fmt::{self, Display};

/// What class of thing failed; decides the exit code (`docs/cli.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything without a class of its own.
    Failure,
    /// The command line makes no sense.
    Usage,
    /// A configuration or catalog file is wrong.
    Config,
    /// The engine is missing, unreachable, or refused.
    Engine,
    /// An image is missing, unusable, or did not build.
    Image,
    /// No pod of that name.
    NoSuchPod,
    /// The vault is locked, or open where it must not be.
    Locked,
    /// The passphrase is wrong, or too weak.
    Passphrase,
    /// Somebody else was first; both sides are kept.
    Conflict,
    /// What is there is not what was written, or not who it says it is.
    Integrity,
    /// The vault's store, or the credentials for it.
    Store,
    /// Ended by a signal.
    Interrupted,
}

impl Kind {
    /// The exit code of the process for this class.
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Failure => 1,
            Kind::Usage => 2,
            Kind::Config => 3,
            Kind::Engine => 4,
            Kind::Image => 5,
            Kind::NoSuchPod => 6,
            Kind::Locked => 10,
            Kind::Passphrase => 11,
            Kind::Conflict => 12,
            Kind::Integrity => 13,
            Kind::Store => 14,
            Kind::Interrupted => 130,
        }
    }
}

impl Kind {
    /// The class of an exit code; [`Kind::Failure`] where it is none of ours.
    pub fn of_exit_code(code: u8) -> Kind {
        use Kind::*;
        let all = [
            Usage,
            Config,
            Engine,
            Image,
            NoSuchPod,
            Locked,
            Passphrase,
            Conflict,
            Integrity,
            Store,
            Interrupted,
        ];
        all.into_iter().find(|kind| kind.exit_code() == code).unwrap_or(Failure)
    }
}

/// An error with its class, its cause and advice.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hints: Vec<String>,
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of class `kind`; `message` is lower case, one sentence, no full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None, hints: Vec::new() }
    }

    /// Adds the cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// Adds advice: what the user can do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hints.push(hint.into());
        self
    }

    /// The class.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The advice, in the order it was added.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }

    /// An error on a file or directory.
    pub fn io(action: &str, path: &std::path::Path, source: std::io::Error) -> Error {
        Error::new(Kind::Failure, format!("cannot {action} `{}`", path.display())).with_source(source)
    }

    /// Ended by a signal, or by the user.
    pub fn interrupted() -> Error {
        Error::new(Kind::Interrupted, "interrupted")
    }
}

impl Display for Error {
    /// The message and the chain of causes, joined by `: `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut last = self.message.clone();
        let mut source = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors repeat their cause in their own text.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Turns any error into ours, with the class and what was being done.
pub trait Context<T> {
    /// Wraps the error as the cause of `message`.
    fn context<M: Into<String>>(self, kind: Kind, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<M: Into<String>>(self, kind: Kind, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| Error::new(kind, message()).with_source(source))
    }
}

/// The candidate closest to `given`, if one is close enough to be what was meant.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(3) / 3 + 1)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::new(Kind::Failure, "cannot save").with_source(cause);
        let outer = Error::new(Kind::Engine, "cannot go on").with_source(error);
        assert_eq!(outer.to_string(), "cannot go on: cannot save: disk on fire");
        assert_eq!(outer.exit_code(), 4);
    }

    #[test]
    fn nearest_finds_typos_only() {
        let names = ["base", "aws", "k8s", "jupyter"];
        assert_eq!(nearest("jupiter", names), Some("jupyter"));
        assert_eq!(nearest("bse", names), Some("base"));
        assert_eq!(nearest("kubernetes", names), None);
    }
}
