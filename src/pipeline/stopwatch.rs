//! How long steps take, seen from the events that pass.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::Graph;
use crate::vocab::{Event, EventSink, VertexId};

/// Passes events on and notes when steps begin and end.
pub(super) struct Stopwatch<'a> {
    events: &'a dyn EventSink,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    began: BTreeMap<VertexId, Instant>,
    took: BTreeMap<VertexId, Duration>,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn new(events: &'a dyn EventSink) -> Stopwatch<'a> {
        Stopwatch {
            events,
            times: Mutex::default(),
        }
    }

    /// Returns the steps that were performed, the slowest first.
    pub(super) fn slowest(&self, graph: &Graph) -> Vec<(String, Duration)> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps: Vec<(String, Duration)> = times
            .took
            .iter()
            .filter_map(|(vertex, took)| {
                let origin = graph.origins.get(vertex.0 as usize)?;
                Some((origin.name.clone(), *took))
            })
            .collect();
        steps.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        steps
    }
}

impl EventSink for Stopwatch<'_> {
    fn emit(&self, event: Event) {
        match &event {
            Event::Started { vertex } => {
                let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
                times.began.entry(*vertex).or_insert_with(Instant::now);
            }
            Event::Finished { vertex } => {
                let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(began) = times.began.get(vertex) {
                    let took = began.elapsed();
                    times.took.insert(*vertex, took);
                }
            }
            _ => {}
        }
        self.events.emit(event);
    }
}
