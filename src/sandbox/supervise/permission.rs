//! Who may do what with a file: the kernel's rules, by ids that are not the kernel's.
//!
//! The kernel has one id for every process and lets it do everything in its root. Whom a process takes itself for, and whose a
//! file is in the image, are known to the supervisor alone, so it applies the rules.

use rustix::fs::Statx;
use rustix::io::Errno;

use crate::vocab::{DeviceNumber, FileId, Ledger};

use super::credentials::{Capability, Credentials};

/// What files are, by the ledger where it knows them.
#[derive(Clone, Copy, Debug)]
pub(in crate::sandbox) struct Truth<'a> {
    pub(in crate::sandbox) ledger: &'a Ledger,
    /// The one id that all files on disk belong to.
    pub(in crate::sandbox) uid: u32,
    pub(in crate::sandbox) gid: u32,
}

/// What a file is to those who look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Seen {
    pub(in crate::sandbox) uid: u32,
    pub(in crate::sandbox) gid: u32,
    /// Kind and permission bits.
    pub(in crate::sandbox) mode: u32,
    pub(in crate::sandbox) device: Option<DeviceNumber>,
}

/// What somebody wants to do with a file: the sum of these, as in a mode's digits.
pub(in crate::sandbox) const READ: u32 = 4;
pub(in crate::sandbox) const WRITE: u32 = 2;
pub(in crate::sandbox) const EXECUTE: u32 = 1;

impl Truth<'_> {
    pub(in crate::sandbox) fn of(&self, stat: &Statx) -> Seen {
        let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
        if !self.ledger.is_empty()
            && let Some(entry) = self.ledger.get(&file_id(stat))
        {
            let kind = match entry.device {
                Some(device) if device.is_block => libc::S_IFBLK,
                Some(_) => libc::S_IFCHR,
                None => kind,
            };
            return Seen {
                uid: entry.uid,
                gid: entry.gid,
                mode: kind | entry.mode,
                device: entry.device,
            };
        }
        let shown = |id, own| if id == own { 0 } else { id };
        Seen {
            uid: shown(stat.stx_uid, self.uid),
            gid: shown(stat.stx_gid, self.gid),
            mode: u32::from(stat.stx_mode),
            device: None,
        }
    }
}

pub(in crate::sandbox) fn file_id(stat: &Statx) -> FileId {
    FileId {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        birth: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
    }
}

impl Seen {
    pub(in crate::sandbox) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    pub(in crate::sandbox) fn is_a_directory(stat: &Statx) -> bool {
        u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR
    }
}

impl Credentials {
    /// Tells whether it may go through every directory.
    pub(in crate::sandbox) fn may_search_all(&self) -> bool {
        self.may(Capability::DacOverride)
    }

    /// Checks the permission bits. Whoever overrides them may do everything but execute what nobody may.
    pub(in crate::sandbox) fn check(&self, file: &Seen, want: u32) -> Result<(), Errno> {
        let class = match () {
            () if self.user.file == file.uid => 6,
            () if self.is_in_group(file.gid) => 3,
            () => 0,
        };
        let mut granted = file.mode >> class & 7;
        if self.may(Capability::DacOverride) {
            granted |= match file.is_directory() || file.mode & 0o111 != 0 {
                true => READ | WRITE | EXECUTE,
                false => READ | WRITE,
            };
        }
        match granted & want == want {
            true => Ok(()),
            false => Err(Errno::ACCESS),
        }
    }

    /// Checks what only the owner may do.
    pub(in crate::sandbox) fn check_owner(&self, file: &Seen) -> Result<(), Errno> {
        match self.may(Capability::Fowner) || self.user.file == file.uid {
            true => Ok(()),
            false => Err(Errno::PERM),
        }
    }

    /// Checks whether `file` may be taken out of `directory`.
    pub(in crate::sandbox) fn check_removal(
        &self,
        file: &Seen,
        directory: &Seen,
    ) -> Result<(), Errno> {
        self.check(directory, WRITE | EXECUTE)?;
        if directory.mode & libc::S_ISVTX == 0 || self.user.file == directory.uid {
            return Ok(());
        }
        self.check_owner(file)
    }

    /// Returns what a new file in `directory` is: mode bits and group. A directory hands on the group and the bit for that.
    pub(in crate::sandbox) fn makes(
        &self,
        mode: u32,
        is_directory: bool,
        directory: &Seen,
    ) -> (u32, u32) {
        let mut mode = mode & 0o7777 & !self.umask;
        let hands_on = directory.mode & libc::S_ISGID != 0;
        let gid = match hands_on {
            true => directory.gid,
            false => self.group.file,
        };
        let runs_as_group = libc::S_ISGID | libc::S_IXGRP;
        if is_directory && hands_on {
            mode |= libc::S_ISGID;
        } else if !is_directory
            && mode & runs_as_group == runs_as_group
            && !self.is_in_group(gid)
            && !self.may(Capability::Fsetid)
        {
            mode &= !libc::S_ISGID;
        }
        (mode, gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(uid: u32, gid: u32, mode: u32) -> Seen {
        Seen {
            uid,
            gid,
            mode,
            device: None,
        }
    }

    fn who(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        Credentials::new(uid, gid, groups, 0xa804_25fb)
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let regular = libc::S_IFREG;
        for (who, file, want, expected) in [
            (who(0, 0, &[]), file(7, 7, regular), READ | WRITE, true),
            (who(0, 0, &[]), file(7, 7, regular | 0o666), EXECUTE, false),
            (who(0, 0, &[]), file(7, 7, regular | 0o001), EXECUTE, true),
            (who(0, 0, &[]), file(7, 7, libc::S_IFDIR), EXECUTE, true),
            (who(7, 7, &[]), file(7, 0, regular | 0o077), READ, false),
            (who(8, 7, &[]), file(0, 7, regular | 0o707), READ, false),
            (who(8, 8, &[7]), file(0, 7, regular | 0o040), READ, true),
            (who(8, 8, &[]), file(0, 7, regular | 0o004), READ, true),
            (
                who(8, 8, &[]),
                file(0, 7, regular | 0o774),
                READ | WRITE,
                false,
            ),
        ] {
            assert_eq!(
                who.check(&file, want).is_ok(),
                expected,
                "{who:?} {file:?} {want:?}"
            );
        }
    }

    #[test]
    fn a_sticky_directory_keeps_the_files_of_others() {
        let sticky = file(0, 0, libc::S_IFDIR | 0o1777);
        let plain = file(0, 0, libc::S_IFDIR | 0o777);
        let of_seven = file(7, 7, libc::S_IFREG | 0o666);
        assert_eq!(
            who(8, 8, &[]).check_removal(&of_seven, &sticky),
            Err(Errno::PERM)
        );
        assert_eq!(who(7, 7, &[]).check_removal(&of_seven, &sticky), Ok(()));
        assert_eq!(who(0, 0, &[]).check_removal(&of_seven, &sticky), Ok(()));
        assert_eq!(who(8, 8, &[]).check_removal(&of_seven, &plain), Ok(()));
    }

    #[test]
    fn set_gid_directories_hand_their_group_on() {
        let handing = file(0, 50, libc::S_IFDIR | 0o2775);
        let plain = file(0, 50, libc::S_IFDIR | 0o775);
        let seven = who(7, 7, &[]);
        assert_eq!(seven.makes(0o777, true, &handing), (0o2755, 50));
        assert_eq!(seven.makes(0o666, false, &handing), (0o644, 50));
        assert_eq!(seven.makes(0o2777, false, &handing), (0o755, 50));
        assert_eq!(seven.makes(0o777, true, &plain), (0o755, 7));
    }
}
