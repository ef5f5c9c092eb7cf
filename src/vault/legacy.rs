//! The vault of an older program: 32 bytes of salt, 12 of nonce, then a tar.gz by AES-256-GCM, with its tag at the end. The key is
//! PBKDF2's, with HMAC-SHA256.

use std::io::{self, Read};
use std::num::NonZeroU32;

use age::secrecy::{ExposeSecret as _, SecretString};
use flate2::bufread::MultiGzDecoder;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::pbkdf2;
use zeroize::Zeroizing;

use super::key::NotOpened;
use crate::error::{Error, Kind};

/// What to say of [`NotOpened::Passphrase`]: the cipher does not tell one from the other.
pub const WRONG: &str = "this is not the passphrase of that vault, or the file is damaged";

const SALT: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(99_999);
/// An archive is not larger, in bytes, once it is decompressed.
const LARGEST: u64 = 1 << 30;

/// The tar archive that is sealed in these bytes.
///
/// # Errors
/// [`NotOpened::Passphrase`], of which [`WRONG`] is to be said; [`Kind::Integrity`] where it is no such vault, or has no tar.gz in
/// it, or one that becomes larger than a gigabyte.
pub fn open(sealed: &[u8], passphrase: &SecretString) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    unpack(&decrypt(sealed, passphrase)?, LARGEST)
}

fn decrypt(sealed: &[u8], passphrase: &SecretString) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let short = || Error::new(Kind::Integrity, "this is no vault of the older format: it is too short");
    let (salt, rest) = sealed.split_first_chunk::<SALT>().ok_or_else(short)?;
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or_else(short)?;
    if ciphertext.len() < TAG {
        return Err(short().into());
    }
    let mut key = Zeroizing::new([0; 32]);
    let secret = passphrase.expose_secret().as_bytes();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, secret, key.as_mut_slice());
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| NotOpened::Passphrase)?;
    let mut bytes = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = LessSafeKey::new(key).open_in_place(nonce, Aad::empty(), &mut bytes);
    let length = opened.map_err(|_| NotOpened::Passphrase)?.len();
    bytes.truncate(length);
    Ok(bytes)
}

/// Decompressed twice: first only counted, so that the buffer never grows and leaves nothing behind.
pub(crate) fn unpack(packed: &[u8], limit: u64) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let damaged = |source: io::Error| {
        Error::new(Kind::Integrity, "there is no tar.gz in the vault of the older format").with_source(source)
    };
    let mut counting = MultiGzDecoder::new(packed).take(limit + 1);
    let size = io::copy(&mut counting, &mut io::sink()).map_err(damaged)?;
    if size > limit {
        return Err(Error::new(
            Kind::Integrity,
            format!("the archive in the vault of the older format is larger than {limit} bytes"),
        )
        .into());
    }
    let mut tar = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default()));
    MultiGzDecoder::new(packed).take(size).read_to_end(&mut tar).map_err(damaged)?;
    Ok(tar)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;

    /// `.aws/credentials` with `key = legacy`, sealed with the passphrase `an old passphrase` by Python 3 with `cryptography`:
    ///
    /// ```python
    /// import base64, gzip, io, tarfile
    /// from cryptography.hazmat.primitives import hashes
    /// from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    /// from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
    /// tar = io.BytesIO()
    /// with tarfile.open(fileobj=tar, mode="w") as archive:
    ///     entry = tarfile.TarInfo(".aws/credentials")
    ///     entry.size = 13
    ///     archive.addfile(entry, io.BytesIO(b"key = legacy\n"))
    /// salt, nonce = bytes(range(32)), bytes(range(12))
    /// key = PBKDF2HMAC(hashes.SHA256(), 32, salt, 100_000).derive(b"an old passphrase")
    /// sealed = salt + nonce + AESGCM(key).encrypt(nonce, gzip.compress(tar.getvalue(), mtime=0), None)
    /// print(base64.b64encode(sealed).decode())
    /// ```
    const SEALED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgv4G7XQh7B+Mv6Jm2RqKP+SLzcNEZUpvoGDfp6yv5y4R+RdomKwnR5YcxbRISaBXQDidAOEAX1RvRQpTLzkbratmnbnQQNHf1vpQLVgJL152kX5OBGBWB+3iiaOqVi/tpRXmYW7M0kVvPWUknp1dVyU++WGPqmaFDggtVFVRioU99wzZynJqQEsnw==";

    fn sealed() -> Vec<u8> {
        BASE64.decode(SEALED).unwrap()
    }

    fn passphrase() -> SecretString {
        SecretString::from("an old passphrase")
    }

    fn other(result: Result<Zeroizing<Vec<u8>>, NotOpened>) -> Error {
        match result {
            Err(NotOpened::Other(error)) => error,
            Err(NotOpened::Passphrase) => panic!("the passphrase"),
            Ok(_) => panic!("opened"),
        }
    }

    #[test]
    fn what_another_program_sealed_opens() {
        let tar = open(&sealed(), &passphrase()).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some(".aws/credentials"));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "key = legacy\n");
        assert!(entries.next().is_none());
    }

    #[test]
    fn a_wrong_passphrase_and_damage_are_the_same() {
        let wrong = open(&sealed(), &SecretString::from("an old passphrase "));
        assert!(matches!(wrong, Err(NotOpened::Passphrase)));
        for index in [0, SALT, SALT + NONCE, sealed().len() - 1] {
            let mut damaged = sealed();
            damaged[index] ^= 1;
            assert!(matches!(open(&damaged, &passphrase()), Err(NotOpened::Passphrase)), "{index}");
        }
        let cut = &sealed()[..sealed().len() - 1];
        assert!(matches!(open(cut, &passphrase()), Err(NotOpened::Passphrase)));
        for length in [0, 1, SALT, SALT + NONCE, SALT + NONCE + TAG - 1] {
            let error = other(open(&sealed()[..length], &passphrase()));
            assert!(error.to_string().contains("too short"), "{error}");
        }
    }

    #[test]
    fn what_grows_too_large_is_not_unpacked() {
        let packed = decrypt(&sealed(), &passphrase()).unwrap();
        let size = unpack(&packed, 1 << 20).unwrap().len() as u64;
        assert_eq!(unpack(&packed, size).unwrap().len() as u64, size);
        assert!(other(unpack(&packed, size - 1)).to_string().contains("larger than"));
        for bad in [&packed[..packed.len() - 1], b"no gzip", b""] {
            assert_eq!(other(unpack(bad, 1 << 20)).kind(), Kind::Integrity);
        }
    }
}
