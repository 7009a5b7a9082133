//! `builder build`.

use crate::pipeline::{self, Failure};
use crate::ui;
use crate::vocab::{Cancel, Event};

use super::args::{Build, Global};
use super::check;
use super::request::{Machine, request};

pub(super) fn run(global: &Global, args: Build) -> Result<(), Failure> {
    if let Some(call) = check::call(&args)? {
        return check::run(global, args, call);
    }
    let (request, progress) = request(global, args, Machine::this())?;
    let display = ui::display(progress);
    let cancel = Cancel::new();
    let built = pipeline::build(&request, display.as_ref(), &cancel);
    built.map(drop).map_err(|failure| {
        for diagnostic in &failure.diagnostics {
            display.emit(Event::Diagnostic(diagnostic.clone()));
        }
        Failure {
            diagnostics: Vec::new(),
            ..failure
        }
    })
}
