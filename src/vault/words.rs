//! Passphrases of words by chance.

use age::secrecy::SecretString;
use zeroize::Zeroizing;

use crate::error::{Context as _, Error, Kind, Result};

/// The EFF's large wordlist (2016, eff.org/dice, CC BY 3.0), without the numbers of the dice.
const LIST: &str = include_str!("words.txt");
/// How many words: of 7776 each, that is 77 bits.
const COUNT: usize = 6;

/// Six words, joined by hyphens.
///
/// # Errors
/// Where the system has no randomness.
pub fn generate() -> Result<SecretString> {
    let list: Vec<&str> = LIST.lines().collect();
    // Large enough never to be moved: what was moved would stay behind.
    let mut text = Zeroizing::new(String::with_capacity(256));
    for n in 0..COUNT {
        let word = below(list.len(), || {
            let mut bytes = [0; 2];
            getrandom::fill(&mut bytes).context(Kind::Failure, || "the system has no randomness")?;
            Ok(u16::from_le_bytes(bytes))
        })?;
        text.push_str(if n > 0 { "-" } else { "" });
        text.push_str(list.get(word).ok_or_else(|| Error::new(Kind::Failure, "the list of words is short"))?);
    }
    Ok(SecretString::from(text.as_str()))
}

/// A number below `count`, each as likely as the others: what would make some likelier is drawn again.
fn below(count: usize, mut draw: impl FnMut() -> Result<u16>) -> Result<usize> {
    let all = usize::from(u16::MAX) + 1;
    loop {
        let drawn = usize::from(draw()?);
        if drawn < all - all % count {
            return Ok(drawn % count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use age::secrecy::ExposeSecret as _;

    use super::*;
    use crate::vault::id::Hash;

    /// With the numbers of the dice back it is the file that the EFF publishes.
    #[test]
    fn the_list_is_the_published_one() {
        let dice = (0..7776_u32).map(|n| {
            let faces = [1296, 216, 36, 6, 1].map(|weight| (n / weight % 6 + 1).to_string());
            faces.concat()
        });
        let file: String = dice.zip(LIST.lines()).map(|(dice, word)| format!("{dice}\t{word}\n")).collect();
        let published = "addd35536511597a02fa0a9ff1e5284677b8883b83e986e43f15a3db996b903e";
        assert_eq!(Hash::of(file.as_bytes()).to_string(), published);
        assert_eq!(LIST.lines().count(), 7776);
    }

    #[test]
    fn each_word_is_as_likely_as_the_others() {
        let mut hits = vec![0; 7776];
        for drawn in 0..=u16::MAX {
            let mut draws = [drawn, 0].into_iter();
            let word = below(7776, || Ok(draws.next().unwrap())).unwrap();
            // Where it was drawn again, the second draw does not count here.
            hits[word] += usize::from(draws.next().is_some());
        }
        assert_eq!(hits.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&8]));
    }

    #[test]
    fn six_words_of_the_list() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one.expose_secret(), two.expose_secret());
        let list: BTreeSet<&str> = LIST.lines().collect();
        // Four words of the list have a hyphen themselves.
        let text = one.expose_secret().replace("-", " ");
        let text = ["drop-down", "felt-tip", "t-shirt", "yo-yo"]
            .iter()
            .fold(text, |text, word| text.replace(&word.replace('-', " "), word));
        let words: Vec<&str> = text.split(' ').collect();
        assert_eq!(words.len(), 6, "{text}");
        assert!(words.iter().all(|word| list.contains(word)), "{text}");
    }
}
