//! Whose files are whose: the pod's user is uid 1000, the files it makes belong to the caller on the host.

use serde::{Deserialize, Serialize};

/// The pod's user and group.
pub const POD_ID: u32 = 1000;

/// An id that no user has, for the pod's root where the caller is the host's root.
const UNUSED_ID: u32 = 2_147_400_000;

/// Ids of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

impl Ids {
    /// The pod's own user.
    pub const POD: Ids = Ids { uid: POD_ID, gid: POD_ID };
}

/// What the engine says of itself, as far as ownership goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineTraits {
    /// Podman, rather than Docker.
    pub podman: bool,
    /// Runs without root on the host.
    pub rootless: bool,
    /// Docker's `userns-remap` is on.
    pub userns_remap: bool,
    /// Major and minor version.
    pub version: (u32, u32),
}

/// How the files of uid 1000 in the pod become the caller's on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// The caller is uid and gid 1000: nothing to do.
    Same,
    /// Rootless Podman maps the caller to 1000.
    KeepId,
    /// An idmapped mount of the workspace that swaps 1000 with these ids.
    Idmap(Ids),
    /// The pod's user has the caller's ids instead of 1000.
    HostIds(Ids),
}

/// What the user chose in `[pod] ownership` or `--ownership`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OwnershipChoice {
    /// uid 1000 in the pod, by whatever mechanism fits the engine.
    #[default]
    Auto,
    /// The pod's user gets the caller's ids, for file systems that refuse idmapped mounts.
    HostIds,
}

/// Why no mechanism fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Rootless Podman before 4.3 has no `keep-id:uid=,gid=`.
    OldPodman,
    /// Rootless Docker maps only container root to the caller.
    RootlessDocker,
    /// Docker's `userns-remap`.
    UsernsRemap,
}

/// Chooses the mechanism for a caller of these ids.
///
/// # Errors
/// What is not supported, and why.
pub fn choose(engine: EngineTraits, caller: Ids, choice: OwnershipChoice) -> Result<Ownership, Unsupported> {
    match (engine.rootless, engine.podman) {
        (true, true) if engine.version < (4, 3) => Err(Unsupported::OldPodman),
        (true, true) => Ok(Ownership::KeepId),
        (true, false) => Err(Unsupported::RootlessDocker),
        (false, false) if engine.userns_remap => Err(Unsupported::UsernsRemap),
        (false, _) if caller == Ids::POD => Ok(Ownership::Same),
        (false, _) if choice == OwnershipChoice::HostIds => Ok(Ownership::HostIds(caller)),
        (false, _) => Ok(Ownership::Idmap(caller)),
    }
}

/// A line of `/proc/PID/uid_map`: ids on disk, ids as seen through the mount, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First id on disk.
    pub disk: u32,
    /// First id as seen.
    pub seen: u32,
    /// How many.
    pub count: u32,
}

/// The map of an idmapped mount under which what `host` owns on disk is seen as [`POD_ID`]'s.
///
/// Full and one-to-one: nothing is unmapped, because an id without a mapping makes root's `touch` and the removal
/// of another's file fail with EOVERFLOW. Where `host` is 0, the pod's root is an id that nobody has on disk.
pub fn swap_map(host: u32) -> Vec<Extent> {
    let mut moved: Vec<(u32, u32)> = match host {
        POD_ID => Vec::new(),
        0 => vec![(0, POD_ID), (UNUSED_ID, 0), (POD_ID, UNUSED_ID)],
        _ => vec![(host, POD_ID), (POD_ID, host)],
    };
    moved.sort_unstable();
    let mut extents = Vec::new();
    let mut next = 0;
    for (disk, seen) in moved {
        if disk > next {
            extents.push(Extent { disk: next, seen: next, count: disk - next });
        }
        extents.push(Extent { disk, seen, count: 1 });
        next = disk + 1;
    }
    // u32::MAX is the kernel's "no id".
    if next < u32::MAX {
        extents.push(Extent { disk: next, seen: next, count: u32::MAX - next });
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(extents: &[Extent], disk: u32) -> Option<u32> {
        extents.iter().find(|e| disk >= e.disk && disk - e.disk < e.count).map(|e| e.seen + (disk - e.disk))
    }

    #[test]
    fn maps_are_full_and_one_to_one() {
        for host in [0, 1, 999, 1000, 1001, 1234, 65534, u32::MAX - 1] {
            let extents = swap_map(host);
            assert_eq!(map(&extents, host), Some(POD_ID), "{host}");
            let total: u64 = extents.iter().map(|e| u64::from(e.count)).sum();
            assert_eq!(total, u64::from(u32::MAX), "{host}: nothing unmapped");
            let mut seen: Vec<_> = extents.iter().map(|e| (e.seen, e.seen + (e.count - 1))).collect();
            seen.sort_unstable();
            assert!(seen.windows(2).all(|w| w[0].1 < w[1].0), "{host}: no id twice");
        }
    }

    #[test]
    fn roots_files_are_nobodys_where_the_caller_is_root() {
        let extents = swap_map(0);
        assert_eq!(map(&extents, UNUSED_ID), Some(0));
        assert_eq!(map(&extents, POD_ID), Some(UNUSED_ID));
        assert_eq!(map(&swap_map(1234), 0), Some(0));
    }

    #[test]
    fn each_row_of_the_table() {
        let docker = EngineTraits { podman: false, rootless: false, userns_remap: false, version: (20, 10) };
        let podman = EngineTraits { podman: true, rootless: true, userns_remap: false, version: (4, 3) };
        let caller = Ids { uid: 1234, gid: 2345 };
        let auto = OwnershipChoice::Auto;
        assert_eq!(choose(docker, Ids::POD, auto), Ok(Ownership::Same));
        assert_eq!(
            choose(docker, Ids { uid: 1000, gid: 100 }, auto),
            Ok(Ownership::Idmap(Ids { uid: 1000, gid: 100 }))
        );
        assert_eq!(choose(docker, caller, auto), Ok(Ownership::Idmap(caller)));
        assert_eq!(choose(docker, caller, OwnershipChoice::HostIds), Ok(Ownership::HostIds(caller)));
        assert_eq!(choose(podman, caller, auto), Ok(Ownership::KeepId));
        assert_eq!(
            choose(EngineTraits { version: (4, 2), ..podman }, caller, auto),
            Err(Unsupported::OldPodman)
        );
        assert_eq!(
            choose(EngineTraits { rootless: true, ..docker }, caller, auto),
            Err(Unsupported::RootlessDocker)
        );
        assert_eq!(
            choose(EngineTraits { userns_remap: true, ..docker }, caller, auto),
            Err(Unsupported::UsernsRemap)
        );
    }
}
