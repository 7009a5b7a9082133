//! Extended attributes: the user's are on disk, the protected ones in the ledger.
//!
//! `trusted.*` is not for a container's root; access control lists are not kept, as on a file system without them.

use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use super::super::credentials::Capability;
use super::super::guest::{Last, Node, Opened, own};
use super::super::listener::Answer;
use super::super::permission::{READ, WRITE, file_id};
use super::super::supervision::{Caller, Supervision};
use super::Path;

/// Longest name with its NUL.
const NAME_MAX: usize = 256;
/// Longest value, and longest list.
const VALUE_MAX: usize = 65536;

/// Where an attribute is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    User,
    /// `security.*`, in the ledger.
    Protected,
    Trusted,
    /// Not kept.
    Other,
}

impl Kind {
    fn of(name: &[u8]) -> Kind {
        match name {
            // What overlayfs keeps for itself on disk is not the image's.
            _ if name.starts_with(b"user.overlay.") => Kind::Other,
            _ if name.starts_with(b"user.") => Kind::User,
            _ if name.starts_with(b"security.") => Kind::Protected,
            _ if name.starts_with(b"trusted.") => Kind::Trusted,
            _ => Kind::Other,
        }
    }
}

impl Supervision {
    fn find_for_xattr(
        &mut self,
        caller: &Caller,
        path: Path,
        last: Last,
    ) -> Result<Option<Opened>, Errno> {
        let flags = match last {
            Last::Follow => 0,
            Last::Keep => libc::AT_SYMLINK_NOFOLLOW.cast_unsigned(),
        };
        Ok(match self.find(caller, path, flags)? {
            Node::Opened(opened) => Some(opened),
            // The kernel's files have none.
            Node::Proc(_) => None,
        })
    }

    fn behind_for_xattr(&mut self, caller: &Caller) -> Result<Option<Opened>, Errno> {
        match caller.number(0).cast_signed() {
            descriptor @ 0.. => self.behind(caller, descriptor).map(Some),
            _ => Err(Errno::BADF),
        }
    }

    pub(super) fn set_xattr(
        &mut self,
        caller: &Caller,
        path: Path,
        last: Last,
    ) -> Result<Answer, Errno> {
        let opened = self.find_for_xattr(caller, path, last)?;
        self.set_xattr_of(caller, opened)
    }

    pub(super) fn set_xattr_of_descriptor(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let opened = self.behind_for_xattr(caller)?;
        self.set_xattr_of(caller, opened)
    }

    fn set_xattr_of(&mut self, caller: &Caller, opened: Option<Opened>) -> Result<Answer, Errno> {
        let name = name(caller)?;
        let size = usize::try_from(caller.arguments[3]).unwrap_or(usize::MAX);
        if size > VALUE_MAX {
            return Err(Errno::TOOBIG);
        }
        let flags = XattrFlags::from_bits(caller.number(4)).ok_or(Errno::INVAL)?;
        let mut value = vec![0; size];
        caller.memory().read(caller.arguments[2], &mut value)?;
        let opened = opened.ok_or(Errno::OPNOTSUPP)?;
        self.check_writable(opened.tree)?;
        let who = self.credentials(caller)?;
        let seen = self.truth().of(&opened.stat);
        match Kind::of(name.to_bytes()) {
            Kind::User => {
                check_may_have(&opened)?;
                who.check(&seen, WRITE)?;
                setxattr(self.place(&opened), &name, &value, flags)?;
            }
            Kind::Protected => {
                if !who.may(Capability::Setfcap) {
                    return Err(Errno::PERM);
                }
                let has = self
                    .files
                    .ledger
                    .get(&file_id(&opened.stat))
                    .is_some_and(|entry| entry.xattrs.contains_key(name.to_bytes()));
                if flags.contains(XattrFlags::CREATE) && has {
                    return Err(Errno::EXIST);
                }
                if flags.contains(XattrFlags::REPLACE) && !has {
                    return Err(Errno::NODATA);
                }
                touch(&opened)?;
                self.record(&opened.stat, |attributes| {
                    attributes.xattrs.insert(name.into_bytes(), value);
                });
            }
            Kind::Trusted => return Err(Errno::PERM),
            Kind::Other => return Err(Errno::OPNOTSUPP),
        }
        Ok(Answer::Value(0))
    }

    pub(super) fn get_xattr(
        &mut self,
        caller: &Caller,
        path: Path,
        last: Last,
    ) -> Result<Answer, Errno> {
        let opened = self.find_for_xattr(caller, path, last)?;
        self.get_xattr_of(caller, opened)
    }

    pub(super) fn get_xattr_of_descriptor(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let opened = self.behind_for_xattr(caller)?;
        self.get_xattr_of(caller, opened)
    }

    fn get_xattr_of(&mut self, caller: &Caller, opened: Option<Opened>) -> Result<Answer, Errno> {
        let name = name(caller)?;
        let opened = opened.ok_or(Errno::OPNOTSUPP)?;
        let value = match Kind::of(name.to_bytes()) {
            Kind::User => {
                let seen = self.truth().of(&opened.stat);
                check_may_have(&opened).map_err(|_| Errno::NODATA)?;
                self.credentials(caller)?.check(&seen, READ)?;
                let mut value = vec![0; VALUE_MAX];
                let length = getxattr(self.place(&opened), &name, &mut value)?;
                value.truncate(length);
                value
            }
            Kind::Protected => self
                .files
                .ledger
                .get(&file_id(&opened.stat))
                .and_then(|entry| entry.xattrs.get(name.to_bytes()))
                .cloned()
                .ok_or(Errno::NODATA)?,
            Kind::Trusted => return Err(Errno::NODATA),
            Kind::Other => return Err(Errno::OPNOTSUPP),
        };
        give(caller, 2, &value)
    }

    pub(super) fn list_xattrs(
        &mut self,
        caller: &Caller,
        path: Path,
        last: Last,
    ) -> Result<Answer, Errno> {
        let opened = self.find_for_xattr(caller, path, last)?;
        self.list_xattrs_of(caller, opened)
    }

    pub(super) fn list_xattrs_of_descriptor(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let opened = self.behind_for_xattr(caller)?;
        self.list_xattrs_of(caller, opened)
    }

    fn list_xattrs_of(&mut self, caller: &Caller, opened: Option<Opened>) -> Result<Answer, Errno> {
        let Some(opened) = opened else {
            return Ok(Answer::Value(0));
        };
        let mut names = Vec::new();
        if check_may_have(&opened).is_ok() {
            let mut list = vec![0; VALUE_MAX];
            let length = match listxattr(self.place(&opened), &mut list) {
                Err(Errno::OPNOTSUPP) => 0,
                other => other?,
            };
            for name in list[..length].split_inclusive(|byte| *byte == 0) {
                if Kind::of(name) == Kind::User {
                    names.extend_from_slice(name);
                }
            }
        }
        if let Some(entry) = self.files.ledger.get(&file_id(&opened.stat)) {
            for name in entry.xattrs.keys() {
                names.extend_from_slice(name);
                names.push(0);
            }
        }
        give(caller, 1, &names)
    }

    pub(super) fn remove_xattr(
        &mut self,
        caller: &Caller,
        path: Path,
        last: Last,
    ) -> Result<Answer, Errno> {
        let opened = self.find_for_xattr(caller, path, last)?;
        self.remove_xattr_of(caller, opened)
    }

    pub(super) fn remove_xattr_of_descriptor(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let opened = self.behind_for_xattr(caller)?;
        self.remove_xattr_of(caller, opened)
    }

    fn remove_xattr_of(
        &mut self,
        caller: &Caller,
        opened: Option<Opened>,
    ) -> Result<Answer, Errno> {
        let name = name(caller)?;
        let opened = opened.ok_or(Errno::OPNOTSUPP)?;
        self.check_writable(opened.tree)?;
        let who = self.credentials(caller)?;
        match Kind::of(name.to_bytes()) {
            Kind::User => {
                check_may_have(&opened)?;
                who.check(&self.truth().of(&opened.stat), WRITE)?;
                removexattr(self.place(&opened), &name)?;
            }
            Kind::Protected => {
                if !who.may(Capability::Setfcap) {
                    return Err(Errno::PERM);
                }
                let mut had = false;
                self.record(&opened.stat, |attributes| {
                    had = attributes.xattrs.remove(name.to_bytes()).is_some();
                });
                if !had {
                    return Err(Errno::NODATA);
                }
                touch(&opened)?;
            }
            Kind::Trusted => return Err(Errno::PERM),
            Kind::Other => return Err(Errno::OPNOTSUPP),
        }
        Ok(Answer::Value(0))
    }

    /// Returns a path of this process that leads to a file.
    fn place(&self, opened: &Opened) -> Vec<u8> {
        [b"/proc/", own(opened.fd.as_fd()).as_slice()].concat()
    }
}

/// The user's attributes are for files and directories alone.
fn check_may_have(opened: &Opened) -> Result<(), Errno> {
    let kind = u32::from(opened.stat.stx_mode) & libc::S_IFMT;
    match kind == libc::S_IFREG || kind == libc::S_IFDIR {
        true => Ok(()),
        false => Err(Errno::PERM),
    }
}

/// Tells by the file's time of change that it has changed.
fn touch(opened: &Opened) -> Result<(), Errno> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    rustix::fs::chownat(&*opened.fd, super::EMPTY, None, None, flags)
}

fn name(caller: &Caller) -> Result<CString, Errno> {
    let name = caller.memory().text(caller.arguments[1], NAME_MAX)?;
    match name.ok_or(Errno::RANGE)? {
        name if name.is_empty() => Err(Errno::RANGE),
        name => Ok(name),
    }
}

/// Writes a value to where an argument says, with the size after it; a size of 0 is the question for the length.
fn give(caller: &Caller, argument: usize, value: &[u8]) -> Result<Answer, Errno> {
    let size = caller.arguments[argument + 1];
    if size != 0 {
        if (value.len() as u64) > size {
            return Err(Errno::RANGE);
        }
        caller.memory().write(caller.arguments[argument], value)?;
    }
    Ok(Answer::Value(value.len() as i64))
}
