//! Escape sequences: keys that the client keeps for itself, as OpenSSH's `~.`.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

/// Detaches. OpenSSH's own habit, one letter changed by nobody: at the start of a line, `~.`.
pub const DETACH: &str = "enter ~ .";
/// Opens the vault.
pub const UNLOCK: &str = "enter ~ u";

/// What arrives at once beyond this was pasted, not typed; in it nothing is looked for.
const TYPED_AT_MOST: usize = 8;

/// Several keys at once this soon after a paste are the rest of it: a terminal gives a paste in pieces of any size.
const PASTE_GAP: Duration = Duration::from_millis(50);

/// The marks of a bracketed paste.
const PASTE_START: u64 = u64::from_be_bytes(*b"\0\0\x1b[200~");
const PASTE_END: u64 = u64::from_be_bytes(*b"\0\0\x1b[201~");
const PASTE_MARK: u64 = (1 << 48) - 1;

/// What a sequence is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// To leave the session running.
    Detach,
    /// To open the vault, and come back.
    Unlock,
}

/// Finds the sequences in what is typed.
///
/// As OpenSSH does it, keys of a sequence that may become complete are held back, all but a leading Enter; if it does
/// not become complete they go through after all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detector {
    sequences: Vec<(Escape, Vec<Vec<u8>>)>,
    /// The bytes that may be the beginning of one …
    matched: Vec<u8>,
    /// … and those of them that the program has not got.
    held: Vec<u8>,
    /// Between the marks of a bracketed paste.
    pasting: bool,
    /// The last bytes, in which the marks are looked for: a mark may arrive in pieces too.
    tail: u64,
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
        let mut detector = Detector::default();
        for &(escape, text) in texts.iter().filter(|(_, text)| *text != "none") {
            let keys = sequence(text)?;
            let begins = |(_, other): &(Escape, Vec<Vec<u8>>)| {
                other.iter().zip(&keys).all(|(one, other)| one.iter().any(|byte| other.contains(byte)))
            };
            if detector.sequences.iter().any(begins) {
                return Err(Error::new(
                    Kind::Config,
                    format!("`{text}` and another sequence of `[attach]` begin alike"),
                )
                .hint("neither may be the beginning of the other"));
            }
            detector.sequences.push((escape, keys));
        }
        Ok(detector)
    }

    /// Takes in what was read from the terminal at once.
    pub fn scan(&mut self, typed: &[u8], now: Instant) -> Typed {
        if typed.len() > TYPED_AT_MOST {
            self.pasted = Some(now);
        }
        let burst = typed.len() > 1
            && self.pasted.is_some_and(|pasted| now.saturating_duration_since(pasted) < PASTE_GAP);
        let mut input = Vec::new();
        for &byte in typed {
            let was_pasting = self.pasting;
            self.tail = (self.tail << 8 | u64::from(byte)) & PASTE_MARK;
            match self.tail {
                PASTE_START => self.pasting = true,
                PASTE_END => self.pasting = false,
                _ => {}
            }
            if burst || was_pasting || !self.expects(byte) {
                self.give_up(&mut input);
            }
            if burst || was_pasting || !self.expects(byte) {
                input.push(byte);
                continue;
            }
            self.matched.push(byte);
            let typed = self.matched.len();
            let escape = self.begun().find(|(_, keys)| keys.len() == typed).map(|(escape, _)| *escape);
            if escape.is_some() {
                self.matched.clear();
                self.held.clear();
                return Typed { input, escape };
            }
            match byte {
                b'\r' | b'\n' if typed == 1 => input.push(byte),
                _ => self.held.push(byte),
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
    fn sequences_that_begin_alike() {
        assert_eq!(escaped(DETACH, &["x\r", "~", "u"]), ("x\r".into(), Some(Escape::Unlock)));
        assert_eq!(escaped(DETACH, &["\r", "~", "~", "u"]), ("\r~~u".into(), None));
        assert_eq!(
            escaped("none", &["\r", "~", ".", "\r", "~", "u"]),
            ("\r~.\r".into(), Some(Escape::Unlock))
        );
        assert_eq!(escaped("ctrl-a d", &["\x01", "\r", "~", "u"]), ("\x01\r".into(), Some(Escape::Unlock)));
        for bad in [UNLOCK, "enter ~", "enter", "enter ~ u x"] {
            assert_eq!(detector(bad).unwrap_err().kind(), Kind::Config, "{bad}");
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
