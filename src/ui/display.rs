//! Choosing how to show a build.

use std::io::{IsTerminal as _, Write as _};

use crate::vocab::{Diagnostic, EventSink, ProgressMode, SourceText};

use super::json::JsonLines;
use super::plain::Plain;
use super::quiet::Quiet;
use super::render::{Style, render};
use super::terminal::Terminal;

/// Returns the display for a mode; `Auto` is the live view on a terminal and plain text elsewhere.
pub fn display(mode: ProgressMode) -> Box<dyn EventSink> {
    match mode {
        ProgressMode::Auto if std::io::stderr().is_terminal() => {
            Box::new(Terminal::new(Style::of_stderr()))
        }
        ProgressMode::Auto | ProgressMode::Plain => {
            Box::new(Plain::new(std::io::stderr(), Style::of_stderr()))
        }
        ProgressMode::Tty => Box::new(Terminal::new(Style::of_stderr())),
        ProgressMode::RawJson => Box::new(JsonLines::new(std::io::stderr())),
        ProgressMode::Quiet => Box::new(Quiet::default()),
    }
}

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
