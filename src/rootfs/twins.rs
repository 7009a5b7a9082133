//! Names that are one file in their layer, in a tree where a step may write to each of them.
//!
//! overlayfs gives a name a file of its own when the file is first written to, and its twins keep the old one. In a tree
//! without overlayfs a write through one name would change all. So a tree that is written to holds a separate file for each
//! name, and the layers come out the same. Who only reads (a copy, an export, a digest) is to see the links: for them the
//! names are joined again, by the same rule that the kernel's view has: names from one layer, as far as they are still that
//! layer's.
//!
//! What remains different: a command finds one link where overlayfs tells several, so that `cp -a` within a step makes
//! separate files of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use crate::vocab::Cancel;

use super::carry::{Carrier, Original, Spot};
use super::error::{During, RootfsError, rooted};
use super::index::{Identity, Index, Seen};
use super::owners::Owners;
use super::remove::remove_at;
use super::resolve::{open_directory_beneath, split_last};
use super::tree::{stat_of, times};
use super::xattr::Naming;

/// The names of one file.
#[derive(Debug)]
pub(super) struct Twins {
    /// Paths, and the file that is there.
    names: Vec<(Vec<u8>, Identity)>,
    are_joined: bool,
}

impl Twins {
    /// Names that are one file now.
    pub(super) fn joined(path: Vec<u8>, file: Identity) -> Twins {
        Twins {
            names: vec![(path, file)],
            are_joined: true,
        }
    }

    /// Names with a file for each.
    pub(super) fn apart(path: Vec<u8>, file: Identity) -> Twins {
        Twins {
            names: vec![(path, file)],
            are_joined: false,
        }
    }

    pub(super) fn are_several(&self) -> bool {
        self.names.len() > 1
    }

    pub(super) fn add(&mut self, path: Vec<u8>, file: Identity) {
        self.names.push((path, file));
    }
}

/// Forgets names that are not the files any more that they were: another layer has replaced them.
pub(super) fn forget_replaced(twins: &mut Vec<Twins>, now: &Index) {
    retain(twins, |path, file| {
        now.find(path)
            .is_some_and(|record| record.identity() == *file)
    });
}

/// Forgets names that something was done to between two indexes. All must be apart.
pub(super) fn forget_changed(twins: &mut Vec<Twins>, before: &Index, now: &Index) {
    retain(twins, |path, _| match (before.find(path), now.find(path)) {
        (Some(before), Some(now)) => before.is_as(now),
        _ => false,
    });
}

fn retain(twins: &mut Vec<Twins>, is_kept: impl Fn(&[u8], &Identity) -> bool) {
    for names in &mut *twins {
        names.names.retain(|(path, file)| is_kept(path, file));
    }
    twins.retain(Twins::are_several);
}

/// A tree whose twins change, and a directory on its file system for what is not yet in place.
pub(super) struct Change<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) scratch: BorrowedFd<'a>,
    pub(super) owners: &'a Owners,
    pub(super) index: Option<&'a mut Index>,
    pub(super) cancel: &'a Cancel,
}

impl Change<'_> {
    /// Gives each name a file of its own.
    pub(super) fn part(&mut self, twins: &mut [Twins]) -> Result<(), RootfsError> {
        let owners = self.owners;
        let mut carrier = Carrier::new(
            Naming::Mounted,
            Naming::Mounted,
            owners.clone(),
            self.cancel,
        );
        for twins in twins.iter_mut().filter(|twins| twins.are_joined) {
            let (first, others) = twins.names.split_first_mut().expect("twins are two");
            for (path, file) in others {
                *file = self
                    .replace(path, &mut |from, scratch| {
                        let seen = Seen::at(from.directory, from.name)?.ok_or(Errno::NOENT)?;
                        let known = owners.known_of(&seen.id);
                        let original = Original::new(seen.stat, owners.ownership(), known.as_ref());
                        carrier.entry(from, original, scratch).map(drop)
                    })
                    .during("make a file of its own of", rooted(path))?;
            }
            self.refresh(&first.0).during("stat", rooted(&first.0))?;
            twins.are_joined = false;
        }
        Ok(())
    }

    /// Makes all names one file.
    pub(super) fn join(&mut self, twins: &mut [Twins]) -> Result<(), RootfsError> {
        for twins in twins.iter_mut().filter(|twins| !twins.are_joined) {
            let (first, others) = twins.names.split_first_mut().expect("twins are two");
            let (parent, name) = split_last(&first.0);
            let parent = open_directory_beneath(self.root, parent, OFlags::empty())
                .during("open the parent of", rooted(&first.0))?;
            for (path, file) in &mut *others {
                *file = self
                    .replace(path, &mut |_, scratch| {
                        let (to, as_name) = (scratch.directory, scratch.name);
                        Ok(rustix::fs::linkat(
                            &parent,
                            name,
                            to,
                            as_name,
                            AtFlags::empty(),
                        )?)
                    })
                    .during("link", rooted(path))?;
            }
            // The last link has changed it, for all names.
            self.refresh(&first.0).during("stat", rooted(&first.0))?;
            for (path, _) in others {
                self.refresh(path).during("stat", rooted(path))?;
            }
            twins.are_joined = true;
        }
        Ok(())
    }

    /// Puts what `make` makes in the place of `path`, whose directory keeps its time.
    fn replace(
        &mut self,
        path: &[u8],
        make: &mut dyn FnMut(Spot<'_>, Spot<'_>) -> io::Result<()>,
    ) -> io::Result<Identity> {
        const BESIDE: &[u8] = b"twin";
        let (parent, name) = split_last(path);
        let directory = open_directory_beneath(self.root, parent, OFlags::empty())?;
        let time = stat_of(&directory)?.mtime;
        remove_at(self.scratch, BESIDE)?;
        let spot = |directory, name| Spot { directory, name };
        make(spot(directory.as_fd(), name), spot(self.scratch, BESIDE))?;
        // Two names of one file: the kernel's rename would leave both.
        rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
        rustix::fs::renameat(self.scratch, BESIDE, &directory, name)?;
        rustix::fs::futimens(&directory, &times(time))?;
        if let Some(index) = &mut self.index {
            let seen = Seen::at(&directory, b"")?.ok_or(Errno::NOENT)?;
            index.refresh(parent, &seen);
        }
        self.refresh(path)
    }

    fn refresh(&mut self, path: &[u8]) -> io::Result<Identity> {
        let (parent, name) = split_last(path);
        let parent = open_directory_beneath(self.root, parent, OFlags::PATH)?;
        let seen = Seen::at(&parent, name)?.ok_or(Errno::NOENT)?;
        if let Some(index) = &mut self.index {
            index.refresh(path, &seen);
        }
        Ok(seen.identity())
    }
}
