//! The agent: PID 1 of the pod.

pub mod sftp;
