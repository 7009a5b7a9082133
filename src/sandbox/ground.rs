//! The root with what is mounted in it so far: where the next mount goes.
//!
//! A target is looked for with all earlier mounts in place. What it lacks is made there; in the root's own file system it is
//! taken away again when the command has ended, in a mount it stays.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fstat, fstatfs};
use rustix::io::Errno;

use super::errand::Errands;
use super::instructions::may_be_covered;
use super::mount::{Mount, mount_id};
use super::report::{At, Failure, Stage};
use super::stub::Stub;
use super::walk::{self, Kind};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;

pub(super) struct Ground<'a> {
    root: BorrowedFd<'a>,
    root_id: u64,
    /// What is mounted below, with the path at which it was asked for.
    mounts: Vec<(u64, String)>,
    errands: &'a Errands,
}

/// Where something is to be mounted.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) target: OwnedFd,
    pub(super) is_new: bool,
}

impl<'a> Ground<'a> {
    /// `root` must be attached: mounts below it are not seen otherwise.
    pub(super) fn new(root: &'a Mount, errands: &'a Errands) -> Result<Ground<'a>, Errno> {
        Ok(Ground {
            root: root.as_fd(),
            root_id: mount_id(root.as_fd())?,
            mounts: Vec::new(),
            errands,
        })
    }

    /// Takes note of a mount that was attached at `path`.
    pub(super) fn has(&mut self, mount: &Mount, path: &str) -> Result<(), Errno> {
        self.mounts
            .push((mount_id(mount.as_fd())?, path.to_owned()));
        Ok(())
    }

    /// Finds or makes a mount point.
    pub(super) fn place(&self, path: &str, kind: Kind) -> Result<Place, Failure> {
        let mut is_new = false;
        let mut read_only = None;
        let found = walk::walk(self.root, path, |parent, name, is_last| {
            let is_directory = !is_last || kind == Kind::Directory;
            let stub = Stub::make(parent, name, is_directory).inspect_err(|errno| {
                if *errno == Errno::ROFS {
                    read_only = self.mount_of(parent);
                }
            })?;
            if mount_id(parent)? == self.root_id {
                self.errands.remember(&stub)?;
            }
            is_new = is_last;
            stub.made()
        });
        if let Some(mount) = read_only {
            return Err(Errno::ROFS).at(Stage::ReadOnlyMount, &format!("{path}\0{mount}"));
        }
        let target = found
            .and_then(|found| kind.check(found.as_fd()).map(|()| found))
            .at(Stage::Mounts, path)?;
        self.refuse_root_and_proc(path, target.as_fd())?;
        Ok(Place { target, is_new })
    }

    /// Attaches a mount to a place that was found for it.
    pub(super) fn attach(
        &mut self,
        mount: &Mount,
        place: &Place,
        path: &str,
    ) -> Result<(), Failure> {
        mount
            .attach(&place.target)
            .and_then(|()| self.has(mount, path))
            .at(Stage::Mounts, path)
    }

    fn mount_of(&self, directory: BorrowedFd<'_>) -> Option<String> {
        let id = mount_id(directory).ok()?;
        let (_, path) = self.mounts.iter().find(|(other, _)| *other == id)?;
        Some(path.clone())
    }

    /// A path that does not look like either may still be a link to it.
    fn refuse_root_and_proc(&self, path: &str, target: BorrowedFd<'_>) -> Result<(), Failure> {
        let stage = Stage::Mounts;
        if !may_be_covered(path) {
            let kind = fstatfs(target).at(stage, path)?.f_type;
            if kind as u64 == PROC_SUPER_MAGIC {
                return Err(Errno::PERM).at(Stage::MountInProc, path);
            }
        }
        let (found, root) = (
            fstat(target).at(stage, path)?,
            fstat(self.root).at(stage, path)?,
        );
        if mount_id(target).at(stage, path)? == self.root_id
            && (found.st_dev, found.st_ino) == (root.st_dev, root.st_ino)
        {
            return Err(Errno::PERM).at(Stage::MountOnRoot, path);
        }
        Ok(())
    }
}
