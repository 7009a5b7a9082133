//! Which groups a builder has made, for the case that it cannot remove them itself.
//!
//! ```text
//! DIRECTORY/NONCE     locked (flock) by the living builder; holds the parents of its groups, each ended by a NUL
//! PARENT/builder-NONCE-N, PARENT/builder-NONCE      the groups
//! ```
//!
//! A register whose lock can be had belongs to a dead builder. Names are random, so where a register is read in another
//! container, in which the same paths lead elsewhere, nothing is found.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statfs};

use super::group;

const PREFIX: &str = "builder-";
const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Nobody's register is longer.
const LONGEST: u64 = 1 << 20;

/// The register of this builder.
#[derive(Debug)]
pub(super) struct Register {
    /// What all its groups' names begin with.
    name: String,
    path: PathBuf,
    file: File,
}

impl Register {
    pub(super) fn open(directory: &Path) -> io::Result<Register> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        loop {
            let nonce = format!("{:016x}", RandomState::new().build_hasher().finish());
            let path = directory.join(&nonce);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            // A sweep may have had it between the two calls.
            if file.metadata()?.nlink() > 0 {
                let name = format!("{PREFIX}{nonce}");
                return Ok(Register { name, path, file });
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down that groups are going to be made in `parent`.
    pub(super) fn note(&self, parent: &Path) -> io::Result<()> {
        let mut line = parent.as_os_str().as_bytes().to_vec();
        line.push(0);
        (&self.file).write_all(&line)
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        let nonce = self.name.strip_prefix(PREFIX).unwrap_or_default();
        if clear(&self.path, nonce) {
            // A sweep of another builder may have been first.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Removes the groups of dead builders that registered them in `directory`.
pub fn sweep_groups(directory: &Path) {
    // None was ever made, or this is for another day.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Some(nonce) = entry.file_name().to_str()
            && clear(&path, nonce)
        {
            fs::remove_file(&path).ok();
        }
    }
}

/// Removes all groups of a register; returns whether none is left.
fn clear(register: &Path, nonce: &str) -> bool {
    let mut bytes = Vec::new();
    let read = File::open(register).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    if read.is_err() {
        return false;
    }
    let parents = bytes
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty());
    let mut is_clear = true;
    for parent in parents.map(|path| Path::new(OsStr::from_bytes(path))) {
        if is_control_group(parent) {
            for group in groups_of(parent, nonce) {
                is_clear &= group::remove(&group);
            }
        }
    }
    is_clear
}

fn groups_of(parent: &Path, nonce: &str) -> Vec<PathBuf> {
    let name = format!("{PREFIX}{nonce}");
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let found = entry.file_name();
            let rest = found.as_bytes().strip_prefix(name.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'-')
        })
        .map(|entry| entry.path())
        .collect()
}

fn is_control_group(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| {
        let kind = found.f_type as u64;
        kind == CGROUP_MAGIC || kind == CGROUP2_MAGIC
    })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_register_of_a_living_builder_stays_and_goes_with_it() {
        let directory = TempDir::new().unwrap();
        let at = directory.path().join("groups");
        sweep_groups(&at);
        let register = Register::open(&at).unwrap();
        register.note(Path::new("/nowhere")).unwrap();
        sweep_groups(&at);
        assert!(register.path.exists());
        let path = register.path.clone();
        drop(register);
        assert!(!path.exists());
    }

    #[test]
    fn the_register_of_a_dead_builder_is_swept_and_ordinary_directories_are_nobodys_groups() {
        let directory = TempDir::new().unwrap();
        let at = directory.path().join("groups");
        let elsewhere = directory.path().join("builder-0123-1");
        fs::create_dir_all(&at).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let parent = directory.path().as_os_str().as_bytes();
        fs::write(at.join("0123"), [parent, b"\0"].concat()).unwrap();
        sweep_groups(&at);
        assert!(!at.join("0123").exists());
        assert!(elsewhere.exists());
    }

    #[test]
    fn groups_of_others_are_not_mistaken_for_ours() {
        let parent = TempDir::new().unwrap();
        for name in [
            "builder-12",
            "builder-12-1",
            "builder-123",
            "builder-1-1",
            "other",
        ] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let mut found = groups_of(parent.path(), "12");
        found.sort();
        let expected = ["builder-12", "builder-12-1"].map(|name| parent.path().join(name));
        assert_eq!(found, expected);
    }
}
