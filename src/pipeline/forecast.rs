//! What a build would do: its steps, which of them are in the cache, and why the others are not.
//!
//! Plans as a build does (configs of bases are fetched), then looks at records and at the files of the context. Nothing is
//! executed, no namespace is entered, no layer is fetched.

use crate::plan::{Graph, Op};
use crate::solve::{self, Forecast};
use crate::vocab::{BuildRequest, EventSink, Reason};
use crate::worker::Machine;

use super::planned::planned;
use super::{Failure, caches};

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct ForecastStep {
    /// As the build shows it: `[build 2/5] RUN make`.
    pub name: String,
    /// The stage's name, or its number.
    pub stage: String,
    pub outlook: Outlook,
    /// Why it is executed, the weightiest reason first.
    pub reasons: Vec<Reason>,
    /// Why it will fail, the nearest cause first.
    pub failing: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// A base image.
    Base,
    /// In the cache.
    Cached,
    /// Will be executed.
    Run,
    /// Comes after one that will be executed, so that its key is not known: in the cache, perhaps, if that one makes the same
    /// files as before.
    Unknown,
    /// Will fail.
    Fail,
}

/// Says what `build` would do with a request.
pub fn forecast(
    request: &BuildRequest,
    events: &dyn EventSink,
) -> Result<Vec<ForecastStep>, Failure> {
    planned(request, events, |graph, machine, _| {
        outlooks(graph, machine)
    })
}

fn outlooks(graph: &Graph, machine: &Machine<'_>) -> Result<Vec<ForecastStep>, Failure> {
    machine.follow(|| caches::instructions(graph));
    let forecasts = solve::forecast(graph, machine);
    let mut steps = Vec::new();
    for ((step, origin), forecast) in graph.steps.iter().zip(&graph.origins).zip(forecasts) {
        let mut failing = Vec::new();
        let (outlook, reasons) = match forecast {
            Forecast::Given if matches!(step.op, Op::Base(_)) => (Outlook::Base, Vec::new()),
            Forecast::Given => continue,
            Forecast::Cached => (Outlook::Cached, Vec::new()),
            Forecast::Missing(reasons) => (Outlook::Run, reasons),
            Forecast::Forced => (Outlook::Run, vec![Reason::Forced]),
            Forecast::After(first) => {
                let step = graph.origins[first.0].name.clone();
                (Outlook::Unknown, vec![Reason::After { step }])
            }
            Forecast::Failing(error) => {
                let texts = std::iter::once(error.message).chain(error.causes);
                failing = texts.collect();
                (Outlook::Fail, Vec::new())
            }
        };
        steps.push(ForecastStep {
            name: origin.name.clone(),
            stage: origin.stage.clone(),
            outlook,
            reasons,
            failing,
        });
    }
    Ok(steps)
}
