//! References of images as registries and engines have them, after the grammar of `distribution/reference`.

use std::fmt;

use container_image_dist_ref::ImgRef;

use crate::error::{Error, Kind, Result};

/// The registry where a reference names none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where that registry has its own images.
const DEFAULT_NAMESPACE: &str = "library";
/// The tag where a reference has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// An image in a registry, with nothing left to guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Reads `python:3.13`, `host:5000/x/y:tag`, `x@sha256:…`, adding what Docker adds.
    ///
    /// # Errors
    /// [`Kind::Image`], pointing at what is wrong.
    pub fn parse(text: &str) -> Result<Reference> {
        let found = ImgRef::new(text).map_err(|error| {
            let wrong = || Error::new(Kind::Image, format!("`{text}` is not an image's reference"));
            let at = text.get(usize::from(error.index())..).and_then(|rest| rest.chars().next());
            let error = match at {
                Some(c) if c.is_uppercase() => wrong().hint("names of images are in lower case"),
                Some(c) => {
                    let before = text.get(..usize::from(error.index())).unwrap_or_default();
                    wrong().hint(format!("`{c}` cannot stand at character {}", before.chars().count() + 1))
                }
                None => wrong(),
            };
            error.hint("references look like `docker.io/library/python:3.13`")
        })?;
        let path = found.path().to_str();
        // What comes first is a host only where it looks like one.
        let is_host = |name: &str| {
            name.contains(['.', ':']) || name == "localhost" || name.chars().any(char::is_uppercase)
        };
        let (registry, path) = match found.domain().map(|domain| domain.to_str()) {
            Some(domain) if is_host(domain) => (domain, path.to_owned()),
            Some(namespace) => (DEFAULT_REGISTRY, format!("{namespace}/{path}")),
            None if path.contains('/') => (DEFAULT_REGISTRY, path.to_owned()),
            None => (DEFAULT_REGISTRY, format!("{DEFAULT_NAMESPACE}/{path}")),
        };
        let digest = found.digest().map(|digest| digest.to_str().to_owned());
        let tag = found.tag().or_else(|| digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
        Ok(Reference { registry: registry.to_owned(), path, tag, digest })
    }

    /// Reads what has neither tag nor digest: `registry.example.com/team/cache`.
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub fn of_repository(text: &str) -> Result<Reference> {
        Reference::parse(&format!("{text}:{DEFAULT_TAG}"))
            .map_err(|error| error.hint("a repository is named without tag and digest"))
    }

    /// Host, and port if there is one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Registry and path.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// The digest, if it names one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The tag; none where a digest alone says which.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

/// As registries are asked: by digest where there is one, which says more than the tag.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn what_is_left_out_is_what_docker_adds() {
        for (text, whole) in [
            ("python", "docker.io/library/python:latest"),
            ("python:3.13", "docker.io/library/python:3.13"),
            ("grafana/loki", "docker.io/grafana/loki:latest"),
            ("a/b/c:1", "docker.io/a/b/c:1"),
            ("host:5000/x/y:tag", "host:5000/x/y:tag"),
            ("host:5000/x", "host:5000/x:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("10.0.0.1:5000/x/y:1", "10.0.0.1:5000/x/y:1"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1"),
            ("ghcr.io/a/b:1.0", "ghcr.io/a/b:1.0"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), whole, "{text}");
        }
    }

    #[test]
    fn a_digest_says_more_than_a_tag() {
        let whole = format!("r.example:5000/x@{DIGEST}");
        for text in [whole.clone(), format!("r.example:5000/x:1@{DIGEST}")] {
            let found = Reference::parse(&text).unwrap();
            assert_eq!(found.to_string(), whole);
            assert_eq!(
                (found.registry(), found.repository().as_str()),
                ("r.example:5000", "r.example:5000/x")
            );
        }
        assert_eq!(Reference::parse(&whole).unwrap().tag(), None);
    }

    #[test]
    fn what_is_none_is_an_error_that_says_where() {
        for (text, hint) in [
            ("x/UPPER", "lower case"),
            ("a b", "character 2"),
            ("", "look like"),
            ("x:", "look like"),
            ("x@sha256:12", "look like"),
            ("x:tag:tag", "character"),
            ("/x", "character 1"),
            ("x//y", "character"),
            ("ü", "character 1"),
            ("x\u{0}", "character 2"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Image, "{text}");
            assert!(error.hints().join("; ").contains(hint), "{text}: {:?}", error.hints());
        }
    }
}
