//! The catalog of verticals.
