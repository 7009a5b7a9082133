//! The calls that tell what a file is: the stat family, and whether one may.
//!
//! Only files in the ledger are answered for; what the disk says itself, and every error, is left to the kernel.

use rustix::io::Errno;

use super::listener::Answer;
use super::ownership::Found;
use super::place::Place;
use super::status::Status;
use super::supervision::{Caller, Supervision};

/// Directory or [`HERE`](super::place::HERE), address of the path, whether links are followed, whether the path may be empty.
pub(super) type Named = (u32, u64, bool, bool);

impl Supervision {
    pub(super) fn show_stat(
        &self,
        caller: &Caller,
        named: Named,
        into: u64,
    ) -> Result<Answer, Errno> {
        let found = self.find_listed(caller, named, 0, 0);
        self.tell_stat(caller, found, into)
    }

    pub(super) fn show_stat_of(
        &self,
        caller: &Caller,
        descriptor: u32,
        into: u64,
    ) -> Result<Answer, Errno> {
        if self.files.is_empty() {
            return Ok(Answer::Continue);
        }
        let place = Place::descriptor(descriptor);
        let found = self
            .glimpse(caller, &place)
            .and_then(|fd| self.files.look(fd))
            .ok()
            .filter(|found| found.is_listed);
        self.tell_stat(caller, found, into)
    }

    fn tell_stat(&self, caller: &Caller, found: Option<Found>, into: u64) -> Result<Answer, Errno> {
        let Some(found) = found else {
            return Ok(Answer::Continue);
        };
        self.is_held(caller)?;
        let structure = truth(found).to_stat(caller.abi);
        caller.memory().write(into, &structure)?;
        Ok(Answer::Value(0))
    }

    pub(super) fn show_statx(&self, caller: &Caller) -> Result<Answer, Errno> {
        const SYNC: u32 = (libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC).cast_unsigned();
        const KNOWN: u32 = SYNC
            | (libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)
                .cast_unsigned();
        let (flags, mask) = (caller.number(2), caller.number(3));
        if flags & !KNOWN != 0 {
            return Ok(Answer::Continue);
        }
        let is_set = |flag: i32| flags & flag.cast_unsigned() != 0;
        let named = (
            caller.number(0),
            caller.arguments[1],
            !is_set(libc::AT_SYMLINK_NOFOLLOW),
            is_set(libc::AT_EMPTY_PATH),
        );
        let Some(found) = self.find_listed(caller, named, flags & SYNC, mask) else {
            return Ok(Answer::Continue);
        };
        self.is_held(caller)?;
        let status = truth(found);
        caller
            .memory()
            .write(caller.arguments[4], status.as_bytes())?;
        Ok(Answer::Value(0))
    }

    /// Answers whoever is not root by the ledger.
    pub(super) fn may_access(
        &self,
        caller: &Caller,
        named: Named,
        want: u32,
        effective: bool,
    ) -> Result<Answer, Errno> {
        let mut who = (*self.credentials(caller)?).clone();
        if !effective {
            // Asked as the real user, with what capabilities it would have.
            who.user.file = who.user.real;
            who.group.file = who.group.real;
            who.capabilities.effective = match who.user.real {
                0 => who.capabilities.permitted,
                _ => 0,
            };
        }
        if who.may(super::credentials::Capability::DacOverride) || want & !7 != 0 {
            return Ok(Answer::Continue);
        }
        let (at, address, follow, may_be_empty) = named;
        let place = self.read_place(caller, at, address, follow, may_be_empty)?;
        let Ok(fd) = self.find_place(caller, &place) else {
            return Ok(Answer::Continue);
        };
        let found = self.files.look(&fd)?;
        found.check(&who, want)?;
        // Read-only mounts are the kernel's to know.
        Ok(Answer::Continue)
    }

    /// Finds a file that is in the ledger.
    fn find_listed(
        &self,
        caller: &Caller,
        (at, address, follow, may_be_empty): Named,
        flags: u32,
        mask: u32,
    ) -> Option<Found> {
        if self.files.is_empty() {
            return None;
        }
        let place = self
            .read_place(caller, at, address, follow, may_be_empty)
            .ok()?;
        let fd = self.glimpse(caller, &place).ok()?;
        let status = Status::asked(&fd, flags, mask).ok()?;
        Some(self.files.know(status)).filter(|found| found.is_listed)
    }
}

fn truth(found: Found) -> Status {
    let Found {
        mut status,
        attributes: file,
        ..
    } = found;
    status.show(file.uid, file.gid, file.mode, file.device);
    status
}
