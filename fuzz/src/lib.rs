//! What reads bytes of others, fuzzed: `src/vault/hostile.rs`. The sources of the vault are compiled in here, once for all targets, and
//! nothing else of tazpod, so that it builds in minutes.
#![allow(missing_docs, dead_code)]

#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/adapters/sys/files.rs"]
pub mod files;
#[path = "../../src/vault/mod.rs"]
pub mod vault;

/// What the vault's sources take from elsewhere.
pub mod adapters {
    pub mod sys {
        pub use crate::files;
    }
}

use std::path::PathBuf;

/// Puts a target's good input, to begin with, where libFuzzer is about to read it: into the first directory of the command line.
pub fn sow(target: &str) {
    let named = std::env::args_os().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let Some(corpus) = named.map(PathBuf::from).filter(|path| path.is_dir()) else { return };
    for (n, (_, bytes)) in vault::hostile::seeds().iter().enumerate().filter(|(_, (of, _))| *of == target) {
        std::fs::write(corpus.join(format!("seed-{n}")), bytes).expect("a directory to write to");
    }
}
