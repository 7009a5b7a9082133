//! What files are: by the ledger where it knows them, else what the disk says.
//!
//! A file of a lower layer of an overlay keeps its number when the kernel copies it up, and is known by that alone (see
//! [`FileId`](crate::vocab::FileId)). Only one with several names becomes a file of its own, and a link may: these are copied
//! up here first, so that they are known by what they are then: see [`Supervision::settle`].
//!
//! What is only written down has to change the file on disk all the same: its time of change, and that it is copied up, are
//! what a layer is made from. An owner change that changes nothing does both, for links too.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, chmodat, chownat};
use rustix::io::Errno;

use crate::vocab::{Attributes, Ledger, mode_on_disk};

use super::credentials::{Capability, Credentials};
use super::status::Status;
use super::supervision::Supervision;

/// What somebody wants to do with a file: a sum of these, as in a mode's digits.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const EXECUTE: u32 = 1;

/// The files of one command.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) ledger: Ledger,
    /// Some entry may be of a lower layer's file.
    has_lower: bool,
    root: (u32, u32),
    /// Some file has attributes that the disk does not take.
    has_xattrs: bool,
}

/// A file that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) status: Status,
    pub(super) attributes: Attributes,
    /// It is in the ledger, and so not what the disk says.
    pub(super) is_listed: bool,
}

impl Files {
    pub(super) fn new(ledger: Ledger, root: BorrowedFd<'_>) -> Result<Files, Errno> {
        let device = Status::of(root)?.device();
        let has_lower = ledger.iter().any(|(file, _)| *file == file.without_birth());
        let has_xattrs = ledger.iter().any(|(_, file)| !file.xattrs.is_empty());
        Ok(Files {
            has_lower,
            has_xattrs,
            root: device,
            ledger,
        })
    }

    pub(super) fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// Tells whether every file is what the disk says.
    pub(super) fn is_empty(&self) -> bool {
        self.ledger.is_empty()
    }

    /// Tells whether a file may be one of a lower layer that is written down.
    pub(super) fn has_lower(&self) -> bool {
        self.has_lower
    }

    /// Tells whether any file may have attributes here.
    pub(super) fn has_xattrs(&self) -> bool {
        self.has_xattrs
    }

    /// Looks at a file.
    pub(super) fn look(&self, fd: impl AsFd) -> Result<Found, Errno> {
        Ok(self.know(Status::of(fd)?))
    }

    pub(super) fn know(&self, status: Status) -> Found {
        let entry = self.ledger.get(&status.id());
        Found {
            attributes: entry.cloned().unwrap_or_else(|| Attributes {
                uid: status.uid(),
                gid: status.gid(),
                mode: status.mode() & 0o7777,
                ..Attributes::default()
            }),
            is_listed: entry.is_some(),
            status,
        }
    }

    /// Writes down what a file is, after what was to be done to it on disk is done.
    pub(super) fn record(
        &mut self,
        fd: BorrowedFd<'_>,
        attributes: Attributes,
    ) -> Result<(), Errno> {
        let status = Status::of(fd)?;
        self.has_xattrs |= !attributes.xattrs.is_empty();
        if attributes.is_plain(status.mode() & 0o7777) {
            self.ledger.remove(&status.id());
        } else {
            self.ledger.insert(status.id(), attributes);
        }
        Ok(())
    }

    /// Returns the permission bits that a file is to have on disk. In the root the ledger has the truth; in what is mounted there
    /// nobody reads the ledger later, so it is the mode itself.
    fn on_disk(&self, found: &Found, mode: u32) -> u32 {
        match found.status.device() == self.root {
            true => mode_on_disk(mode, found.status.is_directory()),
            false => mode & 0o7777,
        }
    }
}

impl Supervision {
    /// Changes nothing about a file but its time of change, and has it copied up.
    pub(super) fn touch(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        match chownat(fd, c"", None, None, AtFlags::EMPTY_PATH) {
            // A file of somebody who is not known in this user namespace, on a file system of the machine's.
            Err(Errno::OVERFLOW) => Ok(()),
            other => other,
        }
    }

    /// Has a lower file copied up before the kernel does it, so that it stays known.
    pub(super) fn settle(&mut self, fd: BorrowedFd<'_>) -> Result<Found, Errno> {
        let found = self.files.look(fd)?;
        if !self.files.has_lower || !found.is_listed || found.status.is_directory() {
            return Ok(found);
        }
        self.touch(fd)?;
        let now = self.files.look(fd)?;
        if now.is_listed {
            return Ok(now);
        }
        self.files.record(fd, found.attributes)?;
        self.files.look(fd)
    }

    /// Gives a file its permission bits, on disk and in the ledger, together with the rest of its attributes.
    pub(super) fn set_mode(
        &mut self,
        fd: BorrowedFd<'_>,
        found: &Found,
        attributes: Attributes,
    ) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(self.files.on_disk(found, attributes.mode));
        // The descriptor may be one that only names the file.
        let path = format!("self/fd/{}", fd.as_raw_fd());
        chmodat(&self.proc, path, mode, AtFlags::empty())?;
        self.files.record(fd, attributes)
    }

    /// Writes down what a file that was just made is: whose, and with the mode that it got on disk or another.
    pub(super) fn adopt(
        &mut self,
        fd: BorrowedFd<'_>,
        change: impl FnOnce(&mut Attributes),
    ) -> Result<(), Errno> {
        // Whatever was known by this identity is gone.
        let status = Status::of(fd)?;
        let mut attributes = Attributes {
            mode: status.mode() & 0o7777,
            ..Attributes::default()
        };
        change(&mut attributes);
        let found = Found {
            attributes: Attributes::default(),
            is_listed: false,
            status,
        };
        let is_right = self.files.on_disk(&found, attributes.mode) == status.mode() & 0o7777;
        match is_right || status.is_link() {
            true => self.files.record(fd, attributes),
            false => self.set_mode(fd, &found, attributes),
        }
    }
}

impl Found {
    /// Checks the permission bits. Whoever overrides them may do everything but execute what nobody may.
    pub(super) fn check(&self, who: &Credentials, want: u32) -> Result<(), Errno> {
        let file = &self.attributes;
        let class = match () {
            () if who.user.file == file.uid => 6,
            () if who.is_in_group(file.gid) => 3,
            () => 0,
        };
        let mut granted = file.mode >> class & 7;
        let is_directory = self.status.is_directory();
        if who.may(Capability::DacOverride) {
            granted |= match is_directory || file.mode & 0o111 != 0 {
                true => READ | WRITE | EXECUTE,
                false => READ | WRITE,
            };
        }
        if who.may(Capability::DacReadSearch) {
            granted |= match is_directory {
                true => READ | EXECUTE,
                false => READ,
            };
        }
        match granted & want == want {
            true => Ok(()),
            false => Err(Errno::ACCESS),
        }
    }

    /// Checks what only the owner may do.
    pub(super) fn check_owner(&self, who: &Credentials) -> Result<(), Errno> {
        match who.may(Capability::Fowner) || who.user.file == self.attributes.uid {
            true => Ok(()),
            false => Err(Errno::PERM),
        }
    }
}
