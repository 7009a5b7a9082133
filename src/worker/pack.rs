//! A layer's second product: diff → tar → hash → compress → hash → blob, each byte read once. Where nobody needs the first one, the
//! files, a copy's layer is packed straight from its sources.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use crate::layer::{Entry, LayerWriter};
use crate::plan::{Graph, Op, StepId};
use crate::rootfs::{RootfsError, Times, Tree, write_layer};
use crate::solve::{ChainLayer, Job, StepError};
use crate::store::{BlobWriter, Packed, PackedMember};
use crate::vocab::{
    CacheKey, Cancel, Descriptor, DiffId, Event, EventSink, ExitCode, KeyBuilder, LayerForm,
    LayerId, VertexId,
};

use super::Machine;
use super::copy::{CopyOptions, Item, outline};
use super::kept::Place;
use super::steps::copy_failed;

impl Machine<'_> {
    /// Packs the topmost layer of `root`, unless that was done before.
    pub(super) fn pack_layer(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        form: LayerForm,
        events: &dyn EventSink,
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
        let times = times_of(form);
        let fill = |writer: &mut LayerWriter<Told<'_>>| {
            let written = write_layer(&upper, &lowers, times, writer, cancel);
            written.map(Some).map_err(|error| {
                let mut failure = pack_failed(&error);
                if !matches!(error, RootfsError::WhiteoutName { .. }) {
                    failure.class = ExitCode::Store;
                }
                failure
            })
        };
        self.pack_by(graph, *step, id, form, events, fill).map(drop)
    }

    /// Packs the layer of a step out of what `fill` writes; not where that gives up.
    fn pack_by<T>(
        &self,
        graph: &Graph,
        step: StepId,
        id: &LayerId,
        form: LayerForm,
        events: &dyn EventSink,
        fill: impl FnOnce(&mut LayerWriter<Told<'_>>) -> Result<Option<T>, StepError>,
    ) -> Result<Option<T>, StepError> {
        let store_failed = |error| Machine::store_failed(&error);
        let blob = self.store.blob_writer().map_err(store_failed)?;
        let blob = Told::new(blob, step, events);
        let mut writer = LayerWriter::new(blob, form.compression, self.setup.means.threads);
        let place = Place::of(&graph.steps[step.0].op, &self.setup.locals, form);
        if let Some(kept) = place.kept_members(self.store, form) {
            writer = writer.with_known_members(kept);
        }
        let Some(filled) = fill(&mut writer)? else {
            return Ok(None);
        };
        self.layers_stay()?;
        let (blob, packed) = writer.finish().map_err(|error| StepError {
            class: ExitCode::Store,
            ..pack_failed(&error)
        })?;
        blob.writer.commit(&packed.digest).map_err(store_failed)?;
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
            .map_err(store_failed)?;
        Ok(Some(filled))
    }

    /// Packs the layer of a copy straight from its sources, without making its files, and returns the bytes of these. `tree` is the root
    /// that it is copied to. `None` where that is not possible.
    pub(super) fn pack_straight(
        &self,
        job: &Job<'_>,
        tree: &Tree,
        items: &[Item<'_>],
        options: &CopyOptions<'_>,
    ) -> Result<Option<u64>, StepError> {
        let id = LayerId::from(job.result);
        // A layer with other times is no source of its files, if one is needed later.
        let &[form @ LayerForm { clamp: None, .. }] = self.forms_of(true).as_slice() else {
            return Ok(None);
        };
        let store_failed = |error| Machine::store_failed(&error);
        let lock = self
            .store
            .lock_wait(&pack_key(&id, form), &|| job.cancel.is_cancelled());
        let Some(_lock) = lock.map_err(store_failed)? else {
            return Err(StepError::new(ExitCode::Step, "cancelled"));
        };
        if self.store.has_layer(&id) {
            return Ok(None);
        }
        let fill = |writer: &mut LayerWriter<Told<'_>>| {
            let mut put = |entry: Entry, content: &mut dyn Read| writer.entry(&entry, content);
            outline(tree, items, options, job.cancel, &mut put).map_err(|error| copy_failed(&error))
        };
        self.pack_by(job.graph, job.step, &id, form, job.events, fill)
    }
}

/// A blob in the making that says how long it is by now.
struct Told<'a> {
    writer: BlobWriter,
    vertex: VertexId,
    events: &'a dyn EventSink,
    written: u64,
    told: u64,
}

impl<'a> Told<'a> {
    /// Layers that are smaller are packed before anybody asks.
    const STRIDE: u64 = 1 << 20;

    fn new(writer: BlobWriter, step: StepId, events: &'a dyn EventSink) -> Told<'a> {
        Told {
            writer,
            vertex: VertexId(step.0 as u32),
            events,
            written: 0,
            told: 0,
        }
    }
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.written += count as u64;
        if self.written - self.told >= Told::STRIDE {
            self.told = self.written;
            self.events.emit(Event::Progress {
                vertex: self.vertex,
                what: "layer".to_owned(),
                done: self.written,
                total: 0,
            });
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn times_of(form: LayerForm) -> Times {
    form.clamp.map_or(Times::Kept, Times::AtMost)
}

fn pack_failed(error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError::new(ExitCode::Step, "cannot make the layer of this step").caused_by(error)
}

fn pack_key(id: &LayerId, form: LayerForm) -> CacheKey {
    KeyBuilder::new("pack")
        .add("layer", &id.to_string())
        .add("form", &format!("{form:?}"))
        .finish()
        .0
}
