//! Pods: their names, their effective specification, and what differs between two of them.

pub mod name;
pub mod ownership;
pub mod spec;
