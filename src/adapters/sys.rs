//! The one home of unsafe code.
