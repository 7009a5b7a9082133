//! What a directory entry is: `fstatat` in the words of [`Entry`](crate::layer::Entry). No I/O.

use rustix::fs::FileType;

use crate::layer::Mtime;

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
    /// Tells whether overlayfs takes this for a deletion.
    pub fn is_whiteout(&self) -> bool {
        self.kind == FileKind::CharDevice && self.rdev == (0, 0)
    }

    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

impl From<rustix::fs::Stat> for Stat {
    fn from(stat: rustix::fs::Stat) -> Stat {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::RegularFile | FileType::Unknown => FileKind::File,
        };
        Stat {
            kind,
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
