//! The one trait between deciding and doing.

use crate::plan::{Graph, Local, StepId};
use crate::vocab::{CacheKey, Cancel, Digest, EventSink, KeyComponent, Reason, ResultId};

use super::{ChainLayer, Miss, Reading, StepError, StepResult};

/// Performs steps and keeps their records: this machine, or a test's fake.
pub trait Worker: Sync {
    /// Excludes other computations of the same key, in this process and in others, while it lives.
    type Lock;

    /// Returns the record under `key`, if there is one whose bytes can be had. `components` are what the key is made of.
    fn lookup(
        &self,
        key: &CacheKey,
        components: &[KeyComponent],
    ) -> Result<Option<StepResult>, StepError>;

    /// The same, where nobody but this machine can have one.
    fn lookup_here(&self, key: &CacheKey) -> Result<Option<StepResult>, StepError>;

    /// Returns what another machine made under `key` while this one did, to be used instead: then later keys of both are the same.
    fn adopt(
        &self,
        key: &CacheKey,
        components: &[KeyComponent],
    ) -> Result<Option<StepResult>, StepError>;

    /// Has what others know under `key` replaced by what is remembered next: the step was asked not to read the cache.
    fn supersede(&self, key: &CacheKey);

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

    /// Returns the content digest of what is read of files of the host, as it was when it was last taken in this build.
    fn local_digest(&self, local: &Local, reading: &Reading<'_>) -> Result<Digest, StepError>;

    /// Takes it anew.
    fn local_digest_now(&self, local: &Local, reading: &Reading<'_>) -> Result<Digest, StepError>;

    /// Returns the content digest of what is read of another tree: a stage's, whose layers are `root`, or one that was fetched.
    /// Materialises the tree.
    fn tree_digest(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        reading: &Reading<'_>,
        cancel: &Cancel,
    ) -> Result<Digest, StepError>;

    /// Returns the digest of all that a copy or workdir reads of its root: two roots with the same facts get the same layer. `None`
    /// where that cannot be told. Asked after all other keys were missed; materialises the root, and makes nothing.
    fn root_facts(&self, job: &Job<'_>) -> Result<Option<Digest>, StepError>;

    /// Says why a step was not found, the weightiest reason first, and notes it for the next build. Asked before the step is
    /// executed.
    fn explain(&self, miss: &Miss<'_>) -> Vec<Reason>;

    /// Performs a step; its layer is named after `job.result`.
    fn execute(&self, job: &Job<'_>) -> Result<StepResult, StepError>;

    /// Makes the packed forms of the topmost layer of `root`: those of outputs if it `leaves` the build, and those that are
    /// shared. Quick where they are made.
    fn pack(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        leaves: bool,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<(), StepError>;
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
    /// The layers of each input's root, in the order of the step's inputs; empty for sources.
    pub inputs: Vec<Vec<ChainLayer>>,
    /// Nothing reads the files that the step makes: its layer is wanted as a blob, and may be made as that alone.
    pub is_wanted_packed_alone: bool,
    pub events: &'a dyn EventSink,
    pub cancel: &'a Cancel,
}
