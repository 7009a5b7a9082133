//! One build from request to exit, top to bottom: the function that a newcomer reads first is [`build`].
//!
//! Looking up comes before entering: parsing, planning and cache look-ups are single-threaded and touch records only, so a build
//! whose every step hits ends without a namespace, a thread pool or a second process. On the first miss that needs bytes the
//! process enters its namespace and goes on there.

mod advice;
mod aftermath;
mod bases;
mod bundle;
mod caches;
mod census;
mod chart;
mod check;
mod console;
mod container;
mod content;
mod contexts;
mod deliver;
mod entering;
mod failure;
mod forecast;
mod foreign;
mod handover;
mod images;
mod import;
mod inputs;
mod lending;
mod limits;
mod look;
mod lower;
mod manifests;
mod overlays;
mod planned;
mod remotes;
mod results;
mod smoke;
mod stopwatch;
mod stored;
mod termination;
mod transfer;
mod try_image;

use std::time::Instant;

use crate::plan::{Graph, Op};
use crate::sandbox;
use crate::solve::{Packing, Schedule, Solution, StepResult};
use crate::vocab::{BuildRequest, Cancel, Event, EventSink, ExitCode, Summary, VertexId};
use crate::worker::Machine;

pub use crate::plan::OutlineMount;
pub use crate::worker::HostMount;
pub use bases::{Resolver, TaskIds};
pub use check::{Checked, OutlinedTarget, Target, check, outline, targets};
pub use console::Console;
pub use container::Overrides;
pub use content::content_tag;
pub use failure::Failure;
pub use forecast::{ForecastStep, Outlook, forecast};
pub use import::{Import, import};
pub use look::{Sight, View, look};
pub use lower::unused_lower_stores;
pub use manifests::{Indexing, ListSource, NewIndex, appended_otherwise, listed};
pub use planned::bases_of;
pub use results::{check_result, write_result};
pub use stored::export_of;
pub use termination::Termination;
pub use transfer::{pull, push};
pub use try_image::{Subject, TryImage, try_image};

use content::Signature;
use inputs::Inputs;
use remotes::Remotes;
use stopwatch::Stopwatch;

/// Performs a build.
pub fn build(
    request: &BuildRequest,
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Result<Summary, Failure> {
    let started = Instant::now();
    let stopwatch = Stopwatch::new(events);
    let events: &dyn EventSink = &stopwatch;
    if let Some(timeout) = request.timeout {
        sandbox::end_after(timeout, ExitCode::Timeout).map_err(|error| failure::signals(&error))?;
    }
    let store = lower::open(request, events)?;
    let _in_use = store.use_shared().map_err(|error| failure::store(&error))?;
    lending::check(request)?;
    handover::check(request)?;
    let tasks = TaskIds::default();
    let client = bases::client(request)?;
    let secrets = lending::for_repositories(request)?;
    let remotes = Remotes::new(&store, &client, secrets, events, &tasks);
    let inputs = Inputs::read(request, &remotes, events)?;
    let graph = bases::plan(request, &inputs, &store, &client, &remotes, events, &tasks)?;
    images::warn_of_times(request, &graph, events);
    let machine = Machine::new(
        &store,
        inputs.setup(request, graph.epoch),
        client.clone(),
        events,
        cancel,
    );
    if request.tells_chart {
        events.emit(Event::Planned(chart::chart(&graph)));
    }
    declare(&graph, events);
    let signature = match request.content_tag {
        true => Some(Signature::of(request, &graph, &machine, cancel)?),
        false => None,
    };
    if let Some(signature) = &signature
        // What stands under the tag was tried by whoever has put it there, or by nobody.
        && request.smoke.is_empty()
        && request.stages_beside.is_empty()
        && let Some(delivered) =
            content::retag(request, &graph, signature, &client, events, &tasks)?
    {
        announce_cached(&graph, events);
        let summary = delivered.summary(&graph, None, &store, started.elapsed());
        delivered.hand_over(request, &summary, events, &tasks)?;
        events.emit(Event::Done(summary.clone()));
        return Ok(summary);
    }
    let mut has_entered = false;
    let (solution, delivered) = loop {
        let known = caches::look_up(&graph, &machine);
        let solved = match complete(request, &graph, &machine, &known) {
            Some(solution) => {
                announce_cached(&graph, events);
                Ok(solution)
            }
            None => {
                let known = match has_entered {
                    true => known,
                    false => enter(request, &graph, &machine, &remotes, known, events, cancel)?,
                };
                has_entered = true;
                execute(request, &graph, &machine, known, events, cancel)
            }
        };
        machine.keep_ingredients(&graph, solved.as_ref().ok());
        if let (true, Ok(solution)) = (request.explain || request.tells_chart, &solved) {
            explain_found(&graph, solution, &machine, events);
        }
        let delivered = solved.and_then(|solution| {
            smoke::check(request, &graph, &solution, &machine, events, &tasks, cancel)?;
            let images = images::assemble(request, &inputs, &graph, &solution, &machine)?;
            let delivered = deliver::deliver(
                request,
                &graph,
                &solution,
                &machine,
                images,
                signature.as_ref(),
                events,
                &tasks,
                cancel,
            )?;
            caches::publish(&graph, &solution, &machine, events, &tasks)?;
            caches::save_mounts(&machine, events, &tasks, cancel)?;
            Ok((solution, delivered))
        });
        match delivered {
            Ok(done) => break done,
            // Each round forgets at least one layer, so there is a last one.
            Err(failure) if failure::ended(cancel).is_none() && machine.forget_lost_layers() => {
                if !has_entered {
                    return Err(caches::lost_while_pushing(failure));
                }
                caches::begin_again(&failure, events, cancel);
            }
            Err(failure) => {
                return Err(aftermath::of(
                    request, &inputs, &graph, &machine, failure, events, cancel,
                ));
            }
        }
    };
    let mut summary = delivered.summary(&graph, Some(&solution), &store, started.elapsed());
    delivered.hand_over(request, &summary, events, &tasks)?;
    summary.slowest = stopwatch.slowest(&graph);
    if request.counts_files {
        for (image, output) in summary.images.iter_mut().zip(&graph.outputs) {
            let contents = census::contents(&graph, &solution, &store, output.root, cancel);
            image.contents = Some(contents);
        }
    }
    let contents = summary
        .images
        .iter()
        .filter_map(|image| image.contents.as_ref());
    summary.hints = advice::advice(&graph, &solution, &store, contents);
    events.emit(Event::Done(summary.clone()));
    Ok(summary)
}

/// Moves the process to where steps can be executed. Returns what is known there.
fn enter(
    request: &BuildRequest,
    graph: &Graph,
    machine: &Machine<'_>,
    remotes: &Remotes<'_>,
    known: Vec<Option<StepResult>>,
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Result<Vec<Option<StepResult>>, Failure> {
    let store = machine.store();
    machine.lend(lending::read(request, events)?);
    // Trees of the other kind are no use to this process; where they cannot be unpacked anew the step is performed.
    let choice = entering::choose(request)?;
    store.set_ownership(choice.ownership());
    let known = match machine.lacks_layers(&known) {
        true => caches::look_up(graph, machine),
        false => known,
    };
    // git and ssh run as the user: before the namespace makes a root of them.
    remotes.prepare(graph, &known)?;
    entering::enter(&choice)?;
    sandbox::protect_self();
    sandbox::raise_on_signals(cancel).map_err(|error| failure::signals(&error))?;
    sandbox::raise_file_limit();
    let entered = entering::entered(request, &choice, store)?;
    if let Event::Entered { driver, .. } = &entered {
        machine.put_roots_together_by(*driver);
    }
    events.emit(entered);
    if let Some(warning) = entering::ineffective(request, &choice) {
        events.emit(warning);
    }
    foreign::check(request, graph, &known, cancel)?;
    store.sweep().map_err(|error| failure::store(&error))?;
    let known = match lower::settle(machine)? && machine.lacks_layers(&known) {
        true => {
            let known = caches::look_up(graph, machine);
            remotes.prepare(graph, &known)?;
            known
        }
        false => known,
    };
    if let Some(groups) = limits::settle(request, store, events)? {
        machine.limit_steps(groups);
    }
    Ok(known)
}

/// Performs what is not known.
fn execute(
    request: &BuildRequest,
    graph: &Graph,
    machine: &Machine<'_>,
    known: Vec<Option<StepResult>>,
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Result<Solution, Failure> {
    let schedule = Schedule {
        graph,
        worker: machine,
        jobs: request.jobs,
        packs: machine.means().packs,
        pack: match (machine.packs_layers(), machine.packs_all_layers()) {
            (false, _) => Packing::None,
            (true, false) => Packing::Outputs,
            (true, true) => Packing::All,
        },
        needs_files: deliver::needs_files(request),
        known,
        events,
        cancel,
        nonce: &inputs::nonce,
    };
    crate::solve::run(&schedule).map_err(|(step, error)| failure::step(graph, step, error, cancel))
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
    // Whoever fetches layers starts threads, after which the process could not enter any more if a layer turned out to be lost.
    if deliver::needs_blobs(request) && images::any_is_elsewhere(graph, &solution, machine) {
        return None;
    }
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

/// Tells under which keys results were found.
fn explain_found(
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
    events: &dyn EventSink,
) {
    let keys = crate::solve::ingredients(graph, machine, &solution.results);
    for (at, key) in keys.into_iter().enumerate() {
        if let (true, Some((key, _))) = (solution.cached[at], key) {
            events.emit(Event::Found {
                vertex: VertexId(at as u32),
                key,
                created: solution.results[at].created,
            });
        }
    }
}

/// Tells whether a step is something that the user wrote.
fn is_shown(op: &Op) -> bool {
    matches!(op, Op::Run(_) | Op::Copy(_) | Op::Workdir(_))
}
