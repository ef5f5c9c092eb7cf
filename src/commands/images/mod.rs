mod affected;
mod drawing;
mod verify;

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde::Serialize;

use crate::adapters::engine::{Engine, Image, InRegistry};
use crate::build::{self, Options};
use crate::catalog::{Catalog, Origin, Vertical};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::workspace;
use crate::ui;

/// Show the tree of verticals, which of their images the engine has, and which of those are outdated.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// How to show it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Ask the registries for what the engine does not have, and Docker's for what they have instead.
    #[arg(long)]
    remote: bool,
    /// Report as JSON: `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(verify::Args),
    Affected(affected::Args),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Tree,
    /// A flowchart of Mermaid's; asks no engine.
    Mermaid,
    /// A graph of Graphviz's; asks no engine.
    Dot,
    /// For programs.
    Json,
}

#[derive(Serialize)]
struct Report {
    version: u32,
    images: Vec<ImageReport>,
}

#[derive(Serialize)]
struct ImageReport {
    vertical: String,
    parent: Option<String>,
    reference: String,
    summary: String,
    /// `built` or `foreign`.
    origin: &'static str,
    /// `local`, `outdated`, `remote`, `missing` or `unknown`.
    state: &'static str,
    /// Why it is outdated.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<i64>,
}

/// What is known of an image.
#[derive(Clone, Debug)]
enum State {
    Local(Image),
    /// A build or a pull would bring another, for this reason.
    Outdated(Image, &'static str),
    /// The registry has it.
    Remote,
    Missing,
    Unknown,
}

impl Args {
    /// Draws the tree, or reports it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Some(Command::Verify(args)) => return args.run(context).await,
            Some(Command::Affected(args)) => return args.run(context).await,
            None => {}
        }
        let catalog = Catalog::of(workspace::project().as_deref())?;
        if self.remote && matches!(self.format, Format::Mermaid | Format::Dot) {
            return Err(Error::new(Kind::Usage, "graphs do not show where images are")
                .hint("`tazpod images --remote` does, and with `--format json`"));
        }
        match self.format {
            Format::Mermaid => return context.ui.data(drawing::mermaid(&catalog)),
            Format::Dot => return context.ui.data(drawing::dot(&catalog)),
            Format::Tree | Format::Json => {}
        }
        let mut states = states(context, &catalog).await;
        if self.remote {
            find_remote(context, &catalog, &mut states).await?;
        }
        let with_state = |vertical: &Vertical| {
            let index = catalog.verticals().iter().position(|other| other == vertical);
            index.and_then(|index| states.get(index)).cloned().unwrap_or(State::Unknown)
        };
        if self.json || self.format == Format::Json {
            let images = catalog.verticals().iter().map(|vertical| report(vertical, with_state(vertical)));
            return context.ui.json(&Report { version: 1, images: images.collect() });
        }
        let rows: Vec<[String; 4]> = drawing::tree(&catalog)
            .into_iter()
            .map(|(drawn, vertical)| match vertical {
                None => [drawn, String::new(), String::new(), String::new()],
                Some(vertical) => {
                    let (state, size) = match with_state(vertical) {
                        State::Local(image) => ("local", ui::size(image.size)),
                        State::Outdated(image, _) => ("outdated", ui::size(image.size)),
                        State::Remote => ("remote", String::new()),
                        State::Missing => ("missing", String::new()),
                        State::Unknown => ("unknown", String::new()),
                    };
                    [drawn, state.to_owned(), size, vertical.summary.clone()]
                }
            })
            .collect();
        context.ui.data(ui::table(["VERTICAL", "IMAGE", "SIZE", "SUMMARY"], &rows))
    }
}

/// In the catalog's order. Without an engine there still is a tree to draw.
async fn states(context: &Context, catalog: &Catalog) -> Vec<State> {
    let engine = match context.engine() {
        Ok(engine) => engine,
        Err(error) => {
            context.ui.warn(format!("{error}; which images are there is not known"));
            return Vec::new();
        }
    };
    let found = join_all(catalog.verticals().iter().map(|vertical| state(&engine, vertical))).await;
    let mut warned = false;
    let mut known: Vec<State> = found
        .into_iter()
        .map(|found| {
            found.unwrap_or_else(|error| {
                if !std::mem::replace(&mut warned, true) {
                    context.ui.warn(format!("{error}; which images are there is not known"));
                }
                State::Unknown
            })
        })
        .collect();
    if !warned && let Err(error) = find_outdated(catalog, &engine, &mut known).await {
        context.ui.warn(format!("{error}; which images are outdated is not known"));
    }
    known
}

/// Those whose parents are here, too: what was pulled alone is as its registry has it.
async fn find_outdated(catalog: &Catalog, engine: &Engine, known: &mut [State]) -> Result<()> {
    let verticals = catalog.verticals();
    let here = |name: &str, known: &[State]| {
        let of = verticals.iter().zip(known).find(|(vertical, _)| vertical.name == name);
        of.is_some_and(|(_, state)| matches!(state, State::Local(_)))
    };
    let mut whole = Vec::new();
    for vertical in verticals.iter().filter(|vertical| vertical.origin == Origin::Built) {
        if catalog.chain(vertical).iter().all(|member| here(&member.name, known)) {
            whole.push(vertical);
        }
    }
    // Tools that were left out with permission do not make it so.
    let options = Options { allow_missing: true, ..Options::default() };
    for step in build::plan(catalog, engine, &whole, options).await? {
        let of = verticals.iter().zip(&mut *known).find(|(vertical, _)| *vertical == step.vertical);
        if let Some((_, state)) = of
            && let State::Local(image) = state.clone()
        {
            *state = State::Outdated(image, step.reason.describe());
        }
    }
    Ok(())
}

/// Of those that the engine does not have, those that their registries have; of those that went there or came from there, those that
/// they have another of by now. Podman asks them for tags alone.
async fn find_remote(context: &Context, catalog: &Catalog, known: &mut [State]) -> Result<()> {
    let engine = context.engine()?;
    let info = engine.info().await?;
    let mut registries: BTreeMap<String, Vec<(usize, &Vertical)>> = BTreeMap::new();
    for (at, (vertical, state)) in catalog.verticals().iter().zip(&*known).enumerate() {
        let is_asked = match state {
            State::Missing => true,
            State::Local(image) => !info.traits.podman && digests(vertical, image).next().is_some(),
            _ => false,
        };
        if is_asked && !vertical.is_local() {
            let registry = vertical.repository.split('/').next().unwrap_or_default();
            registries.entry(registry.to_owned()).or_default().push((at, vertical));
        }
    }
    let _step = context.ui.step("asking the registries");
    let asked = registries.into_values().map(|of_one| {
        let engine = &engine;
        let info = &info;
        async move {
            let verticals: Vec<&Vertical> = of_one.iter().map(|(_, vertical)| *vertical).collect();
            let found = build::in_registry(context, engine, info, &verticals).await;
            of_one.into_iter().zip(found).collect::<Vec<_>>()
        }
    });
    for ((at, vertical), found) in join_all(asked).await.into_iter().flatten() {
        let Some(state) = known.get_mut(at) else { continue };
        *state = match (&*state, found) {
            (State::Local(image), Some(InRegistry::Image(Some(digest))))
                if digests(vertical, image).all(|here| here != digest) =>
            {
                State::Outdated(image.clone(), "the registry has another")
            }
            (State::Local(_), _) => continue,
            (_, Some(InRegistry::Image(_))) => State::Remote,
            (_, Some(InRegistry::Nothing)) => State::Missing,
            (_, None) => State::Unknown,
        };
    }
    Ok(())
}

/// Those that an image has in its registry. Where its id is its manifest's digest (containerd's store), it has that from the start.
fn digests<'a>(vertical: &Vertical, image: &'a Image) -> impl Iterator<Item = &'a str> {
    let named = image.digests.iter().filter_map(|name| name.split_once('@'));
    named
        .filter(|(repository, digest)| *repository == vertical.repository && *digest != image.id)
        .map(|(_, digest)| digest)
}

async fn state(engine: &Engine, vertical: &Vertical) -> Result<State> {
    Ok(engine.image(&vertical.reference()).await?.map_or(State::Missing, State::Local))
}

fn report(vertical: &Vertical, state: State) -> ImageReport {
    let (name, image, reason) = match state {
        State::Local(image) => ("local", Some(image), None),
        State::Outdated(image, reason) => ("outdated", Some(image), Some(reason)),
        State::Remote => ("remote", None, None),
        State::Missing => ("missing", None, None),
        State::Unknown => ("unknown", None, None),
    };
    ImageReport {
        vertical: vertical.name.clone(),
        parent: vertical.parent.clone(),
        reference: vertical.reference(),
        summary: vertical.summary.clone(),
        origin: match vertical.origin {
            Origin::Built => "built",
            Origin::Foreign => "foreign",
        },
        state: name,
        reason,
        id: image.as_ref().map(|image| image.id.clone()),
        size: image.map(|image| image.size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_stable_names() {
        let catalog = Catalog::builtin().unwrap();
        let json = serde_json::to_value(report(catalog.find("jupyter").unwrap(), State::Missing)).unwrap();
        assert_eq!(json["vertical"], "jupyter");
        assert_eq!(json["parent"], "nvidia-python");
        assert_eq!((json["origin"].as_str(), json["state"].as_str()), (Some("built"), Some("missing")));
        assert!(json.get("id").is_none());
    }
}
