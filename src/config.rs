//! Configuration: `config.toml` of the user, `.tazpod/config.toml` of the project.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use crate::adapters::store::StoreSettings;
use crate::env;
use crate::error::{Error, Kind, Result, nearest};
use crate::pod::ownership::OwnershipChoice;

/// Where a project keeps its configuration, below the workspace.
pub const PROJECT_CONFIG: &str = ".tazpod/config.toml";

/// The user's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct UserConfig {
    /// The engine's address, as `--engine` takes it.
    pub engine: Option<String>,
    /// What concerns `attach`.
    pub attach: AttachConfig,
    /// What concerns the vault.
    pub vault: VaultConfig,
}

/// The table `[vault]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VaultConfig {
    /// Where its store is; a directory of the user's where this has no address.
    #[serde(flatten)]
    pub store: StoreSettings,
    /// Lock it after so long in which nobody was at work: `30m`, `2h`.
    #[serde(deserialize_with = "duration")]
    pub lock_after: Option<Duration>,
    /// Lock it when the pod's last session has ended.
    pub lock_with_last_session: bool,
    /// Directories of the pod's home that lead into it; the usual ones if left out.
    #[serde(deserialize_with = "links")]
    pub links: Option<Vec<PathBuf>>,
}

/// The table `[attach]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AttachConfig {
    /// The keys that detach (see [`crate::link::escape`]).
    pub detach: Option<String>,
    /// The keys that have the vault opened.
    pub unlock: Option<String>,
}

/// The project's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProjectConfig {
    /// The vertical that `up` takes where none is named.
    pub vertical: Option<String>,
    /// Where the images of tazpod's own verticals are, instead of in tazpod's registry.
    pub registry: Option<String>,
    /// What concerns the pod.
    pub pod: PodConfig,
}

/// The table `[pod]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodConfig {
    /// An image instead of the vertical's.
    pub image: Option<String>,
    /// How ownership is kept.
    pub ownership: OwnershipChoice,
    /// Environment of every process in the pod. No secrets: `inspect` shows it.
    pub env: BTreeMap<String, String>,
    /// The engine's network.
    pub network: Option<String>,
    /// Whether images can be built in the pod.
    pub builds: bool,
    /// Memory limit in bytes; written as a number, or with a suffix `k`, `m`, `g`.
    #[serde(deserialize_with = "size")]
    pub memory: Option<i64>,
}

const USER_KEYS: &[&str] = &[
    "engine",
    "attach",
    "attach.detach",
    "attach.unlock",
    "vault",
    "vault.address",
    "vault.endpoint",
    "vault.region",
    "vault.profile",
    "vault.path_style",
    "vault.lock_after",
    "vault.lock_with_last_session",
    "vault.links",
    "vault.accept_overwrites",
];
const PROJECT_KEYS: &[&str] = &[
    "vertical",
    "registry",
    "pod",
    "pod.image",
    "pod.ownership",
    "pod.env",
    "pod.env.*",
    "pod.network",
    "pod.builds",
    "pod.memory",
];

impl UserConfig {
    /// Reads `$TAZPOD_CONFIG_DIR/config.toml` or `$XDG_CONFIG_HOME/tazpod/config.toml`; empty where there is none.
    ///
    /// # Errors
    /// [`Kind::Config`], naming file, line and key.
    pub fn load() -> Result<UserConfig> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let directory = set(env::TAZPOD_CONFIG_DIR)
            .or_else(|| set(env::XDG_CONFIG_HOME).map(|path| path.join("tazpod")))
            .or_else(|| set(env::HOME).map(|path| path.join(".config/tazpod")));
        directory.map_or_else(|| Ok(UserConfig::default()), |path| load(&path.join("config.toml"), USER_KEYS))
    }
}

impl ProjectConfig {
    /// Reads [`PROJECT_CONFIG`] of a workspace; empty where there is none.
    ///
    /// # Errors
    /// [`Kind::Config`], naming file, line and key.
    pub fn load(workspace: &Path) -> Result<ProjectConfig> {
        load(&workspace.join(PROJECT_CONFIG), PROJECT_KEYS)
    }
}

fn size<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let text = String::deserialize(from)?;
    let wrong =
        || serde::de::Error::custom(format!("`{text}` is not an amount of memory, as `8g` or `512m` are"));
    parse_size(&text).map(Some).ok_or_else(wrong)
}

fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || serde::de::Error::custom(format!("`{text}` is no length of time, as `30m` or `2h` are"));
    humantime::parse_duration(&text).ok().filter(|length| length.as_secs() > 0).map(Some).ok_or_else(wrong)
}

fn links<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    let links = Vec::<PathBuf>::deserialize(from)?;
    let plain = |path: &PathBuf| {
        !path.as_os_str().is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)))
    };
    match links.iter().find(|path| !plain(path)) {
        None => Ok(Some(links)),
        Some(path) => {
            let path = path.display();
            Err(serde::de::Error::custom(format!("`{path}` is no directory below the home, as `.aws` is")))
        }
    }
}

fn parse_size(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.and_then(|factor: i64| digits.trim().parse::<i64>().ok()?.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0)
}

fn load<T: DeserializeOwned + Default>(path: &Path, known: &[&str]) -> Result<T> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text, known).map_err(|problem| problem.into_error(path)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(source) if source.kind() == std::io::ErrorKind::NotADirectory => Ok(T::default()),
        Err(source) => {
            Err(Error::new(Kind::Config, format!("cannot read `{}`", path.display())).with_source(source))
        }
    }
}

/// What is wrong with a file of configuration.
#[derive(Debug)]
pub struct Problem {
    /// From 1 on, where it is known.
    pub line: Option<usize>,
    /// What.
    pub message: String,
    hint: Option<String>,
}

impl Problem {
    /// Something that no line stands for.
    pub fn new(message: impl Into<String>) -> Problem {
        Problem { line: None, message: message.into(), hint: None }
    }

    /// With what to do about it.
    pub fn hint(self, hint: String) -> Problem {
        Problem { hint: Some(hint), ..self }
    }

    /// What the parser says of `text`.
    pub fn syntax(text: &str, error: &toml::de::Error) -> Problem {
        Problem {
            line: error.span().and_then(|span| line_of(text, span.start)),
            message: error.message().replace('\n', ", "),
            hint: None,
        }
    }

    /// With the file's name.
    pub fn into_error(self, path: &Path) -> Error {
        let place =
            self.line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()));
        let error = Error::new(Kind::Config, format!("`{place}`: {}", self.message));
        self.hint.into_iter().fold(error, Error::hint)
    }
}

fn line_of(text: &str, offset: usize) -> Option<usize> {
    text.get(..offset).map(|before| before.matches('\n').count() + 1)
}

fn parse<T: DeserializeOwned>(text: &str, known: &[&str]) -> Result<T, Problem> {
    let table = DeTable::parse(text).map_err(|error| Problem::syntax(text, &error))?;
    if let Some((key, offset)) = unknown_key("", table.get_ref(), known) {
        let hint = nearest(&key, known.iter().copied().filter(|name| !name.ends_with('*'))).map_or_else(
            || format!("known keys: {}", known.join(", ")),
            |name| format!("did you mean `{name}`?"),
        );
        return Err(Problem {
            line: line_of(text, offset),
            message: format!("unknown key `{key}`"),
            hint: Some(hint),
        });
    }
    toml::from_str(text).map_err(|error| Problem::syntax(text, &error))
}

/// The first key, as a dotted path, that is not among `known` (where `*` stands for any one name), and its offset.
fn unknown_key(prefix: &str, table: &DeTable<'_>, known: &[&str]) -> Option<(String, usize)> {
    for (key, value) in table {
        let path =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let any = format!("{prefix}.*");
        if !known.contains(&path.as_str()) && !known.contains(&any.as_str()) {
            return Some((path, key.span().start));
        }
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(found) = unknown_key(&path, inner, known)
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        parse::<ProjectConfig>(text, PROJECT_KEYS).unwrap_err()
    }

    #[test]
    fn reads_a_project() {
        let text =
            "vertical = 'k8s'\n[pod]\nmemory = '2g'\nownership = 'host-ids'\n[pod.env]\nEDITOR = 'vi'\n";
        let config: ProjectConfig = parse(text, PROJECT_KEYS).unwrap();
        assert_eq!(config.vertical.as_deref(), Some("k8s"));
        assert_eq!(config.pod.memory, Some(2 << 30));
        assert_eq!(config.pod.ownership, OwnershipChoice::HostIds);
        assert_eq!(config.pod.env["EDITOR"], "vi");
    }

    #[test]
    fn unknown_keys_name_the_nearest_and_the_line() {
        let found = problem("vertical = 'k8s'\n\n[pod]\nmemori = '2g'\n");
        assert_eq!(found.line, Some(4));
        assert_eq!(found.message, "unknown key `pod.memori`");
        assert_eq!(found.hint.as_deref(), Some("did you mean `pod.memory`?"));
        assert_eq!(problem("[pot]\n").hint.as_deref(), Some("did you mean `pod`?"));
    }

    #[test]
    fn broken_toml_has_a_line() {
        assert_eq!(problem("vertical = 'k8s'\n[pod\n").line, Some(2));
        assert_eq!(problem("\n\nvertical = 5\n").line, Some(3));
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512m"), Some(512 << 20));
        for bad in ["", "much", "-1g", "9999999999g", "1x"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        let found = problem("[pod]\nmemory = 'much'\n");
        assert_eq!(found.line, Some(2));
        assert!(found.message.contains("`much` is not an amount of memory"), "{}", found.message);
    }
}
