//! What needs a process of its own: another environment, other mounts, memory that nobody else uses.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use tazpod::adapters::store::{Access, DirectoryStore, Place, S3Config, S3Store, StoreConfig, StoreSettings};
use tazpod::vault::store::{Created, Kind, Store, StoreError};

use crate::suite::{Noise, get, hash};
use crate::{access, block_on, servers, unique};

const MIB: u64 = 1024 * 1024;

/// The test that this process is to play.
const CHILD: &str = "TAZPOD_STORE_TEST_CHILD";

fn is_child(name: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|given| given == name)
}

/// Runs one test of this file again, in a process with this environment and no other.
fn run(name: &str, wrapper: &[&str], environment: &[(&str, &str)]) {
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    let test = format!("child::{name}");
    let words: Vec<&str> =
        wrapper.iter().copied().chain([own, &test, "--exact", "--nocapture", "--test-threads=1"]).collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .env_clear()
        .envs([
            (CHILD, name),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

#[test]
fn file_systems_that_are_full_or_read_only() {
    let name = "file_systems_that_are_full_or_read_only";
    if !is_child(name) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        return run(name, &["unshare", "--map-root-user", "--mount"], &[("AT", path)]);
    }
    let at = std::env::var("AT").unwrap();
    let mount = |options: &str| {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs", &at]).status().unwrap();
        assert!(mounted.success());
    };
    let kinds = |store: &DirectoryStore, bytes: &[u8]| {
        let put = block_on(store.put("gen/x", bytes.len() as u64, hash(bytes), &mut &bytes[..])).unwrap_err();
        let create = block_on(store.create("commits/1", bytes)).unwrap_err();
        (put.kind, create.kind)
    };
    mount("size=64k,mode=700");
    let store = DirectoryStore::new(Path::new(&at));
    assert_eq!(kinds(&store, &Noise::bytes(1, 200_000)), (Kind::Full, Kind::Full));
    // Nothing half-written stays, and what fits, fits.
    assert!(matches!(block_on(store.create("commits/1", b"x")), Ok(Created::Made)));
    let left: Vec<_> = block_on(store.list("", "")).unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(left, ["commits/1"]);
    assert_eq!(fs::read_dir(Path::new(&at).join("gen")).unwrap().count(), 0);
    mount("remount,ro");
    assert_eq!(kinds(&store, b"x"), (Kind::Denied, Kind::Denied));
    assert_eq!(block_on(store.delete("commits/1")).unwrap_err().kind, Kind::Denied);
    assert_eq!(get(&store, "commits/1").unwrap(), b"x");
}

/// A bucket of SeaweedFS's that the parent made, as the child's environment has it.
fn given(profile: Option<&str>) -> S3Store {
    let settings = StoreSettings {
        address: std::env::var("ADDRESS").unwrap(),
        endpoint: Some(std::env::var("ENDPOINT").unwrap()),
        profile: profile.map(str::to_owned),
        ..StoreSettings::default()
    };
    let StoreConfig::S3(config) = StoreConfig::new(&settings).unwrap() else { unreachable!() };
    block_on(S3Store::open(&config, Access::default()))
}

fn made() -> S3Config {
    let config = unique(servers::seaweedfs());
    block_on(block_on(S3Store::open(&config, access())).setup()).unwrap();
    config
}

#[test]
fn no_credentials_at_all() {
    let name = "no_credentials_at_all";
    if !is_child(name) {
        let home = tempfile::tempdir().unwrap();
        let config = made();
        return run(
            name,
            &["env"],
            &[
                ("HOME", home.path().to_str().unwrap()),
                ("ADDRESS", &config.to_string()),
                ("ENDPOINT", servers::seaweedfs()),
            ],
        );
    }
    let credentials = |error: StoreError| assert_eq!(error.kind, Kind::Credentials, "{error:?}");
    for profile in [None, Some("nobody")] {
        let store = given(profile);
        credentials(block_on(store.get("gen/x", 1, &mut Vec::new())).unwrap_err());
        credentials(block_on(store.size("gen/x")).unwrap_err());
        credentials(block_on(store.put("gen/x", 1, hash(b"x"), &mut &b"x"[..])).unwrap_err());
        credentials(block_on(store.create("commits/1", b"x")).unwrap_err());
    }
}

#[test]
fn credentials_of_the_environment_and_of_profiles() {
    let name = "credentials_of_the_environment_and_of_profiles";
    if !is_child(name) {
        let home = tempfile::tempdir().unwrap();
        let keys = servers::keys();
        let config = made();
        fs::create_dir(home.path().join(".aws")).unwrap();
        let process = serde_json::json!({
            "Version": 1,
            "AccessKeyId": keys.id,
            "SecretAccessKey": keys.secret,
        });
        fs::write(home.path().join("keys.json"), process.to_string()).unwrap();
        let text = format!(
            "[profile process]\ncredential_process = cat {}\n\
             [profile static]\naws_access_key_id = {}\naws_secret_access_key = {}\n\
             [profile wrong]\naws_access_key_id = NOBODY\naws_secret_access_key = nothing\n",
            home.path().join("keys.json").display(),
            keys.id,
            keys.secret,
        );
        fs::write(home.path().join(".aws/config"), text).unwrap();
        let environment = [
            ("HOME", home.path().to_str().unwrap()),
            ("ADDRESS", &config.to_string()),
            ("ENDPOINT", servers::seaweedfs()),
        ];
        run(name, &["env"], &environment);
        let keys = [("AWS_ACCESS_KEY_ID", keys.id.as_str()), ("AWS_SECRET_ACCESS_KEY", keys.secret.as_str())];
        let with_keys: Vec<_> = environment.into_iter().chain(keys).collect();
        return run(name, &["env"], &with_keys);
    }
    if std::env::var("AWS_ACCESS_KEY_ID").is_ok() {
        assert!(get(&given(None), "gen/missing").is_none());
        return;
    }
    for profile in ["process", "static"] {
        assert!(get(&given(Some(profile)), "gen/missing").is_none(), "{profile}");
    }
    let error = block_on(given(Some("wrong")).size("gen/x")).unwrap_err();
    assert_eq!(error.kind, Kind::Credentials, "{error:?}");
}

#[test]
fn certificates_are_checked() {
    let name = "certificates_are_checked";
    if !is_child(name) {
        let home = tempfile::tempdir().unwrap();
        let (address, certificate) = servers::rclone_with_tls();
        let keys = servers::keys();
        let environment = [
            ("HOME", home.path().to_str().unwrap()),
            ("ADDRESS", "s3://tazpod-tls/vault"),
            ("ENDPOINT", address),
            ("AWS_ACCESS_KEY_ID", &keys.id),
            ("AWS_SECRET_ACCESS_KEY", &keys.secret),
        ];
        let trusting: Vec<_> = environment.into_iter().chain([("SSL_CERT_FILE", &**certificate)]).collect();
        run(name, &["env"], &trusting);
        // Another certificate than the server's.
        let other = tempfile::NamedTempFile::new().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-subj", "/CN=other", "-keyout", "/dev/null", "-out", other.path().to_str().unwrap()])
            .output()
            .unwrap();
        assert!(made.status.success());
        let other = other.path().to_str().unwrap();
        let distrusting: Vec<_> =
            environment.into_iter().chain([("SSL_CERT_FILE", other), ("DISTRUST", "1")]).collect();
        return run(name, &["env"], &distrusting);
    }
    let store = given(None);
    if std::env::var("DISTRUST").is_ok() {
        let error = block_on(store.size("gen/x")).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
        let said = tazpod::error::Error::from(error).to_string();
        assert!(said.contains("certificate"), "{said}");
        return;
    }
    block_on(store.setup()).unwrap();
    let bytes = Noise::bytes(1, 9 * 1024 * 1024);
    block_on(store.put("gen/x", bytes.len() as u64, hash(&bytes), &mut &bytes[..])).unwrap();
    assert!(get(&store, "gen/x").unwrap() == bytes);
}

struct Hashed(Sha256);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_objects() {
    let name = "memory_does_not_grow_with_objects";
    if !is_child(name) {
        let home = tempfile::tempdir().unwrap();
        let config = made();
        let keys = servers::keys();
        return run(
            name,
            &["env"],
            &[
                ("HOME", home.path().to_str().unwrap()),
                ("ADDRESS", &config.to_string()),
                ("ENDPOINT", servers::seaweedfs()),
                ("AWS_ACCESS_KEY_ID", &keys.id),
                ("AWS_SECRET_ACCESS_KEY", &keys.secret),
            ],
        );
    }
    let store = given(None);
    let round = |size: u64| {
        let mut sent = Hashed(Sha256::new());
        io::copy(&mut Noise::new(size, size), &mut sent).unwrap();
        let sent: [u8; 32] = sent.0.finalize().into();
        block_on(store.put("gen/x", size, sent, &mut Noise::new(size, size))).unwrap();
        let mut got = Hashed(Sha256::new());
        assert_eq!(block_on(store.get("gen/x", size, &mut got)).unwrap(), Some(size));
        assert_eq!(<[u8; 32]>::from(got.0.finalize()), sent);
        peak_kib()
    };
    let (small, large) = (round(40 * MIB), round(200 * MIB));
    assert!(large < 128 * 1024, "{large} KiB");
    assert!(large - small < 16 * 1024, "from {small} to {large} KiB");
}
