//! A root filesystem without a container registry: bootstrapped from the distribution's mirror by the host's
//! `mmdebstrap` or `debootstrap`, and imported.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::stream;

use super::log::BuildLog;
use super::mirror::Mirror;
use crate::adapters::child::Program;
use crate::adapters::engine::Engine;
use crate::context::Context;
use crate::error::{Context as _, Error, Kind, Result};

/// The name of bootstrapped root filesystems in the engine.
pub const REPOSITORY: &str = "localhost/tazpod-rootfs";

/// How long a bootstrap may take, on a slow line.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Packages besides the essential ones: mirrors may speak HTTPS.
const INCLUDE: &str = "--include=ca-certificates";

/// What can be bootstrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// trixie.
    Debian13,
    /// noble.
    Ubuntu2404,
}

impl Distribution {
    /// The one for a host with this `/etc/os-release`: Ubuntu on Ubuntu and its likes, Debian elsewhere.
    pub fn for_host(os_release: &str) -> Distribution {
        let is = |key| {
            let value = field(os_release, key);
            value.is_some_and(|value| value.split_whitespace().any(|word| word == "ubuntu"))
        };
        if is("ID") || is("ID_LIKE") { Distribution::Ubuntu2404 } else { Distribution::Debian13 }
    }

    /// The tag in [`REPOSITORY`].
    pub fn tag(self) -> &'static str {
        match self {
            Distribution::Debian13 => "debian-13",
            Distribution::Ubuntu2404 => "ubuntu-24.04",
        }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Distribution::Debian13 => "Debian 13",
            Distribution::Ubuntu2404 => "Ubuntu 24.04",
        }
    }

    /// The reference of the imported image.
    pub fn reference(self) -> String {
        format!("{REPOSITORY}:{}", self.tag())
    }

    fn suite(self) -> &'static str {
        match self {
            Distribution::Debian13 => "trixie",
            Distribution::Ubuntu2404 => "noble",
        }
    }

    fn keyring(self) -> &'static str {
        match self {
            Distribution::Debian13 => "/usr/share/keyrings/debian-archive-keyring.gpg",
            Distribution::Ubuntu2404 => "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        }
    }

    fn install_hint(self) -> &'static str {
        match self {
            Distribution::Debian13 => "`sudo apt install mmdebstrap debian-archive-keyring`",
            Distribution::Ubuntu2404 => "`sudo apt install mmdebstrap ubuntu-keyring`",
        }
    }

    fn default_mirror(self, machine: &str) -> Mirror {
        let (main, security) = match self {
            Distribution::Debian13 => {
                ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
            }
            Distribution::Ubuntu2404 if machine == "x86_64" => {
                ("http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu")
            }
            Distribution::Ubuntu2404 => {
                ("http://ports.ubuntu.com/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports")
            }
        };
        Mirror { main: Some(main.into()), security: Some(security.into()) }
    }

    /// The lines of `sources.list`, the suite itself first.
    fn sources(self, mirror: &Mirror) -> Vec<String> {
        let (suite, components) = match self {
            Distribution::Debian13 => (self.suite(), "main"),
            Distribution::Ubuntu2404 => (self.suite(), "main universe"),
        };
        let main = mirror.main.iter().flat_map(|uri| {
            [format!("deb {uri} {suite} {components}"), format!("deb {uri} {suite}-updates {components}")]
        });
        let security = mirror.security.iter().map(|uri| format!("deb {uri} {suite}-security {components}"));
        main.chain(security).collect()
    }
}

/// A field of `/etc/os-release`.
fn field<'a>(os_release: &'a str, key: &str) -> Option<&'a str> {
    let value = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']))
}

/// The host's program that bootstraps.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tool {
    Mmdebstrap(PathBuf),
    /// `unshare`, where it is there, keeps its mounts from outliving it.
    Debootstrap {
        program: PathBuf,
        unshare: Option<PathBuf>,
    },
}

/// A bootstrap: a program that writes the root filesystem to stdout, as a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bootstrap {
    program: PathBuf,
    arguments: Vec<String>,
}

/// Programs leave the host's name, resolver and downloaded packages in the root filesystem.
const TIDY: &str = r#"rm -f "$1/etc/resolv.conf" "$1/etc/hostname""#;

impl Bootstrap {
    fn new(
        tool: &Tool,
        distribution: Distribution,
        mirror: &Mirror,
        root: bool,
        scratch: &Path,
    ) -> Bootstrap {
        let sources = distribution.sources(mirror);
        let keyring = format!("--keyring={}", distribution.keyring());
        match tool {
            Tool::Mmdebstrap(program) => {
                let mut arguments: Vec<String> = vec![
                    format!("--mode={}", if root { "root" } else { "unshare" }),
                    "--variant=minbase".into(),
                    "--format=tar".into(),
                    INCLUDE.into(),
                    keyring,
                    // The engine makes /dev; an ordinary user could not unpack its nodes.
                    "--skip=output/dev".into(),
                    format!("--customize-hook={TIDY}"),
                    distribution.suite().into(),
                    "-".into(),
                ];
                arguments.extend(sources);
                Bootstrap { program: program.clone(), arguments }
            }
            Tool::Debootstrap { program, unshare } => {
                // $0 debootstrap, $1 the directory, $2 the sources, then debootstrap's own arguments.
                let script = format!(
                    r#"set -e; tool=$0 sources=$2; root=$1; shift 2; "$tool" "$@" >&2; set -- "$root"
                    printf '%s\n' "$sources" >"$1/etc/apt/sources.list"; {TIDY}
                    rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
                    exec tar --create --numeric-owner --one-file-system --exclude='./dev/*' --directory "$1" ."#
                );
                let directory = scratch.join("root").to_string_lossy().into_owned();
                let mut arguments: Vec<String> = Vec::new();
                if unshare.is_some() {
                    let own = ["--mount", "--pid", "--fork", "--kill-child=SIGTERM", "--", "/bin/sh"];
                    arguments.extend(own.map(str::to_owned));
                }
                arguments.extend(["-c".into(), script, program.to_string_lossy().into_owned()]);
                arguments.extend([directory.clone(), sources.join("\n")]);
                arguments.extend(["--variant=minbase".into(), INCLUDE.into(), keyring]);
                arguments.extend([distribution.suite().into(), directory]);
                arguments.extend(mirror.main.clone());
                Bootstrap { program: unshare.clone().unwrap_or_else(|| "/bin/sh".into()), arguments }
            }
        }
    }
}

/// The distribution that this host would bootstrap.
pub fn distribution() -> Distribution {
    Distribution::for_host(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// Bootstraps and imports a root filesystem; its reference.
///
/// # Errors
/// [`Kind::Image`]: no program for it, no keyring, the program's failure, the engine's refusal. Nothing is left.
pub async fn bootstrap(context: &Context, engine: &Engine, log: &mut BuildLog) -> Result<String> {
    let distribution = distribution();
    let root = rustix::process::geteuid().is_root();
    let tool = tool(distribution, root)?;
    if !Path::new(distribution.keyring()).exists() {
        let what =
            format!("cannot bootstrap {}: `{}` is missing", distribution.describe(), distribution.keyring());
        return Err(
            Error::new(Kind::Image, what).hint(format!("install it: {}", distribution.install_hint()))
        );
    }
    let mirror = host_mirror(distribution);
    let scratch = Scratch::create()?;
    let bootstrap = Bootstrap::new(&tool, distribution, &mirror, root, &scratch.0);
    let mut command = Command::new(&bootstrap.program);
    command.args(&bootstrap.arguments).env("TMPDIR", &scratch.0).env("LC_ALL", "C.UTF-8").current_dir("/");
    let doing = format!("bootstrapping {}", distribution.describe());
    let _step = context.ui.step(doing.as_str());
    log.line(&format!("{} {}", bootstrap.program.display(), bootstrap.arguments.join(" ")));

    let temporary = format!("tmp-{}", std::process::id());
    let program = Program::start(command)
        .context(Kind::Image, || format!("cannot start `{}`", bootstrap.program.display()))?;
    let undo = {
        let (group, engine, name) = (program.group(), engine.clone(), format!("{REPOSITORY}:{temporary}"));
        async move {
            group.end().await;
            drop(scratch);
            // The error that counts is the one that led here.
            let _ = engine.remove_image(&name, true).await;
        }
    };
    let armed = context.arm(undo);
    let import = stream_into(engine, program, &temporary, log);
    match tokio::time::timeout(TIMEOUT, import).await {
        Ok(done) => done.map_err(|error| explain(error, distribution, root, log))?,
        Err(_) => {
            let minutes = TIMEOUT.as_secs() / 60;
            return Err(Error::new(Kind::Image, format!("{doing} took longer than {minutes} minutes")));
        }
    }
    engine.tag(&format!("{REPOSITORY}:{temporary}"), REPOSITORY, distribution.tag()).await?;
    engine.remove_image(&format!("{REPOSITORY}:{temporary}"), false).await?;
    context.disarm(armed);
    Ok(distribution.reference())
}

/// Imports what the program writes. A program that fails has written a tar that ends early, which no engine
/// would notice: the import is not let come to its end before the program has come to a good one.
async fn stream_into(engine: &Engine, mut program: Program, tag: &str, log: &mut BuildLog) -> Result<()> {
    // Nothing comes for as long as the bootstrap lasts, and engines do not wait that long for a request.
    let first = loop {
        tokio::select! {
            biased;
            Some(line) = program.lines.recv() => log.line(&line),
            chunk = program.output.recv() => break chunk,
        }
    };
    let (chunks, received) = tokio::sync::mpsc::channel(1);
    let body = stream::unfold(received, |mut received| async { Some((received.recv().await?, received)) });
    let feed = async {
        let mut next = first;
        while let Some(chunk) = next {
            if chunks.send(chunk).await.is_err() {
                // The engine stopped reading; its own error says why.
                return std::future::pending().await;
            }
            next = tokio::select! {
                biased;
                Some(line) = program.lines.recv() => {
                    log.line(&line);
                    program.output.recv().await
                }
                chunk = program.output.recv() => chunk,
            };
        }
        while let Some(line) = program.lines.recv().await {
            log.line(&line);
        }
        let status = program.wait().await.context(Kind::Image, || "cannot wait for the bootstrap")?;
        if !status.success() {
            return Err(Error::new(Kind::Image, format!("the bootstrap ended with {status}")));
        }
        drop(chunks);
        std::future::pending().await
    };
    tokio::select! {
        done = engine.import_rootfs(REPOSITORY, tag, body) => done,
        failed = feed => failed,
    }
}

fn explain(error: Error, distribution: Distribution, root: bool, log: &BuildLog) -> Error {
    log.show_tail();
    let error = Error::new(error.kind(), format!("cannot bootstrap {}", distribution.describe()))
        .with_source(error)
        .hint(format!("the whole output is in `{}`", log.path().display()));
    if root {
        return error;
    }
    error.hint("without root, it needs the package `uidmap` and lines for you in /etc/subuid and /etc/subgid")
}

fn tool(distribution: Distribution, root: bool) -> Result<Tool> {
    if let Some(program) = find_program("mmdebstrap") {
        return Ok(Tool::Mmdebstrap(program));
    }
    let debootstrap = find_program("debootstrap");
    let what = match &debootstrap {
        Some(program) if root => {
            return Ok(Tool::Debootstrap { program: program.clone(), unshare: find_program("unshare") });
        }
        Some(_) => "`debootstrap` needs root, and `mmdebstrap` is not there",
        None => "neither `mmdebstrap` nor `debootstrap` is there",
    };
    Err(Error::new(Kind::Image, format!("cannot bootstrap {}: {what}", distribution.describe()))
        .hint(format!("install it: {}", distribution.install_hint())))
}

/// In `PATH`, or where programs of the administrator are.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The host's own mirror where it has one for this distribution, otherwise the distribution's.
fn host_mirror(distribution: Distribution) -> Mirror {
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let key = match distribution {
        Distribution::Debian13 if field(&os_release, "ID") != Some("debian") => None,
        Distribution::Debian13 => Some("VERSION_CODENAME"),
        Distribution::Ubuntu2404 => Some("UBUNTU_CODENAME"),
    };
    let Some(codename) = key.and_then(|key| field(&os_release, key)) else {
        return distribution.default_mirror(std::env::consts::ARCH);
    };
    let directory = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten();
    let mut paths: Vec<PathBuf> = directory.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.push("/etc/apt/sources.list".into());
    paths.sort();
    let read = |extension: &str| -> Vec<String> {
        let fitting = paths.iter().filter(|path| path.extension().is_some_and(|e| e == extension));
        fitting.filter_map(|path| fs::read_to_string(path).ok()).collect()
    };
    let (one_line, deb822) = (read("list"), read("sources"));
    let found =
        Mirror::of_host(codename, one_line.iter().map(String::as_str), deb822.iter().map(String::as_str));
    if found.main.is_some() { found } else { distribution.default_mirror(std::env::consts::ARCH) }
}

/// A directory for the bootstrap, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    /// In `TMPDIR` or /var/tmp, as /tmp is often small, in RAM or without devices.
    fn create() -> Result<Scratch> {
        let parent =
            std::env::var_os("TMPDIR").filter(|value| !value.is_empty()).unwrap_or("/var/tmp".into());
        let path = Path::new(&parent).join(format!("tazpod-rootfs-{}", std::process::id()));
        // The subordinate ids of an unshared bootstrap must get through.
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .map_err(|source| Error::io("make the directory", &path, source))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever was killed at its hardest may leave what is not ours to remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror() -> Mirror {
        Mirror { main: Some("http://m/debian".into()), security: Some("http://s/debian".into()) }
    }

    #[test]
    fn hosts_get_their_own_kind() {
        let on = Distribution::for_host;
        assert_eq!(on("NAME=x\nID=debian\n"), Distribution::Debian13);
        assert_eq!(on("ID=fedora\nVERSION_CODENAME=\"\"\n"), Distribution::Debian13);
        assert_eq!(on("ID=ubuntu\nID_LIKE=debian\n"), Distribution::Ubuntu2404);
        assert_eq!(on("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Distribution::Ubuntu2404);
        assert_eq!(on(""), Distribution::Debian13);
    }

    #[test]
    fn mmdebstrap_as_root_and_as_a_user() {
        let tool = Tool::Mmdebstrap("/usr/bin/mmdebstrap".into());
        let made = |root| Bootstrap::new(&tool, Distribution::Debian13, &mirror(), root, Path::new("/t"));
        let arguments = made(true).arguments;
        assert_eq!(arguments[0], "--mode=root");
        assert_eq!(made(false).arguments[0], "--mode=unshare");
        assert_eq!(
            arguments[arguments.len() - 5..],
            [
                "trixie",
                "-",
                "deb http://m/debian trixie main",
                "deb http://m/debian trixie-updates main",
                "deb http://s/debian trixie-security main"
            ]
        );
    }

    #[test]
    fn debootstrap_works_in_namespaces_of_its_own() {
        let tool = |unshare| Tool::Debootstrap { program: "/usr/sbin/debootstrap".into(), unshare };
        let made = |unshare| {
            Bootstrap::new(&tool(unshare), Distribution::Ubuntu2404, &mirror(), true, Path::new("/t"))
        };
        let with = made(Some("/usr/bin/unshare".into()));
        assert_eq!(with.program, Path::new("/usr/bin/unshare"));
        assert_eq!(with.arguments[..3], ["--mount", "--pid", "--fork"]);
        assert_eq!(with.arguments[with.arguments.len() - 3..], ["noble", "/t/root", "http://m/debian"]);
        assert_eq!(made(None).program, Path::new("/bin/sh"));
        assert_eq!(made(None).arguments[0], "-c");
    }

    #[test]
    fn a_mirror_without_security_updates_is_taken_as_it_is() {
        let mirror = Mirror { security: None, ..mirror() };
        assert_eq!(Distribution::Debian13.sources(&mirror).len(), 2);
    }
}
