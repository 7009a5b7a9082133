//! Locks that die with their holder.
//!
//! A lock is an exclusive `flock` on a file that exists only while somebody holds or wants it. Each acquisition opens the file
//! anew, so threads exclude each other as processes do. The holder unlinks the file *before* it lets go. Whoever gets the lock
//! of a file that is no longer the one at the path has waited at a closed door: it opens the path again. So nobody holds a
//! lock that a newcomer cannot see.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::lower::Lower;
use super::{Store, StoreError, disk, fault};
use crate::vocab::CacheKey;

/// The right to compute the result of one key; given back on drop, or by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: LockFile,
}

/// What [`Store::try_lock`] found.
#[derive(Debug)]
pub enum TryLock {
    Acquired(Lock),
    /// Somebody else computes it. The number is the one that the holder knows itself by, which in another container is not
    /// ours; `None` where it has not signed yet.
    Held {
        pid: Option<u32>,
    },
}

/// A build's share of the store: while it lives, nothing is pruned.
#[derive(Debug)]
pub struct InUse {
    /// `None` where the file is missing and cannot be made: a store that is read-only or another user's, in which no build
    /// can put anything.
    file: Option<File>,
    /// The same of lower stores, where they let themselves be locked.
    leases: Vec<File>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        // Closing would leave it to a child that was forked a moment ago and has not closed its copies yet.
        for file in self.file.iter().chain(&self.leases) {
            file.unlock().ok();
        }
    }
}

impl Store {
    /// Takes the lock of a key; blocks while another thread or process holds it.
    pub fn lock(&self, key: &CacheKey) -> Result<Lock, StoreError> {
        let path = self.lock_path(key)?;
        let _file = LockFile::acquire(&path)?;
        Ok(Lock { _file })
    }

    /// Takes the lock of a key if nobody has it.
    pub fn try_lock(&self, key: &CacheKey) -> Result<TryLock, StoreError> {
        let path = self.lock_path(key)?;
        Ok(match LockFile::try_acquire(&path)? {
            Some(_file) => TryLock::Acquired(Lock { _file }),
            None => TryLock::Held { pid: holder(&path) },
        })
    }

    /// Takes the lock of a key, waiting for it in steps of at most 50 ms; `None` once `cancelled` says so.
    pub fn lock_wait(
        &self,
        key: &CacheKey,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Lock>, StoreError> {
        let path = self.lock_path(key)?;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(_file) = LockFile::try_acquire(&path)? {
                return Ok(Some(Lock { _file }));
            }
            if cancelled() {
                return Ok(None);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Keeps `prune` away until the value is dropped, that of lower stores where they can be locked. Blocks while one is choosing what goes, which is short.
    pub fn use_shared(&self) -> Result<InUse, StoreError> {
        let path = self.in_use_path();
        let file = match self.open_in_use(&path) {
            Ok(file) => {
                uninterrupted(|| file.lock_shared())
                    .map_err(|error| StoreError::from_io(&path, "lock", error))?;
                Some(file)
            }
            Err(StoreError::ReadOnly { .. } | StoreError::Denied { .. }) => None,
            Err(error) => return Err(error),
        };
        let leases = self.lower_stores().filter_map(Lower::lease).collect();
        Ok(InUse { file, leases })
    }

    /// Takes the store for pruning, or tells who uses it.
    pub(super) fn use_exclusive(&self) -> Result<InUse, StoreError> {
        let path = self.in_use_path();
        let file = self.open_in_use(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(InUse {
                file: Some(file),
                leases: Vec::new(),
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy {
                pids: flock_holders(&file),
                path: self.root().to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(StoreError::from_io(&path, "lock", error)),
        }
    }

    fn open_in_use(&self, path: &Path) -> Result<File, StoreError> {
        // Reading is enough for `flock`, and also right on a read-only file system.
        if let Some(file) = disk::open(path)? {
            return Ok(file);
        }
        self.prepare()?;
        open_lock_file(path)
    }

    fn lock_path(&self, key: &CacheKey) -> Result<PathBuf, StoreError> {
        self.prepare()?;
        Ok(self.path("locks").join(key.to_string()))
    }

    fn in_use_path(&self) -> PathBuf {
        self.path("locks").join("in-use")
    }
}

/// A held lock file.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
    /// Closed after the file was unlinked.
    _file: File,
}

impl LockFile {
    /// Blocks until the lock is ours.
    pub(super) fn acquire(path: &Path) -> Result<LockFile, StoreError> {
        loop {
            let file = open_lock_file(path)?;
            uninterrupted(|| file.lock())
                .map_err(|error| StoreError::from_io(path, "lock", error))?;
            if let Some(lock) = LockFile::admitted(path, file)? {
                return Ok(lock);
            }
        }
    }

    /// Returns `None` if somebody has it.
    pub(super) fn try_acquire(path: &Path) -> Result<Option<LockFile>, StoreError> {
        loop {
            let file = open_lock_file(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::from_io(path, "lock", error));
                }
            }
            if let Some(lock) = LockFile::admitted(path, file)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Tells whether nobody holds it, without leaving a trace.
    pub(super) fn is_free(path: &Path) -> bool {
        match File::open(path) {
            Ok(file) => file.try_lock_shared().is_ok(),
            Err(error) => disk::is_absent(&error),
        }
    }

    /// Checks that the locked file is still the one that others would open, and signs it.
    fn admitted(path: &Path, mut file: File) -> Result<Option<LockFile>, StoreError> {
        let fail = |error| StoreError::from_io(path, "lock", error);
        let ours = file.metadata().map_err(fail)?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => {}
            Ok(_) => return Ok(None),
            Err(error) if disk::is_absent(&error) => return Ok(None),
            Err(error) => return Err(fail(error)),
        }
        // Who holds it is a courtesy; a full disk is no reason to fail. A dead holder's signature is cut off first.
        if file.set_len(0).is_ok() {
            drop(write!(file, "{}", std::process::id()));
        }
        Ok(Some(LockFile {
            path: path.to_owned(),
            _file: file,
        }))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        fault::removal();
        // A file that stays behind is taken over by the next who wants it, or swept.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Opens or makes the file; makes its directory if that is missing.
fn open_lock_file(path: &Path) -> Result<File, StoreError> {
    let result = match open_or_make(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk::make_dirs(path.parent().expect("every lock has a directory"))?;
            open_or_make(path)
        }
        result => result,
    };
    result.map_err(|error| StoreError::from_io(path, "lock", error))
}

/// Opens or makes a file to lock, as it is.
pub(super) fn open_or_make(path: &Path) -> io::Result<File> {
    fault::growth()?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn holder(path: &Path) -> Option<u32> {
    let bytes = disk::read(path, 16).ok()??;
    std::str::from_utf8(&bytes).ok()?.parse().ok()
}

/// Asks the kernel which processes hold an `flock` on this file. Best effort: on some file systems the numbers in
/// `/proc/locks` are others than those of `stat`.
fn flock_holders(file: &File) -> Vec<u32> {
    let (Ok(metadata), Ok(locks)) = (file.metadata(), std::fs::read_to_string("/proc/locks"))
    else {
        return Vec::new();
    };
    let inode = format!(":{}", metadata.ino());
    let mut pids: Vec<u32> = locks
        .lines()
        .filter_map(|line| {
            // `1: FLOCK  ADVISORY  READ 1234 fe:00:5678 0 EOF`; who waits has `->` after the number.
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, "FLOCK", _, _, pid, place, ..] = fields[..] else {
                return None;
            };
            place.ends_with(&inode).then(|| pid.parse().ok())?
        })
        .filter(|&pid| pid != 0)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{key, store};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn threads_exclude_each_other_and_leave_no_file() {
        let (_dir, store) = store();
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (store, inside) = (store.clone(), &inside);
                scope.spawn(move || {
                    for round in 0..200 {
                        let lock = match (thread + round) % 3 {
                            0 => store.lock(&key("k")).unwrap(),
                            1 => store.lock_wait(&key("k"), &|| false).unwrap().unwrap(),
                            _ => match store.try_lock(&key("k")).unwrap() {
                                TryLock::Acquired(lock) => lock,
                                TryLock::Held { .. } => continue,
                            },
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        drop(lock);
                    }
                });
            }
        });
        assert!(disk::names(&store.path("locks")).unwrap().is_empty());
    }

    #[test]
    fn who_holds_it_is_told_and_other_keys_are_free() {
        let (_dir, store) = store();
        let lock = store.lock(&key("a")).unwrap();
        let own = Some(std::process::id());
        assert!(matches!(store.try_lock(&key("a")).unwrap(), TryLock::Held { pid } if pid == own));
        assert!(matches!(
            store.try_lock(&key("b")).unwrap(),
            TryLock::Acquired(_)
        ));
        let calls = AtomicUsize::new(0);
        let cancelled = || calls.fetch_add(1, Ordering::SeqCst) == 2;
        assert!(store.lock_wait(&key("a"), &cancelled).unwrap().is_none());
        drop(lock);
        assert!(matches!(
            store.try_lock(&key("a")).unwrap(),
            TryLock::Acquired(_)
        ));
    }

    #[test]
    fn prune_waits_for_no_build_but_names_it() {
        let (_dir, store) = store();
        let (one, two) = (store.use_shared().unwrap(), store.use_shared().unwrap());
        let error = store.use_exclusive().unwrap_err();
        match &error {
            StoreError::Busy { pids, .. } => {
                assert!(pids.is_empty() || *pids == [std::process::id()])
            }
            other => panic!("{other:?}"),
        }
        assert!(!error.hint().is_empty());
        drop((one, two));
        drop(store.use_exclusive().unwrap());
    }

    #[test]
    fn a_store_is_given_back_though_a_child_still_has_the_descriptor() {
        let (_dir, store) = store();
        let shared = store.use_shared().unwrap();
        let childs = shared.file.as_ref().unwrap().try_clone().unwrap();
        drop(shared);
        let alone = store.use_exclusive().unwrap();
        let childs = (childs, alone.file.as_ref().unwrap().try_clone().unwrap());
        drop(alone);
        drop(store.use_shared().unwrap());
        drop(childs);
    }
}
