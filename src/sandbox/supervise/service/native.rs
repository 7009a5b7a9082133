//! Calls that the kernel makes itself, where the root is the root directory of the processes.
//!
//! Only those that change no name and tell nothing that is in the ledger, of a caller who may do everything: whoever may not is
//! judged by the ledger, which the kernel does not know. It is no decision that something is allowed: that is for the
//! change of the root directory, Landlock, and the lack of all rights.

use rustix::fs::OFlags;

use super::super::calls::Operation as O;
use super::super::guest::{Last, Native};
use super::super::listener::Answer;
use super::super::permission::file_id;
use super::super::supervision::{Caller, Supervision};
use super::Path;

impl Supervision {
    /// Answers a call without performing it, where that is enough.
    pub(super) fn shortcut(&mut self, operation: O, caller: &Caller) -> Option<Answer> {
        if !self.service().guest.is_root_directory() {
            return None;
        }
        let path = |at: usize| Path {
            at: caller.number(at).cast_signed(),
            address: caller.arguments[at + 1],
        };
        let here = Path {
            at: libc::AT_FDCWD,
            address: caller.arguments[0],
        };
        let is_native = match operation {
            O::Openat => {
                if let Some(answer) = self.give_way(caller) {
                    return Some(answer);
                }
                self.opens_natively(caller, path(0), caller.number(2))
            }
            O::Open => self.opens_natively(caller, here, caller.number(1)),
            O::Readlink => self.reads_link_natively(caller, here),
            O::Readlinkat => self.reads_link_natively(caller, path(0)),
            _ => false,
        };
        is_native.then_some(Answer::Continue)
    }

    /// Tells whether something is opened that is there already, and is on disk what it is in the image.
    fn opens_natively(&mut self, caller: &Caller, path: Path, flags: u32) -> bool {
        let flags = OFlags::from_bits_retain(flags);
        // The temporary file's flag has the one for directories in it.
        let is_temporary = flags.contains(OFlags::TMPFILE);
        if is_temporary || flags.intersects(OFlags::CREATE | OFlags::TRUNC) {
            return false;
        }
        let last = match flags.contains(OFlags::NOFOLLOW) {
            true => Last::Keep,
            false => Last::Follow,
        };
        match self.found_natively(caller, path, last) {
            // A directory or nothing is the same on disk.
            Some(Native::Nothing | Native::Directory) => true,
            Some(Native::File(stat)) => {
                let entry = self.files.ledger.get(&file_id(&stat));
                entry.is_none_or(|entry| entry.device.is_none())
            }
            None => false,
        }
    }

    fn reads_link_natively(&mut self, caller: &Caller, path: Path) -> bool {
        let found = self.found_natively(caller, path, Last::Keep);
        matches!(found, Some(Native::File(_) | Native::Nothing))
    }

    fn found_natively(&mut self, caller: &Caller, path: Path, last: Last) -> Option<Native> {
        let text = caller.memory().path(path.address).ok()?;
        let (guest, asker) = self.scene(caller).ok()?;
        match asker.who.may_search_all() {
            true => guest.natively(&asker, path.at, text.to_bytes(), last),
            false => None,
        }
    }
}
