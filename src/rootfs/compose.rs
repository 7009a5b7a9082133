//! A layer directory laid over a plain directory: what overlayfs shows of a stack, as files.
//!
//! In: a tree and the next layer's directory, with the marks that its disk did not take. Out: the tree as the stack with that
//! layer looks. Names that are hard links of each other in the layer become files of their own; they are told, so that
//! [`twins`](super::twins) can join them for readers.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::vocab::Cancel;

use super::carry::{Carrier, Original, Spot};
use super::cursor::Cursor;
use super::error::{During, RootfsError, rooted};
use super::index::Seen;
use super::owners::Owners;
use super::remove::remove_at;
use super::resolve::{PATH_DIRECTORY, open_directory_beneath, split_last};
use super::sidecar::Sidecar;
use super::stat::Stat;
use super::tree::{stat_at, stat_of};
use super::twins::Twins;
use super::walk::{Visit, Walk};
use super::xattr::{self, Carried, Naming};

/// Applies the layer directory `layer` to the tree at `root`. After an error the tree is neither the one nor the other.
pub(super) fn add_layer(
    root: BorrowedFd<'_>,
    layer: &Path,
    owners: &Owners,
    twins: &mut Vec<Twins>,
    cancel: &Cancel,
) -> Result<(), RootfsError> {
    let shown = layer.as_os_str().as_bytes();
    let from = rustix::fs::open(layer, PATH_DIRECTORY, Mode::empty()).during("open", shown)?;
    let beside = Sidecar::read(layer)?;
    for (path, _) in beside.iter().filter(|(_, noted)| noted.is_whiteout) {
        let (parent, name) = split_last(path);
        match open_directory_beneath(root, parent, rustix::fs::OFlags::empty()) {
            Ok(parent) => remove_at(parent.as_fd(), name).during("delete", rooted(path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).during("open the parent of", rooted(path)),
        }
    }
    let mut composing = Composing {
        walk: Walk::new(from.as_fd()).during("list", "/")?,
        tree: Cursor::new(root).during("open", "/")?,
        levels: Vec::new(),
        carrier: Carrier::new(Naming::Escaped, Naming::Mounted, owners.clone(), cancel),
        beside,
        linked: HashMap::new(),
        cancel,
    };
    if composing.beside.is_opaque(b"")
        || xattr::is_opaque(composing.walk.directory()).during("read the attributes of", "/")?
    {
        empty(composing.tree.directory()).during("empty", "/")?;
    }
    composing.run()?;
    twins.extend(composing.linked.into_values());
    Ok(())
}

/// overlayfs does not look whether a root is opaque: whoever stacks has to.
fn empty(directory: BorrowedFd<'_>) -> io::Result<()> {
    for name in super::walk::names(directory)? {
        remove_at(directory, &name)?;
    }
    Ok(())
}

struct Composing<'a> {
    walk: Walk,
    tree: Cursor,
    levels: Vec<Level>,
    carrier: Carrier<'a>,
    beside: Sidecar,
    /// By device and inode.
    linked: HashMap<(u64, u64), Twins>,
    cancel: &'a Cancel,
}

/// A directory that is being filled, with what it gets when it is full.
struct Level {
    stat: Stat,
    xattrs: Vec<Carried>,
    is_old: bool,
}

impl Composing<'_> {
    fn run(&mut self) -> Result<(), RootfsError> {
        let root = self.walk.directory();
        let original = self.original(b"", stat_of(root).during("stat", "/")?);
        let (stat, xattrs) = self
            .carrier
            .directory_of(root, original)
            .during("read the attributes of", "/")?;
        self.levels.push(Level {
            stat,
            xattrs,
            is_old: true,
        });
        while let Some(visit) = self.walk.next().during("read", rooted(self.walk.path()))? {
            if self.cancel.is_cancelled() {
                return Err(RootfsError::Cancelled);
            }
            match visit {
                Visit::Entry(stat) if stat.is_directory() => self.enter(stat)?,
                Visit::Entry(stat) if stat.is_whiteout() => {
                    remove_at(self.tree.directory(), self.walk.name())
                        .during("delete", rooted(self.walk.path()))?;
                }
                Visit::Entry(stat) => self.place(&stat)?,
                Visit::Leave => {
                    let finished = self.finish();
                    let path = self.walk.path();
                    finished.during("set the metadata of", rooted(path))?;
                    self.tree.leave().during("leave", rooted(path))?;
                }
            }
        }
        self.finish().during("set the metadata of", "/")
    }

    fn enter(&mut self, stat: Stat) -> Result<(), RootfsError> {
        let path = self.walk.path().to_vec();
        let name = self.walk.name().to_vec();
        self.walk.enter().during("open", rooted(&path))?;
        let layer = self.walk.directory();
        let verb = "read the attributes of";
        let hides =
            self.beside.is_opaque(&path) || xattr::is_opaque(layer).during(verb, rooted(&path))?;
        let (stat, xattrs) = self
            .carrier
            .directory_of(layer, self.original(&path, stat))
            .during(verb, rooted(&path))?;
        let is_old = self
            .directory(&name, hides)
            .during("make directory", rooted(&path))?;
        self.tree.enter(&name).during("open", rooted(&path))?;
        self.levels.push(Level {
            stat,
            xattrs,
            is_old,
        });
        Ok(())
    }

    /// Makes sure that `name` is a directory, an empty one if it `hides` what was there. Tells whether it was there before.
    fn directory(&self, name: &[u8], hides: bool) -> io::Result<bool> {
        let here = self.tree.directory();
        match rustix::fs::mkdirat(here, name, Mode::RWXU) {
            Ok(()) => return Ok(false),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        if !hides && stat_at(here, name)?.is_some_and(|stat| stat.is_directory()) {
            return Ok(true);
        }
        remove_at(here, name)?;
        rustix::fs::mkdirat(here, name, Mode::RWXU)?;
        Ok(false)
    }

    fn place(&mut self, stat: &Stat) -> Result<(), RootfsError> {
        let path = self.walk.path();
        let spot = |directory| Spot {
            directory,
            name: self.walk.name(),
        };
        let (from, to) = (spot(self.walk.directory()), spot(self.tree.directory()));
        let original = || self.original(path, *stat);
        let (first, second) = (original(), original());
        let carried = match self.carrier.entry(from, first, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_at(to.directory, to.name).during("replace", rooted(path))?;
                self.carrier.entry(from, second, to)
            }
            carried => carried,
        };
        let is_there = carried.during("copy", rooted(path))?;
        if stat.links > 1 && is_there {
            let seen = Seen::at(to.directory, to.name)
                .and_then(|seen| seen.ok_or(Errno::NOENT))
                .during("stat", rooted(path))?;
            let (path, file) = (path.to_vec(), seen.identity());
            match self.linked.entry((stat.device, stat.inode)) {
                std::collections::hash_map::Entry::Occupied(mut twins) => {
                    twins.get_mut().add(path, file);
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(Twins::apart(path, file));
                }
            }
        }
        Ok(())
    }

    /// Returns what a file of the layer is in the image.
    fn original(&self, path: &[u8], stat: Stat) -> Original {
        let known = self.beside.attributes(path);
        Original::new(stat, self.beside.ownership(), known)
    }

    fn finish(&mut self) -> io::Result<()> {
        let Level {
            stat,
            xattrs,
            is_old,
        } = self.levels.pop().expect("each directory left was entered");
        self.carrier
            .directory(&stat, &xattrs, self.tree.directory(), is_old)
    }
}
