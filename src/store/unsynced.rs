//! Layers that may not have reached the disk: which they are, and whether a crash has torn them.
//!
//! Syncing a tree costs as much as writing it, so no layer is synced. Instead each has an empty file below
//! `unsynced/BOOTID`, made before the layer's rename; both are changes of directories and keep their order in the journal.
//! While the machine stays up the marks mean nothing. After another boot a marked layer is hidden until its files were added
//! up once: a file whose bytes were lost is shorter than it was.

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;

use super::layers::OWNERSHIPS;
use super::lock::LockFile;
use super::session::Swept;
use super::{Store, StoreError, disk, fault, tree};
use crate::vocab::{Digest, LayerId};

/// So many marks of one boot are worth one sync of the file system.
const MANY: usize = 2000;

/// Returns the layers that were made during other boots and not checked since.
pub(super) fn suspects(unsynced: &Path) -> Result<HashSet<LayerId>, StoreError> {
    let mut suspects = HashSet::new();
    let boots = disk::names(unsynced)?;
    if boots.is_empty() {
        return Ok(suspects);
    }
    let boot = boot_id();
    for other in boots.iter().filter(|name| name.to_str() != Some(boot)) {
        for name in disk::names(&unsynced.join(other))? {
            suspects.extend(name.to_str().and_then(layer_id));
        }
    }
    Ok(suspects)
}

impl Store {
    /// Notes that a layer is about to appear.
    pub(super) fn mark_unsynced(&self, id: &LayerId) -> Result<(), StoreError> {
        let boot = self.path("unsynced").join(boot_id());
        let path = boot.join(id.to_string());
        let make = || {
            fault::growth()?;
            std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
        };
        let result = match make() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                disk::make_dirs(&boot)?;
                make()
            }
            result => result,
        };
        result
            .map(drop)
            .map_err(|error| StoreError::from_io(&path, "write", error))
    }

    /// Notes that a suspect was replaced by a layer of this boot.
    pub(super) fn clear_suspicion(&self, id: &LayerId) {
        if !self.suspects().remove(id) {
            return;
        }
        let boot = boot_id();
        let unsynced = self.path("unsynced");
        for (name, path) in disk::entries(&unsynced).unwrap_or_default() {
            if name != boot {
                // If it stays, the layer is checked once more than needed.
                drop(disk::remove_file(&path.join(id.to_string())));
            }
        }
    }

    /// Checks the layers of other boots, removes the torn ones and forgets the marks.
    pub(super) fn settle_unsynced(&self, swept: &mut Swept) -> Result<(), StoreError> {
        let boot = boot_id();
        for (name, path) in disk::entries(&self.path("unsynced"))? {
            let marks = disk::entries(&path)?;
            if name == boot {
                if marks.len() >= MANY && self.sync_all().is_ok() {
                    for (_, mark) in marks {
                        disk::remove_file(&mark)?;
                    }
                }
                continue;
            }
            for (mark_name, mark) in marks {
                match self.settle_mark(&mark_name, &mark) {
                    Ok(sound) => swept.layers += usize::from(!sound),
                    Err(_) => swept.left += 1,
                }
            }
            fault::removal();
            // Not empty if something was left.
            drop(std::fs::remove_dir(&path));
        }
        *self.suspects() = suspects(&self.path("unsynced"))?;
        Ok(())
    }

    /// Waits until everything is on the disk, and forgets the marks of this boot.
    pub(super) fn settle_this_boot(&self) -> Result<(), StoreError> {
        let marks = disk::entries(&self.path("unsynced").join(boot_id()))?;
        if marks.is_empty() {
            return Ok(());
        }
        self.sync_all()?;
        for (_, mark) in marks {
            disk::remove_file(&mark)?;
        }
        Ok(())
    }

    /// Forgets a layer of this boot that was removed.
    pub(super) fn forget_mark(&self, id: &LayerId) {
        let path = self.path("unsynced").join(boot_id()).join(id.to_string());
        // A mark without a layer does no harm.
        drop(disk::remove_file(&path));
    }

    /// Excludes sweeps, and commits in the place of a suspect: a layer must not be replaced between being measured and being
    /// removed.
    pub(super) fn lock_suspects(&self) -> Result<LockFile, StoreError> {
        LockFile::acquire(&self.path("locks/unsynced"))
    }

    /// Checks one layer and removes its mark; tells whether the layer was sound.
    fn settle_mark(&self, name: &str, mark: &Path) -> Result<bool, StoreError> {
        let _lock = self.lock_suspects()?;
        // Another process may have been here while this one waited; then the layer may be a new one, and in use.
        if !mark.exists() {
            return Ok(true);
        }
        let sound = match layer_id(name) {
            Some(id) => self.settle_layer(&id)?,
            None => true,
        };
        disk::remove_file(mark)?;
        Ok(sound)
    }

    /// Adds up a layer's files; removes it if they are not what they were.
    fn settle_layer(&self, id: &LayerId) -> Result<bool, StoreError> {
        let mut is_sound = true;
        for ownership in OWNERSHIPS {
            let dir = self.layer_dir_of(ownership, id);
            let Some(recorded) = self.recorded_layer(ownership, id)? else {
                continue;
            };
            match tree::size(&dir.join("fs")) {
                Ok(found) if found == recorded.size && recorded.has_whole_ledger(&dir) => {
                    continue;
                }
                // Looked at from outside of the namespace: no verdict.
                Err(error @ StoreError::Denied { .. }) => return Err(error),
                Ok(_) | Err(_) => {}
            }
            self.hide_layer(ownership, id)?;
            tree::remove(&dir)?;
            is_sound = false;
        }
        Ok(is_sound)
    }

    fn sync_all(&self) -> Result<(), StoreError> {
        let fail = |error| StoreError::from_io(self.root(), "sync", error);
        let home = std::fs::File::open(self.root()).map_err(fail)?;
        rustix::fs::syncfs(&home).map_err(|errno| fail(errno.into()))
    }
}

fn layer_id(name: &str) -> Option<LayerId> {
    Digest::from_hex(name).map(LayerId)
}

/// Returns what tells this boot from others. Without `/proc` all boots look alike, and layers are not checked.
pub(super) fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let text = text.trim();
        let is_plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        if text.len() == 36 && text.bytes().all(is_plain) {
            text.to_owned()
        } else {
            "unknown".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::store::tests::{layer_id, make_layer, store};
    use crate::store::{Store, disk};
    use std::fs;

    /// Makes two layers and lets the machine seem to have been started again since.
    fn after_another_boot() -> (tempfile::TempDir, Store) {
        let (dir, store) = store();
        make_layer(&store, "whole", &[("f", "12345")]);
        make_layer(&store, "torn", &[("f", "12345"), ("g", "")]);
        let unsynced = store.path("unsynced");
        let boot = disk::entries(&unsynced).unwrap().remove(0).1;
        fs::rename(boot, unsynced.join("another")).unwrap();
        fs::write(store.layer_dir(&layer_id("torn")).join("fs/f"), "").unwrap();
        let root = store.root().parent().unwrap().to_owned();
        drop(store);
        (dir, Store::open(&root).unwrap())
    }

    #[test]
    fn a_layer_that_a_power_cut_has_torn_is_hidden_and_then_removed() {
        let (_dir, store) = after_another_boot();
        for name in ["whole", "torn"] {
            assert!(store.layer(&layer_id(name)).unwrap().is_none(), "{name}");
        }
        let swept = store.sweep().unwrap();
        assert_eq!((swept.layers, swept.left), (1, 0));
        assert!(store.layer(&layer_id("whole")).unwrap().is_some());
        assert!(store.layer(&layer_id("torn")).unwrap().is_none());
        assert!(!store.layer_dir(&layer_id("torn")).exists());
        assert!(disk::names(&store.path("unsynced")).unwrap().is_empty());
    }

    #[test]
    fn a_torn_layer_is_replaced_by_one_made_anew() {
        let (_dir, store) = after_another_boot();
        make_layer(&store, "torn", &[("f", "12345"), ("g", "")]);
        let layer = store.layer(&layer_id("torn")).unwrap().unwrap();
        assert_eq!(fs::read_to_string(layer.fs.join("f")).unwrap(), "12345");
        assert_eq!(store.sweep().unwrap().layers, 0);
        assert!(store.layer(&layer_id("torn")).unwrap().is_some());
    }
}
