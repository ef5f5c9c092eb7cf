//! The digests that a team has agreed on: `.tazpod/lock.toml`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Reference;
use crate::adapters::files;
use crate::config::Problem;
use crate::error::{Error, Kind, Result};

/// The file, below the workspace.
pub const LOCK: &str = ".tazpod/lock.toml";
/// The only version of it.
const VERSION: u32 = 1;

/// Images by vertical, each a reference with a digest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    #[serde(default)]
    images: BTreeMap<String, String>,
    #[serde(skip)]
    path: PathBuf,
}

impl Lock {
    /// Reads it; empty where there is none.
    ///
    /// # Errors
    /// [`Kind::Config`]: it cannot be read, is of another version, or has an image without a digest.
    pub fn load(workspace: &Path) -> Result<Lock> {
        let path = workspace.join(LOCK);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Lock { version: VERSION, images: BTreeMap::new(), path });
            }
            Err(source) => {
                return Err(
                    Error::new(Kind::Config, format!("cannot read `{}`", path.display())).with_source(source)
                );
            }
        };
        let read = || {
            let lock: Lock = toml::from_str(&text).map_err(|error| Problem::syntax(&text, &error))?;
            if lock.version != VERSION {
                return Err(Problem::new(format!("version {} is not known here", lock.version)));
            }
            for (vertical, reference) in &lock.images {
                if Reference::parse(reference).ok().is_none_or(|found| found.digest().is_none()) {
                    return Err(Problem::new(format!(
                        "`{vertical}`: `{reference}` is no reference with a digest"
                    )));
                }
            }
            Ok(lock)
        };
        read().map(|lock| Lock { path: path.clone(), ..lock }).map_err(|problem| problem.into_error(&path))
    }

    /// The image of a vertical.
    ///
    /// # Errors
    /// [`Kind::Config`] where there is none.
    pub fn image(&self, vertical: &str) -> Result<&str> {
        self.images.get(vertical).map(String::as_str).ok_or_else(|| {
            Error::new(Kind::Config, format!("`{}` has no image of `{vertical}`", self.path.display()))
                .hint(format!("`tazpod push {vertical} --lock` writes it down"))
        })
    }

    /// Notes an image, and writes the file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn note(&mut self, images: impl Iterator<Item = (String, String)>) -> Result<()> {
        self.images.extend(images);
        let mut text = format!(
            "# What `tazpod up --locked` takes. `tazpod push --lock` writes it.\nversion = {VERSION}\n\n[images]\n"
        );
        for (vertical, reference) in &self.images {
            // Neither has characters that mean something here.
            text.push_str(&format!("\"{vertical}\" = \"{reference}\"\n"));
        }
        files::write_atomically(&self.path, text.as_bytes(), 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again() {
        let workspace = tempfile::tempdir().unwrap();
        std::fs::create_dir(workspace.path().join(".tazpod")).unwrap();
        let mut lock = Lock::load(workspace.path()).unwrap();
        let error = lock.image("base").unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert_eq!(error.hints(), ["`tazpod push base --lock` writes it down"]);
        let reference = format!("r.example:5000/t/tazpod-base@sha256:{}", "0".repeat(64));
        lock.note([("base".to_owned(), reference.clone())].into_iter()).unwrap();
        lock.note([("k8s".to_owned(), reference.clone())].into_iter()).unwrap();
        let again = Lock::load(workspace.path()).unwrap();
        assert_eq!(again, lock);
        assert_eq!((again.image("base").unwrap(), again.image("k8s").unwrap()), (&*reference, &*reference));
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let workspace = tempfile::tempdir().unwrap();
        std::fs::create_dir(workspace.path().join(".tazpod")).unwrap();
        for (text, said) in [
            ("version = 2", "version 2 is not known here"),
            (
                "version = 1\n[images]\nbase = 'r.example/x:1'",
                "`r.example/x:1` is no reference with a digest",
            ),
            ("version = 1\ncolour = 1", "lock.toml:2`: unknown field `colour`"),
            ("images", "lock.toml:1`: "),
        ] {
            std::fs::write(workspace.path().join(LOCK), text).unwrap();
            let error = Lock::load(workspace.path()).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
