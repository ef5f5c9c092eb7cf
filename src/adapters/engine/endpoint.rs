//! Addresses of engines.

use std::path::{Path, PathBuf};

use crate::env;
use crate::error::{Error, Kind, Result};

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// `http://HOST:PORT`, unencrypted: for tunnels.
    Http(String),
}

impl Endpoint {
    /// Reads `unix:///PATH`, `/PATH`, `tcp://HOST:PORT`, or `docker` and `podman` for their usual sockets.
    ///
    /// # Errors
    /// [`Kind::Usage`] for anything else; [`Kind::Engine`] where a usual socket is not there.
    pub fn parse(given: &str) -> Result<Endpoint> {
        if let Some(path) = given.strip_prefix("unix://").or_else(|| given.starts_with('/').then_some(given))
        {
            return Ok(Endpoint::Unix(path.into()));
        }
        if let Some(rest) = given.strip_prefix("tcp://").or_else(|| given.strip_prefix("http://")) {
            return Ok(Endpoint::Http(format!("http://{rest}")));
        }
        let candidates = match given {
            "docker" => docker_sockets(),
            "podman" => podman_sockets(),
            _ => {
                return Err(Error::new(Kind::Usage, format!("`{given}` is not the address of an engine"))
                    .hint("give `docker`, `podman`, `unix:///PATH` or `tcp://HOST:PORT`"));
            }
        };
        first_existing(&candidates).ok_or_else(|| no_engine(&candidates))
    }

    /// The first usual socket that exists on this machine, Docker's before Podman's.
    ///
    /// # Errors
    /// [`Kind::Engine`] where there is none.
    pub fn discover() -> Result<Endpoint> {
        let candidates = [docker_sockets(), podman_sockets()].concat();
        first_existing(&candidates).ok_or_else(|| no_engine(&candidates))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Http(address) => f.write_str(address),
        }
    }
}

fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os(env::XDG_RUNTIME_DIR).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn docker_sockets() -> Vec<PathBuf> {
    let mut found: Vec<_> = vec!["/var/run/docker.sock".into()];
    found.extend(runtime_dir().map(|directory| directory.join("docker.sock")));
    found.extend(
        std::env::var_os(env::HOME).map(|home| Path::new(&home).join(".docker/run/docker.sock")), // Docker Desktop
    );
    found
}

fn podman_sockets() -> Vec<PathBuf> {
    let mut found: Vec<_> =
        runtime_dir().map(|directory| directory.join("podman/podman.sock")).into_iter().collect();
    if rustix::process::geteuid().is_root() {
        found.push("/run/podman/podman.sock".into());
    }
    found
}

/// The first that this user may use, else the first that is there, whose error says why not.
fn first_existing(candidates: &[PathBuf]) -> Option<Endpoint> {
    let usable = |path: &&PathBuf| rustix::fs::access(path.as_path(), rustix::fs::Access::WRITE_OK).is_ok();
    let found = candidates.iter().find(usable).or_else(|| candidates.iter().find(|path| path.exists()));
    found.cloned().map(Endpoint::Unix)
}

fn no_engine(tried: &[PathBuf]) -> Error {
    let tried: Vec<_> = tried.iter().map(|path| format!("`{}`", path.display())).collect();
    Error::new(Kind::Engine, "no engine found on this machine")
        .hint(format!("looked at {}", tried.join(", ")))
        .hint("start Docker, or Podman's service with `systemctl --user start podman.socket`; or name one with `--engine`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Endpoint::parse("unix:///a/b").unwrap(), Endpoint::Unix("/a/b".into()));
        assert_eq!(Endpoint::parse("/a/b").unwrap(), Endpoint::Unix("/a/b".into()));
        assert_eq!(Endpoint::parse("tcp://h:1").unwrap().to_string(), "http://h:1");
        assert_eq!(Endpoint::parse("ftp://x").unwrap_err().kind(), Kind::Usage);
    }
}
