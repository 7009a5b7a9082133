//! A layer's archive becomes a layer directory.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::vocab::Ownership;

use super::error::{During, RootfsError};
use super::ledgers::note_owners;
use super::owners::Owners;
use super::parcel;
use super::tree::Tree;
use super::unpack::{Rules, Unpacker, prepare_root};
use super::xattr::Naming;

pub use super::unpack::Unpacked as Applied;

/// Unpacks an uncompressed layer into the empty directory `dir`, which then can be mounted as a lower one.
///
/// Deletions become overlayfs' marks, beside the directory where its disk does not take them. They speak of other layers: what this one has under a deleted name stays and hides what
/// is below. Links that are parents of entries are followed inside the layer; a file where the archive later wants a
/// directory (or the other way round) is replaced. After an error `dir` holds a part of the layer and is to be deleted.
/// `tar` is read to its end. Where owners are in a ledger it is written beside `dir`.
pub fn apply_layer(
    tar: &mut dyn Read,
    dir: &Path,
    ownership: Ownership,
) -> Result<Applied, RootfsError> {
    let root = Tree::open(dir)?.with_owners(Owners::new(ownership));
    prepare_root(root.as_fd(), root.owners())
        .during("set the owner of", dir.as_os_str().as_bytes())?;
    let rules = Rules {
        layer: Some(dir.to_owned()),
        root: false,
        owner: None,
        naming: Naming::Escaped,
        time: None,
    };
    let fd = root
        .as_fd()
        .try_clone_to_owned()
        .during("open", dir.as_os_str().as_bytes())?;
    let applied = parcel::unpack(tar, Unpacker::new(fd, rules, root.owners().clone()))?;
    note_owners(dir, &root, &[])?;
    Ok(applied)
}
