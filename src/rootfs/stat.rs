//! What a directory entry is: `fstatat` and `statx` in the words of [`Entry`](crate::layer::Entry). No I/O.

use rustix::fs::{FileType, Statx};

use crate::layer::Mtime;
use crate::vocab::{Attributes, Ownership};

/// One file's metadata, links not followed unless the caller did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: FileKind,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: Mtime,
    pub device: u64,
    pub inode: u64,
    pub links: u64,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl Stat {
    /// A deletion that only the file beside a layer directory tells of.
    pub(super) const WHITEOUT: Stat = Stat {
        kind: FileKind::CharDevice,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Mtime {
            seconds: 0,
            nanoseconds: 0,
        },
        device: 0,
        inode: 0,
        links: 1,
        rdev: (0, 0),
    };

    /// Tells whether overlayfs takes this for a deletion.
    pub fn is_whiteout(&self) -> bool {
        self.kind == FileKind::CharDevice && self.rdev == (0, 0)
    }

    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Returns what the file is in the image, where the disk does not say all of it: what was written down, else user 0's and
    /// group 0's if owners are not on disk. Marks of overlayfs stay what they are.
    pub(super) fn in_image(mut self, ownership: Ownership, known: Option<&Attributes>) -> Stat {
        if ownership == Ownership::InLedger {
            (self.uid, self.gid) = (0, 0);
        }
        let Some(known) = known else {
            return self;
        };
        match ownership {
            Ownership::OnDisk => return self,
            Ownership::DevicesInLedger => {}
            Ownership::InLedger => {
                (self.uid, self.gid, self.mode) = (known.uid, known.gid, known.mode);
            }
        }
        if let Some(device) = known.device
            && self.kind == FileKind::File
        {
            self.kind = match device.is_block {
                true => FileKind::BlockDevice,
                false => FileKind::CharDevice,
            };
            self.rdev = (device.major, device.minor);
            self.size = 0;
        }
        self
    }
}

impl FileKind {
    fn of(mode: u32) -> FileKind {
        match FileType::from_raw_mode(mode) {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::RegularFile | FileType::Unknown => FileKind::File,
        }
    }
}

impl From<&Statx> for Stat {
    fn from(stat: &Statx) -> Stat {
        let mode = u32::from(stat.stx_mode);
        Stat {
            kind: FileKind::of(mode),
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            mtime: Mtime {
                seconds: stat.stx_mtime.tv_sec,
                nanoseconds: stat.stx_mtime.tv_nsec,
            },
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            links: u64::from(stat.stx_nlink),
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        }
    }
}

impl From<rustix::fs::Stat> for Stat {
    fn from(stat: rustix::fs::Stat) -> Stat {
        Stat {
            kind: FileKind::of(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: Mtime {
                seconds: stat.st_mtime,
                nanoseconds: stat.st_mtime_nsec as u32,
            },
            device: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            rdev: (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
        }
    }
}
