//! Stamps the binary with a hash of its own sources and of how they are compiled, so that a pod's agent of another
//! build is told apart from this one even where the version number is the same. What images are made of is compiled in, too, and
//! does not count: another Containerfile makes no other agent, which all images would have to be built again for.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

fn collect(path: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if path.exists() {
        files.insert(path.to_owned());
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let mut files = BTreeSet::new();
    for root in ["src", "Cargo.lock", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={root}");
        collect(Path::new(root), &mut files)?;
    }
    let mut hasher = DefaultHasher::new();
    for file in &files {
        hasher.write(file.as_os_str().as_encoded_bytes());
        hasher.write(&fs::read(file)?);
    }
    // Cargo names these to every build script.
    for setting in ["TARGET", "PROFILE", "OPT_LEVEL"] {
        hasher.write(std::env::var_os(setting).unwrap_or_default().as_encoded_bytes());
    }
    println!("cargo:rustc-env=TAZPOD_BUILD={:016x}", hasher.finish());
    Ok(())
}
