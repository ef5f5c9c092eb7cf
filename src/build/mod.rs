//! Images from the catalog: plan, context, build, pull.

mod context;
mod log;
mod mirror;
mod plan;
mod pull;
mod rootfs;
mod verify;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::adapters::certificates;
use crate::adapters::engine::{self, CAPABILITIES, Engine, Helper, Image};
use crate::catalog::{Catalog, Origin, Vertical};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pod::spec::label;
use crate::ui;
use context::Sources;
use log::BuildLog;
use plan::{ALLOWED_LABEL, CONTEXT_LABEL, Existing, PARENT_LABEL, Wanted};
pub use plan::{Reason, Step};
pub use pull::{PullPolicy, ensure_reference};
pub use verify::{Finding, State};

/// What the tree of verticals stands on, where a registry is in reach.
const ROOT_IMAGE: &str = "docker.io/library/ubuntu:24.04";
/// The agent's path in images of the catalog.
const AGENT_PATH: &str = "/usr/local/bin/tazpod";
/// The argument of Containerfiles that may leave tools out.
const ALLOW_MISSING: &str = "ALLOW_MISSING";
/// The name of images that are not verified yet.
const TEMPORARY: &str = "localhost/tazpod-build";
/// How long an interrupted builder may be at its last step, which is a short one.
const LAST_STEP: Duration = Duration::from_secs(1);

/// How to build.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Even if nothing changed, and every step of it.
    pub force: bool,
    /// On a root filesystem that is bootstrapped now.
    pub rootfs: bool,
    /// Without the tools that cannot be fetched.
    pub allow_missing: bool,
}

/// An image that was built, or found to be current.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// What was found of the tools of each image that was built now, by its vertical's name.
    pub findings: HashMap<String, Vec<Finding>>,
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
    options: Options,
) -> Result<Image> {
    let reference = vertical.reference();
    if vertical.is_local() && policy != PullPolicy::Never {
        // No registry has it: what is there, or what its sources make now.
        return match engine.image(&reference).await? {
            Some(image) if policy == PullPolicy::Missing => Ok(image),
            _ => Ok(build(context, engine, catalog, vertical, options).await?.image),
        };
    }
    let failed = match ensure_reference(context, engine, &reference, policy).await {
        Ok(image) => return Ok(image),
        Err(failed) => failed,
    };
    let (absent, error) = (failed.failure.is_absence(), failed.error);
    let may_build = absent && matches!(policy, PullPolicy::Missing | PullPolicy::Newer);
    if error.kind() != Kind::Image || !may_build || vertical.origin != Origin::Built {
        let name = &vertical.name;
        return Err(match vertical.origin {
            _ if error.kind() != Kind::Image => error,
            Origin::Built if absent => error.hint(format!("build it: `tazpod build {name}`")),
            Origin::Planned => error.hint(format!("the image of `{name}` cannot be built here yet")),
            _ => error,
        });
    }
    context.ui.status(format!("{error}; building it"));
    Ok(build(context, engine, catalog, vertical, options).await?.image)
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
    vertical: &'a Vertical,
    options: Options,
) -> Result<Vec<Step<'a>>> {
    let mut existing = HashMap::new();
    for vertical in catalog.chain(vertical)? {
        let reference = vertical.reference();
        if let Some(image) = engine.image(&reference).await? {
            existing.insert(reference, Existing { id: image.id, labels: image.labels });
        }
    }
    let wanted = Wanted {
        agent: crate::BUILD,
        sources: Sources::of,
        force: options.force || options.rootfs,
        allow_missing: options.allow_missing,
    };
    plan::plan(catalog, vertical, |reference| existing.get(reference).cloned(), wanted)
}

/// Builds the image of a vertical and of all that it stands on, as far as they are not current.
///
/// # Errors
/// [`Kind::Image`] where it cannot be built, with the step that failed; nothing is tagged then.
pub async fn build(
    context: &Context,
    engine: &Engine,
    catalog: &Catalog,
    vertical: &Vertical,
    options: Options,
) -> Result<Built> {
    let _lock =
        context.state()?.lock("build", || context.ui.status("another build is at work: waiting")).await?;
    let steps = plan(catalog, engine, vertical, options).await?;
    let mut findings = HashMap::new();
    if steps.is_empty() {
        return Ok(Built { image: present(engine, &vertical.reference()).await?, findings });
    }
    let info = engine.info().await?;
    let agent = own_executable(&info.architecture)?;
    for step in steps {
        let path = context.state()?.log(&format!("build-{}", step.vertical.name))?;
        let log = BuildLog::create(&context.ui, path)?;
        let builder = Builder { context, engine, catalog, log, options, buildkit: !info.traits.podman };
        findings.insert(step.vertical.name.clone(), builder.build(&step, &agent).await?);
    }
    Ok(Built { image: present(engine, &vertical.reference()).await?, findings })
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
    options: Options,
    buildkit: bool,
}

impl Builder<'_> {
    async fn build(mut self, step: &Step<'_>, agent: &[u8]) -> Result<Vec<Finding>> {
        let started = Instant::now();
        let (context, engine, vertical) = (self.context, self.engine, step.vertical);
        let reference = vertical.reference();
        context.ui.status(format!("building `{}` ({})", vertical.name, step.reason.describe()));
        let below = self.below(step).await?;
        let previous = engine.image(&reference).await?;

        let tag = format!("{}-{}", vertical.name, std::process::id());
        let temporary = format!("{TEMPORARY}:{tag}");
        // A name that no registry has: some builders ask there first, and would take another image of the same name.
        let standing = format!("{temporary}-below");

        let building = Arc::new(AtomicBool::new(true));
        let armed = context.arm({
            let (engine, building) = (engine.clone(), building.clone());
            let (temporary, standing) = (temporary.clone(), standing.clone());
            async move {
                // The error that counts is the one that led here.
                let _ = engine.remove_image(&standing, false).await;
                let _ = engine.remove_image(&temporary, true).await;
                if building.load(Ordering::Relaxed) {
                    // Podman ends the step that it is at, which may be the one that gives the name.
                    tokio::time::sleep(LAST_STEP).await;
                    let _ = engine.remove_image(&temporary, true).await;
                }
            }
        });
        let mut labels = HashMap::new();
        let mut arguments = HashMap::new();
        if let Some(below) = &below {
            engine.tag(&below.reference, TEMPORARY, &format!("{tag}-below")).await?;
            arguments.insert(below.argument.to_owned(), standing.clone());
            self.log.show_as(&standing, &below.reference);
            labels.insert(below.label.to_owned(), below.id.clone());
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
        let build = engine::Build {
            tag: &temporary,
            context: engine::BuildContext::Whole(step.sources.tar(agent, host_ca.as_bytes())?),
            arguments: &arguments,
            labels: &labels,
            fresh: step.reason == Reason::Forced,
            buildkit: self.buildkit,
        };
        let log = &mut self.log;
        let built = engine.build(build, |line| log.builder(line)).await;
        building.store(false, Ordering::Relaxed);
        if below.is_some() {
            engine.remove_image(&standing, false).await?;
        }
        built.map_err(|error| self.explain(error, step))?;
        let findings = self.verify(vertical, &temporary).await?;

        let image = present(engine, &temporary).await?;
        engine.tag(&temporary, &vertical.repository, &vertical.tag).await?;
        engine.remove_image(&temporary, false).await?;
        context.disarm(armed);
        if let Some(previous) = previous.filter(|previous| previous.id != image.id) {
            // A pod may still run on it: then it stays.
            let _ = engine.remove_nameless_image(&previous.id).await;
        }
        let (size, seconds) = (ui::size(image.size), started.elapsed().as_secs());
        show(context, &findings);
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
        if !step.sources.takes("ROOT") {
            return Ok(None);
        }
        let root = |reference: String| {
            Some(Below { argument: "ROOT", id: reference.clone(), reference, label: label::ROOT })
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
        if vertical.verify.is_empty() && vertical.tools.is_empty() {
            // It may not even have a shell.
            return Ok(Vec::new());
        }
        let _step = self.context.ui.step(format!("verifying `{}`", vertical.name));
        let helper = Helper {
            image: image.to_owned(),
            user: Some(vertical.user.clone()),
            command: vec!["/bin/sh".into(), "-c".into(), verify::script(vertical)],
            capabilities: CAPABILITIES.to_vec(),
            ..Default::default()
        };
        let id = self.engine.create_helper(&helper).await?;
        let armed = self.context.arm({
            let (engine, id) = (self.engine.clone(), id.clone());
            async move {
                // The error that counts is the one that led here.
                let _ = engine.remove(&id).await;
            }
        });
        let (code, output) = self.engine.finish_helper(&id).await?;
        self.context.disarm(armed);
        output.lines().for_each(|line| self.log.detail(line));
        let wrong = |said: String| {
            let what = format!("the image of `{}` is not what it should be: {said}", vertical.name);
            Err(Error::new(Kind::Image, what)
                .hint(format!("the whole output is in `{}`", self.log.path().display())))
        };
        if code != 0 {
            self.log.show_tail();
            return wrong(output.lines().next().unwrap_or("it says nothing of it").to_owned());
        }
        let findings = verify::findings(&vertical.tools, &output);
        let failed: Vec<&str> = findings
            .iter()
            .filter_map(|finding| match &finding.state {
                State::Fails(said) => Some(said.as_str()),
                _ => None,
            })
            .collect();
        if !failed.is_empty() {
            return wrong(failed.join("; "));
        }
        Ok(findings)
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

/// A table of tools, for people.
fn show(context: &Context, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    let rows: Vec<[String; 3]> = findings
        .iter()
        .map(|finding| {
            let (version, source) = match &finding.state {
                State::Works { version, source } => (version.clone(), source.clone()),
                State::LeftOut(reason) => ("-".to_owned(), format!("left out: {reason}")),
                State::Fails(said) => ("-".to_owned(), said.clone()),
            };
            [finding.tool.clone(), version, source]
        })
        .collect();
    context.ui.status(ui::table(["TOOL", "VERSION", "SOURCE"], &rows));
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
