//! Writing in another thread: to hash and to write takes about as long as to make what is written.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

/// How much is handed over at a time, in bytes.
const PIECE: usize = 256 << 10;
/// How many of these wait to be written.
const PIECES: usize = 4;

/// Has what `work` writes written to `to` by a thread of its own. What `work` gave, and `to`, if nothing failed there.
///
/// # Errors
/// Where there is no thread to be had.
pub fn behind<W: Write + Send, T>(
    mut to: W,
    work: impl FnOnce(Behind) -> T,
) -> io::Result<(T, io::Result<W>)> {
    thread::scope(|scope| {
        let (sender, pieces) = mpsc::sync_channel::<Vec<u8>>(PIECES);
        let (used, free) = mpsc::channel();
        let writing = move || {
            for piece in pieces {
                to.write_all(&piece)?;
                // The other thread may have no more to write.
                let _ = used.send(piece);
            }
            to.flush()?;
            Ok(to)
        };
        let writing = thread::Builder::new().spawn_scoped(scope, writing)?;
        let worked = work(Behind { sender, free, piece: Vec::new() });
        let written = writing.join().unwrap_or_else(|_| Err(io::Error::other("it ended unexpectedly")));
        Ok((worked, written))
    })
}

/// What another thread writes. What was not flushed is lost.
pub struct Behind {
    sender: mpsc::SyncSender<Vec<u8>>,
    free: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl Write for Behind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut next = self.free.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE + PIECE / 2));
        next.clear();
        let piece = std::mem::replace(&mut self.piece, next);
        self.sender.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
