//! The terminal of the caller: raw mode, size, type, and streams that block.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use age::secrecy::SecretString;
use base64::Engine as _;
use bytes::Bytes;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::env;
use crate::error::{Error, Kind, Result};

/// A secret that is typed is not longer, in bytes.
pub const SECRET_LIMIT: usize = 1024;

/// Entries larger than this are not terminfo's (term(5): 32 KiB).
const TERMINFO_LIMIT: u64 = 32 * 1024;

/// Whether both ends of a conversation, stdin and stdout, are a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Asks for something that the screen must not show, on the controlling terminal. What was typed before is dropped. `instead` is
/// the advice where there is none.
///
/// # Errors
/// [`Kind::Usage`] where there is no terminal; [`Kind::Interrupted`] where the input ends.
pub async fn ask_secret(prompt: &str, instead: &str) -> Result<SecretString> {
    ask(prompt, instead, true).await
}

/// Asks for something that the screen may show.
///
/// # Errors
/// As [`ask_secret`].
pub async fn ask_public(prompt: &str, instead: &str) -> Result<SecretString> {
    ask(prompt, instead, false).await
}

/// Shows a line on the controlling terminal, and nowhere else.
///
/// # Errors
/// Where there is none.
pub fn show(line: &str) -> io::Result<()> {
    File::options().write(true).open("/dev/tty")?.write_all(format!("{line}\n").as_bytes())
}

async fn ask(prompt: &str, instead: &str, hidden: bool) -> Result<SecretString> {
    let no_terminal =
        |source| Error::new(Kind::Usage, "there is no terminal to ask on").with_source(source).hint(instead);
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let silent = Silent::new(terminal.try_clone().map_err(no_terminal)?, hidden).map_err(no_terminal)?;
    (&terminal).write_all(prompt.as_bytes()).map_err(no_terminal)?;
    // A thread of its own: a signal drops the guard, and thereby shows again what is typed.
    let (done, line) = oneshot::channel();
    thread::spawn(move || {
        let mut text = Zeroizing::new(Vec::with_capacity(SECRET_LIMIT));
        let mut byte = [0];
        let read = loop {
            match (&terminal).read(&mut byte) {
                Ok(0) => break Ok(false),
                Ok(_) if byte == *b"\n" => break Ok(true),
                Ok(_) if text.len() < SECRET_LIMIT => text.extend(byte),
                Ok(_) => {}
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => break Err(source),
            }
        };
        // Whoever asked may have gone.
        let _ = done.send(read.map(|whole| whole.then_some(text)));
    });
    let line = line.await.map_err(|_| Error::interrupted())?;
    drop(silent);
    let text = line.map_err(no_terminal)?.ok_or_else(Error::interrupted)?;
    let text = std::str::from_utf8(&text)
        .map_err(|source| Error::new(Kind::Usage, "what was typed is not UTF-8").with_source(source))?;
    Ok(SecretString::from(text))
}

/// A terminal that does not show what is typed, if that is to be hidden, until dropped.
struct Silent {
    terminal: File,
    saved: Termios,
    hidden: bool,
}

impl Silent {
    fn new(terminal: File, hidden: bool) -> io::Result<Silent> {
        let saved = tcgetattr(&terminal)?;
        let mut silent = saved.clone();
        silent.local_modes.set(LocalModes::ECHO, !hidden);
        // What was typed before the question is no answer.
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Silent { terminal, saved, hidden })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring. The newline was not shown either.
        let newline = if self.hidden { &b"\n"[..] } else { b"" };
        let _ = self.terminal.write_all(newline);
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.saved);
    }
}

/// The terminal in raw mode, until dropped.
pub struct RawMode {
    saved: Termios,
    /// What the program on the screen switched on, to be switched off at the end.
    model: RefCell<vt100::Parser>,
}

impl std::fmt::Debug for RawMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawMode")
    }
}

impl RawMode {
    /// Switches stdin's terminal to raw mode.
    ///
    /// # Errors
    /// [`Kind::Usage`] where stdin is no terminal.
    pub fn enter() -> Result<RawMode> {
        let not_a_terminal = |source| {
            Error::new(Kind::Usage, "standard input is not a terminal")
                .with_source(io::Error::from(source))
                .hint("without a terminal use `tazpod exec -- COMMAND`")
        };
        let saved = tcgetattr(io::stdin()).map_err(not_a_terminal)?;
        let mode = RawMode { saved, model: RefCell::default() };
        mode.set()?;
        Ok(mode)
    }

    /// Raw mode again, after the process was stopped and continued.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn set(&self) -> Result<()> {
        let mut raw = self.saved.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(|source| {
            Error::new(Kind::Failure, "cannot use the terminal").with_source(io::Error::from(source))
        })
    }

    /// Notes what goes to the terminal.
    pub fn observe(&self, output: &[u8]) {
        self.model.borrow_mut().process(output);
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let model = self.model.borrow();
        let screen = model.screen();
        let fresh = vt100::Parser::default();
        // What was dropped may have ended amid a sequence: CAN ends that.
        let mut undo = String::from("\x18\x1b[m");
        if screen.alternate_screen() {
            undo.push_str("\x1b[?1049l");
        }
        if screen.hide_cursor() {
            undo.push_str("\x1b[?25h");
        }
        undo.push_str(&fresh.screen().input_mode_diff(screen));
        // A terminal that is gone needs no restoring.
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(undo.as_bytes()).and_then(|()| stdout.flush());
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.saved);
    }
}

/// Columns, rows, and both in pixels, of stdout's or stdin's terminal; zeros where it is none.
pub fn size() -> (u32, u32, u32, u32) {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    size.map_or((0, 0, 0, 0), |size| {
        (size.ws_col.into(), size.ws_row.into(), size.ws_xpixel.into(), size.ws_ypixel.into())
    })
}

/// The terminal's type, `xterm-256color` where none is set.
pub fn kind() -> String {
    std::env::var(env::TERM).ok().filter(|term| !term.is_empty()).unwrap_or_else(|| "xterm-256color".into())
}

/// The compiled terminfo entry of a terminal's type, in base64, where this machine has one.
pub fn terminfo(term: &str) -> Option<String> {
    let entry = terminfo_path(term)?;
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut directories: Vec<PathBuf> = Vec::new();
    directories.extend(set(env::TERMINFO).map(PathBuf::from));
    directories.extend(set(env::HOME).map(|home| PathBuf::from(home).join(".terminfo")));
    directories.extend(set(env::TERMINFO_DIRS).iter().flat_map(std::env::split_paths));
    directories.extend(["/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"].map(PathBuf::from));
    directories.into_iter().map(|directory| directory.join(&entry)).find_map(|path| {
        let small = std::fs::metadata(&path).is_ok_and(|found| found.len() <= TERMINFO_LIMIT);
        let bytes = if small { std::fs::read(&path).ok()? } else { return None };
        Some(base64::engine::general_purpose::STANDARD.encode(bytes))
    })
}

/// The path of an entry below a terminfo directory (term(5)); none for what cannot be a terminal's name.
pub fn terminfo_path(term: &str) -> Option<PathBuf> {
    let first = term.chars().next()?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_');
    (first != '.' && term.chars().all(valid)).then(|| PathBuf::from(first.to_string()).join(term))
}

/// Reads stdin in a thread, since neither a terminal nor a file can be polled without side effects. Ends at the end
/// of the input; the thread itself ends with the process.
pub fn stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    let data = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                    if sender.blocking_send(data).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// A stream of the process, written by a thread of its own, so that a reader that stops stops only this stream.
/// Dropping it drops what is not yet written.
#[derive(Debug)]
pub struct Output {
    queue: mpsc::Sender<Bytes>,
    finished: oneshot::Receiver<io::Result<()>>,
    /// Dropped last: what is not written by then is not to be written.
    _abandoned: Abandoned,
}

#[derive(Debug)]
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Output {
    /// Starts the thread.
    pub fn new(mut stream: impl Write + Send + 'static) -> Output {
        let (queue, mut waiting) = mpsc::channel::<Bytes>(64);
        let (done, finished) = oneshot::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&abandoned);
        thread::spawn(move || {
            let mut result = Ok(());
            while let Some(data) = waiting.blocking_recv() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                result = stream.write_all(&data).and_then(|()| stream.flush());
                if result.is_err() {
                    break;
                }
            }
            // Whoever asked may have gone.
            let _ = done.send(result);
        });
        Output { queue, finished, _abandoned: Abandoned(abandoned) }
    }

    /// Queues data; waits while much is waiting. False once the reader has gone.
    pub async fn write(&self, data: Bytes) -> bool {
        self.queue.send(data).await.is_ok()
    }

    /// Waits until everything is written, or, past `patience`, drops what is not.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn finish(self, patience: Duration) -> io::Result<()> {
        drop(self.queue);
        match tokio::time::timeout(patience, self.finished).await {
            Ok(Ok(result)) => result,
            _ => Ok(()),
        }
    }
}
