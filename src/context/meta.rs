//! What the kernel says of one file.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, statx};
use rustix::io::Result;

use super::xattrs::Xattrs;
use crate::layer::Mtime;
use crate::vocab::{Attributes, FileId, Ownership};

/// Metadata of a file, links not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// In units of 512 bytes; less than `size` needs in a file with holes.
    pub blocks: u64,
    pub mtime: Mtime,
    pub ctime: Mtime,
    /// Major and minor number of the file system, which tell it apart together with `inode`.
    pub device: (u32, u32),
    pub inode: u64,
    /// Names of the inode.
    pub links: u32,
    /// Major and minor number that a device node stands for.
    pub node: (u32, u32),
    /// Seconds and nanoseconds; zeroes where it was not asked for, or the file system does not tell.
    pub birth: (i64, u32),
    /// Attributes that the file has in the image and not on disk.
    pub xattrs: Xattrs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    /// Counts as an empty regular file.
    Socket,
}

impl Meta {
    /// Asks for the entry `name` of `directory`.
    pub fn at(directory: impl AsFd, name: impl rustix::path::Arg) -> Result<Meta> {
        Meta::asked_at(directory, name, StatxFlags::BASIC_STATS)
    }

    /// Asks for an open file.
    pub fn of(file: impl AsFd) -> Result<Meta> {
        Meta::asked_of(file, StatxFlags::BASIC_STATS)
    }

    /// Asks for the entry `name` of `directory` and for its birth: on some file systems the answer is further away.
    pub fn born_at(directory: impl AsFd, name: impl rustix::path::Arg) -> Result<Meta> {
        Meta::asked_at(directory, name, WITH_BIRTH)
    }

    /// Asks for an open file and for its birth.
    pub fn born_of(file: impl AsFd) -> Result<Meta> {
        Meta::asked_of(file, WITH_BIRTH)
    }

    fn asked_at(
        directory: impl AsFd,
        name: impl rustix::path::Arg,
        asked: StatxFlags,
    ) -> Result<Meta> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(Meta::from(&statx(directory, name, flags, asked)?))
    }

    fn asked_of(file: impl AsFd, asked: StatxFlags) -> Result<Meta> {
        Ok(Meta::from(&statx(file, c"", AtFlags::EMPTY_PATH, asked)?))
    }

    /// Returns which file it is, if it was asked for its birth.
    pub fn file_id(&self) -> FileId {
        FileId {
            device: self.device,
            inode: self.inode,
            birth: self.birth,
        }
    }

    /// Returns what the file is in the image, where the disk does not say all of it: what was written down, else user 0's and
    /// group 0's if owners are not on disk.
    pub fn in_image(mut self, ownership: Ownership, known: Option<&Attributes>) -> Meta {
        if !ownership.gives_away() {
            (self.uid, self.gid) = (0, 0);
        }
        let Some(known) = known else {
            return self;
        };
        if !ownership.gives_away() {
            (self.uid, self.gid, self.mode) = (known.uid, known.gid, known.mode);
        }
        if let Some(device) = known.device
            && self.kind == Kind::File
        {
            self.kind = match device.is_block {
                true => Kind::BlockDevice,
                false => Kind::CharDevice,
            };
            self.node = (device.major, device.minor);
            self.size = 0;
        }
        let xattrs = known.xattrs.iter();
        self.xattrs = xattrs
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        self
    }

    /// Tells whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Returns the metadata of a directory that is there only for what it holds; the times stay.
    pub(super) fn implied(self) -> Meta {
        Meta {
            mode: 0o755,
            uid: 0,
            gid: 0,
            ..self
        }
    }

    /// Tells whether both describe the same state of the same file.
    pub(super) fn is_unchanged(&self, later: &Meta) -> bool {
        (
            self.kind,
            self.device,
            self.inode,
            self.size,
            self.mtime,
            self.ctime,
        ) == (
            later.kind,
            later.device,
            later.inode,
            later.size,
            later.mtime,
            later.ctime,
        )
    }
}

const WITH_BIRTH: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

impl From<&Statx> for Meta {
    fn from(stat: &Statx) -> Meta {
        let mode = u32::from(stat.stx_mode);
        let kind = match FileType::from_raw_mode(mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => Kind::File,
        };
        let moment = |time: &rustix::fs::StatxTimestamp| Mtime {
            seconds: time.tv_sec,
            nanoseconds: time.tv_nsec,
        };
        Meta {
            kind,
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            mtime: moment(&stat.stx_mtime),
            ctime: moment(&stat.stx_ctime),
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            links: stat.stx_nlink,
            node: (stat.stx_rdev_major, stat.stx_rdev_minor),
            birth: match stat.stx_mask & StatxFlags::BTIME.bits() {
                0 => (0, 0),
                _ => (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
            },
            xattrs: Xattrs::new(),
        }
    }
}
