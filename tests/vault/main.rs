//! The vault's commands that need no pod, as users have them: the binary, a directory as the store, real keys, a real terminal. And age
//! itself, by its published test vectors. `scripts/test` runs these.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod forks;
mod machine;
mod recipients;
mod vectors;
mod words;
