//! What the files of a tree are in the image: the disk's word for it, or a ledger's.
//!
//! A process that can give files away and make devices keeps owners, modes, device numbers and capabilities on disk. A process
//! with one id cannot; its files lie on disk as its own, with the modes of [`mode_on_disk`], devices are empty regular files,
//! and the rest is in a [`Ledger`]. Between the two is a process with many ids in a user namespace: all but the numbers of
//! devices is on disk. [`Owners`] says which of these a tree is, and everything that this room and its callers
//! set or ask of a file's owner, mode, device numbers or capabilities goes through it. Content, links, times and other
//! attributes are on disk in all.
//!
//! Invariants: in a ledger there is an entry for exactly those files that the disk does not show right; nothing is ever given
//! away then. A file is changed on disk before it is asked who it is: in a mounted overlay the change may copy it up, and then it
//! has another birth.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Statx, StatxFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::vocab::{Attributes, DeviceNumber, FileId, Ledger, Ownership, mode_on_disk};

use super::stat::{FileKind, Stat};
use super::tree;
use super::xattr::{self, Naming};

/// Where the truth about a tree's files is. Clones share the ledger.
#[derive(Clone, Debug, Default)]
pub enum Owners {
    #[default]
    OnDisk,
    /// Devices alone.
    DevicesInLedger(Arc<Mutex<Ledger>>),
    InLedger(Arc<Mutex<Ledger>>),
}

/// Which part of describing a file failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescribeError {
    Owner(Errno),
    Mode(Errno),
    /// Asking which file it is.
    Identity(Errno),
}

impl Owners {
    /// Returns where a tree of which nothing is known yet has its truth.
    pub fn new(ownership: Ownership) -> Owners {
        match ownership {
            Ownership::OnDisk => Owners::OnDisk,
            Ownership::DevicesInLedger => Owners::in_ledger(Ledger::of_devices()),
            Ownership::InLedger => Owners::in_ledger(Ledger::default()),
        }
    }

    /// Takes what is known of a tree's files.
    pub fn in_ledger(ledger: Ledger) -> Owners {
        let is_of_devices = ledger.ownership() == Ownership::DevicesInLedger;
        let ledger = Arc::new(Mutex::new(ledger));
        match is_of_devices {
            true => Owners::DevicesInLedger(ledger),
            false => Owners::InLedger(ledger),
        }
    }

    /// Tells which of them this is.
    pub fn ownership(&self) -> Ownership {
        match self {
            Owners::OnDisk => Ownership::OnDisk,
            Owners::DevicesInLedger(_) => Ownership::DevicesInLedger,
            Owners::InLedger(_) => Ownership::InLedger,
        }
    }

    /// Returns a copy of the ledger, where there is one.
    pub fn ledger(&self) -> Option<Ledger> {
        self.known().map(|ledger| ledger.clone())
    }

    /// Tells whether anything is written down.
    pub fn has_entries(&self) -> bool {
        self.known().is_some_and(|ledger| !ledger.is_empty())
    }

    /// Takes the ledger as somebody else has left it. On disk there is nothing to take.
    pub fn replace(&self, ledger: Ledger) {
        if let Some(mut known) = self.known() {
            *known = ledger;
        }
    }

    /// Adds what is known of the files of another tree, so that whoever meets them knows them.
    pub fn extend(&self, others: &Owners) {
        let Some(others) = others.ledger() else {
            return;
        };
        if let Some(mut known) = self.known() {
            for (file, attributes) in others.iter() {
                known.insert(*file, attributes.clone());
            }
        }
    }

    /// Sets owner and mode of an open file that is new, or of a directory. A new file's attributes come after this call.
    pub fn describe(
        &self,
        file: BorrowedFd<'_>,
        owner: (u32, u32),
        mode: u32,
    ) -> Result<(), DescribeError> {
        if self.ownership().gives_away() {
            if self.has_entries() {
                // It may have the number of a device that is gone.
                let asked = statx_of(file).map_err(DescribeError::Identity)?;
                self.write(identity(&asked), 0, |known| known.device = None);
            }
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(DescribeError::Owner)?;
            return rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))
                .map_err(DescribeError::Mode);
        }
        let asked = statx_of(file).map_err(DescribeError::Identity)?;
        let is_directory = Stat::from(&asked).is_directory();
        let on_disk = mode_on_disk(mode, is_directory);
        rustix::fs::fchmod(file, Mode::from_raw_mode(on_disk)).map_err(DescribeError::Mode)?;
        let file = identity(&statx_of(file).map_err(DescribeError::Identity)?);
        self.write(file, on_disk, |known| {
            known.uid = owner.0;
            known.gid = owner.1;
            known.mode = mode & 0o7777;
            known.device = None;
            if !is_directory {
                known.xattrs.clear();
            }
        });
        Ok(())
    }

    /// Sets owner and mode of `name` in `parent`: of a node that was made a moment ago, or of a file that has got another name. A
    /// link has no mode.
    pub fn describe_at(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        owner: (u32, u32),
        mode: Option<u32>,
    ) -> Result<(), DescribeError> {
        if self.ownership().gives_away() {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)
                .map_err(DescribeError::Owner)?;
            return self.chmod_at(parent, name, mode);
        }
        self.chmod_at(parent, name, mode.map(|mode| mode_on_disk(mode, false)))?;
        let asked = statx_at(parent, name).map_err(DescribeError::Identity)?;
        let stat = Stat::from(&asked);
        self.write(identity(&asked), stat.mode, |known| {
            known.uid = owner.0;
            known.gid = owner.1;
            known.mode = mode.map_or(stat.mode, |mode| mode & 0o7777);
            // Where births are not told, what is known may be of another file that had the number.
            if stat.kind != FileKind::File {
                known.device = None;
                known.xattrs.clear();
            }
        });
        Ok(())
    }

    /// Sets the mode by name, which must not be a link's.
    fn chmod_at(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        mode: Option<u32>,
    ) -> Result<(), DescribeError> {
        let Some(mode) = mode else {
            return Ok(());
        };
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(DescribeError::Mode)
    }

    /// Makes a device, which must be described then. `EPERM` where the process may not and there is no ledger.
    pub fn make_device(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        device: DeviceNumber,
    ) -> rustix::io::Result<()> {
        if self.is_on_disk() {
            let kind = match device.is_block {
                true => FileType::BlockDevice,
                false => FileType::CharacterDevice,
            };
            let number = rustix::fs::makedev(device.major, device.minor);
            return rustix::fs::mknodat(parent, name, kind, Mode::RUSR, number);
        }
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        let file = identity(&statx_of(file.as_fd())?);
        self.write(file, 0o600, |known| {
            *known = Attributes {
                mode: 0o600,
                device: Some(device),
                ..Attributes::default()
            };
        });
        Ok(())
    }

    /// Sets an attribute of an open file, which is on disk unless it is one that only root may set.
    pub fn set_xattr(
        &self,
        file: BorrowedFd<'_>,
        name: &[u8],
        value: &[u8],
    ) -> rustix::io::Result<()> {
        if self.ownership().gives_away() || name.starts_with(b"user.") {
            return rustix::fs::fsetxattr(file, name, value, XattrFlags::empty());
        }
        if name != xattr::CAPABILITY {
            // Labels and access lists: the disk would take some of them for what they say, of ids that are not meant.
            return Err(Errno::OPNOTSUPP);
        }
        let asked = statx_of(file)?;
        self.write(identity(&asked), Stat::from(&asked).mode, |known| {
            known.xattrs.insert(name.to_vec(), value.to_vec());
        });
        Ok(())
    }

    /// Returns what is known of a file besides what the disk says.
    pub fn known_of(&self, file: &FileId) -> Option<Attributes> {
        self.known()?.get(file).cloned()
    }

    /// Returns what an open file is in the image. It may be open as a path only.
    pub fn stat_of(&self, file: impl AsFd) -> io::Result<Stat> {
        let Some(ledger) = self.needed() else {
            return tree::stat_of(file);
        };
        let asked = statx_of(file.as_fd())?;
        let known = ledger.get(&identity(&asked));
        Ok(Stat::from(&asked).in_image(ledger.ownership(), known))
    }

    /// Returns what `name` in `parent` is in the image, a link itself, or `None` where there is nothing.
    pub fn stat_at(&self, parent: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
        let Some(ledger) = self.needed() else {
            return tree::stat_at(parent, name);
        };
        let asked = match statx_at(parent.as_fd(), name) {
            Ok(asked) => asked,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let known = ledger.get(&identity(&asked));
        Ok(Some(Stat::from(&asked).in_image(ledger.ownership(), known)))
    }

    /// Reads the attributes of an open file that a layer carries.
    pub(super) fn read_content(
        &self,
        file: BorrowedFd<'_>,
        naming: Naming,
    ) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut content = xattr::read_content(file, naming)?;
        if let Some(ledger) = self.known() {
            let asked = statx_of(file)?;
            if let Some(known) = ledger.get(&identity(&asked)) {
                content.extend(known.xattrs.clone());
            }
        }
        Ok(content)
    }

    /// Returns the ledger where the disk may not say it all.
    fn needed(&self) -> Option<MutexGuard<'_, Ledger>> {
        self.known()
            .filter(|ledger| ledger.ownership() == Ownership::InLedger || !ledger.is_empty())
    }

    fn is_on_disk(&self) -> bool {
        matches!(self, Owners::OnDisk)
    }

    /// Changes what is known of a file whose mode on disk is `on_disk`, from what it seems to be.
    fn write(&self, file: FileId, on_disk: u32, change: impl FnOnce(&mut Attributes)) {
        let Some(mut ledger) = self.known() else {
            return;
        };
        let seems = || Attributes {
            mode: on_disk,
            ..Attributes::default()
        };
        let mut attributes = ledger.get(&file).cloned().unwrap_or_else(seems);
        change(&mut attributes);
        match ledger.is_plain(&attributes, on_disk) {
            true => drop(ledger.remove(&file)),
            false => ledger.insert(file, attributes),
        }
    }

    /// The ledger is whole at every line, so a panic elsewhere does not spoil it.
    fn known(&self) -> Option<MutexGuard<'_, Ledger>> {
        match self {
            Owners::OnDisk => None,
            Owners::DevicesInLedger(ledger) | Owners::InLedger(ledger) => {
                Some(ledger.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

impl DescribeError {
    /// Returns what was tried, and the error number.
    pub fn parts(self) -> (&'static str, Errno) {
        match self {
            DescribeError::Owner(error) => ("chown", error),
            DescribeError::Mode(error) => ("chmod", error),
            DescribeError::Identity(error) => ("stat", error),
        }
    }
}

impl From<DescribeError> for io::Error {
    fn from(error: DescribeError) -> io::Error {
        error.parts().1.into()
    }
}

/// Asks for all that tells files apart and describes them.
pub(super) const ASKED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

pub(super) fn statx_of(file: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, ASKED)
}

pub(super) fn statx_at(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Statx> {
    rustix::fs::statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, ASKED)
}

pub(super) fn identity(asked: &Statx) -> FileId {
    let has_birth = asked.stx_mask & StatxFlags::BTIME.bits() != 0;
    FileId {
        device: (asked.stx_dev_major, asked.stx_dev_minor),
        inode: asked.stx_ino,
        birth: match has_birth {
            true => (asked.stx_btime.tv_sec, asked.stx_btime.tv_nsec),
            false => (0, 0),
        },
    }
}
