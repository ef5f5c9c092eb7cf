//! Images to their registries: what may go there, under which names, in which order.

use std::cell::Cell;
use std::time::Instant;

use super::plan::ALLOWED_LABEL;
use super::pull::{Failure, SILENCE_TIMEOUT, STORING_TIMEOUT, credentials, hints, silence};
use crate::adapters::engine::{Engine, Image};
use crate::adapters::registry::Credentials;
use crate::catalog::{Reference, Vertical};
use crate::context::Context;
use crate::error::{Error, Kind, Result};

/// The tag of what was pushed last.
const LATEST: &str = "latest";
/// What it has before that, where it is the catalog's tag too.
const STABLE: &str = "stable";

/// What a registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The vertical's name.
    pub vertical: String,
    /// Without a tag.
    pub repository: String,
    /// `sha256:…`, of the manifest.
    pub digest: String,
    /// All tags that lead to it.
    pub tags: Vec<String>,
}

/// Pushes the images of verticals as their catalog names them, and as `latest`, or `stable` where it calls them that; ours with their version, too. All other tags come before the first
/// image gets its catalog's, the one that others pull: so what breaks off leaves that where it was. Or all of them under `tag` alone.
///
/// # Errors
/// [`Kind::Image`] where one is not there, lacks tools without `allow_missing`, or does not arrive, with the engine's reason;
/// [`Kind::Config`] where one has no registry.
pub async fn push(
    context: &Context,
    engine: &Engine,
    verticals: &[&Vertical],
    tag: Option<&str>,
    allow_missing: bool,
) -> Result<Vec<Pushed>> {
    let mut images = Vec::new();
    for vertical in verticals {
        images.push(pushable(engine, vertical, allow_missing).await?);
    }
    let traits = engine.info().await?.traits;
    let mut pushed: Vec<Pushed> = Vec::new();
    for last in [false, true] {
        for (vertical, image) in verticals.iter().zip(&images) {
            for tag in tags(vertical, tag).iter().filter(|tag| (**tag == vertical.tag) == last) {
                let reference = Reference::parse(&format!("{}:{tag}", vertical.repository))?;
                let who = credentials(context, &reference, traits.podman).await;
                let limit = if traits.podman { STORING_TIMEOUT } else { SILENCE_TIMEOUT };
                let named =
                    named(context, engine, &vertical.repository, image, tag, who.as_ref(), limit).await;
                let digest = named.map_err(|(error, failure)| {
                    let hints = hints(failure, &reference, traits.podman, traits.rootless, who.is_some());
                    hints.into_iter().fold(error, Error::hint)
                })?;
                context.ui.status(format!("pushed `{reference}`: {digest}"));
                match pushed.iter_mut().find(|one| one.vertical == vertical.name) {
                    Some(before) if before.digest == digest => before.tags.push(tag.clone()),
                    Some(before) => {
                        let what =
                            format!("`{reference}` is {digest} now, and was {} a moment ago", before.digest);
                        return Err(
                            Error::new(Kind::Image, what).hint("somebody else builds the same; try again")
                        );
                    }
                    None => pushed.push(Pushed {
                        vertical: vertical.name.clone(),
                        repository: vertical.repository.clone(),
                        digest,
                        tags: vec![tag.clone()],
                    }),
                }
            }
        }
    }
    Ok(pushed)
}

/// The one that others pull comes last.
fn tags(vertical: &Vertical, alone: Option<&str>) -> Vec<String> {
    if let Some(tag) = alone {
        return vec![tag.to_owned()];
    }
    let version = vertical.directory.is_none().then_some(env!("CARGO_PKG_VERSION"));
    let other = if vertical.tag == LATEST { STABLE } else { LATEST };
    version.into_iter().chain([other, &vertical.tag]).map(str::to_owned).collect()
}

async fn pushable(engine: &Engine, vertical: &Vertical, allow_missing: bool) -> Result<Image> {
    let name = &vertical.name;
    if vertical.is_local() {
        return Err(Error::new(Kind::Config, format!("`{name}` has no registry")).hint(
            "name one at the head of `.tazpod/catalog.toml`: registry = \"registry.example.com/team\"",
        ));
    }
    let reference = vertical.reference();
    let image = engine.image(&reference).await?.ok_or_else(|| {
        Error::new(Kind::Image, format!("`{reference}` is not there"))
            .hint(format!("build it: `tazpod build {name}`"))
    })?;
    if !allow_missing && image.labels.get(ALLOWED_LABEL).is_some_and(|allowed| allowed == "true") {
        return Err(Error::new(Kind::Image, format!("the image of `{name}` may lack tools"))
            .hint(format!("build it whole: `tazpod build {name}`; or push it as it is: `--allow-missing`")));
    }
    Ok(image)
}

/// Pushes under one name, which the engine gives and takes away again where it had none of it.
pub(super) async fn named(
    context: &Context,
    engine: &Engine,
    repository: &str,
    image: &Image,
    tag: &str,
    who: Option<&Credentials>,
    limit: std::time::Duration,
) -> Result<String, (Error, Failure)> {
    let name = format!("{repository}:{tag}");
    let other = |error: Error| (error, Failure::Other);
    let before = engine.image(&name).await.map_err(other)?;
    let is_new = before.as_ref().is_none_or(|before| before.id != image.id);
    let restore = || restore(engine.clone(), name.clone(), before.as_ref().map(|before| before.id.clone()));
    let armed = is_new.then(|| {
        let restoring = restore();
        context.arm(async move {
            // The failure that led here is the one to report.
            let _ = restoring.await;
        })
    });
    if is_new {
        engine.tag(&image.id, repository, tag).await.map_err(other)?;
    }
    let step = context.ui.step(format!("pushing `{name}`"));
    let heard = Cell::new((limit, Instant::now()));
    let pushed = tokio::select! {
        pushed = engine.push(repository, tag, who, || heard.set((limit, Instant::now()))) => {
            pushed.map_err(|(error, reason)| (error, Failure::of(&reason)))
        }
        limit = silence(&heard) => {
            let what = format!("cannot push `{name}`: nothing was heard for {} s", limit.as_secs());
            Err((Error::new(Kind::Image, what), Failure::Unreachable))
        }
    };
    drop(step);
    let restored = if is_new { restore().await } else { Ok(()) };
    if let Some(armed) = armed {
        context.disarm(armed);
    }
    let digest = pushed?;
    restored.map_err(other)?;
    Ok(digest)
}

/// Gives a name back to the image that had it, or takes it away.
async fn restore(engine: Engine, name: String, before: Option<String>) -> Result<()> {
    match (before, name.rsplit_once(':')) {
        (Some(before), Some((repository, tag))) => engine.tag(&before, repository, tag).await,
        _ => engine.remove_image(&name, false).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn the_tag_that_others_pull_comes_last() {
        let catalog = Catalog::builtin().unwrap();
        let ours = catalog.find("base").unwrap();
        assert_eq!(tags(ours, None), [env!("CARGO_PKG_VERSION"), "latest", "stable"]);
        let mut own = ours.clone();
        own.directory = Some("/w/.tazpod/own".into());
        assert_eq!(tags(&own, None), ["latest", "stable"]);
        own.tag = "latest".into();
        assert_eq!(tags(&own, None), ["stable", "latest"]);
        assert_eq!(tags(&own, Some("next")), ["next"]);
    }
}
