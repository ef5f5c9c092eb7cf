//! Images from the catalog: plan, context, build, verify, pull.

mod affected;
mod annotations;
mod context;
mod log;
mod mirror;
mod plan;
mod pull;
mod push;
mod remote;
mod rootfs;
mod sif;
mod verify;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::adapters::certificates;
use crate::adapters::engine::{self, CAPABILITIES, Endpoint, Engine, Helper, Image};
use crate::catalog::{Catalog, Origin, PROJECT_CATALOG, Reference, Vertical};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::builds;
use crate::pod::spec::label;
use crate::ui;
pub use affected::affected;
use context::Sources;
use log::BuildLog;
use plan::{ALLOWED_LABEL, CONTEXT_LABEL, DIRECTORY_LABEL, Existing, PARENT_LABEL, ROOT, Wanted};
pub use plan::{Reason, Step};
pub use pull::{PullPolicy, ensure_reference};
pub use push::{Pushed, push};
pub use remote::in_registry;
pub use sif::convert;
pub use verify::{Finding, State, ToolReport};

/// What the tree of verticals stands on, where a registry is in reach.
const ROOT_IMAGE: &str = "docker.io/library/ubuntu:24.04";
/// The agent's path in images of the catalog.
const AGENT_PATH: &str = "/usr/local/bin/tazpod";
/// The argument of Containerfiles that may leave tools out.
const ALLOW_MISSING: &str = "ALLOW_MISSING";
/// The name of images that are not verified yet.
const TEMPORARY: &str = "localhost/tazpod-build";
/// How many images are built at once: each is at work on one thing at a time, often a download.
const AT_ONCE: usize = 4;
/// Where a check that is a step of a build leaves what it says.
const SAID: &str = "/tazpod-said";
/// How long an interrupted builder may be at its last step, which is a short one.
const LAST_STEP: Duration = Duration::from_secs(1);

/// How to build.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Even if nothing changed, and every step of it.
    pub force: bool,
    /// On a root filesystem that is bootstrapped now.
    pub rootfs: bool,
    /// Without the tools that cannot be fetched.
    pub allow_missing: bool,
    /// The repository of a registry in which what steps made is looked for, and kept.
    pub cache: Option<&'a Reference>,
}

/// The image of a vertical: what is there, or pulled, or built, as `policy` and the registry have it.
///
/// # Errors
/// [`Kind::Image`] where none of these works out.
pub async fn ensure(
    context: &Context,
    engine: &Engine,
    catalog: &Catalog,
    vertical: &Vertical,
    policy: PullPolicy,
    options: Options<'_>,
) -> Result<Image> {
    let reference = vertical.reference();
    if vertical.is_local() && policy != PullPolicy::Never {
        // No registry has it: what is there, or what its sources make now.
        return match engine.image(&reference).await? {
            Some(image) if policy == PullPolicy::Missing => {
                not_anothers(vertical, &image)?;
                Ok(image)
            }
            _ => {
                build(context, engine, catalog, &[vertical], options).await?;
                present(engine, &reference).await
            }
        };
    }
    let failed = match ensure_reference(context, engine, &reference, policy).await {
        Ok(image) => {
            not_anothers(vertical, &image)?;
            return Ok(image);
        }
        Err(failed) => failed,
    };
    let (absent, error) = (failed.failure.is_absence(), failed.error);
    let may_build = absent && matches!(policy, PullPolicy::Missing | PullPolicy::Newer);
    if error.kind() != Kind::Image || !may_build || vertical.origin != Origin::Built {
        let name = &vertical.name;
        return Err(match vertical.origin {
            _ if error.kind() != Kind::Image => error,
            Origin::Built if absent => error.hint(format!("build it: `tazpod build {name}`")),
            _ => error,
        });
    }
    context.ui.status(format!("{error}; building it"));
    build(context, engine, catalog, &[vertical], options).await?;
    present(engine, &reference).await
}

/// The directory of what only this machine has.
fn own_directory(vertical: &Vertical) -> Option<String> {
    vertical.directory.as_ref().filter(|_| vertical.is_local()).map(|own| own.to_string_lossy().into_owned())
}

/// Of two projects' verticals of one name, the images have one name, too.
fn not_anothers(vertical: &Vertical, image: &Image) -> Result<()> {
    let (Some(other), Some(own)) = (image.labels.get(DIRECTORY_LABEL), own_directory(vertical)) else {
        return Ok(());
    };
    let context = Sources::of(vertical)?.map(|sources| sources.hash());
    if *other == own || image.labels.get(CONTEXT_LABEL) == context.as_ref() {
        return Ok(());
    }
    let (name, reference) = (&vertical.name, vertical.reference());
    Err(Error::new(
        Kind::Image,
        format!("`{reference}` is the image of another project's `{name}`, of `{other}`"),
    )
    .hint(format!("give this project's images a `tag` of their own in `{PROJECT_CATALOG}`"))
    .hint(format!("where that project has moved here, or is not needed: `tazpod build {name}`")))
}

async fn present(engine: &Engine, reference: &str) -> Result<Image> {
    engine
        .image(reference)
        .await?
        .ok_or_else(|| Error::new(Kind::Image, format!("`{reference}` is not there, though it should be")))
}

/// What [`build`] would do.
///
/// # Errors
/// [`Kind::Image`] where something in the chain cannot be built; the engine's own.
pub async fn plan<'a>(
    catalog: &'a Catalog,
    engine: &Engine,
    verticals: &[&'a Vertical],
    options: Options<'_>,
) -> Result<Vec<Step<'a>>> {
    let chains = verticals.iter().flat_map(|vertical| catalog.chain(vertical));
    let references: BTreeSet<String> = chains.map(Vertical::reference).collect();
    let references = Vec::from_iter(references);
    let found = engine.images(&references).await?.into_iter();
    let found = found.map(|image| image.map(|image| Existing { id: image.id, labels: image.labels }));
    let existing: HashMap<String, Option<Existing>> = references.into_iter().zip(found).collect();
    let wanted = Wanted {
        agent: crate::BUILD,
        sources: Sources::of,
        force: options.force,
        rootfs: options.rootfs,
        allow_missing: options.allow_missing,
    };
    plan::plan(catalog, verticals, |reference| existing.get(reference).cloned().flatten(), wanted)
}

/// Builds the images of verticals and of all that they stand on, as far as they are not current: parents first, others at
/// once. What was found of the tools of those that were built now is by the vertical's name.
///
/// # Errors
/// [`Kind::Image`] where one cannot be built, with the step that failed: that one is not tagged then, and what is at work beside it
/// is built to its end, and nothing more.
pub async fn build(
    context: &Context,
    engine: &Engine,
    catalog: &Catalog,
    verticals: &[&Vertical],
    options: Options<'_>,
) -> Result<HashMap<String, Vec<Finding>>> {
    let _lock =
        context.state()?.lock("build", || context.ui.status("another build is at work: waiting")).await?;
    let mut waiting = VecDeque::from(plan(catalog, engine, verticals, options).await?);
    let mut findings = HashMap::new();
    if waiting.is_empty() {
        return Ok(findings);
    }
    let info = engine.info().await?;
    let agent = &own_executable(&info.architecture)?;
    let mut at_work: Vec<&str> = Vec::new();
    let mut builds = FuturesUnordered::new();
    let mut failed: Vec<(&str, Kind)> = Vec::new();
    loop {
        while failed.is_empty() && builds.len() < AT_ONCE {
            let ready = waiting.iter().position(|step| {
                step.vertical.parent.as_deref().is_none_or(|parent| {
                    !at_work.contains(&parent) && waiting.iter().all(|other| other.vertical.name != parent)
                })
            });
            let Some(step) = ready.and_then(|ready| waiting.remove(ready)) else { break };
            let (name, buildkit, version) = (&step.vertical.name, !info.traits.podman, info.traits.version);
            at_work.push(name);
            builds.push(async move {
                let log = context.state().and_then(|state| state.log(&format!("build-{name}")));
                let log = log.and_then(|path| BuildLog::create(&context.ui, name, path));
                let begun =
                    log.map(|log| Builder { context, engine, catalog, log, options, buildkit, version });
                match begun {
                    Ok(builder) => (name, builder.build(&step, agent).await),
                    Err(error) => (name, Err(error)),
                }
            });
        }
        let Some((name, built)) = builds.next().await else { break };
        at_work.retain(|other| other != name);
        match built {
            Ok(found) => drop(findings.insert(name.clone(), found)),
            Err(error) if at_work.is_empty() && failed.is_empty() => return Err(error),
            // The others may take long.
            Err(error) => {
                failed.push((name, error.kind()));
                context.ui.error(&error);
                if !at_work.is_empty() {
                    context
                        .ui
                        .status(format!("what is at work goes on: {}", quoted(at_work.iter().copied())));
                }
            }
        }
    }
    match failed.first() {
        None => Ok(findings),
        Some((_, kind)) => {
            Err(Error::new(*kind, format!("did not build: {}", quoted(failed.iter().map(|(name, _)| *name)))))
        }
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The bytes of this program, which is also the agent, where the engine's machine can run it.
fn own_executable(architecture: &str) -> Result<Vec<u8>> {
    let own = engine::oci_architecture(std::env::consts::ARCH);
    if own != architecture {
        return Err(Error::new(
            Kind::Image,
            format!("this tazpod is for {own}, and the engine's machine is {architecture}"),
        )
        .hint("build on such a machine, or pull the image"));
    }
    // The link leads to the file that runs, even where another has taken its name since.
    let path = "/proc/self/exe".as_ref();
    std::fs::read(path).map_err(|source| Error::io("read", path, source))
}

/// What an image stands on.
struct Below {
    /// By this argument of the Containerfile …
    argument: &'static str,
    /// … and this reference.
    reference: String,
    /// Recorded under this label …
    label: &'static str,
    /// … as this.
    id: String,
}

/// One build of one image.
struct Builder<'a> {
    context: &'a Context,
    engine: &'a Engine,
    catalog: &'a Catalog,
    log: BuildLog,
    options: Options<'a>,
    buildkit: bool,
    version: (u32, u32),
}

impl Builder<'_> {
    async fn build(mut self, step: &Step<'_>, agent: &[u8]) -> Result<Vec<Finding>> {
        let started = Instant::now();
        let (context, engine, vertical) = (self.context, self.engine, step.vertical);
        let reference = vertical.reference();
        context.ui.status(format!("building `{}` ({})", vertical.name, step.reason.describe()));
        let below = self.below(step).await?;
        let previous = engine.image(&reference).await?;
        let other = previous.as_ref().and_then(|previous| previous.labels.get(DIRECTORY_LABEL));
        if let Some(other) = other.filter(|other| own_directory(vertical).is_some_and(|own| own != **other)) {
            context.ui.warn(format!("`{reference}` was the image of another project, of `{other}`"));
        }

        let tag = format!("{}-{}", vertical.name, std::process::id());
        let temporary = format!("{TEMPORARY}:{tag}");
        // A name that no registry has: BuildKit asks there first, would take another image of the same name, and knows no ids. Podman takes
        // ids; of two names that an image gets at once it forgets one.
        let standing = format!("{temporary}-below");

        let building = Arc::new(AtomicBool::new(true));
        let armed = context.arm({
            let (engine, building) = (engine.clone(), building.clone());
            let (temporary, standing) = (temporary.clone(), standing.clone());
            async move {
                let remove = async || {
                    // The error that counts is the one that led here.
                    let _ = engine.remove_image(&standing, false).await;
                    let _ = engine.remove_image(&temporary, true).await;
                };
                remove().await;
                if building.load(Ordering::Relaxed) {
                    // Podman ends the step that it is at, which may be the one that gives the name.
                    tokio::time::sleep(LAST_STEP).await;
                    remove().await;
                }
            }
        });
        let mut labels = HashMap::new();
        let mut arguments = HashMap::new();
        if let Some(below) = &below {
            let from = if self.buildkit {
                engine.tag(&below.reference, TEMPORARY, &format!("{tag}-below")).await?;
                standing.clone()
            } else {
                present(engine, &below.reference).await?.id.trim_start_matches("sha256:").to_owned()
            };
            self.log.show_as(&from, &below.reference);
            arguments.insert(below.argument.to_owned(), from);
            labels.insert(below.label.to_owned(), below.id.clone());
        }
        let base = below.as_ref().map(|below| below.reference.as_str());
        labels.extend(annotations::of(vertical, &step.sources, base));
        if let Some(directory) = own_directory(vertical) {
            labels.insert(DIRECTORY_LABEL.into(), directory);
        }
        labels.insert(CONTEXT_LABEL.into(), step.sources.hash());
        if step.sources.carries_agent {
            labels.insert(label::AGENT.into(), crate::BUILD.into());
            labels.insert(label::AGENT_PATH.into(), AGENT_PATH.into());
        }
        if self.options.allow_missing && step.sources.takes(ALLOW_MISSING) {
            // Another value each day, so that what could not be fetched once is tried again.
            let day =
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / (24 * 60 * 60);
            arguments.insert(ALLOW_MISSING.to_owned(), day.to_string());
            labels.insert(ALLOWED_LABEL.into(), "true".into());
        }
        let host_ca = if step.sources.wants_host_ca { certificates::of_host() } else { String::new() };
        // Podman, and what its client writes, know others for parts of a registry.
        let buildkit = self.buildkit;
        let place = |reference: &Reference| match buildkit {
            true => reference.registry().to_owned(),
            false => reference.repository(),
        };
        let mut credentials = HashMap::new();
        for reference in self.options.cache.into_iter().chain(&step.sources.named()) {
            if let Entry::Vacant(unknown) = credentials.entry(place(reference)) {
                unknown.insert(pull::credentials(context, reference, !self.buildkit).await);
            }
        }
        let cache = self.options.cache.map(|cache| engine::Cache {
            repository: cache,
            name: &vertical.name,
            version: self.version,
        });
        let build = engine::Build {
            tag: &temporary,
            context: engine::BuildContext::Whole(step.sources.tar(agent, host_ca.as_bytes())?),
            arguments: &arguments,
            labels: &labels,
            fresh: step.reason == Reason::Forced,
            buildkit: self.buildkit,
            credentials: &credentials,
            cache,
        };
        let log = &mut self.log;
        let built = engine.build(build, |line| log.builder(line)).await;
        building.store(false, Ordering::Relaxed);
        let removed = match below {
            Some(_) if self.buildkit => engine.remove_image(&standing, false).await,
            _ => Ok(()),
        };
        built.map_err(|error| self.explain(error, step))?;
        removed?;
        let findings = self.verify(vertical, &temporary).await?;

        let image = present(engine, &temporary).await?;
        engine.tag(&temporary, &vertical.repository, &vertical.tag).await?;
        engine.remove_image(&temporary, false).await?;
        context.disarm(armed);
        if let Some(previous) = previous.filter(|previous| previous.id != image.id) {
            // A pod may still run on it: then it stays.
            let _ = engine.remove_nameless_image(&previous.id).await;
        }
        if let Some(cache) = cache.filter(|_| self.buildkit) {
            // Podman has kept each step when it was done.
            let (repository, name) = (cache.repository.repository(), &vertical.name);
            let who = credentials.get(&place(cache.repository)).and_then(Option::as_ref);
            let kept = push::named(context, engine, &repository, &image, name, who, pull::SILENCE_TIMEOUT);
            if let Err((error, failure)) = kept.await {
                let hints = pull::hints(failure, cache.repository, false, false, who.is_some());
                context.ui.warn(format!("what was built is not kept in the cache: {error}"));
                hints.into_iter().for_each(|hint| context.ui.hint(hint));
            }
        }
        let (size, seconds) = (ui::size(image.size), started.elapsed().as_secs());
        if !findings.is_empty() {
            context.ui.status(table(&findings));
        }
        context.ui.status(format!("built `{reference}`: {size}, {seconds} s"));
        Ok(findings)
    }

    /// What the image of a vertical stands on: its parent's, or a root that is there, or in a registry's
    /// reach, or else bootstrapped.
    async fn below(&mut self, step: &Step<'_>) -> Result<Option<Below>> {
        let (context, engine, vertical) = (self.context, self.engine, step.vertical);
        if let Some(parent) = &vertical.parent {
            let reference = self.catalog.find(parent)?.reference();
            let id = present(engine, &reference).await?.id;
            return Ok(Some(Below { argument: "PARENT", reference, label: PARENT_LABEL, id }));
        }
        if !step.sources.takes(ROOT) {
            return Ok(None);
        }
        let root = |reference: String| {
            Some(Below { argument: ROOT, id: reference.clone(), reference, label: label::ROOT })
        };
        let distribution = rootfs::distribution();
        let mut why = String::new();
        if !self.options.rootfs {
            for reference in [ROOT_IMAGE.to_owned(), distribution.reference()] {
                if engine.image(&reference).await?.is_some() {
                    return Ok(root(reference));
                }
            }
            match pull::pull(context, engine, ROOT_IMAGE).await {
                Ok(_) => return Ok(root(ROOT_IMAGE.to_owned())),
                Err(failed) if failed.error.kind() == Kind::Image && failed.failure.is_absence() => {
                    why = format!("{}; ", failed.error);
                }
                Err(failed) => return Err(failed.into()),
            }
        }
        let what = distribution.describe();
        context.ui.status(format!("{why}bootstrapping {what} from the distribution's mirror"));
        rootfs::bootstrap(context, engine, &mut self.log).await.map(root)
    }

    /// Runs the vertical's `verify` commands and the checks of its tools in the image.
    async fn verify(&mut self, vertical: &Vertical, image: &str) -> Result<Vec<Finding>> {
        self.log.end_step();
        let (context, log) = (self.context, &mut self.log);
        let hint = format!("the whole output is in `{}`", log.path().display());
        let findings = verified(context, self.engine, vertical, image, |line| log.detail(line)).await;
        let findings = findings.map_err(|error| match error.kind() {
            Kind::Image => {
                self.log.show_tail();
                error.hint(&hint)
            }
            _ => error,
        })?;
        match failures(vertical, &findings) {
            Some(error) => Err(error.hint(hint)),
            None => Ok(findings),
        }
    }

    fn explain(&self, error: Error, step: &Step<'_>) -> Error {
        let name = &step.vertical.name;
        let path = format!("the whole output is in `{}`", self.log.path().display());
        let left_out = self.log.left_out();
        let full = pull::Failure::of(&error.to_string()) == pull::Failure::Full;
        if !left_out.is_empty() && !self.options.allow_missing && error.kind() == Kind::Image && !full {
            let what = format!("cannot fetch all tools of `{name}`: {}", left_out.join("; "));
            return Error::new(error.kind(), what)
                .hint("build it without them: `--allow-missing`")
                .hint(path);
        }
        self.log.show_tail();
        let line = self.log.instruction().and_then(|instruction| step.sources.line_of(instruction));
        let line = line.map(|line| format!(" (line {line} of its Containerfile)")).unwrap_or_default();
        let at = self.log.step().map(|step| format!(", at step {step}{line}")).unwrap_or_default();
        let said = error.to_string();
        let silent = said.is_empty();
        let reason = if silent { "the engine does not say why".to_owned() } else { log::shortened(&said) };
        let error = Error::new(error.kind(), format!("the image of `{name}` did not build{at}: {reason}"));
        // Podman, where it cannot unpack the context.
        let error = if full || silent { error.hint("make room on the engine's disk") } else { error };
        error.hint(path)
    }
}

/// Runs the commands of a vertical and the checks of its tools in its image, which the engine has, as the pod's user and without a network.
///
/// # Errors
/// [`Kind::Image`] where the image is not there, or one of the vertical's commands fails in it.
pub async fn verify(context: &Context, engine: &Engine, vertical: &Vertical) -> Result<Vec<Finding>> {
    let (name, reference) = (&vertical.name, vertical.reference());
    if engine.image(&reference).await?.is_none() {
        return Err(Error::new(Kind::Image, format!("`{reference}` is not there"))
            .hint(format!("get or build it: `tazpod up {name}`, `tazpod build {name}`")));
    }
    verified(context, engine, vertical, &reference, |line| context.ui.verbose(line)).await
}

async fn verified(
    context: &Context,
    engine: &Engine,
    vertical: &Vertical,
    image: &str,
    said: impl FnMut(&str),
) -> Result<Vec<Finding>> {
    if vertical.verify.is_empty() && vertical.tools.is_empty() {
        // It may not even have a shell.
        return Ok(Vec::new());
    }
    let _step = context.ui.step(format!("verifying `{}`", vertical.name));
    if *engine.endpoint() == Endpoint::Unix(builds::SOCKET.into()) {
        return verified_by_a_step(context, engine, vertical, image, said).await;
    }
    let helper = Helper {
        image: image.to_owned(),
        user: Some(vertical.user.clone()),
        command: vec!["/bin/sh".into(), "-c".into(), verify::script(vertical)],
        capabilities: CAPABILITIES.to_vec(),
        ..Default::default()
    };
    let id = engine.create_helper(&helper).await?;
    let armed = context.arm({
        let (engine, id) = (engine.clone(), id.clone());
        async move {
            // The error that counts is the one that led here.
            let _ = engine.remove(&id).await;
        }
    });
    let (code, output) = engine.finish_helper(&id).await?;
    context.disarm(armed);
    output.lines().for_each(said);
    match code {
        0 => Ok(verify::findings(&vertical.tools, &output)),
        _ => Err(wrong(vertical, output.lines().next().unwrap_or("it says nothing of it"))),
    }
}

/// The same in a pod, whose engine builds and runs nothing: the image's user runs the script as a step of a build. There is a network. What
/// it says goes to a file of the image, which is read from there: of a step's output a busy builder loses some.
async fn verified_by_a_step(
    context: &Context,
    engine: &Engine,
    vertical: &Vertical,
    image: &str,
    said: impl FnMut(&str),
) -> Result<Vec<Finding>> {
    let script =
        format!("({}) >{SAID} 2>&1; printf 'ended\\t%s\\n' \"$?\" >>{SAID}", verify::script(vertical));
    let words = serde_json::to_string(&["/bin/sh", "-c", &script]).unwrap_or_default();
    let file = format!("FROM {image}\nCOPY said {SAID}\nUSER {}\nRUN {words}\n", vertical.user);
    let tag = format!("{TEMPORARY}:{}-{}-verified", vertical.name, std::process::id());
    let armed = context.arm({
        let (engine, tag) = (engine.clone(), tag.clone());
        async move {
            // The error that counts is the one that led here.
            let _ = engine.remove_image(&tag, false).await;
        }
    });
    let build = engine::Build {
        tag: &tag,
        // Who writes it may be anybody.
        context: engine::BuildContext::Whole(context::of_files(&[
            ("Containerfile", 0o644, file.as_bytes()),
            ("said", 0o666, b""),
        ])?),
        arguments: &HashMap::new(),
        labels: &HashMap::new(),
        fresh: true,
        buildkit: false,
        credentials: &HashMap::new(),
        cache: None,
    };
    engine.build(build, |_| {}).await?;
    // Never started.
    let reader = Helper { image: tag.clone(), command: vec!["/bin/sh".into()], ..Default::default() };
    let id = engine.create_helper(&reader).await?;
    let output = engine.read_file(&id, SAID).await;
    engine.remove(&id).await?;
    engine.remove_image(&tag, false).await?;
    context.disarm(armed);
    let output = output?;
    output.lines().for_each(said);
    match output.lines().any(|line| line == "ended\t0") {
        true => Ok(verify::findings(&vertical.tools, &output)),
        false => Err(wrong(vertical, output.lines().next().unwrap_or("it says nothing of it"))),
    }
}

/// An error about the tools that do not work, if there are any.
pub fn failures(vertical: &Vertical, findings: &[Finding]) -> Option<Error> {
    let failed = findings.iter().filter_map(|finding| match &finding.state {
        State::Fails(said) => Some(said.as_str()),
        _ => None,
    });
    let failed = failed.collect::<Vec<_>>().join("; ");
    (!failed.is_empty()).then(|| wrong(vertical, &failed))
}

fn wrong(vertical: &Vertical, said: &str) -> Error {
    Error::new(Kind::Image, format!("the image of `{}` is not what it should be: {said}", vertical.name))
}

/// A table of tools, for people.
pub fn table(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let (version, source, result) = match &finding.state {
            State::Works { version, source } => (version.as_str(), source.as_str(), "ok".to_owned()),
            State::LeftOut(reason) => ("-", "-", format!("missing: {reason}")),
            State::Fails(said) => ("-", "-", format!("fails: {said}")),
        };
        [finding.tool.clone(), version.to_owned(), source.to_owned(), result]
    };
    ui::table(["TOOL", "VERSION", "SOURCE", "RESULT"], &findings.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_for_one_architecture() {
        assert!(own_executable(&engine::oci_architecture(std::env::consts::ARCH)).is_ok());
        assert_eq!(own_executable("s390x").unwrap_err().kind(), Kind::Image);
    }
}
