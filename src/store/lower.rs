//! State directories below this one: looked into after it, and never written to.
//!
//! In: directories that somebody else has made and may be changing: another user's, on a read-only mount, on a network file
//! system, copied into an image, torn, of another format. Out: what is in them and can be trusted. Whatever cannot be read is not
//! there; no error of a lower store ends a build.
//!
//! No file is made in a lower store, no lock file either, no time is set, nothing damaged is removed. Where its `locks/in-use` is
//! there and can be locked, builds hold it shared, as its own builds do, and its `prune` waits for them.
//!
//! # Which trees are used in place
//!
//! Blobs have their digests and records name their key, so they may be copied in any way. A tree may not: most ways of copying
//! lose deletion marks, attributes, owners or set-id bits, and the next layer on top would tell of none of it. So a tree counts
//! only
//!
//! - where it was made: `layer.json` has the inode number and the change time of `fs`, which no copy has both, and which a
//!   `chmod -R` changes;
//! - if it reached the disk: one that is marked as unsynced by another boot than this is added up first;
//! - if its marks and owners look right from here: whoever has entered its namespace compares the store's witness, and refuses
//!   the kind ([`Store::refuse_trees`]) where a mount hides attributes, or ids are mapped otherwise than they were.
//!
//! A layer whose tree does not count is unpacked into the upper store from its blob, if it has one, and else not there.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::home::FORMAT;
use super::layers::{self, OWNERSHIPS, StoredLayer};
use super::{Layer, StoreError, disk, tree, unsynced};
use crate::vocab::{Digest, LayerId, Ownership};

/// How often, and after which pause, a lower store that is being pruned is asked again: two seconds in all.
const ASK_AGAIN: (u32, Duration) = (40, Duration::from_millis(50));

/// A state directory that is only read.
#[derive(Debug)]
pub(super) struct Lower {
    /// As it was given.
    root: PathBuf,
    /// `root/v1`
    home: PathBuf,
    /// Layers that a crash of the machine which made them may have torn.
    suspects: HashSet<LayerId>,
    /// Suspects that were added up, and whether they are whole.
    verdicts: Mutex<HashMap<(Ownership, LayerId), bool>>,
    /// Kinds of trees that look wrong from here.
    refused: Mutex<HashSet<Ownership>>,
}

/// A lower store, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LowerStore {
    /// As it was given.
    pub root: PathBuf,
    /// Why nothing of it is used, if so.
    pub problem: Option<String>,
}

impl Lower {
    /// Opens a state directory; else says why nothing of it can be used.
    pub(super) fn open(root: &Path) -> Result<Lower, String> {
        let home = std::path::absolute(root)
            .map_err(|error| error.to_string())?
            .join("v1");
        let format = match File::open(home.join("format")) {
            Ok(file) => read(&file, 4096).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(match root.is_dir() {
                    false => "there is no such directory".to_owned(),
                    true if root.join("v2").is_dir() => {
                        "it was made by a later version of builder".to_owned()
                    }
                    true => "it is no state directory".to_owned(),
                });
            }
            Err(error) => return Err(error.to_string()),
        };
        if format.trim_ascii() != FORMAT.as_bytes() {
            return Err(format!("it has another format, wanted `{FORMAT}`"));
        }
        let suspects = unsynced::suspects(&home.join("unsynced"))
            .map_err(|error| format!("its layers cannot be told whole from torn: {error}"))?;
        Ok(Lower {
            root: root.to_owned(),
            home,
            suspects,
            verdicts: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// Opens a regular file below the store; anything else is not there.
    pub(super) fn file(&self, path: &Path) -> Option<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
        file.metadata().ok()?.is_file().then_some(file)
    }

    /// Reads a whole file of at most `limit` bytes.
    pub(super) fn bytes(&self, path: &Path, limit: u64) -> Option<Vec<u8>> {
        read(&self.file(path)?, limit)
    }

    /// Returns the length of a regular file.
    pub(super) fn size(&self, path: &Path) -> Option<u64> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Returns a layer's tree if it can be used where it is.
    pub(super) fn layer(&self, ownership: Ownership, id: &LayerId) -> Option<Layer> {
        if unpoisoned(&self.refused).contains(&ownership) {
            return None;
        }
        let dir = layers::layer_dir_in(&self.home, ownership, id);
        let bytes = self.bytes(&dir.join("layer.json"), 4096)?;
        let recorded: StoredLayer = serde_json::from_slice(&bytes).ok()?;
        let fs = dir.join("fs");
        if !recorded.is_the_original(&fs) || !recorded.has_whole_ledger(&dir) {
            return None;
        }
        if self.suspects.contains(id) && !self.is_whole(ownership, id, &fs, recorded.size) {
            return None;
        }
        Some(Layer {
            fs,
            size: recorded.size,
            is_below: true,
        })
    }

    /// Tells whether a layer's tree of any kind can be used where it is.
    pub(super) fn has_layer(&self, ownership: Option<Ownership>, id: &LayerId) -> bool {
        match ownership {
            Some(ownership) => self.layer(ownership, id).is_some(),
            None => OWNERSHIPS
                .into_iter()
                .any(|ownership| self.layer(ownership, id).is_some()),
        }
    }

    /// Adds up a suspect, once.
    fn is_whole(&self, ownership: Ownership, id: &LayerId, fs: &Path, size: u64) -> bool {
        let key = (ownership, *id);
        if let Some(verdict) = unpoisoned(&self.verdicts).get(&key) {
            return *verdict;
        }
        let is_whole = match tree::size(fs) {
            Ok(found) => found == size,
            // Looked at from outside of the namespace: no verdict.
            Err(StoreError::Denied { .. }) => return false,
            Err(_) => false,
        };
        unpoisoned(&self.verdicts).insert(key, is_whole);
        is_whole
    }

    /// Leaves trees of a kind out from now on.
    pub(super) fn refuse(&self, ownership: Ownership) {
        unpoisoned(&self.refused).insert(ownership);
    }

    /// Tells whether trees of a kind are used, as far as is known, and there are any.
    pub(super) fn has_trees(&self, ownership: Ownership) -> bool {
        let dir = layers::layers_dir_in(&self.home, ownership);
        !unpoisoned(&self.refused).contains(&ownership)
            && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Tells whether any tree of a kind can be used where it is.
    pub(super) fn has_usable_trees(&self, ownership: Ownership) -> bool {
        let dir = layers::layers_dir_in(&self.home, ownership);
        let names = disk::names(&dir).unwrap_or_default();
        let ids = names.iter().filter_map(|name| name.to_str());
        ids.filter_map(Digest::from_hex)
            .any(|id| self.layer(ownership, &LayerId(id)).is_some())
    }

    /// Keeps the store's own `prune` away for as long as the file is open. `None` where nothing can be locked, as on another
    /// machine's disk, and where somebody holds it for long: whoever uses trees looks afterwards whether they are still there.
    pub(super) fn lease(&self) -> Option<File> {
        let file = self.file(&self.home.join("locks/in-use"))?;
        let (times, pause) = ASK_AGAIN;
        for _ in 0..times {
            match file.try_lock_shared() {
                Ok(()) => return Some(file),
                Err(std::fs::TryLockError::WouldBlock) => thread::sleep(pause),
                // No locks on this file system.
                Err(std::fs::TryLockError::Error(_)) => return None,
            }
        }
        None
    }
}

impl StoredLayer {
    /// Tells whether the tree is the one that was made, where it was made.
    fn is_the_original(&self, fs: &Path) -> bool {
        self.original.is_some() && self.original == original(fs)
    }

    /// Tells whether the file of owners beside a tree is as long as it was.
    pub(super) fn has_whole_ledger(&self, dir: &Path) -> bool {
        let found = std::fs::metadata(dir.join("fs.ledger")).ok();
        let found = found.map(|metadata| metadata.len());
        self.ledger.is_none_or(|wanted| found == Some(wanted))
    }
}

/// Returns what tells a tree from its copies: the inode number of its root, and the time of that inode's last change, which
/// cannot be set. `None` if it cannot be had.
pub(super) fn original(fs: &Path) -> Option<(u64, i64, i64)> {
    let metadata = std::fs::symlink_metadata(fs).ok()?;
    let original = (metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
    metadata.is_dir().then_some(original)
}

fn read(file: &File, limit: u64) -> Option<Vec<u8>> {
    let length = file.metadata().ok()?.len();
    if length > limit {
        return None;
    }
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(limit + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= limit).then_some(bytes)
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
