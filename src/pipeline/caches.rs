//! Caches that machines share: which there are, and what is given to them when the build is done.

use crate::cache::{Place, Publication};
use crate::plan::Graph;
use crate::solve::Solution;
use crate::vocab::{
    BuildRequest, CacheMode, CacheTo, Cancel, Diagnostic, Event, EventSink, ExitCode,
};
use crate::worker::{Caches, Machine};

use super::{Failure, TaskIds, images};

/// Returns the caches that a request names.
pub(super) fn of(request: &BuildRequest) -> Caches {
    let mut caches = Caches::default();
    for from in &request.cache_from {
        caches.from.push(Place::new(&from.place, &from.scope));
    }
    caches.inline = writes_records(request);
    for to in &request.cache_to {
        let CacheTo::Place {
            place,
            scope,
            mode,
            compression,
            ignore_error,
        } = to
        else {
            continue;
        };
        caches.to.push(Publication {
            place: Place::new(place, scope),
            ignore_error: *ignore_error,
        });
        caches.compression = *compression;
        caches.all_layers |= *mode == CacheMode::Max;
    }
    caches
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
    let finished = machine.finish_publishing();
    let (failures, _) = finished.map_err(|error| cannot(&error, error.hint()))?;
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
        "a layer of a shared cache cannot be had: what it was for is performed here",
    );
    if let Some(error) = failure.diagnostics.first() {
        warning.causes.push(error.message.clone());
        warning.causes.extend(error.causes.iter().cloned());
    }
    events.emit(Event::Diagnostic(warning));
}
