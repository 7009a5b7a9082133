//! Running what must run: ready steps on a few threads, layers packed where no step waits.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::plan::{Graph, HistoryItem, Op, StepId};
use crate::vocab::{Cancel, CancelReason, Event, EventSink, ExitCode, ResultId, VertexId};

use super::keys::{self, SourceIdentity};
use super::probe::{definition, given};
use super::{Held, Job, Miss, Reading, Solution, StepError, StepResult, Worker, chain};

/// How often a copy whose files change under it is begun again.
const COPY_ATTEMPTS: usize = 3;

/// One graph to solve, and with what.
pub struct Schedule<'a, W: Worker> {
    pub graph: &'a Graph,
    pub worker: &'a W,
    /// Steps at the same time.
    pub jobs: usize,
    /// Layers packed at the same time, among the steps.
    pub packs: usize,
    pub pack: Packing,
    /// Whether the files of outputs are read when all is done.
    pub needs_files: bool,
    /// What [`probe`](super::probe) found.
    pub known: Vec<Option<StepResult>>,
    pub events: &'a dyn EventSink,
    pub cancel: &'a Cancel,
    /// Gives a different text at each call.
    pub nonce: &'a (dyn Fn() -> String + Sync),
}

/// Which layers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    None,
    /// Those that belong to an output.
    Outputs,
    All,
}

/// Resolves every step. The first failure cancels what runs and is returned with its step.
///
/// Threads live as long as the call: processes that die with the thread that started them live as long as they should.
pub fn run<W: Worker>(schedule: &Schedule<'_, W>) -> Result<Solution, (StepId, StepError)> {
    let board = Board::new(schedule);
    std::thread::scope(|scope| {
        for _ in 0..schedule.jobs.max(1) {
            scope.spawn(|| board.work());
        }
    });
    let state = board
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = state.failure {
        return Err(failure);
    }
    let results = state
        .results
        .into_iter()
        .map(|result| result.expect("no failure, so every step was resolved"))
        .collect();
    Ok(Solution {
        results,
        cached: state.cached,
    })
}

/// What the threads share.
struct Board<'a, 's, W: Worker> {
    schedule: &'s Schedule<'a, W>,
    /// For each step, the steps that wait for it.
    dependents: Vec<Vec<usize>>,
    /// Steps whose layer belongs to an output.
    exported: BTreeSet<usize>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    results: Vec<Option<StepResult>>,
    cached: Vec<bool>,
    /// Results whose IDs hold a random number of this build: nobody else has a record under a key that is made of one.
    own: Vec<bool>,
    /// Per step: how many of its inputs have no result.
    missing: Vec<usize>,
    ready: BTreeSet<usize>,
    packs: VecDeque<usize>,
    running: usize,
    /// Of those that run.
    packing: usize,
    failure: Option<(StepId, StepError)>,
}

enum Task {
    Resolve(usize),
    Pack(usize),
}

impl<'a, 's, W: Worker> Board<'a, 's, W> {
    fn new(schedule: &'s Schedule<'a, W>) -> Board<'a, 's, W> {
        let graph = schedule.graph;
        let count = graph.steps.len();
        let mut dependents = vec![Vec::new(); count];
        let mut missing = vec![0; count];
        for (at, step) in graph.steps.iter().enumerate() {
            let inputs: BTreeSet<usize> = step.inputs.iter().map(|input| input.0).collect();
            missing[at] = inputs.len();
            for input in inputs {
                dependents[input].push(at);
            }
        }
        let mut exported = BTreeSet::new();
        if schedule.pack != Packing::None {
            for output in &graph.outputs {
                for item in &output.history {
                    if let HistoryItem::Layer { step, .. } = item {
                        exported.insert(step.0);
                    }
                }
            }
        }
        let state = State {
            results: vec![None; count],
            cached: vec![false; count],
            own: vec![false; count],
            ready: (0..count).filter(|&at| missing[at] == 0).collect(),
            missing,
            packs: VecDeque::new(),
            running: 0,
            packing: 0,
            failure: None,
        };
        Board {
            schedule,
            dependents,
            exported,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// One thread's life: takes tasks until none is left or one has failed.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return;
            }
            let task = match state.ready.pop_first() {
                Some(step) => Task::Resolve(step),
                None => match self.next_pack(&mut state) {
                    Some(step) => Task::Pack(step),
                    None if state.running == 0 => return,
                    None => {
                        state = self
                            .changed
                            .wait(state)
                            .unwrap_or_else(PoisonError::into_inner);
                        continue;
                    }
                },
            };
            state.running += 1;
            drop(state);
            let done = Done {
                board: self,
                step: match task {
                    Task::Resolve(step) | Task::Pack(step) => StepId(step),
                },
            };
            match task {
                Task::Resolve(step) => match self.resolve(StepId(step)) {
                    Ok(resolved) => done.resolved(resolved),
                    Err(error) => done.failed(error),
                },
                Task::Pack(step) => match self.pack(StepId(step)) {
                    Ok(()) => done.packed(),
                    Err(error) => done.failed(error),
                },
            }
            state = self.lock();
        }
    }

    /// Takes a layer to be packed, if another one may be.
    fn next_pack(&self, state: &mut State) -> Option<usize> {
        if state.packing >= self.schedule.packs.max(1) {
            return None;
        }
        let step = state.packs.pop_front()?;
        state.packing += 1;
        Some(step)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emit(&self, event: Event) {
        self.schedule.events.emit(event);
    }

    /// Returns the result of a step whose inputs have theirs.
    fn resolve(&self, id: StepId) -> Result<Resolved, StepError> {
        let Schedule { graph, cancel, .. } = *self.schedule;
        let step = &graph.steps[id.0];
        if let Some(given) = given(step) {
            return Ok(Resolved::cached(given));
        }
        let vertex = VertexId(id.0 as u32);
        if let Some(known) = &self.schedule.known[id.0] {
            self.emit(Event::Cached { vertex });
            return Ok(Resolved::cached(known.clone()));
        }
        let mut attempt = 1;
        loop {
            match self.look_up_or_execute(id, vertex) {
                Ok(Some(resolved)) => return Ok(resolved),
                Ok(None) if attempt < COPY_ATTEMPTS => attempt += 1,
                Ok(None) => {
                    let error = StepError::new(
                        ExitCode::Source,
                        "the files kept changing while they were copied",
                    )
                    .hint(
                        "stop what writes to the build context, or exclude it in `.dockerignore`",
                    );
                    self.emit(Event::Failed {
                        vertex,
                        message: error.message.clone(),
                    });
                    return Err(error);
                }
                Err(error) => {
                    if !cancel.is_cancelled() {
                        self.emit(Event::Failed {
                            vertex,
                            message: error.message.clone(),
                        });
                    }
                    return Err(error);
                }
            }
        }
    }

    /// One attempt; `None` if the files that a copy reads changed meanwhile.
    fn look_up_or_execute(
        &self,
        id: StepId,
        vertex: VertexId,
    ) -> Result<Option<Resolved>, StepError> {
        let Schedule {
            graph,
            worker,
            cancel,
            ..
        } = *self.schedule;
        let (step, origin) = (&graph.steps[id.0], &graph.origins[id.0]);
        let inputs: Vec<Input> = {
            let state = self.lock();
            step.inputs
                .iter()
                .map(|&input| Input {
                    step: input,
                    result: state.results[input.0].clone().expect("inputs are resolved"),
                    is_own: state.own[input.0],
                })
                .collect()
        };
        let input = |wanted: StepId| {
            &inputs
                .iter()
                .find(|input| input.step == wanted)
                .expect("only inputs are asked for")
                .result
        };
        let definition = definition(graph, step, &input, worker)?;
        let is_own_root = inputs.first().is_some_and(|root| root.is_own);
        let resolved = |result: StepResult, is_cached: bool| Resolved {
            result,
            is_cached,
            // The root is in every result's name, and what was executed in a run's.
            is_own: is_own_root || (!is_cached && matches!(step.op, Op::Run(_))),
        };
        let cached = |found: StepResult| {
            self.emit(Event::Cached { vertex });
            Ok(Some(resolved(definition.placed(found), true)))
        };
        let holders = |is_own: bool| match (origin.ignore_cache, is_own) {
            (true, _) => Holders::Nobody,
            (false, true) => Holders::Here,
            (false, false) => Holders::Everybody,
        };
        let (key, components) = &definition.key;
        // A source's files may still be what others have read.
        let is_own_key = definition.is_made_of(&|step| {
            let input = inputs.iter().find(|input| input.step == step);
            input.is_some_and(|input| input.is_own)
        });
        let _lock = match self.lock_and_look_up(vertex, &definition.key, holders(is_own_key))? {
            LookedUp::Found(found) => return cached(found),
            LookedUp::Missing(lock) => lock,
        };
        if cancel.is_cancelled() {
            return Err(cancelled());
        }

        // The files that are read of another stage decide, not how they were made.
        let mut identities = definition.identities.clone();
        let mut content_lock = None;
        for (reading, identity) in definition.readings.iter().zip(&mut identities) {
            if let SourceIdentity::Result(_) = identity {
                self.emit(Event::Started { vertex });
                let root = self.chain(reading.tree);
                *identity =
                    SourceIdentity::Content(worker.tree_digest(graph, &root, reading, cancel)?);
            }
        }
        let content = definition.content_key(&identities);
        if content.0 != *key {
            let is_own = is_own_root && !definition.stands_alone();
            match self.lock_and_look_up(vertex, &content, holders(is_own))? {
                LookedUp::Found(found) => {
                    worker.remember(key, components, &origin.name, &found)?;
                    return cached(found);
                }
                LookedUp::Missing(lock) => content_lock = Some(lock),
            }
        }

        let mut job = Job {
            graph,
            step: id,
            result: ResultId(content.0.0),
            inputs: step.inputs.iter().map(|&input| self.chain(input)).collect(),
            is_wanted_packed_alone: self.is_wanted_packed_alone(id),
            events: self.schedule.events,
            cancel,
        };
        let is_unchanged = || self.is_unchanged(&definition.readings, &definition.identities);

        // What the step reads of its root decides, not how the root was made. The layer is then named after that, and the result
        // after layer and root.
        let mut facts_lock = None;
        let mut by_facts = None;
        if definition.reads_part_of_root()
            && let Some(facts) = worker.root_facts(&job)?
        {
            let facts = definition.facts_key(&identities, facts);
            match self.lock_and_look_up(vertex, &facts, holders(false))? {
                // Facts tell of the selected names, too: they must be those of the key.
                LookedUp::Found(_) if !is_unchanged()? => return Ok(None),
                LookedUp::Found(found) => {
                    let found = definition.stacked(found);
                    worker.remember(&content.0, &content.1, &origin.name, &found)?;
                    if content.0 != *key {
                        worker.remember(key, components, &origin.name, &found)?;
                    }
                    self.emit(Event::Cached { vertex });
                    return Ok(Some(resolved(found, true)));
                }
                LookedUp::Missing(lock) => facts_lock = Some(lock),
            }
            job.result = ResultId(facts.0.0);
            by_facts = Some(facts);
        }

        self.emit(Event::Started { vertex });
        let reasons = worker.explain(&Miss {
            graph,
            step: id,
            key: *key,
            definition: components,
            content: (content.0 != *key).then_some(content.1.as_slice()),
            after: self.executed_below(id),
        });
        self.emit(Event::Missed { vertex, reasons });
        if let Op::Run(_) = &step.op {
            job.result = keys::run_result(content.0, &(self.schedule.nonce)());
        }
        let mut made = worker.execute(&job)?;
        let mut is_adopted = false;
        if !is_unchanged()? {
            return Ok(None);
        }
        // Only an execution makes what no other one makes. Others may have made this meanwhile, on a root of this build's too: that is
        // published while the build goes on.
        if origin.ignore_cache {
            worker.supersede(key);
            worker.supersede(&content.0);
        } else if matches!(step.op, Op::Run(_))
            && let Some(first) = worker.adopt(&content.0, &content.1)?
        {
            made = first;
            is_adopted = true;
        }
        if let Some((facts, components)) = &by_facts {
            worker.remember(facts, components, &origin.name, &made)?;
            made = definition.stacked(made);
        }
        worker.remember(&content.0, &content.1, &origin.name, &made)?;
        if content.0 != *key {
            worker.remember(key, components, &origin.name, &made)?;
        }
        drop((facts_lock, content_lock));
        self.emit(Event::Finished { vertex });
        let resolved = resolved(definition.placed(made), false);
        Ok(Some(Resolved {
            is_own: resolved.is_own && !is_adopted,
            ..resolved
        }))
    }

    /// Returns the first step that was executed among all that a step is made from.
    fn executed_below(&self, step: StepId) -> Option<StepId> {
        let state = self.lock();
        first_executed(self.schedule.graph, step, &|step| !state.cached[step.0])
    }

    fn is_wanted_packed_alone(&self, step: StepId) -> bool {
        self.exported.contains(&step.0)
            && self.dependents[step.0].is_empty()
            && !self.schedule.needs_files
    }

    /// Tells whether files of the host are what they were when their digests were taken.
    fn is_unchanged(
        &self,
        readings: &[Reading<'_>],
        identities: &[SourceIdentity],
    ) -> Result<bool, StepError> {
        let Schedule { graph, worker, .. } = *self.schedule;
        for (reading, identity) in readings.iter().zip(identities) {
            if let (Op::Local(local), SourceIdentity::Content(before)) =
                (&graph.steps[reading.tree.0].op, identity)
                && worker.local_digest_now(local, reading)? != *before
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the lock of `key`, waiting for another holder, and looks the key up under it.
    fn lock_and_look_up(
        &self,
        vertex: VertexId,
        (key, components): &keys::Key,
        holders: Holders,
    ) -> Result<LookedUp<W::Lock>, StepError> {
        let Schedule { worker, cancel, .. } = *self.schedule;
        let look_up = || match holders {
            Holders::Nobody => Ok(None),
            Holders::Here => worker.lookup_here(key),
            Holders::Everybody => worker.lookup(key, components),
        };
        if let Some(found) = look_up()? {
            return Ok(LookedUp::Found(found));
        }
        let lock = match worker.try_lock(key)? {
            Held::Mine(lock) => lock,
            Held::Other { pid } => {
                self.emit(Event::Waiting { vertex, pid });
                worker.wait_lock(key, cancel)?.ok_or_else(cancelled)?
            }
        };
        // Whoever held the lock may have made it.
        match look_up()? {
            Some(found) => Ok(LookedUp::Found(found)),
            None => Ok(LookedUp::Missing(lock)),
        }
    }

    fn pack(&self, step: StepId) -> Result<(), StepError> {
        let Schedule {
            graph,
            worker,
            events,
            cancel,
            ..
        } = *self.schedule;
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        let leaves = self.exported.contains(&step.0);
        let vertex = VertexId(step.0 as u32);
        self.emit(Event::Packing { vertex });
        let packed = worker.pack(graph, &self.chain(step), leaves, events, cancel);
        self.emit(Event::Packed { vertex });
        packed
    }

    fn chain(&self, step: StepId) -> Vec<super::ChainLayer> {
        let state = self.lock();
        chain(self.schedule.graph, step, &|step| {
            state.results[step.0]
                .as_ref()
                .and_then(|result| result.layer)
        })
    }
}

/// Returns the first step, in the graph's order, that was executed among all that a step is made from.
pub(super) fn first_executed(
    graph: &Graph,
    step: StepId,
    was_executed: &dyn Fn(StepId) -> bool,
) -> Option<StepId> {
    let mut below: BTreeSet<StepId> = graph.steps[step.0].inputs.iter().copied().collect();
    let mut first = None;
    while let Some(step) = below.pop_last() {
        if was_executed(step) {
            first = Some(step);
        }
        below.extend(&graph.steps[step.0].inputs);
    }
    first
}

/// A step's input, as far as keys are made of it.
struct Input {
    step: StepId,
    result: StepResult,
    is_own: bool,
}

/// What came of a step.
struct Resolved {
    result: StepResult,
    is_cached: bool,
    /// See [`State::own`].
    is_own: bool,
}

impl Resolved {
    /// Something that was known before the build.
    fn cached(result: StepResult) -> Resolved {
        Resolved {
            result,
            is_cached: true,
            is_own: false,
        }
    }
}

/// Who may have a record under a key.
#[derive(Clone, Copy)]
enum Holders {
    Nobody,
    Here,
    Everybody,
}

enum LookedUp<L> {
    Found(StepResult),
    Missing(L),
}

fn cancelled() -> StepError {
    StepError::new(ExitCode::Step, "cancelled")
}

/// Owes the board an outcome: a thread that panics leaves a failure behind instead of waiting colleagues.
struct Done<'b, 'a, 's, W: Worker> {
    board: &'b Board<'a, 's, W>,
    step: StepId,
}

impl<W: Worker> Done<'_, '_, '_, W> {
    fn resolved(self, resolved: Resolved) {
        let board = self.board;
        let mut state = board.lock();
        let step = self.step.0;
        let is_packed = board.exported.contains(&step)
            || (board.schedule.pack == Packing::All && board.schedule.graph.is_shared(step));
        if resolved.result.layer.is_some() && is_packed {
            state.packs.push_back(step);
        }
        state.results[step] = Some(resolved.result);
        state.cached[step] = resolved.is_cached;
        state.own[step] = resolved.is_own;
        for &dependent in &board.dependents[step] {
            state.missing[dependent] -= 1;
            if state.missing[dependent] == 0 {
                state.ready.insert(dependent);
            }
        }
        self.leave(state);
    }

    fn packed(self) {
        let mut state = self.board.lock();
        state.packing -= 1;
        self.leave(state);
    }

    fn failed(self, error: StepError) {
        let mut state = self.board.lock();
        state.failure.get_or_insert((self.step, error));
        self.board.schedule.cancel.cancel(CancelReason::Failed);
        self.leave(state);
    }

    fn leave(self, mut state: MutexGuard<'_, State>) {
        state.running -= 1;
        drop(state);
        self.board.changed.notify_all();
        std::mem::forget(self);
    }
}

impl<W: Worker> Drop for Done<'_, '_, '_, W> {
    fn drop(&mut self) {
        let mut state = self.board.lock();
        state.failure.get_or_insert((
            self.step,
            StepError::new(
                ExitCode::Internal,
                "the builder has a bug: a thread panicked",
            ),
        ));
        self.board.schedule.cancel.cancel(CancelReason::Failed);
        state.running -= 1;
        drop(state);
        self.board.changed.notify_all();
    }
}
