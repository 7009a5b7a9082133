//! The calls that give files away and set their modes.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::credentials::Capability;
use super::listener::Answer;
use super::place::Place;
use super::supervision::{Caller, Supervision};

/// "Leave it as it is".
const NONE: u32 = u32::MAX;
pub(super) const FILE_CAPABILITIES: &[u8] = b"security.capability";
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

impl Supervision {
    pub(super) fn set_owner_of(
        &mut self,
        caller: &Caller,
        place: &Place,
        [uid, gid]: [u32; 2],
    ) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        let fd = self.find_place(caller, place)?;
        let found = self.files.look(&fd)?;
        if self.is_kernels(&found.status) {
            return Ok(Answer::Continue);
        }
        let mut file = found.attributes.clone();
        let is_owner = who.user.file == file.uid;
        let may_give = uid == NONE || (is_owner && uid == file.uid);
        let may_regroup = gid == NONE || (is_owner && (gid == file.gid || who.is_in_group(gid)));
        let may = who.may(Capability::Chown) || (may_give && may_regroup);
        if !may {
            return Err(Errno::PERM);
        }
        // Says what is wrong with the file system, too.
        self.touch(fd.as_fd(), &found.status)?;
        if uid != NONE {
            file.uid = uid;
        }
        if gid != NONE {
            file.gid = gid;
        }
        let mut mode = file.mode;
        if !found.status.is_directory() {
            let keeps_group_id = mode & GROUP_EXECUTES == 0
                && (who.is_in_group(file.gid) || who.may(Capability::Fsetid));
            mode &= !SET_USER_ID;
            if !keeps_group_id {
                mode &= !SET_GROUP_ID;
            }
            file.xattrs.remove(FILE_CAPABILITIES);
        }
        file.mode = mode;
        self.files.record(fd.as_fd(), file)?;
        Ok(Answer::Value(0))
    }

    pub(super) fn set_mode_of(
        &mut self,
        caller: &Caller,
        place: &Place,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        let fd = self.find_place(caller, place)?;
        let found = self.files.look(&fd)?;
        if self.is_kernels(&found.status) {
            return Ok(Answer::Continue);
        }
        if found.status.is_link() {
            return Err(Errno::OPNOTSUPP);
        }
        found.check_owner(&who)?;
        let mut file = found.attributes.clone();
        file.mode = mode & 0o7777;
        if !who.is_in_group(file.gid) && !who.may(Capability::Fsetid) {
            file.mode &= !SET_GROUP_ID;
        }
        self.set_mode(fd.as_fd(), &found, file)?;
        Ok(Answer::Value(0))
    }
}
