//! What a build says: all of it to a file, its steps to the user, its end to whoever explains a failure.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ui::Ui;

/// How much of the output is shown after a failure.
const TAIL: usize = 20;
/// How much of a step is shown.
const STEP_WIDTH: usize = 72;

/// The log of one build.
#[derive(Debug)]
pub struct BuildLog {
    ui: Ui,
    path: PathBuf,
    file: File,
    tail: VecDeque<String>,
    step: Option<String>,
}

impl BuildLog {
    /// A new log at `path`; an earlier one is gone.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(ui: &Ui, path: PathBuf) -> Result<BuildLog> {
        let file = File::create(&path).map_err(|source| Error::io("write", &path, source))?;
        Ok(BuildLog { ui: ui.clone(), path, file, tail: VecDeque::new(), step: None })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes one line of a builder's output.
    pub fn line(&mut self, line: &str) {
        if let Some(step) = step(line) {
            if !self.ui.is_verbose() {
                self.ui.status(&step);
            }
            self.step = Some(step);
            self.tail.clear();
        }
        self.detail(line);
    }

    /// Takes one line that does not tell of a step.
    pub fn detail(&mut self, line: &str) {
        let line = line.trim_end();
        // A full disk must not end a build that may still fit.
        let _ = writeln!(self.file, "{line}");
        self.ui.verbose(line);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    /// The step that the output is at.
    pub fn step(&self) -> Option<&str> {
        self.step.as_deref()
    }

    /// Shows how the output ended, unless all of it was shown.
    pub fn show_tail(&self) {
        if !self.ui.is_verbose() {
            self.tail.iter().for_each(|line| self.ui.status(format!("  {line}")));
        }
    }
}

/// `[3/9] RUN apt-get …` from `Step 3/9 : RUN apt-get …` (Docker) or `STEP 3/9: RUN apt-get …` (Podman).
fn step(line: &str) -> Option<String> {
    let rest = line.strip_prefix("Step ").or_else(|| line.strip_prefix("STEP "))?;
    let (number, instruction) = rest.split_once(':')?;
    let (current, all) = number.trim().split_once('/')?;
    let (current, all) = (current.parse::<u16>().ok()?, all.parse::<u16>().ok()?);
    let instruction = instruction.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = instruction.chars().take(STEP_WIDTH).collect();
    let dots = if short.len() < instruction.len() { "…" } else { "" };
    Some(format!("[{current}/{all}] {short}{dots}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Verbosity;

    #[test]
    fn steps_of_both_builders() {
        assert_eq!(step("Step 3/9 : ENV LANG=C.UTF-8").as_deref(), Some("[3/9] ENV LANG=C.UTF-8"));
        assert_eq!(step("STEP 10/12: USER tazpod").as_deref(), Some("[10/12] USER tazpod"));
        for other in ["Step by step: 1/2", "STEP x/2: y", " ---> 0123", "Stepping 1/2 : no", ""] {
            assert_eq!(step(other), None, "{other}");
        }
    }

    #[test]
    fn long_steps_are_shortened_between_characters() {
        let found = step(&format!("Step 1/1 : RUN   {}", "ü".repeat(100))).unwrap();
        assert_eq!(found, format!("[1/1] RUN {}…", "ü".repeat(STEP_WIDTH - 4)));
    }

    #[test]
    fn the_tail_is_that_of_the_last_step() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = BuildLog::create(&Ui::new(Verbosity::Quiet, true), path.clone()).unwrap();
        log.detail("Step 1/2 : of another kind");
        log.line("Step 1/1 : RUN false\n");
        (0..50).for_each(|number| log.line(&number.to_string()));
        assert_eq!(log.step(), Some("[1/1] RUN false"));
        assert_eq!(log.tail.len(), TAIL);
        assert_eq!(log.tail.back().map(String::as_str), Some("49"));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 52);
    }
}
