//! A RUN that failed, kept as it stood: for who looks into it when the build has ended.
//!
//! What the command has changed becomes a layer under a name that no key leads to, so that nothing is taken from it. Only the
//! first failure of a build is kept, and only where somebody asked for it.

use std::sync::{Arc, PoisonError};

use crate::plan::{Graph, StepId};
use crate::rootfs::tree_size;
use crate::solve::{ChainLayer, Job, StepError};
use crate::store::PendingLayer;
use crate::vocab::{Cancel, Digest, ExitCode, LayerForm, LayerId, Nobody, ResultId};

use super::Machine;
use super::command::Performed;
use super::redact::Needles;
use super::root::Root;
use super::steps::now;

/// A failed step with the root that it left.
pub struct FailedStep {
    pub step: StepId,
    /// The layers of the root as the command left it, lowest first, then those of each tree that a mount shows.
    pub inputs: Vec<Vec<ChainLayer>>,
    /// The last lines that the command printed.
    pub output: Vec<String>,
    needles: Arc<Needles>,
}

impl FailedStep {
    /// Returns a text without the values of the build's secrets.
    pub fn redacted(&self, text: &str) -> String {
        let mut redactor = self.needles.redactor();
        let mut out = redactor.push(text.as_bytes());
        out.extend(redactor.finish());
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Machine<'_> {
    /// Returns the step that failed first, if failed steps are kept. All others have ended.
    pub fn take_failed(&self) -> Option<Result<FailedStep, StepError>> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take()
    }

    /// Packs the layers that steps have made of a failed step's root, those that are not yet.
    pub fn pack_failed(
        &self,
        graph: &Graph,
        failed: &FailedStep,
        form: LayerForm,
        cancel: &Cancel,
    ) -> Result<(), StepError> {
        let root = &failed.inputs[0];
        for length in 1..=root.len() {
            self.pack_layer(graph, &root[..length], form, &Nobody, cancel)?;
        }
        Ok(())
    }

    /// Keeps the root of a failed step, if that is wanted.
    pub(super) fn keep_failed(
        &self,
        job: &Job<'_>,
        root: Root,
        layer: PendingLayer,
        performed: Performed,
    ) {
        if !self.setup.keeps_failed {
            return;
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some() {
            return;
        }
        let Performed { tail, memory, .. } = performed;
        // Whatever is left in its groups ends before its layer is read.
        drop(memory);
        *failed = Some(self.place_failed(job, root, layer).map(|id| {
            let mut inputs = job.inputs.clone();
            inputs[0].push(ChainLayer::Built { step: job.step, id });
            FailedStep {
                step: job.step,
                inputs,
                output: tail,
                needles: Arc::clone(self.needles()),
            }
        }));
    }

    fn place_failed(
        &self,
        job: &Job<'_>,
        root: Root,
        layer: PendingLayer,
    ) -> Result<LayerId, StepError> {
        // The other steps are about to be cancelled, and this one is to be whole.
        let finished = root.finish(&layer, &Cancel::new())?;
        let size = tree_size(&layer.fs()).map_err(|error| {
            StepError::new(
                ExitCode::Store,
                "cannot read the layer that the failed step made",
            )
            .caused_by(&error)
        })?;
        let time = now();
        let unlike_any_other = format!(
            "failed {} {} {} {}",
            job.result,
            std::process::id(),
            time.seconds,
            time.nanoseconds
        );
        let id = LayerId::from(ResultId(Digest::of(unlike_any_other.as_bytes())));
        let layer = layer
            .commit(&id, size)
            .map_err(|error| Machine::store_failed(&error))?;
        finished.has_become(layer.fs);
        Ok(id)
    }
}
