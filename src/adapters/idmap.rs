//! Idmapped mounts.
