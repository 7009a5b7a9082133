//! Names for what a graph will make, without making any of it, and for what it has made.

use crate::plan::{Graph, StepId};
use crate::vocab::{CacheKey, ResultId, Timestamp};

use super::probe::{definition, given};
use super::{StepError, StepResult, Worker};

/// Returns the keys that a build of the same graph will look up, in its order, once steps have come to these results. A step whose files
/// cannot be read has none.
pub fn keys_to_ask<W: Worker>(graph: &Graph, results: &[StepResult], worker: &W) -> Vec<CacheKey> {
    let input = |step: StepId| &results[step.0];
    let keyed = graph.steps.iter().filter(|step| given(step).is_none());
    keyed
        .filter_map(|step| definition(graph, step, &input, worker).ok())
        .map(|definition| definition.key.0)
        .collect()
}

/// Returns, for each step, a name that is made of its op and the names of its inputs: equal names are steps that do the same to the
/// same files. Nothing is looked up and nothing executed; files that are copied from the host are read.
///
/// A result's ID says more (which execution of a run it was) and is known only after the step was performed or found.
pub fn signatures<W: Worker>(
    graph: &Graph,
    worker: &W,
) -> Result<Vec<ResultId>, (StepId, StepError)> {
    let mut results: Vec<StepResult> = Vec::with_capacity(graph.steps.len());
    for (at, step) in graph.steps.iter().enumerate() {
        let result = match given(step) {
            Some(given) => given,
            None => {
                let input = |step: StepId| &results[step.0];
                let definition =
                    definition(graph, step, &input, worker).map_err(|error| (StepId(at), error))?;
                let result = StepResult {
                    id: ResultId(definition.key.0.0),
                    layer: None,
                    created: Timestamp::default(),
                    size: 0,
                };
                definition.placed(result)
            }
        };
        results.push(result);
    }
    Ok(results.into_iter().map(|result| result.id).collect())
}
