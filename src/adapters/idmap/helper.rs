//! Who mounts: this process where it may, or else a helper container.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::{self, Display, Write};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

use super::{Mapping, Process, Source, mount_in};
use crate::adapters::engine::{Created, Endpoint, Engine, Helper, can_spell};
use crate::error::{Context, Error, Kind, Result};
use crate::pod::ownership::Ids;
use crate::pod::spec::{AgentSource, Share};

/// What mounting in a pod takes: mounts, the pod's namespaces, maps of ids that include root's, and directories of others
/// on the way to a target.
const CAPABILITIES: [(&str, CapabilitySet); 7] = [
    ("SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("SYS_CHROOT", CapabilitySet::SYS_CHROOT),
    ("SYS_PTRACE", CapabilitySet::SYS_PTRACE),
    ("SETUID", CapabilitySet::SETUID),
    ("SETGID", CapabilitySet::SETGID),
    ("SETFCAP", CapabilitySet::SETFCAP),
    ("DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
];

/// A pod whose processes run.
#[derive(Clone, Copy, Debug)]
pub struct RunningPod<'a> {
    /// The container's full id.
    pub id: &'a str,
    /// PID 1 as the engine's machine sees it.
    pub pid: i64,
    /// The container's image, for the helper's root filesystem.
    pub image: &'a str,
    /// How the agent got into the pod.
    pub agent: &'a AgentSource,
}

/// Why a helper failed, as it tells its caller.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    message: String,
    hints: Vec<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure { message: error.to_string(), hints: error.hints().to_vec() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.hints.into_iter().fold(Error::new(Kind::Failure, failure.message), Error::hint)
    }
}

/// Mounts the shares in the pod, their owners mapped so that `ids` are the pod's user; those that are there already are
/// left as they are.
///
/// This process does it where it is root on the engine's machine; otherwise a helper container that joins the pod's pid
/// namespace. Where that is interrupted, `helper` is left to be removed.
///
/// # Errors
/// As [`mount_in`]; [`Kind::Engine`] where the engine refuses the helper, or is not on this machine.
pub async fn mount(
    engine: &Engine,
    pod: RunningPod<'_>,
    shares: &[Share],
    ids: Ids,
    helper: &Created,
) -> Result<()> {
    if let Endpoint::Http(address) = engine.endpoint() {
        return Err(Error::new(
            Kind::Engine,
            format!("the engine at `{address}` does not see this machine's files"),
        )
        .hint("idmapped mounts need an engine on this machine"));
    }
    if pod.pid <= 0 {
        return Err(Error::new(Kind::Failure, "cannot mount in a pod that does not run"));
    }
    // Also for the helper: Podman makes a missing directory.
    let mappings = shares
        .iter()
        .map(|share| Ok(Mapping { source: Source::open(&share.source)?, target: share.target.clone() }))
        .collect::<Result<Vec<_>>>()?;
    match reachable(pod) {
        Some(process) => mount_in(&process, &mappings, ids),
        None => mount_by_helper(engine, pod, shares, ids, helper).await,
    }
}

/// The pod's PID 1, where this process may enter its namespaces and sees that it is the pod's.
fn reachable(pod: RunningPod<'_>) -> Option<Process> {
    let ours = capabilities(None).ok()?.effective;
    if !CAPABILITIES.iter().all(|(_, capability)| ours.contains(*capability)) {
        return None;
    }
    Process::open(Path::new(&format!("/proc/{}", pod.pid))).ok().filter(|process| process.is_in(pod.id))
}

async fn mount_by_helper(
    engine: &Engine,
    pod: RunningPod<'_>,
    shares: &[Share],
    ids: Ids,
    created: &Created,
) -> Result<()> {
    let directory = unguessable_directory().context(Kind::Failure, || "cannot read random numbers")?;
    let agent = format!("{directory}/tazpod");
    let mut command = vec![
        agent.clone(),
        "agent".into(),
        "mount".into(),
        format!("--uid={}", ids.uid),
        format!("--gid={}", ids.gid),
    ];
    let mut binds = vec![(agent_binary(pod.agent)?, agent, true)];
    for (number, share) in shares.iter().enumerate() {
        let (bound, rest) = bindable(&share.source);
        let target = format!("{directory}/{number}");
        let argument = ShareArgument {
            source: Path::new(&target).join(rest),
            target: share.target.clone(),
            name: share.source.clone(),
        };
        command.push(argument.to_string());
        binds.push((bound.to_owned(), target, false));
    }
    let helper = Helper {
        user: None,
        image: pod.image.to_owned(),
        command,
        capabilities: CAPABILITIES.iter().map(|(name, _)| *name).collect(),
        binds,
        pid_mode: Some(format!("container:{}", pod.id)),
    };
    match engine.run_helper(&helper, created).await? {
        (0, _) => Ok(()),
        (code, output) => Err(match serde_json::from_str::<Failure>(&output) {
            Ok(failure) => failure.into(),
            Err(_) => {
                Error::new(Kind::Failure, format!("the helper that mounts in the pod failed with {code}"))
                    .with_source(io::Error::other(output))
            }
        }),
    }
}

/// The file that the helper runs: always this machine's own. The image's is the word of a label, and the helper may do
/// whatever root may.
fn agent_binary(agent: &AgentSource) -> Result<PathBuf> {
    if let AgentSource::Mount(path) = agent {
        return Ok(path.clone());
    }
    let path = std::env::current_exe().context(Kind::Failure, || "cannot find tazpod's own binary")?;
    if path.exists() {
        return Ok(path);
    }
    Err(Error::new(Kind::Failure, "tazpod's own binary was replaced while it runs")
        .hint("run the command again"))
}

/// A directory in the helper that its image cannot have prepared: a symbolic link there could lead into the pod, and
/// have the helper run the pod's files.
fn unguessable_directory() -> io::Result<String> {
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().fold(String::from("/.tazpod-"), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    }))
}

/// The longest part of a path that every engine binds as it is, and the rest.
fn bindable(path: &Path) -> (&Path, &Path) {
    let bound = path.ancestors().find(|path| can_spell(path)).unwrap_or(Path::new("/"));
    (bound, path.strip_prefix(bound).unwrap_or(Path::new("")))
}

/// The helper's side: mounts in the process that is PID 1 in its pid namespace.
///
/// # Errors
/// As [`mount_in`].
pub fn mount_as_helper(shares: &[ShareArgument], ids: Ids) -> Result<()> {
    let process =
        Process::open(Path::new("/proc/1")).context(Kind::Failure, || "cannot find the pod's process")?;
    let mappings = shares
        .iter()
        .map(|share| {
            let source = Source::open_exactly(&share.source, &share.name)?;
            Ok(Mapping { source, target: share.target.clone() })
        })
        .collect::<Result<Vec<_>>>()?;
    mount_in(&process, &mappings, ids)
}

/// A share on the helper's command line: `SOURCE=TARGET=NAME`, each percent-encoded, so that any path survives JSON and
/// an argument list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareArgument {
    /// In the helper.
    pub source: PathBuf,
    /// In the pod.
    pub target: PathBuf,
    /// On the host, for messages.
    pub name: PathBuf,
}

impl Display for ShareArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}={}", encode(&self.source), encode(&self.target), encode(&self.name))
    }
}

impl FromStr for ShareArgument {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ShareArgument, Self::Err> {
        let mut paths = text.split('=').map(decode);
        match (paths.next().flatten(), paths.next().flatten(), paths.next().flatten(), paths.next()) {
            (Some(source), Some(target), Some(name), None) => Ok(ShareArgument { source, target, name }),
            _ => Err("not of the form SOURCE=TARGET=NAME, percent-encoded"),
        }
    }
}

fn encode(path: &Path) -> String {
    let encoded = path.as_os_str().as_bytes().iter().map(|&byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
            Cow::from(char::from(byte).to_string())
        }
        _ => Cow::from(format!("%{byte:02x}")),
    });
    encoded.collect()
}

fn decode(text: &str) -> Option<PathBuf> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            digit(bytes.next()?)? << 4 | digit(bytes.next()?)?
        } else {
            byte
        });
    }
    Some(OsString::from_vec(decoded).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> PathBuf {
        OsString::from_vec(bytes.to_vec()).into()
    }

    #[test]
    fn any_path_survives_the_command_line() {
        for odd in
            [&b"/a b"[..], b"/a=b", b"/a\nb", "/ü€".as_bytes(), b"/\xff\xfe", b"/100%", b"/%41", b"/", b"/-"]
        {
            let share = ShareArgument { source: path(odd), target: "/workspace".into(), name: path(odd) };
            let text = share.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(text.parse(), Ok(share));
        }
        let plain =
            ShareArgument { source: "/s/0".into(), target: "/workspace".into(), name: "/home/a b".into() };
        assert_eq!(plain.to_string(), "/s/0=/workspace=/home/a%20b");
    }

    #[test]
    fn malformed_arguments_are_refused() {
        for text in ["", "/a", "/a=/b", "/a=/b=/c=/d", "/a=/b=%", "/a=/b=%g0", "/a=/b=%4"] {
            assert!(text.parse::<ShareArgument>().is_err(), "{text}");
        }
    }

    #[test]
    fn binds_what_engines_can_spell() {
        let split = |odd: &[u8]| {
            let odd = path(odd);
            let (bound, rest) = bindable(&odd);
            (bound.to_owned(), rest.to_owned())
        };
        assert_eq!(split("/home/ü b/=w".as_bytes()), ("/home/ü b/=w".into(), "".into()));
        assert_eq!(split(b"/home/\xff/w"), ("/home".into(), path(b"\xff/w")));
        assert_eq!(split(b"/a,b"), ("/".into(), "a,b".into()));
        assert_eq!(split(b"/w/a\nb/c"), ("/w".into(), "a\nb/c".into()));
    }

    #[test]
    fn failures_keep_their_hints() {
        let error = Error::new(Kind::Failure, "no").with_source(io::Error::other("why")).hint("do");
        let text = serde_json::to_string(&Failure::from(&error)).unwrap();
        let back = Error::from(serde_json::from_str::<Failure>(&text).unwrap());
        assert_eq!(back.to_string(), "no: why");
        assert_eq!(back.hints(), ["do"]);
    }
}
