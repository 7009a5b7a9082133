//! One entry of a tree, made again in another: from a layer directory into a composed root, and back.
//!
//! Everything goes along: content with its holes, owner, mode, time, device number, attributes. Contents are shared with the
//! original where the file system can (a reflink), else copied by the kernel, else by hand. The order of what is set is that
//! of [`metadata`](super::metadata): a change of owner clears set-id bits and capabilities.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::vocab::{Attributes, Cancel, DeviceNumber, Ownership};

use super::owners::{DescribeError, Owners};
use super::stat::{FileKind, Stat};
use super::tree::times;
use super::xattr::{self, Carried, Naming};

/// Larger files may have holes worth keeping, and are copied by the kernel.
const SMALL: u64 = 64 << 10;
/// What is copied at once: a build that is cancelled waits no longer than that.
const PIECE: u64 = 64 << 20;

pub(super) struct Carrier<'a> {
    from: Naming,
    to: Naming,
    /// Of the tree that things are made in.
    owners: Owners,
    can_share: bool,
    can_copy_range: bool,
    buffer: Vec<u8>,
    cancel: &'a Cancel,
    /// Of file content that was carried.
    pub(super) bytes: u64,
}

/// Where an entry is.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
}

/// What a file is in the image.
pub(super) struct Original {
    pub(super) stat: Stat,
    /// Attributes that are not on disk.
    xattrs: Vec<Carried>,
}

impl Original {
    /// Joins what the disk says and what was written down; `owners` of the tree that the file is in tell which counts.
    pub(super) fn new(stat: Stat, ownership: Ownership, known: Option<&Attributes>) -> Original {
        if ownership.gives_away() {
            return Original {
                stat: stat.in_image(ownership, known),
                xattrs: Vec::new(),
            };
        }
        let carried = |(name, value): (&Vec<u8>, &Vec<u8>)| Carried {
            name: name.clone(),
            value: value.clone(),
            is_needed: true,
        };
        let known_xattrs = known.iter().flat_map(|known| &known.xattrs);
        Original {
            stat: stat.in_image(ownership, known),
            xattrs: known_xattrs.map(carried).collect(),
        }
    }

    /// Adds the attributes that are on disk, in the words of the other tree.
    fn with_disks(
        self,
        file: impl AsFd,
        from: Naming,
        to: Naming,
    ) -> io::Result<(Stat, Vec<Carried>)> {
        let mut xattrs = xattr::carried(file, from, to)?;
        xattrs.extend(self.xattrs);
        Ok((self.stat, xattrs))
    }
}

impl<'a> Carrier<'a> {
    pub(super) fn new(from: Naming, to: Naming, owners: Owners, cancel: &'a Cancel) -> Carrier<'a> {
        Carrier {
            from,
            to,
            owners,
            can_share: true,
            can_copy_range: true,
            buffer: Vec::new(),
            cancel,
            bytes: 0,
        }
    }

    /// Makes `from`, which is `original` and no directory, at `to`, where nothing may be: else it is [`Errno::EXIST`]. Returns
    /// false for a device that this process may not make.
    pub(super) fn entry(
        &mut self,
        from: Spot<'_>,
        original: Original,
        to: Spot<'_>,
    ) -> io::Result<bool> {
        let stat = original.stat;
        let (major, minor) = stat.rdev;
        let device = |is_block| DeviceNumber {
            is_block,
            major,
            minor,
        };
        let Spot { directory, name } = to;
        let node = |kind| rustix::fs::mknodat(directory, name, kind, Mode::RUSR, 0);
        match stat.kind {
            FileKind::File => {
                self.file(from, original, to)?;
                return Ok(true);
            }
            FileKind::Symlink => {
                let target = rustix::fs::readlinkat(from.directory, from.name, Vec::new())?;
                rustix::fs::symlinkat(target, directory, name)?;
            }
            FileKind::Fifo => node(FileType::Fifo)?,
            FileKind::Socket => node(FileType::Socket)?,
            FileKind::CharDevice | FileKind::BlockDevice => {
                let device = device(stat.kind == FileKind::BlockDevice);
                match self.owners.make_device(directory, name, device) {
                    Err(Errno::PERM) => return Ok(false),
                    made => made?,
                }
            }
            FileKind::Directory => unreachable!("directories are made by whoever walks"),
        }
        // The kernel lets none of them have attributes that matter, and a link have no mode.
        let mode = (stat.kind != FileKind::Symlink).then_some(stat.mode);
        self.owners
            .describe_at(directory, name, (stat.uid, stat.gid), mode)
            .map_err(number)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(directory, name, &times(stat.mtime), flags)?;
        Ok(true)
    }

    /// Reads all that a directory gets when it is full.
    pub(super) fn directory_of(
        &self,
        directory: BorrowedFd<'_>,
        original: Original,
    ) -> io::Result<(Stat, Vec<Carried>)> {
        original.with_disks(directory, self.from, self.to)
    }

    /// Gives a directory everything but its content. Called when it is full: filling changes its time, and its mode may not
    /// allow filling. An `old` directory loses attributes that are not among `xattrs`.
    pub(super) fn directory(
        &self,
        stat: &Stat,
        xattrs: &[Carried],
        to: BorrowedFd<'_>,
        is_old: bool,
    ) -> io::Result<()> {
        if is_old {
            for Carried { name, .. } in xattr::carried(to, self.to, self.to)? {
                if !xattrs.iter().any(|kept| kept.name == name) {
                    rustix::fs::fremovexattr(to, &name)?;
                }
            }
        }
        self.describe(to, stat, xattrs)
    }

    fn file(&mut self, from: Spot<'_>, original: Original, to: Spot<'_>) -> io::Result<()> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from.directory, from.name, flags, Mode::empty())?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to.directory, to.name, flags, Mode::RUSR | Mode::WUSR)?;
        let (stat, xattrs) = original.with_disks(&source, self.from, self.to)?;
        self.content(&source, &target, stat.size)?;
        self.bytes += stat.size;
        self.describe(target.as_fd(), &stat, &xattrs)
    }

    fn describe(&self, file: BorrowedFd<'_>, stat: &Stat, xattrs: &[Carried]) -> io::Result<()> {
        self.owners
            .describe(file, (stat.uid, stat.gid), stat.mode)
            .map_err(number)?;
        for Carried {
            name,
            value,
            is_needed,
        } in xattrs
        {
            match self.owners.set_xattr(file, name, value) {
                Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL)
                    if !is_needed => {}
                set => set?,
            }
        }
        Ok(rustix::fs::futimens(file, &times(stat.mtime))?)
    }

    fn content(&mut self, source: &OwnedFd, target: &OwnedFd, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        if self.can_share {
            match rustix::fs::ioctl_ficlone(target, source) {
                Ok(()) => return Ok(()),
                // What it says of one file it says of all: they are on the same two file systems.
                Err(_) => self.can_share = false,
            }
        }
        if size <= SMALL {
            return self.by_hand(source, target, 0, size);
        }
        let mut at = 0;
        while at < size {
            // A file system that knows no holes answers as if there were none.
            let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(_) => at,
            };
            let end = match rustix::fs::seek(source, SeekFrom::Hole(start)) {
                Ok(end) if end > start => end.min(size),
                _ => size,
            };
            self.range(source, target, start, end)?;
            at = end;
        }
        Ok(rustix::fs::ftruncate(target, size)?)
    }

    fn range(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        mut at: u64,
        end: u64,
    ) -> io::Result<()> {
        while at < end && self.can_copy_range {
            self.check_cancelled()?;
            let (mut from, mut to) = (at, at);
            let length = (end - at).min(PIECE) as usize;
            match rustix::fs::copy_file_range(
                source,
                Some(&mut from),
                target,
                Some(&mut to),
                length,
            ) {
                // The file is shorter than it was, or the file system pretends; reading tells.
                Ok(0) => break,
                Ok(copied) => at += copied as u64,
                Err(Errno::NOSPC) => return Err(Errno::NOSPC.into()),
                Err(_) => self.can_copy_range = false,
            }
        }
        self.by_hand(source, target, at, end)
    }

    fn by_hand(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        mut at: u64,
        end: u64,
    ) -> io::Result<()> {
        if at >= end {
            return Ok(());
        }
        self.buffer.resize((SMALL as usize) * 4, 0);
        while at < end {
            let wanted = (end - at).min(self.buffer.len() as u64) as usize;
            let read = rustix::io::pread(source, &mut self.buffer[..wanted], at)?;
            if read == 0 {
                break;
            }
            let mut piece = &self.buffer[..read];
            while !piece.is_empty() {
                let written = rustix::io::pwrite(target, piece, at)?;
                piece = &piece[written..];
                at += written as u64;
            }
            self.check_cancelled()?;
        }
        Ok(())
    }

    fn check_cancelled(&self) -> io::Result<()> {
        match self.cancel.is_cancelled() {
            true => Err(io::Error::other("cancelled")),
            false => Ok(()),
        }
    }
}

fn number(error: DescribeError) -> io::Error {
    error.parts().1.into()
}
