//! The vault: a tree of secret files, sealed on disk and in a store, open in a pod's RAM alone. `docs/vault-format.md`.

pub mod commit;
pub mod id;
pub mod key;
pub mod store;
