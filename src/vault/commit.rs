//! Commits: the signed, numbered records that make generations current, and the chain that they form.
//!
//! A commit is text: one line of JSON, then one line a signature, `sig SIGNER BASE64`. Signatures (Ed25519, RFC 8032) are of
//! [`SIGNED_PREFIX`] and the bytes of the first line without its newline. A commit's name is the hash of all its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::Signature;
use serde::{Deserialize, Serialize};

use super::id::{Hash, SignerId, VaultId};
use super::key::Signer;
use crate::error::{Error, Kind, Result};

/// What separates signatures of commits from any other.
pub const SIGNED_PREFIX: &[u8] = b"tazpod vault commit 1\0";
/// A commit is not larger, in bytes.
pub const LARGEST: u64 = 16 << 10;
/// The value of [`Body::format`].
const FORMAT: &str = "tazpod-vault-commit-1";

/// What a commit says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// `tazpod-vault-commit-1`.
    pub format: String,
    /// The vault.
    pub vault: VaultId,
    /// The number: 1 for the first.
    pub n: u64,
    /// The commit before it; and, where two sides of a fork were brought together, the other side.
    pub parents: Vec<Hash>,
    /// The sealed generation that it makes current.
    #[serde(rename = "gen")]
    pub generation: Hash,
    /// That object's size in bytes.
    pub size: u64,
    /// The keyring, wrapped by the passphrase.
    pub keys: Hash,
    /// The same keyring, wrapped to added recipients.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipients: Option<Hash>,
    /// Who signs: derived from the keyring's current identity.
    pub vk: SignerId,
    /// Why it was made.
    pub kind: Reason,
    /// Where it was made. For people.
    pub host: String,
    /// When, by that machine's clock (RFC 3339, UTC). For people.
    pub time: String,
    /// 64 random bits, so that no two are the same.
    pub nonce: String,
}

/// Why a commit was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The first.
    Init,
    /// The tree changed.
    Save,
    /// Another identity, passphrase or list of recipients.
    Rekey,
    /// An earlier generation was made current again.
    Restore,
    /// Two sides of a fork were brought together.
    Merge,
}

impl Reason {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Reason::Init => "init",
            Reason::Save => "save",
            Reason::Rekey => "rekey",
            Reason::Restore => "restore",
            Reason::Merge => "merge",
        }
    }
}

/// What the writer of a commit decides; the rest follows from the chain.
#[derive(Clone, Debug)]
pub struct Draft {
    /// See [`Body::generation`].
    pub generation: Hash,
    /// See [`Body::size`].
    pub size: u64,
    /// See [`Body::keys`].
    pub keys: Hash,
    /// See [`Body::recipients`].
    pub recipients: Option<Hash>,
    /// See [`Body::kind`].
    pub kind: Reason,
    /// The other side of a fork.
    pub second_parent: Option<Hash>,
    /// See [`Body::host`].
    pub host: String,
    /// See [`Body::time`].
    pub time: String,
}

/// A commit whose signatures were checked against the keys that it names; whether it belongs, [`Link::follow`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// What it says.
    pub body: Body,
    /// Its name.
    pub hash: Hash,
    /// All of it.
    pub bytes: Vec<u8>,
    signers: Vec<SignerId>,
}

/// Where a chain has come to: all that is needed to tell whether a commit is the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The vault.
    pub vault: VaultId,
    /// Who signs for it now.
    pub vk: SignerId,
    /// The newest commit's number.
    pub n: u64,
    /// The newest commit's name.
    pub hash: Hash,
}

impl Commit {
    /// Writes and signs the commit after `at`; the first of a vault after `None`. `retiring` signs too where the
    /// current signer is another than before.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn write(
        vault: VaultId,
        at: Option<&Link>,
        draft: Draft,
        signer: &Signer,
        retiring: Option<&Signer>,
    ) -> Result<Commit> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|source| {
            Error::new(Kind::Failure, "the system has no randomness").with_source(source)
        })?;
        let body = Body {
            format: FORMAT.to_owned(),
            vault,
            n: at.map_or(1, |at| at.n.saturating_add(1)),
            parents: at.map(|at| at.hash).into_iter().chain(draft.second_parent).collect(),
            generation: draft.generation,
            size: draft.size,
            keys: draft.keys,
            recipients: draft.recipients,
            vk: signer.id(),
            kind: draft.kind,
            host: draft.host.chars().filter(|c| !c.is_control()).take(255).collect(),
            time: draft.time,
            nonce: nonce.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let mut bytes = serde_json::to_vec(&body)
            .map_err(|source| Error::new(Kind::Failure, "cannot write a commit").with_source(source))?;
        let message = [SIGNED_PREFIX, &bytes].concat();
        for signer in std::iter::once(signer).chain(retiring) {
            let signature = BASE64.encode(signer.sign(&message));
            bytes.extend_from_slice(format!("\nsig {} {signature}", signer.id()).as_bytes());
        }
        bytes.push(b'\n');
        Commit::read(bytes)
    }

    /// Reads a commit, and checks that each signature on it is good and that the key that it names is among the signers.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where one of these is not so.
    pub fn read(bytes: Vec<u8>) -> Result<Commit> {
        let hash = Hash::of(&bytes);
        let wrong = |what: &str| {
            Error::new(Kind::Integrity, format!("the commit {} is not valid: {what}", hash.short()))
        };
        if bytes.len() as u64 > LARGEST {
            return Err(wrong("it is too large"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is no text"))?;
        let text = text.strip_suffix('\n').ok_or_else(|| wrong("it is cut off"))?;
        let mut lines = text.split('\n');
        let line = lines.next().unwrap_or_default();
        if !line.contains(&format!("\"{FORMAT}\"")) {
            return Err(
                wrong("it is of no format that this tazpod knows").hint("a newer tazpod may have made it")
            );
        }
        let body: Body =
            serde_json::from_str(line).map_err(|source| wrong("it does not read").with_source(source))?;
        if body.format != FORMAT {
            return Err(wrong("it is of no format that this tazpod knows"));
        }
        let message = [SIGNED_PREFIX, line.as_bytes()].concat();
        let mut signers = Vec::new();
        for line in lines {
            let fields = line.strip_prefix("sig ").and_then(|rest| rest.split_once(' '));
            let (signer, signature) = fields.ok_or_else(|| wrong("a line of it is no signature"))?;
            let signer: SignerId = signer.parse().map_err(|_| wrong("it names a signer that is none"))?;
            let key = signer.key().ok_or_else(|| wrong("it names a signer that is none"))?;
            let signature = BASE64.decode(signature).ok();
            let signature = signature.and_then(|signature| Signature::from_slice(&signature).ok());
            let signature = signature.ok_or_else(|| wrong("a signature of it is none"))?;
            key.verify_strict(&message, &signature).map_err(|_| wrong("a signature does not fit"))?;
            signers.push(signer);
        }
        if !signers.contains(&body.vk) {
            return Err(wrong("it is not signed"));
        }
        if [&body.host, &body.time, &body.nonce].iter().any(|text| text.chars().any(char::is_control)) {
            return Err(wrong("it has control characters"));
        }
        let first = body.n == 1;
        if body.n == 0 || first != body.parents.is_empty() || first != (body.kind == Reason::Init) {
            return Err(wrong("its number and its parents do not fit"));
        }
        if body.parents.len() > 2 || (body.parents.len() == 2) != (body.kind == Reason::Merge) {
            return Err(wrong("it has another number of parents than its kind"));
        }
        Ok(Commit { body, hash, bytes, signers })
    }

    /// Whether somebody has signed both.
    pub fn shares_signer(&self, other: &Commit) -> bool {
        self.signers.iter().any(|signer| other.signers.contains(signer))
    }

    /// Whether this one has signed it.
    pub fn is_signed_by(&self, signer: &SignerId) -> bool {
        self.signers.contains(signer)
    }

    /// The chain that has come to this one.
    pub fn link(&self) -> Link {
        Link { vault: self.body.vault, vk: self.body.vk, n: self.body.n, hash: self.hash }
    }

    /// What a person compares.
    pub fn fingerprint(&self) -> Hash {
        self.body.vault.fingerprint(&self.body.vk)
    }
}

impl Link {
    /// The beginning of a chain. Whether it is the right vault, its fingerprint says.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where this is no first commit.
    pub fn begin(first: &Commit) -> Result<Link> {
        if first.body.n != 1 {
            let n = first.body.n;
            return Err(Error::new(
                Kind::Integrity,
                format!("the first commit of the vault says that it is number {n}"),
            ));
        }
        Ok(first.link())
    }

    /// The chain with one more commit, which may be the first.
    ///
    /// # Errors
    /// As [`Link::begin`] and [`Link::follow`].
    pub fn next(at: Option<&Link>, commit: &Commit) -> Result<Link> {
        at.map_or_else(|| Link::begin(commit), |at| at.follow(commit))
    }

    /// The chain with one more commit.
    ///
    /// # Errors
    /// [`Kind::Integrity`] where it is not the next: another vault, number or parent, or signed by a key that does not
    /// sign for this vault, retired ones included.
    pub fn follow(&self, next: &Commit) -> Result<Link> {
        let wrong = |what: &str| {
            let n = next.body.n;
            Err(Error::new(
                Kind::Integrity,
                format!("commit {n} of the vault, {}, {what}", next.hash.short()),
            ))
        };
        if next.body.vault != self.vault {
            return wrong("is of another vault");
        }
        if self.n.checked_add(1) != Some(next.body.n) || next.body.parents.first() != Some(&self.hash) {
            return wrong("does not follow the one before it");
        }
        if next.body.vk != self.vk && next.body.kind != Reason::Rekey {
            return wrong("is signed by a key that does not sign for this vault");
        }
        if !next.signers.contains(&self.vk) {
            return wrong("changes the key without the consent of the one before");
        }
        Ok(next.link())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAULT: VaultId = VaultId([9; 16]);

    fn signer(number: u8) -> Signer {
        Signer::from_seed(&[number; 32])
    }

    fn draft(kind: Reason) -> Draft {
        let second_parent = (kind == Reason::Merge).then_some(Hash([5; 32]));
        let (generation, keys) = (Hash([1; 32]), Hash([2; 32]));
        Draft {
            generation,
            size: 3,
            keys,
            recipients: None,
            kind,
            second_parent,
            host: "ho\nst".into(),
            time: "2026-01-01T00:00:00Z".into(),
        }
    }

    fn write(at: Option<&Link>, kind: Reason, by: u8) -> Commit {
        Commit::write(VAULT, at, draft(kind), &signer(by), None).unwrap()
    }

    #[test]
    fn a_commit_reads_as_it_was_written() {
        let commit = write(None, Reason::Init, 1);
        assert_eq!(Commit::read(commit.bytes.clone()).unwrap(), commit);
        assert_eq!((commit.body.n, commit.body.host.as_str()), (1, "host"));
        assert_ne!(write(None, Reason::Init, 1).hash, commit.hash);
        assert_eq!(commit.fingerprint(), VAULT.fingerprint(&signer(1).id()));
    }

    #[test]
    fn every_byte_counts() {
        let commit = write(None, Reason::Init, 1);
        for index in 0..commit.bytes.len() {
            let mut bytes = commit.bytes.clone();
            bytes[index] ^= 1;
            assert!(Commit::read(bytes).is_err(), "byte {index}");
            assert!(Commit::read(commit.bytes[..index].to_vec()).is_err(), "cut at {index}");
        }
        let line = commit.bytes.split(|byte| *byte == b'\n').next().unwrap().to_vec();
        for more in [&b"\n"[..], b"\nsig\n", b"\n\n", b""] {
            assert!(Commit::read([&line, more].concat()).is_err());
        }
        assert!(Commit::read([&commit.bytes[..], b"x"].concat()).is_err());
        assert!(Commit::read(vec![b' '; LARGEST as usize + 1]).is_err());
    }

    #[test]
    fn a_chain_takes_what_belongs_to_it() {
        let first = write(None, Reason::Init, 1);
        let begin = Link::begin(&first).unwrap();
        let second = begin.follow(&write(Some(&begin), Reason::Save, 1)).unwrap();
        let merged = second.follow(&write(Some(&second), Reason::Merge, 1)).unwrap();
        let rekey =
            Commit::write(VAULT, Some(&merged), draft(Reason::Rekey), &signer(2), Some(&signer(1))).unwrap();
        let rekeyed = merged.follow(&rekey).unwrap();
        assert_eq!((rekeyed.n, rekeyed.vk), (4, signer(2).id()));
        assert!(rekeyed.follow(&write(Some(&rekeyed), Reason::Restore, 2)).is_ok());

        let refused = |at: &Link, commit: &Commit| {
            let error = at.follow(commit).unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity);
            error.to_string()
        };
        let retired = write(Some(&rekeyed), Reason::Save, 1);
        assert!(refused(&rekeyed, &retired).contains("a key that does not sign"));
        let stranger = write(Some(&begin), Reason::Rekey, 3);
        assert!(refused(&begin, &stranger).contains("without the consent"));
        let retired = Commit::write(VAULT, Some(&rekeyed), draft(Reason::Rekey), &signer(1), None).unwrap();
        assert!(refused(&rekeyed, &retired).contains("without the consent"));
        let elsewhere = Link { vault: VaultId([8; 16]), ..begin };
        assert!(refused(&elsewhere, &write(Some(&begin), Reason::Save, 1)).contains("another vault"));
        assert!(refused(&second, &write(Some(&begin), Reason::Save, 1)).contains("does not follow"));
        let other = Link { hash: Hash([4; 32]), ..begin };
        assert!(refused(&begin, &write(Some(&other), Reason::Save, 1)).contains("does not follow"));
        assert!(Link::begin(&write(Some(&begin), Reason::Save, 1)).is_err());
    }
}
