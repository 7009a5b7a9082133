//! Looking up without doing: one thread, records only.

use crate::plan::{Graph, Op, Step, StepId};
use crate::vocab::{Digest, Timestamp};

use super::keys::{self, Key, RootIdentity, SourceIdentity};
use super::readings::{Reading, readings};
use super::{StepError, StepResult, Worker};

/// Returns what the cache already holds: a result per step, `None` where something would have to run first. Goes on after a
/// miss. A build whose every step is found here needs no namespace, no thread and no bytes.
///
/// Errors of single steps (a missing source, say) are left to the run that follows, which can tell them with their place.
pub fn probe<W: Worker>(graph: &Graph, worker: &W) -> Vec<Option<StepResult>> {
    let mut results: Vec<Option<StepResult>> = Vec::with_capacity(graph.steps.len());
    for (at, step) in graph.steps.iter().enumerate() {
        let found = if step.inputs.iter().any(|input| results[input.0].is_none()) {
            None
        } else if let Some(given) = given(step) {
            Some(given)
        } else if graph.origins[at].ignore_cache {
            None
        } else {
            let input = |step: StepId| {
                results[step.0]
                    .as_ref()
                    .expect("inputs come first and were found")
            };
            definition(graph, step, &input, worker)
                .and_then(|definition| definition.lookup(worker))
                .unwrap_or_default()
        };
        results.push(found);
    }
    results
}

/// Returns the result of a step that nothing needs to be done for.
pub(super) fn given(step: &Step) -> Option<StepResult> {
    let id = match &step.op {
        Op::Scratch | Op::Local(_) => keys::scratch_result(),
        Op::Base(base) => keys::base_result(&base.manifest),
        Op::Git(git) => keys::git_result(git),
        Op::Http(http) => keys::http_result(http),
        Op::Run(_) | Op::Copy(_) | Op::Workdir(_) => return None,
    };
    Some(StepResult {
        id,
        layer: None,
        created: Timestamp::default(),
        size: 0,
    })
}

/// A step's definition key, with what is needed to go on from it.
pub(super) struct Definition<'a> {
    pub(super) key: Key,
    /// The version of the cache.
    version: Option<&'a str>,
    step: &'a Step,
    root: crate::vocab::ResultId,
    /// What the step reads.
    pub(super) readings: Vec<Reading<'a>>,
    /// One per reading.
    pub(super) identities: Vec<SourceIdentity>,
}

impl Definition<'_> {
    /// Looks the definition key up.
    pub(super) fn lookup<W: Worker>(&self, worker: &W) -> Result<Option<StepResult>, StepError> {
        Ok(worker
            .lookup(&self.key.0, &self.key.1)?
            .map(|found| self.placed(found)))
    }

    /// Turns a record found under the definition or content key into the result of this step on its root.
    pub(super) fn placed(&self, found: StepResult) -> StepResult {
        match self.stands_alone() {
            true => self.stacked(found),
            false => found,
        }
    }

    /// Tells whether the root is in no key of the step.
    pub(super) fn stands_alone(&self) -> bool {
        matches!(&self.step.op, Op::Copy(copy) if keys::stands_alone(copy))
    }

    /// Tells whether the definition key is made of the result ID of any of `these` steps.
    pub(super) fn is_made_of(&self, these: &dyn Fn(StepId) -> bool) -> bool {
        let root = self.step.inputs.first();
        let readings = self.readings.iter().zip(&self.identities);
        let mut by_result = readings
            .filter(|(_, identity)| matches!(identity, SourceIdentity::Result(_)))
            .map(|(reading, _)| reading.tree);
        (!self.stands_alone() && root.is_some_and(|root| these(*root))) || by_result.any(these)
    }

    /// Turns the record of a layer that the root had no part in into the result of this step on its root.
    pub(super) fn stacked(&self, layer: StepResult) -> StepResult {
        StepResult {
            id: keys::stacked(self.root, layer.id),
            ..layer
        }
    }

    /// Returns the content key, given the identities with all content known.
    pub(super) fn content_key(&self, identities: &[SourceIdentity]) -> Key {
        let root = RootIdentity::Result(self.root);
        let key = match &self.step.op {
            Op::Copy(copy) => keys::copy_key(copy, root, identities),
            Op::Run(run) => keys::run_key(run, self.root, identities),
            _ => return self.key.clone(),
        };
        keys::of_version(key, self.version)
    }

    /// Tells whether the step has a key with facts in the root's place: its layer may depend on less than all of the root.
    pub(super) fn reads_part_of_root(&self) -> bool {
        matches!(self.step.op, Op::Copy(_) | Op::Workdir(_)) && !self.stands_alone()
    }

    /// Returns the content key with `facts` in the root's place.
    pub(super) fn facts_key(&self, identities: &[SourceIdentity], facts: Digest) -> Key {
        let root = RootIdentity::Facts(facts);
        let key = match &self.step.op {
            Op::Copy(copy) => keys::copy_key(copy, root, identities),
            Op::Workdir(workdir) => keys::workdir_key(workdir, root),
            _ => unreachable!("only of steps that read a part of their root"),
        };
        keys::of_version(key, self.version)
    }
}

/// Computes a step's definition key. Reads the files that a step takes from the host.
pub(super) fn definition<'a, W: Worker>(
    graph: &'a Graph,
    step: &'a Step,
    input: &dyn Fn(StepId) -> &'a StepResult,
    worker: &W,
) -> Result<Definition<'a>, StepError> {
    let root = step
        .inputs
        .first()
        .map_or_else(keys::scratch_result, |&root| input(root).id);
    let readings = readings(step);
    let mut identities = Vec::with_capacity(readings.len());
    for reading in &readings {
        identities.push(match &graph.steps[reading.tree.0].op {
            Op::Local(local) => SourceIdentity::Content(worker.local_digest(local, reading)?),
            _ => SourceIdentity::Result(input(reading.tree).id),
        });
    }
    let key = match &step.op {
        Op::Run(run) => keys::run_key(run, root, &identities),
        Op::Workdir(workdir) => keys::workdir_key(workdir, RootIdentity::Result(root)),
        Op::Copy(copy) => keys::copy_key(copy, RootIdentity::Result(root), &identities),
        Op::Scratch | Op::Base(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {
            unreachable!("given() answers for these")
        }
    };
    let version = graph.cache_version.as_deref();
    Ok(Definition {
        key: keys::of_version(key, version),
        version,
        step,
        root,
        readings,
        identities,
    })
}
