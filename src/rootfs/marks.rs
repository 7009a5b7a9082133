//! Deletions and opaque directories in a layer directory: on disk where it takes them, else beside it.
//!
//! A layer directory says that a name is deleted by a character device 0:0, and that a directory hides what is below it by the
//! attribute `user.overlay.opaque`. overlayfs takes no such device from anybody, older kernels' tmpfs takes no such attribute.
//! Then the mark goes into the [`Sidecar`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{During, RootfsError, Shown, rooted};
use super::resolve::{READ_DIRECTORY, open_directory_beneath, split_last};
use super::sidecar::Sidecar;
use super::tree::{stat_at, stat_of, times};
use super::xattr;

/// Marks `name` in a layer's `directory`, where nothing is, as deleted; false where the disk does not take it.
pub(super) fn delete(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    // The mode is that of the kernel's own deletion marks.
    let kind = FileType::CharacterDevice;
    match rustix::fs::mknodat(directory, name, kind, Mode::empty(), 0) {
        Ok(()) => {}
        Err(error) if is_refusal(error) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    // A file system in user space may have made something else of it.
    if stat_at(directory, name)?.is_some_and(|stat| stat.is_whiteout()) {
        return Ok(true);
    }
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a layer's directory hide what is below it; false where the disk does not take it.
pub(super) fn hide_below(directory: BorrowedFd<'_>) -> io::Result<bool> {
    match xattr::set_opaque(directory) {
        Ok(()) => xattr::is_opaque(directory),
        Err(error) if Errno::from_io_error(&error).is_some_and(is_refusal) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the marks that lie beside a layer directory into it, so that it can be mounted. Where the disk refuses them still, it is
/// [`RootfsError::Marks`], and the layer can be composed only.
pub fn settle_marks(layer: &Path) -> Result<(), RootfsError> {
    let beside = Sidecar::read(layer)?;
    if !beside.has_marks() {
        return Ok(());
    }
    let shown = layer.as_os_str().as_bytes();
    let root = rustix::fs::open(layer, READ_DIRECTORY, Mode::empty()).during("open", shown)?;
    let mut left = Sidecar::new(beside.ownership());
    for (path, noted) in beside.iter() {
        let (parent, name) = split_last(path);
        if noted.is_whiteout {
            let mut settle = || -> io::Result<()> {
                let parent = open_directory_beneath(root.as_fd(), parent, OFlags::empty())?;
                let time = stat_of(&parent)?.mtime;
                // Another process may have come here first.
                if stat_at(&parent, name)?.is_none() && !delete(parent.as_fd(), name)? {
                    left.set_whiteout(path);
                }
                Ok(rustix::fs::futimens(&parent, &times(time))?)
            };
            settle().during("mark as deleted", rooted(path))?;
        }
        if noted.is_opaque {
            let is_taken = open_directory_beneath(root.as_fd(), path, OFlags::empty())
                .and_then(|directory| hide_below(directory.as_fd()))
                .during("mark as opaque", rooted(path))?;
            if !is_taken {
                left.set_opaque(path);
            }
        }
        if let Some(attributes) = &noted.attributes {
            left.set_attributes(path, attributes.clone());
        }
    }
    if left.has_marks() {
        return Err(RootfsError::Marks {
            path: shown.shown(),
        });
    }
    left.write(layer)
}

/// Tells whether marks lie beside a layer directory, so that it cannot be mounted as it is.
pub fn has_loose_marks(layer: &Path) -> Result<bool, RootfsError> {
    Ok(Sidecar::read(layer)?.has_marks())
}

fn is_refusal(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS
    )
}
