//! Escape sequences: keys that the client keeps for itself, as OpenSSH's `~.`.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

/// Detaches. OpenSSH's own habit, one letter changed by nobody: at the start of a line, `~.`.
pub const DETACH: &str = "enter ~ .";
/// Opens the vault.
pub const UNLOCK: &str = "enter ~ u";

/// What arrives at once beyond so many keys was pasted, not typed; in it nothing is looked for.
const TYPED_AT_MOST: usize = 8;

/// Several keys at once this soon after a paste are the rest of it: a terminal gives a paste in pieces of any size.
const PASTE_GAP: Duration = Duration::from_millis(50);

/// The marks of a bracketed paste.
const PASTE_START: u64 = u64::from_be_bytes(*b"\0\0\x1b[200~");
const PASTE_END: u64 = u64::from_be_bytes(*b"\0\0\x1b[201~");
const PASTE_MARK: u64 = (1 << 48) - 1;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;
/// What is longer, in bytes, no terminal sends after CSI.
const LONGEST_CONTROL: usize = 64;

/// What a sequence is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// To leave the session running.
    Detach,
    /// To open the vault, and come back.
    Unlock,
}

impl Escape {
    /// The setting of `[attach]`.
    const fn setting(self) -> &'static str {
        match self {
            Escape::Detach => "detach",
            Escape::Unlock => "unlock",
        }
    }
}

/// Finds the sequences in what is typed.
///
/// As OpenSSH does it, keys of a sequence that may become complete are held back, all but a leading Enter; if it does
/// not become complete they go through after all. What the terminal says between two keys, because the program asked or because
/// the mouse moved, goes through and counts for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detector {
    sequences: Vec<(Escape, Vec<Vec<u8>>)>,
    /// The bytes that may be the beginning of one …
    matched: Vec<u8>,
    /// … and those of them that the program has not got.
    held: Vec<u8>,
    terminal: Terminal,
    /// When more came at once than is typed.
    pasted: Option<Instant>,
}

/// What is to be done with what was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// For the program.
    pub input: Vec<u8>,
    /// The sequence that is complete; what was typed after it is dropped.
    pub escape: Option<Escape>,
}

impl Detector {
    /// Reads sequences: keys apart by spaces, each one a character, `ctrl-X`, `enter`, `escape`, `tab` or `space`. `none` is no
    /// sequence.
    ///
    /// # Errors
    /// [`Kind::Config`] where a key is not one, a sequence of one plain key would take it from the user, or one sequence is the
    /// beginning of another.
    pub fn parse(texts: &[(Escape, &str)]) -> Result<Detector> {
        let named = |texts: &[(Escape, &str)]| {
            let each = texts.iter().map(|(escape, text)| format!("`{} = \"{text}\"`", escape.setting()));
            each.collect::<Vec<_>>().join(" and ")
        };
        let mut detector = Detector::default();
        for &(escape, text) in texts.iter().filter(|(_, text)| *text != "none") {
            let keys = sequence(text)?;
            let begins = |(_, other): &(Escape, Vec<Vec<u8>>)| {
                other.iter().zip(&keys).all(|(one, other)| one.iter().any(|byte| other.contains(byte)))
            };
            if detector.sequences.iter().any(begins) {
                return Err(Error::new(Kind::Config, format!("{} of `[attach]` begin alike", named(texts)))
                    .hint("neither may be the beginning of the other; `none` switches one off"));
            }
            detector.sequences.push((escape, keys));
        }
        Ok(detector)
    }

    /// Takes in what was read from the terminal at once.
    pub fn scan(&mut self, typed: &[u8], now: Instant) -> Typed {
        let said = self.terminal.read(typed);
        let keys = said.iter().filter(|(said, _)| *said != Said::Report).count();
        if keys > TYPED_AT_MOST {
            self.pasted = Some(now);
        }
        let burst =
            keys > 1 && self.pasted.is_some_and(|pasted| now.saturating_duration_since(pasted) < PASTE_GAP);
        let mut input = Vec::new();
        for (said, bytes) in said {
            let key = match said {
                Said::Report => {
                    input.extend(bytes);
                    continue;
                }
                Said::Key(key) if !burst => Some(key),
                Said::Key(_) | Said::Other => None,
            };
            if key.is_none_or(|key| !self.expects(key)) {
                self.give_up(&mut input);
            }
            let Some(key) = key.filter(|key| self.expects(*key)) else {
                input.extend(bytes);
                continue;
            };
            self.matched.push(key);
            let typed = self.matched.len();
            let escape = self.begun().find(|(_, keys)| keys.len() == typed).map(|(escape, _)| *escape);
            if escape.is_some() {
                self.matched.clear();
                self.held.clear();
                return Typed { input, escape };
            }
            match key {
                b'\r' | b'\n' if typed == 1 => input.extend(bytes),
                _ => self.held.extend(bytes),
            }
        }
        Typed { input, escape: None }
    }

    /// The sequences that begin with what is matched.
    fn begun(&self) -> impl Iterator<Item = &(Escape, Vec<Vec<u8>>)> {
        let begins = |keys: &[Vec<u8>]| keys.iter().zip(&self.matched).all(|(key, byte)| key.contains(byte));
        self.sequences.iter().filter(move |(_, keys)| begins(keys))
    }

    fn expects(&self, byte: u8) -> bool {
        let next = self.matched.len();
        self.begun().any(|(_, keys)| keys.get(next).is_some_and(|key| key.contains(&byte)))
    }

    fn give_up(&mut self, input: &mut Vec<u8>) {
        self.matched.clear();
        input.append(&mut self.held);
    }
}

/// What a terminal sends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// A key that counts as this byte.
    Key(u8),
    /// Another key, or a part of a paste.
    Other,
    /// No key: an answer to a query, the mouse, the focus, a key let go.
    Report,
}

/// Tells keys from what else a terminal sends: ECMA-48, "XTerm Control Sequences", kitty's keyboard protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Terminal {
    state: State,
    /// Between the marks of a bracketed paste.
    pasting: bool,
    /// The last bytes, in which the marks are looked for: they may arrive in pieces, and after anything.
    tail: u64,
    /// The beginning of what has not ended, which the program has not got.
    unfinished: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    /// After CSI, what came since.
    Control(Vec<u8>),
    /// After SS3.
    Single,
    /// So many bytes of an old report of the mouse are to come.
    Mouse(u8),
    /// In a string: OSC, DCS, SOS, PM or APC.
    Text,
    TextEscape,
}

/// What a byte brought.
enum Step {
    More,
    Done(Said),
    /// What came before it is this, and the byte begins something.
    Broken(Said),
}

impl Terminal {
    /// What was read at once, in the order that it came.
    fn read(&mut self, typed: &[u8]) -> Vec<(Said, Vec<u8>)> {
        let (mut all, mut current) = (Vec::new(), std::mem::take(&mut self.unfinished));
        let before = current.len();
        for &byte in typed {
            self.tail = (self.tail << 8 | u64::from(byte)) & PASTE_MARK;
            if self.pasting {
                self.pasting = self.tail != PASTE_END;
                all.push((Said::Other, vec![byte]));
                continue;
            }
            let mut step = self.step(byte);
            if let Step::Broken(said) = step {
                all.push((said, std::mem::take(&mut current)));
                self.state = State::Ground;
                step = self.step(byte);
            }
            current.push(byte);
            if self.tail == PASTE_START {
                self.pasting = true;
                step = Step::Done(Said::Other);
            }
            if let Step::Done(said) = step {
                all.push((said, std::mem::take(&mut current)));
                self.state = State::Ground;
            }
        }
        match self.state {
            // The key; almost always what else begins so comes at once.
            State::Escape => all.push((Said::Key(ESCAPE), current)),
            // With Alt.
            _ if before == 0 && current.len() == 2 => all.push((Said::Other, current)),
            // It may be long, and is no key unless it is broken off.
            State::Text | State::TextEscape => {
                all.push((Said::Report, current));
                return all;
            }
            _ => {
                self.unfinished = current;
                return all;
            }
        }
        self.state = State::Ground;
        all
    }

    fn step(&mut self, byte: u8) -> Step {
        match &mut self.state {
            State::Ground if byte == ESCAPE => self.state = State::Escape,
            State::Ground => return Step::Done(Said::Key(byte)),
            State::Escape => match byte {
                b'[' => self.state = State::Control(Vec::new()),
                b'O' => self.state = State::Single,
                b']' | b'P' | b'X' | b'^' | b'_' => self.state = State::Text,
                _ => return Step::Broken(Said::Key(ESCAPE)),
            },
            State::Single => return Step::Done(Said::Other),
            State::Control(sequence) => match byte {
                b' '..=b'?' if sequence.len() < LONGEST_CONTROL => sequence.push(byte),
                b'M' if sequence.is_empty() => self.state = State::Mouse(3),
                b'@'..=b'~' => {
                    sequence.push(byte);
                    return Step::Done(control(sequence));
                }
                _ => return Step::Broken(Said::Other),
            },
            State::Mouse(left) => {
                *left -= 1;
                if *left == 0 {
                    return Step::Done(Said::Report);
                }
            }
            State::Text => match byte {
                BELL => return Step::Done(Said::Report),
                ESCAPE => self.state = State::TextEscape,
                // Somebody types: it was no string, but a key with Alt.
                0..b' ' => return Step::Broken(Said::Other),
                _ => {}
            },
            State::TextEscape if byte == b'\\' => return Step::Done(Said::Report),
            State::TextEscape => return Step::Broken(Said::Other),
        }
        Step::More
    }
}

/// What follows CSI, to its end.
fn control(sequence: &[u8]) -> Said {
    let (parameters, last) = match sequence.split_last() {
        Some((last, parameters)) => (parameters, *last),
        None => return Said::Other,
    };
    let is_private = parameters.first().is_some_and(|byte| matches!(byte, b'<'..=b'?'));
    let has_intermediate = parameters.iter().any(|byte| matches!(byte, b' '..=b'/'));
    // Cursor keys, Home and End, function keys, Shift-Tab, the Linux console's; F3 is also an answer.
    let is_key = matches!(last, b'A'..=b'H' | b'P' | b'Q' | b'S' | b'Z' | b'[' | b'~' | b'u');
    if is_private || has_intermediate || !is_key {
        return Said::Report;
    }
    let numbers: Vec<Vec<u32>> = parameters
        .split(|byte| *byte == b';')
        .map(|part| part.split(|byte| *byte == b':').map(number).collect())
        .collect();
    let at = |part: usize, sub: usize| numbers.get(part).and_then(|part| part.get(sub)).copied().unwrap_or(0);
    match (last, at(0, 0)) {
        // Let go, or a key such as Shift alone.
        (b'u', _) if at(1, 1) == 3 => Said::Report,
        (b'u', 57441..=57454) => Said::Report,
        (b'u', code) => key_of([at(2, 0), at(0, 1)].into_iter().find(|typed| *typed != 0), code, at(1, 0)),
        // As xterm reports them, where it is told to.
        (b'~', 27) => key_of(None, at(2, 0), (at(1, 0).saturating_sub(1) & !1) + 1),
        _ => Said::Other,
    }
}

fn number(digits: &[u8]) -> u32 {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The byte that a key's code is, or the text that it gave. `modifiers` is one more than their bits.
fn key_of(text: Option<u32>, code: u32, modifiers: u32) -> Said {
    const SHIFT: u32 = 1;
    const CONTROL: u32 = 4;
    const LOCKS: u32 = 64 | 128;
    const KEYPAD_ENTER: u32 = 57414;
    let code = if code == KEYPAD_ENTER { u32::from(b'\r') } else { code };
    let Ok(key) = u8::try_from(text.unwrap_or(code)) else { return Said::Other };
    match modifiers.saturating_sub(1) & !LOCKS {
        0 => Said::Key(key),
        SHIFT if text.is_some() => Said::Key(key),
        SHIFT => Said::Key(key.to_ascii_uppercase()),
        CONTROL => Said::Key(key.to_ascii_uppercase() & 0x1f),
        _ => Said::Other,
    }
}

/// The keys of a sequence, each as the bytes that count as it.
fn sequence(text: &str) -> Result<Vec<Vec<u8>>> {
    let wrong = |reason: String| {
        Err(Error::new(Kind::Config, format!("`{text}` is not a sequence of keys: {reason}"))
            .hint("write keys apart by spaces, as in `enter ~ .` or `ctrl-a d`; `none` switches it off"))
    };
    let mut keys = Vec::new();
    for name in text.split_whitespace() {
        match key(name) {
            Some(key) => keys.push(key),
            None => return wrong(format!("`{name}` is not a key")),
        }
    }
    match keys.as_slice() {
        [] => wrong("it is empty".into()),
        [only] if only.iter().all(|byte| *byte >= b' ') => {
            wrong("one plain key could not be typed any more".into())
        }
        _ => Ok(keys),
    }
}

/// The bytes that count as this key.
fn key(name: &str) -> Option<Vec<u8>> {
    let control =
        name.strip_prefix("ctrl-").or_else(|| name.strip_prefix('^').filter(|rest| !rest.is_empty()));
    if let Some(letter) = control {
        let &[letter] = letter.to_ascii_uppercase().as_bytes() else { return None };
        return (b'@'..=b'_').contains(&letter).then(|| vec![letter & 0x1f]);
    }
    match name {
        "enter" => Some(vec![b'\r', b'\n']),
        "escape" => Some(vec![0x1b]),
        "tab" => Some(vec![b'\t']),
        "space" => Some(vec![b' ']),
        _ => match name.as_bytes() {
            &[byte] if byte.is_ascii_graphic() => Some(vec![byte]),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector(detach: &str) -> Result<Detector> {
        Detector::parse(&[(Escape::Detach, detach), (Escape::Unlock, UNLOCK)])
    }

    /// What the program gets, and whether the sequence that detaches became complete.
    fn typed(sequence: &str, keys: &[&str]) -> (String, bool) {
        let (input, escape) = escaped(sequence, keys);
        assert_ne!(escape, Some(Escape::Unlock));
        (input, escape.is_some())
    }

    fn escaped(sequence: &str, keys: &[&str]) -> (String, Option<Escape>) {
        let mut detector = detector(sequence).unwrap();
        let mut all = Vec::new();
        let mut now = Instant::now();
        for key in keys {
            now += Duration::from_secs(1);
            let Typed { input, escape } = detector.scan(key.as_bytes(), now);
            all.extend(input);
            if escape.is_some() {
                return (String::from_utf8(all).unwrap(), escape);
            }
        }
        (String::from_utf8(all).unwrap(), None)
    }

    #[test]
    fn the_default_is_found_and_its_keys_held_back() {
        assert_eq!(typed(DETACH, &["\r", "~", "."]), ("\r".into(), true));
        assert_eq!(typed(DETACH, &["ls\r", "~."]), ("ls\r".into(), true));
        assert_eq!(typed(DETACH, &["~", "."]), ("~.".into(), false), "not at the start of a line");
        assert_eq!(typed(DETACH, &["\r", "~", "/", "x"]), ("\r~/x".into(), false));
        assert_eq!(typed(DETACH, &["\r", "~", "~", "."]), ("\r~~.".into(), false));
        assert_eq!(typed(DETACH, &["\r", "\r", "~", "."]), ("\r\r".into(), true));
        assert_eq!(typed(DETACH, &["\r", "~", "\r", "~", "."]), ("\r~\r".into(), true));
    }

    #[test]
    fn nothing_is_looked_for_in_a_paste() {
        let paste = "a long text\r~.\r~.\r~.";
        assert_eq!(typed(DETACH, &[paste]), (paste.into(), false));
        assert_eq!(
            typed(DETACH, &["\x1b[200~", "\r~.", "\x1b[201~"]),
            ("\x1b[200~\r~.\x1b[201~".into(), false)
        );
        let after = typed(DETACH, &["\x1b[200~", "x", "\x1b[201~", "\r", "~", "."]);
        assert_eq!(after, ("\x1b[200~x\x1b[201~\r".into(), true));
        for cut in 1..6 {
            let (one, other) = "\x1b[200~".split_at(cut);
            let pasted = typed(DETACH, &[one, other, "\r", "~", "."]);
            assert_eq!(pasted, ("\x1b[200~\r~.".into(), false), "{cut}");
        }
        let pieces = ["\x1b[2", "00~x\r", "~", ".", "\r~.\x1b[20", "1~", "\r", "~", "."];
        assert_eq!(typed(DETACH, &pieces), ("\x1b[200~x\r~.\r~.\x1b[201~\r".into(), true));
    }

    #[test]
    fn what_follows_a_paste_at_once_is_a_part_of_it() {
        let mut detector = detector(DETACH).unwrap();
        let start = Instant::now();
        assert!(detector.scan(&[b'x'; 4096], start).escape.is_none());
        assert!(detector.scan(b"\r~.", start + Duration::from_millis(5)).escape.is_none());
        assert!(detector.scan(b"\r~.", start + Duration::from_millis(500)).escape.is_some());
        let keys = ["\r", "~", "."]
            .map(|key| detector.scan(key.as_bytes(), start + Duration::from_millis(5)).escape.is_some());
        assert_eq!(keys, [false, false, true], "a program that types fast, key by key");
    }

    #[test]
    fn what_the_terminal_says_between_two_keys_counts_for_nothing() {
        let reports = [
            "\x1b[0n",
            "\x1b[12;40R",
            "\x1b[?62;c",
            "\x1b[<35;80;24M",
            "\x1b[<0;1;1m",
            "\x1b[M !!",
            "\x1b[32;10;10M",
            "\x1b[2;1;1;128;128;1;0x",
            "\x1b[I",
            "\x1b[?2026;2$y",
            "\x1b]11;rgb:0000/0000/0000\x1b\\",
            "\x1b]l~.~u\x07",
            "\x1bP1$r0m\x1b\\",
            "\x1b_Gi=1;OK\x1b\\",
            "\x1b[57441;2u",
            "\x1b[126;1:3u",
        ];
        for report in reports {
            assert_eq!(
                typed(DETACH, &["\r", report, "~", report, "."]),
                (format!("\r{report}{report}"), true)
            );
            let together = [&format!("\r{report}{report}~{report}.")[..]];
            assert!(typed(DETACH, &together).1, "{report:?}");
            for cut in 3..report.len() {
                let (one, other) = report.split_at(cut);
                let keys = ["\r", "~", one, other, "."];
                assert_eq!(typed(DETACH, &keys), (format!("\r{report}"), true), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn other_keys_count() {
        for key in ["\x1b[A", "\x1bOP", "\x1b[3~", "\x1b", "\x1b]", "\x1b[5;3u"] {
            let (input, escape) = escaped(DETACH, &["\r", "~", key, "\x03", "."]);
            assert_eq!((input, escape), (format!("\r~{key}\x03."), None));
        }
        // In order, however it arrives.
        assert_eq!(typed(DETACH, &["\r", "~", "\x1b[20", "0~x"]), ("\r~\x1b[200~x".into(), false));
        assert_eq!(typed(DETACH, &["\r", "~", "\x1b[1;", "5A"]), ("\r~\x1b[1;5A".into(), false));
        // A string that nobody ends is none.
        assert_eq!(typed(DETACH, &["\x1b]x", "y\r", "~", "."]), ("\x1b]xy\r".into(), true));
        assert_eq!(typed("escape x", &["\x1b", "x"]), (String::new(), true));
    }

    #[test]
    fn keys_in_another_encoding_count_as_themselves() {
        let kitty = ["\x1b[13u", "\x1b[13;1:3u", "\x1b[57441;2u", "\x1b[96:126;2:1u", "\x1b[46;129u"];
        assert_eq!(typed(DETACH, &kitty), ("\x1b[13u\x1b[13;1:3u\x1b[57441;2u".into(), true));
        assert!(typed(DETACH, &["\x1b[57414u", "\x1b[96;2;126u", "."]).1);
        assert_eq!(typed("ctrl-a D", &["\x1b[97;5u", "\x1b[100;2u"]), (String::new(), true));
        assert_eq!(typed(DETACH, &["\r", "\x1b[27;2;126~", "."]), ("\r".into(), true));
        assert_eq!(typed("ctrl-a d", &["\x1b[27;5;97~", "d"]), (String::new(), true));
        assert_eq!(typed(DETACH, &["\r", "\x1b[126;3u", "."]), ("\r\x1b[126;3u.".into(), false), "with Alt");
    }

    #[test]
    fn sequences_that_begin_alike() {
        assert_eq!(escaped(DETACH, &["x\r", "~", "u"]), ("x\r".into(), Some(Escape::Unlock)));
        assert_eq!(escaped(DETACH, &["\r", "~", "~", "u"]), ("\r~~u".into(), None));
        assert_eq!(
            escaped("none", &["\r", "~", ".", "\r", "~", "u"]),
            ("\r~.\r".into(), Some(Escape::Unlock))
        );
        assert_eq!(escaped("ctrl-a d", &["\x01", "\r", "~", "u"]), ("\x01\r".into(), Some(Escape::Unlock)));
        for bad in [UNLOCK, "enter ~", "enter", "enter ~ u x"] {
            let error = detector(bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{bad}");
            let expected =
                format!("`detach = \"{bad}\"` and `unlock = \"enter ~ u\"` of `[attach]` begin alike");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn other_sequences() {
        assert_eq!(typed("ctrl-a d", &["\x01", "d"]), (String::new(), true));
        assert_eq!(typed("ctrl-] ctrl-]", &["\x1d", "x", "\x1d", "\x1d"]), ("\x1dx".into(), true));
        assert_eq!(typed("none", &["\r", "~", "."]), ("\r~.".into(), false));
        for bad in ["", "x", "ctrl-", "enter tilde", "é"] {
            assert_eq!(detector(bad).unwrap_err().kind(), Kind::Config, "{bad}");
        }
    }
}
