//! The outside world: engines, files, terminals, system calls.

pub mod certificates;
pub mod child;
pub mod engine;
pub mod exposure;
pub mod files;
pub mod idmap;
pub mod registry;
pub mod state;
pub mod store;
pub mod sys;
pub mod terminal;
