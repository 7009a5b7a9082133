//! Layers that are used where they are in lower stores: somebody else's, who may remove them at any time.
//!
//! overlayfs does not say that a directory below it is being emptied: files are missing, and a command that meets none of them
//! makes a layer that is wrong. But whoever removes a layer hides it first. So after each use it is looked whether the layers that
//! were used are still there; if not, what was made of them is dropped, and the build begins again without them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::rootfs::{check_witness, has_loose_marks, write_witness};
use crate::solve::StepError;
use crate::store::Layer;
use crate::vocab::{Diagnostic, Event, ExitCode, LayerId, StorageDriver};

use super::Machine;

/// What a build has taken from lower stores.
#[derive(Default)]
pub(super) struct Below {
    used: Mutex<HashMap<LayerId, PathBuf>>,
    /// Something is not there any more, so that what it was for has to be looked up again.
    lost: AtomicBool,
}

impl Below {
    /// Tells whether something was lost since this was asked last.
    pub(super) fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }
}

impl Machine<'_> {
    /// Finds out which trees of lower stores can be used from here, and leaves a witness of those that are made here. Called from
    /// where steps are executed. Tells whether trees were refused: then the cache has to be asked anew.
    pub fn settle_lower_stores(&self) -> Result<bool, StepError> {
        let ownership = self.store.ownership();
        let witness = self.store.put_witness(|dir| write_witness(dir, ownership));
        // Without it nobody can use this store as a lower one; that is no reason to fail.
        drop(witness.map_err(|error| Machine::store_failed(&error))?);
        let refused = self
            .store
            .refuse_trees(&|dir| check_witness(dir, ownership).map_err(|error| error.to_string()));
        for (root, why) in &refused {
            let warning = Diagnostic::warning(format!(
                "unpacked layers of the lower store `{}` cannot be used: {why}",
                root.display()
            ))
            .hint("those that are there as blobs too are unpacked into the state directory; what needs the others is performed again");
            self.events.emit(Event::Diagnostic(warning));
        }
        Ok(!refused.is_empty())
    }

    /// Tells whether a layer of a lower store can be stacked as it is, and notes that it is used. Else it is passed over.
    pub(super) fn takes_from_below(&self, id: &LayerId, layer: &Layer) -> bool {
        // They are written into the tree where it is this store's.
        let is_mountable = self.driver() == StorageDriver::Tree
            || has_loose_marks(&layer.fs).is_ok_and(|has_marks| !has_marks);
        match is_mountable {
            true => {
                self.used().insert(*id, layer.fs.clone());
            }
            false => {
                self.store.pass_over_layer(id);
            }
        }
        is_mountable
    }

    /// Fails if a layer that was used in a lower store is not there any more.
    pub fn layers_stay(&self) -> Result<(), StepError> {
        let used: Vec<_> = self.used().clone().into_iter().collect();
        let mut gone = used.into_iter().filter(
            |(id, path)| !matches!(self.store.layer(id), Ok(Some(layer)) if layer.fs == *path),
        );
        let Some((id, path)) = gone.next() else {
            return Ok(());
        };
        for (id, _) in std::iter::once((id, path.clone())).chain(gone) {
            self.is_lost_below(&id);
        }
        Err(StepError::new(
            ExitCode::Store,
            format!(
                "layer {id} is gone from the lower store: {}",
                path.display()
            ),
        )
        .hint("something removed it while the build ran: build again"))
    }

    /// Forgets a layer of the lower stores.
    pub(super) fn is_lost_below(&self, id: &LayerId) {
        if self.store.pass_over_layer(id) {
            self.below.lost.store(true, Ordering::Relaxed);
        }
        self.used().remove(id);
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.remove(id);
    }

    fn used(&self) -> std::sync::MutexGuard<'_, HashMap<LayerId, PathBuf>> {
        self.below
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something was lost which a record speaks of.
    pub(super) fn has_lost_a_result(&self) {
        self.below.lost.store(true, Ordering::Relaxed);
    }
}
