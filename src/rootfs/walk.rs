//! A walk over a tree of any depth with one open directory.
//!
//! Entries come in the byte order of their names, a directory before what is in it. The walk holds the directory it is in and
//! the names that are left above; it goes up by `..` and checks that it has come to where it was, so the depth costs no
//! descriptors and a directory that is moved away meanwhile ends the walk. Links are never followed. The tree should be at
//! rest: what vanishes between listing and looking is an error.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, RawDir};

use super::resolve::READ_DIRECTORY;
use super::stat::Stat;
use super::tree::stat_of;

/// What [`Walk::next`] has come to; its place is in [`Walk::path`].
#[derive(Debug)]
pub(super) enum Visit {
    Entry(Stat),
    /// All of an entered directory has been seen; the walk is back in its parent.
    Leave,
}

pub(super) struct Walk {
    directory: OwnedFd,
    path: Vec<u8>,
    name_at: usize,
    frames: Vec<Frame>,
}

struct Frame {
    /// Length of the directory's own path.
    path_length: usize,
    /// Device and inode.
    identity: (u64, u64),
    /// What is left, the next one last.
    names: Vec<Box<[u8]>>,
}

impl Walk {
    /// Starts in `root`, which may be an `O_PATH` descriptor and is not itself an entry.
    pub(super) fn new(root: BorrowedFd<'_>) -> io::Result<Walk> {
        let directory = rustix::fs::openat(root, ".", READ_DIRECTORY, Mode::empty())?;
        let frame = Frame::read(&directory, 0)?;
        Ok(Walk {
            directory,
            path: Vec::new(),
            name_at: 0,
            frames: vec![frame],
        })
    }

    /// Goes to the next entry, or up; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Visit>> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(None);
        };
        self.path.truncate(frame.path_length);
        if let Some(name) = frame.names.pop() {
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.name_at = self.path.len();
            self.path.extend_from_slice(&name);
            let stat = rustix::fs::statat(&self.directory, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
            return Ok(Some(Visit::Entry(stat.into())));
        }
        self.frames.pop();
        let Some(frame) = self.frames.last() else {
            return Ok(None);
        };
        let parent = rustix::fs::openat(&self.directory, "..", READ_DIRECTORY, Mode::empty())?;
        if identity(&parent)? != frame.identity {
            return Err(io::Error::other(
                "the directory was moved while it was read",
            ));
        }
        self.directory = parent;
        self.name_at = match frame.path_length {
            0 => 0,
            length => length + 1,
        };
        Ok(Some(Visit::Leave))
    }

    /// Goes into the directory that was returned last.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        let directory =
            rustix::fs::openat(&self.directory, self.name(), READ_DIRECTORY, Mode::empty())?;
        self.frames.push(Frame::read(&directory, self.path.len())?);
        self.directory = directory;
        Ok(())
    }

    /// Returns the directory that holds the last entry; after [`Walk::enter`], that entry itself.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Returns the path of the last entry, from the root, without a leading slash.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns the last component of [`Walk::path`].
    pub(super) fn name(&self) -> &[u8] {
        &self.path[self.name_at..]
    }
}

impl Frame {
    fn read(directory: &OwnedFd, path_length: usize) -> io::Result<Frame> {
        let mut names = names(directory.as_fd())?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Frame {
            path_length,
            identity: identity(directory)?,
            names,
        })
    }
}

/// Lists a directory that was opened for reading and has not been read, in the file system's order.
pub(super) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<Box<[u8]>>> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.into()),
        }
    }
    Ok(names)
}

fn identity(directory: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = stat_of(directory)?;
    Ok((stat.device, stat.inode))
}
