//! A layer's archive becomes a layer directory.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::error::{During, RootfsError};
use super::parcel;
use super::tree::Tree;
use super::unpack::{Rules, Unpacker, prepare_root};
use super::xattr::Naming;

pub use super::unpack::Unpacked as Applied;

/// Unpacks an uncompressed layer into the empty directory `dir`, which then can be mounted as a lower one.
///
/// Deletions become overlayfs' marks. They speak of other layers: what this one has under a deleted name stays and hides what
/// is below. Links that are parents of entries are followed inside the layer; a file where the archive later wants a
/// directory (or the other way round) is replaced. After an error `dir` holds a part of the layer and is to be deleted.
/// `tar` is read to its end.
pub fn apply_layer(tar: &mut dyn Read, dir: &Path) -> Result<Applied, RootfsError> {
    let root = Tree::open(dir)?;
    prepare_root(root.as_fd()).during("set the owner of", dir.as_os_str().as_bytes())?;
    let rules = Rules {
        layer: true,
        owner: None,
        naming: Naming::Escaped,
        time: None,
    };
    let root = root
        .as_fd()
        .try_clone_to_owned()
        .during("open", dir.as_os_str().as_bytes())?;
    parcel::unpack(tar, Unpacker::new(root, rules))
}
