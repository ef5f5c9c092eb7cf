//! Whether anybody is at work in the pod, as far as the host's connections tell.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When somebody was at work last.
#[derive(Debug)]
pub struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    last: Instant,
    /// Commands that run.
    commands: usize,
    session_ended: Option<Instant>,
}

/// A command that runs, until it is dropped.
pub struct Running<'a>(&'a Activity);

impl Default for Activity {
    fn default() -> Activity {
        Activity(Mutex::new(State { last: Instant::now(), commands: 0, session_ended: None }))
    }
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody does something now.
    pub fn touch(&self) {
        self.state().last = Instant::now();
    }

    /// A command runs from now on.
    pub fn command(&self) -> Running<'_> {
        self.state().commands += 1;
        Running(self)
    }

    /// A session has ended now.
    pub fn end_session(&self) {
        self.state().session_ended = Some(Instant::now());
    }

    /// When a session has ended last.
    pub fn session_ended(&self) -> Option<Instant> {
        self.state().session_ended
    }

    /// How long nobody has done anything.
    pub fn idle(&self) -> Duration {
        let state = self.state();
        if state.commands == 0 { state.last.elapsed() } else { Duration::ZERO }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.commands -= 1;
        state.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_runs_is_no_idleness() {
        let activity = Activity::default();
        std::thread::sleep(Duration::from_millis(5));
        assert!(activity.idle() >= Duration::from_millis(5));
        let running = activity.command();
        assert_eq!(activity.idle(), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(5));
        drop(running);
        assert!(activity.idle() < Duration::from_millis(5));
    }
}
