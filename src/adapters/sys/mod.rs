//! The one home of unsafe code: what the standard library and rustix leave to the caller.

#![allow(unsafe_code)]

pub mod files;
pub mod mounts;
pub mod process;
