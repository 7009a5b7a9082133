//! A walk over a tree of any depth with one open directory.
//!
//! Entries come in the byte order of their names, a directory before what is in it. The walk holds the directory it is in and
//! the names that are left above; it goes up by `..` and checks that it has come to where it was, so the depth costs no
//! descriptors and a directory that is moved away meanwhile ends the walk. Files are shown as they are in the image, whatever
//! the disk can say of it, and so are deletions that the disk has refused. Links are never followed. The tree should be at
//! rest: what vanishes between listing and looking is an error.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, RawDir};
use rustix::io::Errno;

use super::owners::Owners;
use super::resolve::READ_DIRECTORY;
use super::sidecar::Sidecar;
use super::stat::Stat;
use super::tree::{stat_at, stat_of};
use super::xattr::{self, Naming};

/// What [`Walk::next`] has come to; its place is in [`Walk::path`].
#[derive(Debug)]
pub(super) enum Visit {
    Entry(Stat),
    /// All of an entered directory has been seen; the walk is back in its parent.
    Leave,
}

pub(super) struct Walk {
    truth: Truth,
    directory: OwnedFd,
    path: Vec<u8>,
    name_at: usize,
    frames: Vec<Frame>,
}

/// Who knows what the files are in the image.
enum Truth {
    /// By what the kernel knows files by, or the disk itself.
    Owners(Owners),
    /// By path, as of a layer directory.
    Noted(Sidecar),
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
        Walk::with(root, Truth::Owners(Owners::OnDisk))
    }

    /// Starts in a root whose files' truth is in `owners`.
    pub(super) fn with_owners(root: BorrowedFd<'_>, owners: &Owners) -> io::Result<Walk> {
        Walk::with(root, Truth::Owners(owners.clone()))
    }

    /// Starts in a layer directory that `noted` lies beside.
    pub(super) fn of_layer(root: BorrowedFd<'_>, noted: Sidecar) -> io::Result<Walk> {
        Walk::with(root, Truth::Noted(noted))
    }

    fn with(root: BorrowedFd<'_>, truth: Truth) -> io::Result<Walk> {
        let directory = rustix::fs::openat(root, ".", READ_DIRECTORY, Mode::empty())?;
        let frame = Frame::read(&directory, b"", &truth)?;
        Ok(Walk {
            truth,
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
            let found = match &self.truth {
                Truth::Owners(owners) => owners.stat_at(&self.directory, &name)?,
                Truth::Noted(noted) if noted.is_whiteout(&self.path) => Some(Stat::WHITEOUT),
                Truth::Noted(noted) => {
                    stat_at(&self.directory, &name)?.map(|stat| noted.in_image(&self.path, stat))
                }
            };
            let stat = found.ok_or(Errno::NOENT)?;
            return Ok(Some(Visit::Entry(stat)));
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
        self.frames
            .push(Frame::read(&directory, &self.path, &self.truth)?);
        self.directory = directory;
        Ok(())
    }

    /// Returns what the directory is that the walk is in, right after its start or after [`Walk::enter`].
    pub(super) fn stat(&self) -> io::Result<Stat> {
        match &self.truth {
            Truth::Owners(owners) => owners.stat_of(&self.directory),
            Truth::Noted(noted) => Ok(noted.in_image(&self.path, stat_of(&self.directory)?)),
        }
    }

    /// Reads the attributes of the last entry that a layer carries; `file` is that entry, open.
    pub(super) fn read_content(
        &self,
        file: BorrowedFd<'_>,
        naming: Naming,
    ) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        match &self.truth {
            Truth::Owners(owners) => owners.read_content(file, naming),
            Truth::Noted(noted) => noted.read_content(&self.path, file, naming),
        }
    }

    /// Tells whether the directory that the walk is in hides what is below it, right after its start or after [`Walk::enter`].
    pub(super) fn is_opaque(&self) -> io::Result<bool> {
        match &self.truth {
            Truth::Noted(noted) if noted.is_opaque(&self.path) => Ok(true),
            _ => xattr::is_opaque(&self.directory),
        }
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
    fn read(directory: &OwnedFd, path: &[u8], truth: &Truth) -> io::Result<Frame> {
        let mut names = names(directory.as_fd())?;
        if let Truth::Noted(noted) = truth {
            let deleted = noted.whiteouts_in(path).into_iter();
            names.extend(deleted.map(Vec::into_boxed_slice));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Frame {
            path_length: path.len(),
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
