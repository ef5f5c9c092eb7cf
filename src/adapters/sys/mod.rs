//! The one home of unsafe code.

pub mod mounts;
