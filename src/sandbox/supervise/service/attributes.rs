//! Changing what a file is: mode, owner, times, length.
//!
//! What only the ledger takes touches the file all the same: its time of change tells that the step changed it.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, chmodat, chownat, ftruncate, utimensat,
};
use rustix::io::Errno;

use crate::vocab::mode_on_disk;

use super::super::credentials::Capability;
use super::super::guest::{Node, Opened, look, own};
use super::super::listener::Answer;
use super::super::permission::WRITE;
use super::super::supervision::{Caller, Supervision};
use super::{EMPTY, Path};

/// "Leave it as it is".
const NONE: u32 = u32::MAX;

impl Supervision {
    /// Finds a file that may be changed.
    fn find_opened(&mut self, caller: &Caller, path: Path, flags: u32) -> Result<Opened, Errno> {
        let known = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
        if flags & !known.cast_unsigned() != 0 {
            return Err(Errno::INVAL);
        }
        match self.find(caller, path, flags)? {
            Node::Opened(opened) => Ok(opened),
            Node::Proc(_) => Err(Errno::PERM),
        }
    }

    pub(super) fn chmod(
        &mut self,
        caller: &Caller,
        path: Path,
        mode: u32,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let opened = self.find_opened(caller, path, flags)?;
        self.change_mode(caller, &opened, mode)
    }

    pub(super) fn chmod_descriptor(
        &mut self,
        caller: &Caller,
        descriptor: i32,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let opened = self.behind_file(caller, descriptor)?;
        self.change_mode(caller, &opened, mode)
    }

    fn behind_file(&mut self, caller: &Caller, descriptor: i32) -> Result<Opened, Errno> {
        match descriptor {
            0.. => self.behind(caller, descriptor),
            _ => Err(Errno::BADF),
        }
    }

    fn change_mode(
        &mut self,
        caller: &Caller,
        opened: &Opened,
        mode: u32,
    ) -> Result<Answer, Errno> {
        if opened.is_link() {
            return Err(Errno::OPNOTSUPP);
        }
        self.check_writable(opened.tree)?;
        let who = self.credentials(caller)?;
        let seen = self.truth().of(&opened.stat);
        who.check_owner(&seen)?;
        let mut mode = mode & 0o7777;
        if !seen.is_directory() && !who.is_in_group(seen.gid) && !who.may(Capability::Fsetid) {
            mode &= !libc::S_ISGID;
        }
        let on_disk = mode_on_disk(mode, seen.is_directory());
        let proc = self.service().guest.proc().clone();
        let place = own(opened.fd.as_fd());
        let raw = Mode::from_raw_mode(on_disk);
        chmodat(&*proc, place.as_slice(), raw, AtFlags::empty())?;
        self.record(&look(opened.fd.as_fd())?, |attributes| {
            attributes.mode = mode
        });
        Ok(Answer::Value(0))
    }

    pub(super) fn chown(
        &mut self,
        caller: &Caller,
        path: Path,
        ids: [u32; 2],
        flags: u32,
    ) -> Result<Answer, Errno> {
        let opened = self.find_opened(caller, path, flags)?;
        self.change_owner(caller, &opened, ids)
    }

    pub(super) fn chown_descriptor(
        &mut self,
        caller: &Caller,
        descriptor: i32,
        ids: [u32; 2],
    ) -> Result<Answer, Errno> {
        let opened = self.behind_file(caller, descriptor)?;
        self.change_owner(caller, &opened, ids)
    }

    fn change_owner(
        &mut self,
        caller: &Caller,
        opened: &Opened,
        [uid, gid]: [u32; 2],
    ) -> Result<Answer, Errno> {
        self.check_writable(opened.tree)?;
        let who = self.credentials(caller)?;
        let seen = self.truth().of(&opened.stat);
        if !who.may(Capability::Chown) {
            let is_owner = who.user.file == seen.uid;
            let keeps_owner = uid == NONE || uid == seen.uid;
            let may_group = gid == NONE || gid == seen.gid || who.is_in_group(gid);
            let changes = uid != NONE || gid != NONE;
            if changes && !(is_owner && keeps_owner && may_group) {
                return Err(Errno::PERM);
            }
        }
        // A pipe or socket has no place in the ledger, and belongs to nobody else.
        if opened.tree.is_none() {
            return Ok(Answer::Value(0));
        }
        chownat(&*opened.fd, EMPTY, None, None, AtFlags::EMPTY_PATH)?;
        self.record(&look(opened.fd.as_fd())?, |attributes| {
            if uid != NONE {
                attributes.uid = uid;
            }
            if gid != NONE {
                attributes.gid = gid;
            }
            if !seen.is_directory() {
                // Rights that were given with another owner in mind.
                attributes.mode &= !libc::S_ISUID;
                if attributes.mode & libc::S_IXGRP != 0 {
                    attributes.mode &= !libc::S_ISGID;
                }
                attributes.xattrs.remove(&b"security.capability"[..]);
            }
        });
        if seen.is_directory() {
            self.service().guest.directories_moved();
        }
        Ok(Answer::Value(0))
    }

    pub(super) fn utime(
        &mut self,
        caller: &Caller,
        path: Path,
        times: u64,
    ) -> Result<Answer, Errno> {
        let times = match times {
            0 => None,
            address => {
                let [access, modification] = longs(caller, address)?;
                Some([(access, 0), (modification, 0)])
            }
        };
        self.set_times(caller, path, times, 0)
    }

    pub(super) fn utimes(
        &mut self,
        caller: &Caller,
        path: Path,
        times: u64,
    ) -> Result<Answer, Errno> {
        let times = match times {
            0 => None,
            address => {
                let [access, micros, modification, more_micros] = longs(caller, address)?;
                if [micros, more_micros]
                    .iter()
                    .any(|micros| !(0..1_000_000).contains(micros))
                {
                    return Err(Errno::INVAL);
                }
                Some([(access, micros * 1000), (modification, more_micros * 1000)])
            }
        };
        self.set_times(caller, path, times, 0)
    }

    pub(super) fn utimensat(
        &mut self,
        caller: &Caller,
        path: Path,
        times: u64,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let times = match times {
            0 => None,
            address => {
                let [access, nanos, modification, more_nanos] = longs(caller, address)?;
                let is_fine = |nanos: &i64| {
                    (0..1_000_000_000).contains(nanos)
                        || [libc::UTIME_NOW, libc::UTIME_OMIT].contains(nanos)
                };
                if ![nanos, more_nanos].iter().all(is_fine) {
                    return Err(Errno::INVAL);
                }
                if [nanos, more_nanos] == [libc::UTIME_OMIT; 2] {
                    return Ok(Answer::Value(0));
                }
                Some([(access, nanos), (modification, more_nanos)])
            }
        };
        self.set_times(caller, path, times, flags)
    }

    fn set_times(
        &mut self,
        caller: &Caller,
        path: Path,
        times: Option<[(i64, i64); 2]>,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let opened = self.find_opened(caller, path, flags)?;
        self.check_writable(opened.tree)?;
        let who = self.credentials(caller)?;
        let seen = self.truth().of(&opened.stat);
        let now = [(0, libc::UTIME_NOW); 2];
        let times = times.unwrap_or(now);
        let is_now = times.iter().all(|(_, nanos)| *nanos == libc::UTIME_NOW);
        if who.check_owner(&seen).is_err() {
            match is_now {
                true => who.check(&seen, WRITE)?,
                false => return Err(Errno::PERM),
            }
        }
        let [last_access, last_modification] =
            times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        let times = Timestamps {
            last_access,
            last_modification,
        };
        utimensat(&*opened.fd, EMPTY, &times, AtFlags::EMPTY_PATH)?;
        Ok(Answer::Value(0))
    }

    pub(super) fn truncate(
        &mut self,
        caller: &Caller,
        path: Path,
        length: u64,
    ) -> Result<Answer, Errno> {
        if length.cast_signed() < 0 {
            return Err(Errno::INVAL);
        }
        let opened = self.find_opened(caller, path, 0)?;
        let seen = self.truth().of(&opened.stat);
        match FileType::from_raw_mode(seen.mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        self.credentials(caller)?.check(&seen, WRITE)?;
        self.check_writable(opened.tree)?;
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let fd = self.service().guest.reopen(opened.fd.as_fd(), flags)?;
        ftruncate(&fd, length)?;
        Ok(Answer::Value(0))
    }

    pub(super) fn umask(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        let old = who.umask;
        let new = caller.number(0) & 0o777;
        if new != old {
            let mut who = (*who).clone();
            who.umask = new;
            self.become_other(caller, who)?;
        }
        Ok(Answer::Value(i64::from(old)))
    }
}

/// Reads numbers of 64 bits.
fn longs<const COUNT: usize>(caller: &Caller, address: u64) -> Result<[i64; COUNT], Errno> {
    let mut bytes = vec![0; 8 * COUNT];
    caller.memory().read(address, &mut bytes)?;
    let mut longs = [0; COUNT];
    for (long, bytes) in longs.iter_mut().zip(bytes.as_chunks().0) {
        *long = i64::from_ne_bytes(*bytes);
    }
    Ok(longs)
}
