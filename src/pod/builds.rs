//! `[pod] builds`: a pod in which images can be built, by Buildah or by the engine that Podman is there.
//!
//! A builder without root needs a user namespace of its own, mounts in it, and chroot(2). The engines' seccomp profiles forbid these (Docker's
//! all, Podman's chroot(2)), and AppArmor's profile for containers forbids mounts. Such a pod has another profile, which allows [`GRANTED`], and
//! no AppArmor; no capability and no device more. Builders run each step by chroot, in the pod's own network and among its processes.

use serde_json::{Value, json};

use super::ownership::Ids;
use super::spec::Service;
use crate::env;

/// The volume that images are built in: the overlay of a builder cannot stand on that of the pod. It goes with the pod.
pub const STORAGE: &str = "/var/lib/tazpod/builds";
/// The engine of the pod: Podman's API.
pub const SOCKET: &str = "/var/lib/tazpod/builds/podman.sock";
/// Where Podman and Buildah read that they are to use [`STORAGE`].
const CONFIGURATION: &str = "/etc/tazpod/storage.conf";

/// System calls that such a pod has besides those of [`ORDINARY`]: to make and to enter namespaces, to mount in them, and to change the root.
/// Not needed, and not granted: pivot_root, umount, sethostname, and the newer calls to mount (fsopen and those about it).
pub const GRANTED: &[&str] = &["chroot", "clone", "clone3", "mount", "setns", "umount2", "unshare"];

/// System calls that Docker's and Podman's own profiles allow a process without capabilities, without those that make a namespace, and
/// without the few of which one of them thinks otherwise (moby's default.json, containers-common 0.50).
const ORDINARY: &str = "
_llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bind breakpoint brk cacheflush
cachestat capget capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group
faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents
getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
getuid getuid32 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents 
io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise
map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt
mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap msgctl
msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
process_mrelease pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readdir
readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid
setsockopt setuid setuid32 setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigpending sigprocmask sigreturn
socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs
sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname
unlink unlinkat utime utimensat utimensat_time64 utimes vfork wait4 waitid waitpid write writev";

/// AF_VSOCK: the way to services of a hypervisor, for which no container is meant.
const VSOCK: u64 = 40;

/// What personality(2) may be asked for: nothing, Linux in 32 bits, the release 2.6, both, and what is set.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile for seccomp, in the engines' JSON.
pub fn profile() -> String {
    let allow = |names: Value, args: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
    let names: Vec<&str> = ORDINARY.split_whitespace().chain(GRANTED.iter().copied()).collect();
    let one = |name: &str, operator: &str, value: u64| {
        allow(json!([name]), json!([{"index": 0, "value": value, "valueTwo": 0, "op": operator}]))
    };
    let personality = |value: &u64| one("personality", "SCMP_CMP_EQ", *value);
    let syscalls: Vec<Value> = [allow(json!(names), json!([])), one("socket", "SCMP_CMP_NE", VSOCK)]
        .into_iter()
        .chain(PERSONALITIES.iter().map(personality))
        .collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        // ENOSYS, on which programs take an older call. Docker before 23 says EPERM.
        "defaultErrnoRet": 38,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": syscalls,
    })
    .to_string()
}

/// What the programs of such a pod are told.
pub fn environment() -> [(String, String); 3] {
    [
        ("BUILDAH_ISOLATION", "chroot".to_owned()),
        ("CONTAINERS_STORAGE_CONF", CONFIGURATION.to_owned()),
        (env::TAZPOD_ENGINE, format!("unix://{SOCKET}")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// The engine of such a pod.
pub fn service() -> Service {
    let script = format!("rm -f {SOCKET}; exec podman system service --time=0 unix://{SOCKET}");
    Service {
        name: "builds".into(),
        command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        port: None,
        url: None,
        vault: false,
    }
}

/// Files that such a pod has, by their paths below `/`: root's, readable by all.
pub fn files(user: Ids, rootless: bool) -> [(&'static str, String); 3] {
    // Ids of the pod's own: where it is rootless, it has 65536.
    let (first, count) = match user.uid {
        _ if rootless => (2000, 60_000),
        // Not the user's own.
        100_000..165_536 => (200_000, 65_536),
        _ => (100_000, 65_536),
    };
    let ids = format!("{}:{first}:{count}\n", user.uid);
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\nrootless_storage_path = \"{STORAGE}/storage\"\nrunroot = \"/tmp/tazpod-builds\"\n"
    );
    [("etc/subuid", ids.clone()), ("etc/subgid", ids), (CONFIGURATION.trim_start_matches('/'), storage)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_grants_what_it_says_and_each_call_once() {
        let profile: Value = serde_json::from_str(&profile()).unwrap();
        let rules = profile["syscalls"].as_array().unwrap();
        let names: Vec<&str> =
            rules[0]["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        for name in GRANTED {
            assert_eq!(names.iter().filter(|other| other == &name).count(), 1, "{name}");
        }
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
        for name in [
            "pivot_root",
            "bpf",
            "keyctl",
            "open_by_handle_at",
            "init_module",
            "userfaultfd",
            "fsopen",
            "socket",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
        assert!(rules[1..].iter().all(|rule| rule["args"][0]["value"].is_u64()));
    }
}
