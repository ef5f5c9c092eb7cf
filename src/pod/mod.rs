//! Pods: their names, their effective specification, what differs between two of them, and how they start.

pub mod builds;
pub mod launch;
pub mod name;
pub mod ownership;
pub mod spec;
pub mod target;
mod users;
pub mod vault;
pub mod workspace;
