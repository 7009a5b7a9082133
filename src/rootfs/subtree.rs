//! A part of a mounted root as a mount by itself.
//!
//! In: a detached mount, as [`mount_overlay`](super::mount_overlay) returns it, and a path beneath its root. Out: a detached
//! mount of what the path names, a directory or a file, which lives without the other.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::error::{During, RootfsError, rooted};
use super::overlay::{in_own_namespace, mount_error};
use super::resolve::open_in_root;

/// Returns `path` beneath `root`; links are followed as a process with that root would follow them.
pub fn subtree(root: OwnedFd, path: &[u8]) -> Result<OwnedFd, RootfsError> {
    if path.iter().all(|byte| *byte == b'/') {
        return Ok(root);
    }
    let found = open_in_root(root.as_fd(), path, OFlags::PATH).during("open", rooted(path))?;
    match copied(&found) {
        Err(Errno::INVAL) => subtree_in_old_way(&root, path),
        copied => copied.map_err(|error| mount_error("detach a part of it", None, error)),
    }
}

/// Before Linux 6.15 nothing can be copied of a mount that is in no namespace: it is put into one first.
fn subtree_in_old_way(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, RootfsError> {
    in_own_namespace(|scratch| {
        let place = scratch.mount_point()?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(root, "", CWD, &place, flags)
            .map_err(|error| mount_error("attach the mount", None, error))?;
        let found = open_in_root(root.as_fd(), path, OFlags::PATH).during("open", rooted(path))?;
        copied(&found).map_err(|error| mount_error("detach a part of it", None, error))
    })
}

fn copied(found: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(found, "", flags)
}

/// Makes a part as kernels before Linux 6.15 need it.
#[cfg(test)]
pub(super) fn subtree_as_old_kernels_need_it(
    root: &OwnedFd,
    path: &[u8],
) -> Result<OwnedFd, RootfsError> {
    subtree_in_old_way(root, path)
}
