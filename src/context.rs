//! The composition root: what a command needs, built only when it asks for it.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::adapters::engine::{Endpoint, Engine};
use crate::adapters::state::StateDir;
use crate::config::UserConfig;
use crate::env;
use crate::error::Result;
use crate::ui::Ui;

/// How long clean-up after a failure or a signal may take.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(15);

/// What commands work with.
pub struct Context {
    /// Where to say things.
    pub ui: Ui,
    engine: Option<String>,
    cleanups: Mutex<Cleanups>,
}

#[derive(Default)]
struct Cleanups {
    next: u64,
    armed: Vec<(u64, BoxFuture<'static, ()>)>,
}

/// A clean-up that is due until disarmed.
#[must_use]
#[derive(Debug)]
pub struct Armed(u64);

impl Context {
    /// `engine` is what `--engine` or its variable said; empty, as variables are where they are unset, is nothing.
    pub fn new(ui: Ui, engine: Option<String>) -> Context {
        Context { ui, engine: engine.filter(|given| !given.is_empty()), cleanups: Mutex::default() }
    }

    /// The state directory of this user.
    ///
    /// # Errors
    /// Where no home is known.
    pub fn state(&self) -> Result<StateDir> {
        StateDir::of_user()
    }

    /// The user's own configuration; empty where there is no file.
    ///
    /// # Errors
    /// Where the file cannot be read or is wrong.
    pub fn user_config(&self) -> Result<UserConfig> {
        UserConfig::load()
    }

    /// The engine's address by flag, environment, configuration, or what listens on this machine.
    ///
    /// # Errors
    /// Where none is found, or the address makes no sense.
    pub fn endpoint(&self) -> Result<Endpoint> {
        if let Some(given) = self.engine.as_deref() {
            return Endpoint::parse(given);
        }
        if let Some(given) = self.user_config()?.engine {
            return Endpoint::parse(&given);
        }
        for variable in [env::DOCKER_HOST, env::CONTAINER_HOST] {
            if let Some(given) = std::env::var(variable).ok().filter(|value| !value.is_empty()) {
                return Endpoint::parse(&given);
            }
        }
        Endpoint::discover()
    }

    /// Whether the user named an engine for this call.
    pub fn engine_named(&self) -> bool {
        self.engine.is_some()
    }

    /// A client of the engine at [`Context::endpoint`]; nothing is sent yet.
    ///
    /// # Errors
    /// As [`Context::endpoint`].
    pub fn engine(&self) -> Result<Engine> {
        Engine::new(self.endpoint()?)
    }

    /// Registers what must be undone if the command fails or is interrupted.
    pub fn arm(&self, undo: impl Future<Output = ()> + Send + 'static) -> Armed {
        let mut cleanups = self.cleanups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cleanups.next += 1;
        let id = cleanups.next;
        cleanups.armed.push((id, Box::pin(undo)));
        Armed(id)
    }

    /// The work succeeded: nothing to undo any more.
    pub fn disarm(&self, armed: Armed) {
        let mut cleanups = self.cleanups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cleanups.armed.retain(|(id, _)| *id != armed.0);
    }

    /// Undoes it now: what was needed for the work, and not for its result.
    pub async fn undo(&self, armed: Armed) {
        let undo = {
            let mut cleanups = self.cleanups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let index = cleanups.armed.iter().position(|(id, _)| *id == armed.0);
            index.map(|index| cleanups.armed.remove(index))
        };
        if let Some((_, undo)) = undo {
            undo.await;
        }
    }

    /// Undoes whatever is still armed, last first.
    pub async fn clean_up(&self) {
        let armed = {
            let mut cleanups = self.cleanups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::take(&mut cleanups.armed)
        };
        for (_, undo) in armed.into_iter().rev() {
            if tokio::time::timeout(CLEANUP_TIMEOUT, undo).await.is_err() {
                self.ui.warn("clean-up did not finish in time; `tazpod ls` shows what is left");
            }
        }
    }
}
