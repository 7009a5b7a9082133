//! Planning for whoever asks about a build and performs none.

use crate::plan::{BaseLocation, Graph, Op};
use crate::vocab::{BuildRequest, Cancel, EventSink, ImageRef};
use crate::worker::Machine;

use super::inputs::Inputs;
use super::remotes::Remotes;
use super::{Failure, TaskIds, bases, failure, lending, lower};

/// Plans as a build does (configs of bases are fetched) and has `ask` look at the graph. Nothing is executed, no namespace is
/// entered, no layer is fetched.
pub(super) fn planned<T>(
    request: &BuildRequest,
    events: &dyn EventSink,
    ask: impl FnOnce(&Graph, &Machine<'_>, &Cancel) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let store = lower::open(request, events)?;
    let _in_use = store.use_shared().map_err(|error| failure::store(&error))?;
    let tasks = TaskIds::default();
    let client = bases::client(request)?;
    let secrets = lending::for_repositories(request)?;
    let remotes = Remotes::new(&store, &client, secrets, events, &tasks);
    let inputs = Inputs::read(request, &remotes, events)?;
    let graph = bases::plan(request, &inputs, &store, &client, &remotes, events, &tasks)?;
    let cancel = Cancel::new();
    let setup = inputs.setup(request, graph.epoch);
    let machine = Machine::new(&store, setup, client.clone(), events, &cancel);
    ask(&graph, &machine, &cancel)
}

/// Returns the images of registries that a build begins with, each once.
pub fn bases_of(request: &BuildRequest, events: &dyn EventSink) -> Result<Vec<ImageRef>, Failure> {
    planned(request, events, |graph, _, _| {
        let mut found = Vec::new();
        for step in &graph.steps {
            if let Op::Base(base) = &step.op
                && let BaseLocation::Image(image) = &base.key.location
                && !found.contains(image)
            {
                found.push(image.clone());
            }
        }
        Ok(found)
    })
}
