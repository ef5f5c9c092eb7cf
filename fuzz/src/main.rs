//! What reads bytes of others, fuzzed: `src/vault/hostile.rs`. The sources of the vault are compiled in here, and nothing else of tazpod, so
//! that it builds in minutes. `TAZPOD_FUZZ` names the target, and the directory that gets good input to begin with.
#![no_main]
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

use std::path::Path;
use std::sync::OnceLock;

use vault::hostile::{TARGETS, Target, seeds};

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: begin(), |data: &[u8]| TARGET.get().expect("it has begun")(data));

fn begin() {
    let named = std::env::var("TAZPOD_FUZZ").expect("TAZPOD_FUZZ is TARGET:DIRECTORY");
    let (name, corpus) = named.split_once(':').expect("TAZPOD_FUZZ is TARGET:DIRECTORY");
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name");
    TARGET.get_or_init(|| target.1);
    for (n, (_, bytes)) in seeds().iter().enumerate().filter(|(_, (target, _))| *target == name) {
        std::fs::write(Path::new(corpus).join(format!("seed-{n}")), bytes).expect("a directory to write to");
    }
}
