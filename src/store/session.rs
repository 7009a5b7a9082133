//! A process's own folder below `tmp`, and the end of the folders of dead processes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::lock::LockFile;
use super::{Store, StoreError, disk, fault, tree};

/// A folder that exists while its lock is held. Everything incomplete is in it, under a name used once.
#[derive(Debug)]
pub(super) struct Session {
    dir: PathBuf,
    next: AtomicU64,
    /// Dropped after `Drop::drop` has removed the folder.
    _lock: LockFile,
}

/// What [`Store::sweep`] has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Folders of processes that died.
    pub sessions: usize,
    /// Lock files of processes that died.
    pub locks: usize,
    /// Layers that a crash of the machine had torn.
    pub layers: usize,
    /// Things that could not be removed now; a later sweep tries again.
    pub left: usize,
}

impl Session {
    /// Makes a folder below `tmp`. The lock comes first: a folder whose lock can be had belongs to nobody.
    pub(super) fn start(tmp: &Path) -> Result<Session, StoreError> {
        let name = format!("{}-{:016x}", std::process::id(), unpredictable());
        let lock = LockFile::acquire(&tmp.join(format!("{name}.lock")))?;
        let dir = tmp.join(name);
        disk::make_dir(&dir, 0o700)?;
        Ok(Session {
            dir,
            next: AtomicU64::new(0),
            _lock: lock,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns a path that nobody else uses; nothing is there yet.
    pub(super) fn unique(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.dir.join(number.to_string())
    }

    /// Writes a file of known content to its place.
    pub(super) fn put(&self, to: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let from = self.unique();
        let result = disk::write_private(&from, bytes).and_then(|_| disk::rename_over(&from, to));
        if result.is_err() {
            // Room is what is missing; the session's end would remove it too.
            drop(disk::remove_file(&from));
        }
        result
    }

    /// Writes a file of known content to its place and waits until it is on the disk.
    pub(super) fn put_synced(&self, to: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let from = self.unique();
        let result = disk::write_private(&from, bytes)
            .and_then(|_| disk::sync(&from))
            .and_then(|()| disk::rename_over(&from, to));
        if result.is_err() {
            drop(disk::remove_file(&from));
        }
        result?;
        fault::synced(to);
        disk::sync(to.parent().expect("every place in the store has a parent"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be removed here (outside the namespace that made it) is left to a sweep.
        drop(tree::remove(&self.dir));
    }
}

impl Store {
    /// Removes what dead processes left: their folders, their locks, and layers that a crash of the machine has torn.
    ///
    /// Called by a writer after it entered its namespace, because trees may belong to other IDs. A living process's things
    /// are not touched. On a read-only store there is nothing to do.
    pub fn sweep(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for name in self.session_names()? {
            match self.sweep_session(&name) {
                Ok(done) => swept.sessions += usize::from(done),
                Err(StoreError::ReadOnly { .. }) => return Ok(swept),
                Err(_) => swept.left += 1,
            }
        }
        for (name, path) in disk::entries(&self.path("locks"))? {
            if name == "in-use" {
                continue;
            }
            // Having it is enough: a lock removes its file when it is dropped.
            match LockFile::try_acquire(&path) {
                Ok(lock) => swept.locks += usize::from(lock.is_some()),
                Err(StoreError::ReadOnly { .. }) => return Ok(swept),
                Err(_) => swept.left += 1,
            }
        }
        for (name, path) in disk::entries(&self.path("contexts"))? {
            if name.len() != 64 && is_older_than_a_day(&path) {
                // Half written, by a process that died.
                drop(disk::remove_file(&path));
            }
        }
        self.settle_unsynced(&mut swept)?;
        Ok(swept)
    }

    /// Returns the names of all sessions, of which only a folder or only a lock may be left.
    pub(super) fn session_names(&self) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> = disk::entries(&self.path("tmp"))?
            .into_iter()
            .map(|(name, _)| match name.strip_suffix(".lock") {
                Some(session) => session.to_owned(),
                None => name,
            })
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Removes one session if its process is dead.
    fn sweep_session(&self, name: &str) -> Result<bool, StoreError> {
        let tmp = self.path("tmp");
        let Some(_lock) = LockFile::try_acquire(&tmp.join(format!("{name}.lock")))? else {
            return Ok(false);
        };
        tree::remove(&tmp.join(name))?;
        Ok(true)
    }
}

fn is_older_than_a_day(path: &Path) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| {
        SystemTime::now()
            .duration_since(modified)
            .is_ok_and(|age| age > Duration::from_secs(24 * 60 * 60))
    })
}

/// Process numbers repeat, between boots and between containers that share a store.
fn unpredictable() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_le_bytes(bytes),
        // No kernel that can run a build lacks it; the clock still tells two sessions apart.
        _ => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |age| age.as_nanos() as u64),
    }
}
