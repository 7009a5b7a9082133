//! Errors of the rooms joined with the place in the Dockerfile: the one place that knows both.

use crate::plan::{Graph, StepId};
use crate::sandbox::{SandboxError, SignalError};
use crate::solve::StepError;
use crate::store::StoreError;
use crate::vocab::{Cancel, CancelReason, Diagnostic, ExitCode};

/// Why a build ended without its result.
#[derive(Clone, Debug)]
pub struct Failure {
    pub class: ExitCode,
    /// At least one error; all mistakes that one run can find.
    pub diagnostics: Vec<Diagnostic>,
}

impl Failure {
    /// Returns a failure with one diagnostic.
    pub fn new(class: ExitCode, diagnostic: Diagnostic) -> Failure {
        Failure {
            class,
            diagnostics: vec![diagnostic],
        }
    }
}

pub(super) fn store(error: &StoreError) -> Failure {
    let mut diagnostic = Diagnostic::error("the state directory cannot be used").caused_by(error);
    diagnostic.hints.push(error.hint());
    Failure::new(ExitCode::Store, diagnostic)
}

pub(super) fn sandbox(error: &SandboxError) -> Failure {
    let mut diagnostic = Diagnostic::error("steps cannot be run in this environment");
    match error {
        SandboxError::NoRung { refused } => {
            for (rung, error) in refused {
                diagnostic = diagnostic.cause(format!("{rung}: {}", with_sources(error)));
            }
        }
        error => diagnostic = diagnostic.caused_by(error),
    }
    diagnostic.hints.extend(error.hint());
    diagnostic.hints.push(
        "`builder doctor` shows what this environment allows, and what a better way would need"
            .to_owned(),
    );
    Failure::new(ExitCode::Sandbox, diagnostic)
}

pub(super) fn signals(error: &SignalError) -> Failure {
    Failure::new(
        ExitCode::Internal,
        Diagnostic::error("the build could not be ended by signals").caused_by(error),
    )
}

/// Joins a step's error with its place, or tells that the build was ended from outside, and what was running then.
pub(super) fn step(graph: &Graph, step: StepId, error: StepError, cancel: &Cancel) -> Failure {
    let origin = &graph.origins[step.0];
    if let Some(mut failure) = ended(cancel) {
        // Who presses a key knows what runs; whose time is up does not.
        if let (ExitCode::Timeout, Some(told)) = (failure.class, failure.diagnostics.pop()) {
            let mut told = match origin.span {
                Some(span) if !origin.is_trigger() => told.label(span, "this was running"),
                _ => told.cause(format!("step {} was running", origin.name)),
            };
            told.output = error.output;
            failure.diagnostics.push(told);
        }
        return failure;
    }
    let mut diagnostic = Diagnostic::error(error.message);
    match origin.span {
        Some(span) if origin.is_trigger() => {
            diagnostic = diagnostic
                .label(span, "in an ONBUILD trigger of this base")
                .cause(format!("in step {}", origin.name));
        }
        Some(span) => diagnostic = diagnostic.at(span),
        None => diagnostic = diagnostic.cause(format!("in step {}", origin.name)),
    }
    diagnostic.causes.extend(error.causes);
    diagnostic.hints.extend(error.hints);
    diagnostic.output = error.output;
    Failure::new(error.class, diagnostic)
}

/// Returns the failure of a command that stands in no Dockerfile.
pub(super) fn nowhere(error: StepError, cancel: &Cancel) -> Failure {
    if let Some(ended) = ended(cancel) {
        return ended;
    }
    let mut diagnostic = Diagnostic::error(error.message);
    diagnostic.causes = error.causes;
    diagnostic.hints = error.hints;
    diagnostic.output = error.output;
    Failure::new(error.class, diagnostic)
}

/// Returns the failure that a signal or the timeout stands for.
pub(super) fn ended(cancel: &Cancel) -> Option<Failure> {
    let (class, message) = match cancel.reason()? {
        CancelReason::Interrupted => (ExitCode::Interrupted, "interrupted"),
        CancelReason::Terminated => (ExitCode::Terminated, "terminated by a signal"),
        CancelReason::Timeout => (ExitCode::Timeout, "the time that `--timeout` allows is up"),
        CancelReason::Failed => return None,
    };
    Some(Failure::new(
        class,
        Diagnostic::error(message)
            .hint("finished steps are kept: the next build goes on from there"),
    ))
}

/// Returns an error and what is behind it on one line.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
