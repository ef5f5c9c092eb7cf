//! A writer that names what passes through it.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

use super::id::Hash;

/// Hashes and counts what it passes on.
pub struct Hashing<W> {
    into: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    /// In front of this writer.
    pub fn new(into: W) -> Hashing<W> {
        Hashing { into, hasher: Sha256::new(), size: 0 }
    }

    /// The hash and the size in bytes of all that was written, and the writer.
    pub fn finish(self) -> (Hash, u64, W) {
        (Hash(self.hasher.finalize().into()), self.size, self.into)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.into.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
