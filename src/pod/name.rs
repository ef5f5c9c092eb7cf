//! The full name of a pod, from its workspace and vertical.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// `tazpod-WORKSPACE-HASH-VERTICAL`: readable, valid for every engine, and the same for the same workspace.
///
/// WORKSPACE is what engines allow of the directory's name, up to 24 characters; HASH is 32 bits of the SHA-256
/// of its path.
pub fn pod_name(workspace: &Path, vertical: &str) -> String {
    let digest = Sha256::digest(workspace.as_os_str().as_bytes());
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let base = workspace.file_name().map(|name| slug(&name.to_string_lossy())).unwrap_or_default();
    let vertical = slug(vertical);
    if base.is_empty() {
        format!("tazpod-{hash}-{vertical}")
    } else {
        format!("tazpod-{base}-{hash}-{vertical}")
    }
}

fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() == 24 {
            break;
        }
    }
    out.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_distinct() {
        let name = pod_name(Path::new("/home/a/My Project ü"), "k8s");
        assert!(name.starts_with("tazpod-my-project-") && name.ends_with("-k8s"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        assert_ne!(name, pod_name(Path::new("/home/b/My Project ü"), "k8s"));
        assert_eq!(name, pod_name(Path::new("/home/a/My Project ü"), "k8s"));
        assert!(pod_name(Path::new("/"), "base").starts_with("tazpod-"));
        assert!(pod_name(Path::new("/日本"), "bazzite:jupyter").ends_with("-bazzite-jupyter"));
    }
}
