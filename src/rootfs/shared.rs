//! Owners of a directory that outlives the steps that use it: a cache, which several steps may use at the same time.
//!
//! As beside a layer, a file beside the directory says what the files in it are where the disk cannot. Each step begins with what
//! is there and leaves what it knows at its end. What another step has added meanwhile stays.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::vocab::Ownership;

use super::error::{During, RootfsError};
use super::ledgers::{note_owners, seed_owners};
use super::owners::Owners;
use super::sidecar::Sidecar;
use super::tree::Tree;

/// How often a directory is read again that changes meanwhile.
const MOST: usize = 8;

/// What was written down of a shared directory when a step began.
#[derive(Debug)]
pub struct SharedOwners {
    seeded: Sidecar,
}

impl SharedOwners {
    /// Returns what the files of `directory` are, and the note of it that the end of the step needs.
    pub fn seed(
        directory: &Path,
        ownership: Ownership,
    ) -> Result<(Owners, SharedOwners), RootfsError> {
        let seeded = Sidecar::read(directory)?;
        let root = open(directory)?;
        let layers = [directory.to_owned()];
        // Files may go meanwhile, which another step has the right to.
        let owners = again(|| seed_owners(ownership, root.as_fd(), &layers, false))?;
        Ok((owners, SharedOwners { seeded }))
    }

    /// Writes down what the files of `directory` are, as `owners` knows them.
    pub fn note(&self, directory: &Path, owners: &Owners) -> Result<(), RootfsError> {
        // One step after the other; closing it gives the lock back.
        let lock = open(directory)?;
        flock(&lock, FlockOperation::LockExclusive).during("lock", shown(directory))?;
        let others = Sidecar::read(directory)?;
        let tree = Tree::open(directory)?.with_owners(owners.clone());
        again(|| note_owners(directory, &tree, &[]))?;
        let mut noted = Sidecar::read(directory)?;
        let mut has_more = false;
        for (path, other) in others.iter() {
            let Some(attributes) = &other.attributes else {
                continue;
            };
            // What this step has known, it knows best.
            if self.seeded.attributes(path).is_none()
                && noted.attributes(path).is_none()
                && tree.stat(path, false)?.is_some()
            {
                noted.set_attributes(path, attributes.clone());
                has_more = true;
            }
        }
        match has_more {
            true => noted.write(directory),
            false => Ok(()),
        }
    }
}

fn open(directory: &Path) -> Result<OwnedFd, RootfsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).during("open", shown(directory))
}

fn shown(directory: &Path) -> &[u8] {
    directory.as_os_str().as_bytes()
}

fn again<T>(attempt: impl Fn() -> Result<T, RootfsError>) -> Result<T, RootfsError> {
    for _ in 1..MOST {
        match attempt() {
            Err(RootfsError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::rootfs::owners::{identity, statx_of};
    use crate::vocab::Attributes;

    fn own(owners: &Owners, path: &Path, uid: u32) {
        let file = fs::File::open(path).unwrap();
        let mut ledger = owners.ledger().unwrap();
        let attributes = Attributes {
            uid,
            gid: uid,
            mode: 0o600,
            ..Attributes::default()
        };
        ledger.insert(identity(&statx_of(file.as_fd()).unwrap()), attributes);
        owners.replace(ledger);
    }

    fn uid_of(directory: &Path, name: &str) -> u32 {
        let (owners, _) = SharedOwners::seed(directory, Ownership::InLedger).unwrap();
        let tree = Tree::open(directory).unwrap().with_owners(owners);
        tree.stat(name.as_bytes(), false).unwrap().unwrap().uid
    }

    #[test]
    fn what_one_step_leaves_the_next_one_knows() {
        let place = tempfile::tempdir().unwrap();
        let cache = place.path().join("fs");
        fs::create_dir(&cache).unwrap();
        let (owners, shared) = SharedOwners::seed(&cache, Ownership::InLedger).unwrap();
        fs::write(cache.join("mine"), "").unwrap();
        fs::create_dir(cache.join("folder")).unwrap();
        fs::write(cache.join("folder/deep"), "").unwrap();
        fs::write(cache.join("plain"), "").unwrap();
        own(&owners, &cache, 7);
        own(&owners, &cache.join("mine"), 1000);
        own(&owners, &cache.join("folder/deep"), 33);
        shared.note(&cache, &owners).unwrap();
        for (name, uid) in [("", 7), ("mine", 1000), ("folder/deep", 33), ("plain", 0)] {
            assert_eq!(uid_of(&cache, name), uid, "{name}");
        }
    }

    #[test]
    fn steps_at_the_same_time_keep_what_each_other_added_and_lose_what_they_took() {
        let place = tempfile::tempdir().unwrap();
        let cache = place.path().join("fs");
        fs::create_dir(&cache).unwrap();
        let (first, shared) = SharedOwners::seed(&cache, Ownership::InLedger).unwrap();
        fs::write(cache.join("old"), "").unwrap();
        own(&first, &cache.join("old"), 5);
        shared.note(&cache, &first).unwrap();

        let (one, shared_one) = SharedOwners::seed(&cache, Ownership::InLedger).unwrap();
        let (two, shared_two) = SharedOwners::seed(&cache, Ownership::InLedger).unwrap();
        for (owners, name, uid) in [(&one, "of-one", 11), (&two, "of-two", 12)] {
            fs::write(cache.join(name), "").unwrap();
            own(owners, &cache.join(name), uid);
        }
        fs::write(cache.join("gone"), "").unwrap();
        own(&one, &cache.join("gone"), 13);
        shared_one.note(&cache, &one).unwrap();
        fs::remove_file(cache.join("gone")).unwrap();
        // Given back to root.
        two.replace({
            let mut ledger = two.ledger().unwrap();
            let file = fs::File::open(cache.join("old")).unwrap();
            ledger.remove(&identity(&statx_of(file.as_fd()).unwrap()));
            ledger
        });
        shared_two.note(&cache, &two).unwrap();
        for (name, uid) in [("of-one", 11), ("of-two", 12), ("old", 0)] {
            assert_eq!(uid_of(&cache, name), uid, "{name}");
        }
        let noted = Sidecar::read(&cache).unwrap();
        assert!(noted.attributes(b"gone").is_none());
    }
}
