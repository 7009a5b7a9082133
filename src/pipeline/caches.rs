//! Caches that machines share: which there are, and what is given to them when the build is done.

use crate::cache::{Place, Publication};
use crate::plan::{BaseLocation, Graph, Op, StepId};
use crate::solve::{ChainLayer, Solution, StepResult, chain, keys_to_ask, probe};
use crate::vocab::{
    BuildRequest, CacheMode, CacheTo, Cancel, Diagnostic, Digest, Event, EventSink, ExitCode,
    LayerId,
};
use crate::worker::{Caches, Machine, MountsFrom, MountsTo};

use super::{Failure, TaskIds, images};

/// Returns the caches that a request names.
pub(super) fn of(request: &BuildRequest) -> Caches {
    let mut caches = Caches::default();
    // A limit that is set for saving holds for what was saved.
    let saved = request.cache_to.iter().filter_map(|to| match to {
        CacheTo::Place {
            mounts_max_size, ..
        } => Some(*mounts_max_size),
        CacheTo::Inline => None,
    });
    let saved = saved.max().unwrap_or_default();
    for from in &request.cache_from {
        let scopes = std::iter::once(&from.scope).chain(&from.fallbacks);
        for (at, scope) in scopes.enumerate() {
            let mut place = Place::new(&from.place, scope);
            if at > 0 {
                place = place.of_entries_alone();
            }
            caches.mounts_from.push(MountsFrom {
                place: place.clone(),
                choice: from.mounts.clone(),
                most: from.mounts_max_size.max(saved),
            });
            caches.from.push(place);
        }
    }
    caches.inline = writes_records(request);
    for to in &request.cache_to {
        let CacheTo::Place {
            place,
            scope,
            mode,
            compression,
            ignore_error,
            mounts,
            mounts_max_size,
        } = to
        else {
            continue;
        };
        let place = Place::new(place, scope);
        caches.mounts_to.push(MountsTo {
            place: place.clone(),
            choice: mounts.clone(),
            most: *mounts_max_size,
            ignore_error: *ignore_error,
        });
        caches.to.push(Publication {
            place,
            ignore_error: *ignore_error,
            all_layers: *mode == CacheMode::Max,
            compression: *compression,
        });
    }
    caches
}

/// Returns what the caches hold. What they know by a record alone is left out where a step that has to be performed needs its files.
pub(super) fn look_up(graph: &Graph, machine: &Machine<'_>) -> Vec<Option<StepResult>> {
    machine.follow(|| instructions(graph));
    loop {
        let known = probe(graph, machine);
        let layer_of = |step: StepId| known[step.0].as_ref().and_then(|result| result.layer);
        let steps = graph.steps.iter().zip(&known);
        let missing = steps.filter(|(_, known)| known.is_none());
        let inputs = missing.flat_map(|(step, _)| &step.inputs);
        let needed: Vec<LayerId> = inputs
            .filter(|input| known[input.0].is_some())
            .flat_map(|&input| chain(graph, input, &layer_of))
            .filter(|layer| matches!(layer, ChainLayer::Built { .. }))
            .map(|layer| layer.id())
            .collect();
        // Each round forgets a layer, so there is a last one.
        if !machine.forget_without_files(&needed) {
            return known;
        }
    }
}

/// Returns what all builds of the same instructions for the same platforms have in common, whatever their files and arguments are.
pub(super) fn instructions(graph: &Graph) -> Digest {
    let mut text = String::from("instructions 1");
    let mut add = |word: &str| {
        text.push('\0');
        text.push_str(word);
    };
    for output in &graph.outputs {
        add(&output.platform.to_string());
    }
    for (step, origin) in graph.steps.iter().zip(&graph.origins) {
        match &step.op {
            Op::Run(_) | Op::Copy(_) | Op::Workdir(_) => add(&origin.name),
            Op::Base(base) => match &base.key.location {
                BaseLocation::Image(image) => add(&image.familiar()),
                BaseLocation::OciLayout { .. } => {}
            },
            Op::Scratch | Op::Local(_) | Op::Git(_) | Op::Http(_) => {}
        }
    }
    Digest::of(text.as_bytes())
}

/// Tells whether images hold the records of their steps: as `--cache-to type=inline` or BuildKit's build argument has it.
pub(super) fn writes_records(request: &BuildRequest) -> bool {
    let mut arguments = request.build_args.iter().rev();
    let argument = arguments.find(|(name, _)| name == "BUILDKIT_INLINE_CACHE");
    request.cache_to.contains(&CacheTo::Inline) || argument.is_some_and(|(_, value)| is_true(value))
}

/// Tells whether a build argument's text switches something on.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// Gives what others can use to the caches, and waits for it.
pub(super) fn publish(
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
    events: &dyn EventSink,
    tasks: &TaskIds,
) -> Result<(), Failure> {
    if !machine.publishes() {
        return Ok(());
    }
    let vertex = tasks.start("export cache".to_owned(), events);
    let cannot = |error: &(dyn std::error::Error + 'static), hint: Option<String>| {
        events.emit(Event::Failed {
            vertex,
            message: error.to_string(),
        });
        let mut diagnostic = Diagnostic::error("cannot export the cache").caused_by(error);
        diagnostic.hints.extend(hint);
        Failure::new(ExitCode::Export, diagnostic)
    };
    // Those that were packed while the build went on are on their way.
    let mut layers: Vec<_> = images::exported_layers(graph, solution)
        .map(|layer| (layer, true))
        .collect();
    if machine.packs_all_layers() {
        let all = solution.results.iter().filter_map(|result| result.layer);
        layers.extend(all.map(|layer| (layer, false)));
    }
    for (layer, leaves) in layers {
        machine.offer(&layer, leaves).map_err(|error| {
            let error = std::io::Error::other(error.message);
            cannot(&error, None)
        })?;
    }
    let keys = keys_to_ask(graph, &solution.results, machine);
    machine.leave_trail(instructions(graph), keys);
    let finished = machine.finish_publishing();
    let failures = finished.map_err(|error| cannot(&error, error.hint()))?;
    for (publication, error) in failures {
        let text = format!("cannot export the cache to {}", publication.place.name());
        if !publication.ignore_error {
            let mut failure = cannot(&error, error.hint());
            failure.diagnostics[0].message = text;
            return Err(failure);
        }
        let mut warning = Diagnostic::warning(text).caused_by(&error);
        warning.hints.extend(error.hint());
        events.emit(Event::Diagnostic(warning));
    }
    events.emit(Event::Finished { vertex });
    Ok(())
}

/// Saves what the build's steps have left in cache mounts.
pub(super) fn save_mounts(
    machine: &Machine<'_>,
    events: &dyn EventSink,
    tasks: &TaskIds,
    cancel: &Cancel,
) -> Result<(), Failure> {
    if !machine.has_mounts_to_save() {
        return Ok(());
    }
    let vertex = tasks.start("save cache mounts".to_owned(), events);
    let failed = |text: String, error: &(dyn std::error::Error + 'static), hint| {
        events.emit(Event::Failed {
            vertex,
            message: error.to_string(),
        });
        let mut diagnostic = Diagnostic::error(text).caused_by(error);
        diagnostic.hints.extend(hint);
        Failure::new(ExitCode::Export, diagnostic)
    };
    let failures = machine.save_mounts(vertex, cancel);
    let failures = failures
        .map_err(|error| failed("cannot save cache mounts".to_owned(), &error, error.hint()))?;
    for (to, error) in failures {
        let text = format!("cannot save cache mounts to {}", to.place.name());
        if !to.ignore_error {
            return Err(failed(text, &error, error.hint()));
        }
        let mut warning = Diagnostic::warning(text).caused_by(&error);
        warning.hints.extend(error.hint());
        events.emit(Event::Diagnostic(warning));
    }
    events.emit(Event::Finished { vertex });
    Ok(())
}

/// Adds what to do where the build cannot begin again.
pub(super) fn lost_while_pushing(mut failure: Failure) -> Failure {
    if let Some(error) = failure.diagnostics.first_mut() {
        error.hints.push(
            "the cache promised a layer that it does not have: build once more with `--no-cache`, which replaces its entries"
                .to_owned(),
        );
    }
    failure
}

/// Says why the build begins again after layers were lost.
pub(super) fn begin_again(failure: &Failure, events: &dyn EventSink, cancel: &Cancel) {
    cancel.forgive_failure();
    let mut warning = Diagnostic::warning(
        "a layer of a shared cache or lower store cannot be had: what it was for is performed here",
    );
    if let Some(error) = failure.diagnostics.first() {
        warning.causes.push(error.message.clone());
        warning.causes.extend(error.causes.iter().cloned());
    }
    events.emit(Event::Diagnostic(warning));
}
