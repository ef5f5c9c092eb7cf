//! Builds: BuildKit on Docker, Podman's own builder there. Both come out as the same lines.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::moby::buildkit::v1::StatusResponse;
use bollard::models::{BuildInfoAux, ImageId};
use bollard::query_parameters as query;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::{Engine, docker_credentials, in_url_alphabet};
use crate::adapters::registry::Credentials;
use crate::catalog::Reference;
use crate::error::{Error, Kind, Result};

/// How long a build's context may take to get to the engine.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What to build.
pub struct Build<'a> {
    /// The reference to give to the result.
    pub tag: &'a str,
    /// The context, a tar with a `Containerfile`.
    pub context: BuildContext,
    /// Values of the Containerfile's `ARG`s.
    pub arguments: &'a HashMap<String, String>,
    /// Labels of the result.
    pub labels: &'a HashMap<String, String>,
    /// Whether every step is run, instead of taken from earlier builds.
    pub fresh: bool,
    /// Whether the engine's builder is BuildKit: Docker's, not Podman's.
    pub buildkit: bool,
    /// By the registry, for Podman by the repository.
    pub credentials: &'a HashMap<String, Option<Credentials>>,
    /// Where what steps made is looked for.
    pub cache: Option<Cache<'a>>,
}

/// A repository that has what steps made. Podman looks there for each step, and keeps it there; BuildKit takes what an image notes of its own
/// steps, and notes it in what it builds: that is for the caller to push, under `name`.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    /// The repository, without a tag.
    pub repository: &'a Reference,
    /// The tag for BuildKit.
    pub name: &'a str,
    /// The engine's version: Podman before 4.4 takes a name as it is, later ones a list in JSON.
    pub version: (u32, u32),
}

/// A build's context.
pub enum BuildContext {
    /// In memory.
    Whole(Bytes),
    /// As it comes. One that ends early is the builder's to notice.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

/// What a builder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuilderLine<'a> {
    /// BuildKit begins this step: `[2/7] RUN …`, or something of its own.
    Begins(&'a str),
    /// This step of BuildKit's failed.
    Failed(&'a str),
    /// What a step of BuildKit's prints.
    Output(&'a str),
    /// A line of Podman's, which may be either.
    Text(&'a str),
}

impl Engine {
    /// Builds and tags an image; `progress` gets the builder's lines.
    ///
    /// # Errors
    /// [`Kind::Image`] with the builder's reason.
    pub async fn build(&self, build: Build<'_>, mut progress: impl FnMut(BuilderLine<'_>)) -> Result<()> {
        let Build { tag, context, arguments, labels, fresh, buildkit, credentials, cache } = build;
        let mut arguments = arguments.clone();
        let mut options = query::BuildImageOptionsBuilder::default()
            .dockerfile("Containerfile")
            .rm(true)
            .forcerm(true)
            .nocache(fresh)
            .labels(labels);
        if buildkit {
            // No name: Docker would give it once more after it has said that all is done, when it may have been taken away again.
            // One session a build. Of a name with a colon the builder would look for what comes after it.
            let session = tag.replace(['/', ':'], "-");
            options = options.version(query::BuilderVersion::BuilderBuildKit).session(&session);
        } else {
            options = options.t(tag);
        }
        let mut parameters = String::new();
        if let Some(Cache { repository, name, version }) = cache {
            let place = repository.repository();
            if buildkit {
                options = options.cachefrom(&vec![format!("{place}:{name}")]);
                arguments.insert("BUILDKIT_INLINE_CACHE".to_owned(), "1".to_owned());
            } else {
                // Which the client does not know, or says otherwise; a reference has nothing that a URL would take for its own.
                let place = if version < (4, 4) { place } else { format!("%5B%22{place}%22%5D") };
                parameters = format!("&layers=true&cachefrom={place}&cacheto={place}");
            }
        }
        let who = credentials.iter().filter_map(|(place, who)| {
            // By the host that the builder asks for.
            let place = match place.as_str() {
                "docker.io" if buildkit => "registry-1.docker.io",
                place => place,
            };
            Some((place.to_owned(), docker_credentials(who.as_ref()?)))
        });
        // Where there are none, Podman looks for its own.
        let who = Some(who.collect::<HashMap<_, _>>()).filter(|who| !who.is_empty());
        let options = options.buildargs(&arguments);
        let body = match context {
            BuildContext::Whole(bytes) => bollard::body_full(bytes),
            BuildContext::Stream(stream) => bollard::body_stream(stream),
        };
        // The answer begins when the whole context is there.
        let docker = self.docker.clone().with_timeout(UPLOAD_TIMEOUT);
        let docker = docker.with_request_modifier(move |mut request| {
            let with = format!("{}{parameters}", request.uri());
            if let (false, Ok(uri)) = (parameters.is_empty(), with.parse()) {
                *request.uri_mut() = uri;
            }
            in_url_alphabet(request)
        });
        let mut stream = docker.build_image(options.build(), who, Some(body));
        let mut vertices = Vertices::default();
        let mut rest = String::new();
        let tell = |text: &str, progress: &mut dyn FnMut(BuilderLine<'_>)| {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.for_each(|line| progress(BuilderLine::Text(line)));
        };
        while let Some(event) = stream.next().await {
            if event.as_ref().map_or(true, |event| event.error_detail.is_some()) {
                tell(&std::mem::take(&mut rest), &mut progress);
            }
            let event = event.map_err(|source| match source {
                ApiError::DockerStreamError { error: reason }
                | ApiError::DockerResponseServerError { message: reason, .. } => {
                    Error::new(Kind::Image, reason.trim())
                }
                source => self.failed(format!("cannot build `{tag}`"), source),
            })?;
            if let Some(detail) = event.error_detail {
                return Err(Error::new(Kind::Image, detail.message.unwrap_or_default().trim()));
            }
            // One may end in the middle of a line.
            rest.push_str(event.stream.as_deref().unwrap_or_default());
            let whole = rest.rfind('\n').map_or(0, |end| end + 1);
            tell(&rest.drain(..whole).collect::<String>(), &mut progress);
            match event.aux {
                Some(BuildInfoAux::BuildKit(status)) => vertices.tell(status, &mut progress),
                // The image's id is the last that BuildKit says; its session would stay.
                Some(BuildInfoAux::Default(ImageId { id: Some(id) })) if buildkit => {
                    let (repository, tag) = tag.rsplit_once(':').unwrap_or((tag, "latest"));
                    return self.tag(&id, repository, tag).await;
                }
                Some(BuildInfoAux::Default(_)) | None => {}
            }
        }
        tell(&rest, &mut progress);
        if buildkit {
            return Err(Error::new(Kind::Image, "the builder ended without an image"));
        }
        Ok(())
    }
}

/// BuildKit's steps that were told of, by digest.
#[derive(Debug, Default)]
struct Vertices(HashSet<String>);

impl Vertices {
    /// Each step once it begins, as `[2/7] RUN …`, and what it prints.
    fn tell(&mut self, status: StatusResponse, progress: &mut impl FnMut(BuilderLine<'_>)) {
        let mut failed = None;
        for vertex in status.vertexes {
            if (vertex.started.is_some() || vertex.cached) && self.0.insert(vertex.digest) {
                progress(BuilderLine::Begins(&vertex.name));
            }
            if !vertex.error.is_empty() {
                failed = Some(vertex.name);
            }
        }
        for log in status.logs {
            let text = String::from_utf8_lossy(&log.msg);
            text.lines()
                .filter(|l| !l.trim().is_empty())
                .for_each(|line| progress(BuilderLine::Output(line)));
        }
        if let Some(name) = failed {
            progress(BuilderLine::Failed(&name));
        }
    }
}
