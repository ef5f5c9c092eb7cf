//! The build context of an image: a tar of what is compiled in, and of the running executable.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::{Context as _, Kind, Result};

/// The agent's name in the context.
const AGENT: &str = "tazpod";

/// A file of a context.
type File = (&'static str, &'static [u8]);

const BASE: &[File] = &[
    ("Containerfile", include_bytes!("../../images/base/Containerfile")),
    ("dotfiles/.bashrc", include_bytes!("../../dotfiles/.bashrc")),
    ("dotfiles/.config/bat/config", include_bytes!("../../dotfiles/.config/bat/config")),
    ("dotfiles/.config/lazygit/config.yml", include_bytes!("../../dotfiles/.config/lazygit/config.yml")),
    ("dotfiles/.config/nvim/init.lua", include_bytes!("../../dotfiles/.config/nvim/init.lua")),
    ("dotfiles/.config/starship.toml", include_bytes!("../../dotfiles/.config/starship.toml")),
    ("dotfiles/.gitconfig", include_bytes!("../../dotfiles/.gitconfig")),
    ("dotfiles/.inputrc", include_bytes!("../../dotfiles/.inputrc")),
    ("dotfiles/.profile", include_bytes!("../../dotfiles/.profile")),
    ("dotfiles/.tmux.conf", include_bytes!("../../dotfiles/.tmux.conf")),
    ("tools.sh", include_bytes!("../../images/base/tools.sh")),
];

/// What the image of one vertical is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    files: &'static [File],
    /// Whether the agent is among them.
    pub carries_agent: bool,
}

impl Sources {
    /// The sources of a vertical; `None` where there is no Containerfile.
    pub fn of(vertical: &str) -> Option<Sources> {
        match vertical {
            "base" => Some(Sources { files: BASE, carries_agent: true }),
            _ => None,
        }
    }

    fn containerfile(&self) -> &'static str {
        let found = self.files.iter().find(|(name, _)| *name == "Containerfile");
        found.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Whether its Containerfile can do without some tools.
    pub fn may_lack(&self) -> bool {
        self.containerfile().lines().any(|line| line.starts_with(&format!("ARG {}", super::ALLOW_MISSING)))
    }

    /// The line of the Containerfile, from 1 on, where an instruction begins that a builder shows on one line.
    pub fn line_of(&self, instruction: &str) -> Option<usize> {
        line_of(self.containerfile(), instruction)
    }

    /// SHA-256 of names and contents, in hexadecimal. The agent is not part of it: its own build is compared.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, bytes) in self.files {
            // Lengths first, so that no two lists of files run together to the same bytes.
            for part in [name.as_bytes(), bytes] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The context as a tar: the same bytes for the same files, whenever and by whomever.
    ///
    /// # Errors
    /// Never in practice: it is written to memory.
    pub fn tar(&self, agent: &[u8]) -> Result<Bytes> {
        let mut files: Vec<(&str, &[u8], u32)> =
            self.files.iter().map(|(name, bytes)| (*name, *bytes, 0o644)).collect();
        if self.carries_agent {
            files.push((AGENT, agent, 0o755));
        }
        files.sort_unstable();
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes, mode) in files {
            let mut header = header(bytes.len() as u64, mode);
            archive
                .append_data(&mut header, name, bytes)
                .context(Kind::Failure, || "cannot pack the context")?;
        }
        archive.into_inner().map(Bytes::from).context(Kind::Failure, || "cannot pack the context")
    }
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
            &mut header(containerfile.len() as u64, 0o644),
            "Containerfile",
            containerfile.as_bytes(),
        )
        .context(Kind::Failure, || "cannot pack the context")?;
    let mut start = archive.get_ref().clone();
    let mut file = header(size, 0o644);
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

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::catalog::{Catalog, Origin};

    #[test]
    fn what_the_catalog_calls_built_has_sources() {
        for vertical in Catalog::builtin().unwrap().verticals() {
            assert_eq!(
                Sources::of(&vertical.name).is_some(),
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
        let sources = Sources::of("base").unwrap();
        let context = sources.tar(b"binary").unwrap();
        assert_eq!(context, sources.tar(b"binary").unwrap());
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
        assert!(entries.is_sorted());
        assert!(entries.contains(&("Containerfile".into(), 0o644)));
        assert!(entries.contains(&("tazpod".into(), 0o755)));
    }

    #[test]
    fn the_hash_tells_names_and_contents_apart() {
        let hash = |files| Sources { files, carries_agent: false }.hash();
        assert_ne!(hash(&[("a", b"bc")]), hash(&[("ab", b"c")]));
        assert_ne!(hash(&[("a", b"b")]), hash(&[("a", b"c")]));
        assert_eq!(hash(&[("a", b"b")]), hash(&[("a", b"b")]));
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
        let text = std::str::from_utf8(BASE[0].1).unwrap();
        assert!(!text.contains("# syntax") && !text.contains("<<") && !text.contains("--mount"));
    }
}
