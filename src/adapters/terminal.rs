//! The terminal of the caller.
