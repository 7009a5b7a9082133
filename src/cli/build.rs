//! `builder build`.

use crate::pipeline::{self, Failure};
use crate::ui;
use crate::vocab::{Cancel, Event, EventSink, ProgressMode};

use super::args::{Build, Global};
use super::check;
use super::print;
use super::request::{Machine, request};

/// `builder digest`: its result is the only line on standard output.
pub(super) fn digest(global: &Global, args: Build) -> Result<(), Failure> {
    let (request, progress) = request(global, args, Machine::this())?;
    let display = ui::display(match progress {
        ProgressMode::Auto => ProgressMode::Quiet,
        asked => asked,
    });
    let tag = pipeline::content_tag(&request, display.as_ref())
        .map_err(|failure| told(failure, display.as_ref()))?;
    print(&format!("{tag}\n"));
    Ok(())
}

pub(super) fn run(global: &Global, args: Build) -> Result<(), Failure> {
    if let Some(call) = check::call(&args)? {
        return check::run(global, args, call);
    }
    let (request, progress) = request(global, args, Machine::this())?;
    let display = ui::display(progress);
    let cancel = Cancel::new();
    let built = pipeline::build(&request, display.as_ref(), &cancel);
    built
        .map(drop)
        .map_err(|failure| told(failure, display.as_ref()))
}

/// Shows what went wrong where the build is shown, so that nobody shows it again.
pub(super) fn told(failure: Failure, display: &dyn EventSink) -> Failure {
    for diagnostic in failure.diagnostics {
        display.emit(Event::Diagnostic(diagnostic));
    }
    Failure {
        diagnostics: Vec::new(),
        class: failure.class,
    }
}
