//! One file a command: its arguments and its `run`.

#![allow(missing_docs)]
pub mod agent;
pub mod agent_mount;
pub mod attach;
pub mod build;
pub mod completions;
pub mod down;
pub mod exec;
pub mod forward;
pub mod images;
pub mod init;
pub mod logs;
pub mod ls;
pub mod man;
pub mod proxy;
pub mod pull;
pub mod push;
pub mod ssh_config;
pub mod start;
pub mod status;
pub mod stop;
pub mod up;
pub mod vault;
