//! A root filesystem without a container registry: bootstrapped from the distribution's mirror by the host's
//! `mmdebstrap` or `debootstrap`, and imported.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use tokio::io::AsyncReadExt;

use super::context;
use super::log::BuildLog;
use super::mirror::Mirror;
use crate::adapters::child::Program;
use crate::adapters::engine::{Build, BuildContext, Engine};
use crate::context::Context;
use crate::error::{Context as _, Error, Kind, Result};
use crate::pod::spec::label;
use crate::ui::Ui;

/// The name of bootstrapped root filesystems in the engine.
pub const REPOSITORY: &str = "localhost/tazpod-rootfs";

/// How long a bootstrap may take, on a slow line.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How much is read at once.
const CHUNK: usize = 256 * 1024;

/// Packages besides the essential ones, of which Ubuntu's apt is none. Mirrors may speak HTTPS.
const INCLUDE: &str = "--include=apt,ca-certificates";

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
    /// For root alone.
    Debootstrap(PathBuf),
}

/// A program that makes the root filesystem, as a tar in the scratch directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bootstrap {
    program: PathBuf,
    arguments: Vec<String>,
}

/// The tar's name in the scratch directory.
const TAR: &str = "rootfs.tar";

/// mmdebstrap leaves the host's name and resolver in the root filesystem.
const TIDY: &str = r#"rm -f "$1/etc/resolv.conf" "$1/etc/hostname""#;

/// $0 is debootstrap, $1 the root, $2 the tar, $3 the sources, then debootstrap's own arguments.
const DEBOOTSTRAP: &str = r#"set -e
root=$1 tar=$2 sources=$3; shift 3
"$0" "$@"
printf '%s\n' "$sources" >"$root/etc/apt/sources.list"
rm -rf "$root/etc/resolv.conf" "$root/etc/hostname" "$root"/var/cache/apt/*.bin \
    "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
tar --create --file "$tar" --numeric-owner --one-file-system --exclude='./dev/*' --directory "$root" ."#;

impl Bootstrap {
    /// `unshare` is given for root: what root mounts for a bootstrap must not outlive it, nor be seen by others,
    /// least of all by who removes the scratch directory. An ordinary user has namespaces in any case.
    fn new(
        tool: &Tool,
        unshare: Option<&Path>,
        distribution: Distribution,
        mirror: &Mirror,
        scratch: &Path,
    ) -> Bootstrap {
        let sources = distribution.sources(mirror);
        let keyring = format!("--keyring={}", distribution.keyring());
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (tar, root) = (text(&scratch.join(TAR)), text(&scratch.join("root")));
        let mut words: Vec<String> = Vec::new();
        if let Some(unshare) = unshare {
            words.push(text(unshare));
            words.extend(["--mount", "--pid", "--fork", "--kill-child", "--"].map(str::to_owned));
        }
        match tool {
            Tool::Mmdebstrap(program) => {
                words.extend([
                    text(program),
                    format!("--mode={}", if unshare.is_some() { "root" } else { "unshare" }),
                    "--variant=minbase".into(),
                    "--format=tar".into(),
                    INCLUDE.into(),
                    keyring,
                    // The engine makes /dev; an ordinary user could not unpack its nodes.
                    "--skip=output/dev".into(),
                    format!("--customize-hook={TIDY}"),
                    distribution.suite().into(),
                    tar,
                ]);
                words.extend(sources);
            }
            Tool::Debootstrap(program) => {
                words.extend(["/bin/sh".into(), "-c".into(), DEBOOTSTRAP.into(), text(program)]);
                words.extend([root.clone(), tar, sources.join("\n")]);
                words.extend(["--variant=minbase".into(), INCLUDE.into(), keyring]);
                words.extend([distribution.suite().into(), root]);
                words.extend(mirror.main.clone());
            }
        }
        let mut words = words.into_iter();
        Bootstrap { program: words.next().unwrap_or_default().into(), arguments: words.collect() }
    }
}

/// The distribution that this host would bootstrap.
pub fn distribution() -> Distribution {
    Distribution::for_host(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// Bootstraps a root filesystem and makes an image of it; its reference.
///
/// # Errors
/// [`Kind::Image`]: no program for it, no keyring, the program's failure, the engine's refusal. Nothing is left.
pub async fn bootstrap(context: &Context, engine: &Engine, log: &mut BuildLog) -> Result<String> {
    let distribution = distribution();
    let root = rustix::process::geteuid().is_root();
    let tool = tool(distribution, root)?;
    let unshare = if root { find_program("unshare") } else { None };
    if root && unshare.is_none() {
        let what = format!("cannot bootstrap {}: `unshare` is not there", distribution.describe());
        return Err(Error::new(Kind::Image, what).hint("install the package `util-linux`"));
    }
    if !Path::new(distribution.keyring()).exists() {
        let what =
            format!("cannot bootstrap {}: `{}` is missing", distribution.describe(), distribution.keyring());
        return Err(
            Error::new(Kind::Image, what).hint(format!("install it: {}", distribution.install_hint()))
        );
    }
    let scratch = Scratch::create(&context.ui)?;
    let tar = scratch.path.join(TAR);
    let mirror = host_mirror(distribution);
    let bootstrap = Bootstrap::new(&tool, unshare.as_deref(), distribution, &mirror, &scratch.path);
    let mut command = Command::new(&bootstrap.program);
    command.args(&bootstrap.arguments).env("TMPDIR", &scratch.path).env("LC_ALL", "C.UTF-8").current_dir("/");
    let doing = format!("bootstrapping {}", distribution.describe());
    let step = context.ui.step(doing.as_str());
    log.detail(&format!("{} {}", bootstrap.program.display(), bootstrap.arguments.join(" ")));
    let mut program = Program::start(command)
        .context(Kind::Image, || format!("cannot start `{}`", bootstrap.program.display()))?;
    let temporary = format!("{REPOSITORY}:tmp-{}", std::process::id());
    let armed = context.arm({
        let (group, engine, temporary) = (program.group(), engine.clone(), temporary.clone());
        async move {
            group.end().await;
            drop(scratch);
            // The error that counts is the one that led here.
            let _ = engine.remove_image(&temporary, true).await;
        }
    });
    match tokio::time::timeout(TIMEOUT, follow(&mut program, log)).await {
        Ok(done) => done.map_err(|error| explain(error, distribution, root, log))?,
        Err(_) => {
            let minutes = TIMEOUT.as_secs() / 60;
            return Err(Error::new(Kind::Image, format!("{doing} took longer than {minutes} minutes")));
        }
    }
    drop(step);
    let _step = context.ui.step(format!("giving {} to the engine", distribution.describe()));
    let labels = HashMap::from([(label::ROOT.to_owned(), distribution.tag().to_owned())]);
    let build = Build {
        tag: &temporary,
        context: BuildContext::Stream(stream(&tar).await?),
        arguments: &HashMap::new(),
        labels: &labels,
        fresh: true,
        // Which would keep a second copy of it in its cache.
        buildkit: false,
        credentials: &HashMap::new(),
        cache: None,
    };
    engine
        .build(build, |line| log.builder(line))
        .await
        .map_err(|error| explain(error, distribution, true, log))?;
    engine.tag(&temporary, REPOSITORY, distribution.tag()).await?;
    context.undo(armed).await;
    Ok(distribution.reference())
}

/// Takes what the bootstrap says until it has come to a good end.
async fn follow(program: &mut Program, log: &mut BuildLog) -> Result<()> {
    while let Some(line) = program.line().await {
        log.detail(&line);
    }
    let status = program.wait().await.context(Kind::Image, || "cannot wait for the bootstrap")?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(Kind::Image, format!("the bootstrap ended with {status}")))
}

/// A build context with the tar in it. Not an import, of which Podman 4.3 leaves a copy in its temporary directory.
async fn stream(tar: &Path) -> Result<Pin<Box<dyn Stream<Item = Bytes> + Send>>> {
    let failed = |source| Error::io("read", tar, source);
    let file = tokio::fs::File::open(tar).await.map_err(failed)?;
    let size = file.metadata().await.map_err(failed)?.len();
    let containerfile = format!("FROM scratch\nADD {TAR} /\nCMD [\"/bin/bash\"]\n");
    let (start, end) = context::around(&containerfile, TAR, size)?;
    let content = stream::unfold(file, |mut file| async {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        // What cannot be read ends the context early.
        let length = file.read_buf(&mut chunk).await.ok()?;
        (length > 0).then(|| (chunk.freeze(), file))
    });
    Ok(Box::pin(stream::iter([start]).chain(content).chain(stream::iter([end]))))
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
        Some(program) if root => return Ok(Tool::Debootstrap(program.clone())),
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
    let mut places = std::env::split_paths(&path).chain(usual).map(|directory| directory.join(name));
    places.find(|path| path.is_file())
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
struct Scratch {
    path: PathBuf,
    ui: Ui,
}

impl Scratch {
    /// In `TMPDIR` or /var/tmp, as /tmp is often small, in RAM or without devices.
    fn create(ui: &Ui) -> Result<Scratch> {
        let parent =
            std::env::var_os("TMPDIR").filter(|value| !value.is_empty()).unwrap_or("/var/tmp".into());
        let path = Path::new(&parent).join(format!("tazpod-rootfs-{}", std::process::id()));
        // The subordinate ids of an unshared bootstrap must get through.
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .map_err(|source| Error::io("make the directory", &path, source))?;
        Ok(Scratch { path, ui: ui.clone() })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // In namespaces of its own, a bootstrap leaves no mounts. If one did, its removal would go through to
        // what is mounted: the host's own /dev, for one.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let removed = if mounts.is_empty() || is_mounted_below(&self.path, &mounts) {
            Err(std::io::Error::other("something is mounted in it"))
        } else {
            fs::remove_dir_all(&self.path)
        };
        if let Err(source) = removed {
            self.ui.warn(Error::io("remove", &self.path, source).to_string());
        }
    }
}

/// Whether anything is mounted at or below `path`, by the text of `/proc/self/mountinfo`.
fn is_mounted_below(path: &Path, mountinfo: &str) -> bool {
    // As the kernel writes what would break its lines.
    let escaped = path.to_string_lossy().replace('\\', r"\134").replace(' ', r"\040");
    let escaped = escaped.replace('\t', r"\011").replace('\n', r"\012");
    let mut points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| Path::new(point).starts_with(&escaped))
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

    fn bootstrap(tool: Tool, unshare: bool, distribution: Distribution) -> Bootstrap {
        let unshare = unshare.then_some(Path::new("/usr/bin/unshare"));
        Bootstrap::new(&tool, unshare, distribution, &mirror(), Path::new("/t"))
    }

    #[test]
    fn mmdebstrap_as_root_and_as_a_user() {
        let made = |unshare| {
            bootstrap(Tool::Mmdebstrap("/usr/bin/mmdebstrap".into()), unshare, Distribution::Debian13)
        };
        let (root, user) = (made(true), made(false));
        assert_eq!(root.program, Path::new("/usr/bin/unshare"));
        assert_eq!(root.arguments[..3], ["--mount", "--pid", "--fork"]);
        assert_eq!(root.arguments[5..7], ["/usr/bin/mmdebstrap", "--mode=root"]);
        assert_eq!(user.program, Path::new("/usr/bin/mmdebstrap"));
        assert_eq!(user.arguments[0], "--mode=unshare");
        assert_eq!(user.arguments[1..], root.arguments[7..]);
        assert_eq!(
            user.arguments[user.arguments.len() - 5..],
            [
                "trixie",
                "/t/rootfs.tar",
                "deb http://m/debian trixie main",
                "deb http://m/debian trixie-updates main",
                "deb http://s/debian trixie-security main"
            ]
        );
    }

    #[test]
    fn debootstrap_as_root() {
        let made =
            bootstrap(Tool::Debootstrap("/usr/sbin/debootstrap".into()), true, Distribution::Ubuntu2404);
        assert_eq!(made.program, Path::new("/usr/bin/unshare"));
        assert_eq!(made.arguments[8..11], ["/usr/sbin/debootstrap", "/t/root", "/t/rootfs.tar"]);
        assert_eq!(made.arguments[made.arguments.len() - 3..], ["noble", "/t/root", "http://m/debian"]);
    }

    #[test]
    fn mounts_are_seen_before_anything_is_removed() {
        let info = "1 2 0:3 / /proc rw - proc proc rw\n4 5 0:6 / /a\\040b/root/dev rw - tmpfs tmpfs rw\n";
        for (path, mounted) in [("/a b", true), ("/a b/root/dev", true), ("/a b/ro", false), ("/a", false)] {
            assert_eq!(is_mounted_below(Path::new(path), info), mounted, "{path}");
        }
    }

    #[test]
    fn a_mirror_without_security_updates_is_taken_as_it_is() {
        let mirror = Mirror { security: None, ..mirror() };
        assert_eq!(Distribution::Debian13.sources(&mirror).len(), 2);
    }
}
