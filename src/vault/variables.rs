//! The file of a vault with variables for new sessions and commands.

use std::collections::BTreeMap;
use std::io::Read;

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

/// Where it is in the vault.
pub const NAME: &str = ".env";
/// It is not larger, in bytes.
pub const LARGEST: u64 = 256 << 10;
/// A variable is not longer, in bytes: execve(2) takes 128 KiB.
const LONGEST: usize = 100 << 10;

/// Reads lines of `NAME=VALUE`; `of` is what messages call them, which show nothing of the lines themselves.
///
/// # Errors
/// Where one is no variable, or one that no program could be given.
pub fn read(from: impl Read, of: &str) -> Result<BTreeMap<String, String>> {
    let wrong = |what: &str| Error::new(Kind::Usage, format!("`{of}` {what}"));
    let mut text = Zeroizing::new(Vec::new());
    from.take(LARGEST + 1)
        .read_to_end(&mut text)
        .map_err(|source| wrong("cannot be read").with_source(source))?;
    if text.len() as u64 > LARGEST {
        return Err(wrong("is larger than 256 KiB"));
    }
    let mut variables = BTreeMap::new();
    for line in dotenvy::from_read_iter(text.as_slice()) {
        // Its own words would show a secret.
        let (name, value) = line.map_err(|_| wrong("has a line that is not NAME=VALUE"))?;
        if value.contains('\0') || name.len() + value.len() > LONGEST {
            return Err(wrong("has a value with a zero byte, or of more than 100 KiB"));
        }
        variables.insert(name, value);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_variables() {
        let text = "# of the team\nexport A='b $c'\nURL=https://x/y?z=1\n\nEMPTY=\n";
        let found = read(text.as_bytes(), ".env").unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("A", "b $c"), ("EMPTY", ""), ("URL", "https://x/y?z=1")]);
    }

    #[test]
    fn what_no_program_could_be_given_is_refused_without_being_shown() {
        let long = format!("SECRET={}\n", "s".repeat(LONGEST));
        let large = "A=secret\n".repeat(40_000);
        for text in ["SECRET s3cret\n", "SECRET=s3cret\0\n", &long, &large] {
            let error = read(text.as_bytes(), ".env").unwrap_err().to_string();
            assert!(error.starts_with("`.env` ") && !error.contains("ecret"), "{error}");
        }
    }
}
