//! The controlling end of a pseudo-terminal on the runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tokio::io::AsyncWrite;
use tokio::io::unix::AsyncFd;

use crate::adapters::sys::process::{open_pty, register};

/// Rows and columns, in cells and in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// Width in pixels, 0 where unknown.
    pub width: u16,
    /// Height in pixels, 0 where unknown.
    pub height: u16,
}

impl Size {
    /// From the numbers of an SSH request (RFC 4254, 6.2); zero means unknown there.
    pub fn from_request(columns: u32, rows: u32, width: u32, height: u32) -> Size {
        let clamp = |number: u32, default: u16| match u16::try_from(number) {
            Ok(0) => default,
            Ok(number) => number,
            Err(_) => u16::MAX,
        };
        Size {
            rows: clamp(rows, 24),
            columns: clamp(columns, 80),
            width: clamp(width, 0),
            height: clamp(height, 0),
        }
    }
}

/// The controlling end.
#[derive(Clone, Debug)]
pub struct Pty(Arc<AsyncFd<OwnedFd>>);

impl Pty {
    /// Opens a terminal of this size that takes UTF-8; returns it with the end for the child.
    ///
    /// # Errors
    /// Where the system has none left.
    pub fn open(size: Size) -> io::Result<(Pty, OwnedFd)> {
        let (controller, terminal) = open_pty()?;
        let mut modes = tcgetattr(&terminal)?;
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        rustix::io::ioctl_fionbio(&controller, true)?;
        let pty = Pty(Arc::new(register(controller)?));
        pty.resize(size)?;
        Ok((pty, terminal))
    }

    /// Sets the size; the kernel tells the foreground program with SIGWINCH.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: size.width,
            ws_ypixel: size.height,
        };
        Ok(tcsetwinsize(self.0.get_ref(), size)?)
    }

    /// Reads what is there; 0 once no process has the terminal open.
    ///
    /// # Errors
    /// None that a caller could act on.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| read_now(fd.get_ref(), buffer)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Reads what is there without waiting; 0 where there is nothing, or never will be.
    pub fn read_available(&self, buffer: &mut [u8]) -> usize {
        read_now(self.0.get_ref(), buffer).unwrap_or(0)
    }
}

fn read_now(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(fd, buffer) {
        // Linux's end of file on this end.
        Err(rustix::io::Errno::IO) => Ok(0),
        other => Ok(other?),
    }
}

impl AsyncWrite for Pty {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), data)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
