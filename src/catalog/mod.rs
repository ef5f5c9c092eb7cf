//! The catalog of verticals: which images there are, what stands on what. Data is `images/catalog.toml`.

mod reference;

use std::collections::HashSet;

use serde::Deserialize;

use crate::error::{Error, Kind, Result, nearest};
pub use reference::Reference;

const BUILTIN: &str = include_str!("../../images/catalog.toml");

/// Where a vertical's image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// tazpod has its Containerfile: it can be built.
    Built,
    /// It has its place in the tree, and no Containerfile yet.
    Planned,
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
    /// What the agent keeps running.
    pub services: Vec<String>,
    /// Where those services listen.
    pub ports: Vec<u16>,
    /// Whether it makes little sense without a GPU.
    pub gpu: bool,
    /// Commands that must succeed in the image, as its user.
    pub verify: Vec<String>,
    /// What it brings for its user.
    pub tools: Vec<Tool>,
    /// Where the image comes from.
    pub origin: Origin,
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
}

/// All verticals: the tree's first, in the order of the file, then foreign ones.
#[derive(Clone, Debug)]
pub struct Catalog {
    verticals: Vec<Vertical>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    registry: String,
    tag: String,
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
    user: String,
    home: String,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    gpu: bool,
    #[serde(default)]
    verify: Vec<String>,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    built: bool,
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

    /// Reads and checks a catalog.
    ///
    /// # Errors
    /// [`Kind::Config`]: not a catalog, a bad name, a name twice, an unknown parent, a cycle.
    pub fn parse(text: &str) -> Result<Catalog> {
        let file: File =
            toml::from_str(text).map_err(|source| wrong("it does not read").with_source(source))?;
        let mut verticals = Vec::new();
        for entry in file.vertical {
            verticals.push(Vertical {
                repository: format!("{}/tazpod-{}", file.registry, entry.name),
                tag: file.tag.clone(),
                origin: if entry.built { Origin::Built } else { Origin::Planned },
                name: checked(entry.name)?,
                parent: entry.parent,
                summary: entry.summary,
                user: entry.user,
                home: entry.home,
                services: entry.services,
                ports: entry.ports,
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
                    _ => return Err(wrong(format!("`{reference}` is not a whole reference with a tag"))),
                };
                verticals.push(Vertical {
                    name: format!("{prefix}:{name}"),
                    parent: None,
                    summary: foreign.summary.clone(),
                    repository,
                    tag,
                    user: foreign.user.clone(),
                    home: foreign.home.clone(),
                    services: Vec::new(),
                    ports: Vec::new(),
                    gpu: false,
                    verify: Vec::new(),
                    tools: Vec::new(),
                    origin: Origin::Foreign,
                });
            }
        }
        let catalog = Catalog { verticals };
        catalog.check()?;
        Ok(catalog)
    }

    fn check(&self) -> Result<()> {
        let mut seen = HashSet::new();
        for vertical in &self.verticals {
            if !seen.insert(vertical.name.as_str()) {
                return Err(wrong(format!("`{}` is there twice", vertical.name)));
            }
        }
        self.verticals.iter().try_for_each(|vertical| self.chain(vertical).map(drop))
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
            let names = || self.verticals.iter().map(|vertical| vertical.name.as_str());
            let hint = nearest(name, names()).map_or_else(
                || format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            Error::new(Kind::Usage, format!("no vertical is called `{name}`")).hint(hint)
        })
    }

    /// The vertical and all that it stands on, the root of the tree first.
    ///
    /// # Errors
    /// [`Kind::Config`] for an unknown parent or a cycle, which [`Catalog::parse`] has ruled out.
    pub fn chain<'a>(&'a self, vertical: &'a Vertical) -> Result<Vec<&'a Vertical>> {
        let mut chain = vec![vertical];
        let mut below = vertical;
        while let Some(parent) = &below.parent {
            below = self
                .get(parent)
                .ok_or_else(|| wrong(format!("the parent `{parent}` of `{}` is not there", below.name)))?;
            if chain.contains(&below) {
                return Err(wrong(format!("`{}` stands on itself", below.name)));
            }
            chain.push(below);
        }
        chain.reverse();
        Ok(chain)
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

fn wrong(what: impl Into<String>) -> Error {
    Error::new(Kind::Config, format!("the catalog is wrong: {}", what.into()))
}

/// Names become parts of references, of containers' names and of paths.
fn checked(name: String) -> Result<String> {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.starts_with(ends) && name.ends_with(ends) && name.chars().all(|c| ends(c) || c == '-');
    if good { Ok(name) } else { Err(wrong(format!("`{name}` is not a name"))) }
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
        let chain = |name| names(catalog.chain(catalog.find(name).unwrap()).unwrap());
        assert_eq!(chain("ai"), ["base", "aws", "k8s", "ai"]);
        assert_eq!(chain("jupyter"), ["base", "nvidia", "nvidia-python", "jupyter"]);
        assert_eq!(chain("playwright"), ["base", "nvidia", "playwright"]);
        assert_eq!(
            names(catalog.children(Some("base")).collect()),
            ["aws", "nvidia", "devops", "githubrunner"]
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
            (vec![("A", None)], "`A` is not a name"),
            (vec![("a/b", None)], "`a/b` is not a name"),
            (vec![("-a", None)], "`-a` is not a name"),
            (vec![("", None)], "`` is not a name"),
        ] {
            let error = catalog(&entries).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert_eq!(error.to_string(), format!("the catalog is wrong: {message}"));
        }
        assert!(Catalog::parse("registry = 'r'\ntag = 't'\ncolour = 'red'").is_err());
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
