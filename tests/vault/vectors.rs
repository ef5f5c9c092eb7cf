//! age's own test vectors (C2SP/CCTV, the npm package `cctv-age`), through the crate as the vault uses it. `scripts/setup.sh`
//! fetches them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use age::armor::{ArmoredReadError, ArmoredReader};
use age::{DecryptError, Decryptor, Identity, scrypt, x25519};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tazpod::vault::id::Hash;
use tazpod::vault::key::LARGEST_WORK_FACTOR;

/// Vectors with which something else happens than the specification says: what, and why that is no harm.
const DEVIATIONS: &[(&str, &str, &[&str])] = &[
    (
        "unknown identity",
        "the crate has no post-quantum keys yet; with `age1pq1…` a plugin is looked for",
        &[
            "armor_hybrid",
            "hybrid",
            "hybrid_and_x25519",
            "hybrid_bad_tag",
            "hybrid_currupted_enc_mlkem",
            "hybrid_currupted_enc_x25519",
            "hybrid_extra_argument",
            "hybrid_grease",
            "hybrid_identity",
            "hybrid_long_file_key",
            "hybrid_long_share",
            "hybrid_low_order",
            "hybrid_multiple_recipients",
            "hybrid_no_match",
            "hybrid_not_canonical_body",
            "hybrid_not_canonical_enc",
            "hybrid_short_share",
            "hybrid_uppercase",
            "hybrid_x25519_arg",
        ],
    ),
    (
        "success",
        "the crate still reads stanzas as the first programs wrote them; the header's MAC fits all the same",
        &["stanza_missing_body", "stanza_missing_final_line"],
    ),
    (
        "header failure",
        "what does not begin as armor does is read as a binary file, and refused as one; the vault's files are never armored",
        &[
            "armor_garbage_leading",
            "armor_lowercase",
            "armor_whitespace_begin",
            "armor_whitespace_outside",
            "armor_wrong_type",
        ],
    ),
];

/// A file of the collection: fields, an empty line, and the age file.
struct Vector {
    fields: Vec<(String, String)>,
    file: Vec<u8>,
}

impl Vector {
    fn parse(bytes: &[u8]) -> Vector {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let fields = head.lines().map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        });
        let mut vector = Vector { fields: fields.collect(), file: bytes[end + 2..].to_vec() };
        let compressed = vector.all("compressed").next().map(str::to_owned);
        if let Some(how) = compressed {
            assert_eq!(how, "zlib");
            let mut file = Vec::new();
            flate2::bufread::ZlibDecoder::new(&vector.file[..]).read_to_end(&mut file).unwrap();
            vector.file = file;
        }
        vector
    }

    fn all<'v>(&'v self, name: &'v str) -> impl Iterator<Item = &'v str> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// What happens, in the words of `expect`; with the hash of what came out, where something did.
    fn happens(&self) -> String {
        let identities: Vec<_> = self.all("identity").collect();
        let parsed: Vec<x25519::Identity> = identities.iter().flat_map(|line| line.parse()).collect();
        if parsed.len() < identities.len() {
            return "unknown identity".to_owned();
        }
        let passphrases = self.all("passphrase").map(|passphrase| {
            let mut identity = scrypt::Identity::new(passphrase.to_owned().into());
            identity.set_max_work_factor(LARGEST_WORK_FACTOR);
            identity
        });
        let passphrases: Vec<_> = passphrases.collect();
        let all = parsed.iter().map(|identity| identity as &dyn Identity);
        let all = all.chain(passphrases.iter().map(|identity| identity as &dyn Identity));
        match self.all("armored").next() {
            Some(_) => open(ArmoredReader::new(&self.file[..]), all),
            None => open(&self.file[..], all),
        }
    }

    fn expected(&self) -> String {
        let expect = self.all("expect").next().unwrap();
        match self.all("payload").next() {
            Some(hash) => format!("{expect}, {hash}"),
            None => expect.to_owned(),
        }
    }
}

fn open<'a>(file: impl Read, identities: impl Iterator<Item = &'a dyn Identity>) -> String {
    let what = match Decryptor::new(file).and_then(|decryptor| decryptor.decrypt(identities)) {
        Ok(mut reader) => {
            let mut payload = Vec::new();
            let ended = reader.read_to_end(&mut payload);
            let what = match ended {
                Ok(_) => "success",
                Err(source) if is_armor(&source) => return "armor failure".to_owned(),
                Err(_) => "payload failure",
            };
            return format!("{what}, {}", Hash::of(&payload));
        }
        Err(DecryptError::InvalidMac) => "HMAC failure",
        Err(DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed) => "no match",
        Err(DecryptError::Io(source)) if is_armor(&source) => "armor failure",
        Err(
            DecryptError::InvalidHeader
            | DecryptError::UnknownFormat
            | DecryptError::ExcessiveWork { .. }
            | DecryptError::Io(_),
        ) => "header failure",
        Err(error) => panic!("{error:?}"),
    };
    what.to_owned()
}

fn is_armor(source: &io::Error) -> bool {
    source.get_ref().is_some_and(|inner| inner.is::<ArmoredReadError>())
}

/// `var NAME_default = __toBinary("BASE64");`, as the package has them.
fn vectors() -> BTreeMap<String, Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/age-vectors/package/index.js");
    let text = fs::read_to_string(&path);
    let text =
        text.unwrap_or_else(|source| panic!("{}: {source}: `scripts/test` fetches it", path.display()));
    let lines =
        text.lines().filter_map(|line| line.strip_prefix("var ")?.split_once("_default = __toBinary(\""));
    lines
        .map(|(name, rest)| {
            let encoded = rest.strip_suffix("\");").unwrap();
            (name.to_owned(), Vector::parse(&BASE64.decode(encoded).unwrap()))
        })
        .collect()
}

#[test]
fn every_vector_does_what_is_specified_or_known() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 143);
    let known: BTreeMap<_, _> = DEVIATIONS
        .iter()
        .flat_map(|(instead, _, names)| names.iter().map(move |name| (*name, *instead)))
        .collect();
    let mut wrong = Vec::new();
    for (name, vector) in &vectors {
        let (happens, expected) = (vector.happens(), vector.expected());
        let right = match known.get(name.as_str()) {
            Some(instead) => happens.starts_with(instead) && happens != expected,
            None => happens == expected,
        };
        if !right {
            wrong.push(format!("{name}: {expected}: {happens}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(known.keys().all(|name| vectors.contains_key(*name)));
}
