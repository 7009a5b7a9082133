//! What a build would do, step by step, as far as that shows without doing it.

use crate::plan::{Graph, StepId};
use crate::vocab::Reason;

use super::probe::{definition, given};
use super::{Miss, StepError, StepResult, Worker};

/// What will become of a step.
#[derive(Clone, Debug)]
pub enum Forecast {
    /// Nothing has to be done for it.
    Given,
    /// Its result is in the cache.
    Cached,
    /// It will be executed, for these reasons.
    Missing(Vec<Reason>),
    /// It will be executed: it was asked not to read the cache.
    Forced,
    /// Its key depends on what this step makes, which will be executed.
    After(StepId),
    /// Its key cannot be computed, so the build will fail here.
    Failing(StepError),
}

/// Looks at every step. One thread, records and files of the context only.
pub fn forecast<W: Worker>(graph: &Graph, worker: &W) -> Vec<Forecast> {
    let mut results: Vec<Option<StepResult>> = Vec::with_capacity(graph.steps.len());
    let mut forecasts: Vec<Forecast> = Vec::with_capacity(graph.steps.len());
    for (at, step) in graph.steps.iter().enumerate() {
        let unknown = step.inputs.iter().find(|input| results[input.0].is_none());
        let (forecast, result) = if let Some(&input) = unknown {
            // The step that all this waits for.
            let first = match &forecasts[input.0] {
                Forecast::After(first) => *first,
                _ => input,
            };
            (Forecast::After(first), None)
        } else if let Some(given) = given(step) {
            (Forecast::Given, Some(given))
        } else if graph.origins[at].ignore_cache {
            (Forecast::Forced, None)
        } else {
            let input = |step: StepId| {
                results[step.0]
                    .as_ref()
                    .expect("inputs come first and were found")
            };
            let looked_up = definition(graph, step, &input, worker)
                .and_then(|definition| Ok((definition.lookup(worker)?, definition.key)));
            match looked_up {
                Ok((Some(found), _)) => (Forecast::Cached, Some(found)),
                Ok((None, (key, components))) => {
                    let miss = Miss {
                        graph,
                        step: StepId(at),
                        key,
                        definition: &components,
                        content: None,
                        after: None,
                    };
                    (Forecast::Missing(worker.explain(&miss)), None)
                }
                Err(error) => (Forecast::Failing(error), None),
            }
        };
        forecasts.push(forecast);
        results.push(result);
    }
    forecasts
}
