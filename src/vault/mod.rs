//! The vault: a tree of secret files, sealed on disk and in a store, open in a pod's RAM alone. `docs/vault-format.md`.

pub mod archive;
pub mod behind;
pub mod commit;
pub mod copies;
#[cfg(test)]
mod crash;
pub mod disk;
pub mod hashing;
#[cfg(any(test, fuzzing))]
pub mod hostile;
pub mod id;
pub mod keeper;
pub mod key;
pub mod legacy;
pub mod local;
pub mod prune;
pub mod pruned;
pub mod recipient;
#[cfg(test)]
mod sim;
pub mod store;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod variables;
pub mod words;
