//! The workspace: the directory that a pod is for, and what of it lies elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::spec::{Share, WORKSPACE};
use crate::error::{Error, Kind, Result};

/// The workspace of a command: the directory given, or the nearest above the current one that has a `.tazpod`, or
/// the current one.
///
/// # Errors
/// [`Kind::Usage`] where it is no directory that can be read and named.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    let current = std::env::current_dir()
        .map_err(|source| Error::new(Kind::Usage, "the current directory is gone").with_source(source))?;
    let path = match given {
        Some(path) => path,
        None => current.ancestors().find(|above| above.join(".tazpod").is_dir()).unwrap_or(&current),
    };
    check(path)
}

/// The nearest directory from the current one upwards that has a `.tazpod`.
pub fn project() -> Option<PathBuf> {
    let current = std::env::current_dir().ok()?;
    current.ancestors().find(|above| above.join(".tazpod").is_dir()).map(Path::to_owned)
}

fn check(path: &Path) -> Result<PathBuf> {
    let unusable = |source| {
        Error::new(Kind::Usage, format!("cannot use `{}` as the workspace", path.display()))
            .with_source(source)
    };
    let path = fs::canonicalize(path).map_err(unusable)?;
    fs::read_dir(&path).map_err(unusable)?;
    if path.to_str().is_none() {
        return Err(Error::new(
            Kind::Usage,
            format!("the workspace's path `{}` is not UTF-8", path.display()),
        )
        .hint("engines take no other paths: rename the directory"));
    }
    if path == Path::new("/") {
        return Err(Error::new(Kind::Usage, "`/` cannot be a workspace")
            .hint("change to a project's directory first"));
    }
    Ok(path)
}

/// What the pod is to see: the workspace, and the repository of a git worktree at its own path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The workspace first.
    pub shares: Vec<Share>,
    /// A repository that the workspace points to and that is not there.
    pub missing: Option<PathBuf>,
}

/// Finds out what the workspace needs.
pub fn shares(workspace: &Path) -> Shares {
    let mut found = Shares {
        shares: vec![Share { source: workspace.to_owned(), target: WORKSPACE.into() }],
        missing: None,
    };
    match git_common_directory(workspace) {
        Some(path) if path.starts_with(workspace) => {}
        Some(path) if path.is_dir() && path.to_str().is_some() => {
            found.shares.push(Share { source: path.clone(), target: path });
        }
        other => found.missing = other,
    }
    found
}

/// gitrepository-layout(5): `.git` as a file names the worktree's own directory, whose `commondir` names the
/// repository. Anybody can write such a file, a program in the pod too: only a repository that itself names this
/// workspace is taken for its own.
fn git_common_directory(workspace: &Path) -> Option<PathBuf> {
    let pointer = fs::read_to_string(workspace.join(".git")).ok()?;
    let own = workspace.join(pointer.strip_prefix("gitdir:")?.trim());
    let Ok(own) = fs::canonicalize(&own) else { return Some(own) };
    let read = |name: &str| fs::read_to_string(own.join(name)).ok().map(|text| own.join(text.trim()));
    let same = |one: PathBuf, other: &Path| fs::canonicalize(one).ok() == fs::canonicalize(other).ok();
    let (common, claims) = match read("commondir") {
        Some(common) => (common, same(read("gitdir")?, &workspace.join(".git"))),
        // A submodule, whose configuration names its worktree.
        None => (own.clone(), same(own.join(configured_worktree(&own)?), workspace)),
    };
    let common = fs::canonicalize(common).ok()?;
    let is_repository = ["HEAD", "objects", "refs"].iter().all(|name| common.join(name).exists());
    (claims && is_repository).then_some(common)
}

fn configured_worktree(repository: &Path) -> Option<String> {
    let config = fs::read_to_string(repository.join("config")).ok()?;
    let value = config
        .lines()
        .find_map(|line| line.trim().strip_prefix("worktree")?.trim_start().strip_prefix('='))?;
    Some(value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worktree_brings_its_repository() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        let git = root.join("main/.git/worktrees/w");
        let workspace = root.join("w");
        fs::create_dir_all(&git).unwrap();
        fs::create_dir_all(&workspace).unwrap();
        assert_eq!(shares(&workspace).shares.len(), 1);
        fs::write(workspace.join(".git"), format!("gitdir: {}\n", git.display())).unwrap();
        fs::write(git.join("commondir"), "../..\n").unwrap();
        let common = root.join("main/.git");
        assert_eq!(shares(&workspace).shares.len(), 1, "not yet a repository that names this workspace");
        for name in ["HEAD", "objects", "refs"] {
            fs::write(common.join(name), "").unwrap();
        }
        fs::write(git.join("gitdir"), format!("{}\n", root.join("other/.git").display())).unwrap();
        assert_eq!(shares(&workspace).shares.len(), 1, "it names another");
        fs::write(git.join("gitdir"), format!("{}\n", workspace.join(".git").display())).unwrap();
        let found = shares(&workspace);
        assert_eq!(found.shares.get(1), Some(&Share { source: common.clone(), target: common.clone() }));
        assert_eq!(found.missing, None);
        fs::remove_dir_all(root.join("main")).unwrap();
        assert_eq!(shares(&workspace).missing, Some(git));
    }

    #[test]
    fn a_submodule_brings_its_repository() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        let (module, workspace) = (root.join(".git/modules/m"), root.join("m"));
        fs::create_dir_all(&workspace).unwrap();
        for name in ["HEAD", "objects", "refs"] {
            fs::create_dir_all(module.join(name)).unwrap();
        }
        fs::write(workspace.join(".git"), "gitdir: ../.git/modules/m\n").unwrap();
        assert_eq!(shares(&workspace).shares.len(), 1);
        fs::write(module.join("config"), "[core]\n\tworktree = ../../../m\n").unwrap();
        assert_eq!(shares(&workspace).shares.get(1).map(|share| share.source.clone()), Some(module));
    }

    #[test]
    fn unusable_workspaces() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [directory.path().join("missing").as_path(), &file, Path::new("/")] {
            assert_eq!(find(Some(path)).unwrap_err().kind(), Kind::Usage, "{}", path.display());
        }
    }
}
