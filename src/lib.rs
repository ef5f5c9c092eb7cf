//! A launcher of development environments: `run` parses, builds the context, dispatches and reports.

pub mod adapters;
pub mod agent;
pub mod build;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod config;
pub mod context;
pub mod env;
pub mod error;
pub mod link;
pub mod pod;
pub mod ui;
pub mod vault;

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use cli::{Cli, Command};
use context::Context;
use error::{Error, Kind, Result};
use ui::{Ui, Verbosity};

/// Version and hash of the sources: what tells one agent from another.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("TAZPOD_BUILD"));

/// How long threads have after an interruption to remove what they were writing.
const TIDYING: Duration = Duration::from_millis(200);

/// Runs the command line and returns the exit code of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data on stdout; the rest is a usage error on stderr.
            let printed = error.print();
            return match ui::stdout_result(printed) {
                Err(failed) if !error.use_stderr() => {
                    Ui::new(Verbosity::Normal, true).error(&failed);
                    failed.exit_code()
                }
                _ => u8::try_from(error.exit_code()).unwrap_or(Kind::Usage.exit_code()),
            };
        }
    };
    let verbosity = match (cli.quiet, cli.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let no_color = std::env::var_os(env::NO_COLOR).is_some_and(|value| !value.is_empty());
    let ui = Ui::new(verbosity, no_color);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            ui.error(&Error::new(Kind::Failure, "cannot start").with_source(source));
            return Kind::Failure.exit_code();
        }
    };
    let failure_code = cli.command.failure_code();
    // A thread that still reads stdin must not keep the process.
    let mut patience = Duration::ZERO;
    let code = runtime.block_on(dispatch(cli, ui.clone())).unwrap_or_else(|error| {
        ui.error(&error);
        if error.kind() == Kind::Interrupted {
            patience = TIDYING;
        }
        failure_code.unwrap_or_else(|| error.exit_code())
    });
    runtime.shutdown_timeout(patience);
    code
}

async fn dispatch(cli: Cli, ui: Ui) -> Result<u8> {
    if cli.command.handles_signals() {
        let context = Context::new(ui, cli.engine);
        return cli.command.run(&context).await;
    }
    let context = Context::new(ui, cli.engine);
    let result = tokio::select! {
        result = cli.command.run(&context) => result,
        () = interrupted() => Err(Error::interrupted()),
    };
    if let Ok(code) = result {
        return Ok(code);
    }
    tokio::select! {
        () = context.clean_up() => {}
        () = interrupted() => context.ui.warn("interrupted again: clean-up did not finish"),
    }
    result
}

/// Completes at SIGINT, SIGTERM or SIGHUP.
async fn interrupted() {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let waits = signals.into_iter().flatten().map(|mut signal| Box::pin(async move { signal.recv().await }));
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(waits).await;
}

impl Command {
    /// The exit code of tazpod's own failures, where it is not the error's.
    fn failure_code(&self) -> Option<u8> {
        matches!(self, Command::Exec(_)).then_some(125)
    }
}
