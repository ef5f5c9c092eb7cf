//! `tazpod agent connect`: the link over the stdio of a command that the engine starts in the pod.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use crate::error::{Error, Result};
use crate::pod::spec::RUN;

/// Copies stdin to the agent's socket and the socket to stdout until the agent hangs up.
///
/// # Errors
/// Where the agent does not listen.
pub fn run() -> Result<()> {
    let path = Path::new(RUN).join("agent.sock");
    let mut socket = UnixStream::connect(&path).map_err(|source| Error::io("connect to", &path, source))?;
    let mut sending = socket.try_clone().map_err(|source| Error::io("use", &path, source))?;
    thread::spawn(move || {
        // Either end may go first; the other thread ends the process.
        let _ = io::copy(&mut io::stdin().lock(), &mut sending);
        let _ = sending.shutdown(Shutdown::Write);
    });
    // Not `io::copy`: stdout would hold back what does not end in a newline.
    let mut buffer = vec![0; 64 * 1024];
    let mut stdout = io::stdout().lock();
    loop {
        let count = match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(Error::io("read from", &path, source)),
        };
        let written = stdout.write_all(buffer.get(..count).unwrap_or_default()).and_then(|()| stdout.flush());
        if written.is_err() {
            return Ok(());
        }
    }
}
