//! The detach sequence: keys that leave a session without ending it.

use crate::error::{Error, Kind, Result};

/// OpenSSH's own habit, one letter changed by nobody: at the start of a line, `~.`.
pub const DEFAULT: &str = "enter ~ .";

/// What arrives at once beyond this was pasted, not typed; in it nothing is looked for.
const TYPED_AT_MOST: usize = 8;

/// Finds the sequence in what is typed.
///
/// No key is taken from anybody: everything but the last key of the sequence goes through as it is typed, so nothing
/// is held back, and `~` twice, or anything else after it, is what it always was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detector {
    keys: Vec<Vec<u8>>,
    matched: usize,
    pasting: bool,
}

impl Detector {
    /// Reads a sequence: keys apart by spaces, each one a character, `ctrl-X`, `enter`, `escape`, `tab` or `space`.
    /// `none` is no sequence.
    ///
    /// # Errors
    /// [`Kind::Config`] where a key is not one, or a sequence of one plain key would take it from the user.
    pub fn parse(text: &str) -> Result<Detector> {
        if text == "none" {
            return Ok(Detector { keys: Vec::new(), matched: 0, pasting: false });
        }
        let wrong = |reason: String| {
            Err(Error::new(Kind::Config, format!("`{text}` is not a detach sequence: {reason}"))
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
            [only] if only.iter().all(|byte| *byte >= b' ') => wrong("one plain key could not be typed any more".into()),
            _ => Ok(Detector { keys, matched: 0, pasting: false }),
        }
    }

    /// Takes in what was read from the terminal at once. `Some(N)`: the sequence is complete, and only the first N
    /// bytes are for the program.
    pub fn scan(&mut self, input: &[u8]) -> Option<usize> {
        const PASTE_START: &[u8] = b"\x1b[200~";
        const PASTE_END: &[u8] = b"\x1b[201~";
        let contains = |needle: &[u8]| input.windows(needle.len()).any(|window| window == needle);
        if contains(PASTE_START) {
            self.pasting = true;
        }
        if self.pasting || input.len() > TYPED_AT_MOST {
            self.pasting = self.pasting && !contains(PASTE_END);
            self.matched = 0;
            return None;
        }
        for (offset, byte) in input.iter().enumerate() {
            if self.keys.get(self.matched).is_some_and(|key| key.contains(byte)) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Some(offset);
                }
            } else {
                self.matched = usize::from(self.keys.first().is_some_and(|key| key.contains(byte)));
            }
        }
        None
    }
}

/// The bytes that count as this key.
fn key(name: &str) -> Option<Vec<u8>> {
    let control = name.strip_prefix("ctrl-").or_else(|| name.strip_prefix('^').filter(|rest| !rest.is_empty()));
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

    fn typed(sequence: &str, keys: &[&[u8]]) -> Option<usize> {
        let mut detector = Detector::parse(sequence).unwrap();
        keys.iter().map(|key| detector.scan(key)).fold(None, |found, now| now.or(found))
    }

    #[test]
    fn the_default_is_found_key_by_key() {
        assert_eq!(typed(DEFAULT, &[b"\r", b"~", b"."]), Some(0));
        assert_eq!(typed(DEFAULT, &[b"ls\r", b"~."]), Some(1));
        assert_eq!(typed(DEFAULT, &[b"~", b"."]), None, "not at the start of a line");
        assert_eq!(typed(DEFAULT, &[b"\r", b"~", b"~", b"."]), None);
        assert_eq!(typed(DEFAULT, &[b"\r", b"\r", b"~", b"."]), Some(0));
    }

    #[test]
    fn nothing_is_looked_for_in_a_paste() {
        assert_eq!(typed(DEFAULT, &[b"a long text\r~.\r~.\r~."]), None);
        assert_eq!(typed(DEFAULT, &[b"\x1b[200~", b"\r~.", b"\x1b[201~"]), None);
        assert_eq!(typed(DEFAULT, &[b"\x1b[200~", b"x", b"\x1b[201~", b"\r", b"~", b"."]), Some(0));
    }

    #[test]
    fn other_sequences() {
        assert_eq!(typed("ctrl-a d", &[b"\x01", b"d"]), Some(0));
        assert_eq!(typed("ctrl-] ctrl-]", &[b"\x1d", b"x", b"\x1d", b"\x1d"]), Some(0));
        assert_eq!(typed("none", &[b"\r", b"~", b"."]), None);
        for bad in ["", "x", "ctrl-", "enter tilde", "é"] {
            assert_eq!(Detector::parse(bad).unwrap_err().kind(), Kind::Config, "{bad}");
        }
    }
}
