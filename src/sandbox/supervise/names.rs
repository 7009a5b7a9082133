//! The calls that take names away, in the light mode: what is written down of a file ends with its last name.
//!
//! The number of a file that is gone may be a new one's at once, and so may its time of birth: file systems stamp it by a clock
//! that moves every few milliseconds. So where a removal ends a file that is written down it is made here, and the entry goes
//! with it, before anything new can have its number. Everything else is the kernel's to remove, and all of it while nothing
//! that is written down was born a moment ago.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, renameat, unlinkat};
use rustix::io::Errno;

use super::listener::Answer;
use super::ownership::Found;
use super::place::{Place, Spot};
use super::supervision::{Caller, Supervision};

/// A name, and the file that ends with it.
struct Ending {
    spot: Spot,
    file: Found,
}

impl Supervision {
    /// `unlink` and `rmdir`.
    pub(super) fn remove_name(
        &mut self,
        caller: &Caller,
        (at, address): (u32, u64),
        flags: u32,
    ) -> Result<Answer, Errno> {
        if !self.files.may_be_mistaken() {
            return Ok(Answer::Continue);
        }
        let place = self.read_place(caller, at, address, false, false)?;
        let Some(ending) = self.ending(caller, &place)? else {
            return Ok(Answer::Continue);
        };
        let flags = AtFlags::from_bits_retain(flags);
        unlinkat(&ending.spot.directory, ending.spot.spelled(), flags)?;
        self.files.forget(&ending.file.status.id());
        Ok(Answer::Value(0))
    }

    /// A lower file is copied up before it is renamed. What had the new name goes.
    pub(super) fn move_name(
        &mut self,
        caller: &Caller,
        (old_at, old): (u32, u64),
        (new_at, new): (u32, u64),
        flags: u32,
    ) -> Result<Answer, Errno> {
        let may_be_mistaken = self.files.may_be_mistaken();
        if !self.files.has_lower() && !may_be_mistaken {
            return Ok(Answer::Continue);
        }
        let old = self.read_place(caller, old_at, old, false, false)?;
        if self.files.has_lower() {
            // What is wrong with it the kernel says itself.
            if let Ok(found) = self.find_place(caller, &old)
                && !self.files.look(&found)?.status.is_directory()
            {
                self.settle(found.as_fd())?;
            }
        }
        // With flags nothing is replaced: both names stay, or the new one was free.
        if !may_be_mistaken || flags != 0 {
            return Ok(Answer::Continue);
        }
        let new = self.read_place(caller, new_at, new, false, false)?;
        let Some(ending) = self.ending(caller, &new)? else {
            return Ok(Answer::Continue);
        };
        let Ok(Some(spot)) = self.find_spot(caller, &old) else {
            return Ok(Answer::Continue);
        };
        let Some(moved) = open_in_mount(&spot) else {
            return Ok(Answer::Continue);
        };
        let ended = ending.file.status.id();
        if self.files.look(&moved)?.status.id() == ended {
            return Ok(Answer::Continue);
        }
        renameat(
            &spot.directory,
            spot.spelled(),
            &ending.spot.directory,
            ending.spot.spelled(),
        )?;
        self.files.forget(&ended);
        Ok(Answer::Value(0))
    }

    /// Returns the file that is written down and ends when this name goes.
    fn ending(&self, caller: &Caller, place: &Place) -> Result<Option<Ending>, Errno> {
        let Ok(Some(spot)) = self.find_spot(caller, place) else {
            return Ok(None);
        };
        let Some(fd) = open_in_mount(&spot) else {
            return Ok(None);
        };
        let file = self.files.look(fd)?;
        let is_last = file.status.is_directory() || file.status.links() < 2;
        Ok((file.is_listed && is_last).then_some(Ending { spot, file }))
    }
}

impl Spot {
    /// Returns the name with the slash that followed it.
    fn spelled(&self) -> CString {
        let mut name = self.name.as_bytes().to_vec();
        if self.is_directory {
            name.push(b'/');
        }
        CString::new(name).expect("a C string and a slash")
    }
}

/// Opens what a name is, unless something is mounted on it: the kernel keeps such a name from its own namespace only, which this
/// process is not in.
fn open_in_mount(spot: &Spot) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    openat2(&spot.directory, &spot.name, flags, Mode::empty(), resolve).ok()
}
