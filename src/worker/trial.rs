//! A command in a root that nobody keeps: an image is tried out, a failed step is looked into.

use crate::plan::{Graph, Run, StepId};
use crate::sandbox::{Exit, RunError};
use crate::solve::{ChainLayer, Job, StepError};
use crate::vocab::{Cancel, Digest, EventSink, ResultId};

use super::Machine;
use super::command::{Attempt, HostMount, Streams};
use super::root::{Root, Stub};
use super::run::succeeded;

/// What is run where.
pub struct Trial<'a> {
    /// Whose events the command's are.
    pub step: StepId,
    /// The layers of the root, then those of each tree that a mount of `run` shows.
    pub inputs: Vec<Vec<ChainLayer>>,
    pub run: &'a Run,
    pub host_mounts: &'a [HostMount],
}

/// How it came out.
#[derive(Debug)]
pub struct Tried {
    pub status: Status,
    /// The same as a RUN would say it.
    pub verdict: Result<(), StepError>,
}

/// How a command ended that was begun, or could not be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Code(i32),
    Signal(i32),
    NotFound,
    NotExecutable,
}

impl Status {
    /// Returns it as shells do.
    pub fn code(self) -> u8 {
        let code = match self {
            Status::Code(code) => code,
            Status::Signal(signal) => 128 + signal,
            Status::NotFound => 127,
            Status::NotExecutable => 126,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    fn of(ended: &Result<Exit, RunError>) -> Option<Status> {
        Some(match ended {
            Ok(Exit::Code(code)) => Status::Code(*code),
            Ok(Exit::Signal(signal)) => Status::Signal(*signal),
            Err(RunError::NotFound { .. }) => Status::NotFound,
            Err(RunError::NoInterpreter { .. } | RunError::Exec { .. }) => Status::NotExecutable,
            Err(_) => return None,
        })
    }
}

impl Machine<'_> {
    /// Fetches and unpacks what a root lacks.
    pub fn unpack(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        cancel: &Cancel,
    ) -> Result<(), StepError> {
        self.lowers(graph, root, cancel).map(drop)
    }

    /// Runs a command; what it changes in its root is dropped. An error is one of the machine, not of the command.
    pub fn try_out(
        &self,
        graph: &Graph,
        trial: &Trial<'_>,
        streams: Streams<'_>,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<Tried, StepError> {
        let job = Job {
            graph,
            step: trial.step,
            // Nothing is kept under it.
            result: ResultId(Digest::of(b"")),
            inputs: trial.inputs.clone(),
            is_wanted_packed_alone: false,
            events,
            cancel,
        };
        let given = self.given(&job, trial.run)?;
        let layer = self.new_layer()?;
        let root = Root::writable(
            self,
            graph,
            &job.inputs[0],
            &layer,
            Stub::MountPoints,
            cancel,
        )?;
        let attempt = Attempt {
            root: &root,
            layer: &layer,
            run: trial.run,
            host_mounts: trial.host_mounts,
        };
        let performed = self.perform(&job, &attempt, given, streams)?;
        let verdict = succeeded(&job, trial.run, &layer, &performed);
        match (Status::of(&performed.ended), verdict) {
            (Some(status), verdict) => Ok(Tried { status, verdict }),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => unreachable!("what did not begin did not succeed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_shells() {
        for (status, code) in [
            (Status::Code(0), 0),
            (Status::Code(255), 255),
            (Status::Signal(15), 143),
            (Status::NotFound, 127),
            (Status::NotExecutable, 126),
        ] {
            assert_eq!(status.code(), code, "{status:?}");
        }
    }
}
