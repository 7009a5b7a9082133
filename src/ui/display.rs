//! Choosing how to show a build.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use crate::vocab::{Diagnostic, EventSink, ProgressMode, SourceText};

use super::json::JsonLines;
use super::plain::Plain;
use super::quiet::Quiet;
use super::render::{Style, render};
use super::terminal::Terminal;

/// How much is shown, and how.
#[derive(Clone, Debug, Default)]
pub struct Showing {
    pub mode: ProgressMode,
    /// All reasons of a miss with all of their files.
    pub explain: bool,
    /// The time of day in front of lines of plain text.
    pub timestamps: bool,
    pub ci: Ci,
    pub summary: SummaryLength,
    /// Lines of a running step's window, where the user says so.
    pub log_lines: Option<usize>,
    /// `BUILDKIT_COLORS`
    pub colours: String,
}

/// Whose marks are in plain text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ci {
    #[default]
    None,
    GitLab,
    GitHub {
        /// What paths of annotations are relative to.
        workspace: Option<PathBuf>,
        /// What the Dockerfile's name is relative to; absolute.
        directory: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SummaryLength {
    None,
    #[default]
    Short,
    Full,
}

impl From<ProgressMode> for Showing {
    fn from(mode: ProgressMode) -> Showing {
        Showing {
            mode,
            ..Showing::default()
        }
    }
}

impl Showing {
    /// Takes `mode` where the user asked for none.
    pub fn or(self, mode: ProgressMode) -> Showing {
        match self.mode {
            ProgressMode::Auto => Showing { mode, ..self },
            _ => self,
        }
    }

    /// Returns how many files a reason names.
    pub(super) fn files(&self) -> usize {
        match self.explain {
            true => usize::MAX,
            false => FILES,
        }
    }
}

/// Returns the display for a mode; `Auto` is the live view on a terminal and plain text elsewhere.
pub fn display(showing: impl Into<Showing>) -> Box<dyn EventSink> {
    let showing = &showing.into();
    match showing.mode {
        ProgressMode::Auto if std::io::stderr().is_terminal() => {
            Box::new(Terminal::new(Style::of_stderr(), showing))
        }
        ProgressMode::Auto | ProgressMode::Plain => {
            Box::new(Plain::new(std::io::stderr(), Style::of_stderr(), showing))
        }
        ProgressMode::Tty => Box::new(Terminal::new(Style::of_stderr(), showing)),
        ProgressMode::RawJson => Box::new(JsonLines::new(std::io::stderr())),
        ProgressMode::Quiet => Box::new(Quiet::default()),
    }
}

/// Files that one line names.
const FILES: usize = 3;

/// Shows a diagnostic of a command that has no display.
pub fn report(diagnostic: &Diagnostic) {
    let text = render(diagnostic, None, Style::of_stderr());
    // Nobody is left to tell that standard error is closed.
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// Shows a diagnostic of a command that has no display, with the lines of `source` that it points at.
pub fn report_in(diagnostic: &Diagnostic, source: &SourceText) {
    let text = render(diagnostic, Some(source), Style::of_stderr());
    // Nobody is left to tell that standard error is closed.
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// Returns a diagnostic as lines for standard output.
pub fn shown(diagnostic: &Diagnostic, source: &SourceText) -> String {
    render(diagnostic, Some(source), Style::of_stdout())
}
