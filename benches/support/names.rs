//! Names of steps, with a worker that reads nothing: what the files of the host amount to is given by their pattern.

use builder::plan::{Graph, Local};
use builder::solve::{
    ChainLayer, Held, Job, Miss, Reading, StepError, StepResult, Worker, signatures,
};
use builder::vocab::{CacheKey, Cancel, Digest, EventSink, KeyComponent, Reason, ResultId};

/// Returns the name of each step: all keys are built, and nothing is looked up.
pub(crate) fn of(graph: &Graph) -> Vec<ResultId> {
    match signatures(graph, &Names) {
        Ok(names) => names,
        Err((step, error)) => panic!("step {}: {}", step.0, error.message),
    }
}

struct Names;

impl Worker for Names {
    type Lock = ();

    fn local_digest(&self, _: &Local, reading: &Reading<'_>) -> Result<Digest, StepError> {
        Ok(Digest::of(reading.pattern.as_bytes()))
    }

    fn local_digest_now(&self, _: &Local, _: &Reading<'_>) -> Result<Digest, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn explain(&self, _: &Miss<'_>) -> Vec<Reason> {
        unreachable!("{ONLY_NAMES}")
    }

    fn lookup(&self, _: &CacheKey, _: &[KeyComponent]) -> Result<Option<StepResult>, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn lookup_here(&self, _: &CacheKey) -> Result<Option<StepResult>, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn adopt(&self, _: &CacheKey, _: &[KeyComponent]) -> Result<Option<StepResult>, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn supersede(&self, _: &CacheKey) {
        unreachable!("{ONLY_NAMES}")
    }

    fn remember(
        &self,
        _: &CacheKey,
        _: &[KeyComponent],
        _: &str,
        _: &StepResult,
    ) -> Result<(), StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn try_lock(&self, _: &CacheKey) -> Result<Held<()>, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn wait_lock(&self, _: &CacheKey, _: &Cancel) -> Result<Option<()>, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn tree_digest(
        &self,
        _: &Graph,
        _: &[ChainLayer],
        _: &Reading<'_>,
        _: &Cancel,
    ) -> Result<Digest, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn root_facts(&self, _: &Job<'_>) -> Result<Option<Digest>, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn execute(&self, _: &Job<'_>) -> Result<StepResult, StepError> {
        unreachable!("{ONLY_NAMES}")
    }

    fn pack(
        &self,
        _: &Graph,
        _: &[ChainLayer],
        _: bool,
        _: &dyn EventSink,
        _: &Cancel,
    ) -> Result<(), StepError> {
        unreachable!("{ONLY_NAMES}")
    }
}

const ONLY_NAMES: &str = "names of steps are made without looking up or performing any";
