//! Caches that machines share, as a worker meets them: steps that were performed elsewhere, layers that are still there, and what
//! this machine gives.

use std::io;

use crate::cache::{
    CacheError, Entry, EntryLayer, PackedForm, Publication, ToPublish, put_records,
};
use crate::image::ImageConfig;
use crate::registry::{Client, RegistryError};
use crate::solve::{StepError, StepResult};
use crate::store::{Packed, Record, StoreError};
use crate::vocab::{
    CacheKey, Cancel, Descriptor, Digest, ExitCode, ImageRef, KeyComponent, LayerForm, LayerId,
};

use super::Machine;
use super::ahead::opens;
use super::base::{Blob, Guarded};
use super::travel::{MountsFrom, MountsTo};

/// Shared caches of a build.
#[derive(Default)]
pub struct Caches {
    /// Asked in order.
    pub from: Vec<crate::cache::Place>,
    pub to: Vec<Publication>,
    /// Places of cache mounts, asked in order.
    pub mounts_from: Vec<MountsFrom>,
    pub mounts_to: Vec<MountsTo>,
    /// Whether images hold the records of their steps.
    pub inline: bool,
}

impl Machine<'_> {
    /// Returns a client for look-ups: before steps are executed, it starts no thread.
    fn asking(&self) -> Result<&Client, RegistryError> {
        match self.driver.get() {
            None => Ok(&self.early),
            Some(_) => self.client(),
        }
    }

    /// Says what the look-ups to come are called after: see [`Shared::follow`](crate::cache::Shared::follow).
    pub fn follow(&self, instructions: impl FnOnce() -> Digest) {
        if !self.shared.is_empty() {
            self.shared.follow(instructions());
        }
    }

    /// Leaves for others what a build of these instructions asks about.
    pub fn leave_trail(&self, instructions: Digest, keys: Vec<CacheKey>) {
        self.publisher.leave_trail(instructions, keys, &self.shared);
    }

    /// Looks a key up in the caches that machines share.
    pub(super) fn shared_lookup(
        &self,
        key: &CacheKey,
        components: &[KeyComponent],
        again: bool,
    ) -> Option<StepResult> {
        if self.shared.is_empty() {
            return None;
        }
        // A client that cannot be made fails the build where it needs one.
        let client = self.asking().ok()?;
        let (entry, place) = match again {
            false => self.shared.look_up(client, key, components),
            true => self.shared.look_up_again(client, key, components),
        }?;
        let result = StepResult {
            id: entry.result,
            layer: entry.layer.as_ref().map(|layer| layer.id),
            created: entry.created,
            size: entry.size,
        };
        self.publisher.note(entry, Some(place));
        Some(result)
    }

    /// Notes a result of this machine for those who share its caches.
    pub(super) fn note(&self, key: &CacheKey, record: &Record) {
        if !self.publisher.takes_notes() {
            return;
        }
        let entry = Entry {
            key: *key,
            components: record.components.clone(),
            description: record.description.clone(),
            result: record.result,
            layer: record.layer.map(|id| EntryLayer {
                id,
                forms: Vec::new(),
            }),
            created: record.created,
            size: record.size,
            used: None,
        };
        self.publisher.note(entry, None);
    }

    /// Returns the forms in which a layer is packed: those of outputs where it leaves the build, and those that are shared.
    pub(super) fn forms_of(&self, leaves: bool) -> Vec<LayerForm> {
        let mut forms = match leaves {
            true => self.setup.forms.clone(),
            false => Vec::new(),
        };
        for shared in self.shared_forms(leaves) {
            if !forms.contains(&shared) {
                forms.push(shared);
            }
        }
        forms
    }

    /// Returns the forms in which layers are shared: whole, times as well. One that an output wants costs nothing, and does for all.
    fn shared_forms(&self, leaves: bool) -> Vec<LayerForm> {
        let compressions = self.publisher.compressions(leaves);
        let mut forms = self.setup.forms.iter();
        match forms.find(|form| form.clamp.is_none()) {
            Some(_) if compressions.is_empty() => Vec::new(),
            Some(whole) => vec![*whole],
            None => compressions.into_iter().map(LayerForm::from).collect(),
        }
    }

    /// Tells whether layers of all steps are packed, and not only those of outputs.
    pub fn packs_all_layers(&self) -> bool {
        self.publisher.wants_all_layers()
    }

    /// Tells whether any layer is packed.
    pub fn packs_layers(&self) -> bool {
        !self.setup.forms.is_empty() || !self.publisher.is_empty()
    }

    /// Returns a layer's packed form, here or elsewhere.
    pub fn packed(&self, id: &LayerId, form: LayerForm) -> Result<Option<Packed>, StoreError> {
        if let Some(packed) = self.store.packed(id, form)? {
            return Ok(Some(packed));
        }
        Ok(self.shared.packed(id, form).map(packed_of))
    }

    /// Tells whether a layer has every form in which it leaves the build, or in which it is shared.
    pub fn is_packed(&self, id: &LayerId, leaves: bool) -> bool {
        if !leaves && self.shared.packed_in_any_form(id).is_some() {
            return true;
        }
        let mut forms = self.forms_of(leaves).into_iter();
        forms.all(|form| matches!(self.packed(id, form), Ok(Some(_))))
    }

    /// Tells whether a layer is in a shared cache, and not here.
    pub fn is_elsewhere(&self, id: &LayerId) -> bool {
        !self.store.has_layer(id) && self.shared.is_promised(id)
    }

    /// Sends a layer of this machine on its way to the caches that it is given to. Nothing happens where a form is missing.
    pub fn offer(&self, id: &LayerId, leaves: bool) -> Result<(), StepError> {
        if self.publisher.is_empty() || self.publisher.has_layer(id, leaves) {
            return Ok(());
        }
        let client = self.client().map_err(|error| registry_failed(&error))?;
        let mut forms = Vec::new();
        for form in self.forms_of(leaves) {
            let packed = self.store.packed(id, form);
            let Some(packed) = packed.map_err(|error| Machine::store_failed(&error))? else {
                continue;
            };
            let open = opens(self.store, packed.blob.digest);
            forms.push(ToPublish {
                form: PackedForm {
                    form,
                    diff_id: packed.diff_id,
                    blob: packed.blob,
                    uncompressed_size: packed.uncompressed_size,
                },
                open,
                mount_from: None,
                is_wanted: self.setup.forms.contains(&form),
            });
        }
        if forms.is_empty() {
            forms = self.shared.to_publish(client, id);
        }
        self.publisher.layer_ready(client, *id, forms, leaves);
        Ok(())
    }

    /// Gives the rest to the caches and waits for it. Returns what went wrong, place by place.
    pub fn finish_publishing(&self) -> Result<Vec<(&Publication, CacheError)>, RegistryError> {
        Ok(self.publisher.finish(self.client()?))
    }

    /// Writes what is known of the steps into an image's config, where that is wanted.
    pub fn put_records(&self, config: &mut ImageConfig, layers: &[Option<(LayerId, PackedForm)>]) {
        if self.setup.caches.inline {
            put_records(config, &self.publisher.entries(), layers);
        }
    }

    /// Tells whether anything is given to caches.
    pub fn publishes(&self) -> bool {
        !self.publisher.is_empty()
    }

    /// Tells whether layers that caches or lower stores promised turned out to be lost. They are forgotten: what needs them is performed.
    pub fn forget_lost_layers(&self) -> bool {
        let keys = self.shared.forget_lost();
        self.publisher.replace(&keys);
        self.below.has_lost() || !keys.is_empty()
    }

    /// Forgets what shared caches say of those layers that are known by a record alone; tells whether there were any.
    pub fn forget_without_files(&self, layers: &[LayerId]) -> bool {
        let mut any = false;
        for layer in layers {
            if self.is_elsewhere(layer) && self.shared.packed_in_any_form(layer).is_none() {
                self.shared.lose(*layer);
                any = true;
            }
        }
        if any {
            self.shared.forget_lost();
        }
        any
    }

    /// Returns the repository that has a blob, where a cache in a registry has it.
    pub fn shared_repository(&self, blob: &Descriptor) -> Option<ImageRef> {
        self.shared.repository_of(&blob.digest)
    }

    /// Brings a blob of a shared cache into the store; `false` if none has it.
    pub fn fetch_shared(&self, blob: &Descriptor, cancel: &Cancel) -> Result<bool, StepError> {
        let Some((layer, form)) = self.shared.form_of(&blob.digest) else {
            return Ok(false);
        };
        if self.store.blob_size(&form.blob.digest) == Some(form.blob.size) {
            return Ok(true);
        }
        let reader = self.open_shared(&form)?;
        let copied = io::copy(&mut Guarded::new(reader.clone(), cancel), &mut io::sink());
        copied.and_then(|_| reader.finish()).map_err(|error| {
            StepError::new(
                ExitCode::Source,
                format!("cannot fetch layer {} of the cache", blob.digest),
            )
            .caused_by(&error)
        })?;
        self.remember_shared(&layer, &form)?;
        Ok(true)
    }

    /// Opens a blob of a shared cache, which is kept in the store while it is read.
    pub(super) fn open_shared(&self, form: &PackedForm) -> Result<Blob, StepError> {
        let keep = self.store.blob_writer();
        let keep = keep.map_err(|error| Machine::store_failed(&error))?;
        let client = self.client().map_err(|error| registry_failed(&error))?;
        let reader = self.shared.open(client, &form.blob).map_err(|error| {
            StepError::new(
                ExitCode::Source,
                format!("cannot fetch layer {} of the cache", form.blob.digest),
            )
            .caused_by(&error)
        })?;
        Ok(Blob::new(reader, Some(keep), false, &form.blob))
    }

    /// Remembers here what a cache said of a layer whose blob is here now.
    pub(super) fn remember_shared(
        &self,
        layer: &LayerId,
        form: &PackedForm,
    ) -> Result<(), StepError> {
        let remember = || {
            let packed = packed_of(form.clone());
            self.store.put_packed(layer, form.form, &packed)?;
            for entry in self.shared.entries_of(layer) {
                let record = Record {
                    result: entry.result,
                    layer: Some(*layer),
                    created: entry.created,
                    size: entry.size,
                    description: entry.description,
                    components: entry.components,
                    duration_ms: 0,
                    alias_of: None,
                };
                self.store.put_record(&entry.key, &record)?;
            }
            Ok(())
        };
        remember().map_err(|error| Machine::store_failed(&error))
    }
}

fn packed_of(form: PackedForm) -> Packed {
    Packed {
        diff_id: form.diff_id,
        blob: form.blob,
        uncompressed_size: form.uncompressed_size,
        members: Vec::new(),
    }
}

fn registry_failed(error: &RegistryError) -> StepError {
    StepError::new(ExitCode::Export, "the registry cannot be used").caused_by(error)
}
