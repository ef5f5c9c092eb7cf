use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::attach;
use crate::adapters::engine::{Created, Engine, EngineInfo, Image, PodSummary};
use crate::adapters::state::PodDir;
use crate::adapters::terminal;
use crate::agent::control::{Answer, Request};
use crate::build::{Options, PullPolicy};
use crate::catalog::{Catalog, Lock, Vertical};
use crate::config::ProjectConfig;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::link::Link;
use crate::pod::name::pod_name;
use crate::pod::ownership::OwnershipChoice;
use crate::pod::spec::{Difference, Spec, Transport, differences, label};
use crate::pod::{builds, launch, vault, workspace};

/// Bring up this workspace's pod and enter it.
///
/// Gets or builds the image, starts the pod with this directory at /workspace, and lands in its shell. Files made in
/// the pod belong to you. A pod that runs is entered as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The vertical; the project's configuration names the default, else it is `base`.
    vertical: Option<String>,
    /// The workspace, instead of this directory or one above it that has a `.tazpod`.
    #[arg(short = 'C', long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Bring the pod up without entering it.
    #[arg(short, long)]
    detach: bool,
    /// When to ask the registry for the image.
    #[arg(long, value_enum, default_value_t)]
    pull: PullPolicy,
    /// Where the image is built, build it even without tools that cannot be fetched here.
    #[arg(long)]
    allow_missing: bool,
    /// Replace the pod by a new one. What was changed in it outside /workspace is lost.
    #[arg(long)]
    recreate: bool,
    /// An image instead of the vertical's.
    #[arg(long, value_name = "REFERENCE")]
    image: Option<String>,
    /// The image that the project's `.tazpod/lock.toml` names, by its digest.
    #[arg(long, conflicts_with = "image")]
    locked: bool,
    /// How files made in the pod become yours.
    #[arg(long, value_enum)]
    ownership: Option<OwnershipChoice>,
    /// Print what would be made, and how a pod that exists differs from it, as JSON; change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
struct DryRun<'a> {
    version: u32,
    engine: String,
    image_id: Option<&'a str>,
    spec_hash: String,
    spec: &'a Spec,
    /// The pod as it is.
    state: &'a str,
    differences: Vec<Difference>,
}

struct Plan {
    engine: Engine,
    info: EngineInfo,
    catalog: Catalog,
    vertical: Vertical,
    pod: PodDir,
    existing: Option<PodSummary>,
    /// The image of the lock file, if it is to be that.
    locked: Option<String>,
    /// Held until all is done, or undone.
    lock: Option<Arc<File>>,
}

impl Args {
    /// Brings the pod up; the exit code is that of the shell, if one is entered.
    pub async fn run(self, context: &Context) -> Result<u8> {
        let workspace = workspace::find(self.workspace.as_deref())?;
        let config = ProjectConfig::load(&workspace)?;
        let name = self.vertical.as_deref().or(config.vertical.as_deref()).unwrap_or("base");
        let catalog = Catalog::of(Some(&workspace))?;
        let vertical = catalog.find(name)?.clone();
        let locked = match self.locked {
            true => Some(Lock::load(&workspace)?.image(&vertical.name)?.to_owned()),
            false => None,
        };
        let state = context.state()?;
        let pod = state.pod(&pod_name(&workspace, &vertical.name));
        let engine = context.engine()?;
        let lock = match self.dry_run {
            true => None,
            false => Some(Arc::new(
                state
                    .lock(pod.name(), || {
                        context.ui.status(format!("waiting for another tazpod at work on {}", pod.name()))
                    })
                    .await?,
            )),
        };
        let (info, pods) = tokio::try_join!(engine.info(), engine.pods_of(&workspace))?;
        self.check_engine(&engine, &pod)?;
        let existing = pods.into_iter().find(|found| found.name == pod.name());
        let plan = Plan { engine, info, catalog, vertical, pod, existing, locked, lock };
        if self.dry_run {
            return self.dry_run(context, &plan, &workspace, &config).await.map(|()| 0);
        }
        self.bring_up(context, &plan, &workspace, &config).await?;
        // Those who wait need not wait for the session's end.
        let Plan { pod, vertical, .. } = plan;
        if let Some(service) = vertical.services.iter().find(|service| service.port.is_some()) {
            let (vertical, service) = (&vertical.name, &service.name);
            context
                .ui
                .hint(format!("`tazpod forward {vertical}` brings the port of `{service}` to this machine"));
        }
        if self.detach {
            return Ok(0);
        }
        if !terminal::is_interactive() {
            context.ui.status(format!("{} is up", pod.name()));
            context.ui.hint(
                "without a terminal there is no shell to enter: `tazpod exec -- COMMAND` runs a command",
            );
            return Ok(0);
        }
        attach::enter(context, &pod, attach::DEFAULT_SESSION).await
    }

    /// One pod of a name, whatever the engine: the link's record knows only one.
    fn check_engine(&self, engine: &Engine, pod: &PodDir) -> Result<()> {
        match pod.record() {
            Ok(record) if record.engine != engine.endpoint().to_string() => Err(Error::new(
                Kind::Engine,
                format!("`{}` is on another engine, `{}`", pod.name(), record.engine),
            )
            .hint(format!(
                "enter it with `tazpod --engine {} up`, or remove it with `tazpod down`",
                record.engine
            ))),
            _ => Ok(()),
        }
    }

    async fn bring_up(
        &self,
        context: &Context,
        plan: &Plan,
        workspace: &std::path::Path,
        config: &ProjectConfig,
    ) -> Result<()> {
        let Plan { engine, pod, existing, lock, .. } = plan;
        match existing {
            Some(found) if !self.recreate => {
                self.report_drift(context, plan, found, workspace, config).await?;
                let spec = spec_of(found)?;
                if found.is_running() && is_served(plan, &spec).await {
                    return remount(context, plan, found, &spec).await;
                }
                if found.is_running() {
                    // Started by others than tazpod, or with keys that are lost: a new start gives it new ones.
                    return Err(Error::new(
                        Kind::Failure,
                        format!("`{}` runs, but its agent does not know this machine", found.name),
                    )
                    .hint("`tazpod stop` and `tazpod start` introduce it again; running programs end"));
                }
                context.ui.status(format!("starting {}", found.name));
                let image = found.label(label::IMAGE).to_owned();
                let engine_to_stop = engine.clone();
                let (name, lock) = (found.name.clone(), lock.clone());
                let armed = context.arm(async move {
                    let _lock = lock;
                    // It was stopped before; a failure to stop it again is the engine's to show.
                    let _ = engine_to_stop.stop(&name, std::time::Duration::from_secs(1)).await;
                });
                launch::start(context, engine, &spec, &image, pod).await?;
                context.disarm(armed);
                Ok(())
            }
            found => {
                let image = self.image(context, plan, config).await?;
                let spec = self.spec(context, plan, workspace, config, &image)?;
                if let Some(found) = found {
                    context.ui.status(format!("removing {}", found.name));
                    vault::close_in(context, pod).await?;
                    engine.stop(&found.name, crate::commands::stop::GRACE).await?;
                    engine.remove(&found.name).await?;
                    vault::collect_from(context, pod).await?;
                    pod.remove()?;
                } else if let Some((_, labels)) = engine.container(&spec.name).await? {
                    let whose = if labels.contains_key(label::WORKSPACE) {
                        "another workspace's pod"
                    } else {
                        "a container that tazpod did not make"
                    };
                    return Err(Error::new(
                        Kind::Engine,
                        format!("the name `{}` is taken by {whose}", spec.name),
                    )
                    .hint("rename or remove that container; tazpod does not touch it"));
                }
                context.ui.status(format!("creating {} from {}", spec.name, spec.image));
                if spec.builds {
                    let granted = builds::GRANTED.join(", ");
                    context.ui.status(format!(
                        "images can be built in it: it may call {granted}, and AppArmor does not confine it"
                    ));
                }
                let created = Created::default();
                let (engine_to_clean, container, directory) = (engine.clone(), created.clone(), pod.clone());
                let lock = lock.clone();
                let armed = context.arm(async move {
                    let _lock = lock;
                    // The failure that led here is the one to report.
                    if let Some(id) = container.id().await {
                        let _ = engine_to_clean.remove(&id).await;
                    }
                    let _ = directory.remove();
                });
                launch::create(engine, &spec, &image, &plan.info, pod, &created).await?;
                launch::start(context, engine, &spec, &image.id, pod).await?;
                context.disarm(armed);
                Ok(())
            }
        }
    }

    async fn image(&self, context: &Context, plan: &Plan, config: &ProjectConfig) -> Result<Image> {
        let named = plan.locked.as_deref().or(self.image.as_deref()).or(config.pod.image.as_deref());
        let image = match named {
            Some(reference) => {
                crate::build::ensure_reference(context, &plan.engine, reference, self.pull).await?
            }
            None => {
                let options = Options { allow_missing: self.allow_missing, ..Options::default() };
                let Plan { engine, catalog, vertical, .. } = plan;
                crate::build::ensure(context, engine, catalog, vertical, self.pull, options).await?
            }
        };
        if image.architecture != plan.info.architecture {
            let reference = self.reference(plan, config);
            return Err(Error::new(
                Kind::Image,
                format!(
                    "`{reference}` is for {}, the engine's machine is {}",
                    image.architecture, plan.info.architecture
                ),
            )
            .hint("pull or build it for this architecture"));
        }
        Ok(image)
    }

    fn reference(&self, plan: &Plan, config: &ProjectConfig) -> String {
        let named = plan.locked.clone().or_else(|| self.image.clone()).or_else(|| config.pod.image.clone());
        named.unwrap_or_else(|| plan.vertical.reference())
    }

    fn spec(
        &self,
        context: &Context,
        plan: &Plan,
        workspace: &std::path::Path,
        config: &ProjectConfig,
        image: &Image,
    ) -> Result<Spec> {
        let found = workspace::shares(workspace);
        if let Some(missing) = found.missing {
            context.ui.warn(format!(
                "this is a git worktree whose repository `{}` is not there: git will not work in the pod",
                missing.display()
            ));
        }
        let same_kernel = launch::shares_kernel(plan.engine.endpoint(), &plan.info);
        let mut env = config.pod.env.clone();
        let mut services = plan.vertical.services.clone();
        if config.pod.builds {
            // What the project says itself goes first.
            for (name, value) in builds::environment() {
                env.entry(name).or_insert(value);
            }
            let engine = builds::service();
            if services.iter().all(|service| service.name != engine.name) {
                services.push(engine);
            }
        }
        let transport = launch::choose_transport(same_kernel, &plan.pod)?;
        Ok(Spec {
            name: plan.pod.name().to_owned(),
            vertical: plan.vertical.name.clone(),
            image: self.reference(plan, config),
            hostname: plan.vertical.name.replace(':', "-"),
            ownership: launch::choose_ownership(&plan.info, self.ownership.unwrap_or(config.pod.ownership))?,
            shares: found.shares,
            agent: launch::choose_agent(image, same_kernel)?,
            transport,
            run: (transport == Transport::Socket).then(|| plan.pod.run()),
            env,
            network: config.pod.network.clone(),
            memory: config.pod.memory,
            builds: config.pod.builds,
            services,
        })
    }

    /// How the pod differs from what would be made now. An image that is not there to compare with does not count.
    async fn drift(
        &self,
        context: &Context,
        plan: &Plan,
        found: &PodSummary,
        workspace: &std::path::Path,
        config: &ProjectConfig,
    ) -> Result<(Option<Image>, Option<Spec>, Vec<Difference>)> {
        let Some(image) = plan.engine.image(&self.reference(plan, config)).await? else {
            return Ok((None, None, Vec::new()));
        };
        let spec = self.spec(context, plan, workspace, config, &image)?;
        let mut differs =
            differences(found.label(label::SPEC_JSON), found.label(label::IMAGE), &spec, &image.id);
        let build = found.label(label::AGENT);
        if build != crate::BUILD {
            differs.push(Difference {
                field: "agent".into(),
                pod: build.to_owned(),
                now: crate::BUILD.to_owned(),
            });
        }
        Ok((Some(image), Some(spec), differs))
    }

    async fn report_drift(
        &self,
        context: &Context,
        plan: &Plan,
        found: &PodSummary,
        workspace: &std::path::Path,
        config: &ProjectConfig,
    ) -> Result<()> {
        let (_, _, differs) = self.drift(context, plan, found, workspace, config).await?;
        if differs.is_empty() {
            return Ok(());
        }
        context.ui.warn(format!("{} differs from what `up` would make now:", found.name));
        for difference in differs {
            context.ui.status(format!("  {}: {} -> {}", difference.field, difference.pod, difference.now));
        }
        context
            .ui
            .hint("`tazpod up --recreate` replaces it; what was changed in it outside /workspace is lost");
        Ok(())
    }

    async fn dry_run(
        &self,
        context: &Context,
        plan: &Plan,
        workspace: &std::path::Path,
        config: &ProjectConfig,
    ) -> Result<()> {
        let (image, differs, spec) = match &plan.existing {
            Some(found) => {
                let (image, spec, differs) = self.drift(context, plan, found, workspace, config).await?;
                (image, differs, spec)
            }
            None => (plan.engine.image(&self.reference(plan, config)).await?, Vec::new(), None),
        };
        // Without the image it is not known whether it carries the agent: assumed not.
        let absent = Image {
            id: String::new(),
            architecture: String::new(),
            labels: Default::default(),
            size: 0,
            digests: Vec::new(),
        };
        let spec = match spec {
            Some(spec) => spec,
            None => self.spec(context, plan, workspace, config, image.as_ref().unwrap_or(&absent))?,
        };
        context.ui.json(&DryRun {
            version: 1,
            engine: plan.engine.endpoint().to_string(),
            image_id: image.as_ref().map(|image| image.id.as_str()),
            spec_hash: spec.hash(),
            spec: &spec,
            state: plan.existing.as_ref().map_or("absent", |found| found.state.as_str()),
            differences: differs,
        })
    }
}

/// The specification that a pod was made from, from its label.
pub fn spec_of(found: &PodSummary) -> Result<Spec> {
    serde_json::from_str(found.label(label::SPEC_JSON)).map_err(|source| {
        Error::new(Kind::Failure, format!("`{}` was made by another version of tazpod", found.name))
            .with_source(source)
            .hint("`tazpod up --recreate` replaces it; what was changed in it outside /workspace is lost")
    })
}

async fn is_served(plan: &Plan, spec: &Spec) -> bool {
    let Ok(record) = plan.pod.record() else { return false };
    record.transport == spec.transport
        && Link::open(&plan.pod, &record, || Ok(plan.engine.clone())).await.is_ok()
}

/// Mounts the workspace of a running pod again, if that mount vanished.
async fn remount(context: &Context, plan: &Plan, found: &PodSummary, spec: &Spec) -> Result<()> {
    let record = plan.pod.record()?;
    let link = Link::open(&plan.pod, &record, || Ok(plan.engine.clone())).await?;
    let Answer::Status(status) = link.control(&Request::Status).await? else { return Ok(()) };
    for share in &spec.shares {
        let inode = std::fs::metadata(&share.source).map(|found| (found.dev(), found.ino())).ok();
        let expected = status.shares.iter().find(|expected| expected.target == share.target);
        if expected.is_some_and(|expected| expected.inode.is_some() && expected.inode != inode) {
            context.ui.warn(format!(
                "`{}` is not the directory that it was when the pod started; the pod still has the old one",
                share.source.display()
            ));
            context.ui.hint("`tazpod stop` and `tazpod up` mount the new one; running programs end");
        }
    }
    let missing = status.missing_share;
    if let Some(missing) = missing {
        context.ui.status(format!("mounting {missing} again"));
        launch::remount(context, &plan.engine, spec, found.label(label::IMAGE)).await?;
    }
    Ok(())
}
