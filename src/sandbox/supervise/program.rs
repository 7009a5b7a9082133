//! Executing a program: who the process is afterwards.
//!
//! The kernel executes it, so what is decided here is decided before: set-id bits and file capabilities of the ledger make the
//! process somebody else when the file is one that the kernel will take. If it fails then all the same (no memory, too many
//! arguments), the process stays what it would have become. `AT_SECURE` is the kernel's word and stays 0: a loader of a
//! set-id program does not know that it should distrust its environment. Neither is a boundary: all are one real user.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::change::FILE_CAPABILITIES;
use super::identity::{Executable, FileCapabilities};
use super::listener::Answer;
use super::ownership::{EXECUTE, Found};
use super::place::{HERE, Place};
use super::supervision::{Caller, Supervision};

/// `#!` lines that lead to one another, as the kernel counts them.
const DEPTH: usize = 5;
/// What the kernel reads of a file.
const HEAD: usize = 256;

impl Supervision {
    pub(super) fn execute(
        &mut self,
        caller: &Caller,
        at: u32,
        address: u64,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let is_set = |flag: i32| flags & flag.cast_unsigned() != 0;
        let may_be_empty = is_set(libc::AT_EMPTY_PATH);
        let follow = !is_set(libc::AT_SYMLINK_NOFOLLOW);
        let place = self.read_place(caller, at, address, follow, may_be_empty)?;
        // What is wrong with it the kernel says itself.
        let Ok(mut fd) = self.find_place(caller, &place) else {
            return Ok(Answer::Continue);
        };
        let who = self.credentials(caller)?;
        let mut found = self.files.look(&fd)?;
        for _ in 0..DEPTH {
            if !found.status.is_regular() {
                return Ok(Answer::Continue);
            }
            found.check(&who, EXECUTE)?;
            // Only who would become another one needs to know which file it is that counts.
            if who.execute(&executable(&found)).as_ref() == Ok(&*who) {
                break;
            }
            let Some(interpreter) = self.interpreter(&fd)? else {
                break;
            };
            let place = Place {
                at: HERE,
                path: interpreter,
                follow: true,
            };
            let Ok(next) = self.find_place(caller, &place) else {
                return Ok(Answer::Continue);
            };
            fd = next;
            found = self.files.look(&fd)?;
        }
        let new = who.execute(&executable(&found))?;
        if new != *who {
            self.become_other(caller, new)?;
        }
        Ok(Answer::Continue)
    }

    /// Reads the program that a script names; `None` for what is no script.
    fn interpreter(&self, fd: &OwnedFd) -> Result<Option<CString>, Errno> {
        // A regular file, which was looked at: opening does not wait.
        let file = openat(
            &self.proc,
            format!("self/fd/{}", fd.as_fd().as_raw_fd()),
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut head = [0; HEAD];
        let count = rustix::io::read(&file, &mut head)?;
        let Some(line) = head[..count].strip_prefix(b"#!") else {
            return Ok(None);
        };
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let name = line
            .split(|byte| matches!(byte, b' ' | b'\t' | 0))
            .find(|word| !word.is_empty());
        Ok(name.and_then(|name| CString::new(name).ok()))
    }
}

fn executable(found: &Found) -> Executable {
    let file = &found.attributes;
    Executable {
        uid: file.uid,
        gid: file.gid,
        mode: file.mode,
        capabilities: file
            .xattrs
            .get(FILE_CAPABILITIES)
            .and_then(|value| FileCapabilities::parse(value)),
    }
}
