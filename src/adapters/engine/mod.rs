//! Docker and Podman through their API socket.

mod body;
mod build;
mod endpoint;
mod raw;

use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
// The one home of the engine's client.
use bollard::BollardRequest;
#[allow(clippy::disallowed_types)]
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::errors::Error as ApiError;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ExecConfig, HealthConfig, HostConfig, HostConfigLogConfig};
use bollard::query_parameters as query;
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::io::AsyncWrite;
use tokio::sync::Mutex;

use super::registry::Credentials;
use crate::catalog::Reference;
use crate::error::{Context as _, Error, Kind, Result};
use crate::pod::ownership::EngineTraits;
use crate::pod::spec::{Spec, label};
pub use body::{CAPABILITIES, can_spell};
pub use build::{Build, BuildContext, BuilderLine, Cache};
pub use endpoint::Endpoint;

/// The most tags of a repository that are looked through.
const TAGS: usize = 10_000;

/// How long one request may take; streams have no limit as a whole.
const REQUEST_TIMEOUT_SECONDS: u64 = 120;

/// A client of one engine.
#[derive(Clone, Debug)]
#[allow(clippy::disallowed_types)]
pub struct Engine {
    docker: Docker,
    endpoint: Endpoint,
}

/// What the engine says of itself.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// For the choice of mechanisms.
    pub traits: EngineTraits,
    /// As the engine gives it.
    pub version: String,
    /// The engine's machine, as Go and OCI name it (`amd64`).
    pub architecture: String,
    /// Release of the kernel that containers run on.
    pub kernel: String,
}

impl EngineInfo {
    /// `Docker 20.10.24` or `rootless Podman 4.3.1`.
    pub fn describe(&self) -> String {
        let rootless = if self.traits.rootless { "rootless " } else { "" };
        let flavor = if self.traits.podman { "Podman" } else { "Docker" };
        format!("{rootless}{flavor} {}", self.version)
    }
}

/// A container of ours, as listed.
#[derive(Clone, Debug)]
pub struct PodSummary {
    /// The container's id.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// As the engine says: `running`, `exited`, `created`, …
    pub state: String,
    /// For people: `Up 2 hours`.
    pub status: String,
    /// The image's reference as given at creation.
    pub image: String,
    /// All labels.
    pub labels: HashMap<String, String>,
}

impl PodSummary {
    /// A label's value, empty where it is missing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Whether its processes run.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }
}

/// Whether and how a container runs.
#[derive(Clone, Debug)]
pub struct ContainerState {
    /// The container's id.
    pub id: String,
    /// Whether its processes run.
    pub running: bool,
    /// PID 1 as the engine's machine sees it; 0 where it does not run.
    pub pid: i64,
    /// Of the last run.
    pub exit_code: i64,
    /// What the engine said where it could not start.
    pub error: String,
}

/// An image that the engine has.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…`.
    pub id: String,
    /// As OCI names it (`amd64`).
    pub architecture: String,
    /// All labels.
    pub labels: HashMap<String, String>,
    /// Size in bytes.
    pub size: i64,
    /// `REPOSITORY@sha256:…`, of the manifests that it came or went with.
    pub digests: Vec<String>,
}

/// What a registry has under a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InRegistry {
    /// Nothing.
    Nothing,
    /// An image; its manifest's digest, where the engine asks for that.
    Image(Option<String>),
}

/// What an engine tells of a pull.
#[derive(Clone, Copy, Debug)]
pub struct PullEvent<'a> {
    /// Of this layer, by the beginning of its digest; of the whole image where there is none.
    pub layer: Option<&'a str>,
    /// In Docker's words.
    pub status: &'a str,
    /// Bytes done; 0 where the engine does not say.
    pub current: u64,
    /// Bytes in all; 0 where the engine does not say.
    pub total: u64,
}

/// A container that a request made, if it did.
#[derive(Clone, Debug, Default)]
pub struct Created(Arc<Mutex<Option<String>>>);

impl Created {
    /// Its id, once the engine has answered.
    pub async fn id(&self) -> Option<String> {
        self.0.lock().await.clone()
    }
}

/// A short-lived container.
#[derive(Clone, Debug, Default)]
pub struct Helper {
    /// The image.
    pub image: String,
    /// Who it runs as, by name or as `UID:GID`; root where there is none.
    pub user: Option<String>,
    /// Command line, from the executable on.
    pub command: Vec<String>,
    /// Capabilities; all others are dropped.
    pub capabilities: Vec<&'static str>,
    /// Host paths and where they appear, read-only or not.
    pub binds: Vec<(std::path::PathBuf, String, bool)>,
    /// Whose pid namespace to join: `container:ID`.
    pub pid_mode: Option<String>,
}

/// Both ends of a command's stdio.
pub struct ExecStream {
    /// stdout and stderr, as they come.
    pub output: Pin<Box<dyn Stream<Item = std::io::Result<LogOutput>> + Send>>,
    /// stdin.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl std::fmt::Debug for ExecStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExecStream")
    }
}

impl Engine {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// Where the address cannot be one.
    #[allow(clippy::disallowed_types)]
    pub fn new(endpoint: Endpoint) -> Result<Engine> {
        let version = bollard::API_DEFAULT_VERSION;
        let docker = match &endpoint {
            Endpoint::Unix(path) => {
                if let Err(source) = std::fs::metadata(path) {
                    let error = match source.kind() {
                        std::io::ErrorKind::PermissionDenied => no_permission(&endpoint),
                        _ => unreachable_engine(&endpoint),
                    };
                    return Err(error.with_source(source));
                }
                Docker::connect_with_unix(&path.to_string_lossy(), REQUEST_TIMEOUT_SECONDS, version)
            }
            Endpoint::Http(address) => Docker::connect_with_http(address, REQUEST_TIMEOUT_SECONDS, version),
        };
        let docker = docker.map_err(|source| unreachable_engine(&endpoint).with_source(source))?;
        Ok(Engine { docker, endpoint })
    }

    /// The address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn failed(&self, doing: impl Into<String>, source: ApiError) -> Error {
        api_error(&self.endpoint, doing.into(), source)
    }

    /// Asks the engine about itself.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn info(&self) -> Result<EngineInfo> {
        // The client's types leave out what tells Podman's rootless service from its rootful one. `/version` would say
        // little more, and Podman takes a second for it.
        let info = raw::get(&self.endpoint, "/info").await?;
        let text =
            |key: &str| info.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let options =
            info.get("SecurityOptions").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        let has = |name: &str| {
            options
                .iter()
                .filter_map(serde_json::Value::as_str)
                .any(|option| option.split(',').any(|part| part == name))
        };
        let number = text("ServerVersion");
        let mut numbers = number.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
        let numbers = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok(EngineInfo {
            traits: EngineTraits {
                // Docker's answer has no such key.
                podman: info.get("Rootless").is_some(),
                rootless: has("name=rootless")
                    || info.get("Rootless") == Some(&serde_json::Value::Bool(true)),
                userns_remap: has("name=userns"),
                version: numbers,
            },
            version: number,
            architecture: oci_architecture(&text("Architecture")),
            kernel: text("KernelVersion"),
        })
    }

    /// Containers with all of these labels, in any state.
    ///
    /// # Errors
    /// Where the engine does not answer.
    pub async fn pods(&self, labels: &[(&str, &str)]) -> Result<Vec<PodSummary>> {
        let key = labels.first().map_or("", |(key, _)| key);
        // The filter {"label":["KEY"]}. The client's types lack states of Podman's, and then fail the whole list.
        let path = format!("/containers/json?all=true&filters=%7B%22label%22%3A%5B%22{key}%22%5D%7D");
        let found: Vec<raw::Container> = serde_json::from_value(raw::get(&self.endpoint, &path).await?)
            .map_err(|source| {
                Error::new(Kind::Engine, "cannot read the engine's list of containers").with_source(source)
            })?;
        let mut pods: Vec<_> = found
            .into_iter()
            .map(|container| PodSummary {
                id: container.id,
                name: container
                    .names
                    .unwrap_or_default()
                    .first()
                    .map(|name| name.trim_start_matches('/').to_owned())
                    .unwrap_or_default(),
                state: container.state,
                status: container.status,
                image: container.image,
                labels: container.labels.unwrap_or_default(),
            })
            // Filters of engines are not to be trusted with what gets removed.
            .filter(|pod| {
                labels.iter().all(|(key, value)| {
                    pod.labels.get(*key).is_some_and(|found| value.is_empty() || found == value)
                })
            })
            .collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pods)
    }

    /// The container with exactly this name, whoever made it.
    ///
    /// # Errors
    /// Where the engine does not answer.
    pub async fn container(&self, name: &str) -> Result<Option<(ContainerState, HashMap<String, String>)>> {
        match self.docker.inspect_container(name, None).await {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
                let state = ContainerState {
                    id: found.id.unwrap_or_default(),
                    running: state.running.unwrap_or_default(),
                    pid: state.pid.unwrap_or_default(),
                    exit_code: state.exit_code.unwrap_or_default(),
                    error: state.error.unwrap_or_default(),
                };
                Ok(Some((state, labels)))
            }
            Err(source) if is_not_found(&source) => Ok(None),
            Err(source) => Err(self.failed(format!("cannot inspect `{name}`"), source)),
        }
    }

    /// An image by reference or id, if the engine has it.
    ///
    /// # Errors
    /// Where the engine does not answer.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>> {
        match self.docker.inspect_image(reference).await {
            Ok(found) => Ok(Some(Image {
                id: found
                    .id
                    .map(|id| if id.contains(':') { id } else { format!("sha256:{id}") })
                    .unwrap_or_default(),
                architecture: found.architecture.unwrap_or_default(),
                labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
                size: found.size.unwrap_or_default(),
                digests: found.repo_digests.unwrap_or_default(),
            })),
            Err(source) if is_not_found(&source) => Ok(None),
            // A reference that is none, say.
            Err(ApiError::DockerResponseServerError { message, .. }) => Err(Error::new(
                Kind::Image,
                format!("cannot use the image `{reference}`: {}", message.trim()),
            )),
            Err(source) => Err(self.failed(format!("cannot inspect the image `{reference}`"), source)),
        }
    }

    /// As [`Engine::image`] for each of these, all at once: Podman takes the longer for one the more images it has.
    ///
    /// # Errors
    /// As [`Engine::image`].
    pub async fn images(&self, references: &[String]) -> Result<Vec<Option<Image>>> {
        try_join_all(references.iter().map(|reference| self.image(reference))).await
    }

    /// Pulls an image; `progress` gets what the engine tells of it.
    ///
    /// # Errors
    /// [`Kind::Image`], and the engine's own words of the reason.
    pub async fn pull(
        &self,
        reference: &str,
        who: Option<&Credentials>,
        mut progress: impl FnMut(PullEvent<'_>),
    ) -> std::result::Result<(), (Error, String)> {
        let options = query::CreateImageOptionsBuilder::default().from_image(reference).build();
        let doing = format!("cannot pull `{reference}`");
        let docker = self.docker.clone().with_request_modifier(in_url_alphabet);
        let mut stream = docker.create_image(Some(options), None, who.map(docker_credentials));
        while let Some(event) = stream.next().await {
            let event = event.map_err(|source| self.transfer_failed(&doing, source))?;
            if let Some(detail) = event.error_detail {
                return Err(refused(&doing, &detail.message.unwrap_or_default()));
            }
            let detail = event.progress_detail.unwrap_or_default();
            let bytes = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
            progress(PullEvent {
                layer: event.id.as_deref(),
                status: event.status.as_deref().unwrap_or_default().trim_end(),
                current: bytes(detail.current),
                total: bytes(detail.total),
            });
        }
        Ok(())
    }

    /// Brings an image to its registry, by one of its names; `heard` is told whenever the engine says something. Returns the digest that the
    /// registry has it by.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        who: Option<&Credentials>,
        mut heard: impl FnMut(),
    ) -> std::result::Result<String, (Error, String)> {
        let doing = format!("cannot push `{repository}:{tag}`");
        let options = query::PushImageOptionsBuilder::default().tag(tag).build();
        let docker = self.docker.clone().with_request_modifier(in_url_alphabet);
        let mut stream =
            std::pin::pin!(docker.push_image(repository, Some(options), who.map(docker_credentials)));
        let mut digest = None;
        while let Some(event) = stream.next().await {
            let event = event.map_err(|source| self.transfer_failed(&doing, source))?;
            heard();
            // Both engines say it in these words: `TAG: digest: sha256:… size: …`.
            let said = event.status.unwrap_or_default();
            let words = said.split_once(": digest: ").and_then(|(_, rest)| rest.split(' ').next());
            digest = words.map(str::to_owned).or(digest);
        }
        digest.ok_or_else(|| refused(&doing, "the engine does not say what it pushed"))
    }

    /// What the registry of an image has under its tag, by what the engine hears from there.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub async fn in_registry(
        &self,
        reference: &Reference,
        who: Option<&Credentials>,
        podman: bool,
    ) -> std::result::Result<InRegistry, (Error, String)> {
        let doing = format!("cannot ask for `{reference}`");
        let who = who.map(docker_credentials);
        // Podman asks registries for tags alone, and knows there only this kind of credentials.
        let (path, name, value) = match podman {
            true => (
                format!("/images/search?term={}&listTags=true&limit={TAGS}", reference.repository()),
                "X-Registry-Config",
                who.map(|who| serde_json::to_vec(&HashMap::from([(reference.registry(), who)]))),
            ),
            false => (
                format!("/distribution/{reference}/json"),
                "X-Registry-Auth",
                who.map(|who| serde_json::to_vec(&who)),
            ),
        };
        let value = value.map(|json| URL_SAFE.encode(json.unwrap_or_default()));
        let header = value.as_deref().map(|value| (name, value));
        let (status, answer) =
            raw::ask(&self.endpoint, &path, header).await.map_err(|error| (error, String::new()))?;
        if !status.is_success() {
            let message = answer.get("message").and_then(|message| message.as_str());
            return Err(refused(&doing, message.unwrap_or("the engine does not say why")));
        }
        if !podman {
            let digest = answer.pointer("/Descriptor/digest").and_then(|digest| digest.as_str());
            return Ok(InRegistry::Image(digest.map(str::to_owned)));
        }
        let tags = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let is_there =
            tags.iter().any(|found| found.get("Tag").and_then(|tag| tag.as_str()) == reference.tag());
        Ok(if is_there { InRegistry::Image(None) } else { InRegistry::Nothing })
    }

    fn transfer_failed(&self, doing: &str, source: ApiError) -> (Error, String) {
        match source {
            ApiError::DockerStreamError { error: reason }
            | ApiError::DockerResponseServerError { message: reason, .. } => refused(doing, &reason),
            source => (self.failed(doing.to_owned(), source), String::new()),
        }
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn tag(&self, image: &str, repository: &str, tag: &str) -> Result<()> {
        let options = query::TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        self.docker
            .tag_image(image, Some(options))
            .await
            .map_err(|source| self.failed(format!("cannot tag `{repository}:{tag}`"), source))
    }

    /// Takes an image away that has no name, with the layers below that then have none either, and no image above.
    ///
    /// # Errors
    /// Where the engine refuses: a container uses it.
    pub async fn remove_nameless_image(&self, id: &str) -> Result<()> {
        match self.docker.inspect_image(id).await {
            // Asked to remove an id, engines remove its only name, too.
            Ok(found) if found.repo_tags.as_ref().is_some_and(|names| !names.is_empty()) => Ok(()),
            Ok(_) => self.remove_image(id, true).await,
            Err(source) if is_not_found(&source) => Ok(()),
            Err(source) => Err(self.failed(format!("cannot inspect the image `{id}`"), source)),
        }
    }

    /// Takes a name off an image, and the image away where that was its last. One that is not there is fine.
    /// `prune` takes also the layers below that then have no name and no image above them.
    ///
    /// # Errors
    /// Where the engine refuses: a container uses it.
    pub async fn remove_image(&self, name: &str, prune: bool) -> Result<()> {
        let options = query::RemoveImageOptionsBuilder::default().noprune(!prune).build();
        match self.docker.remove_image(name, Some(options), None).await {
            Err(source) if is_not_found(&source) => Ok(()),
            other => other
                .map(drop)
                .map_err(|source| self.failed(format!("cannot remove the image `{name}`"), source)),
        }
    }

    /// Creates the pod's container. The engine is told of `sources` instead of the shares' own, and of a seccomp profile instead of its own.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn create(
        &self,
        spec: &Spec,
        sources: &[PathBuf],
        seccomp: Option<String>,
        image: &Image,
        traits: EngineTraits,
        created: &Created,
    ) -> Result<()> {
        let body = body::container(spec, sources, seccomp, image, traits);
        self.create_known(Some(&spec.name), body, created)
            .await
            .map_err(|source| self.failed(format!("cannot create `{}`", spec.name), source))
    }

    /// A task of its own: a caller that is interrupted has sent the request all the same, and has to undo it.
    async fn create_known(
        &self,
        name: Option<&str>,
        body: ContainerCreateBody,
        created: &Created,
    ) -> std::result::Result<(), ApiError> {
        let options = name.map(|name| query::CreateContainerOptionsBuilder::default().name(name).build());
        let mut known = Arc::clone(&created.0).lock_owned().await;
        let docker = self.docker.clone();
        let creating = tokio::spawn(async move {
            *known = Some(docker.create_container(options, body).await?.id);
            Ok(())
        });
        creating.await.unwrap_or_else(|gone| Err(ApiError::IOError { err: std::io::Error::other(gone) }))
    }

    /// Starts a container.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn start(&self, name: &str) -> Result<()> {
        self.docker
            .start_container(name, None::<query::StartContainerOptions>)
            .await
            .map_err(|source| self.failed(format!("cannot start `{name}`"), source))
    }

    /// Stops a container, with SIGTERM first and SIGKILL after `grace`.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<()> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::default().t(seconds).build();
        match self.docker.stop_container(name, Some(options)).await {
            // 304: it does not run.
            Err(ApiError::DockerResponseServerError { status_code: 304, .. }) | Ok(()) => Ok(()),
            Err(source) => Err(self.failed(format!("cannot stop `{name}`"), source)),
        }
    }

    /// Removes a container, running or not, with its anonymous volumes. One that is not there is fine.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(name, Some(options)).await {
            Err(source) if is_not_found(&source) => Ok(()),
            other => other.map_err(|source| self.failed(format!("cannot remove `{name}`"), source)),
        }
    }

    /// The container's output so far, or as it comes.
    pub fn logs(&self, name: &str, follow: bool, tail: &str) -> impl Stream<Item = Result<Bytes>> + '_ {
        let options =
            query::LogsOptionsBuilder::default().stdout(true).stderr(true).follow(follow).tail(tail).build();
        let name = name.to_owned();
        self.docker
            .logs(&name, Some(options))
            .map_ok(LogOutput::into_bytes)
            .map_err(move |source| self.failed(format!("cannot read the log of `{name}`"), source))
    }

    /// Starts a command in a running container with its stdio attached.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn exec_stdio(&self, name: &str, user: &str, command: &[&str]) -> Result<ExecStream> {
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            user: Some(user.to_owned()),
            ..Default::default()
        };
        let failed = |source| self.failed(format!("cannot start a command in `{name}`"), source);
        let exec = self.docker.create_exec(name, config).await.map_err(failed)?;
        let options = StartExecOptions { output_capacity: Some(256 * 1024), ..Default::default() };
        match self.docker.start_exec(&exec.id, Some(options)).await.map_err(failed)? {
            StartExecResults::Attached { output, input } => {
                Ok(ExecStream { output: Box::pin(output.map_err(std::io::Error::other)), input })
            }
            StartExecResults::Detached => {
                Err(Error::new(Kind::Engine, format!("the engine did not attach to the command in `{name}`")))
            }
        }
    }

    /// Reads a path of a container as a tar; `None` where it is not there.
    ///
    /// # Errors
    /// Where the engine does not answer.
    pub async fn download(&self, name: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let options = query::DownloadFromContainerOptionsBuilder::default().path(path).build();
        let chunks: std::result::Result<Vec<Bytes>, ApiError> =
            self.docker.download_from_container(name, Some(options)).try_collect().await;
        match chunks {
            Ok(chunks) => Ok(Some(chunks.concat())),
            Err(source) if is_not_found(&source) => Ok(None),
            Err(source) => Err(self.failed(format!("cannot read `{path}` of `{name}`"), source)),
        }
    }

    /// Reads a text file of a container; empty where it is not there.
    ///
    /// # Errors
    /// [`Kind::Image`] where it is no text; where the engine does not answer.
    pub async fn read_file(&self, name: &str, path: &str) -> Result<String> {
        let tar = self.download(name, path).await?.unwrap_or_default();
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut text = String::new();
        if let Some(entry) = archive.entries().ok().and_then(|mut entries| entries.next()) {
            let failed = || format!("cannot read `{path}` of the image");
            entry.and_then(|mut entry| entry.read_to_string(&mut text)).context(Kind::Image, failed)?;
        }
        Ok(text)
    }

    /// Unpacks a tar into a directory of a container.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn upload(&self, name: &str, directory: &str, tar: Vec<u8>) -> Result<()> {
        let options = query::UploadToContainerOptionsBuilder::default().path(directory).build();
        self.docker
            .upload_to_container(name, Some(options), bollard::body_full(tar.into()))
            .await
            .map_err(|source| self.failed(format!("cannot write to `{directory}` of `{name}`"), source))
    }

    /// Runs a helper container to its end, without network, and removes it. Returns its exit code and what it said.
    /// Where it is interrupted, what `created` knows is left to be removed.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn run_helper(&self, helper: &Helper, created: &Created) -> Result<(i64, String)> {
        self.create_known(None, helper_body(helper), created)
            .await
            .map_err(|source| self.failed("cannot create a helper container", source))?;
        self.finish_helper(&created.id().await.unwrap_or_default()).await
    }

    /// As [`Engine::run_helper`], for a helper container that is there and did not start yet.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn finish_helper(&self, id: &str) -> Result<(i64, String)> {
        let done = async {
            let mut waiting = self.docker.wait_container(id, None::<query::WaitContainerOptions>);
            self.start(id).await?;
            let code = match waiting.next().await {
                Some(Ok(ended)) => ended.status_code,
                Some(Err(ApiError::DockerContainerWaitError { code, .. })) => code,
                Some(Err(source)) => return Err(self.failed("cannot wait for a helper container", source)),
                None => self.container(id).await?.map_or(-1, |(state, _)| state.exit_code),
            };
            let output: Vec<Bytes> = self.logs(id, false, "1000").try_collect().await?;
            Ok((code, String::from_utf8_lossy(&output.concat()).trim().to_owned()))
        }
        .await;
        self.remove(id).await?;
        done
    }

    /// Creates a helper container without starting it.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub async fn create_helper(&self, helper: &Helper) -> Result<String> {
        let created = self
            .docker
            .create_container(None::<query::CreateContainerOptions>, helper_body(helper))
            .await
            .map_err(|source| self.failed("cannot create a helper container", source))?;
        Ok(created.id)
    }

    /// The pods of a workspace.
    ///
    /// # Errors
    /// Where the engine does not answer.
    pub async fn pods_of(&self, workspace: &std::path::Path) -> Result<Vec<PodSummary>> {
        self.pods(&[(label::WORKSPACE, &workspace.to_string_lossy())]).await
    }
}

fn helper_body(helper: &Helper) -> ContainerCreateBody {
    let mut security = vec!["label=disable".to_owned()];
    if helper.capabilities.contains(&"SYS_ADMIN") {
        // Its profile forbids mounting.
        security.push("apparmor=unconfined".to_owned());
    }
    ContainerCreateBody {
        image: Some(helper.image.clone()),
        user: Some(helper.user.clone().unwrap_or_else(|| "0:0".into())),
        entrypoint: Some(helper.command.clone()),
        cmd: Some(Vec::new()),
        working_dir: Some("/".into()),
        // The image's would run with the helper's capabilities.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        // Whose it is, for whoever finds one.
        labels: Some(HashMap::from([("io.tazpod.helper".to_owned(), std::process::id().to_string())])),
        host_config: Some(HostConfig {
            network_mode: Some("none".into()),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: Some(helper.capabilities.iter().map(|&name| name.to_owned()).collect()),
            security_opt: Some(security),
            pid_mode: helper.pid_mode.clone(),
            // What it says is read as soon as it has ended: not by way of a journal.
            log_config: Some(HostConfigLogConfig { typ: Some("json-file".into()), config: None }),
            mounts: Some(
                helper.binds.iter().map(|(source, target, ro)| body::bind(source, target, *ro)).collect(),
            ),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn docker_credentials(who: &Credentials) -> DockerCredentials {
    match who.clone() {
        Credentials::Password { username, password } => {
            DockerCredentials { username: Some(username), password: Some(password), ..Default::default() }
        }
        Credentials::IdentityToken(token) => {
            DockerCredentials { identitytoken: Some(token), ..Default::default() }
        }
    }
}

/// With the engine's own words of the reason.
fn refused(doing: &str, reason: &str) -> (Error, String) {
    let reason = reason.trim().to_owned();
    (Error::new(Kind::Image, format!("{doing}: {reason}")), reason)
}

/// Engines take the headers of credentials in base64url and the client writes base64: those with `+` or `/` would count
/// as none.
fn in_url_alphabet(mut request: BollardRequest) -> BollardRequest {
    for name in ["X-Registry-Auth", "X-Registry-Config"] {
        if let Some(value) = request.headers_mut().get_mut(name) {
            let text = String::from_utf8_lossy(value.as_bytes()).replace('+', "-").replace('/', "_");
            if let Ok(changed) = text.parse() {
                *value = changed;
            }
        }
    }
    request
}

fn is_not_found(error: &ApiError) -> bool {
    matches!(error, ApiError::DockerResponseServerError { status_code: 404, .. })
}

/// As OCI and Go name architectures, from the kernel's names.
pub fn oci_architecture(name: &str) -> String {
    match name {
        "x86_64" => "amd64".into(),
        "aarch64" => "arm64".into(),
        other => other.into(),
    }
}

fn unreachable_engine(endpoint: &Endpoint) -> Error {
    Error::new(Kind::Engine, format!("cannot reach the engine at `{endpoint}`"))
        .hint("is it running? another one is named with `--engine`")
}

fn no_permission(endpoint: &Endpoint) -> Error {
    Error::new(Kind::Engine, format!("no permission to use the engine at `{endpoint}`"))
        .hint("join the group that owns the socket, or use a rootless engine")
}

fn api_error(endpoint: &Endpoint, doing: String, source: ApiError) -> Error {
    let denied = |error: &(dyn std::error::Error + 'static)| {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::PermissionDenied
            {
                return true;
            }
            cause = error.source();
        }
        false
    };
    match &source {
        ApiError::DockerResponseServerError { .. } | ApiError::DockerStreamError { .. } => {
            Error::new(Kind::Engine, doing).with_source(source)
        }
        other if denied(other) => no_permission(endpoint).with_source(source),
        ApiError::RequestTimeoutError => Error::new(Kind::Engine, doing)
            .with_source(source)
            .hint(format!("the engine at `{endpoint}` did not answer within {REQUEST_TIMEOUT_SECONDS} s")),
        _ => unreachable_engine(endpoint).with_source(Error::new(Kind::Engine, doing).with_source(source)),
    }
}
