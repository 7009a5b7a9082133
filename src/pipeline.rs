//! One build from request to exit, top to bottom: the function that a newcomer reads first is [`build`].
//!
//! Looking up comes before entering: parsing, planning and cache look-ups are single-threaded and touch records only, so a build
//! whose every step hits ends without a namespace, a thread pool or a second process. On the first miss that needs bytes the
//! process enters its namespace and goes on there.

mod bases;
mod check;
mod contexts;
mod deliver;
mod entering;
mod failure;
mod forecast;
mod foreign;
mod images;
mod import;
mod inputs;
mod lending;
mod limits;
mod remotes;
mod stored;
mod transfer;

use std::time::Instant;

use crate::plan::{Graph, Op};
use crate::sandbox;
use crate::solve::{Schedule, Solution, StepResult, probe};
use crate::store::Store;
use crate::vocab::{BuildRequest, Cancel, Event, EventSink, ExitCode, Summary, VertexId};
use crate::worker::Machine;

pub use crate::plan::OutlineMount;
pub use bases::{Resolver, TaskIds};
pub use check::{Checked, OutlinedTarget, Target, check, outline, targets};
pub use failure::Failure;
pub use forecast::{ForecastStep, Outlook, forecast};
pub use import::{Import, import};
pub use stored::export_of;
pub use transfer::{pull, push};

use inputs::Inputs;
use remotes::Remotes;

/// Performs a build.
pub fn build(
    request: &BuildRequest,
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Result<Summary, Failure> {
    let started = Instant::now();
    if let Some(timeout) = request.timeout {
        sandbox::end_after(timeout, ExitCode::Timeout).map_err(|error| failure::signals(&error))?;
    }
    let store = Store::open(&request.root).map_err(|error| failure::store(&error))?;
    let _in_use = store.use_shared().map_err(|error| failure::store(&error))?;
    lending::check(request)?;
    let tasks = TaskIds::default();
    let client = bases::client(request)?;
    let secrets = lending::for_repositories(request)?;
    let remotes = Remotes::new(&store, &client, secrets, events, &tasks);
    let inputs = Inputs::read(request, &remotes, events)?;
    let graph = bases::plan(request, &inputs, &store, &client, &remotes, events, &tasks)?;
    images::warn_of_times(request, &graph, events);
    let machine = Machine::new(&store, inputs.setup(request, graph.epoch), events, cancel);

    declare(&graph, events);
    let known = probe(&graph, &machine);
    let solution = match complete(request, &graph, &machine, &known) {
        Some(solution) => {
            announce_cached(&graph, events);
            solution
        }
        None => {
            machine.lend(lending::read(request, events)?);
            // Trees of the other kind are no use to this process; where they cannot be unpacked anew the step is performed.
            let choice = entering::choose(request)?;
            store.set_ownership(choice.ownership());
            let known = match machine.lacks_layers(&known) {
                true => probe(&graph, &machine),
                false => known,
            };
            // git and ssh run as the user: before the namespace makes a root of them.
            remotes.prepare(&graph, &known)?;
            entering::enter(&choice)?;
            sandbox::protect_self();
            sandbox::raise_on_signals(cancel).map_err(|error| failure::signals(&error))?;
            sandbox::raise_file_limit();
            let entered = entering::entered(request, &choice, &store)?;
            if let Event::Entered { driver, .. } = &entered {
                machine.put_roots_together_by(*driver);
            }
            events.emit(entered);
            if let Some(warning) = entering::ineffective(request, &choice) {
                events.emit(warning);
            }
            foreign::check(request, &graph, &known, cancel)?;
            store.sweep().map_err(|error| failure::store(&error))?;
            if let Some(groups) = limits::settle(request, &store, events)? {
                machine.limit_steps(groups);
            }
            let schedule = Schedule {
                graph: &graph,
                worker: &machine,
                jobs: request.jobs,
                packs: machine.means().packs,
                pack: !machine.forms().is_empty(),
                known,
                events,
                cancel,
                nonce: &inputs::nonce,
            };
            let solved = crate::solve::run(&schedule);
            solved.map_err(|(step, error)| failure::step(&graph, step, error, cancel))?
        }
    };

    let images = images::assemble(request, &inputs, &graph, &solution, &store)?;
    let delivered = deliver::deliver(
        request, &graph, &solution, &machine, images, events, &tasks, cancel,
    )?;
    let summary = delivered.summary(&graph, &solution, &store, started.elapsed());
    events.emit(Event::Done(summary.clone()));
    Ok(summary)
}

/// Returns the solution if every step is known, every layer that leaves the build is packed, and nothing else needs bytes.
fn complete(
    request: &BuildRequest,
    graph: &Graph,
    machine: &Machine<'_>,
    known: &[Option<StepResult>],
) -> Option<Solution> {
    if deliver::needs_files(request) || !known.iter().all(Option::is_some) {
        return None;
    }
    let results: Vec<StepResult> = known.iter().flatten().cloned().collect();
    let solution = Solution {
        cached: vec![true; results.len()],
        results,
    };
    images::all_packed(graph, &solution, machine).then_some(solution)
}

/// Tells which steps there are.
fn declare(graph: &Graph, events: &dyn EventSink) {
    for (at, (step, origin)) in graph.steps.iter().zip(&graph.origins).enumerate() {
        // A base is shown if it has to be unpacked.
        if is_shown(&step.op) || matches!(step.op, Op::Base(_)) {
            events.emit(Event::Declared {
                vertex: VertexId(at as u32),
                name: origin.name.clone(),
            });
        }
    }
}

fn announce_cached(graph: &Graph, events: &dyn EventSink) {
    for (at, step) in graph.steps.iter().enumerate() {
        if is_shown(&step.op) {
            events.emit(Event::Cached {
                vertex: VertexId(at as u32),
            });
        }
    }
}

/// Tells whether a step is something that the user wrote.
fn is_shown(op: &Op) -> bool {
    matches!(op, Op::Run(_) | Op::Copy(_) | Op::Workdir(_))
}
