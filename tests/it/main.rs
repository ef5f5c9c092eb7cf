//! The product as its users have it: the binary, real engines, a real terminal. `scripts/test` runs these.
#![allow(unsafe_code, missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod catalog;
mod errors;
mod lifecycle;
mod ownership;
mod registry;
mod rig;
mod session;
mod ssh;
mod terminal;
mod vault;
