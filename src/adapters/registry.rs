//! What the user's clients know of registries: the credentials of `docker login` and `podman login`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::catalog::Reference;
use crate::env;

/// How long a credential helper may take; one may ask the user to unlock a keyring.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// Docker Hub's key in Docker's configuration.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Who to be for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that the registry exchanges for others.
    IdentityToken(String),
}

/// What was found of a registry's credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    /// In this file, or by a helper that it names; empty where none answered in time.
    pub file: PathBuf,
    /// These, or why they cannot be used.
    pub credentials: Result<Credentials, String>,
}

/// A file of one of the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    file: PathBuf,
    /// Whether its keys may be namespaces of a registry, as `containers-auth.json(5)` has them.
    podman: bool,
}

/// The credentials for an image's registry, from the first file that has any: Podman's before Docker's for Podman.
/// `None` where nobody logged in.
pub async fn credentials(reference: &Reference, podman: bool) -> Option<Found> {
    let reference = reference.clone();
    let sources = sources(&|name| std::env::var_os(name).map(PathBuf::from), podman);
    // A helper is a program, and may take its time.
    let looking = tokio::task::spawn_blocking(move || look(&sources, &reference));
    match tokio::time::timeout(HELPER_TIMEOUT, looking).await {
        Ok(found) => found.ok().flatten(),
        Err(_) => Some(Found {
            file: PathBuf::new(),
            credentials: Err(format!("a credential helper did not answer in {} s", HELPER_TIMEOUT.as_secs())),
        }),
    }
}

fn sources(variable: &dyn Fn(&str) -> Option<PathBuf>, podman: bool) -> Vec<Source> {
    let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
    let home = set(env::HOME);
    let under_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let of_podman = match set(env::REGISTRY_AUTH_FILE) {
        Some(file) => vec![Some(file)],
        None => vec![
            set(env::XDG_RUNTIME_DIR).map(|directory| directory.join("containers/auth.json")),
            set(env::XDG_CONFIG_HOME)
                .or_else(|| under_home(".config"))
                .map(|directory| directory.join("containers/auth.json")),
        ],
    };
    let of_docker = set(env::DOCKER_CONFIG).or_else(|| under_home(".docker"));
    let mut sources: Vec<Source> =
        of_podman.into_iter().flatten().map(|file| Source { file, podman: true }).collect();
    sources.extend(of_docker.map(|directory| Source { file: directory.join("config.json"), podman: false }));
    if !podman {
        sources.sort_by_key(|source| source.podman);
    }
    sources
}

fn look(sources: &[Source], reference: &Reference) -> Option<Found> {
    sources.iter().find_map(|source| {
        let credentials = keys(reference, source.podman).find_map(|key| look_up(&source.file, &key))?;
        Some(Found { file: source.file.clone(), credentials })
    })
}

/// What the registry may be called in a file, the most special first.
fn keys(reference: &Reference, podman: bool) -> impl Iterator<Item = String> {
    let registry = reference.registry().to_owned();
    let mut namespaces = Vec::new();
    let mut rest = podman.then(|| reference.repository());
    while let Some(name) = rest.filter(|name| *name != registry) {
        rest = name.rsplit_once('/').map(|(above, _)| above.to_owned());
        namespaces.push(name);
    }
    let hub = (!podman && registry == "docker.io").then(|| DOCKER_HUB_KEY.to_owned());
    namespaces.into_iter().chain(hub).chain([registry])
}

/// `None` where the file is not there, or says nothing of this key.
fn look_up(file: &Path, key: &str) -> Option<Result<Credentials, String>> {
    let reader = match File::open(file) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(error.to_string())),
    };
    match docker_credential::get_credential_from_reader(reader, key) {
        Ok(DockerCredential::IdentityToken(token)) => Some(Ok(Credentials::IdentityToken(token))),
        // What helpers answer for a registry that they do not know.
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            (!username.is_empty()).then_some(Ok(Credentials::Password { username, password }))
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => None,
        Err(CredentialRetrievalError::ConfigReadError) => Some(Err("it does not read as JSON".into())),
        // That of Docker's own helpers for a registry that they do not know.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found in native keychain") =>
        {
            None
        }
        // Docker's own helpers say it on stdout, which is where secrets are, too: as JSON.
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let said = [stderr.trim(), stdout.trim()].into_iter().find(|text| !text.is_empty());
            let said = said.filter(|text| !text.contains('{')).unwrap_or("it does not say why");
            Some(Err(format!("`{helper}` failed: {}", said.lines().next().unwrap_or_default())))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Some(Err("its credential helper did not run".into()))
        }
        Err(error) => Some(Err(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, reference: &str, podman: bool) -> Option<Result<Credentials, String>> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, json).unwrap();
        look(&[Source { file, podman }], &Reference::parse(reference).unwrap()).map(|found| found.credentials)
    }

    fn password(username: &str, password: &str) -> Option<Result<Credentials, String>> {
        Some(Ok(Credentials::Password { username: username.into(), password: password.into() }))
    }

    // `me:pass:word` and `hub:x`.
    const AUTHS: &str = r#"{"auths": {
        "host:5000": {"auth": "bWU6cGFzczp3b3Jk"},
        "https://index.docker.io/v1/": {"auth": "aHViOng="},
        "quay.io/team": {"auth": "aHViOng="},
        "empty.example": {},
        "token.example": {"auth": "aHViOng=", "identitytoken": "abc"}
    }}"#;

    #[test]
    fn plain_credentials_of_docker() {
        assert!(found(AUTHS, "host:5000/x/y:1", false) == password("me", "pass:word"));
        assert!(found(AUTHS, "python:3", false) == password("hub", "x"));
        assert!(found(AUTHS, "host:5001/x", false).is_none());
        assert!(found(AUTHS, "empty.example/x", false).is_none());
        assert!(found(AUTHS, "token.example/x", false) == Some(Ok(Credentials::IdentityToken("abc".into()))));
    }

    #[test]
    fn namespaces_of_podman() {
        assert!(found(AUTHS, "quay.io/team/deep/image:1", true) == password("hub", "x"));
        assert!(found(AUTHS, "quay.io/team/deep/image:1", false).is_none());
        assert!(found(AUTHS, "quay.io/other/image:1", true).is_none());
        assert!(found(AUTHS, "host:5000/x", true) == password("me", "pass:word"));
        let reference = Reference::parse("quay.io/team/image:1").unwrap();
        assert_eq!(
            keys(&reference, true).collect::<Vec<_>>(),
            ["quay.io/team/image", "quay.io/team", "quay.io"]
        );
    }

    #[test]
    fn broken_files_are_said_to_be() {
        assert!(found("{", "host:5000/x", false) == Some(Err("it does not read as JSON".into())));
        let broken = r#"{"auths": {"host:5000": {"auth": "!"}}}"#;
        assert!(found(broken, "host:5000/x", false).unwrap().is_err());
        let no_helper = r#"{"credHelpers": {"host:5000": "tazpod-test-none"}}"#;
        assert!(
            found(no_helper, "host:5000/x", false) == Some(Err("its credential helper did not run".into()))
        );
        assert!(
            look(&[Source { file: "/nowhere".into(), podman: false }], &Reference::parse("x").unwrap())
                .is_none()
        );
    }

    #[test]
    fn files_in_the_order_of_the_engines_own_client() {
        let variables = |name: &str| match name {
            env::HOME => Some(PathBuf::from("/home/me")),
            env::XDG_RUNTIME_DIR => Some(PathBuf::from("/run/user/1")),
            _ => None,
        };
        let files = |podman| sources(&variables, podman).into_iter().map(|s| s.file).collect::<Vec<_>>();
        let (runtime, config, docker) = (
            PathBuf::from("/run/user/1/containers/auth.json"),
            PathBuf::from("/home/me/.config/containers/auth.json"),
            PathBuf::from("/home/me/.docker/config.json"),
        );
        assert_eq!(files(true), [runtime.clone(), config.clone(), docker.clone()]);
        assert_eq!(files(false), [docker, runtime, config]);
        let one = |name: &str| (name == env::REGISTRY_AUTH_FILE).then(|| PathBuf::from("/auth"));
        assert_eq!(sources(&one, true), [Source { file: "/auth".into(), podman: true }]);
    }
}
