//! RUN on this machine: a writable root, the command with all it asks for, the layer sealed.

use crate::plan::Run;
use crate::sandbox::{Exit, RunError};
use crate::solve::{Job, StepError, StepResult};
use crate::store::PendingLayer;
use crate::vocab::{CancelReason, ExitCode};

use super::Machine;
use super::command::{Attempt, Performed, Streams};
use super::root::{Root, Stub};

impl Machine<'_> {
    pub(super) fn run(&self, job: &Job<'_>, run: &Run) -> Result<StepResult, StepError> {
        let given = self.given(job, run)?;
        let layer = self.new_layer()?;
        let root = Root::writable(
            self,
            job.graph,
            &job.inputs[0],
            &layer,
            Stub::MountPoints,
            job.cancel,
        )?;
        let attempt = Attempt {
            root: &root,
            layer: &layer,
            run,
            host_mounts: &[],
        };
        let performed = self.perform(job, &attempt, given, Streams::Told)?;
        let Err(error) = succeeded(job, run, &layer, &performed) else {
            // Whatever is left in its groups ends before its layer is read.
            drop(performed);
            return self.seal(job, layer, Some(root));
        };
        if error.class == ExitCode::Step && !job.cancel.is_cancelled() {
            self.keep_failed(job, root, layer, performed);
        }
        Err(error)
    }
}

/// Tells what is wrong with how a command ended.
pub(super) fn succeeded(
    job: &Job<'_>,
    run: &Run,
    layer: &PendingLayer,
    performed: &Performed,
) -> Result<(), StepError> {
    let memory = &performed.memory;
    let exit = match &performed.ended {
        Ok(exit) => *exit,
        Err(error) => {
            let mut error = run_failed(error, job);
            error.output = performed.tail.clone();
            return Err(memory.blame(if_full(layer, error)));
        }
    };
    let command = run.argv.join(" ");
    let failure = match exit {
        Exit::Code(0) => return Ok(()),
        Exit::Code(code) => format!("`{command}` failed with exit code {code}"),
        Exit::Signal(signal) => format!("`{command}` was killed by signal {signal}"),
    };
    let mut error = StepError::new(ExitCode::Step, failure);
    // What shells make of it, besides; programs may mean something else by the same numbers.
    let hint = match exit {
        Exit::Signal(9) | Exit::Code(137) if !memory.is_watched() => {
            Some("signal 9 without a cause here mostly means that the memory limit was hit")
        }
        Exit::Code(126) => Some(
            "126 mostly means a file that cannot be executed: look at its mode (`COPY --chmod=755`), its `#!` line, and what \
             processor it is for",
        ),
        Exit::Code(127) => Some(
            "127 mostly means a command that this stage does not have, or has in no directory of PATH",
        ),
        _ => None,
    };
    if let Some(hint) = hint {
        error = error.hint(hint);
    }
    error.output = performed.tail.clone();
    Err(memory.blame(if_full(layer, error)))
}

/// Blames a disk without room for a command's failure: the command says so in its own words, or not at all.
pub(super) fn if_full(layer: &PendingLayer, error: StepError) -> StepError {
    /// What is left where writing has failed: file systems keep a little back, and what was asked for did not fit.
    const NOTHING: u64 = 256 << 10;
    match rustix::fs::statvfs(layer.fs()) {
        Ok(disk)
            if disk.f_bavail * disk.f_frsize < NOTHING
                || (disk.f_files > 0 && disk.f_favail == 0) =>
        {
            let failure = StepError {
                message: format!("{}, and the state directory's disk is full", error.message),
                ..error
            };
            failure.on_full_disk()
        }
        _ => error,
    }
}

pub(super) fn run_failed(error: &RunError, job: &Job<'_>) -> StepError {
    if job.cancel.is_cancelled() {
        let why = match job.cancel.reason() {
            Some(CancelReason::Timeout) => "stopped: the build's time is up",
            Some(CancelReason::Failed) => "stopped: another step failed",
            _ => "stopped",
        };
        return StepError::new(ExitCode::Step, why);
    }
    let class = match error {
        RunError::NotEntered
        | RunError::Spawn { .. }
        | RunError::Setup { .. }
        | RunError::Group { .. } => ExitCode::Sandbox,
        _ => ExitCode::Step,
    };
    let mut failure = StepError::new(class, error.to_string());
    if let Some(source) = std::error::Error::source(error) {
        failure = failure.caused_by(source);
    }
    failure.hints.extend(error.hint());
    failure
}
