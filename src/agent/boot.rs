//! What the agent is told when it starts: a file in its run directory that it removes before anything else runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Kind, Result};
use crate::pod::spec::Service;

/// The file's name in the run directory.
pub const FILE: &str = "boot.json";

/// The boot record. Holds the host key, hence its short life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Boot {
    /// The pod's full name.
    pub pod: String,
    /// The agent's private host key, in OpenSSH's format.
    pub host_key: String,
    /// The public key of the only client that is let in, in OpenSSH's format.
    pub client_key: String,
    /// What must be mounted before a command is run.
    pub shares: Vec<ExpectedShare>,
    /// What is to be kept running; none where an earlier version starts the pod.
    #[serde(default)]
    pub services: Vec<Service>,
}

/// A mount of the pod as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedShare {
    /// In the pod.
    pub target: PathBuf,
    /// Device and inode, where client and engine share a kernel.
    pub inode: Option<(u64, u64)>,
}

impl Boot {
    /// Reads and removes the record.
    ///
    /// # Errors
    /// Where it is not there or not ours.
    pub fn take(directory: &Path) -> Result<Boot> {
        let path = directory.join(FILE);
        let text = fs::read(&path).map_err(|source| {
            Error::io("read", &path, source)
                .hint("a pod is started with `tazpod up` or `tazpod start`, not by the engine's own command")
        })?;
        fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        serde_json::from_slice(&text)
            .context(Kind::Failure, || format!("`{}` is not a boot record", path.display()))
    }

    /// The first share that is not mounted as it must be.
    pub fn missing_share(&self) -> Option<&Path> {
        self.shares.iter().find(|share| !share.is_mounted()).map(|share| share.target.as_path())
    }
}

impl ExpectedShare {
    fn is_mounted(&self) -> bool {
        fs::metadata(&self.target).is_ok_and(|found| match self.inode {
            Some(inode) => (found.dev(), found.ino()) == inode,
            None => !is_sealed(&self.target),
        })
    }
}

/// Whether this is the mountpoint itself: a tmpfs of one page (see `engine::body`).
fn is_sealed(target: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994; // statfs(2)
    rustix::fs::statfs(target).is_ok_and(|found| found.f_type == TMPFS_MAGIC && found.f_blocks <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_gone_once_taken() {
        let directory = tempfile::tempdir().unwrap();
        let boot = Boot {
            pod: "p".into(),
            host_key: "k".into(),
            client_key: "c".into(),
            shares: Vec::new(),
            services: Vec::new(),
        };
        fs::write(directory.path().join(FILE), serde_json::to_vec(&boot).unwrap()).unwrap();
        assert_eq!(Boot::take(directory.path()).unwrap().pod, "p");
        let error = Boot::take(directory.path()).unwrap_err();
        assert!(error.hints()[0].contains("tazpod start"), "{error}");
    }

    #[test]
    fn another_directory_at_the_target_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let found = fs::metadata(directory.path()).unwrap();
        let share = |inode| ExpectedShare { target: directory.path().into(), inode };
        assert!(share(Some((found.dev(), found.ino()))).is_mounted());
        assert!(!share(Some((found.dev(), found.ino() + 1))).is_mounted());
        assert!(share(None).is_mounted());
        assert!(!ExpectedShare { target: directory.path().join("x"), inode: None }.is_mounted());
    }
}
