//! The few file operations that the store is made of, each failing with its path and verb.
//!
//! Every change of the disk goes through here (or asks `fault` itself), so that a test can end the process before it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::StoreError;
use super::fault;

/// Opens for reading; `None` if there is no such file.
pub(super) fn open(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(StoreError::from_io(path, "open", error)),
    }
}

/// Reads a whole small file; `None` if there is no such file. Longer than `limit` is an error of kind `InvalidData`.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    match open(path)? {
        Some(file) => read_open(&file, limit)
            .map(Some)
            .map_err(|error| StoreError::from_io(path, "read", error)),
        None => Ok(None),
    }
}

/// Reads an open file to its end.
pub(super) fn read_open(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes)
}

/// Makes a directory; one that is there is as good.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), StoreError> {
    let make = || {
        fault::growth()?;
        DirBuilder::new().mode(mode).create(path)
    };
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result.map_err(|error| StoreError::from_io(path, "make the directory", error)),
    }
}

/// Makes a directory with its parents.
pub(super) fn make_dirs(path: &Path) -> Result<(), StoreError> {
    fault::growth()
        .and_then(|()| DirBuilder::new().recursive(true).mode(0o700).create(path))
        .map_err(|error| StoreError::from_io(path, "make the directory", error))
}

/// Writes a file that nobody reads yet.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<File, StoreError> {
    let write = || {
        fault::growth()?;
        let mut file = File::create_new(path)?;
        fault::growth()?;
        io::Write::write_all(&mut file, bytes)?;
        Ok(file)
    };
    write().map_err(|error| StoreError::from_io(path, "write", error))
}

/// Puts a complete file in its place, over what is there. Makes the parent directory if it is missing.
pub(super) fn rename_over(from: &Path, to: &Path) -> Result<(), StoreError> {
    let rename = || {
        fault::growth()?;
        fs::rename(from, to)
    };
    let result = match rename() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && from.exists() => {
            make_dirs(to.parent().expect("every place in the store has a parent"))?;
            rename()
        }
        result => result,
    };
    result.map_err(|error| StoreError::from_io(to, "write", error))
}

/// How a directory came to its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Done,
    /// Something that is not empty has that name.
    Occupied,
}

/// Puts a complete directory in its place, unless a non-empty one is there. Makes the parent directory if it is missing.
pub(super) fn place_dir(from: &Path, to: &Path) -> Result<Placed, StoreError> {
    let rename = || {
        fault::growth()?;
        fs::rename(from, to)
    };
    let result = match rename() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && from.exists() => {
            make_dirs(to.parent().expect("every place in the store has a parent"))?;
            rename()
        }
        result => result,
    };
    match result {
        Ok(()) => Ok(Placed::Done),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Placed::Occupied)
        }
        Err(error) => Err(StoreError::from_io(to, "put in place", error)),
    }
}

/// Lets two directories change places in one step, so that the name is never without one.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    fault::growth()?;
    Ok(rustix::fs::renameat_with(
        CWD,
        one,
        CWD,
        other,
        RenameFlags::EXCHANGE,
    )?)
}

/// Removes a file; tells whether it was there.
pub(super) fn remove_file(path: &Path) -> Result<bool, StoreError> {
    fault::removal();
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(StoreError::from_io(path, "remove", error)),
    }
}

/// Returns the names in a directory, sorted; none if it is missing.
pub(super) fn names(path: &Path) -> Result<Vec<OsString>, StoreError> {
    let fail = |error| StoreError::from_io(path, "list", error);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(fail)?.file_name());
    }
    names.sort();
    Ok(names)
}

/// Returns `(name, path)` of what a directory holds, for names that are valid UTF-8; others are none of ours.
pub(super) fn entries(path: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    Ok(names(path)?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .map(|name| {
            let full = path.join(&name);
            (name, full)
        })
        .collect())
}

/// Waits until a file's bytes, or a directory's names, are on the disk. A missing one is skipped.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    let Some(file) = open(path)? else {
        return Ok(());
    };
    fault::growth()
        .and_then(|()| match file.sync_data() {
            // Some file systems (FUSE, 9p) cannot sync a directory; then there is nothing to wait for.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result,
        })
        .map_err(|error| StoreError::from_io(path, "sync", error))?;
    fault::synced(path);
    Ok(())
}

/// Tells whether an error means that the path names nothing.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
