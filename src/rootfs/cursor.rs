//! A place in a tree that moves by one name: one open directory, whatever the depth.
//!
//! It goes up by `..` and checks that it has come to where it was, so a directory that is moved meanwhile ends the work
//! instead of leading it out of the tree. Links are never followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::resolve::READ_DIRECTORY;
use super::tree::stat_of;

pub(super) struct Cursor {
    directory: OwnedFd,
    /// Device and inode of the directories above, the root first.
    above: Vec<(u64, u64)>,
}

impl Cursor {
    /// Starts in `root`, which may be an `O_PATH` descriptor.
    pub(super) fn new(root: BorrowedFd<'_>) -> io::Result<Cursor> {
        Ok(Cursor {
            directory: rustix::fs::openat(root, ".", READ_DIRECTORY, Mode::empty())?,
            above: Vec::new(),
        })
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Returns how many directories lie above.
    pub(super) fn depth(&self) -> usize {
        self.above.len()
    }

    pub(super) fn enter(&mut self, name: &[u8]) -> io::Result<()> {
        let flags = READ_DIRECTORY | OFlags::NOFOLLOW;
        let directory = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        self.above.push(identity(&self.directory)?);
        self.directory = directory;
        Ok(())
    }

    /// Goes up. Not to be called at the root.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        let parent = rustix::fs::openat(&self.directory, "..", READ_DIRECTORY, Mode::empty())?;
        if self.above.pop() != Some(identity(&parent)?) {
            return Err(io::Error::other("the directory was moved meanwhile"));
        }
        self.directory = parent;
        Ok(())
    }
}

fn identity(directory: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = stat_of(directory)?;
    Ok((stat.device, stat.inode))
}
