//! What a build says: all of it to a file, its steps to the user, its end to whoever explains a failure.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::adapters::engine::BuilderLine;
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
    vertical: String,
    path: PathBuf,
    file: File,
    tail: VecDeque<String>,
    step: Option<Step>,
    left_out: Vec<String>,
    /// A name that nobody knows, and the one that people know.
    alias: Option<(String, String)>,
}

/// What the scripts of Containerfiles say of a tool that they could not fetch: `left out: TOOL: REASON`.
const LEFT_OUT: &str = "left out: ";

impl BuildLog {
    /// A new log of a vertical's build at `path`; an earlier one is gone.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(ui: &Ui, vertical: &str, path: PathBuf) -> Result<BuildLog> {
        let file = File::create(&path).map_err(|source| Error::io("write", &path, source))?;
        let (tail, left_out) = (VecDeque::new(), Vec::new());
        let (ui, vertical) = (ui.clone(), vertical.to_owned());
        Ok(BuildLog { ui, vertical, path, file, tail, step: None, left_out, alias: None })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on shows `name` where a step of the builder's says `alias`.
    pub fn show_as(&mut self, alias: &str, name: &str) {
        self.alias = Some((alias.to_owned(), name.to_owned()));
    }

    /// Takes what a builder says.
    pub fn builder(&mut self, said: BuilderLine<'_>) {
        match said {
            BuilderLine::Begins(line) => self.step_or_detail(Step::of_buildkit(line), line),
            BuilderLine::Text(line) => self.step_or_detail(Step::of_podman(line), line),
            BuilderLine::Output(line) => self.detail(line),
            BuilderLine::Failed(line) => self.step = Step::of_buildkit(line),
        }
    }

    fn step_or_detail(&mut self, step: Option<Step>, line: &str) {
        let Some(mut step) = step else { return self.detail(line) };
        if let Some((alias, name)) = &self.alias {
            step.instruction = step.instruction.replace(alias, name);
        }
        if !self.ui.is_verbose() && step.is_work() {
            self.ui.status(format!("{} {}", self.vertical, step.describe()));
        }
        self.step = Some(step);
        self.tail.clear();
        self.keep(line.trim_end());
    }

    /// Takes one line that does not tell of a step.
    pub fn detail(&mut self, line: &str) {
        let line = plain(line);
        let line = line.trim_end();
        self.keep(line);
        if line.is_empty() {
            return;
        }
        self.left_out.extend(line.strip_prefix(LEFT_OUT).map(str::to_owned));
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    fn keep(&mut self, line: &str) {
        // A full disk must not end a build that may still fit.
        let _ = writeln!(self.file, "{line}");
        self.ui.verbose(format!("{} {line}", self.vertical));
    }

    /// Forgets the last step: what follows is not its output.
    pub fn end_step(&mut self) {
        self.step = None;
        self.tail.clear();
    }

    /// The step that the output is at: `3/9`.
    pub fn step(&self) -> Option<String> {
        self.step.as_ref().map(|step| format!("{}/{}", step.number, step.of))
    }

    /// The instruction that the output is at, on one line.
    pub fn instruction(&self) -> Option<&str> {
        self.step.as_ref().map(|step| step.instruction.as_str())
    }

    /// The tools that could not be fetched, each with its reason.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Shows how the output ended, unless all of it was shown.
    pub fn show_tail(&self) {
        if !self.ui.is_verbose() {
            self.tail.iter().for_each(|line| self.ui.status(format!("  {line}")));
        }
    }
}

/// A step of a Containerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    number: u16,
    of: u16,
    instruction: String,
}

impl Step {
    /// From `[3/9] RUN apt-get …` or `[stage-1 3/9] RUN …`.
    fn of_buildkit(line: &str) -> Option<Step> {
        let (count, instruction) = line.strip_prefix('[')?.split_once(']')?;
        Step::new(count, instruction)
    }

    /// From `STEP 3/9: RUN apt-get …`.
    fn of_podman(line: &str) -> Option<Step> {
        let (count, instruction) = line.strip_prefix("STEP ")?.split_once(':')?;
        Step::new(count, instruction)
    }

    fn new(count: &str, instruction: &str) -> Option<Step> {
        let (number, of) = count.split_whitespace().next_back()?.split_once('/')?;
        let instruction = instruction.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(Step { number: number.parse().ok()?, of: of.parse().ok()?, instruction })
    }

    /// Whether it takes time.
    fn is_work(&self) -> bool {
        ["FROM", "RUN", "COPY", "ADD"].iter().any(|&work| self.instruction.split(' ').next() == Some(work))
    }

    /// `[3/9] RUN apt-get …`, on one line.
    fn describe(&self) -> String {
        let short: String = self.instruction.chars().take(STEP_WIDTH).collect();
        let dots = if short.len() < self.instruction.len() { "…" } else { "" };
        format!("[{}/{}] {short}{dots}", self.number, self.of)
    }
}

/// A reason of a builder's that names a whole command, without the middle of it.
pub fn shortened(reason: &str) -> String {
    let chars: Vec<char> = reason.chars().collect();
    let (start, end) = (chars.get(..STEP_WIDTH), chars.get(chars.len().saturating_sub(STEP_WIDTH)..));
    match (start, end) {
        (Some(start), Some(end)) if chars.len() > 2 * STEP_WIDTH => {
            start.iter().chain(&['…']).chain(end).collect()
        }
        _ => reason.to_owned(),
    }
}

/// The line without what terminals obey: colours above all, which Docker puts around stderr.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next() == Some('[') {
                // Parameters up to the letter that ends the sequence.
                let _ = chars.find(|c| ('@'..='~').contains(c));
            }
        } else if c == '\t' || !c.is_control() {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Verbosity;

    #[test]
    fn steps_of_both_builders() {
        let parse = |line: &str| Step::of_buildkit(line).or_else(|| Step::of_podman(line));
        let found = |line| parse(line).map(|step| (step.describe(), step.is_work()));
        assert_eq!(found("[ 3/9] ENV LANG=C.UTF-8"), Some(("[3/9] ENV LANG=C.UTF-8".into(), false)));
        assert_eq!(found("[stage-1 2/9] RUN x"), Some(("[2/9] RUN x".into(), true)));
        assert_eq!(found("STEP 10/12: RUN true"), Some(("[10/12] RUN true".into(), true)));
        for other in ["STEP by step: 1/2", "STEP x/2: y", "[internal] load build context", "[1/2", "[]", ""] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn long_steps_are_shortened_between_characters() {
        let found = Step::of_podman(&format!("STEP 1/1: RUN   {}", "ü".repeat(100))).unwrap();
        assert_eq!(found.describe(), format!("[1/1] RUN {}…", "ü".repeat(STEP_WIDTH - 4)));
    }

    #[test]
    fn long_reasons_keep_their_beginning_and_end() {
        assert_eq!(shortened("no such host"), "no such host");
        let found = shortened(&format!("The command '{}' returned a non-zero code: 7", "x".repeat(500)));
        assert!(found.starts_with("The command 'xxx") && found.ends_with("x' returned a non-zero code: 7"));
        assert_eq!(found.chars().count(), 2 * STEP_WIDTH + 1);
    }

    #[test]
    fn lines_are_plain() {
        assert_eq!(plain("\x1b[91mred\x1b[0m\tblue\x07\r"), "red\tblue");
        assert_eq!(plain("\x1b[2J\x1b]0;title\x07ü\x1b"), "0;titleü");
    }

    #[test]
    fn the_tail_is_that_of_the_last_step() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = BuildLog::create(&Ui::new(Verbosity::Quiet, true), "x", path.clone()).unwrap();
        log.detail("STEP 1/2: of another kind");
        log.detail("left out: nvm: cannot reach it");
        log.builder(BuilderLine::Begins("[1/1] RUN false"));
        log.builder(BuilderLine::Output("[7/9] compiling"));
        (0..50).for_each(|number| log.builder(BuilderLine::Text(&number.to_string())));
        assert_eq!((log.step().as_deref(), log.instruction()), (Some("1/1"), Some("RUN false")));
        assert_eq!(log.left_out(), ["nvm: cannot reach it"]);
        assert_eq!(log.tail.len(), TAIL);
        log.builder(BuilderLine::Failed("exporting to image"));
        assert_eq!(log.step(), None);
        assert_eq!(log.tail.back().map(String::as_str), Some("49"));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 54);
    }
}
