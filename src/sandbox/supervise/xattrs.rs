//! Extended attributes that the disk does not take: `security.capability`, which is kept in the ledger, and access control
//! lists, which are another way to set a mode.
//!
//! A list that says no more than a mode does is taken for the mode (`cp -a` sets modes so). One that names users or groups
//! cannot be kept: it is "not supported", as on file systems without. All other attributes are left to the kernel: it takes
//! what an owner may set, and refuses the rest as it refuses root in a container.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::change::FILE_CAPABILITIES;
use super::credentials::Capability;
use super::identity::FileCapabilities;
use super::light::Target;
use super::listener::Answer;
use super::place::{HERE, Place};
use super::supervision::{Caller, Supervision};

const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
/// Longest name with its NUL, and longest list of names.
const NAME: usize = 256;
const LIST: usize = 65536;

impl Supervision {
    pub(super) fn write_xattr(&mut self, caller: &Caller, target: Target) -> Result<Answer, Errno> {
        match name(caller)? {
            Name::FileCapabilities => {}
            Name::AccessList => return self.set_access_list(caller, target),
            Name::Other => return Ok(Answer::Continue),
        }
        let [.., length, flags, _] = caller.arguments;
        if flags & !3 != 0 || flags == 3 {
            return Err(Errno::INVAL);
        }
        let who = self.credentials(caller)?;
        if !who.may(Capability::Setfcap) {
            return Err(Errno::PERM);
        }
        // No form of it is longer.
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= 24)
            .ok_or(Errno::INVAL)?;
        let mut value = vec![0; length];
        caller.memory().read(caller.arguments[2], &mut value)?;
        if FileCapabilities::parse(&value).is_none() {
            return Err(Errno::INVAL);
        }
        let place = self.xattr_place(caller, target)?;
        let fd = self.find_place(caller, &place)?;
        let found = self.files.look(&fd)?;
        if self.is_kernels(&found.status) {
            return Ok(Answer::Continue);
        }
        let is_there = found.attributes.xattrs.contains_key(FILE_CAPABILITIES);
        match (i32::try_from(flags), is_there) {
            (Ok(libc::XATTR_CREATE), true) => return Err(Errno::EXIST),
            (Ok(libc::XATTR_REPLACE), false) => return Err(Errno::NODATA),
            _ => {}
        }
        self.touch(fd.as_fd(), &found.status)?;
        let mut file = found.attributes;
        file.xattrs.insert(FILE_CAPABILITIES.to_vec(), value);
        self.files.record(fd.as_fd(), file)?;
        Ok(Answer::Value(0))
    }

    pub(super) fn show_xattr(&mut self, caller: &Caller, target: Target) -> Result<Answer, Errno> {
        if !self.files.has_xattrs() || name(caller)? != Name::FileCapabilities {
            return Ok(Answer::Continue);
        }
        let place = self.xattr_place(caller, target)?;
        let Ok(fd) = self.find_place(caller, &place) else {
            return Ok(Answer::Continue);
        };
        let found = self.files.look(&fd)?;
        match found.attributes.xattrs.get(FILE_CAPABILITIES) {
            None => Ok(Answer::Continue),
            Some(value) => tell(caller, 2, 3, value),
        }
    }

    pub(super) fn show_xattrs(&mut self, caller: &Caller, target: Target) -> Result<Answer, Errno> {
        if !self.files.has_xattrs() {
            return Ok(Answer::Continue);
        }
        let place = self.xattr_place(caller, target)?;
        let Ok(fd) = self.find_place(caller, &place) else {
            return Ok(Answer::Continue);
        };
        let found = self.files.look(&fd)?;
        if found.attributes.xattrs.is_empty() {
            return Ok(Answer::Continue);
        }
        // The descriptor only names the file, so this goes by a path.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut names = vec![0; LIST];
        let count = rustix::fs::listxattr(path, &mut names[..])?;
        names.truncate(count);
        for name in found.attributes.xattrs.keys() {
            names.extend(name);
            names.push(0);
        }
        tell(caller, 1, 2, &names)
    }

    pub(super) fn drop_xattr(&mut self, caller: &Caller, target: Target) -> Result<Answer, Errno> {
        if name(caller)? != Name::FileCapabilities {
            return Ok(Answer::Continue);
        }
        let who = self.credentials(caller)?;
        if !who.may(Capability::Setfcap) {
            return Err(Errno::PERM);
        }
        let place = self.xattr_place(caller, target)?;
        let fd = self.find_place(caller, &place)?;
        let found = self.files.look(&fd)?;
        let mut file = found.attributes;
        if file.xattrs.remove(FILE_CAPABILITIES).is_none() {
            return Ok(Answer::Continue);
        }
        self.touch(fd.as_fd(), &found.status)?;
        self.files.record(fd.as_fd(), file)?;
        Ok(Answer::Value(0))
    }

    fn set_access_list(&mut self, caller: &Caller, target: Target) -> Result<Answer, Errno> {
        let length = usize::try_from(caller.arguments[3])
            .ok()
            .filter(|length| *length <= LIST)
            .ok_or(Errno::TOOBIG)?;
        let mut list = vec![0; length];
        caller.memory().read(caller.arguments[2], &mut list)?;
        let mode = mode_of_list(&list)?;
        let place = self.xattr_place(caller, target)?;
        let fd = self.find_place(caller, &place)?;
        let special = self.files.look(&fd)?.attributes.mode & 0o7000;
        self.set_mode_of(caller, &place, special | mode)
    }

    fn xattr_place(&self, caller: &Caller, target: Target) -> Result<Place, Errno> {
        match target {
            Target::Descriptor => Ok(Place::descriptor(caller.number(0))),
            Target::Path => self.read_place(caller, HERE, caller.arguments[0], true, false),
            Target::Link => self.read_place(caller, HERE, caller.arguments[0], false, false),
        }
    }
}

/// The attributes that are looked at here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    FileCapabilities,
    AccessList,
    Other,
}

fn name(caller: &Caller) -> Result<Name, Errno> {
    let name: Option<CString> = caller.memory().text(caller.arguments[1], NAME)?;
    Ok(match name {
        Some(name) if name.as_bytes() == FILE_CAPABILITIES => Name::FileCapabilities,
        Some(name) if name.as_bytes() == ACCESS_LIST => Name::AccessList,
        _ => Name::Other,
    })
}

/// Returns the permission bits that a list says, if it says nothing else.
fn mode_of_list(list: &[u8]) -> Result<u32, Errno> {
    const VERSION: u32 = 2;
    let (version, entries) = list.split_first_chunk().ok_or(Errno::INVAL)?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return Err(Errno::OPNOTSUPP);
    }
    // Owner, group, others.
    let mut bits = [None; 3];
    for [tag_low, tag_high, bits_low, bits_high, ..] in entries {
        let at = match u16::from_le_bytes([*tag_low, *tag_high]) {
            0x01 => 0,
            0x04 => 1,
            0x20 => 2,
            _ => return Err(Errno::OPNOTSUPP),
        };
        bits[at] = Some(u32::from(u16::from_le_bytes([*bits_low, *bits_high])) & 7);
    }
    match bits {
        [Some(owner), Some(group), Some(others)] => Ok(owner << 6 | group << 3 | others),
        _ => Err(Errno::INVAL),
    }
}

/// Gives bytes into a buffer, or their count if there is none.
fn tell(caller: &Caller, buffer: usize, size: usize, bytes: &[u8]) -> Result<Answer, Errno> {
    let room = caller.arguments[size];
    if room != 0 {
        if room < bytes.len() as u64 {
            return Err(Errno::RANGE);
        }
        caller.memory().write(caller.arguments[buffer], bytes)?;
    }
    Ok(Answer::Value(bytes.len() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_that_is_a_mode_is_one() {
        let list = |entries: &[(u16, u16)]| {
            let mut bytes = 2_u32.to_le_bytes().to_vec();
            for (tag, bits) in entries {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(bits.to_le_bytes());
                bytes.extend(u32::MAX.to_le_bytes());
            }
            bytes
        };
        for (entries, expected) in [
            (&[(1, 6), (4, 5), (0x20, 4)][..], Ok(0o654)),
            (
                &[(1, 6), (2, 7), (4, 5), (0x10, 7), (0x20, 4)],
                Err(Errno::OPNOTSUPP),
            ),
            (&[(1, 6), (4, 5)], Err(Errno::INVAL)),
        ] {
            assert_eq!(mode_of_list(&list(entries)), expected, "{entries:?}");
        }
        assert_eq!(mode_of_list(&[]), Err(Errno::INVAL));
        assert_eq!(mode_of_list(&[2, 0, 0, 0, 1]), Err(Errno::OPNOTSUPP));
    }
}
