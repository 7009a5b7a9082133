//! What steps make, as records.

use crate::plan::{Graph, Op, StepId};
use crate::vocab::{ExitCode, LayerId, ResultId, Timestamp};

/// What one step made. Small: the bytes are in the store, or still in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepResult {
    pub id: ResultId,
    /// The layer that the step adds to its root; `None` for scratch, bases (whose layers are in the graph) and sources.
    pub layer: Option<LayerId>,
    pub created: Timestamp,
    /// Bytes of the layer's files.
    pub size: u64,
}

/// One layer under a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainLayer {
    /// Layer `index` of the base image that step `base` names. Perhaps not fetched yet.
    Base {
        base: StepId,
        index: usize,
        id: LayerId,
    },
    /// Made by a step; in the store.
    Built { step: StepId, id: LayerId },
}

impl ChainLayer {
    /// Returns the layer's name in the store.
    pub fn id(&self) -> LayerId {
        match *self {
            ChainLayer::Base { id, .. } | ChainLayer::Built { id, .. } => id,
        }
    }
}

/// All steps of a graph, resolved.
#[derive(Clone, Debug)]
pub struct Solution {
    /// As many as the graph has steps, in its order.
    pub results: Vec<StepResult>,
    /// Which of them came from the cache (true also for scratch and sources).
    pub cached: Vec<bool>,
}

impl Solution {
    /// Returns the layers of a step's root, lowest first.
    pub fn chain(&self, graph: &Graph, step: StepId) -> Vec<ChainLayer> {
        chain(graph, step, &|step| self.results[step.0].layer)
    }
}

/// Returns the layers of a step's root, lowest first, where `layer_of` tells what each step added.
pub fn chain(
    graph: &Graph,
    step: StepId,
    layer_of: &dyn Fn(StepId) -> Option<LayerId>,
) -> Vec<ChainLayer> {
    let mut layers = Vec::new();
    let mut next = Some(step);
    while let Some(at) = next {
        let step = &graph.steps[at.0];
        if let Some(id) = layer_of(at) {
            layers.push(ChainLayer::Built { step: at, id });
        }
        if let Op::Base(base) = &step.op {
            for (index, (_, diff_id)) in base.layers.iter().enumerate().rev() {
                layers.push(ChainLayer::Base {
                    base: at,
                    index,
                    id: LayerId::from(*diff_id),
                });
            }
        }
        next = match step.op {
            Op::Run(_) | Op::Copy(_) | Op::Workdir(_) => step.inputs.first().copied(),
            Op::Scratch | Op::Base(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => None,
        };
    }
    layers.reverse();
    layers
}

/// Why a step could not be resolved, without its place: whoever knows the step adds that.
#[derive(Clone, Debug)]
pub struct StepError {
    pub class: ExitCode,
    /// Fits after `error: `.
    pub message: String,
    /// Outermost first.
    pub causes: Vec<String>,
    pub hints: Vec<String>,
    /// The last lines that the command printed.
    pub output: Vec<String>,
}

impl StepError {
    /// Returns an error with nothing but its class and message.
    pub fn new(class: ExitCode, message: impl Into<String>) -> StepError {
        StepError {
            class,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Adds every error in `error`'s chain of sources, itself first. A full disk among them is the state directory's,
    /// wherever it was met: steps write nowhere else.
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> StepError {
        let mut next = Some(error);
        while let Some(error) = next {
            if is_full(error) && self.class != ExitCode::Sandbox {
                self = self.on_full_disk();
            }
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Makes it an error of the state directory, which has no room.
    pub fn on_full_disk(mut self) -> StepError {
        self.class = ExitCode::Store;
        let hint = "free space with `builder prune --all`, or give a state directory on another disk with `--root`";
        if !self.hints.iter().any(|given| given == hint) {
            self.hints.push(hint.to_owned());
        }
        self
    }

    /// Adds something that the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> StepError {
        self.hints.push(hint.into());
        self
    }
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        )
    })
}
