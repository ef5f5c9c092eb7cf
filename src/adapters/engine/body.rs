//! From a specification to the engine's request, as a pure function.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};

use super::Image;
use crate::env;
use crate::pod::builds;
use crate::pod::ownership::{EngineTraits, Ownership};
use crate::pod::spec::{AGENT_MOUNT, AgentSource, RUN, Spec, Transport, VAULT_MEMORY, label};

/// What a pod may do beyond an ordinary process: with these, `sudo apt install` works. Reasons: `docs/security.md`.
pub const CAPABILITIES: [&str; 9] =
    ["SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "SETFCAP", "AUDIT_WRITE", "KILL", "FSETID"];

/// Seconds between SIGTERM and SIGKILL, also for `docker stop` by others.
pub const STOP_GRACE_SECONDS: i64 = 10;

/// A mountpoint under which nothing can be written, by anyone: what is under a mount that went missing.
const SEALED_MOUNTPOINT: &str = "ro,mode=0000,size=4k,nosuid,nodev,noexec";

/// Of the memory for the open vault.
const VAULT_OPTIONS: &str = "nosuid,nodev,noexec";

/// Whether every engine binds a path as it is: Podman turns mounts into CSV on the way.
pub fn can_spell(path: &Path) -> bool {
    path.to_str().is_some_and(|text| {
        !text.chars().any(|char| char.is_control() || matches!(char, ',' | '"' | '\\' | ':'))
    })
}

/// A bind mount of `source` that must exist.
pub fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        // With any, even empty ones, Podman leaves out what is mounted below.
        bind_options: None,
        ..Default::default()
    }
}

/// The request that creates a pod's container; `sources` are the shares', and `seccomp` another profile than the engine's, as the engine is
/// told of them.
pub fn container(
    spec: &Spec,
    sources: &[PathBuf],
    seccomp: Option<String>,
    image: &Image,
    traits: EngineTraits,
) -> ContainerCreateBody {
    let user = spec.user();
    let labels = [
        (
            label::WORKSPACE,
            spec.shares.first().map(|share| share.source.to_string_lossy().into_owned()).unwrap_or_default(),
        ),
        (label::VERTICAL, spec.vertical.clone()),
        (label::SPEC, spec.hash()),
        (label::SPEC_JSON, spec.to_json()),
        (label::IMAGE, image.id.clone()),
        (label::AGENT, crate::BUILD.to_owned()),
    ];
    let mut environment: Vec<String> = vec![format!("{}={}", env::TAZPOD_POD, spec.name)];
    environment.extend(spec.env.iter().map(|(name, value)| format!("{name}={value}")));
    ContainerCreateBody {
        image: Some(image.id.clone()),
        hostname: Some(spec.hostname.clone()),
        user: Some(format!("{}:{}", user.uid, user.gid)),
        entrypoint: Some(vec![spec.agent.path().to_owned(), "agent".into(), "run".into()]),
        cmd: Some(Vec::new()),
        // The workspace may not be mounted yet when PID 1 starts.
        working_dir: Some("/".into()),
        env: Some(environment),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: Some(STOP_GRACE_SECONDS),
        host_config: Some(host_config(spec, sources, seccomp, traits)),
        ..Default::default()
    }
}

fn host_config(
    spec: &Spec,
    sources: &[PathBuf],
    seccomp: Option<String>,
    traits: EngineTraits,
) -> HostConfig {
    let mut mounts = Vec::new();
    let mut tmpfs = HashMap::new();
    let user = spec.user();
    // The user's own: at a second start runc gives a tmpfs the permissions that its mountpoint had before, 0755. Podman
    // would also copy what the image has there, which is on disk.
    let options = match traits.podman {
        true => "mode=0700,U,notmpcopyup".to_owned(),
        false => format!("mode=0700,uid={},gid={}", user.uid, user.gid),
    };
    // It counts as the pod's memory. Where that is limited, a vault that is too large must not end the pod.
    let size = spec.memory.map(|memory| format!(",size={}", memory / 2)).unwrap_or_default();
    tmpfs.insert(VAULT_MEMORY.to_owned(), format!("{options},{VAULT_OPTIONS}{size}"));
    for (share, source) in spec.shares.iter().zip(sources) {
        let target = share.target.to_string_lossy().into_owned();
        if matches!(spec.ownership, Ownership::Idmap(_)) {
            // Mounted after the start, from inside the pod's namespaces.
            let mut options = SEALED_MOUNTPOINT.to_owned();
            if traits.podman {
                // Or it fails to start where the image has more than a page there; Docker does not know the word.
                options.push_str(",notmpcopyup");
            }
            tmpfs.insert(target, options);
        } else {
            mounts.push(bind(source, &target, false));
        }
    }
    if let AgentSource::Mount(path) = &spec.agent {
        mounts.push(bind(path, AGENT_MOUNT, true));
    }
    if let (Transport::Socket, Some(run)) = (spec.transport, &spec.run) {
        mounts.push(bind(run, RUN, false));
    }
    // SELinux: the workspace keeps its labels, which a `:Z` would rewrite.
    let mut security = vec!["label=disable".to_owned()];
    if let Some(profile) = seccomp {
        security.push(format!("seccomp={profile}"));
        // The engines' own for containers forbids mounts.
        security.push("apparmor=unconfined".to_owned());
    }
    if spec.builds {
        let volume = Some(MountType::VOLUME);
        mounts.push(Mount { typ: volume, target: Some(builds::STORAGE.into()), ..Default::default() });
    }
    HostConfig {
        mounts: Some(mounts),
        tmpfs: Some(tmpfs),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(CAPABILITIES.iter().map(|&name| name.to_owned()).collect()),
        security_opt: Some(security),
        userns_mode: (spec.ownership == Ownership::KeepId && traits.podman)
            .then(|| "keep-id:uid=1000,gid=1000".to_owned()),
        network_mode: spec.network.clone(),
        memory: spec.memory,
        memory_swap: spec.memory,
        init: Some(false),
        ..Default::default()
    }
}
