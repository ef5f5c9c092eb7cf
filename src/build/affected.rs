//! Which images a change touches, by what git knows of it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::context;
use crate::catalog::{Catalog, Origin, PROJECT_CATALOG, Vertical};
use crate::error::{Error, Kind, Result};

/// The catalog in the sources of tazpod itself, and what else shows that they are.
const OWN_CATALOG: &str = "images/catalog.toml";
const OWN_TOOLS: &str = "images/tools.sh";

/// The verticals that can be built and whose images a change touches, in the catalog's order: those whose entry, Containerfile or other sources differ between the
/// commit `revision` and the files as they are now, and all that stand on them. They are those of the project that `directory` is in; in the
/// sources of tazpod itself, its own.
///
/// # Errors
/// [`Kind::Usage`] where git does not know the commit, or `directory` is in none of its repositories, or there is no catalog;
/// [`Kind::Config`] for a catalog.
pub fn affected(directory: &Path, revision: &str) -> Result<Vec<Vertical>> {
    let top = Git { directory }.top()?;
    let projects = directory.ancestors().take_while(|above| above.starts_with(&top));
    let project = projects.into_iter().find(|above| above.join(PROJECT_CATALOG).is_file());
    let is_own = project.is_none() && [OWN_CATALOG, OWN_TOOLS].iter().all(|name| top.join(name).is_file());
    let directory = match project {
        Some(project) => project,
        None if is_own => &top,
        None => {
            let what = format!("no directory from `{}` up has a `{PROJECT_CATALOG}`", directory.display());
            return Err(
                Error::new(Kind::Usage, what).hint("the built-in verticals change with tazpod itself")
            );
        }
    };
    let git = Git { directory };
    let commit = git.commit(revision)?;
    let changed = git.changed(&commit)?;
    let name = Path::new(if is_own { OWN_CATALOG } else { PROJECT_CATALOG });
    let path = directory.join(name);
    // Without the registry of the project's configuration, which changes no image.
    let parse = |text: &str| match is_own {
        true => Catalog::parse(text),
        false => Catalog::with_project(text, directory),
    };
    let now = parse(&fs::read_to_string(&path).map_err(|source| Error::io("read", &path, source))?)?;
    // What was no catalog then, all of it is new.
    let before = parse(&git.file(&commit, name)?).or_else(|_| parse(""))?;
    touched(&now, &before, |vertical| {
        for path in &changed {
            if match is_own {
                true => context::is_compiled_in(vertical, path),
                false => context::is_in(vertical, &directory.join(path))?,
            } {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

fn touched(
    now: &Catalog,
    before: &Catalog,
    sources_changed: impl Fn(&Vertical) -> Result<bool>,
) -> Result<Vec<Vertical>> {
    let mut found = Vec::new();
    for vertical in now.verticals().iter().filter(|vertical| vertical.origin == Origin::Built) {
        for below in now.chain(vertical) {
            if !before.verticals().contains(below) || sources_changed(below)? {
                found.push(vertical.clone());
                break;
            }
        }
    }
    Ok(found)
}

/// The program, in a directory.
struct Git<'a> {
    directory: &'a Path,
}

impl Git<'_> {
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("git");
        command.env("LC_ALL", "C").stdin(Stdio::null()).arg("-C").arg(self.directory).args(arguments);
        command.output().map_err(|source| {
            let error = Error::new(Kind::Usage, "cannot run `git`").with_source(source);
            error.hint("it is asked what changed: install it")
        })
    }

    /// What it prints, where it succeeds.
    fn output(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = self.run(arguments)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it does not say why").trim_start_matches("fatal: ");
        Err(Error::new(Kind::Usage, format!("git cannot say what changed: {said}")))
    }

    /// The top of its repository's files.
    fn top(&self) -> Result<PathBuf> {
        let mut said = self.output(&["rev-parse", "--show-toplevel"])?;
        said.truncate(said.trim_ascii_end().len());
        Ok(PathBuf::from(OsStr::from_bytes(&said)))
    }

    /// The hash of a commit.
    fn commit(&self, revision: &str) -> Result<String> {
        let resolve = |name: &str| -> Result<Option<String>> {
            let found = self.run(&["rev-parse", "--verify", "--quiet", "--end-of-options", name])?;
            let hash = String::from_utf8_lossy(&found.stdout).trim().to_owned();
            // `^NAME` is no hash, and no error.
            let good = found.status.success() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            Ok(Some(hash).filter(|hash| good && !hash.is_empty()))
        };
        let commit = match resolve(revision)? {
            Some(object) => resolve(&format!("{object}^{{commit}}"))?,
            None => None,
        };
        commit.ok_or_else(|| {
            Error::new(Kind::Usage, format!("git knows no commit `{revision}`"))
                .hint("where only the newest was fetched, fetch more: `git fetch --unshallow`")
        })
    }

    /// Relative to the directory, with what is not committed; of what was renamed both names.
    fn changed(&self, commit: &str) -> Result<HashSet<PathBuf>> {
        let diff = ["diff", "--name-only", "--no-renames", "--ignore-submodules=none", "--relative", "-z"];
        let tracked = self.output(&[&diff[..], &[commit, "--"]].concat())?;
        let others = self.output(&["ls-files", "--others", "--exclude-standard", "-z"])?;
        let names = [tracked, others].concat();
        let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
    }

    /// Empty where the commit does not have it.
    fn file(&self, commit: &str, path: &Path) -> Result<String> {
        let output = self.run(&["show", &format!("{commit}:./{}", path.display())])?;
        let bytes = if output.status.success() { output.stdout } else { Vec::new() };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PROJECT_CONFIG;

    fn names(found: Result<Vec<Vertical>>) -> Vec<String> {
        found.unwrap().into_iter().map(|vertical| vertical.name).collect()
    }

    fn git(directory: &Path, arguments: &[&str]) {
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
        let done = Command::new("git").arg("-C").arg(directory).args(who).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn write(directory: &Path, name: &str, text: &str) {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A repository with a catalog of these verticals, each on a parent.
    fn project(verticals: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut catalog = String::new();
        for (name, parent) in verticals {
            catalog.push_str(&format!("[[vertical]]\nname = '{name}'\nparent = '{parent}'\nsummary = ''\n"));
            let containerfile = format!(".tazpod/{name}/Containerfile");
            write(directory.path(), &containerfile, "ARG PARENT\nFROM ${PARENT}\n");
        }
        write(directory.path(), PROJECT_CATALOG, &catalog);
        git(directory.path(), &["init", "--quiet"]);
        commit(directory.path());
        directory
    }

    fn commit(directory: &Path) {
        git(directory, &["add", "--all"]);
        git(directory, &["commit", "--quiet", "--message", "x"]);
    }

    fn since(directory: &Path, revision: &str) -> Vec<String> {
        names(affected(directory, revision))
    }

    #[test]
    fn what_stands_on_what_changed_is_touched() {
        let catalog = Catalog::builtin().unwrap();
        let of = |changed: &str| {
            names(touched(&catalog, &catalog, |v| Ok(context::is_compiled_in(v, changed.as_ref()))))
        };
        assert_eq!(of("images/aws/vertical.sh"), ["aws", "k8s", "ai"]);
        assert_eq!(of("images/ai/package-lock.json"), ["ai"]);
        assert_eq!(of("images/clouds.sh"), ["aws", "k8s", "ai", "devops", "dev"]);
        assert_eq!(of("docs/images.md"), [""; 0]);
        let ours = catalog.verticals().iter().filter(|vertical| vertical.origin == Origin::Built);
        let all: Vec<_> = ours.map(|vertical| vertical.name.clone()).collect();
        for shared in ["images/tools.sh", "dotfiles/.bashrc", "src/main.rs", "Cargo.lock"] {
            assert_eq!(of(shared), all, "{shared}");
        }
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(OWN_CATALOG)).unwrap();
        let before = Catalog::parse(&text.replacen("\"AWS CLI\"", "\"another\"", 1)).unwrap();
        assert_eq!(names(touched(&catalog, &before, |_| Ok(false))), ["aws", "k8s", "ai"]);
    }

    #[test]
    fn a_projects_own() {
        let directory = project(&[("one", "base"), ("two", "one"), ("other", "base")]);
        let path = directory.path();
        assert_eq!(since(path, "HEAD"), [""; 0]);
        write(path, ".tazpod/one/new file", "");
        assert_eq!(since(path, "HEAD"), ["one", "two"]);
        commit(path);
        assert_eq!(since(path, "HEAD"), [""; 0]);
        assert_eq!(since(path, "HEAD~1"), ["one", "two"]);
        write(path, ".tazpod/other/.dockerignore", "*.log\n.*\n");
        assert_eq!(since(path, "HEAD"), ["other"]);
        commit(path);
        write(path, ".tazpod/other/noise.log", "");
        write(path, "src/main.go", "");
        assert_eq!(since(path, "HEAD"), [""; 0]);
        git(path, &["mv", ".tazpod/one/new file", ".tazpod/other/new file"]);
        assert_eq!(since(path, "HEAD"), ["one", "two", "other"]);
        commit(path);
        let text = fs::read_to_string(path.join(PROJECT_CATALOG)).unwrap();
        write(path, PROJECT_CATALOG, &text.replace("name = 'two'\n", "name = 'two'\ngpu = true\n"));
        assert_eq!(since(path, "HEAD"), ["two"]);
        assert_eq!(since(&path.join(".tazpod/one"), "HEAD"), ["two"]);
        assert_eq!(since(path, ":/x"), ["two"]);
        write(path, PROJECT_CONFIG, "registry = 'registry.example/copies'\n");
        assert_eq!(since(path, "HEAD"), ["two"]);
        // A catalog that was none is no reason not to go on.
        write(path, PROJECT_CATALOG, "what");
        commit(path);
        write(path, PROJECT_CATALOG, &text);
        assert_eq!(since(path, "HEAD"), ["one", "two", "other"]);
    }

    #[test]
    fn below_the_top_of_a_repository_and_a_catalog_that_is_new() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "README", "");
        git(directory.path(), &["init", "--quiet"]);
        commit(directory.path());
        let below = directory.path().join("team");
        write(&below, PROJECT_CATALOG, "[[vertical]]\nname = 'acme'\nparent = 'base'\nsummary = ''\n");
        write(&below, ".tazpod/acme/Containerfile", "ARG PARENT\nFROM ${PARENT}\n");
        assert_eq!(since(&below, "HEAD"), ["acme"]);
    }

    #[test]
    fn what_git_does_not_know() {
        let directory = project(&[("one", "base")]);
        for revision in ["v9", "--output=/tmp/x", "^HEAD", "HEAD:.tazpod", ""] {
            let error = affected(directory.path(), revision).unwrap_err();
            assert_eq!(error.to_string(), format!("git knows no commit `{revision}`"));
            assert_eq!(error.kind(), Kind::Usage);
        }
        let plain = tempfile::tempdir().unwrap();
        git(plain.path(), &["init", "--quiet"]);
        let error = affected(plain.path(), "HEAD").unwrap_err();
        assert!(error.to_string().ends_with("up has a `.tazpod/catalog.toml`"), "{error}");
        let outside = tempfile::tempdir().unwrap();
        let error = affected(outside.path(), "HEAD").unwrap_err();
        assert!(
            error.to_string().starts_with("git cannot say what changed: not a git repository"),
            "{error}"
        );
    }
}
