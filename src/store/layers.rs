//! Unpacked layers: one directory each, complete or invisible.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::Placed;
use super::session::Session;
use super::{Store, StoreError, disk, tree};
use crate::vocab::LayerId;

/// A complete layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The unpacked tree. Its files stay as they are for as long as the store is in use (see [`Store::use_shared`]).
    pub fs: PathBuf,
    /// Bytes of the regular files, a file with several names counted once.
    pub size: u64,
}

/// A layer that is being made. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct PendingLayer {
    store: Store,
    session: Arc<Session>,
    /// Holds `layer/` (which becomes `layers/LAYERID`) and `work/`.
    dir: PathBuf,
}

/// `layer.json`
#[derive(Serialize, Deserialize)]
struct StoredLayer {
    size: u64,
}

impl Store {
    /// Returns a layer if it is there and complete.
    pub fn layer(&self, id: &LayerId) -> Result<Option<Layer>, StoreError> {
        if self.suspects().contains(id) {
            return Ok(None);
        }
        Ok(self.recorded_size(id)?.map(|size| Layer {
            fs: self.layer_dir(id).join("fs"),
            size,
        }))
    }

    /// Starts a layer: an empty tree and, on the same file system, overlay's work directory.
    pub fn new_layer(&self) -> Result<PendingLayer, StoreError> {
        let session = self.session()?;
        let pending = PendingLayer {
            store: self.clone(),
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
        let mut path = self.path("layers");
        path.push(id.to_string());
        path
    }

    /// Tells by one `stat` whether a layer is there.
    pub(super) fn has_layer(&self, id: &LayerId) -> bool {
        std::fs::metadata(self.layer_dir(id).join("layer.json"))
            .is_ok_and(|metadata| metadata.len() > 0)
            && !self.suspects().contains(id)
    }

    /// Returns what `layer.json` says; `None` if the layer is missing, or torn.
    pub(super) fn recorded_size(&self, id: &LayerId) -> Result<Option<u64>, StoreError> {
        let bytes = disk::read(&self.layer_dir(id).join("layer.json"), 4096)?;
        let stored = bytes.and_then(|bytes| serde_json::from_slice::<StoredLayer>(&bytes).ok());
        Ok(stored.map(|stored| stored.size))
    }

    /// Makes a layer invisible; its tree can then be removed in any number of steps.
    pub(super) fn hide_layer(&self, id: &LayerId) -> Result<bool, StoreError> {
        disk::remove_file(&self.layer_dir(id).join("layer.json"))
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

    /// Makes the tree a layer, in one step. Nothing may be mounted on it any more.
    ///
    /// `size` is the bytes of the regular files, a file with several names counted once; after a crash of the machine it tells
    /// a whole tree from a torn one. If the layer is there already, this one is dropped and that one returned.
    pub fn commit(self, id: &LayerId, size: u64) -> Result<Layer, StoreError> {
        if let Some(layer) = self.store.layer(id)? {
            return Ok(layer);
        }
        let bytes = serde_json::to_vec(&StoredLayer { size }).expect("a number is always JSON");
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
        })
    }

    /// Renames; what stands in the way and is no complete layer goes with this session.
    fn place(&self, id: &LayerId) -> Result<(), StoreError> {
        let (from, to) = (self.layer(), self.store.layer_dir(id));
        loop {
            if disk::place_dir(&from, &to)? == Placed::Done {
                return Ok(());
            }
            if self.store.layer(id)?.is_some() {
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
}
