//! The build context of an image: a tar of what is compiled in and of the running executable, or of a project's
//! directory.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::catalog::{Origin, Reference, Vertical};
use crate::error::{Context as _, Error, Kind, Result};

/// What to do, in a context.
const CONTAINERFILE: &str = "Containerfile";
/// The agent's name in the context.
const AGENT: &str = "tazpod";
/// The name of the host's own certificates in the context.
const HOST_CA: &str = "host-ca.pem";

/// A file of a context.
type File = (&'static str, &'static [u8]);

/// Files of a vertical's directory below `images`, under their names.
macro_rules! files {
    ($vertical:literal: $($file:literal),*) => {
        &[$(($file, include_bytes!(concat!("../../images/", $vertical, "/", $file)))),*]
    };
}

/// The verticals that are compiled in.
const COMPILED: &[(&str, &[File], &[File])] = &[
    ("base", BASE, &[]),
    ("aws", files!("aws": "Containerfile", "vertical.sh"), CLOUDS),
    ("k8s", files!("k8s": "Containerfile", "oci-cli.txt", "vertical.sh"), CLOUDS),
    ("ai", files!("ai": "Containerfile", "package-lock.json", "package.json", "vertical.sh"), &[]),
    ("nvidia", files!("nvidia": "Containerfile", "vertical.sh"), &[]),
    ("nvidia-python", files!("nvidia-python": "Containerfile", "pixi.toml", "vertical.sh"), &[]),
    ("jupyter", files!("jupyter": "Containerfile", "jupyterlab.txt", "service.sh", "vertical.sh"), &[]),
    (
        "playwright",
        files!(
            "playwright": "Containerfile", "chrome", "package-lock.json", "package.json", "sway.conf", "sway.sh",
            "vertical.sh", "wayvnc.sh"
        ),
        &[],
    ),
    ("githubrunner", files!("githubrunner": "Containerfile", "service.sh", "vertical.sh"), &[]),
    ("dev", files!("dev": "Containerfile", "vertical.sh"), CLOUDS),
    ("devops", files!("devops": "Containerfile", "package-lock.json", "package.json", "vertical.sh"), CLOUDS),
];

/// What several verticals have, below `images`.
const CLOUDS: &[File] = &[("clouds.sh", include_bytes!("../../images/clouds.sh"))];

const BASE: &[File] = &[
    ("Containerfile", include_bytes!("../../images/base/Containerfile")),
    ("apt.sh", include_bytes!("../../images/base/apt.sh")),
    ("dotfiles/.bashrc", include_bytes!("../../dotfiles/.bashrc")),
    ("dotfiles/.config/bat/config", include_bytes!("../../dotfiles/.config/bat/config")),
    ("dotfiles/.config/lazygit/config.yml", include_bytes!("../../dotfiles/.config/lazygit/config.yml")),
    ("dotfiles/.config/nvim/init.lua", include_bytes!("../../dotfiles/.config/nvim/init.lua")),
    ("dotfiles/.config/starship.toml", include_bytes!("../../dotfiles/.config/starship.toml")),
    ("dotfiles/.gitconfig", include_bytes!("../../dotfiles/.gitconfig")),
    ("dotfiles/.inputrc", include_bytes!("../../dotfiles/.inputrc")),
    ("dotfiles/.profile", include_bytes!("../../dotfiles/.profile")),
    ("dotfiles/.tmux.conf", include_bytes!("../../dotfiles/.tmux.conf")),
    ("tools.sh", include_bytes!("../../images/tools.sh")),
    ("vertical.sh", include_bytes!("../../images/base/vertical.sh")),
];

/// What the agent is built from, and what else goes into `base`, in the sources of tazpod itself.
const OF_BASE: &[&str] =
    &["dotfiles", "images/tools.sh", "src", "build.rs", "Cargo.lock", "Cargo.toml", ".cargo"];

/// The largest context that is taken from a directory, in bytes: it passes through memory.
const LARGEST: u64 = 512 << 20;

/// What keeps files out of a context, the first that is there; as Podman and Docker name it.
const IGNORE_FILES: &[&str] = &[".containerignore", ".dockerignore"];

/// What the image of one vertical is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Sorted by path.
    entries: Vec<Entry>,
    /// Whether the agent goes with them.
    pub carries_agent: bool,
    /// Whether the certificates that the host trusts go with them.
    pub wants_host_ca: bool,
}

/// The files of a vertical that is compiled in: its own, and those that it shares with others.
fn compiled(vertical: &Vertical) -> Option<(&'static [File], &'static [File])> {
    let found = COMPILED.iter().find(|(name, ..)| *name == vertical.name);
    found.map(|(_, own, shared)| (*own, *shared))
}

/// Whether the image of a vertical of ours is made from this file, a path in the sources of tazpod itself.
pub fn is_compiled_in(vertical: &Vertical, path: &Path) -> bool {
    let carries_agent = vertical.parent.is_none() && vertical.origin != Origin::Foreign;
    let images = Path::new("images");
    let is_shared = |shared: &[File]| shared.iter().any(|(name, _)| path == images.join(name));
    path.starts_with(images.join(&vertical.name))
        || compiled(vertical).is_some_and(|(_, shared)| is_shared(shared))
        || carries_agent && OF_BASE.iter().any(|above| path.starts_with(above))
}

/// Whether the image of a project's vertical is made from this file, or was while the file was there.
pub fn is_in(vertical: &Vertical, path: &Path) -> Result<bool> {
    let Some(directory) = &vertical.directory else { return Ok(false) };
    // It may be a link to where the sources are.
    let real = fs::canonicalize(directory).unwrap_or_else(|_| directory.clone());
    let Ok(inner) = path.strip_prefix(directory).or_else(|_| path.strip_prefix(&real)) else {
        return Ok(false);
    };
    let decides =
        inner == Path::new(CONTAINERFILE) || IGNORE_FILES.iter().any(|name| inner == Path::new(name));
    Ok(decides || !Ignored::of(directory)?.matches(inner))
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Directory,
    File { bytes: Bytes, executable: bool },
    Link(PathBuf),
}

impl Sources {
    /// The sources of a vertical; `None` where there is no Containerfile of it.
    ///
    /// # Errors
    /// [`Kind::Image`] for a project's directory that cannot be read, is too large or has no `Containerfile`.
    pub fn of(vertical: &Vertical) -> Result<Option<Sources>> {
        if let Some(directory) = &vertical.directory {
            return Sources::read(directory).map(Some);
        }
        Ok(compiled(vertical).map(|(own, shared)| Sources::compiled(&[own, shared].concat())))
    }

    /// As if they were compiled in.
    #[cfg(test)]
    pub fn in_memory(files: &[File]) -> Sources {
        Sources::compiled(files)
    }

    fn compiled(files: &[File]) -> Sources {
        let entry = |(path, bytes): &File| Entry {
            path: path.into(),
            content: Content::File { bytes: Bytes::from_static(bytes), executable: false },
        };
        let sources = Sources::new(files.iter().map(entry).collect());
        Sources { carries_agent: sources.copies(AGENT), ..sources }
    }

    fn new(mut entries: Vec<Entry>) -> Sources {
        entries.sort_unstable();
        let sources = Sources { entries, carries_agent: false, wants_host_ca: false };
        let has_its_own = sources.entries.iter().any(|entry| entry.path == Path::new(HOST_CA));
        Sources { wants_host_ca: !has_its_own && sources.mounts(HOST_CA), ..sources }
    }

    /// Whether a step of the Containerfile has a file of this name bound to it.
    fn mounts(&self, name: &str) -> bool {
        let mut words =
            self.containerfile().split_whitespace().filter_map(|word| word.strip_prefix("--mount="));
        words.any(|mount| {
            let is_source = |option: &str| matches!(option.split_once('='), Some(("source" | "src", source)) if source == name);
            mount.split(',').any(is_source)
        })
    }

    /// Whether the Containerfile copies a file of this name from the context.
    fn copies(&self, name: &str) -> bool {
        self.containerfile().lines().any(|line| line.split(' ').take(2).eq(["COPY", name]))
    }

    /// The files of a directory that its `.containerignore` or `.dockerignore` leaves.
    fn read(directory: &Path) -> Result<Sources> {
        let unreadable = |path: &Path, source| {
            Error::new(Kind::Image, format!("cannot read `{}`", path.display())).with_source(source)
        };
        let containerfile = directory.join(CONTAINERFILE);
        if !containerfile.is_file() {
            return Err(Error::new(Kind::Image, format!("there is no `{}`", containerfile.display()))
                .hint("a project's vertical has its Containerfile in `.tazpod/NAME/`"));
        }
        let ignored = Ignored::of(directory)?;
        let mut entries = Vec::new();
        let mut left = LARGEST;
        let mut pending = vec![PathBuf::new()];
        while let Some(inner) = pending.pop() {
            let path = directory.join(&inner);
            let listed = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            for found in listed.map_err(|source| unreadable(&path, source))? {
                let (path, inner) = (found.path(), inner.join(found.file_name()));
                let ignored_here = inner != Path::new(CONTAINERFILE) && ignored.matches(&inner);
                let kind = found.file_type().map_err(|source| unreadable(&path, source))?;
                if kind.is_dir() && (!ignored_here || ignored.has_exceptions) {
                    pending.push(inner.clone());
                }
                let content = if ignored_here {
                    continue;
                } else if kind.is_dir() {
                    Content::Directory
                } else if kind.is_symlink() {
                    Content::Link(fs::read_link(&path).map_err(|source| unreadable(&path, source))?)
                } else if kind.is_file() {
                    let file = fs::File::open(&path).map_err(|source| unreadable(&path, source))?;
                    let metadata = file.metadata().map_err(|source| unreadable(&path, source))?;
                    let mut bytes = Vec::new();
                    file.take(left + 1)
                        .read_to_end(&mut bytes)
                        .map_err(|source| unreadable(&path, source))?;
                    left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                        Error::new(
                            Kind::Image,
                            format!("`{}` has more than {} MiB of files", directory.display(), LARGEST >> 20),
                        )
                        .hint("name in its `.dockerignore` what the image does not need")
                    })?;
                    Content::File { bytes: bytes.into(), executable: metadata.mode() & 0o111 != 0 }
                } else {
                    // Sockets and the like, which builders skip too.
                    continue;
                };
                entries.push(Entry { path: inner, content });
            }
        }
        Ok(Sources::new(entries))
    }

    fn containerfile(&self) -> &str {
        let content = self.entries.iter().find(|entry| entry.path == Path::new(CONTAINERFILE));
        match content.map(|entry| &entry.content) {
            Some(Content::File { bytes, .. }) => std::str::from_utf8(bytes).unwrap_or_default(),
            _ => "",
        }
    }

    /// Whether its Containerfile has this text.
    pub fn mentions(&self, text: &str) -> bool {
        self.containerfile().contains(text)
    }

    /// Whether its Containerfile takes this argument.
    pub fn takes(&self, argument: &str) -> bool {
        let takes = |line: &str| {
            let mut words = line.split(['=', ' ', '\t']).filter(|word| !word.is_empty());
            words.next().is_some_and(|word| word.eq_ignore_ascii_case("ARG"))
                && words.next() == Some(argument)
        };
        self.containerfile().lines().any(takes)
    }

    /// The images that its Containerfile names: those that it is built from or copies out of. Variables are what `ARG` says; where it
    /// does not, and one stands for the end of a name, so does an `x`.
    pub fn named(&self) -> Vec<Reference> {
        let (mut defaults, mut stages, mut named) = (HashMap::new(), HashSet::new(), Vec::new());
        for line in self.containerfile().lines() {
            let mut words = line.split_whitespace();
            let mut images = Vec::new();
            let mut stage = None;
            match words.next().map(str::to_ascii_uppercase).as_deref() {
                Some("ARG") => {
                    let set = words.filter_map(|word| word.split_once('='));
                    defaults.extend(set.map(|(name, value)| (name, value.trim_matches(['"', '\'']))));
                }
                Some("FROM") => {
                    let mut words = words.skip_while(|word| word.starts_with("--"));
                    images.extend(words.next());
                    stage = words.nth(1).map(str::to_ascii_lowercase);
                }
                _ => {
                    let flags = words.filter(|word| word.starts_with("--")).flat_map(|flag| flag.split(','));
                    images.extend(flags.filter_map(|flag| match flag.split_once("from=") {
                        Some(("" | "--" | "--mount=", image)) => Some(image),
                        _ => None,
                    }));
                }
            }
            let is_image = |name: &&str| {
                let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
                *name != "scratch" && !is_number && !stages.contains(&name.to_ascii_lowercase())
            };
            named.extend(images.into_iter().filter(is_image).filter_map(|name| resolved(name, &defaults)));
            stages.extend(stage);
        }
        named
    }

    /// The line of the Containerfile, from 1 on, where an instruction begins that a builder shows on one line.
    pub fn line_of(&self, instruction: &str) -> Option<usize> {
        line_of(self.containerfile(), instruction)
    }

    /// SHA-256 of names and contents, in hexadecimal. The agent is not part of it: its own build is compared.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for Entry { path, content } in &self.entries {
            let (kind, bytes) = match content {
                Content::Directory => ("directory", &[][..]),
                Content::File { bytes, executable: false } => ("file", &bytes[..]),
                Content::File { bytes, executable: true } => ("program", &bytes[..]),
                Content::Link(target) => ("link", target.as_os_str().as_bytes()),
            };
            // Lengths first, so that no two lists of files run together to the same bytes.
            for part in [path.as_os_str().as_bytes(), kind.as_bytes(), bytes] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The context as a tar: the same bytes for the same files, whenever and by whomever. `host_ca` is PEM, or nothing.
    ///
    /// # Errors
    /// A path or the target of a link that tars do not have.
    pub fn tar(&self, agent: &[u8], host_ca: &[u8]) -> Result<Bytes> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut pack = || -> io::Result<()> {
            let file = |bytes: &[u8], executable| {
                header(EntryType::Regular, bytes.len() as u64, if executable { 0o755 } else { 0o644 })
            };
            for Entry { path, content } in &self.entries {
                match content {
                    Content::Directory => {
                        archive.append_data(&mut header(EntryType::Directory, 0, 0o755), path, &[][..])?;
                    }
                    Content::File { bytes, executable } => {
                        archive.append_data(&mut file(bytes, *executable), path, &bytes[..])?;
                    }
                    Content::Link(target) => {
                        archive.append_link(&mut header(EntryType::Symlink, 0, 0o777), path, target)?;
                    }
                }
            }
            if self.wants_host_ca {
                archive.append_data(&mut file(host_ca, false), HOST_CA, host_ca)?;
            }
            if self.carries_agent {
                archive.append_data(&mut file(agent, true), AGENT, agent)?;
            }
            Ok(())
        };
        pack().context(Kind::Failure, || "cannot pack the context")?;
        archive.into_inner().map(Bytes::from).context(Kind::Failure, || "cannot pack the context")
    }
}

/// A context of these files: name, mode, and content.
///
/// # Errors
/// A name that tars do not have.
pub fn of_files(files: &[(&str, u32, &[u8])]) -> Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut pack = || {
        files.iter().try_for_each(|(name, mode, bytes)| {
            archive.append_data(&mut header(EntryType::Regular, bytes.len() as u64, *mode), name, *bytes)
        })
    };
    let failed = || "cannot pack the context";
    pack().context(Kind::Failure, failed)?;
    archive.into_inner().map(Bytes::from).context(Kind::Failure, failed)
}

/// The patterns of a `.dockerignore` (docs.docker.com, "Build context").
struct Ignored {
    /// Whether what matches is an exception, and the pattern.
    rules: Vec<(bool, String)>,
    has_exceptions: bool,
}

impl Ignored {
    fn of(directory: &Path) -> Result<Ignored> {
        for name in IGNORE_FILES {
            let path = directory.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Ignored::parse(&text)),
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::io("read", &path, source)),
            }
        }
        Ok(Ignored::parse(""))
    }

    fn parse(text: &str) -> Ignored {
        let rule = |line: &str| {
            let line = line.trim_start_matches('\u{feff}');
            let line = if line.starts_with('#') { "" } else { line.trim() };
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            // As Go's `filepath.Clean`; braces are letters there.
            let mut parts = Vec::new();
            for part in pattern.split('/') {
                match part {
                    "" | "." => {}
                    ".." => drop(parts.pop()),
                    part => parts.push(part),
                }
            }
            let pattern = parts.join("/").replace('{', "\\{").replace('}', "\\}");
            (!pattern.is_empty()).then_some((exception, pattern))
        };
        let rules: Vec<_> = text.lines().filter_map(rule).collect();
        Ignored { has_exceptions: rules.iter().any(|(exception, _)| *exception), rules }
    }

    /// The last rule that matches the path, or a directory above it, decides.
    fn matches(&self, path: &Path) -> bool {
        let matches = |pattern: &str| {
            let above = path.ancestors().filter(|above| !above.as_os_str().is_empty());
            above.into_iter().any(|above| fast_glob::glob_match(pattern, above.as_os_str().as_bytes()))
        };
        let decides = self.rules.iter().rev().find(|(_, pattern)| matches(pattern));
        decides.is_some_and(|(exception, _)| !exception)
    }
}

/// An image of a Containerfile, as far as it is known.
fn resolved(name: &str, variables: &HashMap<&str, &str>) -> Option<Reference> {
    let (mut known, mut rest) = (String::new(), name);
    while let Some((before, after)) = rest.split_once('$') {
        known.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (variable, left) = braced.unwrap_or_else(|| {
            let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_';
            after.split_at(after.find(ends).unwrap_or(after.len()))
        });
        let Some(value) = variables.get(variable) else {
            return match known.strip_suffix('@') {
                Some(known) => Reference::parse(known).ok(),
                None if known.contains(['/', ':']) => Reference::parse(&format!("{known}x")).ok(),
                None => None,
            };
        };
        known.push_str(value);
        rest = left;
    }
    Reference::parse(&format!("{known}{rest}")).ok()
}

fn line_of(containerfile: &str, instruction: &str) -> Option<usize> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let wanted = words(instruction);
    let mut begun: Option<(usize, Vec<String>)> = None;
    for (number, line) in containerfile.lines().enumerate() {
        // As builders do: comments are nothing, even between continued lines.
        if line.trim_start().starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let (line, goes_on) = match line.trim_end().strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        let (start, mut text) = begun.take().unwrap_or((number + 1, Vec::new()));
        text.extend(words(line));
        if goes_on {
            begun = Some((start, text));
        } else if text == wanted {
            return Some(start);
        }
    }
    None
}

/// The beginning and the end of a context with a Containerfile and one file of `size` bytes, which come between.
///
/// # Errors
/// Never in practice: it is written to memory.
pub fn around(containerfile: &str, name: &str, size: u64) -> Result<(Bytes, Bytes)> {
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_data(
            &mut header(EntryType::Regular, containerfile.len() as u64, 0o644),
            CONTAINERFILE,
            containerfile.as_bytes(),
        )
        .context(Kind::Failure, || "cannot pack the context")?;
    let mut start = archive.get_ref().clone();
    let mut file = header(EntryType::Regular, size, 0o644);
    file.set_path(name).context(Kind::Failure, || "cannot pack the context")?;
    file.set_cksum();
    start.extend_from_slice(file.as_bytes());
    let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or_default();
    let mut end = vec![0; padding];
    end.extend_from_slice(&END);
    Ok((start.into(), end.into()))
}

/// The unit of tars.
const BLOCK: u64 = 512;
/// The end of a tar.
const END: [u8; 1024] = [0; 1024];

fn header(kind: EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Origin};

    fn base() -> Sources {
        Sources::compiled(BASE)
    }

    #[test]
    fn what_the_catalog_calls_built_has_sources() {
        for vertical in Catalog::builtin().unwrap().verticals() {
            assert_eq!(
                Sources::of(vertical).unwrap().is_some(),
                vertical.origin == Origin::Built,
                "{}",
                vertical.name
            );
        }
    }

    #[test]
    fn every_dotfile_is_compiled_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut on_disk = Vec::new();
        let mut directories = vec![root.join("dotfiles")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    on_disk.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        on_disk.sort();
        let compiled: Vec<_> =
            BASE.iter().map(|(name, _)| *name).filter(|name| name.starts_with("dotfiles/")).collect();
        assert_eq!(compiled, on_disk);
    }

    #[test]
    fn the_context_is_deterministic_sorted_and_nobodys() {
        let sources = base();
        let context = sources.tar(b"binary", b"").unwrap();
        assert_eq!(context, sources.tar(b"binary", b"").unwrap());
        let mut archive = tar::Archive::new(&context[..]);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                    (0, 0, 0)
                );
                (entry.path().unwrap().to_str().unwrap().to_owned(), header.mode().unwrap())
            })
            .collect();
        assert!(entries.contains(&("Containerfile".into(), 0o644)));
        assert!(entries.contains(&("tazpod".into(), 0o755)));
    }

    #[test]
    fn the_hash_tells_names_and_contents_apart() {
        let hash = |files: &'static [File]| Sources::in_memory(files).hash();
        assert_ne!(hash(&[("a", b"bc")]), hash(&[("ab", b"c")]));
        assert_ne!(hash(&[("a", b"b")]), hash(&[("a", b"c")]));
        assert_eq!(hash(&[("a", b"b")]), hash(&[("a", b"b")]));
    }

    fn names(sources: &Sources) -> Vec<&str> {
        sources.entries.iter().map(|entry| entry.path.to_str().unwrap()).collect()
    }

    #[test]
    fn a_directory_is_a_context_without_what_it_ignores() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(Sources::read(directory.path()).unwrap_err().to_string().contains("there is no `"));
        for name in ["a/b", "node_modules/x/y"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["Containerfile", "a/b/run.sh", "a/key.pem", "node_modules/x/y/z", "b.log"] {
            fs::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink("../nowhere", at("a/link")).unwrap();
        let all = ["Containerfile", "a", "a/b", "a/b/run.sh", "a/key.pem", "a/link", "b.log", "node_modules"];
        let whole = Sources::read(directory.path()).unwrap();
        assert_eq!(names(&whole)[..8], all);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(at("a/b/run.sh"), mode).unwrap();
        assert_ne!(Sources::read(directory.path()).unwrap().hash(), whole.hash());

        fs::write(at(".dockerignore"), "# all\nContainerfile\nnode_modules\n**/*.pem\n*.log\n").unwrap();
        let some = Sources::read(directory.path()).unwrap();
        assert_eq!(names(&some), [".dockerignore", "Containerfile", "a", "a/b", "a/b/run.sh", "a/link"]);
        let tar = some.tar(b"", b"").unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let header = entry.unwrap().header().clone();
                let link = header.link_name().unwrap().map(|link| link.to_str().unwrap().to_owned());
                (header.entry_type(), header.mode().unwrap(), link)
            })
            .collect();
        assert_eq!(entries[4], (EntryType::Regular, 0o755, None));
        assert_eq!(entries[5], (EntryType::Symlink, 0o777, Some("../nowhere".into())));
        fs::write(at(".containerignore"), "*\n!a/b\n").unwrap();
        let few = Sources::read(directory.path()).unwrap();
        assert_eq!(names(&few), ["Containerfile", "a/b", "a/b/run.sh"]);
    }

    #[test]
    fn patterns_of_ignore_files() {
        for (patterns, ignored, kept) in [
            ("*", &["a", "a/b"][..], &[][..]),
            ("/a/", &["a", "a/b"], &["b/a"]),
            ("*.md\n!README.md", &["x.md"], &["README.md", "d/x.md"]),
            ("!README.md\n*.md", &["README.md"], &[]),
            ("**/t?mp", &["tamp", "x/y/temp/z"], &["tmp"]),
            ("a/../b", &["b"], &["a"]),
            ("  # no comment\n#comment\n\n./x", &["# no comment", "x"], &["#comment"]),
            ("{a,b}", &["{a,b}"], &["a"]),
            ("a/*/c", &["a/b/c"], &["a/c", "a/b/b/c"]),
            ("[ab]", &["a", "b/x"], &["c"]),
        ] {
            let rules = Ignored::parse(patterns);
            for path in ignored {
                assert!(rules.matches(Path::new(path)), "{patterns} {path}");
            }
            for path in kept {
                assert!(!rules.matches(Path::new(path)), "{patterns} {path}");
            }
        }
    }

    #[test]
    fn instructions_are_found_in_the_containerfile() {
        let text = "# FROM x\nFROM y\n\nRUN a \\\n # why\n  && b\n\nRUN a\nRUN c \\\n";
        assert_eq!(line_of(text, "FROM y"), Some(2));
        assert_eq!(line_of(text, "RUN a   && b"), Some(4));
        assert_eq!(line_of(text, "RUN a"), Some(8));
        assert_eq!(line_of(text, "RUN z"), None);
    }

    #[test]
    fn images_that_a_containerfile_names() {
        let text = "ARG PARENT\nARG REGISTRY=r.io/team V='2'\nFROM --platform=linux/amd64 node:22 AS Build\nFROM ${PARENT}\nfrom scratch\n\
            COPY --link --from=build /a /\nCOPY --from=host:5000/team/x:${W} --chown=0:0 /a /from=b\nFROM golang AS golang\nFROM golang\n\
            RUN --mount=type=bind,from=ghcr.io/a/b,target=/b cp /b/c --from /\nCOPY --from=1 /a /b\nADD --from=x.io/$A /c /\n\
            FROM $REGISTRY/tool:$V\nFROM y.io/z@${DIGEST}\nFROM $DIGEST\n";
        let named = Sources::in_memory(&[(CONTAINERFILE, text.as_bytes())]).named();
        let named: Vec<String> = named.iter().map(Reference::to_string).collect();
        let expected = [
            "docker.io/library/node:22",
            "host:5000/team/x:x",
            "docker.io/library/golang:latest",
            "ghcr.io/a/b:latest",
            "x.io/x:latest",
            "r.io/team/tool:2",
            "y.io/z:latest",
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn what_is_put_between_is_a_file_of_the_context() {
        for content in [&b""[..], b"x", &[7; 512], &[7; 1000]] {
            let (start, end) = around("FROM scratch\n", "rootfs.tar", content.len() as u64).unwrap();
            let whole = [&start[..], content, &end[..]].concat();
            let mut archive = tar::Archive::new(&whole[..]);
            let entries = archive.entries().unwrap().map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
            });
            let entries: Vec<_> = entries.collect();
            assert_eq!(entries[0], ("Containerfile".into(), b"FROM scratch\n".to_vec()));
            assert_eq!(entries[1], ("rootfs.tar".into(), content.to_vec()));
            assert_eq!((entries.len(), whole.len() % 512), (2, 0));
        }
    }

    #[test]
    fn containerfiles_need_no_frontend() {
        for (name, files, _) in COMPILED {
            let text = std::str::from_utf8(files[0].1).unwrap();
            assert!(
                files[0].0 == CONTAINERFILE && !text.contains("# syntax") && !text.contains("<<"),
                "{name}"
            );
            // Which Docker 20.10 knows itself, and Podman.
            assert!(
                text.split("--mount").skip(1).all(|mount| mount.starts_with("=type=bind,source=")),
                "{name}"
            );
        }
    }

    #[test]
    fn the_agent_is_in_the_base_and_the_hosts_certificates_are_in_all() {
        let catalog = Catalog::builtin().unwrap();
        for (name, ..) in COMPILED {
            let sources = Sources::of(catalog.find(name).unwrap()).unwrap().unwrap();
            assert_eq!(sources.carries_agent, *name == "base", "{name}");
            assert!(sources.wants_host_ca && sources.takes("ALLOW_MISSING"), "{name}");
            assert_eq!(sources.takes("PARENT"), *name != "base", "{name}");
        }
        let hash = |ca: &[u8]| {
            (Sources::in_memory(&[(
                CONTAINERFILE,
                b"FROM x\nRUN --mount=type=bind,source=host-ca.pem,target=/ca x\n",
            )])
            .tar(b"", ca))
            .unwrap()
        };
        assert_ne!(hash(b""), hash(b"PEM"));
    }
}
