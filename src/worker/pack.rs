//! A layer's second product: diff → tar → hash → compress → hash → blob, each byte read once.

use std::path::PathBuf;

use crate::layer::LayerWriter;
use crate::plan::{Graph, Op};
use crate::rootfs::{RootfsError, Times, write_layer};
use crate::solve::{ChainLayer, StepError};
use crate::store::{Packed, PackedMember};
use crate::vocab::{
    CacheKey, Cancel, Descriptor, DiffId, ExitCode, KeyBuilder, LayerForm, LayerId,
};

use super::Machine;
use super::kept::Place;

impl Machine<'_> {
    /// Packs the topmost layer of `root`, unless that was done before.
    pub(super) fn pack_layer(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        form: LayerForm,
        cancel: &Cancel,
    ) -> Result<(), StepError> {
        let Some((top @ ChainLayer::Built { step, id }, below)) = root.split_last() else {
            return Ok(());
        };
        let store_failed = |error| Machine::store_failed(&error);
        if self.store.packed(id, form).map_err(store_failed)?.is_some() {
            return Ok(());
        }
        let key = pack_key(id, form);
        let Some(_lock) = self
            .store
            .lock_wait(&key, &|| cancel.is_cancelled())
            .map_err(store_failed)?
        else {
            return Err(StepError::new(ExitCode::Step, "cancelled"));
        };
        if self.store.packed(id, form).map_err(store_failed)?.is_some() {
            return Ok(());
        }
        let upper = self
            .lowers(graph, std::slice::from_ref(top), cancel)?
            .remove(0);
        // A linked copy's layer is the same on every root: nothing below is compared with.
        let lowers: Vec<PathBuf> = match &graph.steps[step.0].op {
            Op::Copy(copy) if copy.link => Vec::new(),
            _ => self.lowers(graph, below, cancel)?,
        };
        let failed = |error: &(dyn std::error::Error + 'static)| {
            StepError::new(ExitCode::Step, "cannot make the layer of this step").caused_by(error)
        };
        let blob = self.store.blob_writer().map_err(store_failed)?;
        let mut writer = LayerWriter::new(blob, form.compression, self.setup.means.threads);
        let place = Place::of(&graph.steps[step.0].op, &self.setup.locals, form);
        if let Some(kept) = place.kept_members(self.store, form) {
            writer = writer.with_known_members(kept);
        }
        let times = form.clamp.map_or(Times::Kept, Times::AtMost);
        write_layer(&upper, &lowers, times, &mut writer, cancel).map_err(|error| {
            let mut failure = failed(&error);
            if !matches!(error, RootfsError::WhiteoutName { .. }) {
                failure.class = ExitCode::Store;
            }
            failure
        })?;
        self.layers_stay()?;
        let (blob, packed) = writer.finish().map_err(|error| StepError {
            class: ExitCode::Store,
            ..failed(&error)
        })?;
        blob.commit(&packed.digest).map_err(store_failed)?;
        let packed = Packed {
            diff_id: DiffId(packed.diff_id.0),
            blob: Descriptor {
                media_type: crate::image::layer_media_type(
                    form.compression,
                    crate::image::MediaTypes::Oci,
                )
                .to_owned(),
                digest: packed.digest,
                size: packed.size,
            },
            uncompressed_size: packed.uncompressed_size,
            members: packed
                .members
                .iter()
                .map(|member| PackedMember {
                    uncompressed_len: member.uncompressed_len,
                    offset: member.offset,
                    len: member.len,
                    digest: member.digest,
                })
                .collect(),
        };
        self.store
            .put_packed(id, form, &packed)
            .map_err(store_failed)?;
        place
            .remember(self.store, *id, &packed, &graph.origins[step.0].name)
            .map_err(store_failed)
    }
}

fn pack_key(id: &LayerId, form: LayerForm) -> CacheKey {
    KeyBuilder::new("pack")
        .add("layer", &id.to_string())
        .add("form", &format!("{form:?}"))
        .finish()
        .0
}
