//! Cache mounts: directories that steps of different builds write to.
//!
//! In: the key of a cache and how a step shares it. Out: a directory that is the step's for as long as the claim lives. A cache
//! may have several copies, numbered from 0: a step that shares its cache with nobody gets one that is free, or another one.
//!
//! ```text
//! mounts/KEY/N/fs/     what the step sees
//! mounts/KEY/N/lock    flock-ed by the steps that see it, shared or exclusive; its time is the last use
//! ```
//!
//! A copy appears complete, by one rename, and goes only while no build runs (see `prune`), or when it is empty and another takes
//! its place. A lock file goes with its copy, so whoever has locked the one that is there has locked what everybody else sees. What is in a cache is the steps' own business:
//! no sum is kept, and a crash of the machine may tear files in it, as it may anywhere.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::lock::open_or_make;
use super::session::Session;
use super::{Store, StoreError, disk, tree};
use crate::vocab::Digest;

/// How a step shares a cache with steps that run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// With all that share it the same way.
    Together,
    /// With nobody, on whichever copy is free.
    Apart,
    /// With nobody, always on the first copy.
    InTurn,
}

/// What [`Store::claim_mount`] found.
#[derive(Debug)]
pub enum MountClaim {
    Ready(CacheDirectory),
    /// The copy that the step would get is not there: make it, place it, and claim again.
    Missing(NewCacheDirectory),
    /// Wait and claim again. The number is the one that the holder knows itself by, if one holder has it alone.
    Held {
        pid: Option<u32>,
    },
}

/// A copy of a cache, the step's for as long as this lives.
#[derive(Debug)]
pub struct CacheDirectory {
    fs: PathBuf,
    /// Closing it gives the lock back.
    _lock: File,
}

impl CacheDirectory {
    /// Returns the directory to mount.
    pub fn path(&self) -> &Path {
        &self.fs
    }

    /// Tells whether it is the copy that a step gets who is alone.
    pub fn is_first(&self) -> bool {
        let copy = self.fs.parent().and_then(Path::file_name);
        copy.is_some_and(|number| number == FIRST)
    }
}

const FIRST: &str = "0";

/// A copy that is being made. Dropped without [`NewCacheDirectory::place`], it leaves nothing.
#[derive(Debug)]
pub struct NewCacheDirectory {
    dir: PathBuf,
    place: PathBuf,
    /// Keeps the folder that `dir` is in.
    _session: Arc<Session>,
}

impl NewCacheDirectory {
    /// Returns the directory to fill: empty, and only the caller's.
    pub fn path(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// Makes it the copy that later claims find, unless another process was quicker.
    pub fn place(self) -> Result<(), StoreError> {
        disk::place_dir(&self.dir, &self.place).map(drop)
    }

    /// Does the same where there is an empty copy, unless somebody uses that; tells whether later claims find this one.
    pub fn place_over_empty(self) -> Result<bool, StoreError> {
        if self.place.exists() {
            let Locked::Mine(_lock) = lock(&self.place.join("lock"), Share::InTurn)? else {
                return Ok(false);
            };
            if !disk::names(&self.place.join("fs"))?.is_empty() {
                return Ok(false);
            }
            // At once, and the lock file with it: whoever waits for that one sees that it is not the copy's any more.
            let away = self._session.unique();
            disk::rename_over(&self.place, &away)?;
            drop(tree::remove(&away));
        }
        Ok(disk::place_dir(&self.dir, &self.place)? == disk::Placed::Done)
    }

    /// Returns a directory on the same disk for what is needed to fill this one. What is in it goes with this, or with the copy.
    pub fn beside(&self) -> &Path {
        &self.dir
    }
}

impl Drop for NewCacheDirectory {
    fn drop(&mut self) {
        // Nothing is there if it was placed; what cannot be removed goes with the session.
        drop(tree::remove(&self.dir));
    }
}

impl Store {
    /// Takes a copy of a cache, if there is one and nobody has it who does not share it.
    pub fn claim_mount(&self, key: &Digest, share: Share) -> Result<MountClaim, StoreError> {
        let copies = self.path("mounts").join(key.hex());
        let mut number = 0;
        loop {
            let copy = copies.join(number.to_string());
            let fs = copy.join("fs");
            if !fs.is_dir() {
                match clear(&copy)? {
                    Cleared::Nothing => return self.new_copy(copy).map(MountClaim::Missing),
                    Cleared::Copy => continue,
                    Cleared::Held => return Ok(MountClaim::Held { pid: None }),
                }
            }
            match lock(&copy.join("lock"), share)? {
                Locked::Mine(lock) => {
                    return Ok(MountClaim::Ready(CacheDirectory { fs, _lock: lock }));
                }
                Locked::Held(pid) if share == Share::InTurn => return Ok(MountClaim::Held { pid }),
                // Somebody has it alone.
                Locked::Held(_) => number += 1,
                Locked::Gone => {}
            }
        }
    }

    /// Tells whether the first copy of a cache is there and holds anything.
    pub fn mount_is_filled(&self, key: &Digest) -> Result<bool, StoreError> {
        Ok(!disk::names(&self.first_copy(key).join("fs"))?.is_empty())
    }

    /// Begins the first copy of a cache, whether there is one or not.
    pub fn new_mount(&self, key: &Digest) -> Result<NewCacheDirectory, StoreError> {
        self.new_copy(self.first_copy(key))
    }

    fn first_copy(&self, key: &Digest) -> PathBuf {
        self.path("mounts").join(key.hex()).join(FIRST)
    }

    fn new_copy(&self, place: PathBuf) -> Result<NewCacheDirectory, StoreError> {
        let session = self.session()?;
        let new = NewCacheDirectory {
            dir: session.unique(),
            place,
            _session: session,
        };
        disk::make_dir(&new.dir, 0o700)?;
        disk::make_dir(&new.path(), 0o755)?;
        disk::write_private(&new.dir.join("lock"), b"")?;
        Ok(new)
    }
}

/// What is at the place of a copy that was not there.
enum Cleared {
    Nothing,
    /// Somebody has placed one meanwhile.
    Copy,
    /// Somebody else is clearing.
    Held,
}

/// Removes what a crash of the machine has left of a copy, which is none. Only with its lock: another process may have been
/// quicker, and a step of it may be at work in what it has placed.
fn clear(copy: &Path) -> Result<Cleared, StoreError> {
    let path = copy.join("lock");
    let fail = |error| StoreError::from_io(&path, "lock", error);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Cleared::Nothing),
        Err(error) => return Err(fail(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Cleared::Held),
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    if copy.join("fs").is_dir() {
        return Ok(Cleared::Copy);
    }
    tree::remove(copy)?;
    Ok(Cleared::Nothing)
}

/// What came of locking a copy.
enum Locked {
    Mine(File),
    /// By whom, if that is known.
    Held(Option<u32>),
    /// It is not there any more, or another one is.
    Gone,
}

/// Locks a copy and notes the use.
fn lock(path: &Path, share: Share) -> Result<Locked, StoreError> {
    let fail = |error| StoreError::from_io(path, "lock", error);
    let mut file = match open_or_make(path) {
        Ok(file) => file,
        Err(error) if disk::is_absent(&error) => return Ok(Locked::Gone),
        Err(error) => return Err(fail(error)),
    };
    let locked = match share {
        Share::Together => file.try_lock_shared(),
        Share::Apart | Share::InTurn => file.try_lock(),
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = disk::read(path, 16).ok().flatten().unwrap_or_default();
            return Ok(Locked::Held(String::from_utf8_lossy(&holder).parse().ok()));
        }
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let opened = file.metadata().map(identity).map_err(fail)?;
    if std::fs::metadata(path).map(identity).ok() != Some(opened) {
        return Ok(Locked::Gone);
    }
    // Who has it and when is a courtesy; a full disk is no reason to fail.
    let signed = file.set_len(0).and_then(|()| match share {
        Share::Together => Ok(()),
        Share::Apart | Share::InTurn => write!(file, "{}", std::process::id()),
    });
    drop(signed.and_then(|()| file.set_modified(SystemTime::now())));
    Ok(Locked::Mine(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PruneOptions;
    use crate::store::tests::store;
    use std::time::Duration;

    fn key(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    /// Claims, making what is missing with the file `made` in it.
    fn claim(store: &Store, name: &str, share: Share) -> Result<CacheDirectory, Option<u32>> {
        loop {
            match store.claim_mount(&key(name), share).unwrap() {
                MountClaim::Ready(directory) => return Ok(directory),
                MountClaim::Held { pid } => return Err(pid),
                MountClaim::Missing(new) => {
                    std::fs::write(new.path().join("made"), name).unwrap();
                    new.place().unwrap();
                }
            }
        }
    }

    fn number(directory: &CacheDirectory) -> String {
        let copy = directory.path().parent().unwrap();
        copy.file_name().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn what_one_step_writes_the_next_one_finds() {
        let (_dir, store) = store();
        let first = claim(&store, "a", Share::Together).unwrap();
        std::fs::write(first.path().join("f"), "x").unwrap();
        drop(first);
        for share in [Share::InTurn, Share::Apart, Share::Together] {
            let next = claim(&store, "a", share).unwrap();
            assert_eq!(std::fs::read(next.path().join("f")).unwrap(), b"x");
        }
        let other = claim(&store, "b", Share::Together).unwrap();
        assert!(!other.path().join("f").exists());
    }

    #[test]
    fn sharing_decides_who_waits_and_who_gets_another() {
        let (_dir, store) = store();
        let one = claim(&store, "a", Share::Together).unwrap();
        let two = claim(&store, "a", Share::Together).unwrap();
        assert_eq!(one.path(), two.path());
        assert_eq!(claim(&store, "a", Share::InTurn).unwrap_err(), None);
        let apart = claim(&store, "a", Share::Apart).unwrap();
        assert_eq!(number(&apart), "1");
        assert_eq!(number(&claim(&store, "a", Share::Apart).unwrap()), "2");
        drop((one, two));
        let turn = claim(&store, "a", Share::InTurn).unwrap();
        assert_eq!(number(&turn), "0");
        let pid = std::process::id();
        assert_eq!(claim(&store, "a", Share::InTurn).unwrap_err(), Some(pid));
        // Copy 0 is taken by turns, 1 by one who is apart.
        assert_eq!(number(&claim(&store, "a", Share::Together).unwrap()), "2");
    }

    #[test]
    fn of_two_who_make_one_copy_the_first_wins() {
        let (_dir, store) = store();
        let new = || match store.claim_mount(&key("a"), Share::Together).unwrap() {
            MountClaim::Missing(new) => new,
            other => panic!("{other:?}"),
        };
        let (one, two) = (new(), new());
        std::fs::write(one.path().join("f"), "one").unwrap();
        one.place().unwrap();
        two.place().unwrap();
        let found = claim(&store, "a", Share::Together).unwrap();
        assert_eq!(std::fs::read(found.path().join("f")).unwrap(), b"one");
    }

    #[test]
    fn a_filled_copy_takes_the_place_of_an_empty_one_that_nobody_uses() {
        let (_dir, store) = store();
        let filled = || {
            let new = store.new_mount(&key("a")).unwrap();
            std::fs::write(new.path().join("f"), "restored").unwrap();
            new
        };
        let is_filled = || store.mount_is_filled(&key("a")).unwrap();
        assert!(!is_filled());
        assert!(filled().place_over_empty().unwrap());
        assert!(is_filled());
        // One that holds something stays.
        assert!(!filled().place_over_empty().unwrap());

        let copy = claim(&store, "a", Share::InTurn).unwrap();
        assert!(copy.is_first());
        std::fs::remove_file(copy.path().join("f")).unwrap();
        assert!(!is_filled());
        // So does one that somebody uses.
        assert!(!filled().place_over_empty().unwrap());
        let lock = copy.path().with_file_name("lock");
        let waiting = File::options().read(true).write(true).open(&lock).unwrap();
        drop(copy);
        assert!(filled().place_over_empty().unwrap());
        let again = claim(&store, "a", Share::InTurn).unwrap();
        let text = std::fs::read(again.path().join("f")).unwrap();
        assert_eq!(text, b"restored");
        // Whoever waited for the lock of the old one has not got this one.
        waiting.try_lock().unwrap();
        assert_ne!(
            waiting.metadata().unwrap().ino(),
            std::fs::metadata(&lock).unwrap().ino()
        );
    }

    #[test]
    fn a_lock_that_is_not_the_copys_any_more_is_none() {
        let (_dir, store) = store();
        drop(claim(&store, "a", Share::Together).unwrap());
        let gone = store.path("mounts").join(key("a").hex()).join("7/lock");
        assert!(matches!(lock(&gone, Share::InTurn).unwrap(), Locked::Gone));
    }

    #[test]
    fn a_torn_copy_is_made_again() {
        let (_dir, store) = store();
        let path = claim(&store, "a", Share::Together)
            .unwrap()
            .path()
            .to_owned();
        std::fs::remove_dir_all(path).unwrap();
        let again = claim(&store, "a", Share::Together).unwrap();
        assert!(again.path().join("made").exists());
    }

    #[test]
    fn what_somebody_placed_meanwhile_is_not_cleared_away() {
        let (_dir, store) = store();
        let claimed = claim(&store, "a", Share::Together).unwrap();
        let copy = claimed.path().parent().unwrap().to_owned();
        assert!(matches!(clear(&copy).unwrap(), Cleared::Held));
        drop(claimed);
        assert!(matches!(clear(&copy).unwrap(), Cleared::Copy));
        assert!(copy.join("fs/made").exists());
        std::fs::remove_dir_all(copy.join("fs")).unwrap();
        assert!(matches!(clear(&copy).unwrap(), Cleared::Nothing));
        assert!(!copy.exists());
        assert!(matches!(clear(&copy).unwrap(), Cleared::Nothing));
    }

    #[test]
    fn prune_takes_caches_by_their_last_use() {
        let (_dir, store) = store();
        let day = Duration::from_secs(24 * 60 * 60);
        for (name, days) in [("old", 30), ("new", 1)] {
            let claimed = claim(&store, name, Share::Together).unwrap();
            std::fs::write(claimed.path().join("f"), "x".repeat(1000)).unwrap();
            let lock = claimed.path().with_file_name("lock");
            drop(claimed);
            let lock = File::options().write(true).open(lock).unwrap();
            lock.set_modified(SystemTime::now() - day * days).unwrap();
        }
        let there = |name: &str| store.path("mounts").join(key(name).hex()).exists();
        let usage = store.disk_usage().unwrap();
        assert_eq!((usage.mounts.count, usage.mounts.bytes), (2, 2006));
        assert_eq!(usage.mounts.reclaimable, 2006);
        let prune = |options: PruneOptions| {
            let pruned = store.prune(&options).unwrap();
            assert!(pruned.failures.is_empty(), "{:?}", pruned.failures);
            pruned.mounts.count
        };
        assert_eq!(prune(PruneOptions::default()), 0);
        let older_than = |days| PruneOptions {
            older_than: Some(day * days),
            ..PruneOptions::default()
        };
        assert_eq!(prune(older_than(40)), 0);
        assert_eq!(prune(older_than(7)), 1);
        assert!(!there("old") && there("new"));
        let keep = |bytes| PruneOptions {
            keep_bytes: Some(bytes),
            ..PruneOptions::default()
        };
        assert_eq!(prune(keep(1003)), 0);
        assert_eq!(prune(keep(1002)), 1);
        drop(claim(&store, "again", Share::Apart).unwrap());
        let all = PruneOptions {
            all: true,
            ..PruneOptions::default()
        };
        assert_eq!(prune(all), 1);
        assert!(disk::entries(&store.path("mounts")).unwrap().is_empty());
    }
}
