//! What lies below an upper directory: layer directories looked at through their own marks, without a mount.
//!
//! A directory of the merged view is the list of layers that make it up. Names are looked up from the layers' roots, so the
//! number of open files is that of the layers, whatever the depth. Every component above a name is known to be a directory of
//! that layer, so no link is followed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::error::{During, RootfsError};
use super::overlay::visible;
use super::resolve::{READ_DIRECTORY, open_directory_beneath, split_last};
use super::stat::Stat;
use super::tree::{stat_at, stat_of};
use super::xattr;

/// Shorter paths are given to the kernel whole.
const SHORT: usize = 4000;

/// Layer directories, topmost first.
pub(super) struct Lowers {
    roots: Vec<OwnedFd>,
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
        let mut roots = Vec::new();
        for path in visible(paths)? {
            let root = rustix::fs::open(path, READ_DIRECTORY, Mode::empty())
                .during("open", path.as_os_str().as_bytes())?;
            roots.push(root);
        }
        Ok(Lowers { roots })
    }

    /// Returns the merged root, or `None` where there are no layers.
    pub(super) fn root(&self) -> io::Result<Option<(LowerDirectory, Stat)>> {
        let Some(top) = self.roots.first() else {
            return Ok(None);
        };
        let layers = (0..self.roots.len()).collect();
        Ok(Some((LowerDirectory { layers }, stat_of(top)?)))
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
            if xattr::is_opaque(self.open_file(layer, path, OFlags::DIRECTORY)?)? {
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

    fn stat(&self, layer: usize, path: &[u8]) -> io::Result<Option<Stat>> {
        self.in_parent(layer, path, |parent, name| stat_at(parent, name))
    }

    fn in_parent<T>(
        &self,
        layer: usize,
        path: &[u8],
        act: impl FnOnce(std::os::fd::BorrowedFd<'_>, &[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        let root = self.roots[layer].as_fd();
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
