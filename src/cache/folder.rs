//! A folder of a shared directory, held open while something in it is removed.
//!
//! Anybody may write to a shared directory, and whoever prunes may be root: no link is followed, also none that takes the place of a
//! folder meanwhile, and only regular files are seen.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::CacheError;
use crate::vocab::Timestamp;

#[derive(Debug)]
pub(super) struct Folder {
    file: OwnedFd,
    path: PathBuf,
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) changed: Timestamp,
}

impl Folder {
    /// Opens a folder below a directory, one name after the other; `None` if there is none.
    pub(super) fn open(directory: &Path, names: &[&str]) -> Result<Option<Folder>, CacheError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut path = directory.to_owned();
        // What the user named may be a link.
        let mut opened = rustix::fs::open(&path, flags, Mode::empty());
        for name in names {
            let Ok(parent) = &opened else { break };
            let inner = rustix::fs::openat(parent, *name, flags | OFlags::NOFOLLOW, Mode::empty());
            path.push(name);
            opened = inner;
        }
        match opened {
            Ok(file) => Ok(Some(Folder { file, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("open", path, error)),
        }
    }

    /// Returns the regular files with names that are text.
    pub(super) fn files(&self) -> Result<Vec<Found>, CacheError> {
        let read = |error| failed("read", self.path.clone(), error);
        let mut found = Vec::new();
        for entry in Dir::read_from(self.file.as_fd()).map_err(read)? {
            let entry = entry.map_err(read)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            let may_be_file =
                matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
            if may_be_file && let Some(file) = self.find(name)? {
                found.push(file);
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Returns a regular file; `None` if there is none of the name.
    pub(super) fn find(&self, name: &str) -> Result<Option<Found>, CacheError> {
        let stat = match rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed("read", self.path.join(name), error)),
        };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_file.then(|| Found {
            name: name.to_owned(),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            changed: Timestamp {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            },
        }))
    }

    /// Removes a file; `false` if there is none.
    pub(super) fn remove(&self, name: &str) -> Result<bool, CacheError> {
        match rustix::fs::unlinkat(&self.file, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed("remove", self.path.join(name), error)),
        }
    }

    /// Gives a file another name in another folder, over what is there; `false` if there is none.
    pub(super) fn rename(
        &self,
        name: &str,
        folder: &Folder,
        new: &str,
    ) -> Result<bool, CacheError> {
        match rustix::fs::renameat(&self.file, name, &folder.file, new) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed("move", self.path.join(name), error)),
        }
    }
}

fn failed(verb: &'static str, path: PathBuf, error: Errno) -> CacheError {
    CacheError::File {
        verb,
        path,
        source: io::Error::from(error),
    }
}
