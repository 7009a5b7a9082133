//! Unpacked layers: one directory each, complete or invisible.
//!
//! There are two kinds, which never mix: trees whose owners are on disk, and trees whose owners are in a ledger beside them. A
//! layer may be there in both.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::Placed;
use super::lower::{self, Lower};
use super::session::Session;
use super::{Store, StoreError, disk, tree};
use crate::vocab::{LayerId, Ownership};

/// A complete layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The unpacked tree. Its files stay as they are for as long as the store is in use (see [`Store::use_shared`]).
    pub fs: PathBuf,
    /// Bytes of the regular files, a file with several names counted once.
    pub size: u64,
    /// In a lower store: nothing is written to it, and it may go while it is used.
    pub is_below: bool,
}

/// A layer that is being made. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct PendingLayer {
    store: Store,
    session: Arc<Session>,
    ownership: Ownership,
    /// Holds `layer/` (which becomes `layers/LAYERID`) and `work/`.
    dir: PathBuf,
}

/// `layer.json`
#[derive(Serialize, Deserialize)]
pub(super) struct StoredLayer {
    pub(super) size: u64,
    /// Bytes of `fs.ledger`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ledger: Option<u64>,
    /// Which directory `fs` was when the layer was made (see `lower`); copies are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) original: Option<(u64, i64, i64)>,
}

/// All kinds of layers.
pub(super) const OWNERSHIPS: [Ownership; 3] = Ownership::ALL;

impl Store {
    /// Returns a layer of this process' kind if it is there and complete.
    pub fn layer(&self, id: &LayerId) -> Result<Option<Layer>, StoreError> {
        let own = self.own_layer(id)?;
        if own.is_some() || self.passes_over_layer(id) {
            return Ok(own);
        }
        let ownership = self.ownership();
        let mut lowers = self.lower_stores();
        Ok(lowers.find_map(|lower| lower.layer(ownership, id)))
    }

    /// Returns a layer of this store itself.
    fn own_layer(&self, id: &LayerId) -> Result<Option<Layer>, StoreError> {
        if self.suspects().contains(id) {
            return Ok(None);
        }
        let recorded = self.recorded_layer(self.ownership(), id)?;
        Ok(recorded.map(|StoredLayer { size, .. }| Layer {
            fs: self.layer_dir(id).join("fs"),
            size,
            is_below: false,
        }))
    }

    /// Starts a layer: an empty tree and, on the same file system, overlay's work directory.
    pub fn new_layer(&self) -> Result<PendingLayer, StoreError> {
        let session = self.session()?;
        let pending = PendingLayer {
            store: self.clone(),
            ownership: self.ownership(),
            dir: session.unique(),
            session,
        };
        disk::make_dir(&pending.dir, 0o700)?;
        disk::make_dir(&pending.layer(), 0o700)?;
        disk::make_dir(&pending.work(), 0o700)?;
        let fs = pending.fs();
        disk::make_dir(&fs, 0o755)?;
        // Whatever the umask: this is the mode of `/` in the step.
        std::fs::set_permissions(&fs, Permissions::from_mode(0o755))
            .map_err(|error| StoreError::from_io(&fs, "set the mode", error))?;
        Ok(pending)
    }

    pub(super) fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.layer_dir_of(self.ownership(), id)
    }

    pub(super) fn layer_dir_of(&self, ownership: Ownership, id: &LayerId) -> PathBuf {
        layer_dir_in(self.root(), ownership, id)
    }

    /// Returns the directory of all layers of one kind.
    pub(super) fn layers_dir(&self, ownership: Ownership) -> PathBuf {
        layers_dir_in(self.root(), ownership)
    }

    /// Tells whether a layer's tree can be had: by one `stat` where it is there. One that is not there in this process' kind, but
    /// packed, can be unpacked; one of a lower store can be used where it is.
    pub fn has_layer(&self, id: &LayerId) -> bool {
        let is_there = |ownership| {
            std::fs::metadata(self.layer_dir_of(ownership, id).join("layer.json"))
                .is_ok_and(|metadata| metadata.len() > 0)
        };
        let found = match self.known_ownership() {
            None => OWNERSHIPS.into_iter().any(is_there),
            Some(ownership) => is_there(ownership),
        };
        if found && !self.suspects().contains(id) {
            return true;
        }
        self.has_layer_below(id) || matches!(self.packed_in_any_form(id), Ok(Some(_)))
    }

    /// Tells whether a lower store has a tree of a layer that can be used where it is.
    pub(super) fn has_layer_below(&self, id: &LayerId) -> bool {
        let ownership = self.known_ownership();
        let is_below = |lower: &Lower| lower.has_layer(ownership, id);
        !self.passes_over_layer(id) && self.lower_stores().any(is_below)
    }

    /// Returns what `layer.json` says; `None` if the layer is missing, or torn.
    pub(super) fn recorded_layer(
        &self,
        ownership: Ownership,
        id: &LayerId,
    ) -> Result<Option<StoredLayer>, StoreError> {
        let path = self.layer_dir_of(ownership, id).join("layer.json");
        let bytes = disk::read(&path, 4096)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Makes a layer invisible; its tree can then be removed in any number of steps.
    pub(super) fn hide_layer(
        &self,
        ownership: Ownership,
        id: &LayerId,
    ) -> Result<bool, StoreError> {
        disk::remove_file(&self.layer_dir_of(ownership, id).join("layer.json"))
    }
}

impl PendingLayer {
    /// Returns the tree to fill: empty, mode 0755, overlay's upper directory.
    pub fn fs(&self) -> PathBuf {
        self.dir.join("layer/fs")
    }

    /// Returns overlay's work directory; any scratch use will do.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Makes the tree a layer, in one step. Nothing may be mounted on it any more. Where owners are in a ledger, `fs.ledger` is
    /// beside the tree and goes with it.
    ///
    /// `size` is the bytes of the regular files, a file with several names counted once; after a crash of the machine it tells
    /// a whole tree from a torn one. If the layer is there already, this one is dropped and that one returned.
    pub fn commit(self, id: &LayerId, size: u64) -> Result<Layer, StoreError> {
        if let Some(layer) = self.store.layer(id)? {
            return Ok(layer);
        }
        let original = lower::original(&self.fs());
        let ledger = self.layer().join("fs.ledger");
        let ledger = match std::fs::metadata(&ledger) {
            Ok(metadata) => Some(metadata.len()),
            Err(error) if disk::is_absent(&error) && self.ownership != Ownership::InLedger => None,
            Err(error) => return Err(StoreError::from_io(&ledger, "find", error)),
        };
        let stored = StoredLayer {
            size,
            ledger,
            original,
        };
        let bytes = serde_json::to_vec(&stored).expect("numbers are always JSON");
        disk::write_private(&self.layer().join("layer.json"), &bytes)?;
        self.store.mark_unsynced(id)?;
        let suspect = self.store.suspects().contains(id);
        if suspect {
            let _lock = self.store.lock_suspects()?;
            self.place(id)?;
            self.store.clear_suspicion(id);
        } else {
            self.place(id)?;
        }
        Ok(Layer {
            fs: self.store.layer_dir(id).join("fs"),
            size,
            is_below: false,
        })
    }

    /// Renames; what stands in the way and is no complete layer goes with this session.
    fn place(&self, id: &LayerId) -> Result<(), StoreError> {
        let (from, to) = (self.layer(), self.store.layer_dir(id));
        loop {
            if disk::place_dir(&from, &to)? == Placed::Done {
                return Ok(());
            }
            if self.store.own_layer(id)?.is_some() {
                // Made by somebody else since we looked.
                return Ok(());
            }
            match disk::exchange(&from, &to) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                // A file system that cannot exchange: two steps, and the name is without a layer between them.
                Err(_) => match std::fs::rename(&to, self.session.unique()) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(StoreError::from_io(&to, "move away", error));
                    }
                    _ => {}
                },
            }
        }
    }

    fn layer(&self) -> PathBuf {
        self.dir.join("layer")
    }
}

impl Drop for PendingLayer {
    fn drop(&mut self) {
        // What cannot be removed here is left to the session's end, or to a sweep.
        drop(tree::remove(&self.dir));
    }
}

pub(super) fn layers_dir_in(home: &Path, ownership: Ownership) -> PathBuf {
    home.join(match ownership {
        Ownership::OnDisk => "layers",
        Ownership::DevicesInLedger => "layers-devices",
        Ownership::InLedger => "layers-ledger",
    })
}

pub(super) fn layer_dir_in(home: &Path, ownership: Ownership, id: &LayerId) -> PathBuf {
    let mut path = layers_dir_in(home, ownership);
    path.push(id.to_string());
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{layer_id, make_layer, store};
    use std::fs;

    #[test]
    fn a_layer_is_there_after_its_commit_and_not_before() {
        let (_dir, store) = store();
        let id = layer_id("a");
        let pending = store.new_layer().unwrap();
        assert_eq!(
            fs::metadata(pending.fs()).unwrap().permissions().mode() & 0o7777,
            0o755
        );
        fs::write(pending.fs().join("f"), "12345").unwrap();
        fs::create_dir(pending.work().join("work")).unwrap();
        fs::set_permissions(pending.work().join("work"), Permissions::from_mode(0o0)).unwrap();
        assert_eq!(store.layer(&id).unwrap(), None);
        let layer = pending.commit(&id, 5).unwrap();
        assert_eq!(store.layer(&id).unwrap().unwrap(), layer);
        assert_eq!(fs::read_to_string(layer.fs.join("f")).unwrap(), "12345");
        assert!(
            disk::names(store.session().unwrap().dir())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn the_second_of_two_equal_layers_is_dropped() {
        let (_dir, store) = store();
        make_layer(&store, "a", &[("first", "")]);
        make_layer(&store, "a", &[("second", "")]);
        let layer = store.layer(&layer_id("a")).unwrap().unwrap();
        assert!(layer.fs.join("first").exists() && !layer.fs.join("second").exists());
    }

    #[test]
    fn a_torn_layer_is_a_miss_and_gives_way() {
        let (_dir, store) = store();
        for damage in [None, Some(""), Some("{"), Some("{\"size\":-1}")] {
            make_layer(&store, "a", &[("f", "12345")]);
            let json = store.layer_dir(&layer_id("a")).join("layer.json");
            match damage {
                Some(damage) => fs::write(&json, damage).unwrap(),
                None => fs::remove_file(&json).unwrap(),
            }
            assert_eq!(store.layer(&layer_id("a")).unwrap(), None, "{damage:?}");
            make_layer(&store, "a", &[("f", "12345")]);
            assert_eq!(store.layer(&layer_id("a")).unwrap().unwrap().size, 5);
        }
    }

    #[test]
    fn a_dropped_layer_leaves_nothing() {
        let (_dir, store) = store();
        let pending = store.new_layer().unwrap();
        fs::create_dir_all(pending.fs().join("a/b")).unwrap();
        fs::set_permissions(pending.fs().join("a"), Permissions::from_mode(0o0)).unwrap();
        drop(pending);
        assert!(
            disk::names(store.session().unwrap().dir())
                .unwrap()
                .is_empty()
        );
    }

    /// Opens the same store in another process' stead.
    fn reopened(store: &Store, ownership: Option<Ownership>) -> Store {
        let store = Store::open(store.root().parent().unwrap()).unwrap();
        if let Some(ownership) = ownership {
            store.set_ownership(ownership);
        }
        store
    }

    #[test]
    fn layers_of_the_two_kinds_do_not_meet() {
        let (_dir, store) = store();
        let id = layer_id("a");
        let (on_disk, in_ledger) = (
            reopened(&store, Some(Ownership::OnDisk)),
            reopened(&store, Some(Ownership::InLedger)),
        );
        make_layer(&on_disk, "a", &[("f", "12345")]);
        assert!(in_ledger.layer(&id).unwrap().is_none() && !in_ledger.has_layer(&id));
        // Nobody knows the owners of a tree without its ledger.
        let pending = in_ledger.new_layer().unwrap();
        assert!(pending.commit(&id, 0).is_err());
        let pending = in_ledger.new_layer().unwrap();
        fs::write(pending.fs().join("f"), "123").unwrap();
        let mut ledger = pending.fs().into_os_string();
        ledger.push(".ledger");
        fs::write(ledger, "owners").unwrap();
        let layer = pending.commit(&id, 3).unwrap();
        assert_eq!(
            fs::read_to_string(layer.fs.with_extension("ledger")).unwrap(),
            "owners"
        );
        assert_eq!(in_ledger.layer(&id).unwrap().unwrap().size, 3);
        assert_eq!(on_disk.layer(&id).unwrap().unwrap().size, 5);
        // Who only looks up takes either.
        fs::remove_dir_all(on_disk.layer_dir(&id)).unwrap();
        assert!(!on_disk.has_layer(&id) && reopened(&store, None).has_layer(&id));
    }
}
