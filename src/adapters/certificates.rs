//! Certificates that this machine's administrator has added to those that its distribution trusts: where a proxy opens what is
//! encrypted, nothing can be fetched without them.

use std::fs;
use std::path::Path;

/// Where distributions have them added: Debian and Ubuntu, Fedora and its kin, Arch, SUSE.
const DIRECTORIES: &[&str] = &[
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/trust/anchors",
];
/// What is larger, in bytes, is not taken for one.
const LARGEST: u64 = 1 << 20;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// All of them, as PEM; nothing where there are none. What cannot be read is not trusted.
pub fn of_host() -> String {
    DIRECTORIES.iter().map(|directory| of_directory(directory.as_ref())).collect()
}

fn of_directory(directory: &Path) -> String {
    let mut paths: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    let read = |path: &Path| {
        let fits = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
        // Others are in DER, for programs that we do not feed.
        let text =
            fits.then(|| fs::read_to_string(path).ok()).flatten().filter(|text| text.contains(BEGIN))?;
        Some(format!("{}\n", text.trim_end()))
    };
    paths.iter().filter_map(|path| read(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_in_order_and_the_rest_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &[u8]| fs::write(directory.path().join(name), text).unwrap();
        put("b.crt", format!("{BEGIN}\nb").as_bytes());
        put("a.pem", format!("{BEGIN}\na\n\n").as_bytes());
        put("binary.crt", b"\x30\x82");
        put("README", b"none");
        fs::create_dir(directory.path().join("more")).unwrap();
        assert_eq!(of_directory(directory.path()), format!("{BEGIN}\na\n{BEGIN}\nb\n"));
        assert_eq!(of_directory(&directory.path().join("none")), "");
    }
}
