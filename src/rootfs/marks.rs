//! Deletions and opaque directories in a layer directory: on disk where it takes them, else beside it.
//!
//! A layer directory says that a name is deleted by a character device 0:0, and that a directory hides what is below it by the
//! attribute `user.overlay.opaque`. overlayfs takes no such device from anybody, older kernels' tmpfs takes no such attribute.
//! Then the mark goes into the [`Sidecar`].

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::sidecar::Sidecar;
use super::tree::stat_at;
use super::xattr;

/// Marks `name` in a layer's `directory`, where nothing is, as deleted; `path` is its path from the layer's root.
pub(super) fn delete(
    directory: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    beside: &mut Sidecar,
) -> io::Result<()> {
    // The mode is that of the kernel's own deletion marks.
    let kind = FileType::CharacterDevice;
    match rustix::fs::mknodat(directory, name, kind, Mode::empty(), 0) {
        Ok(()) => {
            // A file system in user space may have made something else of it.
            if stat_at(directory, name)?.is_some_and(|stat| stat.is_whiteout()) {
                return Ok(());
            }
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) if is_refusal(error) => {}
        Err(error) => return Err(error.into()),
    }
    beside.set_whiteout(path);
    Ok(())
}

/// Makes a layer's directory, with that path from the layer's root, hide what is below it.
pub(super) fn hide_below(
    directory: BorrowedFd<'_>,
    path: &[u8],
    beside: &mut Sidecar,
) -> io::Result<()> {
    match xattr::set_opaque(directory) {
        Ok(()) if xattr::is_opaque(directory)? => return Ok(()),
        Ok(()) => {}
        Err(error) if Errno::from_io_error(&error).is_some_and(is_refusal) => {}
        Err(error) => return Err(error),
    }
    beside.set_opaque(path);
    Ok(())
}

fn is_refusal(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS
    )
}
