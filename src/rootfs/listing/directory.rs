//! The files of an unpacked layer, by name and size.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::Mode;

use super::super::resolve::READ_DIRECTORY;
use super::super::sidecar::Sidecar;
use super::super::stat::{FileKind, Stat};
use super::super::walk::{Visit, Walk};
use super::{Layer, Listed, ListedKind, Listing, ListingError, MOST, Origin};
use crate::vocab::Cancel;

/// Names between two looks at whether somebody wants the work to end.
const BETWEEN_LOOKS: u64 = 1024;

impl Listing {
    /// Adds a layer directory as the next layer above. Targets of links and attributes are not read, contents neither. After an error
    /// the listing is what it was.
    pub fn add_directory(&mut self, fs: &Path, cancel: &Cancel) -> Result<(), ListingError> {
        let unreadable = |source: std::io::Error| ListingError::Directory { source };
        let noted = Sidecar::read(fs)
            .map_err(|error| unreadable(std::io::Error::other(error.to_string())))?;
        let root = rustix::fs::open(fs, READ_DIRECTORY, Mode::empty())
            .map_err(|error| unreadable(error.into()))?;
        let mut walk = Walk::of_layer(root.as_fd(), noted).map_err(unreadable)?;
        let mut layer = Layer::default();
        let mut linked: HashMap<(u64, u64), u64> = HashMap::new();
        let mut number = 0;
        while let Some(visit) = walk.next().map_err(unreadable)? {
            let Visit::Entry(stat) = visit else { continue };
            number += 1;
            if number % BETWEEN_LOOKS == 0 && cancel.is_cancelled() {
                return Err(unreadable(std::io::ErrorKind::Interrupted.into()));
            }
            let path = walk.path().to_vec();
            if stat.is_whiteout() {
                layer.deleted.insert(path);
                continue;
            }
            let Some(kind) = kind(&stat) else { continue };
            let entry = match stat.links > 1 && !stat.is_directory() {
                true => *linked.entry((stat.device, stat.inode)).or_insert(number),
                false => number,
            };
            if stat.is_directory() {
                walk.enter().map_err(unreadable)?;
                if walk.is_opaque().map_err(unreadable)? {
                    layer.opaque.insert(path.clone());
                }
            }
            let listed = Listed {
                kind,
                mode: stat.mode,
                uid: stat.uid,
                gid: stat.gid,
                mtime: stat.mtime,
                xattrs: BTreeMap::new(),
                origin: Origin {
                    layer: self.layers,
                    entry,
                },
            };
            layer.files.insert(path, Some(listed));
            if self.files.len() + layer.files.len() > MOST {
                return Err(ListingError::TooMany);
            }
        }
        self.cover(layer);
        Ok(())
    }

    /// Leaves a layer out whose files cannot be known; those above keep their numbers.
    pub fn skip(&mut self) {
        self.layers += 1;
    }
}

/// Returns what a layer can hold of it.
fn kind(stat: &Stat) -> Option<ListedKind> {
    let (major, minor) = stat.rdev;
    Some(match stat.kind {
        FileKind::File => ListedKind::File {
            size: stat.size,
            digest: None,
        },
        FileKind::Directory => ListedKind::Directory,
        FileKind::Symlink => ListedKind::Symlink { target: Vec::new() },
        FileKind::CharDevice => ListedKind::CharDevice { major, minor },
        FileKind::BlockDevice => ListedKind::BlockDevice { major, minor },
        FileKind::Fifo => ListedKind::Fifo,
        FileKind::Socket => return None,
    })
}
