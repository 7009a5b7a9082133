//! The one trait between deciding and doing.

use crate::plan::{Copy, Graph, Local, StepId};
use crate::vocab::{CacheKey, Cancel, Digest, EventSink, KeyComponent, ResultId};

use super::{ChainLayer, StepError, StepResult};

/// Performs steps and keeps their records: this machine, or a test's fake.
pub trait Worker: Sync {
    /// Excludes other computations of the same key, in this process and in others, while it lives.
    type Lock;

    /// Returns the record under `key`, if there is one whose bytes are still there.
    fn lookup(&self, key: &CacheKey) -> Result<Option<StepResult>, StepError>;

    /// Keeps a record. `components` explain a later miss; `name` is the step's, for people.
    fn remember(
        &self,
        key: &CacheKey,
        components: &[KeyComponent],
        name: &str,
        result: &StepResult,
    ) -> Result<(), StepError>;

    /// Takes the lock of `key` if nobody holds it.
    fn try_lock(&self, key: &CacheKey) -> Result<Held<Self::Lock>, StepError>;

    /// Waits for the lock of `key`; `None` if cancelled meanwhile.
    fn wait_lock(&self, key: &CacheKey, cancel: &Cancel) -> Result<Option<Self::Lock>, StepError>;

    /// Returns the content digest of what `copy` selects by `pattern` from files of the host.
    fn local_digest(&self, local: &Local, copy: &Copy, pattern: &str) -> Result<Digest, StepError>;

    /// Returns the content digest of what `copy` selects by `pattern` from a stage's root. Materialises the root.
    fn tree_digest(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        copy: &Copy,
        pattern: &str,
        cancel: &Cancel,
    ) -> Result<Digest, StepError>;

    /// Performs a step; its layer is named after `job.result`.
    fn execute(&self, job: &Job<'_>) -> Result<StepResult, StepError>;

    /// Makes the packed form of the topmost layer of `root`, for a step whose layer leaves the build. Quick where it is made.
    fn pack(&self, graph: &Graph, root: &[ChainLayer], cancel: &Cancel) -> Result<(), StepError>;
}

/// The answer to an attempt to lock.
pub enum Held<L> {
    Mine(L),
    /// Another thread or process has it.
    Other {
        pid: Option<u32>,
    },
}

/// One step to perform.
pub struct Job<'a> {
    pub graph: &'a Graph,
    pub step: StepId,
    pub result: ResultId,
    /// The layers of each input's root, in the order of the step's inputs; empty for local sources.
    pub inputs: Vec<Vec<ChainLayer>>,
    pub events: &'a dyn EventSink,
    pub cancel: &'a Cancel,
}
