//! Idmapped mounts of directories of the host in a pod that runs: what the caller owns on the host is the pod's user's
//! in the pod, and the other way round. mount_setattr(2), "ID-mapped mounts".

mod helper;
mod mountinfo;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, Statx, StatxAttributes, StatxFlags, fstatvfs, openat,
    statx,
};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::sys::mounts::{NamespaceHolder, idmap, unshare_root_and_cwd};
use crate::error::{Context, Error, Kind, Result};
use crate::pod::ownership::{Extent, Ids, swap_map};
pub use helper::{Failure, RunningPod, ShareArgument, mount, mount_as_helper};

/// What a user does where a file system or a kernel cannot map owners.
const HOST_IDS_HINT: &str = "`--ownership host-ids` runs the pod's user with your ids instead";

/// How often we look at a mountpoint before giving up: once to clear each mount left over, once to mount, once to see.
const ATTEMPTS: usize = 16;

/// A directory of the host, opened.
#[derive(Debug)]
pub struct Source {
    /// The directory itself.
    directory: OwnedFd,
    /// What the user calls it.
    name: PathBuf,
}

impl Source {
    /// Opens a directory of this mount namespace; symbolic links are followed, as engines do.
    ///
    /// # Errors
    /// Where it is missing, no directory, or out of reach.
    pub fn open(path: &Path) -> Result<Source> {
        let directory = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| Error::io("open", path, source.into()))?;
        Ok(Source { directory, name: path.to_owned() })
    }

    /// Opens `path` without following symbolic links; messages call it `name`.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open_exactly(path: &Path, name: &Path) -> Result<Source> {
        let directory = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|root| walk(root.as_fd(), path))
            .map_err(|source| Error::io("open", name, source))?;
        Ok(Source { directory, name: name.to_owned() })
    }
}

/// A directory of the host and where it belongs in the pod.
#[derive(Debug)]
pub struct Mapping {
    /// On the host.
    pub source: Source,
    /// In the pod, absolute.
    pub target: PathBuf,
}

/// A process, held by its directory in `/proc`: never another one that was given the same id.
#[derive(Debug)]
pub struct Process {
    directory: OwnedFd,
}

impl Process {
    /// Opens `/proc/PID`.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn open(directory: &Path) -> io::Result<Process> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Process { directory: openat(CWD, directory, flags, Mode::empty())? })
    }

    /// Whether the kernel counts it to the container with this full id.
    pub fn is_in(&self, container_id: &str) -> bool {
        self.read("cgroup")
            .is_ok_and(|cgroups| is_in_container(&String::from_utf8_lossy(&cgroups), container_id))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::from(self.open_entry(name, OFlags::RDONLY)?).read_to_end(&mut content)?;
        Ok(content)
    }

    fn open_entry(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(openat(&self.directory, name, flags | OFlags::CLOEXEC, Mode::empty())?)
    }
}

/// Whether `/proc/PID/cgroup`, of either version, names the container; its conmon is not in it.
fn is_in_container(cgroups: &str, container_id: &str) -> bool {
    const FULL_ID: usize = 64;
    container_id.len() == FULL_ID
        && cgroups
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .flat_map(|path| path.split('/'))
            .map(|part| part.strip_suffix(".scope").unwrap_or(part))
            .any(|part| {
                ["", "docker-", "libpod-"]
                    .iter()
                    .any(|prefix| part.strip_prefix(prefix) == Some(container_id))
            })
}

/// Makes a user namespace with these maps. No process is left in it.
///
/// # Errors
/// Where the kernel refuses to make one, or this process may not write its maps, user_namespaces(7).
pub fn user_namespace(uids: &[Extent], gids: &[Extent]) -> Result<OwnedFd> {
    let failed = |source: io::Error| {
        let used_up = source.raw_os_error() == Some(libc::ENOSPC);
        let error = Error::new(Kind::Failure, "cannot make a user namespace for the owners of files");
        let error = error.with_source(source).hint(HOST_IDS_HINT);
        if used_up {
            error.hint("`sysctl user.max_user_namespaces` says how many there may be")
        } else {
            error
        }
    };
    let holder = NamespaceHolder::start().map_err(failed)?;
    let directory = PathBuf::from(format!("/proc/{}", holder.pid()));
    let write = |name, extents| fs::write(directory.join(name), render_map(extents));
    write("uid_map", uids).and_then(|()| write("gid_map", gids)).map_err(failed)?;
    Ok(File::open(directory.join("ns/user")).map_err(failed)?.into())
}

/// As the kernel reads a map: the namespace's ids, which stand for those on disk, then those that are seen.
fn render_map(extents: &[Extent]) -> String {
    extents.iter().map(|extent| format!("{} {} {}\n", extent.disk, extent.seen, extent.count)).collect()
}

/// A detached copy of the directory's mount, with all that is mounted below, whose owners are mapped by the user
/// namespace.
///
/// # Errors
/// Names the file system that refuses; or the kernel is too old, or this process has no CAP_SYS_ADMIN.
pub fn idmapped_clone(source: &Source, user_namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    let name = source.name.display();
    let failed = |what: String, error: io::Error| {
        if error.raw_os_error() == Some(libc::ENOSYS) {
            Error::new(Kind::Failure, "this kernel cannot map the owners of files in a mount")
                .with_source(error)
                .hint("Linux 5.12 and later can")
        } else {
            Error::new(Kind::Failure, what).with_source(error)
        }
        .hint(HOST_IDS_HINT)
    };
    let clone = detached_clone(source.directory.as_fd(), true)
        .map_err(|error| failed(format!("cannot copy the mount of `{name}`"), error))?;
    match idmap(clone.as_fd(), user_namespace, true) {
        Ok(()) => Ok(clone),
        Err(error) => Err(match refusing_mount(source, user_namespace) {
            Some(mount) => {
                let why = if mount.idmapped { "is mapped already" } else { "refuses" };
                let what = format!(
                    "cannot map the owners of files in `{}`: its file system, {}, {why}",
                    mount.point.display(),
                    mount.file_system
                );
                failed(what, error)
            }
            None => failed(format!("cannot map the owners of files in `{name}`"), error),
        }),
    }
}

fn detached_clone(directory: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(directory, "", flags)?)
}

/// The first mount at or below the directory whose owners cannot be mapped, at the place that the user knows.
fn refusing_mount(source: &Source, user_namespace: BorrowedFd<'_>) -> Option<mountinfo::Mount> {
    let mounts = mountinfo::parse(&fs::read("/proc/self/mountinfo").ok()?);
    let path = fs::read_link(format!("/proc/self/fd/{}", source.directory.as_raw_fd())).ok()?;
    let own = look(source.directory.as_fd()).ok()?.stx_mnt_id;
    let refuses = |directory: BorrowedFd<'_>| {
        detached_clone(directory, false)
            .and_then(|clone| idmap(clone.as_fd(), user_namespace, false))
            .is_err()
    };
    if refuses(source.directory.as_fd()) {
        let found = mounts.into_iter().find(|mount| mount.id == own)?;
        return Some(mountinfo::Mount { point: source.name.clone(), ..found });
    }
    let found = mountinfo::below(&mounts, &path).filter(|mount| mount.id != own).find(|mount| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(CWD, &mount.point, flags, Mode::empty()).is_ok_and(|directory| refuses(directory.as_fd()))
    })?;
    let point = source.name.join(found.point.strip_prefix(&path).ok()?);
    Some(mountinfo::Mount { point, ..found.clone() })
}

/// Mounts each directory, its owners mapped so that `ids` are the pod's user, in the mount namespace of a pod's
/// process. A directory that is there already is left as it is, another one that was mounted so is taken away.
///
/// The target must be one of the sealed mountpoints that the pod was made with: nothing is ever mounted over a
/// directory that the pod can write to.
///
/// # Errors
/// As [`user_namespace`] and [`idmapped_clone`], before anything is mounted. Then where the process has ended, this one
/// may not enter its namespaces (CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE), or a target is not such a mountpoint.
pub fn mount_in(pod: &Process, mappings: &[Mapping], ids: Ids) -> Result<()> {
    let namespace = user_namespace(&swap_map(ids.uid), &swap_map(ids.gid))?;
    let clones = mappings
        .iter()
        .map(|mapping| idmapped_clone(&mapping.source, namespace.as_fd()))
        .collect::<Result<Vec<_>>>()?;
    let cannot_enter = |source: io::Error| {
        Error::new(Kind::Failure, "cannot enter the pod's mount namespace")
            .with_source(source)
            .hint(HOST_IDS_HINT)
    };
    let root = pod.open_entry("root", OFlags::PATH).map_err(cannot_enter)?;
    let mounts = pod.open_entry("ns/mnt", OFlags::RDONLY).map_err(cannot_enter)?;
    let work = || {
        unshare_root_and_cwd()
            .and_then(|()| Ok(move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?))
            .map_err(cannot_enter)?;
        mappings.iter().zip(&clones).try_for_each(|(mapping, clone)| {
            attach(pod, root.as_fd(), clone.as_fd(), &mapping.target).map_err(|source| {
                let target = mapping.target.display();
                Error::new(Kind::Failure, format!("cannot mount `{target}` in the pod")).with_source(source)
            })
        })
    };
    // A thread of its own: it does not come back from the other namespace.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work);
        let thread = thread.context(Kind::Failure, || "cannot start a thread")?;
        thread.join().unwrap_or_else(|_| Err(cannot_enter(io::Error::other("its thread panicked"))))
    })
}

/// Puts the detached mount on the target, and looks that it got there.
fn attach(pod: &Process, root: BorrowedFd<'_>, clone: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let wanted = look(clone)?;
    for _ in 0..ATTEMPTS {
        let found = walk(root, target).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => {
                io::Error::other("it is not a directory, or leads over a symbolic link")
            }
            _ => error,
        })?;
        let seen = look(found.as_fd())?;
        if is_sealed(found.as_fd(), &seen)? {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(clone, "", &found, "", flags)?;
        } else if !is_idmapped(pod, &seen)? {
            // Never uncovered: what is under an engine's mount may be the pod's to write.
            return Err(io::Error::other("it is not a mountpoint that the pod was made with"));
        } else if is_same_directory(&wanted, &seen) {
            return Ok(());
        } else {
            rustix::process::fchdir(&found)?;
            unmount(".", UnmountFlags::DETACH)?;
        }
    }
    Err(io::Error::other("other mounts keep appearing over it"))
}

/// Opens a directory below `root`, component by component, following no symbolic link.
fn walk(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = root.try_clone_to_owned()?;
    for component in path.components() {
        match component {
            Component::Normal(name) => directory = openat(&directory, name, flags, Mode::empty())?,
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(directory)
}

fn look(directory: BorrowedFd<'_>) -> io::Result<Statx> {
    let fields = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    Ok(statx(directory, "", AtFlags::EMPTY_PATH, fields)?)
}

/// Whether it is the read-only tmpfs of one page that pods are made with where a share will be mounted. Its mode says
/// nothing: runc gives it that of the directory below, where there is one.
fn is_sealed(directory: BorrowedFd<'_>, seen: &Statx) -> io::Result<bool> {
    let space = fstatvfs(directory)?;
    Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        && space.f_flag.contains(StatVfsMountFlags::RDONLY)
        && space.f_blocks == 1
        && rustix::fs::fstatfs(directory)?.f_type == libc::TMPFS_MAGIC)
}

/// Whether both are one directory with the same owners, as seen through the same map.
fn is_same_directory(wanted: &Statx, seen: &Statx) -> bool {
    let identity = |found: &Statx| {
        (found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_uid, found.stx_gid)
    };
    identity(wanted) == identity(seen)
}

/// Whether it is the root of a mount with mapped owners, which only we make.
fn is_idmapped(pod: &Process, seen: &Statx) -> io::Result<bool> {
    let mounts = mountinfo::parse(&pod.read("mountinfo")?);
    Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        && mounts.iter().any(|mount| mount.id == seen.stx_mnt_id && mount.idmapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn cgroups_of_both_versions_and_drivers_name_the_container() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/libpod_parent/libpod-ID",
            "/machine.slice/libpod-ID.scope/container",
            "/../../docker/ID",
        ] {
            let path = path.replace("ID", ID);
            assert!(is_in_container(&format!("0::{path}\n"), ID), "{path}");
            assert!(is_in_container(&format!("12:cpu,cpuacct:/\n1:name=systemd:{path}\n"), ID), "{path}");
        }
    }

    #[test]
    fn other_cgroups_do_not_name_the_container() {
        let other = ID.replace('0', "1");
        for cgroups in [
            "0::/\n".to_owned(),
            format!("0::/docker/{other}\n"),
            format!("0::/docker/{ID}0\n"),
            format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"),
            ID.to_owned(),
        ] {
            assert!(!is_in_container(&cgroups, ID), "{cgroups}");
        }
        assert!(!is_in_container("0::/docker/0123\n", "0123"), "a short id is not enough");
        assert!(!is_in_container("0::/docker/\n", ""));
    }

    #[test]
    fn maps_are_rendered_disk_first() {
        assert_eq!(
            render_map(&swap_map(1234)),
            "0 0 1000\n1000 1234 1\n1001 1001 233\n1234 1000 1\n1235 1235 4294966060\n"
        );
    }

    #[test]
    fn walking_follows_no_link_and_goes_nowhere_up() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", directory.path().join("link")).unwrap();
        let root = File::open(directory.path()).unwrap();
        assert!(walk(root.as_fd(), Path::new("/a/b")).is_ok());
        for path in ["/link", "/link/b", "/a/../a", "/missing"] {
            assert!(walk(root.as_fd(), Path::new(path)).is_err(), "{path}");
        }
    }
}
