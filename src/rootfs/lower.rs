//! What lies below an upper directory: layer directories looked at through their own marks, without a mount.
//!
//! A directory of the merged view is the list of layers that make it up. Names are looked up from the layers' roots, so the
//! number of open files is that of the layers, whatever the depth. Every component above a name is known to be a directory of
//! that layer, so no link is followed. What is noted beside a layer directory counts as if the disk said it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::error::{During, RootfsError};
use super::overlay::visible;
use super::resolve::{READ_DIRECTORY, open_directory_beneath, split_last};
use super::sidecar::Sidecar;
use super::stat::Stat;
use super::tree::{stat_at, stat_of};
use super::xattr::{self, Naming};

/// Shorter paths are given to the kernel whole.
const SHORT: usize = 4000;

/// Layer directories, topmost first.
pub(super) struct Lowers {
    layers: Vec<Lower>,
}

struct Lower {
    root: OwnedFd,
    noted: Sidecar,
}

/// The layers that make up one directory, topmost first; never empty but for the root of no layers.
#[derive(Clone, Debug)]
pub(super) struct LowerDirectory {
    layers: Vec<usize>,
}

/// What one name of the merged view is.
#[derive(Debug)]
pub(super) enum LowerNode {
    /// With the metadata of its topmost layer.
    Directory(LowerDirectory, Stat),
    Other(Stat),
}

/// A [`LowerNode`] and the layer that shows it.
pub(super) struct Found {
    pub(super) layer: usize,
    pub(super) node: LowerNode,
}

impl Lowers {
    /// Opens layer directories, given lowest first.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Lowers, RootfsError> {
        let mut layers = Vec::new();
        for path in visible(paths)? {
            let root = rustix::fs::open(path, READ_DIRECTORY, Mode::empty())
                .during("open", path.as_os_str().as_bytes())?;
            let noted = Sidecar::read(path)?;
            let is_opaque = noted.is_opaque(b"");
            layers.push(Lower { root, noted });
            if is_opaque {
                break;
            }
        }
        Ok(Lowers { layers })
    }

    /// Returns the merged root, or `None` where there are no layers.
    pub(super) fn root(&self) -> io::Result<Option<(LowerDirectory, Stat)>> {
        let Some(top) = self.layers.first() else {
            return Ok(None);
        };
        let stat = top.noted.in_image(b"", stat_of(&top.root)?);
        let layers = (0..self.layers.len()).collect();
        Ok(Some((LowerDirectory { layers }, stat)))
    }

    /// Looks up `path`, whose parent is `directory`.
    pub(super) fn find(
        &self,
        directory: &LowerDirectory,
        path: &[u8],
    ) -> io::Result<Option<Found>> {
        let mut top: Option<(usize, Stat)> = None;
        let mut layers = Vec::new();
        for &layer in &directory.layers {
            let Some(stat) = self.stat(layer, path)? else {
                continue;
            };
            if stat.is_whiteout() {
                break;
            }
            let noted = self.noted(layer);
            if !stat.is_directory() {
                // A directory above it hides it, and what is below it too.
                if top.is_none() {
                    return Ok(Some(Found {
                        layer,
                        node: LowerNode::Other(stat),
                    }));
                }
                break;
            }
            top.get_or_insert((layer, stat));
            layers.push(layer);
            if noted.is_opaque(path)
                || xattr::is_opaque(self.open_file(layer, path, OFlags::DIRECTORY)?)?
            {
                break;
            }
        }
        Ok(top.map(|(layer, stat)| Found {
            layer,
            node: LowerNode::Directory(LowerDirectory { layers }, stat),
        }))
    }

    /// Opens for reading what `path` is in one layer, itself no link.
    pub(super) fn open_file(
        &self,
        layer: usize,
        path: &[u8],
        flags: OFlags,
    ) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        self.in_parent(layer, path, |parent, name| {
            Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
        })
    }

    /// Returns the target of a link.
    pub(super) fn read_link(&self, layer: usize, path: &[u8]) -> io::Result<Vec<u8>> {
        self.in_parent(layer, path, |parent, name| {
            Ok(rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes())
        })
    }

    /// Reads the attributes of what `path` is in one layer, which `file` is.
    pub(super) fn read_content(
        &self,
        layer: usize,
        path: &[u8],
        file: BorrowedFd<'_>,
    ) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let noted = self.noted(layer);
        noted.read_content(path, file, Naming::Escaped)
    }

    /// Returns how many layers there are.
    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }

    /// Returns one layer's directory.
    pub(super) fn root_of(&self, layer: usize) -> BorrowedFd<'_> {
        self.layers[layer].root.as_fd()
    }

    /// Returns what is noted beside one layer.
    pub(super) fn noted(&self, layer: usize) -> &Sidecar {
        &self.layers[layer].noted
    }

    /// Returns what is noted beside all layers, topmost first.
    pub(super) fn all_noted(&self) -> impl Iterator<Item = &Sidecar> {
        self.layers.iter().map(|layer| &layer.noted)
    }

    /// Returns what `path` is in one layer, or `None` where that has nothing to say of it.
    pub(super) fn stat(&self, layer: usize, path: &[u8]) -> io::Result<Option<Stat>> {
        let noted = self.noted(layer);
        if noted.is_whiteout(path) {
            return Ok(Some(Stat::WHITEOUT));
        }
        let stat = self.in_parent(layer, path, |parent, name| stat_at(parent, name))?;
        Ok(stat.map(|stat| noted.in_image(path, stat)))
    }

    fn in_parent<T>(
        &self,
        layer: usize,
        path: &[u8],
        act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        let root = self.root_of(layer);
        if path.len() < SHORT {
            return act(root, path);
        }
        let (parent, name) = split_last(path);
        act(
            open_directory_beneath(root, parent, OFlags::empty())?.as_fd(),
            name,
        )
    }
}
