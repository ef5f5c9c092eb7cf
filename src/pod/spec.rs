//! The effective specification of a pod: everything that decides what its container is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ownership::{Ids, Ownership};

/// Labels by which the engine remembers pods.
pub mod label {
    /// The workspace's path on the host.
    pub const WORKSPACE: &str = "io.tazpod.workspace";
    /// The vertical.
    pub const VERTICAL: &str = "io.tazpod.vertical";
    /// SHA-256 of the effective specification.
    pub const SPEC: &str = "io.tazpod.spec";
    /// The effective specification itself, as JSON, to show what differs.
    pub const SPEC_JSON: &str = "io.tazpod.spec.json";
    /// Id of the image that the container was made from.
    pub const IMAGE: &str = "io.tazpod.image";
    /// Build of the agent: on containers the one that runs, on images the one that they carry.
    pub const AGENT: &str = "io.tazpod.agent";
    /// On images of the catalog: the agent's path inside.
    pub const AGENT_PATH: &str = "io.tazpod.agent.path";
    /// On images: where the root filesystem came from.
    pub const ROOT: &str = "io.tazpod.root";
}

/// Where the workspace appears in the pod.
pub const WORKSPACE: &str = "/workspace";
/// Where the pod's directory of the host's state appears in the pod.
pub const RUN: &str = "/run/tazpod";
/// A tmpfs of the pod: where the vault is, while it is open.
pub const VAULT_MEMORY: &str = "/run/vault";
/// Where saves of the vault wait for the host, below [`RUN`].
pub const VAULT_SPOOL: &str = "vault";
/// Where the agent's binary is mounted into images that do not carry it.
pub const AGENT_MOUNT: &str = "/usr/local/bin/tazpod";

/// A directory of the host in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// On the host.
    pub source: PathBuf,
    /// In the pod.
    pub target: PathBuf,
}

/// How the agent's binary gets into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentSource {
    /// The image carries this very build at this path.
    Image(String),
    /// This file of the host is mounted read-only at [`AGENT_MOUNT`].
    Mount(PathBuf),
    /// The binary is uploaded to [`AGENT_MOUNT`] before the start, for engines that do not see this machine's files.
    Upload,
}

impl AgentSource {
    /// The binary's path in the pod.
    pub fn path(&self) -> &str {
        match self {
            AgentSource::Image(path) => path,
            AgentSource::Mount(_) | AgentSource::Upload => AGENT_MOUNT,
        }
    }
}

/// How bytes get to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The Unix socket in the pod's directory.
    Socket,
    /// The stdio of `tazpod agent connect`, started through the engine.
    Exec,
}

/// A program that the agent keeps running while the pod does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, of which a pod has one.
    pub name: String,
    /// Program and arguments, run as the pod's user.
    pub command: Vec<String>,
    /// Where it listens, on the pod's loopback interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How it is opened; `{port}` and `{token}` are filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether it runs only while the vault is open, with the vault's variables.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vault: bool,
}

/// The effective specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The container's name.
    pub name: String,
    /// The vertical.
    pub vertical: String,
    /// The image's reference.
    pub image: String,
    /// The host's name in the pod.
    pub hostname: String,
    /// The mechanism of ownership.
    pub ownership: Ownership,
    /// The workspace first, then what it needs.
    pub shares: Vec<Share>,
    /// How the agent gets in.
    pub agent: AgentSource,
    /// The link's transport.
    pub transport: Transport,
    /// The directory of the host that is mounted at [`RUN`], where the transport is a socket.
    pub run: Option<PathBuf>,
    /// Environment of every process in the pod, besides the image's.
    pub env: BTreeMap<String, String>,
    /// The engine's network, `None` for its default.
    pub network: Option<String>,
    /// Memory limit in bytes.
    pub memory: Option<i64>,
    /// Whether images can be built in it: see [`super::builds`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub builds: bool,
    /// What the agent keeps running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

impl Spec {
    /// User and group of the pod's processes.
    pub fn user(&self) -> Ids {
        match self.ownership {
            Ownership::HostIds(ids) => ids,
            Ownership::Same | Ownership::KeepId | Ownership::Idmap(_) => Ids::POD,
        }
    }

    /// The canonical JSON: fields in the order of the type, maps sorted.
    pub fn to_json(&self) -> String {
        // Neither non-string keys nor failing serializers occur in this type.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// SHA-256 of the canonical JSON, in hexadecimal.
    pub fn hash(&self) -> String {
        Sha256::digest(self.to_json()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One difference between a running pod and what `up` would make now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What differs, as a path of the specification's fields.
    pub field: String,
    /// In the pod.
    pub pod: String,
    /// As it would be made now.
    pub now: String,
}

/// Compares the specification (as JSON, from a label) and the image of a pod with what would be made now.
pub fn differences(pod_spec: &str, pod_image: &str, now: &Spec, now_image: &str) -> Vec<Difference> {
    let mut found = Vec::new();
    let pod: serde_json::Value = serde_json::from_str(pod_spec).unwrap_or_default();
    let new: serde_json::Value = serde_json::from_str(&now.to_json()).unwrap_or_default();
    compare("", &pod, &new, &mut found);
    if pod_image != now_image {
        let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        found.push(Difference { field: "image id".into(), pod: short(pod_image), now: short(now_image) });
    }
    found
}

fn compare(path: &str, pod: &serde_json::Value, now: &serde_json::Value, found: &mut Vec<Difference>) {
    use serde_json::Value;
    if let (Value::Object(pod), Value::Object(now)) = (pod, now) {
        let keys: std::collections::BTreeSet<_> = pod.keys().chain(now.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&path, pod.get(key).unwrap_or(&Value::Null), now.get(key).unwrap_or(&Value::Null), found);
        }
    } else if pod != now {
        let text = |value: &Value| match value {
            Value::Null => "(none)".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        found.push(Difference { field: path.to_owned(), pod: text(pod), now: text(now) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            name: "tazpod-x-base".into(),
            vertical: "base".into(),
            image: "base:stable".into(),
            hostname: "base".into(),
            ownership: Ownership::Same,
            shares: vec![Share { source: "/w".into(), target: WORKSPACE.into() }],
            agent: AgentSource::Image("/home/tazpod/.local/bin/tazpod".into()),
            transport: Transport::Socket,
            run: Some("/s/run".into()),
            env: BTreeMap::new(),
            network: None,
            memory: None,
            builds: false,
            services: Vec::new(),
        }
    }

    #[test]
    fn equal_specifications_do_not_differ() {
        assert_eq!(differences(&spec().to_json(), "sha256:a", &spec(), "sha256:a"), []);
        assert_eq!(spec().hash(), spec().hash());
    }

    #[test]
    fn differences_name_field_and_values() {
        let mut now = spec();
        now.env.insert("A".into(), "1".into());
        now.network = Some("host".into());
        assert_ne!(now.hash(), spec().hash());
        let found = differences(&spec().to_json(), "sha256:aaaaaaaaaaaaaaaa", &now, "sha256:bb");
        let fields: Vec<_> =
            found.iter().map(|d| (d.field.as_str(), d.pod.as_str(), d.now.as_str())).collect();
        assert_eq!(
            fields,
            [("env.A", "(none)", "1"), ("network", "(none)", "host"), ("image id", "aaaaaaaaaaaa", "bb")]
        );
    }
}
