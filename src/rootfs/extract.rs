//! An archive that `ADD` names is unpacked into a step's root.

use std::io::Read;

use crate::layer::Mtime;

use super::apply::Applied;
use super::error::{During, RootfsError};
use super::parcel;
use super::tree::Tree;
use super::unpack::{Rules, Unpacker};

/// Unpacks an uncompressed archive into the directory `destination`, which is made where it is missing (with `owner`, like
/// every entry; directories that the archive only implies are root's).
///
/// Links in `destination` are followed inside the root. To the archive `destination` is all there is: links in the parents of
/// entries are followed inside it, absolute ones from it. What an entry itself replaces is not followed: a directory of the archive
/// takes the place of a link. Existing directories are merged with and get the archive's
/// metadata, except `destination` itself. Directories that are filled and not described get `time`, or the present without one. A name such as `.wh.x` is a plain file here. `tar` is read to its end.
pub fn extract_archive(
    tar: &mut dyn Read,
    root: &Tree,
    destination: &[u8],
    owner: Option<(u32, u32)>,
    time: Option<Mtime>,
) -> Result<Applied, RootfsError> {
    root.make_dirs(destination, owner.unwrap_or((0, 0)), 0o755, time)?;
    let destination = root.open_path(destination, true)?;
    let rules = Rules {
        layer: None,
        root: false,
        owner,
        naming: root.naming().during("examine", "/")?,
        time,
    };
    parcel::unpack(
        tar,
        Unpacker::new(destination, rules, root.owners().clone()),
    )
}
