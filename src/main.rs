//! `tazpod`: development environments in containers. See `docs/architecture.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tazpod::run(std::env::args_os()))
}
