//! Makes one entry in a directory of the root, with all its metadata.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, futimens, mknodat, openat, readlinkat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::content::{ContentError, write_all};
use super::destination::remove;
use super::{Copier, CopyError, io, shown, times};
use crate::context::{ContextError, Kind, Meta, Node, Xattrs, open_file, read_xattrs};
use crate::layer::Mtime;
use crate::rootfs::DescribeError;
use crate::vocab::{DeviceNumber, Ownership, mode_on_disk};

impl Copier<'_> {
    /// Copies `node`, which is no directory, as `name` into `directory`. What has that name is replaced, unless it is a
    /// directory. `path` is for messages.
    pub(super) fn place(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        node: &Node<'_>,
        path: &Path,
    ) -> Result<(), CopyError> {
        self.check_cancelled()?;
        let meta = &node.meta;
        match meta.kind {
            Kind::File => self.file(directory, name, node, path),
            Kind::Socket => {
                let mode = self.mode(meta.mode, false);
                let file = self.create(directory, name, mode, path)?;
                self.stats.files += 1;
                self.finish_file(
                    &file,
                    mode,
                    self.owner_of(meta),
                    &Xattrs::new(),
                    meta.mtime,
                    path,
                )
            }
            Kind::Symlink => self.link(directory, name, node, path),
            Kind::Fifo => self.fifo(directory, name, meta, path),
            Kind::CharDevice if meta.node == (0, 0) => Err(CopyError::Whiteout {
                path: path.to_owned(),
            }),
            Kind::BlockDevice | Kind::CharDevice => self.device(directory, name, meta, path),
            Kind::Directory => unreachable!("directories are entered, not placed"),
        }
    }

    /// Writes a heredoc file.
    pub(super) fn write_inline(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        content: &[u8],
        base: &[u8],
    ) -> Result<(), CopyError> {
        let path = shown(base, name);
        let mode = self.mode(0o644, false);
        let file = self.create(directory, name, mode, &path)?;
        write_all(&file, content).map_err(|error| io("write", path.clone(), error))?;
        self.stats.files += 1;
        self.stats.bytes += content.len() as u64;
        let mtime = self.build_time();
        self.finish_file(&file, mode, self.owner(), &Xattrs::new(), mtime, &path)
    }

    /// Sets what a directory of the source has on the one that stands for it.
    pub(super) fn finish_directory(
        &mut self,
        directory: BorrowedFd<'_>,
        meta: &Meta,
        xattrs: &Xattrs,
        path: &Path,
    ) -> Result<(), CopyError> {
        let mode = self.mode(meta.mode, true);
        self.describe_directory(directory, self.owner_of(meta), mode, &|| path.to_owned())?;
        self.set_xattrs(directory, xattrs);
        futimens(directory, &times(meta.mtime))
            .map_err(|error| io("set the time of", path.to_owned(), error))
    }

    /// Removes what stands in the way of a file.
    pub(super) fn clear(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &Path,
    ) -> Result<(), CopyError> {
        let done = match self.options.link {
            true => remove(directory, name),
            false => unlinkat(directory, name, AtFlags::empty()),
        };
        match done {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(CopyError::IsADirectory {
                path: path.to_owned(),
            }),
            Err(error) => Err(io("remove", path.to_owned(), error)),
        }
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        node: &Node<'_>,
        path: &Path,
    ) -> Result<(), CopyError> {
        let reading = |verb, error: Errno| {
            CopyError::Source(ContextError::Io {
                verb,
                path: lossy(node.source_path),
                source: error.into(),
            })
        };
        let from = open_file(node.parent, node.name, node.source_path)?;
        let meta = Meta::of(&from).map_err(|error| reading("stat", error))?;
        if meta.kind != Kind::File {
            return Err(CopyError::Source(ContextError::Changed {
                path: lossy(node.source_path),
            }));
        }
        let xattrs =
            read_xattrs(&from, &node.meta).map_err(|error| reading("read attributes of", error))?;
        let mode = self.mode(node.meta.mode, false);
        let to = self.create(directory, name, mode, path)?;
        self.content
            .copy(from.as_fd(), to.as_fd(), &meta, self.cancel)
            .map_err(|error| match error {
                ContentError::Cancelled => CopyError::Cancelled,
                ContentError::Read(error) => reading("read", error),
                ContentError::Write(error) => io("write", path.to_owned(), error),
            })?;
        self.stats.files += 1;
        self.stats.bytes += meta.size;
        let owner = self.owner_of(&node.meta);
        self.finish_file(&to, mode, owner, &xattrs, node.meta.mtime, path)
    }

    /// Makes an empty file that is at no moment more open than `mode`.
    fn create(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        mode: u32,
        path: &Path,
    ) -> Result<OwnedFd, CopyError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = match self.owners.ownership() {
            Ownership::OnDisk | Ownership::DevicesInLedger => mode & 0o777,
            Ownership::InLedger => mode_on_disk(mode & 0o777, false),
        };
        let mode = Mode::from_raw_mode(mode);
        self.replacing(directory, name, path, "create", || {
            openat(directory, name, flags, mode)
        })
    }

    /// Sets owner, attributes, mode and time, in this order: giving a file away takes its capability, its setuid and its setgid
    /// bit from it.
    fn finish_file(
        &mut self,
        file: &OwnedFd,
        mode: u32,
        owner: (u32, u32),
        xattrs: &Xattrs,
        mtime: Mtime,
        path: &Path,
    ) -> Result<(), CopyError> {
        let file = file.as_fd();
        self.describe_file(file, owner, mode, path)?;
        self.set_xattrs(file, xattrs);
        futimens(file, &times(mtime)).map_err(|error| io("set the time of", path.to_owned(), error))
    }

    fn link(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        node: &Node<'_>,
        path: &Path,
    ) -> Result<(), CopyError> {
        let target = readlinkat(node.parent, node.name, Vec::new()).map_err(|error| {
            CopyError::Source(ContextError::Io {
                verb: "read the link",
                path: lossy(node.source_path),
                source: error.into(),
            })
        })?;
        self.replacing(directory, name, path, "make the link", || {
            symlinkat(&*target, directory, name)
        })?;
        self.finish_by_name(directory, name, &node.meta, path)
    }

    fn fifo(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        meta: &Meta,
        path: &Path,
    ) -> Result<(), CopyError> {
        let mode = Mode::RUSR | Mode::WUSR;
        self.replacing(directory, name, path, "make the FIFO", || {
            mknodat(directory, name, FileType::Fifo, mode, 0)
        })?;
        self.finish_by_name(directory, name, meta, path)
    }

    fn device(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        meta: &Meta,
        path: &Path,
    ) -> Result<(), CopyError> {
        let device = DeviceNumber {
            is_block: meta.kind == Kind::BlockDevice,
            major: meta.node.0,
            minor: meta.node.1,
        };
        self.replacing(directory, name, path, "make the device", || {
            self.owners.make_device(directory, name, device)
        })?;
        self.finish_by_name(directory, name, meta, path)
    }

    /// Sets the owner, mode and time of something that is not opened: opening a device may do things. The name was made a moment
    /// ago, in a root that no other process writes to.
    fn finish_by_name(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        meta: &Meta,
        path: &Path,
    ) -> Result<(), CopyError> {
        let owner = self.owner_of(meta);
        let mode = (meta.kind != Kind::Symlink).then(|| self.mode(meta.mode, false));
        self.owners
            .describe_at(directory, name, owner, mode)
            .map_err(|error| refused(error, owner, path.to_owned()))?;
        utimensat(
            directory,
            name,
            &times(meta.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|error| io("set the time of", path.to_owned(), error))
    }

    /// Gives a file that was just made its owner and mode. On disk it has most of the time what it needs.
    fn describe_file(
        &self,
        file: BorrowedFd<'_>,
        owner: (u32, u32),
        mode: u32,
        path: &Path,
    ) -> Result<(), CopyError> {
        if self.owners.ownership().gives_away() && !self.owners.has_entries() {
            let meta = Meta::of(file).map_err(|error| io("stat", path.to_owned(), error))?;
            if ((meta.uid, meta.gid), meta.mode) == (owner, mode) {
                return Ok(());
            }
        }
        self.owners
            .describe(file, owner, mode)
            .map_err(|error| refused(error, owner, path.to_owned()))
    }

    /// Gives a directory its owner and mode.
    pub(super) fn describe_directory(
        &self,
        directory: BorrowedFd<'_>,
        owner: (u32, u32),
        mode: u32,
        path: &dyn Fn() -> PathBuf,
    ) -> Result<(), CopyError> {
        self.owners
            .describe(directory, owner, mode)
            .map_err(|error| refused(error, owner, path()))
    }

    /// Calls `make`, once more after clearing the way if something has the name.
    pub(super) fn replacing<T>(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &Path,
        verb: &'static str,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, CopyError> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(directory, name, path)?;
                make()
            }
            made => made,
        }
        .map_err(|error| io(verb, path.to_owned(), error))
    }

    fn set_xattrs(&mut self, file: BorrowedFd<'_>, xattrs: &Xattrs) {
        for (name, value) in xattrs {
            // A file system without attributes, a full one, a namespace without the right: the copy is worth having, and the
            // count says that something is missing.
            if self.owners.set_xattr(file, name, value).is_err() {
                self.stats.lost_xattrs += 1;
            }
        }
    }

    fn owner_of(&self, meta: &Meta) -> (u32, u32) {
        self.options.owner_of(meta)
    }
}

fn refused(error: DescribeError, (uid, gid): (u32, u32), path: PathBuf) -> CopyError {
    match error {
        DescribeError::Owner(error) => CopyError::Owner {
            path,
            uid,
            gid,
            source: error.into(),
        },
        DescribeError::Mode(error) => io("set the mode of", path, error),
        DescribeError::Identity(error) => io("stat", path, error),
    }
}

fn lossy(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;

    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}
