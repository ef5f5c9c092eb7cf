//! What reads bytes of others, and what must hold whatever these are: for the fuzzer (`scripts/fuzz`), and, with inputs that chance has
//! changed, for every run of the tests.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::io::Write as _;

use age::NoCallbacks;
use base64::Engine as _;

use super::archive::{self, Limits};
use super::commit::{Commit, Draft, Link, Reason, SIGNED_PREFIX};
use super::id::{Hash, VaultId};
use super::key::{Keyring, Signer};
use super::legacy;
use super::recipient::{Identities, Recipient};
use super::tree::{Root, Tree};

const VAULT: VaultId = VaultId([7; 16]);

/// As it is, and with a good signature on its first line, so that what comes behind signatures is reached.
pub fn commit(data: &[u8]) {
    let line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let signer = Signer::from_seed(&[1; 32]);
    let signature = signer.sign(&[SIGNED_PREFIX, line].concat());
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    let signed = [line, format!("\nsig {} {signature}\n", signer.id()).as_bytes()].concat();
    for bytes in [data.to_vec(), signed] {
        let Ok(read) = Commit::read(bytes.clone()) else { continue };
        assert_eq!(read.bytes, bytes);
        assert_eq!(read.hash, Hash::of(&bytes));
        if let Ok(begun) = Link::begin(&read) {
            // Nothing follows from itself.
            assert!(begun.follow(&read).is_err());
        }
    }
}

/// The text of a keyring, its parts, and a wrapped one.
pub fn keyring(data: &[u8]) {
    let _ = Identities::parse(data).and_then(|found| found.unwrapping(NoCallbacks));
    let identity = age::x25519::Identity::generate();
    let _ = Keyring::unwrap_with(data, &[&identity]);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(recipient) = Recipient::parse(text) {
        let again = Recipient::parse(&recipient.to_string()).unwrap();
        assert_eq!(again.to_string(), recipient.to_string());
        assert_eq!(recipient.to_string().lines().count(), 1);
        let keyring = Keyring::generate(VAULT).unwrap().with_recipients(vec![recipient]);
        // It may be of a plugin that is not there.
        let _ = keyring.wrap_to_recipients(&NoCallbacks);
    }
    if let Ok(keyring) = Keyring::parse(text) {
        assert!(keyring.rotated().unwrap().recipients().len() == keyring.recipients().len());
    }
}

/// As zstd, and as the tar in it. Nothing may appear beside the directory, and nothing larger than allowed.
pub fn archive(data: &[u8]) {
    let limits = Limits { bytes: 1 << 20, entries: 1000 };
    for plain in [data.to_vec(), zstd::encode_all(data, 1).unwrap()] {
        let above = tempfile::tempdir().unwrap();
        let inside = above.path().join("in");
        fs::create_dir(&inside).unwrap();
        let root = Root::open(&inside).unwrap();
        let extracted = archive::extract(&plain[..], &root, limits);
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 1);
        if let Ok(done) = extracted {
            assert!(done.bytes <= limits.bytes && done.entries <= limits.entries);
            // Its own permissions may be against it.
            if let Ok(tree) = Tree::scan(&root) {
                assert!(tree.entries.len() as u64 <= done.entries);
            }
        }
        let path = above.path().to_owned();
        if above.close().is_err() {
            // Directories may lack permissions.
            let status = std::process::Command::new("chmod").arg("-R").arg("u+rwx").arg(&path).status();
            assert!(status.unwrap().success());
            fs::remove_dir_all(path).unwrap();
        }
    }
}

/// The length of the header, and what was sealed.
pub fn legacy(data: &[u8]) {
    // More would take a tenth of a second each.
    let short = &data[..data.len().min(59)];
    assert!(legacy::open(short, &age::secrecy::SecretString::from("x")).is_err());
    if let Ok(tar) = legacy::unpack(data, 1 << 20) {
        assert!(tar.len() <= 1 << 20);
    }
}

/// Something that takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 4] =
    [("commit", commit), ("keyring", keyring), ("archive", archive), ("legacy", legacy)];

/// Good input, by target, to begin with.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let draft = |kind, recipients, second_parent| Draft {
        generation: Hash([1; 32]),
        size: 3,
        keys: Hash([2; 32]),
        recipients,
        kind,
        second_parent,
        host: "host".into(),
        time: "2026-01-01T00:00:00Z".into(),
    };
    let write = |at: Option<&Link>, draft| {
        Commit::write(VAULT, at, draft, &Signer::from_seed(&[1; 32]), Some(&Signer::from_seed(&[2; 32])))
            .unwrap()
    };
    let first = write(None, draft(Reason::Init, None, None));
    let begun = Link::begin(&first).unwrap();
    let others = [
        write(Some(&begun), draft(Reason::Rekey, Some(Hash([3; 32])), None)),
        write(Some(&begun), draft(Reason::Merge, None, Some(Hash([4; 32])))),
    ];
    let mut seeds: Vec<_> =
        others.into_iter().chain([first]).map(|commit| ("commit", commit.bytes)).collect();

    let age = age::x25519::Identity::generate().to_public().to_string();
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN me@host";
    let recipients: Vec<_> = [age.as_str(), ssh].iter().map(|text| Recipient::parse(text).unwrap()).collect();
    let keyring = Keyring::generate(VAULT).unwrap().with_recipients(recipients);
    seeds.push(("keyring", keyring.wrap_to_recipients(&NoCallbacks).unwrap().unwrap()));
    seeds.push(("keyring", keyring.to_text().as_bytes().to_vec()));
    seeds.extend(
        [age.as_str(), ssh, "age1test1zzzzzzzz3qdwpw", RSA].map(|text| ("keyring", text.as_bytes().to_vec())),
    );

    let mut tar = tar::Builder::new(Vec::new());
    let mut append = |kind, path: &str, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        tar.append_pax_extensions([("mtime", b"1700000000.25".as_slice())]).unwrap();
        match link {
            "" => tar.append_data(&mut header, path, data).unwrap(),
            link => tar.append_link(&mut header, path, link).unwrap(),
        }
    };
    append(tar::EntryType::Directory, "d", "", b"");
    append(tar::EntryType::Regular, "d/file", "", b"content");
    append(tar::EntryType::Regular, &"long/".repeat(30), "", b"");
    append(tar::EntryType::Symlink, "d/link", "../d/file", b"");
    let tar = tar.into_inner().unwrap();
    seeds.push(("archive", zstd::encode_all(&tar[..], 1).unwrap()));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    seeds.push(("legacy", gzip.finish().unwrap()));
    seeds.push(("archive", tar));
    seeds
}

const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDMNTLiFmDGuzpaxG6lGEbATQTl20+vFrCjCQ6I2ywAPactou36Kiiu5y90mw22HN82hSXecjYO3s2+LJJl64C+SggbiDIZOQvjLLfr5aSKCekUNd+RskCuLijjEPfALeu1HeZnJxh3P29VMENrn89SVDdzlJr7/FOD+qIIkyNyaxBJ5drijmfAvz4Rdyers/CHndJyLb1pKvetPWQpZ6ZLZdyduvwEUjI8MKonepiEdM6gCcA0vOACtCRb/J5miD5vNaL1A9oRBZaa9UKveI94ezHUxK5gY1GO5O9PRp18UApkUMwcg7Modopk1NoBsUujuMJ4XxLjNbPIn2dSVoPt";

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64, so that a failure can be had again.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % limit.max(1) as u64).unwrap()
        }

        /// A few changes: bytes flipped, replaced by digits, signs and extremes, taken out, doubled, cut off.
        fn change(&mut self, bytes: &mut Vec<u8>) {
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len());
                let end = (at + 1 + self.below(16)).min(bytes.len());
                match self.below(6) {
                    0 => bytes[at..end].iter_mut().for_each(|byte| *byte ^= 1 << self.below(8)),
                    1 => bytes[at] = [0, 0xff, b'-', b'9', b'/', b'.', b' ', b'\n'][self.below(8)],
                    2 => drop(bytes.drain(at..end)),
                    3 => bytes.extend_from_within(at..end),
                    4 => bytes[at..end].fill(b'9'),
                    _ => bytes.truncate(end),
                }
                if bytes.is_empty() {
                    bytes.push(b'x');
                }
            }
        }
    }

    #[test]
    fn what_chance_makes_of_good_input() {
        for (n, (name, seed)) in (1..).zip(seeds()) {
            let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
            target(&seed);
            let mut chance = Chance(n);
            for _ in 0..200 {
                let mut bytes = seed.clone();
                chance.change(&mut bytes);
                target(&bytes);
            }
        }
    }
}
