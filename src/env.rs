//! Every environment variable that tazpod reads or sets, by name.

/// The engine's address, as `--engine` takes it.
pub const TAZPOD_ENGINE: &str = "TAZPOD_ENGINE";
/// Where state is kept, instead of `$XDG_STATE_HOME/tazpod`.
pub const TAZPOD_STATE_DIR: &str = "TAZPOD_STATE_DIR";
/// Where the user's `config.toml` is, instead of `$XDG_CONFIG_HOME/tazpod`.
pub const TAZPOD_CONFIG_DIR: &str = "TAZPOD_CONFIG_DIR";
/// The link's transport: `socket` or `exec`, instead of the one that fits the engine.
pub const TAZPOD_LINK: &str = "TAZPOD_LINK";
/// Docker's address of the engine.
pub const DOCKER_HOST: &str = "DOCKER_HOST";
/// Podman's address of the engine.
pub const CONTAINER_HOST: &str = "CONTAINER_HOST";
/// Podman's file of credentials, instead of those at their usual places.
pub const REGISTRY_AUTH_FILE: &str = "REGISTRY_AUTH_FILE";
/// Docker's directory of configuration, instead of `~/.docker`.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// The user's directory of sockets.
pub const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
/// The user's directory of state.
pub const XDG_STATE_HOME: &str = "XDG_STATE_HOME";
/// The user's directory of configuration.
pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// Where the vault's store is by default, instead of `$XDG_DATA_HOME/tazpod`.
pub const TAZPOD_DATA_DIR: &str = "TAZPOD_DATA_DIR";
/// The user's directory of data.
pub const XDG_DATA_HOME: &str = "XDG_DATA_HOME";
/// The user's home.
pub const HOME: &str = "HOME";
/// Switches colour off, <https://no-color.org>.
pub const NO_COLOR: &str = "NO_COLOR";
/// The terminal's type.
pub const TERM: &str = "TERM";
/// The terminal's colour depth (`truecolor`).
pub const COLORTERM: &str = "COLORTERM";
/// One directory of terminfo entries.
pub const TERMINFO: &str = "TERMINFO";
/// More directories of terminfo entries.
pub const TERMINFO_DIRS: &str = "TERMINFO_DIRS";

/// Over the link: the session to attach to or to make (`shell` requests).
pub const LINK_SESSION: &str = "TAZPOD_SESSION";
/// Over the link: how an `exec` request's command is written; `argv` means NUL-terminated arguments.
pub const LINK_EXEC: &str = "TAZPOD_EXEC";
/// Over the link: the working directory.
pub const LINK_DIRECTORY: &str = "TAZPOD_DIRECTORY";
/// Over the link: the compiled terminfo entry of `TERM`, in base64.
pub const LINK_TERMINFO: &str = "TAZPOD_TERMINFO";
/// To a service: the port that it is to listen on.
pub const TAZPOD_PORT: &str = "TAZPOD_PORT";
/// To a service: the file with the token that it is to ask for.
pub const TAZPOD_TOKEN_FILE: &str = "TAZPOD_TOKEN_FILE";
/// In a pod: its name.
pub const TAZPOD_POD: &str = "TAZPOD_POD";
