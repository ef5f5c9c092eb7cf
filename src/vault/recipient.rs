//! Recipients besides the passphrase, to which a keyring is wrapped, and the identities that open it then: age keys, SSH keys, and
//! keys of age's plugins.

use std::io::BufReader;
use std::{fmt, iter};

use age::secrecy::SecretString;
use age::{Callbacks, DecryptError, EncryptError, IdentityFile, NoCallbacks, plugin, ssh, x25519};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::{Error, Kind, Result};

/// A comment is not longer, in characters.
const LONGEST_COMMENT: usize = 255;
/// The kinds that there are.
const TAKEN: &str = "a recipient is `age1…`, `ssh-ed25519 …`, `ssh-rsa …`, or `age1NAME1…` of an age plugin";

/// A public key to which a keyring is wrapped.
#[derive(Clone)]
pub struct Recipient {
    key: Key,
    comment: String,
}

#[derive(Clone)]
enum Key {
    Age(x25519::Recipient),
    Ssh(Box<ssh::Recipient>),
    Plugin(plugin::Recipient),
}

impl Recipient {
    /// Reads a recipient, and what stands behind it as its comment.
    ///
    /// # Errors
    /// [`Kind::Usage`] where it is none, a private key, or one that age does not take.
    pub fn parse(text: &str) -> Result<Recipient> {
        // As it is kept: what was taken once is to be read again.
        let plain = text.replace(char::is_control, " ").split_whitespace().collect::<Vec<_>>().join(" ");
        let mut words = plain.split_whitespace();
        let first = words.next().unwrap_or_default();
        // Never in a message: it may be a secret.
        let upper = plain.to_ascii_uppercase();
        if ["AGE-SECRET-KEY-", "AGE-PLUGIN-", "PRIVATE KEY"].iter().any(|secret| upper.contains(secret)) {
            return Err(Error::new(Kind::Usage, "this is a private key, and no recipient").hint(
                "a recipient is the public one: `age-keygen -y FILE`, or the file that ends in `.pub`",
            ));
        }
        let key = match first {
            "" => return Err(unknown("")),
            name if name.starts_with("age1") => parse_age(name)?,
            kind => {
                let encoded = words.next().ok_or_else(|| unknown(kind))?;
                Key::Ssh(Box::new(parse_ssh(kind, encoded)?))
            }
        };
        let comment: String = words.collect::<Vec<_>>().join(" ").chars().take(LONGEST_COMMENT).collect();
        Ok(Recipient { key, comment: comment.trim_end().to_owned() })
    }

    /// The key, without the comment: what tells one recipient from another.
    pub fn key(&self) -> String {
        match &self.key {
            Key::Age(key) => key.to_string(),
            Key::Ssh(key) => key.to_string(),
            Key::Plugin(key) => key.to_string(),
        }
    }

    /// What stood behind it. For people.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// `age`, `ssh-ed25519`, `ssh-rsa` or the plugin's program.
    pub fn kind(&self) -> String {
        match &self.key {
            Key::Age(_) => "age".to_owned(),
            Key::Ssh(key) => match **key {
                ssh::Recipient::SshEd25519(..) => "ssh-ed25519".to_owned(),
                ssh::Recipient::SshRsa(..) => "ssh-rsa".to_owned(),
            },
            Key::Plugin(key) => format!("age-plugin-{}", key.plugin()),
        }
    }
}

/// The key and the comment.
impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key())?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " {}", self.comment) }
    }
}

fn unknown(text: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    let error = Error::new(Kind::Usage, format!("`{shown}` is no recipient")).hint(TAKEN);
    match text.starts_with("ssh-") {
        true => error.hint("quote a line of several words: it is one argument"),
        false => error,
    }
}

fn parse_age(text: &str) -> Result<Key> {
    if let Ok(key) = text.parse() {
        return Ok(Key::Age(key));
    }
    text.parse().map(Key::Plugin).map_err(|_| unknown(text).hint("its checksum does not fit: copy it again"))
}

fn parse_ssh(kind: &str, encoded: &str) -> Result<ssh::Recipient> {
    use ssh::ParseRecipientKeyError as Refused;
    let refused = |what: String| Err(Error::new(Kind::Usage, what).hint(TAKEN));
    // A number of zeros alone makes the crate panic.
    let blob = BASE64.decode(encoded).map_err(|_| unknown(kind))?;
    if !fields(&blob).is_some_and(|fields| fields.iter().all(|field| field.iter().any(|byte| *byte != 0))) {
        return Err(unknown(kind));
    }
    let line = format!("{kind} {encoded}");
    match line.parse::<ssh::Recipient>() {
        // What came behind it was not read.
        Ok(key) if key.to_string() == line => Ok(key),
        Ok(_) | Err(Refused::Invalid(_) | Refused::Ignore) => Err(unknown(kind)),
        Err(Refused::RsaModulusTooSmall) => refused("an RSA key of fewer than 2048 bits is too weak".into()),
        Err(Refused::RsaModulusTooLarge) => {
            refused("an RSA key of more than 4096 bits is not supported".into())
        }
        Err(Refused::Unsupported(kind)) if kind.starts_with("sk-") => Err(Error::new(
            Kind::Usage,
            format!("`{kind}` is not supported: the key of a security token signs, and opens nothing"),
        )
        .hint("a token opens what it is asked to through a plugin of age's: `age1NAME1…`")),
        Err(Refused::Unsupported(kind)) => {
            refused(format!("SSH keys of the kind `{kind}` are not supported"))
        }
    }
}

/// The strings of which an SSH key consists (RFC 4251, section 5).
fn fields(blob: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut rest, mut fields) = (blob, Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (field, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        fields.push(field);
        rest = after;
    }
    Some(fields)
}

/// What wraps to these recipients, in age's terms. Plugins are looked for here, and run when it wraps.
///
/// # Errors
/// [`Kind::Failure`] where a plugin is not there.
pub fn wrapping(
    recipients: &[Recipient],
    callbacks: &impl Callbacks,
) -> Result<Vec<Box<dyn age::Recipient>>> {
    let mut wrapping: Vec<Box<dyn age::Recipient>> = Vec::new();
    for recipient in recipients {
        match &recipient.key {
            Key::Age(key) => wrapping.push(Box::new(key.clone())),
            Key::Ssh(key) => wrapping.push(key.clone()),
            Key::Plugin(key) => {
                let plugin = plugin::RecipientPluginV1::new(
                    key.plugin(),
                    std::slice::from_ref(key),
                    &[],
                    callbacks.clone(),
                );
                wrapping.push(Box::new(plugin.map_err(|failed| match failed {
                    EncryptError::MissingPlugin { binary_name } => missing(&binary_name),
                    failed => Error::new(Kind::Failure, "cannot use a plugin of age's").with_source(failed),
                })?));
            }
        }
    }
    Ok(wrapping)
}

fn missing(program: &str) -> Error {
    Error::new(Kind::Failure, format!("the program `{program}` is not there"))
        .hint("install this plugin of age's, in a directory of `PATH`")
}

/// What a file of identities has.
pub enum Identities {
    /// Identities of age's and of its plugins.
    Age(IdentityFile<NoCallbacks>),
    /// A private key of OpenSSH's.
    Ssh(ssh::Identity),
    /// The same, encrypted: [`decrypt`] it.
    Encrypted(ssh::EncryptedKey),
}

impl Identities {
    /// Reads a file of identities.
    ///
    /// # Errors
    /// [`Kind::Usage`] where it is none. No message has anything of what is in it.
    pub fn parse(bytes: &[u8]) -> Result<Identities> {
        let wrong = |what: &str| Error::new(Kind::Usage, format!("this is no identity: {what}"));
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not text"))?;
        let first = text.trim_start().lines().next().unwrap_or_default();
        if first == "age-encryption.org/v1" || first == "-----BEGIN AGE ENCRYPTED FILE-----" {
            return Err(wrong("it is encrypted by age")
                .hint("`age -d FILE | tazpod … --identity /dev/stdin` opens it first"));
        }
        if first.starts_with("age1") || first.starts_with("ssh-") {
            return Err(wrong("it is a public key").hint("the private one opens: the file without `.pub`"));
        }
        if first.starts_with("-----BEGIN") {
            let key = ssh::Identity::from_buffer(BufReader::new(text.trim_start().as_bytes()), None);
            return match key.map_err(|_| wrong("it is no private key of OpenSSH's"))? {
                ssh::Identity::Encrypted(key) => Ok(Identities::Encrypted(key)),
                key @ ssh::Identity::Unencrypted(_) => Ok(Identities::Ssh(key)),
                ssh::Identity::Unsupported(why) => Err(wrong(&unsupported(&why)).hint(TAKEN)),
            };
        }
        // The crate's own message has a line's number, and nothing of the line.
        let file = IdentityFile::from_buffer(BufReader::new(bytes));
        Ok(Identities::Age(file.map_err(|source| wrong("a line of it is none").with_source(source))?))
    }

    /// In age's terms.
    ///
    /// # Errors
    /// [`Kind::Failure`] where a plugin is not there; [`Kind::Usage`] where there is no identity at all.
    pub fn unwrapping(self, callbacks: impl Callbacks) -> Result<Vec<Box<dyn age::Identity>>> {
        let unwrapping: Vec<Box<dyn age::Identity>> = match self {
            Identities::Age(file) => {
                file.with_callbacks(callbacks).into_identities().map_err(|failed| match failed {
                    DecryptError::MissingPlugin { binary_name } => missing(&binary_name),
                    failed => Error::new(Kind::Failure, "cannot use an identity").with_source(failed),
                })?
            }
            Identities::Ssh(key) => iter::once(Box::new(key) as Box<dyn age::Identity>).collect(),
            Identities::Encrypted(_) => Vec::new(),
        };
        match unwrapping.is_empty() {
            true => Err(Error::new(Kind::Usage, "there is no identity in this file")),
            false => Ok(unwrapping),
        }
    }
}

/// An encrypted key of OpenSSH's with its passphrase; `None` where it is another.
pub fn decrypt(key: &ssh::EncryptedKey, passphrase: SecretString) -> Option<Identities> {
    key.decrypt(passphrase).ok().map(|key| Identities::Ssh(key.into()))
}

fn unsupported(why: &ssh::UnsupportedKey) -> String {
    match why {
        ssh::UnsupportedKey::EncryptedPem => {
            "it is encrypted in OpenSSL's old way, which `ssh-keygen -p -f FILE` changes".to_owned()
        }
        ssh::UnsupportedKey::EncryptedSsh(cipher) => format!("it is encrypted with `{cipher}`"),
        ssh::UnsupportedKey::Hardware(kind) => format!("`{kind}` signs, and opens nothing"),
        ssh::UnsupportedKey::Type(kind) => format!("SSH keys of the kind `{kind}` are not supported"),
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;
    use crate::vault::id::VaultId;
    use crate::vault::key::{Keyring, NotOpened};

    const AGE: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHFliOyIZs1gxGF3fmDxFykQhE88wy6AKDGFBfn0R6ZuvRmENABZQa9+pj9hMki+LX0qDJbmHTiWDbYv/cmFt/Q=";
    /// Of 1024 bits, by `ssh-keygen -t rsa -b 1024`.
    const SMALL: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCsOC8Zhyx0QFZHeXA2fXNSKq8ngSnJsLxN80PqnRmUmTzvhttlJpFRtgk0hnmD1RirIFwPPXX6JVdKqvQD28EZfLfCs7hR7n/b1djygXIJWaHI6gb5KY923h5CuGw/LxSntoX4RzByU+eAzjrHRCGaW4JwTwzZWy7AuUBuQywcnQ==";
    const PLUGIN: &str = "age1test1zzzzzzzz3qdwpw";

    fn refused(text: &str) -> Error {
        let error = Recipient::parse(text).err().unwrap();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        error
    }

    #[test]
    fn recipients_are_read_with_their_comments() {
        for (text, kind) in [(AGE, "age"), (ED25519, "ssh-ed25519"), (PLUGIN, "age-plugin-test")] {
            let recipient = Recipient::parse(&format!(" {text}\t me@\x1bhost \n again ")).unwrap();
            assert_eq!((recipient.key(), recipient.kind()), (text.to_owned(), kind.to_owned()));
            assert_eq!(recipient.comment(), "me@ host again");
            assert_eq!(recipient.to_string(), format!("{text} me@ host again"));
            assert_eq!(Recipient::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_recipient_is_refused_with_a_reason() {
        assert!(refused(ECDSA).to_string().contains("`ecdsa-sha2-nistp256` are not supported"));
        assert!(refused(SMALL).to_string().contains("fewer than 2048 bits"), "{}", refused(SMALL));
        let token = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAAQE=";
        assert!(refused(token).to_string().contains("signs, and opens nothing"), "{}", refused(token));
        for secret in ["AGE-SECRET-KEY-1XYZ", "age-plugin-x-1xyz", "-----BEGIN OPENSSH PRIVATE KEY-----\nXYZ"]
        {
            let error = refused(secret);
            assert!(
                error.to_string().contains("private key") && !error.to_string().contains("XYZ"),
                "{error}"
            );
        }
        // What stands between the words is one space when it is kept, and then it must still be taken.
        for between in [" ", "  ", "\t", "\0", "\u{a0}"] {
            refused(&format!("{ED25519} my private{between}key"));
        }
        let cut = &AGE[..AGE.len() - 1];
        let longer = format!("{ED25519}AAAA");
        // `ssh-rsa` with an exponent of one zero byte.
        let zero = "ssh-rsa AAAAB3NzaC1yc2EAAAABAAAAAAEB";
        for text in
            ["", " \n", "me@host", "ssh-ed25519", "ssh-ed25519 AAAA", cut, &longer, zero, "age1", "AGE1"]
        {
            assert!(refused(text).hints().iter().any(|hint| hint == TAKEN), "{text}");
        }
        assert!(refused("ssh-ed25519").hints().iter().any(|hint| hint.contains("quote")));
    }

    #[test]
    fn a_keyring_opens_with_each_of_its_recipients() {
        let identities: Vec<_> = (0..2).map(|_| x25519::Identity::generate()).collect();
        let recipients: Vec<_> = identities
            .iter()
            .map(|identity| Recipient::parse(&identity.to_public().to_string()).unwrap())
            .collect();
        let keyring = Keyring::generate(VaultId([7; 16])).unwrap().with_recipients(recipients);
        let wrapped = keyring.wrap_to_recipients(&NoCallbacks).unwrap().unwrap();
        let open = |identity: &x25519::Identity| Keyring::unwrap_with(&wrapped, &[identity]);
        for identity in &identities {
            let opened = open(identity).unwrap();
            assert_eq!(
                opened.current().to_line().expose_secret(),
                keyring.current().to_line().expose_secret()
            );
            assert_eq!(opened.recipients().len(), 2);
        }
        assert!(matches!(open(&x25519::Identity::generate()), Err(NotOpened::Passphrase)));
        let none = keyring.with_recipients(Vec::new());
        assert!(none.wrap_to_recipients(&NoCallbacks).unwrap().is_none());
    }

    #[test]
    fn a_plugin_that_is_not_there_is_named() {
        let recipient = Recipient::parse(PLUGIN).unwrap();
        let error = wrapping(&[recipient], &NoCallbacks).err().unwrap();
        assert!(error.to_string().contains("`age-plugin-test` is not there"), "{error}");
    }

    #[test]
    fn what_is_no_identity_is_refused_without_quoting_it() {
        for text in [
            "secret",
            "",
            "# only\n",
            AGE,
            ED25519,
            "age-encryption.org/v1\nsecret",
            "\u{0}secret",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n",
            "-----BEGIN AGE ENCRYPTED FILE-----\nsecret",
        ] {
            let error =
                Identities::parse(text.as_bytes()).and_then(|found| found.unwrapping(NoCallbacks)).err();
            let error = error.unwrap();
            assert_eq!(error.kind(), Kind::Usage, "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(Identities::parse(b"\xff").is_err());
    }
}
