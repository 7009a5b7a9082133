//! `builder build`.

use crate::pipeline::{self, Failure, Termination};
use crate::ui;
use crate::vocab::{
    BuildRequest, Cancel, Diagnostic, Event, EventSink, ExitCode, ImageRef, ProgressMode,
};

use super::args::{Build, Global};
use super::check;
use super::print;
use super::request::{Machine, request};
use super::settings::Origins;

/// `builder digest`: its result is the only line on standard output.
pub(super) fn digest(global: &Global, args: Build, origins: &Origins) -> Result<(), Failure> {
    let (request, showing) = request(global, args, Machine::this())?;
    let display = ui::display(showing.or(ProgressMode::Quiet));
    let tag = pipeline::content_tag(&request, display.as_ref())
        .map_err(|failure| told(origins.explained(failure), display.as_ref()))?;
    print(&format!("{tag}\n"));
    Ok(())
}

/// Performs a build. Notes are told where the build is shown.
pub(super) fn run(
    global: &Global,
    args: Build,
    notes: &[Diagnostic],
    origins: &Origins,
) -> Result<(), Failure> {
    if let Some(call) = check::call(&args)? {
        for note in notes {
            ui::report(note);
        }
        return check::run(global, args, call);
    }
    let report = args.show.report()?;
    let termination = Termination::begin(args.handover.termination_log())?;
    let (request, showing) = match request(global, args, Machine::this()) {
        Ok(read) => read,
        Err(failure) => {
            let failure = origins.explained(failure);
            termination.failed(&failure);
            return Err(failure);
        }
    };
    let display = ui::display(showing);
    let Some(path) = report else {
        return build(&request, display.as_ref(), notes, origins, &termination);
    };
    // As seen from here: a build may end elsewhere.
    let path = std::path::absolute(&path).unwrap_or(path);
    if let Err(failure) = pipeline::check_result(&path) {
        termination.failed(&failure);
        return Err(failure);
    }
    let names = request.tags.iter().map(ImageRef::familiar).collect();
    let recording = ui::Recording::new(display.as_ref(), request.explain, names);
    let built = build(&request, &recording, notes, origins, &termination);
    let ended = built
        .as_ref()
        .map_or_else(|failure| failure.class, |()| ExitCode::Success);
    let written =
        pipeline::write_result(&path, recording.page(ended).as_bytes()).map_err(|failure| {
            if built.is_ok() {
                termination.failed(&failure);
            }
            told(failure, display.as_ref())
        });
    // Of two failures the first one counts.
    built.and(written)
}

fn build(
    request: &BuildRequest,
    display: &dyn EventSink,
    notes: &[Diagnostic],
    origins: &Origins,
    termination: &Termination,
) -> Result<(), Failure> {
    for note in notes {
        display.emit(Event::Diagnostic(note.clone()));
    }
    let cancel = Cancel::new();
    let built = pipeline::build(request, display, &cancel);
    built
        .and_then(|summary| termination.succeeded(&summary))
        .map_err(|failure| {
            let failure = origins.explained(failure);
            termination.failed(&failure);
            told(failure, display)
        })
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
