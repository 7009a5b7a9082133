//! What files are: by the ledger where it knows them, else what the disk says.
//!
//! A file of a lower layer of an overlay keeps its number when the kernel copies it up, and is known by that alone (see
//! [`FileId`](crate::vocab::FileId)). Only one with several names becomes a file of its own, and a link may: these are copied
//! up here first, so that they are known by what they are then: see [`Supervision::settle`]. In a user namespace the kernel
//! remembers that number only as long as it has the file in memory; so a file that is copied up here is held open, as many of
//! them as there is room for. (What the layer is told at the end does not hang on that: see `rootfs::note_owners`.)
//!
//! An entry is of a file that has a name, and ends with the last one: then the number may be a new file's at once. Until the
//! last descriptor is closed the file is a nameless one, and what is written down of those is for nobody else.
//!
//! What is only written down has to change the file on disk all the same: its time of change, and that it is copied up, are
//! what a layer is made from. An owner change that changes nothing does both, for links too.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Mode, chmodat, chownat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::vocab::{Attributes, FileId, Ledger, mode_on_disk};

use super::super::walk::errno;
use super::credentials::{Capability, Credentials};
use super::status::Status;
use super::supervision::Supervision;

/// What somebody wants to do with a file: a sum of these, as in a mode's digits.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const EXECUTE: u32 = 1;

/// Longer than the coarsest clock that a file system stamps births by.
const TICK: Duration = Duration::from_secs(3);
/// So many nameless files are known at once. More of them are root's.
const NAMELESS: usize = 4096;
/// So many files are held open at most.
const HELD: u64 = 16384;

/// The files of one command.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) ledger: Ledger,
    /// Files without a name, which are gone when nobody has them open.
    nameless: Ledger,
    /// The latest birth of a file that was written down.
    newest: (i64, u32),
    /// Some file system does not tell births.
    is_timeless: bool,
    /// Files that were copied up and must not be forgotten, the longest held first.
    held: VecDeque<(FileId, OwnedFd)>,
    most_held: usize,
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
        let root = Status::of(root)?.id();
        let has_lower = ledger.iter().any(|(file, _)| *file == file.without_birth());
        let has_xattrs = ledger.iter().any(|(_, file)| !file.xattrs.is_empty());
        let newest = ledger.iter().map(|(file, _)| file.birth).max();
        let mut descriptors = getrlimit(Resource::Nofile);
        descriptors.current = descriptors.maximum;
        // This process's own: the command's is that of another.
        let is_raised = setrlimit(Resource::Nofile, descriptors).is_ok();
        let descriptors = match is_raised {
            true => descriptors.current,
            false => getrlimit(Resource::Nofile).current,
        };
        let descriptors = descriptors.unwrap_or(HELD * 2);
        Ok(Files {
            has_lower,
            has_xattrs,
            root: root.device,
            nameless: Ledger::default(),
            newest: newest.unwrap_or_default(),
            is_timeless: root.birth == (0, 0),
            held: VecDeque::new(),
            most_held: usize::try_from(HELD.min(descriptors / 2)).unwrap_or_default(),
            ledger,
        })
    }

    pub(super) fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// Tells whether every file is what the disk says.
    pub(super) fn is_empty(&self) -> bool {
        self.ledger.is_empty() && self.nameless.is_empty()
    }

    /// Tells whether some file without a name is not what the disk says.
    pub(super) fn has_nameless(&self) -> bool {
        !self.nameless.is_empty()
    }

    /// Tells whether a file that is made when another one is gone may be taken for that, or be kept by that from its room.
    pub(super) fn may_be_mistaken(&self) -> bool {
        if self.ledger.is_empty() {
            return false;
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let newest = Duration::new(u64::try_from(self.newest.0).unwrap_or(0), self.newest.1);
        let is_old = since_epoch.is_ok_and(|now| newest + TICK < now);
        self.is_timeless || !self.held.is_empty() || !is_old
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
        let gives_away = self.ledger.ownership().gives_away();
        let id = status.id();
        let nameless = match status.links() {
            0 => self.nameless.get(&id),
            _ => None,
        };
        let entry = nameless.or_else(|| self.ledger.get(&id));
        Found {
            attributes: match entry {
                Some(entry) if !gives_away => entry.clone(),
                _ => Attributes {
                    uid: status.uid(),
                    gid: status.gid(),
                    mode: status.mode() & 0o7777,
                    device: entry.and_then(|entry| entry.device),
                    ..Attributes::default()
                },
            },
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
        let id = status.id();
        self.has_xattrs |= !attributes.xattrs.is_empty();
        self.is_timeless |= id.birth == (0, 0);
        self.newest = self.newest.max(id.birth);
        self.nameless.remove(&id);
        if self.ledger.is_plain(&attributes, status.mode() & 0o7777) {
            self.ledger.remove(&id);
        } else if status.links() == 0 {
            self.make_nameless(id, attributes);
        } else {
            self.ledger.insert(id, attributes);
        }
        Ok(())
    }

    /// Takes note that a file has lost its last name.
    pub(super) fn forget(&mut self, file: &FileId) {
        self.held.retain(|(held, _)| held != file);
        if let Some(attributes) = self.ledger.remove(file) {
            self.make_nameless(*file, attributes);
        }
    }

    fn make_nameless(&mut self, file: FileId, attributes: Attributes) {
        if self.nameless.len() >= NAMELESS {
            self.nameless = Ledger::default();
        }
        self.ledger.remove(&file);
        self.nameless.insert(file, attributes);
    }

    /// Keeps a file in the kernel's memory if it is not what it was `before`: it has been copied up.
    fn hold(&mut self, fd: BorrowedFd<'_>, before: &Status) -> Result<(), Errno> {
        let id = Status::of(fd)?.id();
        if id == before.id() || id.device != self.root || before.is_directory() {
            return Ok(());
        }
        while self.held.len() >= self.most_held.max(1) {
            self.held.pop_front();
        }
        self.held
            .push_back((id, fd.try_clone_to_owned().map_err(errno)?));
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
    pub(super) fn touch(&mut self, fd: BorrowedFd<'_>, before: &Status) -> Result<(), Errno> {
        match chownat(fd, c"", None, None, AtFlags::EMPTY_PATH) {
            // A file of somebody who is not known in this user namespace, on a file system of the machine's.
            Err(Errno::OVERFLOW) => Ok(()),
            Ok(()) => self.files.hold(fd, before),
            other => other,
        }
    }

    /// Has a lower file copied up before the kernel does it, so that it stays known.
    pub(super) fn settle(&mut self, fd: BorrowedFd<'_>) -> Result<Found, Errno> {
        let found = self.files.look(fd)?;
        if !self.files.has_lower || !found.is_listed || found.status.is_directory() {
            return Ok(found);
        }
        self.touch(fd, &found.status)?;
        let now = self.files.look(fd)?;
        // Under its birth as a copy too: it may be all that is left to know it by.
        if now.is_listed && now.status.id() == found.status.id() {
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
        self.files.hold(fd, &found.status)?;
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
