//! What a build knows of the mounts that travel: places, what was restored, what could be written to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::Place;
use crate::cache::mounts::{Index, MountName, Version};
use crate::store::{CacheDirectory, Share};
use crate::vocab::{Digest, Event, MountChoice, Stream, VertexId};
use crate::worker::Machine;
use crate::worker::mounts::stricter;

/// A place that mounts are restored from.
#[derive(Debug)]
pub struct MountsFrom {
    pub place: Place,
    pub choice: MountChoice,
    /// Bytes of the largest mount.
    pub most: u64,
}

/// A place that mounts are saved to.
#[derive(Debug)]
pub struct MountsTo {
    pub place: Place,
    pub choice: MountChoice,
    /// Bytes of the largest mount.
    pub most: u64,
    /// A place that takes nothing fails no build.
    pub ignore_error: bool,
}

/// What a build knows of mounts that travel.
#[derive(Default)]
pub(in crate::worker) struct Travel {
    pub(super) from: Vec<MountsFrom>,
    pub(super) to: Vec<MountsTo>,
    /// By the key of the directory. Held while it is restored.
    pub(super) seen: Mutex<HashMap<Digest, Arc<Mutex<Seen>>>>,
    /// Directories that steps could write to.
    pub(super) used: Mutex<BTreeMap<Digest, Used>>,
    /// Places that have failed.
    pub(super) silent: Mutex<HashSet<String>>,
    pub(super) tasks: AtomicU32,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) is_done: bool,
    pub(super) origin: Option<Origin>,
}

/// What a directory was restored from.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) place: String,
    pub(super) version: Version,
    pub(super) index: Index,
}

#[derive(Clone)]
pub(super) struct Used {
    pub(super) name: MountName,
    pub(super) share: Share,
}

impl Travel {
    pub(in crate::worker) fn new(from: Vec<MountsFrom>, to: Vec<MountsTo>) -> Travel {
        Travel {
            from,
            to,
            ..Travel::default()
        }
    }

    /// Notes that a step gets a directory that it can write to.
    pub(in crate::worker) fn note_use(
        &self,
        key: Digest,
        directory: &CacheDirectory,
        used: (MountName, Share),
    ) {
        let (name, share) = used;
        if !directory.is_first() || !self.to.iter().any(|to| to.choice.has(&name.id)) {
            return;
        }
        let mut all = locked(&self.used);
        let known = all.entry(key).or_insert(Used { name, share });
        known.share = stricter(known.share, share);
    }
}

impl Machine<'_> {
    /// Adds a line to a task.
    pub(super) fn tell(&self, vertex: VertexId, line: String) {
        self.events.emit(Event::Output {
            vertex,
            stream: Stream::Stderr,
            bytes: line.into_bytes(),
        });
    }
}

/// Returns an id as the user wrote it.
pub(super) fn shown(id: &str) -> &str {
    id.strip_prefix('/').unwrap_or(id)
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
