//! What is done when a step has failed and all others have ended: `--on-error`.

use std::path::Path;

use crate::plan::{Graph, Op, Run};
use crate::vocab::{BuildRequest, Cancel, Diagnostic, Event, EventSink, ExitCode, OnFailure};
use crate::worker::{FailedStep, Machine, Status, Trial};

use super::console::Console;
use super::inputs::Inputs;
use super::{Failure, bundle, failure};

/// Gives the user what was asked for, and returns the failure that the build ends with.
pub(super) fn of(
    request: &BuildRequest,
    inputs: &Inputs,
    graph: &Graph,
    machine: &Machine<'_>,
    failure: Failure,
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Failure {
    if request.on_failure == OnFailure::End || failure::ended(cancel).is_some() {
        return failure;
    }
    let failed = match machine.take_failed() {
        None if failure.class == ExitCode::Step => {
            return remarked(
                failure,
                "`--on-error` keeps the root of a RUN that fails; this was none",
            );
        }
        None => return failure,
        Some(Err(error)) => {
            let mut failure = failure;
            failure.diagnostics.push(
                Diagnostic::error("the root of the failed step cannot be kept")
                    .cause(error.message),
            );
            return failure;
        }
        Some(Ok(failed)) => failed,
    };
    // Signals may raise it anew.
    cancel.forgive_failure();
    match &request.on_failure {
        OnFailure::End => failure,
        OnFailure::Save(path) => save(inputs, graph, machine, &failed, failure, path, cancel),
        OnFailure::Shell(words) => shell(graph, machine, &failed, failure, words, events, cancel),
    }
}

fn save(
    inputs: &Inputs,
    graph: &Graph,
    machine: &Machine<'_>,
    failed: &FailedStep,
    mut failure: Failure,
    path: &Path,
    cancel: &Cancel,
) -> Failure {
    match bundle::save(inputs, graph, machine, failed, &failure, path, cancel) {
        Ok(()) => remarked(
            failure,
            &format!(
                "the failed step was saved: `builder debug {}` gives a shell in it",
                path.display()
            ),
        ),
        Err(unsaved) => {
            failure.diagnostics.extend(unsaved.diagnostics);
            failure
        }
    }
}

/// Shows the failure and lets the user look around. Whatever is changed is dropped.
fn shell(
    graph: &Graph,
    machine: &Machine<'_>,
    failed: &FailedStep,
    mut failure: Failure,
    words: &[String],
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Failure {
    let Op::Run(run) = &graph.steps[failed.step.0].op else {
        unreachable!("only a RUN is kept when it fails")
    };
    let mut run = Run {
        argv: words.to_vec(),
        ..run.clone()
    };
    if !run.env.iter().any(|(name, _)| name == "TERM") {
        run.env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let shown = format!(
        "this is `{}` in the root of the failed step; leaving it ends the build",
        words.join(" ")
    );
    for diagnostic in remarked(failure.clone(), &shown).diagnostics {
        events.emit(Event::Diagnostic(diagnostic));
    }
    // They were told, above the shell.
    failure.diagnostics.clear();
    events.pause();
    let trial = Trial {
        step: failed.step,
        inputs: failed.inputs.clone(),
        run: &run,
        host_mounts: &[],
    };
    let console = Console {
        input: true,
        terminal: true,
    };
    let attended = console.attend(cancel, |streams| {
        machine.try_out(graph, &trial, streams, events, cancel)
    });
    let wrong = match attended {
        Err(wrong) => wrong.diagnostics,
        Ok((Ok(tried), _)) => match tried.status {
            Status::NotFound | Status::NotExecutable => {
                let verdict = tried.verdict.err();
                let told = verdict.map(|error| failure::nowhere(error, cancel).diagnostics);
                told.unwrap_or_default()
            }
            _ => Vec::new(),
        },
        Ok((Err(error), _)) => failure::nowhere(error, cancel).diagnostics,
    };
    failure.diagnostics = wrong;
    failure
}

fn remarked(mut failure: Failure, hint: &str) -> Failure {
    if let Some(first) = failure.diagnostics.first_mut() {
        first.hints.push(hint.to_owned());
    }
    failure
}
