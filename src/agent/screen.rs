//! What a client gets when it attaches: the session's scrollback, screen and modes, as bytes for its terminal.

use std::num::NonZeroU16;

use super::pty::Size;

/// Lines above the screen that are remembered.
const SCROLLBACK_LINES: usize = 1000;

/// The session's terminal, as a model.
pub struct Screen {
    parser: vt100::Parser<Title>,
}

/// The window's title, which the model itself does not keep.
#[derive(Debug, Default)]
struct Title(Vec<u8>);

impl vt100::Callbacks for Title {
    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        self.0 = title.to_vec();
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Screen")
    }
}

fn non_zero(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

impl Screen {
    /// An empty screen.
    pub fn new(size: Size) -> Screen {
        let (rows, columns) = (non_zero(size.rows), non_zero(size.columns));
        Screen {
            parser: vt100::Parser::new_with_callbacks(rows, columns, SCROLLBACK_LINES, Title::default()),
        }
    }

    /// Takes the program's output in.
    pub fn process(&mut self, output: &[u8]) {
        self.parser.process(output);
    }

    /// Changes the size.
    pub fn resize(&mut self, size: Size) {
        self.parser.set_size(non_zero(size.rows), non_zero(size.columns));
    }

    /// Brings any terminal of this size to the state of this one; what it showed moves up into its scrollback.
    pub fn restore(&self) -> Vec<u8> {
        let screen = self.parser.screen();
        let rows = screen.size().0.get();
        let mut out = Vec::new();
        // Push what the terminal shows off its screen, line by line: clearing would lose it.
        out.extend_from_slice(format!("\x1b[m\x1b[{rows};1H").as_bytes());
        out.extend(std::iter::repeat_n(b'\n', rows.into()));
        out.extend_from_slice(b"\x1b[H");
        if screen.alternate_screen() {
            // The program's screen lies over the shell's, which shows again when the program ends.
            let mut below = vt100::Parser::new(screen.size().0, screen.size().1, SCROLLBACK_LINES);
            *below.screen_mut() = screen.clone();
            below.process(b"\x1b[?1049l");
            push_main(below.screen_mut(), &mut out);
            out.extend_from_slice(b"\x1b[?1049h");
            out.extend_from_slice(screen.state_formatted().as_bytes());
        } else {
            push_main(&mut screen.clone(), &mut out);
        }
        self.push_title(&mut out);
        out
    }

    /// Brings a terminal that fell behind to the present state, without the lines it missed.
    pub fn refresh(&self) -> Vec<u8> {
        let screen = self.parser.screen();
        let alternate: &[u8] = if screen.alternate_screen() { b"\x1b[?1049h" } else { b"\x1b[?1049l" };
        let mut out = [b"\x18\x1b[m", alternate, screen.state_formatted().as_bytes()].concat();
        self.push_title(&mut out);
        out
    }

    fn push_title(&self, out: &mut Vec<u8>) {
        let title = &self.parser.callbacks().0;
        if !title.is_empty() {
            out.extend_from_slice(b"\x1b]2;");
            out.extend_from_slice(title);
            out.push(b'\x07');
        }
    }
}

fn push_main(screen: &mut vt100::Screen, out: &mut Vec<u8>) {
    let (rows, columns) = (screen.size().0.get(), screen.size().1.get());
    let mut above = screen.scrollback_len();
    let any = above > 0;
    while above > 0 {
        screen.set_scrollback(above);
        let count = above.min(rows.into());
        for (row, text) in (0u16..).zip(screen.rows_formatted(0, columns).take(count)) {
            out.extend_from_slice(b"\x1b[m");
            out.extend_from_slice(text.as_bytes());
            if !screen.row_wrapped(row) {
                out.extend_from_slice(b"\x1b[m\r\n");
            }
        }
        above -= count;
    }
    screen.set_scrollback(0);
    if any {
        // The same push again, now for the lines just written.
        out.extend_from_slice(b"\x1b[m");
        out.extend_from_slice(format!("\x1b[{rows};1H").as_bytes());
        out.extend(std::iter::repeat_n(b'\n', usize::from(rows).saturating_sub(1)));
    }
    out.extend_from_slice(screen.state_formatted().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rows: 5, columns: 20, width: 0, height: 0 };

    fn restored(screen: &Screen) -> vt100::Parser {
        let mut terminal = vt100::Parser::new(non_zero(5), non_zero(20), 100);
        terminal.process(b"$ tazpod attach\r\n");
        terminal.process(&screen.restore());
        terminal
    }

    fn lines_above(terminal: &mut vt100::Parser) -> Vec<String> {
        let screen = terminal.screen_mut();
        let mut lines = Vec::new();
        for above in (1..=screen.scrollback_len()).rev() {
            screen.set_scrollback(above);
            lines.extend(screen.rows(0, 20).next());
        }
        screen.set_scrollback(0);
        lines
    }

    #[test]
    fn screen_and_scrollback_come_back() {
        let mut screen = Screen::new(SIZE);
        for n in 0..12 {
            screen.process(format!("line {n} \x1b[38;2;1;2;3mcolour\x1b[m\r\n").as_bytes());
        }
        screen.process(b"prompt> \x1b[?2004h\x1b]2;title\x07");
        let mut terminal = restored(&screen);
        assert_eq!(terminal.screen().contents(), screen.parser.screen().contents());
        assert_eq!(terminal.screen().cursor_position(), screen.parser.screen().cursor_position());
        assert!(terminal.screen().bracketed_paste());
        let colour = terminal.screen().cell(0, 9).unwrap().fgcolor();
        assert_eq!(colour, vt100::Color::Rgb(1, 2, 3));
        let above = lines_above(&mut terminal);
        assert!(above.iter().any(|line| line == "$ tazpod attach"), "{above:?}");
        let old: Vec<_> = above.iter().filter(|line| line.starts_with("line ")).map(String::as_str).collect();
        let expected: Vec<_> = (0..8).map(|n| format!("line {n} colour")).collect();
        assert_eq!(old, expected);
    }

    #[test]
    fn a_long_line_is_not_broken() {
        let mut screen = Screen::new(SIZE);
        screen.process(format!("{}\r\n", "x".repeat(50)).as_bytes());
        screen.process(b"1\r\n2\r\n3\r\n4\r\n");
        let mut terminal = restored(&screen);
        let above = lines_above(&mut terminal);
        let exes: Vec<_> = above.iter().filter(|line| line.starts_with('x')).map(String::len).collect();
        assert_eq!(exes, [20, 20, 10]);
    }

    #[test]
    fn the_screen_below_a_full_screen_program_comes_back() {
        let mut screen = Screen::new(SIZE);
        screen.process(b"shell here\r\n\x1b[?1049h\x1b[H\x1b[2Jeditor here\x1b[?1h\x1b[?1000h");
        let mut terminal = restored(&screen);
        assert!(terminal.screen().alternate_screen());
        assert_eq!(terminal.screen().contents(), "editor here");
        assert!(terminal.screen().application_cursor());
        terminal.process(b"\x1b[?1049l");
        assert_eq!(terminal.screen().contents(), "shell here");
    }

    #[test]
    fn every_size_works() {
        for rows in 1..4 {
            for columns in 1..4 {
                let mut screen = Screen::new(Size { rows, columns, width: 0, height: 0 });
                screen.process("wide 日本 text\r\nmore\r\n".as_bytes());
                screen.resize(Size { rows: 4 - rows, columns: 4 - columns, width: 0, height: 0 });
                screen.process("日\r\n".as_bytes());
                assert!(!screen.restore().is_empty());
            }
        }
    }
}
