//! The store of a build, over the lower stores that it may look into.

use crate::store::Store;
use crate::vocab::{BuildRequest, Diagnostic, Event, EventSink, ExitCode};
use crate::worker::Machine;

use super::failure::{self, Failure};

/// Opens the state directory; says which lower stores are left out.
pub(super) fn open(request: &BuildRequest, events: &dyn EventSink) -> Result<Store, Failure> {
    let store = Store::open_over(&request.root, &request.lower_roots)
        .map_err(|error| failure::store(&error))?;
    for warning in unused_lower_stores(&store) {
        events.emit(Event::Diagnostic(warning));
    }
    Ok(store)
}

/// Returns a warning for each lower store that nothing is used of.
pub fn unused_lower_stores(store: &Store) -> Vec<Diagnostic> {
    let lowers = store.lowers();
    let unused = lowers.into_iter().filter_map(|lower| {
        let problem = lower.problem?;
        Some(Diagnostic::warning(format!(
            "the lower store `{}` is not used: {problem}",
            lower.root.display()
        )))
    });
    unused.collect()
}

/// Finds out which trees of lower stores can be used where the process is; tells whether some cannot.
pub(super) fn settle(machine: &Machine<'_>) -> Result<bool, Failure> {
    machine.settle_lower_stores().map_err(|error| {
        let mut diagnostic = Diagnostic::error(error.message);
        diagnostic.causes = error.causes;
        diagnostic.hints = error.hints;
        Failure::new(ExitCode::Store, diagnostic)
    })
}
