//! How a pod comes up: keys, boot record, container, agent, workspace.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use rustix::fs::statfs;

use super::builds;
use super::ownership::{self, Ids, Ownership, OwnershipChoice, Unsupported};
use super::spec::{AgentSource, RUN, Spec, Transport, label};
use super::users;
use crate::adapters::engine::{Created, Endpoint, Engine, EngineInfo, Image, can_spell};
use crate::adapters::files;
use crate::adapters::idmap::{self, RunningPod};
use crate::adapters::state::{LinkRecord, PodDir};
use crate::agent::boot::{self, Boot, ExpectedShare};
use crate::agent::control::{Answer, Request, Status};
use crate::context::Context;
use crate::env;
use crate::error::{Context as _, Error, Kind, Result};
use crate::link::{Keys, Link};

/// How long the agent may take to listen.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The mechanism of ownership for this caller on this engine.
///
/// # Errors
/// [`Kind::Engine`] where there is none.
pub fn choose_ownership(info: &EngineInfo, choice: OwnershipChoice) -> Result<Ownership> {
    let caller = Ids { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    ownership::choose(info.traits, caller, choice).map_err(|unsupported| {
        let engine = info.describe();
        match unsupported {
            Unsupported::OldPodman => {
                Error::new(Kind::Engine, format!("{engine} cannot map your user to the pod's"))
                    .hint("Podman 4.3 or later can")
            }
            Unsupported::RootlessDocker => {
                Error::new(Kind::Engine, format!("{engine} cannot map your user to the pod's uid 1000"))
                    .hint("use rootless Podman, or Docker with root: `--engine` names another engine")
            }
            Unsupported::UsernsRemap => Error::new(
                Kind::Engine,
                format!("{engine} runs with `userns-remap`, under which your files would not be yours"),
            )
            .hint("switch `userns-remap` off, or use rootless Podman"),
        }
    })
}

/// Whether engine and client see the same files: a socket of this machine, and no virtual machine behind it.
pub fn shares_kernel(endpoint: &Endpoint, info: &EngineInfo) -> bool {
    let release = rustix::system::uname();
    matches!(endpoint, Endpoint::Unix(_)) && release.release().to_string_lossy() == info.kernel
}

/// The transport that fits: the socket where it can work, else the engine's exec. `TAZPOD_LINK` overrides.
///
/// # Errors
/// [`Kind::Usage`] for an unknown name in `TAZPOD_LINK`.
pub fn choose_transport(same_kernel: bool, pod: &PodDir) -> Result<Transport> {
    match std::env::var(env::TAZPOD_LINK).unwrap_or_default().as_str() {
        "socket" => Ok(Transport::Socket),
        "exec" => Ok(Transport::Exec),
        "" if same_kernel && !on_network(&pod.run()) => Ok(Transport::Socket),
        "" => Ok(Transport::Exec),
        other => Err(Error::new(Kind::Usage, format!("`{}={other}` is no transport", env::TAZPOD_LINK))
            .hint("`socket` and `exec` are")),
    }
}

/// Whether the nearest existing directory lies on a file system on which sockets or root's access do not work.
fn on_network(path: &Path) -> bool {
    // Magic numbers of statfs(2): NFS, SMB, CIFS, SMB2, FUSE, 9P.
    const NETWORKS: [i64; 6] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997];
    path.ancestors()
        .find_map(|above| statfs(above).ok())
        .is_some_and(|found| NETWORKS.contains(&found.f_type))
}

/// How the agent gets into containers of this image.
///
/// # Errors
/// Where this program's own file cannot be found.
pub fn choose_agent(image: &Image, same_kernel: bool) -> Result<AgentSource> {
    let carried = image.labels.get(label::AGENT).is_some_and(|build| build == crate::BUILD);
    if let (true, Some(path)) = (carried, image.labels.get(label::AGENT_PATH)) {
        return Ok(AgentSource::Image(path.clone()));
    }
    if !same_kernel {
        return Ok(AgentSource::Upload);
    }
    let program = std::env::current_exe().context(Kind::Failure, || "cannot find this program's own file")?;
    // Replaced while it runs, by an upgrade: Podman would make a directory of that name.
    match program.metadata() {
        Ok(_) => Ok(AgentSource::Mount(program)),
        Err(source) => Err(Error::io("find this program at", &program, source).hint("run it again")),
    }
}

/// Creates the container of a specification, complete but not started; `created` knows it then, to undo it.
///
/// # Errors
/// Where the engine refuses.
pub async fn create(
    engine: &Engine,
    spec: &Spec,
    image: &Image,
    info: &EngineInfo,
    pod: &PodDir,
    created: &Created,
) -> Result<()> {
    pod.create(run_mode(spec))?;
    let sources = sources(spec, pod)?;
    let seccomp = spec.builds.then(|| seccomp(spec, info, pod)).transpose()?;
    engine.create(spec, &sources, seccomp, image, info.traits, created).await?;
    let ours = image.labels.contains_key(label::AGENT_PATH);
    if !ours || matches!(spec.ownership, Ownership::HostIds(_)) {
        add_user(engine, spec).await?;
    }
    if spec.builds {
        let user = spec.user();
        let mut archive = Archive::new(Ids { uid: 0, gid: 0 });
        for (path, text) in builds::files(user, info.traits.rootless) {
            archive.file(path, 0o644, text.as_bytes())?;
        }
        archive.owner = user;
        archive.directory(builds::STORAGE.trim_start_matches('/'), 0o700)?;
        engine.upload(&spec.name, "/", archive.finish()?).await?;
    }
    if spec.agent == AgentSource::Upload {
        upload_agent(engine, &spec.name).await?;
    }
    Ok(())
}

/// The shares' directories by names that the engine can be told: where theirs are too odd, by symbolic links to them.
fn sources(spec: &Spec, pod: &PodDir) -> Result<Vec<PathBuf>> {
    let named = spec.shares.iter().enumerate().map(|(number, share)| match can_spell(&share.source) {
        true => Ok(share.source.clone()),
        false => pod.link(&format!("share-{number}"), &share.source),
    });
    named.collect()
}

/// The profile of a pod that builds, as the engine is told of it: Podman reads a file of its own machine.
fn seccomp(spec: &Spec, info: &EngineInfo, pod: &PodDir) -> Result<String> {
    if spec.user().uid == 0 {
        return Err(Error::new(Kind::Config, "`builds` is for pods whose user is not root")
            .hint("leave out `ownership = \"host-ids\"`, or run tazpod as another user"));
    }
    let profile = builds::profile();
    if !info.traits.podman {
        return Ok(profile);
    }
    if spec.transport == Transport::Exec {
        return Err(Error::new(
            Kind::Engine,
            "Podman has to read a file of this machine for `builds`, and is on another, or this state directory on a network",
        )
        .hint("Docker there can, and Podman on this machine"));
    }
    let path = pod.seccomp();
    files::write_atomically(&path, profile.as_bytes(), 0o600)?;
    Ok(path.to_string_lossy().into_owned())
}

/// Programs of the pod, under whatever id, must reach the socket; the directory above keeps others out.
fn run_mode(spec: &Spec) -> u32 {
    if matches!(spec.ownership, Ownership::Idmap(_)) { 0o777 } else { 0o700 }
}

/// Starts a created or stopped container, waits for its agent, and mounts the workspace.
///
/// # Errors
/// Where the engine refuses, the agent does not come, or the workspace cannot be mounted; the container's last
/// output is part of the error.
pub async fn start(
    context: &Context,
    engine: &Engine,
    spec: &Spec,
    image_id: &str,
    pod: &PodDir,
) -> Result<()> {
    let step = context.ui.step(format!("starting {}", spec.name));
    // It is there, unless the user's state was lost.
    pod.create(run_mode(spec))?;
    sources(spec, pod)?;
    let keys = Keys::of(pod)?;
    let record = LinkRecord {
        engine: engine.endpoint().to_string(),
        workspace: spec.shares.first().map(|share| share.source.clone()).unwrap_or_default(),
        vertical: spec.vertical.clone(),
        transport: spec.transport,
        host_key: keys.host_public.clone(),
        agent: spec.agent.path().to_owned(),
    };
    deliver_boot(engine, spec, pod, &keys).await?;
    pod.save_record(&record)?;
    engine.start(&spec.name).await?;
    let link = wait_for_agent(engine, spec, pod, &record).await?;
    drop(step);
    let _step = context.ui.step("mounting the workspace");
    mount(context, engine, spec, image_id).await?;
    match link.control(&Request::Status).await? {
        Answer::Status(Status { missing_share: Some(target), .. }) => Err(not_the_same(spec, &target)),
        _ => Ok(()),
    }
}

/// Mounts the workspace of a running pod again.
///
/// # Errors
/// As [`mount`]; and where the mount was the engine's own.
pub async fn remount(context: &Context, engine: &Engine, spec: &Spec, image_id: &str) -> Result<()> {
    if !matches!(spec.ownership, Ownership::Idmap(_)) {
        return Err(Error::new(
            Kind::Failure,
            format!("the workspace of `{}` can only be mounted at its start", spec.name),
        )
        .hint("`tazpod stop` and `tazpod start` mount it again; running programs end"));
    }
    mount(context, engine, spec, image_id).await
}

/// Mounts the workspace into the running pod, where its ownership takes that.
///
/// # Errors
/// Where the pod does not run or the file system refuses.
pub async fn mount(context: &Context, engine: &Engine, spec: &Spec, image_id: &str) -> Result<()> {
    let Ownership::Idmap(ids) = spec.ownership else { return Ok(()) };
    let gone = || Error::new(Kind::NoSuchPod, format!("`{}` does not run any more", spec.name));
    let (state, _) =
        engine.container(&spec.name).await?.filter(|(state, _)| state.running).ok_or_else(gone)?;
    let pod = RunningPod { id: &state.id, pid: state.pid, image: image_id, agent: &spec.agent };
    let helper = Created::default();
    let armed = context.arm({
        let (engine, helper) = (engine.clone(), helper.clone());
        async move {
            if let Some(id) = helper.id().await {
                // The failure that led here is the one to report.
                let _ = engine.remove(&id).await;
            }
        }
    });
    idmap::mount(engine, pod, &spec.shares, ids, &helper).await?;
    context.disarm(armed);
    Ok(())
}

fn not_the_same(spec: &Spec, target: &str) -> Error {
    let share = spec.shares.iter().find(|share| share.target == Path::new(target));
    let source = share.map(|share| share.source.display().to_string()).unwrap_or_default();
    Error::new(Kind::Engine, format!("what the engine mounts at `{target}` is not `{source}` as it is seen here"))
        .hint("a file system that was mounted after the engine had started may be hidden from it: restart the engine")
}

async fn deliver_boot(engine: &Engine, spec: &Spec, pod: &PodDir, keys: &Keys) -> Result<()> {
    let shares = spec.shares.iter().map(|share| {
        let inode = match spec.transport {
            Transport::Socket => {
                let found = std::fs::metadata(&share.source)
                    .map_err(|source| Error::io("find", &share.source, source))?;
                Some((found.dev(), found.ino()))
            }
            Transport::Exec => None,
        };
        Ok(ExpectedShare { target: share.target.clone(), inode })
    });
    let boot = Boot {
        pod: spec.name.clone(),
        host_key: keys.host.clone(),
        client_key: keys.client_public.clone(),
        shares: shares.collect::<Result<_>>()?,
        services: spec.services.clone(),
    };
    let text = serde_json::to_vec(&boot).context(Kind::Failure, || "cannot write the boot record")?;
    match spec.transport {
        Transport::Socket => {
            // What programs of the last run left in the directory is not to be written through.
            pod.renew_run(run_mode(spec))?;
            let mode = if run_mode(spec) == 0o777 { 0o644 } else { 0o600 };
            files::write_atomically(&pod.boot(), &text, mode)
        }
        Transport::Exec => {
            let user = spec.user();
            let mut archive = Archive::new(user);
            archive.directory(RUN.trim_start_matches('/'), 0o700)?;
            archive.file(&format!("{}/{}", RUN.trim_start_matches('/'), boot::FILE), 0o600, &text)?;
            engine.upload(&spec.name, "/", archive.finish()?).await
        }
    }
}

/// The agent's answer is the sign that it is ready.
async fn wait_for_agent(engine: &Engine, spec: &Spec, pod: &PodDir, record: &LinkRecord) -> Result<Link> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let error = match Link::open(pod, record, || Ok(engine.clone())).await {
            Ok(link) => return Ok(link),
            Err(error) => error,
        };
        tokio::time::sleep(pause).await;
        pause = (pause * 5 / 4).min(Duration::from_millis(100));
        let late = started.elapsed() > READY_TIMEOUT;
        // Once the first moments have passed, see whether it is worth waiting.
        if late || pause > Duration::from_millis(15) {
            let state = engine.container(&spec.name).await?;
            let Some((state, _)) = state.filter(|(state, _)| !late && state.running) else {
                return Err(not_ready(engine, spec, error).await);
            };
            drop(state);
        }
    }
}

async fn not_ready(engine: &Engine, spec: &Spec, error: Error) -> Error {
    let state = engine.container(&spec.name).await.ok().flatten();
    let log: Vec<bytes::Bytes> = engine.logs(&spec.name, false, "20").try_collect().await.unwrap_or_default();
    let log = String::from_utf8_lossy(&log.concat()).trim().to_owned();
    let message = match state {
        Some((state, _)) if !state.running => {
            format!("the agent of `{}` ended with status {} {}", spec.name, state.exit_code, state.error)
        }
        _ => format!("the agent of `{}` does not answer", spec.name),
    };
    let error = Error::new(Kind::Engine, message.trim_end()).with_source(error);
    if log.is_empty() { error } else { error.hint(format!("its log ends with:\n{log}")) }
}

async fn add_user(engine: &Engine, spec: &Spec) -> Result<()> {
    let file = |path| engine.read_file(&spec.name, path);
    let (passwd, group) = (file("/etc/passwd").await?, file("/etc/group").await?);
    let user = spec.user();
    let Some(change) = users::change(&passwd, &group, user) else { return Ok(()) };
    let mut archive = Archive::new(Ids { uid: 0, gid: 0 });
    archive.file("etc/passwd", 0o644, change.passwd.as_bytes())?;
    archive.file("etc/group", 0o644, change.group.as_bytes())?;
    let home = change.home.to_string_lossy().trim_start_matches('/').to_owned();
    if change.adopts_home {
        if let Some(tar) = engine.download(&spec.name, &change.home.to_string_lossy()).await? {
            let parent = change.home.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
            engine.upload(&spec.name, &parent, chown_archive(&tar, user)?).await?;
        }
    } else {
        archive.owner = user;
        archive.directory(&home, 0o755)?;
    }
    engine.upload(&spec.name, "/", archive.finish()?).await
}

async fn upload_agent(engine: &Engine, name: &str) -> Result<()> {
    let path = std::env::current_exe().context(Kind::Failure, || "cannot find this program's own file")?;
    let program = std::fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
    let mut archive = Archive::new(Ids { uid: 0, gid: 0 });
    archive.file(super::spec::AGENT_MOUNT.trim_start_matches('/'), 0o755, &program)?;
    engine.upload(name, "/", archive.finish()?).await
}

/// A tar for the engine, in memory.
struct Archive {
    builder: tar::Builder<Vec<u8>>,
    owner: Ids,
}

impl Archive {
    fn new(owner: Ids) -> Archive {
        Archive { builder: tar::Builder::new(Vec::new()), owner }
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.owner.uid.into());
        header.set_gid(self.owner.gid.into());
        header.set_size(content.len() as u64);
        self.builder
            .append_data(&mut header, path, content)
            .context(Kind::Failure, || format!("cannot archive `{path}`"))
    }

    fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(path, tar::EntryType::Directory, mode, &[])
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, tar::EntryType::Regular, mode, content)
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.builder.into_inner().context(Kind::Failure, || "cannot write an archive")
    }
}

/// The same archive with all that is in it given to another.
fn chown_archive(tar: &[u8], owner: Ids) -> Result<Vec<u8>> {
    let bad = || "cannot read the home of the image's user";
    let mut archive = tar::Archive::new(tar);
    let mut changed = tar::Builder::new(Vec::new());
    for entry in archive.entries().context(Kind::Image, bad)? {
        let mut entry = entry.context(Kind::Image, bad)?;
        let mut header = entry.header().clone();
        header.set_uid(owner.uid.into());
        header.set_gid(owner.gid.into());
        let path = entry.path().context(Kind::Image, bad)?.into_owned();
        match entry.link_name().context(Kind::Image, bad)? {
            Some(target) => changed.append_link(&mut header, &path, target),
            None => changed.append_data(&mut header, &path, &mut entry),
        }
        .context(Kind::Image, bad)?;
    }
    changed.into_inner().context(Kind::Image, bad)
}
