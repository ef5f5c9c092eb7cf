//! A real terminal with a screen that can be read.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::rig::{World, program, wait_for};

/// A terminal in which a program runs.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts tazpod with these arguments in a terminal of 80 by 24.
    pub fn start(world: &World, arguments: &[&str]) -> Terminal {
        Terminal::sized(world, arguments, 24, 80)
    }

    /// The same, of this size.
    pub fn sized(world: &World, arguments: &[&str], rows: u16, columns: u16) -> Terminal {
        let mut words = world.as_caller();
        words.push(program().to_string_lossy().into_owned());
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        Terminal::program(world, &words, rows, columns)
    }

    /// Any program, by its words.
    pub fn program(world: &World, words: &[String], rows: u16, columns: u16) -> Terminal {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(&words[0]);
        command.args(&words[1..]);
        command.cwd(&world.workspace);
        command.env_clear();
        for (name, value) in world.variables() {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            rows.try_into().unwrap(),
            columns.try_into().unwrap(),
            10_000,
        )));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (to_screen, to_raw) = (Arc::clone(&screen), Arc::clone(&raw));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                to_screen.lock().unwrap().process(&buffer[..count]);
                to_raw.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Terminal { master: pair.master, writer, child, screen, raw }
    }

    /// Types.
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.writer.write_all(text.as_ref()).unwrap();
        self.writer.flush().unwrap();
    }

    /// Detaches by the default sequence.
    pub fn detach(&mut self) {
        self.escape(".");
    }

    /// Types a default escape sequence, key by key as people do.
    pub fn escape(&mut self, last: &str) {
        for key in ["\r", "~", last] {
            self.send(key);
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The screen's text.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Scrollback and screen, line by line.
    pub fn history(&self) -> Vec<String> {
        let mut parser = self.screen.lock().unwrap();
        let screen = parser.screen_mut();
        let columns = screen.size().1.get();
        let mut lines = Vec::new();
        for above in (1..=screen.scrollback_len()).rev() {
            screen.set_scrollback(above);
            lines.extend(screen.rows(0, columns).next());
        }
        screen.set_scrollback(0);
        lines.extend(screen.rows(0, columns));
        lines
    }

    /// What the terminal's model says.
    pub fn with_screen<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.screen.lock().unwrap().screen())
    }

    /// Every byte that came so far.
    pub fn raw(&self) -> Vec<u8> {
        self.raw.lock().unwrap().clone()
    }

    /// Changes the size.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.screen.lock().unwrap().set_size(rows.try_into().unwrap(), columns.try_into().unwrap());
        self.master.resize(PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }).unwrap();
    }

    /// Changes the size and waits until the pod knows it: a key typed at once may overtake it.
    #[track_caller]
    pub fn resize_in(&self, world: &World, rows: u16, columns: u16) {
        self.resize(rows, columns);
        let line = "for terminal in /dev/pts/[0-9]*; do stty -F $terminal size; done";
        let size = format!("{rows} {columns}\n");
        world.wait_for("the size in the pod", || world.sh(line).stdout.contains(&size));
    }

    /// Waits until the screen shows a text.
    #[track_caller]
    pub fn wait(&self, text: &str) {
        self.wait_until(&format!("`{text}` on the screen"), |shown| shown.contains(text));
    }

    /// Waits until the screen's text is as it should be.
    #[track_caller]
    pub fn wait_until(&self, what: &str, check: impl Fn(&str) -> bool) {
        wait_for(what, || eprintln!("the screen:\n{}", self.text()), || check(&self.text()));
    }

    /// Waits for the program's end and gives its status.
    #[track_caller]
    pub fn end(&mut self) -> u32 {
        let mut status = None;
        let screen = Arc::clone(&self.screen);
        let dump = || eprintln!("the screen:\n{}", screen.lock().unwrap().screen().contents());
        let child = &mut self.child;
        wait_for("the end of the program", dump, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().exit_code()
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.process_id().unwrap()
    }

    /// Kills the program, which cannot say goodbye.
    pub fn kill(&mut self) {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        self.end();
    }

    /// The terminal's settings, as the program left them.
    pub fn settings(&self) -> rustix::termios::Termios {
        use std::os::fd::BorrowedFd;
        let fd = self.master.as_raw_fd().unwrap();
        // SAFETY: `master` lives as long as `self` and keeps its descriptor open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::termios::tcgetattr(fd).unwrap()
    }

    /// The settings of a terminal that no program has changed.
    pub fn fresh_settings() -> rustix::termios::Termios {
        let fd =
            rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::termios::tcgetattr(fd).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
    }
}
