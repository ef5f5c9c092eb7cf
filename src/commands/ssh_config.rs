use crate::context::Context;
use crate::error::{Context as _, Kind, Result};
use crate::pod::target::PodArgs;

/// Print the OpenSSH configuration of a pod.
///
/// Append it to `~/.ssh/config`; then `ssh NAME`, `scp`, `rsync` and editors reach the pod by its full name.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
}

impl Args {
    /// Prints it.
    pub fn run(self, context: &Context) -> Result<()> {
        let (pod, _) = self.pod.find(&context.state()?)?;
        let program =
            std::env::current_exe().context(Kind::Failure, || "cannot find this program's own file")?;
        let name = pod.name();
        // ssh_config(5): quotes around arguments; `%` is its own escape.
        let quoted =
            |path: &std::path::Path| format!("\"{}\"", path.display().to_string().replace('%', "%%"));
        context.ui.data(format!(
            "Host {name}\n    User tazpod\n    ProxyCommand {} proxy {name}\n    IdentityFile {}\n    IdentitiesOnly yes\n    \
             UserKnownHostsFile {}\n    HostKeyAlias {name}\n    StrictHostKeyChecking yes\n    \
             Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com",
            quoted(&program),
            quoted(&pod.client_key()),
            quoted(&pod.known_hosts()),
        ))
    }
}
