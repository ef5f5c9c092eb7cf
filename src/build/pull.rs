//! Images from registries: when to ask, as whom, and what became of it.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crate::adapters::engine::{Engine, Image, PullEvent};
use crate::adapters::registry::{self, Credentials};
use crate::catalog::Reference;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::ui::{Phase, Transfer};

/// How long a registry may take to answer at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a layer that is on its way may be without progress.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(180);
/// How long an engine may be silent while it stores what has come.
pub(super) const STORING_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How often a transfer that broke off is begun again, and after which pauses.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// When to ask the registry for an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PullPolicy {
    /// Where the engine does not have it.
    #[default]
    Missing,
    /// Every time, going on with what is there where the registry is out of reach.
    Newer,
    /// Every time.
    Always,
    /// At no time.
    Never,
}

/// Why an image did not come. Engines say it in words alone, so it decides over hints and over what is tried instead,
/// never over what is done with the user's things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The registry has no such image, or does not tell whoever asks.
    NotFound,
    /// The registry wants to know who asks, or does not let them.
    Denied,
    /// Nobody answers there.
    Unreachable,
    /// The registry's certificate is not trusted.
    Untrusted,
    /// The registry speaks HTTP without TLS.
    Plain,
    /// No room on the engine's disk.
    Full,
    /// What came is not what its digest says.
    Corrupt,
    /// Anything else.
    Other,
}

impl Failure {
    /// From an engine's words (Docker's and Podman's; both hand on those of Go's libraries).
    pub fn of(reason: &str) -> Failure {
        // These two are the engine's own trouble, not the registry's.
        let reason =
            reason.to_lowercase().replace("permission denied", "").replace("executable file not found", "");
        let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
        if says(&["no space left", "disk quota exceeded"]) {
            Failure::Full
        } else if says(&["verification failed for digest", "digest did not match", "digest mismatch"]) {
            Failure::Corrupt
        } else if says(&["x509:", "tls: failed to verify", "certificate signed by unknown"]) {
            Failure::Untrusted
        } else if says(&["gave http response to https"]) {
            Failure::Plain
        } else if says(&["manifest unknown", "name unknown", "not found", "does not exist", "no such image"])
        {
            Failure::NotFound
        } else if says(&[
            "unauthorized",
            "denied",
            "no basic auth credentials",
            "toomanyrequests",
            "authentication required",
            "forbidden",
        ]) {
            Failure::Denied
        } else if says(&[
            "no such host",
            "connection refused",
            "no route to host",
            "network is unreachable",
            "i/o timeout",
            "handshake timeout",
            "timed out",
            "connection reset",
            "deadline exceeded",
            "request canceled while waiting",
            "name resolution",
            "server misbehaving",
        ]) {
            Failure::Unreachable
        } else {
            Failure::Other
        }
    }

    /// Whether the image may be made here instead: not where the registry or this machine is in a state that somebody
    /// should look at.
    pub fn is_absence(self) -> bool {
        !matches!(self, Failure::Untrusted | Failure::Full | Failure::Corrupt)
    }
}

/// An image that did not come.
#[derive(Debug)]
pub struct NotPulled {
    /// The class.
    pub failure: Failure,
    /// The whole story.
    pub error: Error,
}

impl From<Error> for NotPulled {
    fn from(error: Error) -> NotPulled {
        NotPulled { failure: Failure::Other, error }
    }
}

impl From<NotPulled> for Error {
    fn from(failed: NotPulled) -> Error {
        failed.error
    }
}

/// Any image, by reference or id: what is there, or pulled.
///
/// # Errors
/// [`Kind::Image`] where neither works out.
pub async fn ensure_reference(
    context: &Context,
    engine: &Engine,
    reference: &str,
    policy: PullPolicy,
) -> Result<Image, NotPulled> {
    let local = engine.image(reference).await?;
    match (policy, local) {
        (PullPolicy::Missing | PullPolicy::Never, Some(image)) => Ok(image),
        (PullPolicy::Never, None) => Err(Error::new(Kind::Image, format!("`{reference}` is not there"))
            .hint("allow to pull it: `--pull missing`")
            .into()),
        (PullPolicy::Newer, Some(image)) => match pull(context, engine, reference).await {
            Err(failed) if failed.error.kind() == Kind::Image && failed.failure.is_absence() => {
                context.ui.warn(format!("{}; going on with the image that is there", failed.error));
                Ok(image)
            }
            other => other,
        },
        (PullPolicy::Missing | PullPolicy::Newer | PullPolicy::Always, _) => {
            pull(context, engine, reference).await
        }
    }
}

/// Pulls an image, with the credentials of the user's own clients; begins again where a transfer breaks off, gives up
/// on a registry that does not answer.
///
/// # Errors
/// [`Kind::Image`], with the engine's reason and what to do about it.
pub async fn pull(context: &Context, engine: &Engine, reference: &str) -> Result<Image, NotPulled> {
    let reference = Reference::parse(reference)?;
    let traits = engine.info().await?.traits;
    let who = credentials(context, &reference, traits.podman).await;
    let mut pauses = PAUSES.iter();
    loop {
        let (failed, began) = match attempt(context, engine, &reference, who.as_ref()).await {
            Ok(image) => return Ok(image),
            Err(failed) => failed,
        };
        let lasting = matches!(
            failed.failure,
            Failure::Full | Failure::Denied | Failure::NotFound | Failure::Untrusted
        );
        match pauses.next().filter(|_| began && !lasting) {
            Some(&pause) => {
                context.ui.warn(format!("{}; trying again in {} s", failed.error, pause.as_secs()));
                tokio::time::sleep(pause).await;
            }
            None => {
                let hints = hints(failed.failure, &reference, traits.podman, traits.rootless, who.is_some());
                let error = hints.into_iter().fold(failed.error, Error::hint);
                return Err(NotPulled { failure: failed.failure, error });
            }
        }
    }
}

/// Those of the user's own clients for a registry, if there are any.
pub(super) async fn credentials(
    context: &Context,
    reference: &Reference,
    podman: bool,
) -> Option<Credentials> {
    let found = registry::credentials(reference, podman).await;
    let mut who = None;
    if let Some(found) = found {
        match found.credentials {
            Ok(credentials) => {
                context.ui.verbose(format!("with the credentials in `{}`", found.file.display()));
                who = Some(credentials);
            }
            Err(reason) => {
                let place = if found.file.as_os_str().is_empty() {
                    String::new()
                } else {
                    format!(" in `{}`", found.file.display())
                };
                let registry = reference.registry();
                context.ui.warn(format!(
                    "cannot use the credentials for `{registry}`{place}: {reason}; asking without"
                ));
            }
        }
    }
    who
}

/// One attempt; where it fails, also whether the transfer had begun.
async fn attempt(
    context: &Context,
    engine: &Engine,
    reference: &Reference,
    who: Option<&Credentials>,
) -> Result<Image, (NotPulled, bool)> {
    let name = reference.to_string();
    context.ui.status(format!("pulling `{name}`"));
    let transfer = RefCell::new(context.ui.transfer(name.clone()));
    let heard = Cell::new((ANSWER_TIMEOUT, Instant::now()));
    let began = Cell::new(false);
    let pulling = engine.pull(&name, who, |event| {
        began.set(began.get() || event.layer.is_some());
        let mut transfer = transfer.borrow_mut();
        show(context, &mut transfer, event);
        let limit = if transfer.is_complete() { STORING_TIMEOUT } else { SILENCE_TIMEOUT };
        heard.set((limit, Instant::now()));
    });
    let failed = |error: Error, failure: Failure| (NotPulled { failure, error }, began.get());
    tokio::select! {
        pulled = pulling => pulled.map_err(|(error, reason)| failed(error, Failure::of(&reason)))?,
        limit = silence(&heard) => {
            let what = format!("cannot pull `{name}`: nothing was heard for {} s", limit.as_secs());
            let failure = if began.get() { Failure::Other } else { Failure::Unreachable };
            return Err(failed(Error::new(Kind::Image, what), failure));
        }
    }
    let image = super::present(engine, &name).await.map_err(|error| failed(error, Failure::Other))?;
    context.ui.status(format!("pulled `{name}`: {}", transfer.borrow().summary()));
    Ok(image)
}

/// Ends when nothing was heard for as long as is said there, which is returned.
pub(super) async fn silence(heard: &Cell<(Duration, Instant)>) -> Duration {
    loop {
        let (limit, last) = heard.get();
        match limit.checked_sub(last.elapsed()) {
            Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
            _ => return limit,
        }
    }
}

fn show(context: &Context, transfer: &mut Transfer, event: PullEvent<'_>) {
    let (current, total) = (event.current, event.total);
    let phase = match event.status {
        "Pulling fs layer" | "Waiting" => Phase::Waiting,
        "Downloading" => Phase::Receiving { current, total },
        "Extracting" => Phase::Unpacking { current, total },
        "Download complete" | "Pull complete" | "Already exists" => Phase::Received,
        other => return context.ui.verbose(other),
    };
    if let Some(layer) = event.layer {
        transfer.layer(layer, phase);
        if total == 0 {
            context.ui.verbose(format!("{layer}: {}", event.status));
        }
    }
}

/// What the user can do.
pub(super) fn hints(
    failure: Failure,
    reference: &Reference,
    podman: bool,
    rootless: bool,
    known: bool,
) -> Vec<String> {
    let registry = reference.registry();
    let client = if podman { "podman" } else { "docker" };
    let login = if known {
        format!(
            "the registry refuses the credentials that are there; log in again: `{client} login {registry}`"
        )
    } else {
        format!("log in: `{client} login {registry}`")
    };
    let certificates = match (podman, rootless) {
        (false, _) => "/etc/docker/certs.d",
        (true, false) => "/etc/containers/certs.d",
        (true, true) => "~/.config/containers/certs.d",
    };
    match failure {
        Failure::Denied => vec![login],
        Failure::NotFound if known => {
            vec!["check its name and tag, and that your account may have it".into()]
        }
        Failure::NotFound => vec!["check its name and tag".into(), format!("if it is private, {login}")],
        Failure::Unreachable => {
            vec!["check the registry's name and the network; behind a proxy, it is the engine that must know it".into()]
        }
        Failure::Untrusted => vec![format!(
            "check the certificate; if the registry has a CA of its own, put the CA's where the engine looks, \
             `{certificates}/{registry}/ca.crt`"
        )],
        Failure::Plain if podman => {
            vec![format!(
                "allow it in `registries.conf`: [[registry]] location = \"{registry}\", insecure = true"
            )]
        }
        Failure::Plain => {
            vec![format!("allow it in the daemon's configuration: \"insecure-registries\": [\"{registry}\"]")]
        }
        Failure::Full => {
            vec![format!("make room: `{client} system df` shows what takes it, `{client} image prune` helps")]
        }
        Failure::Corrupt => vec!["nothing of it was kept; tell whoever runs the registry".into()],
        Failure::Other => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_say() {
        for (reason, failure) in [
            ("Get \"https://r:5701/v2/\": x509: certificate signed by unknown authority", Failure::Untrusted),
            ("Head \"https://r:5702/v2/t/root/manifests/1\": no basic auth credentials", Failure::Denied),
            ("unauthorized: authentication required", Failure::Denied),
            (
                "manifest for r:5702/t/root:nope not found: manifest unknown: manifest unknown",
                Failure::NotFound,
            ),
            (
                "pull access denied for x, repository does not exist or may require 'docker login'",
                Failure::NotFound,
            ),
            ("Get \"https://r:5703/v2/\": http: server gave HTTP response to HTTPS client", Failure::Plain),
            (
                "Get \"https://r/v2/\": dial tcp 10.0.0.1:443: connect: connection refused",
                Failure::Unreachable,
            ),
            ("Get \"https://r/v2/\": dial tcp: lookup r on 10.0.0.1:53: no such host", Failure::Unreachable),
            ("filesystem layer verification failed for digest sha256:00", Failure::Corrupt),
            (
                "writing blob: storing blob to file: Digest did not match, expected sha256:0, got sha256:1",
                Failure::Corrupt,
            ),
            ("failed to register layer: write /x: no space left on device", Failure::Full),
            ("toomanyrequests: You have reached your pull rate limit", Failure::Denied),
            ("mkdir /var/lib/docker: permission denied", Failure::Other),
            ("unexpected EOF", Failure::Other),
        ] {
            assert_eq!(Failure::of(reason), failure, "{reason}");
        }
    }

    #[test]
    fn hints_name_the_engines_own_client_and_directories() {
        let reference = Reference::parse("r.example:5000/x:1").unwrap();
        let one =
            |failure, podman, rootless, known| hints(failure, &reference, podman, rootless, known).join("; ");
        assert_eq!(one(Failure::Denied, false, false, false), "log in: `docker login r.example:5000`");
        assert!(one(Failure::Denied, true, true, true).contains("again: `podman login r.example:5000`"));
        assert!(
            one(Failure::Untrusted, false, false, false)
                .contains("`/etc/docker/certs.d/r.example:5000/ca.crt`")
        );
        assert!(
            one(Failure::Untrusted, true, true, false)
                .contains("`~/.config/containers/certs.d/r.example:5000/ca.crt`")
        );
    }
}
