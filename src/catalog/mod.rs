//! The catalog of verticals: which images there are, what stands on what. Data is `images/catalog.toml`.

mod lock;
mod reference;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::{PROJECT_CONFIG, Problem, ProjectConfig};
use crate::error::{Error, Kind, Result, nearest};
use crate::pod::spec::Service;
pub use lock::{LOCK, Lock};
pub use reference::Reference;

/// A project's own verticals, below the workspace.
pub const PROJECT_CATALOG: &str = ".tazpod/catalog.toml";

/// The registry of a project's verticals where it names none: they are built, never pulled.
const NO_REGISTRY: &str = "localhost";

/// The word for all verticals that can be built.
const ALL: &str = "all";

const BUILTIN: &str = include_str!("../../images/catalog.toml");

/// Where a vertical's image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// tazpod or the project has its Containerfile: it can be built.
    Built,
    /// Others build it.
    Foreign,
}

/// A named image and what to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertical {
    /// `k8s`, or `bazzite:jupyter`.
    pub name: String,
    /// The vertical that it stands on.
    pub parent: Option<String>,
    /// What it adds.
    pub summary: String,
    /// The image's name in its registry, without the tag.
    pub repository: String,
    /// The image's tag.
    pub tag: String,
    /// The user in the image.
    pub user: String,
    /// That user's home.
    pub home: String,
    /// What the agent keeps running: its own, and those of what it stands on.
    pub services: Vec<Service>,
    /// Whether it makes little sense without a GPU.
    pub gpu: bool,
    /// Commands that must succeed in the image, as its user.
    pub verify: Vec<String>,
    /// What it brings for its user.
    pub tools: Vec<Tool>,
    /// Where the image comes from.
    pub origin: Origin,
    /// The build context of a project's own vertical; ours are compiled in.
    pub directory: Option<PathBuf>,
}

/// A program that an image brings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "ToolEntry")]
pub struct Tool {
    /// As people call it.
    pub name: String,
    /// A command that succeeds where it works, and prints its version on the first line.
    pub check: String,
}

/// As the catalog's file has it: a name alone is a program that knows `--version`.
#[derive(Deserialize)]
#[serde(untagged)]
enum ToolEntry {
    Name(String),
    Checked { name: String, check: String },
}

impl From<ToolEntry> for Tool {
    fn from(entry: ToolEntry) -> Tool {
        match entry {
            ToolEntry::Name(name) => Tool { check: format!("{name} --version"), name },
            ToolEntry::Checked { name, check } => Tool { name, check },
        }
    }
}

impl Vertical {
    /// The image's reference.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// Whether no registry has it: it can only be built.
    pub fn is_local(&self) -> bool {
        self.repository.split('/').next() == Some(NO_REGISTRY)
    }
}

/// All verticals: the tree's first, in the order of the file, then foreign ones.
#[derive(Clone, Debug)]
pub struct Catalog {
    verticals: Vec<Vertical>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    registry: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    vertical: Vec<Entry>,
    #[serde(default)]
    foreign: Vec<Foreign>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    parent: Option<String>,
    summary: String,
    user: Option<String>,
    home: Option<String>,
    #[serde(default)]
    service: Vec<Service>,
    #[serde(default)]
    gpu: bool,
    #[serde(default)]
    verify: Vec<String>,
    #[serde(default)]
    tools: Vec<Tool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreign {
    name: String,
    image: String,
    summary: String,
    user: String,
    home: String,
    names: Vec<String>,
}

impl Catalog {
    /// The catalog that is compiled in.
    ///
    /// # Errors
    /// Never, as the tests hold; a wrong catalog is an error and not a panic all the same.
    pub fn builtin() -> Result<Catalog> {
        Catalog::parse(BUILTIN)
    }

    /// The catalog that is compiled in, and what [`PROJECT_CATALOG`] of this workspace adds.
    ///
    /// # Errors
    /// [`Kind::Config`]: that file cannot be read, or is no catalog on top of ours.
    pub fn of(workspace: Option<&Path>) -> Result<Catalog> {
        let Some(workspace) = workspace else { return Catalog::builtin() };
        let registry = ProjectConfig::load(workspace)?.registry;
        let path = workspace.join(PROJECT_CATALOG);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Catalog::builtin_at(registry.as_deref());
            }
            Err(source) => {
                return Err(
                    Error::new(Kind::Config, format!("cannot read `{}`", path.display())).with_source(source)
                );
            }
        };
        Catalog::builtin_at(registry.as_deref())?.with_file(&text, workspace)
    }

    /// As [`Catalog::of`], with `text` for what that file has.
    ///
    /// # Errors
    /// [`Kind::Config`]: it is no catalog on top of ours.
    pub fn with_project(text: &str, workspace: &Path) -> Result<Catalog> {
        Catalog::builtin()?.with_file(text, workspace)
    }

    fn with_file(self, text: &str, workspace: &Path) -> Result<Catalog> {
        let path = workspace.join(PROJECT_CATALOG);
        let directory = path.parent().unwrap_or(workspace);
        self.extended(text, Some(directory)).map_err(|problem| problem.into_error(&path))
    }

    /// The catalog that is compiled in, with its images in another registry.
    fn builtin_at(registry: Option<&str>) -> Result<Catalog> {
        let mut catalog = Catalog::builtin()?;
        let Some(registry) = registry else { return Ok(catalog) };
        for vertical in catalog.verticals.iter_mut().filter(|vertical| vertical.origin == Origin::Built) {
            vertical.repository = format!("{}/tazpod-{}", registry.trim_end_matches('/'), vertical.name);
            Reference::parse(&vertical.reference()).map_err(|source| {
                Error::new(Kind::Config, format!("`{PROJECT_CONFIG}`: `{registry}` is no registry"))
                    .with_source(source)
            })?;
        }
        Ok(catalog)
    }

    /// Reads and checks a whole catalog.
    ///
    /// # Errors
    /// [`Kind::Config`]: not a catalog, a bad name, a name twice, an unknown parent, a cycle.
    pub fn parse(text: &str) -> Result<Catalog> {
        let none = Catalog { verticals: Vec::new() };
        none.extended(text, None).map_err(|problem| wrong(problem.message))
    }

    /// With the verticals of one more file; those of a project have their contexts below `directory`.
    fn extended(mut self, text: &str, directory: Option<&Path>) -> Result<Catalog, Problem> {
        let file: File = toml::from_str(text).map_err(|error| Problem::syntax(text, &error))?;
        let registry = file.registry.as_deref().unwrap_or(NO_REGISTRY);
        let tag = file.tag.as_deref().unwrap_or("latest");
        let mut entries = file.vertical;
        for Entry { name, parent, .. } in &entries {
            if let Some(parent) = parent.as_ref().filter(|parent| parent.contains(':')) {
                return Err(Problem::new(format!("`{name}` cannot stand on `{parent}`, which others build")));
            }
        }
        while let Some(entry) = self.next(&mut entries)? {
            let name = checked(entry.name)?;
            if name == ALL {
                return Err(Problem::new(format!(
                    "`{ALL}` stands for all verticals, and can be none's name"
                )));
            }
            // As its parent has it, where it does not say.
            let parent = entry.parent.as_deref().and_then(|parent| self.get(parent));
            let user = entry.user.or_else(|| parent.map(|parent| parent.user.clone()));
            let home = entry.home.or_else(|| parent.map(|parent| parent.home.clone()));
            let services =
                services(parent, entry.service).map_err(|what| Problem::new(format!("`{name}`: {what}")))?;
            let (Some(user), Some(home)) = (user, home) else {
                return Err(Problem::new(format!(
                    "`{name}` says neither its user and home nor a parent above it"
                )));
            };
            self.verticals.push(Vertical {
                repository: format!("{registry}/tazpod-{name}"),
                tag: tag.to_owned(),
                origin: Origin::Built,
                directory: directory.map(|directory| directory.join(&name)),
                name,
                parent: entry.parent,
                summary: entry.summary,
                user,
                home,
                services,
                gpu: entry.gpu,
                verify: entry.verify,
                tools: entry.tools,
            });
        }
        for foreign in file.foreign {
            let prefix = checked(foreign.name)?;
            for name in foreign.names {
                let name = checked(name)?;
                let reference = foreign.image.replace("{name}", &name);
                let (repository, tag) = match Reference::parse(&reference) {
                    Ok(found) if found.tag().is_some() && found.to_string() == reference => {
                        (found.repository(), found.tag().unwrap_or_default().to_owned())
                    }
                    _ => {
                        return Err(Problem::new(format!(
                            "`{reference}` is not a whole reference with a tag"
                        )));
                    }
                };
                self.verticals.push(Vertical {
                    name: format!("{prefix}:{name}"),
                    parent: None,
                    summary: foreign.summary.clone(),
                    repository,
                    tag,
                    user: foreign.user.clone(),
                    home: foreign.home.clone(),
                    services: Vec::new(),
                    gpu: false,
                    verify: Vec::new(),
                    tools: Vec::new(),
                    origin: Origin::Foreign,
                    directory: None,
                });
            }
        }
        self.check()?;
        Ok(self)
    }

    /// The first of these entries whose parent is here.
    fn next(&self, entries: &mut Vec<Entry>) -> Result<Option<Entry>, Problem> {
        let is_ready =
            |entry: &Entry| entry.parent.as_deref().is_none_or(|parent| self.get(parent).is_some());
        if let Some(at) = entries.iter().position(is_ready) {
            return Ok(Some(entries.remove(at)));
        }
        let Some(mut entry) = entries.first() else { return Ok(None) };
        let mut below = HashSet::new();
        while below.insert(&entry.name) {
            let parent = entry.parent.as_deref().unwrap_or_default();
            entry = entries.iter().find(|other| other.name == parent).ok_or_else(|| {
                let names = self.verticals.iter().map(|vertical| &vertical.name);
                let names = names.chain(entries.iter().map(|other| &other.name)).map(String::as_str);
                Problem::new(format!("the parent `{parent}` of `{}` is not there", entry.name))
                    .hint(did_you_mean(parent, names))
            })?;
        }
        Err(Problem::new(format!("`{}` stands on itself", entry.name)))
    }

    fn check(&self) -> Result<(), Problem> {
        let mut seen = HashSet::new();
        for vertical in &self.verticals {
            if !seen.insert(vertical.name.as_str()) {
                return Err(Problem::new(format!("`{}` is there twice", vertical.name)));
            }
            // They become words of a Containerfile, and of a shell.
            let Vertical { name, user, home, .. } = vertical;
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if user.is_empty() || user.starts_with('-') || !user.chars().all(fits) {
                return Err(Problem::new(format!("`{name}`: `{user}` is no user's name")));
            }
            if !home.starts_with('/') || home.contains(char::is_control) {
                return Err(Problem::new(format!("`{name}`: the home `{home}` is no absolute path")));
            }
        }
        Ok(())
    }

    /// All verticals.
    pub fn verticals(&self) -> &[Vertical] {
        &self.verticals
    }

    /// The vertical of this name.
    ///
    /// # Errors
    /// [`Kind::Usage`] where there is none, with the name that may have been meant.
    pub fn find(&self, name: &str) -> Result<&Vertical> {
        self.get(name).ok_or_else(|| {
            let names = self.verticals.iter().map(|vertical| vertical.name.as_str());
            Error::new(Kind::Usage, format!("no vertical is called `{name}`")).hint(did_you_mean(name, names))
        })
    }

    /// The verticals of these names, each once; `all` are those that can be built, as far as they are `meant`.
    ///
    /// # Errors
    /// As [`Catalog::find`].
    pub fn named(&self, names: &[String], meant: impl Fn(&Vertical) -> bool) -> Result<Vec<&Vertical>> {
        let all = |vertical: &&Vertical| vertical.origin == Origin::Built && meant(vertical);
        let mut found: Vec<&Vertical> = Vec::new();
        for name in names {
            let these = match name.as_str() {
                ALL => self.verticals.iter().filter(all).collect(),
                name => vec![self.find(name)?],
            };
            for vertical in these {
                if !found.contains(&vertical) {
                    found.push(vertical);
                }
            }
        }
        Ok(found)
    }

    /// The vertical and all that it stands on, the root of the tree first.
    pub fn chain<'a>(&'a self, vertical: &'a Vertical) -> Vec<&'a Vertical> {
        let below = |above: &&Vertical| above.parent.as_deref().and_then(|parent| self.get(parent));
        let mut chain: Vec<_> = std::iter::successors(Some(vertical), below).collect();
        chain.reverse();
        chain
    }

    /// The verticals that stand directly on this one; on `None`, the roots of the tree.
    pub fn children<'a>(&'a self, parent: Option<&'a str>) -> impl Iterator<Item = &'a Vertical> {
        self.verticals.iter().filter(move |vertical| {
            vertical.origin != Origin::Foreign && vertical.parent.as_deref() == parent
        })
    }

    fn get(&self, name: &str) -> Option<&Vertical> {
        self.verticals.iter().find(|vertical| vertical.name == name)
    }
}

fn did_you_mean<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    nearest(name, names.clone()).map_or_else(
        || format!("there are {}", names.collect::<Vec<_>>().join(", ")),
        |name| format!("did you mean `{name}`?"),
    )
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(Kind::Config, format!("the catalog is wrong: {}", what.into()))
}

/// The services of what it stands on, and its own, which take the place of those of their names.
fn services(parent: Option<&Vertical>, own: Vec<Service>) -> Result<Vec<Service>, String> {
    let mut all = parent.map(|parent| parent.services.clone()).unwrap_or_default();
    for service in own {
        let name = checked(service.name.clone()).map_err(|problem| problem.message)?;
        if service.command.first().is_none_or(String::is_empty) {
            return Err(format!("the service `{name}` has no command"));
        }
        if service.url.is_some() && service.port.is_none() {
            return Err(format!("the service `{name}` has a url and no port"));
        }
        all.retain(|other| other.name != name);
        if let Some(other) = all.iter().find(|other| other.port.is_some() && other.port == service.port) {
            return Err(format!("the services `{}` and `{name}` have the same port", other.name));
        }
        all.push(service);
    }
    Ok(all)
}

/// Names become parts of references, of containers' names and of paths.
fn checked(name: String) -> Result<String, Problem> {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.starts_with(ends) && name.ends_with(ends) && name.chars().all(|c| ends(c) || c == '-');
    if good { Ok(name) } else { Err(Problem::new(format!("`{name}` is not a name"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(entries: &[(&str, Option<&str>)]) -> Result<Catalog> {
        let mut text = "registry = 'r.example:5000/t'\ntag = 'stable'\n".to_owned();
        for (name, parent) in entries {
            text.push_str(&format!("[[vertical]]\nname = '{name}'\nsummary = ''\nuser = 'u'\nhome = '/'\n"));
            text.extend(parent.map(|parent| format!("parent = '{parent}'\n")));
        }
        Catalog::parse(&text)
    }

    fn names(verticals: Vec<&Vertical>) -> Vec<&str> {
        verticals.into_iter().map(|vertical| vertical.name.as_str()).collect()
    }

    #[test]
    fn the_builtin_catalog_is_the_tree_of_the_design() {
        let catalog = Catalog::builtin().unwrap();
        let chain = |name| names(catalog.chain(catalog.find(name).unwrap()));
        assert_eq!(chain("ai"), ["base", "aws", "k8s", "ai"]);
        assert_eq!(chain("jupyter"), ["base", "nvidia", "nvidia-python", "jupyter"]);
        assert_eq!(chain("playwright"), ["base", "nvidia", "playwright"]);
        assert_eq!(
            names(catalog.children(Some("base")).collect()),
            ["aws", "nvidia", "devops", "githubrunner", "dev"]
        );
        assert_eq!(names(catalog.children(None).collect()), ["base"]);
        assert_eq!(catalog.find("base").unwrap().reference(), "ghcr.io/tazpod/tazpod-base:stable");
    }

    #[test]
    fn foreign_images_keep_their_names_and_users() {
        let catalog = Catalog::builtin().unwrap();
        let jupyter = catalog.find("bazzite:jupyter").unwrap();
        assert_eq!(jupyter.reference(), "ghcr.io/atrawog/bazzite-ai-pod-jupyter:stable");
        assert_eq!((jupyter.user.as_str(), jupyter.home.as_str()), ("jovian", "/home/jovian"));
        assert_eq!(jupyter.origin, Origin::Foreign);
    }

    #[test]
    fn an_unknown_vertical_is_a_usage_error_with_the_nearest() {
        let catalog = Catalog::builtin().unwrap();
        let error = catalog.find("jupiter").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(error.hints(), ["did you mean `jupyter`?"]);
        assert!(catalog.find("windows-95").unwrap_err().hints()[0].starts_with("there are base, aws"));
    }

    #[test]
    fn wrong_catalogs() {
        for (entries, message) in [
            (vec![("a", None), ("a", None)], "`a` is there twice"),
            (vec![("a", Some("b"))], "the parent `b` of `a` is not there"),
            (vec![("a", Some("b")), ("b", Some("a"))], "`a` stands on itself"),
            (vec![("a", Some("a"))], "`a` stands on itself"),
            (vec![("c", Some("a")), ("a", Some("b")), ("b", Some("a"))], "`a` stands on itself"),
            (vec![("a", Some("b")), ("b", Some("c"))], "the parent `c` of `b` is not there"),
            (vec![("A", None)], "`A` is not a name"),
            (vec![("a/b", None)], "`a/b` is not a name"),
            (vec![("-a", None)], "`-a` is not a name"),
            (vec![("", None)], "`` is not a name"),
            (vec![("all", None)], "`all` stands for all verticals, and can be none's name"),
        ] {
            let error = catalog(&entries).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert_eq!(error.to_string(), format!("the catalog is wrong: {message}"));
        }
        assert!(Catalog::parse("registry = 'r'\ntag = 't'\ncolour = 'red'").is_err());
        for (user, home, says) in [
            ("me\\nRUN x", "/", "is no user's name"),
            ("", "/", "`` is no user's name"),
            ("me", "home/me", "the home `home/me` is no absolute path"),
        ] {
            let entry =
                format!("[[vertical]]\nname = 'a'\nsummary = ''\nuser = \"{user}\"\nhome = '{home}'\n");
            let error = Catalog::parse(&entry).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_project_has_verticals_on_top_of_ours() {
        let workspace = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            std::fs::create_dir_all(workspace.path().join(".tazpod")).unwrap();
            std::fs::write(workspace.path().join(PROJECT_CATALOG), text).unwrap();
            Catalog::of(Some(workspace.path()))
        };
        let nothing = Catalog::of(Some(workspace.path())).unwrap();
        assert_eq!(nothing.verticals(), Catalog::builtin().unwrap().verticals());
        let catalog = of("[[vertical]]\nname = 'acme'\nparent = 'k8s'\nsummary = 'ours'\n").unwrap();
        let acme = catalog.find("acme").unwrap();
        assert_eq!(names(catalog.chain(acme)), ["base", "aws", "k8s", "acme"]);
        assert_eq!((acme.user.as_str(), acme.home.as_str()), ("tazpod", "/home/tazpod"));
        assert_eq!(acme.directory, Some(workspace.path().join(".tazpod/acme")));
        assert!(acme.is_local() && acme.origin == Origin::Built);
        let entry = |name: &str, parent: &str| {
            format!("[[vertical]]\nname = '{name}'\nparent = '{parent}'\nsummary = ''\n")
        };
        let any_order = of(&[entry("upper", "lower"), entry("lower", "dev")].concat()).unwrap();
        assert_eq!(
            names(any_order.chain(any_order.find("upper").unwrap())),
            ["base", "dev", "lower", "upper"]
        );
        let unknown = of(&entry("x", "k9s")).unwrap_err();
        assert_eq!(unknown.hints(), ["did you mean `k8s`?"]);
        let text = "[[foreign]]\nname = 'old'\nimage = 'r.example/old/{name}:1'\nsummary = ''\nuser = 'dev'\n\
                    home = '/home/dev'\nnames = ['tools']\n";
        let old = of(text).unwrap().find("old:tools").unwrap().clone();
        assert_eq!((old.reference().as_str(), old.origin), ("r.example/old/tools:1", Origin::Foreign));
        let text =
            "registry = 'r.example/t'\n[[vertical]]\nname = 'x'\nsummary = ''\nuser = 'u'\nhome = '/'\n";
        let there = of(text).unwrap().find("x").unwrap().clone();
        assert_eq!((there.reference().as_str(), there.is_local()), ("r.example/t/tazpod-x:latest", false));
        std::fs::write(workspace.path().join(PROJECT_CONFIG), "registry = 'r.example:5000/copies'\n")
            .unwrap();
        let copies = of(text).unwrap();
        let reference = |name| copies.find(name).unwrap().reference();
        assert_eq!(reference("k8s"), "r.example:5000/copies/tazpod-k8s:stable");
        assert_eq!(
            (reference("x").as_str(), reference("bazzite:base").starts_with("ghcr.io/")),
            ("r.example/t/tazpod-x:latest", true)
        );
        std::fs::write(workspace.path().join(PROJECT_CONFIG), "registry = 'a b'\n").unwrap();
        assert!(of(text).unwrap_err().to_string().contains("`a b` is no registry"));
        std::fs::remove_file(workspace.path().join(PROJECT_CONFIG)).unwrap();
        for (text, said) in [
            ("[[vertical]]\nname = 'aws'\nparent = 'base'\nsummary = ''\n", "toml`: `aws` is there twice"),
            ("[[vertical]]\nname = 'x'\nsummary = ''\n", "toml`: `x` says neither its user and home"),
            (
                "[[vertical]]\nname = 'x'\nparent = 'k9s'\nsummary = ''\n",
                "the parent `k9s` of `x` is not there",
            ),
            ("[[vertical]]\nname = 'x'\nparent = 'x'\nsummary = ''\n", "toml`: `x` stands on itself"),
            (
                "[[vertical]]\nname = 'x'\nparent = 'bazzite:base'\nsummary = ''\n",
                "`x` cannot stand on `bazzite:base`, which others build",
            ),
            ("[[vertical]]\nname = 'x'\ncolour = 1\n", "toml:3`: unknown field `colour`"),
            ("[[vertical]\n", "catalog.toml:1`: "),
        ] {
            let error = of(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn registries_may_have_a_port() {
        let catalog = catalog(&[("a", None)]).unwrap();
        assert_eq!(catalog.find("a").unwrap().reference(), "r.example:5000/t/tazpod-a:stable");
        for image in ["h:5000/x", "x:1", "h:5000/x@sha256:00", "f/{name}:1"] {
            let foreign = format!(
                "registry = 'r'\ntag = 't'\n[[foreign]]\nname = 'f'\nimage = '{image}'\nsummary = ''\nuser = 'u'\n\
                 home = '/'\nnames = ['n']\n"
            );
            let error = Catalog::parse(&foreign).unwrap_err().to_string();
            assert!(error.ends_with("is not a whole reference with a tag"), "{error}");
        }
    }
}
