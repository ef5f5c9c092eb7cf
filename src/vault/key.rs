//! A vault's identity, what follows from it, and the keyring that holds it.

use std::io::ErrorKind::{BrokenPipe, ConnectionAborted};
use std::io::{Read, Write};
use std::iter;

use age::secrecy::{ExposeSecret, SecretString};
use age::{Callbacks, DecryptError, Decryptor, Encryptor, scrypt, x25519};
use bech32::FromBase32 as _;
use ed25519_dalek::{Signer as _, SigningKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::id::{SignerId, VaultId};
use super::recipient::{self, Recipient as Added};
use crate::error::{Context as _, Error, Kind, Result};

/// The scrypt work factor (log2 of N) of keyrings that are written: 256 MiB and about half a second.
pub const WORK_FACTOR: u8 = 18;
/// The largest that is opened: 1 GiB.
pub const LARGEST_WORK_FACTOR: u8 = 20;
/// A keyring is not larger, wrapped or not, in bytes.
pub const LARGEST_KEYRING: u64 = KEYRING_ROOM as u64;
const KEYRING_ROOM: usize = 1 << 20;

/// What separates this use of the identity from any other (RFC 5869, `info`).
const SIGNER_INFO: &[u8] = b"tazpod/v1/commit";
/// The first line of a keyring.
const KEYRING_HEAD: &str = "# tazpod vault keyring 1";
/// What stands before a recipient in it.
const RECIPIENT: &str = "# recipient: ";

/// An X25519 identity of age's (age-encryption.org/v1): opens what is sealed to it.
#[derive(Clone)]
pub struct Identity {
    age: x25519::Identity,
    secret: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// Never in practice: age reads its own writing.
    pub fn generate() -> Result<Identity> {
        Identity::parse(x25519::Identity::generate().to_string().expose_secret())
    }

    /// Reads `AGE-SECRET-KEY-1…`.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where it is none.
    pub fn parse(line: &str) -> Result<Identity> {
        let wrong = || Error::new(Kind::Integrity, "the keyring has a line that is no age identity");
        let age = line.parse().map_err(|_| wrong())?;
        let (_, mut digits, _) = bech32::decode(line).map_err(|_| wrong())?;
        let bytes = Vec::from_base32(&digits).map(Zeroizing::new);
        digits.fill(bech32::u5::default());
        // Or the compiler leaves it out, as nobody reads them again.
        std::hint::black_box(&digits);
        let bytes = bytes.map_err(|_| wrong())?;
        let secret = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| wrong())?);
        Ok(Identity { age, secret })
    }

    /// `AGE-SECRET-KEY-1…`.
    pub fn to_line(&self) -> SecretString {
        self.age.to_string()
    }

    /// What generations are sealed to.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.age.to_public())
    }

    /// What signs commits in its name.
    ///
    /// # Errors
    /// Never: the length is one that HKDF has.
    pub fn signer(&self, vault: &VaultId) -> Result<Signer> {
        let mut seed = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(&vault.0), self.secret.as_slice())
            .expand(SIGNER_INFO, seed.as_mut_slice())
            .map_err(|_| Error::new(Kind::Failure, "cannot derive a key"))?;
        Ok(Signer::from_seed(&seed))
    }

    /// Reads what was sealed to it.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where it was not, or is damaged.
    pub fn open<R: Read>(&self, sealed: R) -> Result<impl Read + use<R>> {
        open_with(sealed, &[&self.age])
    }
}

fn open_with<R: Read>(sealed: R, identities: &[&x25519::Identity]) -> Result<age::stream::StreamReader<R>> {
    let decryptor =
        Decryptor::new(sealed).context(Kind::Integrity, || "cannot read the sealed generation")?;
    let identities = identities.iter().map(|identity| *identity as &dyn age::Identity);
    decryptor.decrypt(identities).map_err(|source| {
        let what = match source {
            DecryptError::NoMatchingKeys => "the generation is sealed to another identity",
            _ => "the sealed generation is damaged",
        };
        Error::new(Kind::Integrity, what).with_source(source)
    })
}

/// What something is sealed to; it does not open it.
#[derive(Clone)]
pub struct Recipient(x25519::Recipient);

impl Recipient {
    /// Reads `age1…`.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Recipient> {
        text.parse()
            .map(Recipient)
            .map_err(|why: &str| Error::new(Kind::Failure, format!("not a recipient of age's: {why}")))
    }

    /// Seals what is written; [`finish`](age::stream::StreamWriter::finish) must be called.
    ///
    /// # Errors
    /// Where the header cannot be written.
    pub fn seal<W: Write>(&self, into: W) -> Result<age::stream::StreamWriter<W>> {
        Encryptor::with_recipients(iter::once(&self.0 as &dyn age::Recipient))
            .context(Kind::Failure, || "cannot seal")?
            .wrap_output(into)
            .context(Kind::Failure, || "cannot write the sealed generation")
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Signs commits (Ed25519). Forgotten when dropped.
pub struct Signer(SigningKey);

impl Signer {
    /// From the seed that [`Signer::seed`] gave.
    pub fn from_seed(seed: &[u8; 32]) -> Signer {
        Signer(SigningKey::from_bytes(seed))
    }

    /// All of it: a secret.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// By which others check.
    pub fn id(&self) -> SignerId {
        SignerId(self.0.verifying_key().to_bytes())
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// The identities of a vault: the current one first, then retired ones, which still open their generations.
#[derive(Clone)]
pub struct Keyring {
    vault: VaultId,
    current: Identity,
    retired: Vec<Identity>,
    recipients: Vec<Added>,
}

/// Why a keyring did not open.
#[derive(Debug)]
pub enum NotOpened {
    /// It is not this passphrase, or none of these identities.
    Passphrase,
    /// Anything else.
    Other(Error),
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> NotOpened {
        NotOpened::Other(error)
    }
}

impl Keyring {
    /// With one identity, a new one, and no recipients.
    ///
    /// # Errors
    /// Never in practice.
    pub fn generate(vault: VaultId) -> Result<Keyring> {
        Ok(Keyring { vault, current: Identity::generate()?, retired: Vec::new(), recipients: Vec::new() })
    }

    /// With a new current identity; the one that was is retired. The recipients stay.
    ///
    /// # Errors
    /// Never in practice.
    pub fn rotated(&self) -> Result<Keyring> {
        let mut retired = vec![self.current.clone()];
        retired.extend(self.retired.iter().cloned());
        let current = Identity::generate()?;
        Ok(Keyring { vault: self.vault, current, retired, recipients: self.recipients.clone() })
    }

    /// With these recipients, and no others.
    pub fn with_recipients(&self, recipients: Vec<Added>) -> Keyring {
        Keyring { recipients, ..self.clone() }
    }

    /// Who opens it besides those who know the passphrase.
    pub fn recipients(&self) -> &[Added] {
        &self.recipients
    }

    /// The vault that it is of.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// What new generations are sealed to, and commits signed with.
    pub fn current(&self) -> &Identity {
        &self.current
    }

    /// Reads a generation of any time.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where it is sealed to nobody here, or damaged.
    pub fn open<R: Read>(&self, sealed: R) -> Result<impl Read + use<R>> {
        let all: Vec<_> =
            iter::once(&self.current).chain(&self.retired).map(|identity| &identity.age).collect();
        open_with(sealed, &all)
    }

    /// As a file of identities that `age -i` takes.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        // At once: what is moved to a larger place leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(KEYRING_ROOM));
        text.push_str(&format!("{KEYRING_HEAD}\n# vault: {}\n", self.vault));
        self.recipients.iter().for_each(|recipient| text.push_str(&format!("{RECIPIENT}{recipient}\n")));
        for identity in iter::once(&self.current).chain(&self.retired) {
            text.push_str(identity.to_line().expose_secret());
            text.push('\n');
        }
        text
    }

    /// Reads what [`Keyring::to_text`] wrote.
    pub(crate) fn parse(text: &str) -> Result<Keyring> {
        let wrong =
            |what: &str| Error::new(Kind::Integrity, format!("the keyring is not one of tazpod's: {what}"));
        let mut lines = text.lines();
        if lines.next() != Some(KEYRING_HEAD) {
            return Err(wrong("it does not say so"));
        }
        let vault = lines.next().and_then(|line| line.strip_prefix("# vault: ")?.parse().ok());
        let vault = vault.ok_or_else(|| wrong("it names no vault"))?;
        let recipients = lines.clone().filter_map(|line| line.strip_prefix(RECIPIENT)).map(|line| {
            Added::parse(line).map_err(|source| {
                wrong("it has a recipient that is none")
                    .with_source(source)
                    .hint("a newer tazpod may have made it")
            })
        });
        let recipients = recipients.collect::<Result<_>>()?;
        let mut identities =
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Identity::parse);
        let current = identities.next().ok_or_else(|| wrong("it is empty"))??;
        Ok(Keyring { vault, current, retired: identities.collect::<Result<_>>()?, recipients })
    }

    /// Wrapped by a passphrase: an age file with one scrypt stanza. Takes [`WORK_FACTOR`]'s time.
    ///
    /// # Errors
    /// [`Kind::Passphrase`] where it is empty.
    pub fn wrap(&self, passphrase: &SecretString) -> Result<Vec<u8>> {
        if passphrase.expose_secret().is_empty() {
            return Err(Error::new(Kind::Passphrase, "the passphrase is empty"));
        }
        let mut recipient = scrypt::Recipient::new(passphrase.clone());
        recipient.set_work_factor(work_factor());
        self.wrap_to(&[&recipient])
    }

    /// Wrapped to its recipients; `None` where it has none. Plugins may ask through `callbacks`, and take their time.
    ///
    /// # Errors
    /// Where one of them cannot, or its plugin is not there.
    pub fn wrap_to_recipients(&self, callbacks: &impl Callbacks) -> Result<Option<Vec<u8>>> {
        if self.recipients.is_empty() {
            return Ok(None);
        }
        let recipients = recipient::wrapping(&self.recipients, callbacks)?;
        let recipients: Vec<_> = recipients.iter().map(|recipient| &**recipient).collect();
        self.wrap_to(&recipients).map(Some)
    }

    /// Wrapped to these, and nobody else.
    ///
    /// # Errors
    /// Where one of them cannot.
    pub fn wrap_to(&self, recipients: &[&dyn age::Recipient]) -> Result<Vec<u8>> {
        let failed = || "cannot wrap the keyring";
        let encryptor =
            Encryptor::with_recipients(recipients.iter().copied()).context(Kind::Failure, failed)?;
        let mut writer = encryptor.wrap_output(Vec::new()).context(Kind::Failure, failed)?;
        writer.write_all(self.to_text().as_bytes()).context(Kind::Failure, failed)?;
        let wrapped = writer.finish().context(Kind::Failure, failed)?;
        if wrapped.len() as u64 > LARGEST_KEYRING {
            return Err(Error::new(
                Kind::Usage,
                "a keyring with so many recipients could not be opened again",
            ));
        }
        Ok(wrapped)
    }

    /// Opens what [`Keyring::wrap`] made.
    ///
    /// # Errors
    /// The passphrase; else [`Kind::Integrity`]: damaged, or a work factor above [`LARGEST_WORK_FACTOR`].
    pub fn unwrap(wrapped: &[u8], passphrase: &SecretString) -> Result<Keyring, NotOpened> {
        let mut identity = scrypt::Identity::new(passphrase.clone());
        identity.set_max_work_factor(LARGEST_WORK_FACTOR);
        Keyring::unwrap_with(wrapped, &[&identity])
    }

    /// Opens a wrapped keyring with identities of another kind.
    ///
    /// # Errors
    /// As [`Keyring::unwrap`]; [`NotOpened::Passphrase`] where none of them fits.
    pub fn unwrap_with(wrapped: &[u8], identities: &[&dyn age::Identity]) -> Result<Keyring, NotOpened> {
        let damaged = |source: DecryptError| {
            match source {
            DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed | DecryptError::NoMatchingKeys => {
                NotOpened::Passphrase
            }
            DecryptError::ExcessiveWork { required, .. } => NotOpened::Other(
                Error::new(
                    Kind::Integrity,
                    format!("the keyring wants a scrypt work factor of {required}; the most is {LARGEST_WORK_FACTOR}"),
                )
                .hint("tazpod writes 18: somebody else made this one"),
            ),
            DecryptError::Plugin(errors) => {
                let what: Vec<String> = errors.iter().map(ToString::to_string).collect();
                NotOpened::Other(Error::new(
                    Kind::Failure,
                    format!("a plugin of age's did not open the keyring: {}", what.join(", ")),
                ))
            }
            DecryptError::Io(source) if matches!(source.kind(), ConnectionAborted | BrokenPipe) => {
                NotOpened::Other(Error::new(
                    Kind::Failure,
                    "a plugin of age's ended before it had opened the keyring",
                ))
            }
            source => {
                NotOpened::Other(Error::new(Kind::Integrity, "the keyring is damaged").with_source(source))
            }
        }
        };
        let decryptor = Decryptor::new(wrapped).map_err(damaged)?;
        let reader = decryptor.decrypt(identities.iter().copied()).map_err(damaged)?;
        let mut text = Zeroizing::new(String::with_capacity(wrapped.len()));
        reader
            .take(LARGEST_KEYRING)
            .read_to_string(&mut text)
            .context(Kind::Integrity, || "the keyring is damaged")?;
        Ok(Keyring::parse(&text)?)
    }
}

/// Tests that are not about it need not wait.
fn work_factor() -> u8 {
    if cfg!(test) { 2 } else { WORK_FACTOR }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[test]
    fn a_keyring_opens_with_its_passphrase_alone() {
        let keyring = Keyring::generate(VaultId([7; 16])).unwrap().rotated().unwrap();
        let wrapped = keyring.wrap(&secret("right")).unwrap();
        let opened = Keyring::unwrap(&wrapped, &secret("right")).unwrap();
        assert_eq!(*opened.to_text(), *keyring.to_text());
        assert_eq!((opened.vault(), opened.retired.len()), (VaultId([7; 16]), 1));
        assert!(matches!(Keyring::unwrap(&wrapped, &secret("wrong")), Err(NotOpened::Passphrase)));
        assert_eq!(keyring.wrap(&secret("")).err().unwrap().kind(), Kind::Passphrase);
        // Cut, flipped, nothing at all, something else.
        let mut flipped = wrapped.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for bad in [&wrapped[..wrapped.len() - 1], &flipped, b"", b"SSH key"] {
            let Err(NotOpened::Other(error)) = Keyring::unwrap(bad, &secret("right")) else {
                panic!("opened")
            };
            assert_eq!(error.kind(), Kind::Integrity);
        }
    }

    #[test]
    fn work_that_would_take_all_memory_is_not_begun() {
        let keyring = Keyring::generate(VaultId([7; 16])).unwrap();
        let wrapped = String::from_utf8_lossy(&keyring.wrap(&secret("x")).unwrap()).into_owned();
        let greedy = wrapped.replacen(" 2\n", " 21\n", 1);
        assert_ne!(greedy, wrapped);
        let Err(NotOpened::Other(error)) = Keyring::unwrap(greedy.as_bytes(), &secret("x")) else {
            panic!("opened")
        };
        assert!(error.to_string().contains("work factor of 21; the most is 20"), "{error}");
    }

    #[test]
    fn text_that_is_no_keyring() {
        let line = Identity::generate().unwrap().to_line().expose_secret().to_owned();
        let vault = "# vault: 07070707070707070707070707070707";
        for text in [
            String::new(),
            line.clone(),
            format!("{KEYRING_HEAD}\n{line}\n"),
            format!("{KEYRING_HEAD}\n{vault}\n"),
            format!("{KEYRING_HEAD}\n{vault}\nage1nonsense\n"),
        ] {
            assert_eq!(Keyring::parse(&text).err().unwrap().kind(), Kind::Integrity, "{text}");
        }
        assert!(Keyring::parse(&format!("{KEYRING_HEAD}\n{vault}\n# x\n\n{line}\n")).is_ok());
        assert!(Keyring::parse(&format!("{KEYRING_HEAD}\n{vault}\n{RECIPIENT}nobody\n{line}\n")).is_err());
    }

    #[test]
    fn what_signs_depends_on_identity_and_vault() {
        let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let id = |identity: &Identity, vault| identity.signer(&VaultId([vault; 16])).unwrap().id();
        assert_eq!(id(&one, 1), id(&one, 1));
        assert_ne!(id(&one, 1), id(&one, 2));
        assert_ne!(id(&one, 1), id(&two, 1));
        let signer = one.signer(&VaultId([1; 16])).unwrap();
        assert_eq!(Signer::from_seed(&signer.seed()).id(), signer.id());
    }

    /// HKDF by another implementation (Python's `cryptography`), of age's own example identity.
    #[test]
    fn the_derivation_is_the_documented_one() {
        let line = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
        let signer = Identity::parse(line).unwrap().signer(&VaultId([3; 16])).unwrap();
        assert_eq!(
            signer.id().to_string(),
            "6ad7b8620a562a418c31f3edd05142b3edadb423d1b8d055114462d1b36b6f66"
        );
    }
}
