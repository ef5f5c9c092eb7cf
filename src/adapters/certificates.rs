//! Certificates that this machine's administrator has added to those that its distribution trusts: where a proxy opens what is
//! encrypted, nothing can be fetched without them.

use std::fs;
use std::path::Path;

/// Where distributions have them added, and what their names end in: Debian and Ubuntu, Fedora and its kin, Arch, SUSE.
const DIRECTORIES: &[(&str, &str)] = &[
    ("/usr/local/share/ca-certificates", ".crt"),
    ("/etc/pki/ca-trust/source/anchors", ""),
    ("/etc/ca-certificates/trust-source/anchors", ""),
    ("/etc/pki/trust/anchors", ""),
];
/// How many directories below are looked into.
const DEPTH: u32 = 3;
/// What is larger, in bytes, is not taken for one.
const LARGEST: u64 = 1 << 20;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// All of them that are PEM; nothing where there are none. What cannot be read is left out, and whatever else a file has, a key for one.
pub fn of_host() -> String {
    let all = DIRECTORIES.iter().map(|(directory, suffix)| of_directory(directory.as_ref(), suffix, DEPTH));
    all.collect()
}

fn of_directory(directory: &Path, suffix: &str, depth: u32) -> String {
    let mut paths: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    let read = |path: &Path| match fs::metadata(path) {
        Ok(found) if found.is_dir() && depth > 0 => of_directory(path, suffix, depth - 1),
        Ok(found)
            if found.is_file() && found.len() <= LARGEST && path.to_string_lossy().ends_with(suffix) =>
        {
            fs::read_to_string(path).map(|text| certificates(&text)).unwrap_or_default()
        }
        _ => String::new(),
    };
    paths.iter().map(|path| read(path)).collect()
}

fn certificates(text: &str) -> String {
    let whole = |part: &str| part.split_once(END).map(|(inner, _)| format!("{BEGIN}{inner}{END}\n"));
    text.split(BEGIN).skip(1).filter_map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_taken_in_order_and_the_rest_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        fs::create_dir(directory.path().join("more")).unwrap();
        put("b.crt", &format!("{BEGIN}\nb\n{END}\n"));
        put("a.crt", &format!("KEY\nsecret\n{BEGIN}\na\n{END}\nKEY\n{BEGIN}\ncut off\n"));
        put("more/c.crt", &format!("{BEGIN}\nc\n{END}"));
        put("d.pem", &format!("{BEGIN}\nd\n{END}\n"));
        put("README", "none");
        let of = |suffix| of_directory(directory.path(), suffix, DEPTH);
        let one = |name: &str| format!("{BEGIN}\n{name}\n{END}\n");
        assert_eq!(of(".crt"), [one("a"), one("b"), one("c")].concat());
        assert_eq!(of(""), [one("a"), one("b"), one("d"), one("c")].concat());
        assert_eq!(of_directory(&directory.path().join("none"), "", 1), "");
    }
}
