//! The growing graph. Equal steps are made once: stages and platforms that begin alike share what they have in common.

use std::collections::HashMap;

use super::remotes::{Remotes, Use};
use super::{Base, Local, Op, Origin, Step, StepId};
use crate::vocab::Span;

/// Steps in the order made, so that inputs come before users.
pub(super) struct Steps {
    steps: Vec<Step>,
    origins: Vec<Origin>,
    /// Steps by their inputs: equal steps have equal ones.
    by_inputs: HashMap<Vec<StepId>, Vec<StepId>>,
    pub(super) remotes: Remotes,
}

impl Steps {
    pub(super) fn new(remotes: Remotes) -> Steps {
        Steps {
            steps: Vec::new(),
            origins: Vec::new(),
            by_inputs: HashMap::new(),
            remotes,
        }
    }

    /// Adds a step, or finds the equal one. A step that any of its origins wants uncached is not taken from the cache.
    pub(super) fn add(&mut self, op: Op, inputs: Vec<StepId>, origin: Origin) -> StepId {
        let step = Step { op, inputs };
        let alike = self.by_inputs.entry(step.inputs.clone()).or_default();
        if let Some(&known) = alike.iter().find(|id| self.steps[id.0] == step) {
            self.origins[known.0].ignore_cache |= origin.ignore_cache;
            return known;
        }
        let id = StepId(self.steps.len());
        alike.push(id);
        self.steps.push(step);
        self.origins.push(origin);
        id
    }

    /// Adds the empty root.
    pub(super) fn scratch(&mut self, stage: &str) -> StepId {
        let origin = Origin {
            span: None,
            stage: stage.to_owned(),
            name: "[internal] FROM scratch".to_owned(),
            ignore_cache: false,
        };
        self.add(Op::Scratch, Vec::new(), origin)
    }

    /// Adds the root of an image; one without layers is the empty root.
    pub(super) fn base(&mut self, base: &Base, origin: Origin) -> StepId {
        match base.layers.is_empty() {
            true => self.scratch(&origin.stage),
            false => self.add(Op::Base(base.clone()), Vec::new(), origin),
        }
    }

    /// Adds the main context, or a named one, wherever its files come from.
    pub(super) fn local(&mut self, name: Option<&str>, span: Option<Span>, stage: &str) -> StepId {
        let title = match name {
            Some(name) => format!("[context {name}] load files"),
            None => "[internal] load build context".to_owned(),
        };
        if let Some(remote) = self.remotes.context(name) {
            let usage = Use {
                span,
                stage,
                name: title,
            };
            return self.remote(&remote, usage);
        }
        let origin = Origin {
            span,
            stage: stage.to_owned(),
            name: title,
            ignore_cache: false,
        };
        let name = name.map(str::to_owned);
        self.add(Op::Local(Local { name }), Vec::new(), origin)
    }

    /// Returns the steps and their origins.
    pub(super) fn finish(self) -> (Vec<Step>, Vec<Origin>) {
        (self.steps, self.origins)
    }
}
