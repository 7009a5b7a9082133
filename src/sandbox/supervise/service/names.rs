//! Making, moving and removing names.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, linkat, mkdirat, mknodat, openat, renameat_with,
    statx, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::vocab::{DeviceNumber, mode_on_disk};

use super::super::credentials::Capability;
use super::super::guest::{Content, Last, Node, Opened, Slot, look};
use super::super::listener::Answer;
use super::super::permission::{EXECUTE, READ, Seen, WRITE, file_id};
use super::super::procfs::Entry;
use super::super::supervision::{Caller, Supervision};
use super::{Path, c_name};

impl Supervision {
    fn slot(&mut self, caller: &Caller, path: Path) -> Result<Slot, Errno> {
        let text = caller.memory().path(path.address)?;
        let (guest, asker) = self.scene(caller)?;
        guest.slot(&asker, path.at, text.to_bytes())
    }

    pub(super) fn mkdir(
        &mut self,
        caller: &Caller,
        path: Path,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let slot = self.slot(caller, path)?;
        if is_special(&slot) {
            return Err(Errno::EXIST);
        }
        let (mode, gid) = self.prepare_to_make_name(caller, &slot, mode & 0o1777, true)?;
        let on_disk = mode_on_disk(mode, true);
        let name = c_name(&slot.name, false)?;
        mkdirat(&*slot.directory, &name, Mode::from_raw_mode(on_disk))?;
        self.record_made(caller, &slot, gid, mode, on_disk)?;
        Ok(Answer::Value(0))
    }

    /// The kernel asks first whether there is something, and then whether there may be.
    fn prepare_to_make_name(
        &mut self,
        caller: &Caller,
        slot: &Slot,
        mode: u32,
        is_directory: bool,
    ) -> Result<(u32, u32), Errno> {
        match self.prepare_to_make(caller, slot, mode, is_directory) {
            Err(errno @ (Errno::ACCESS | Errno::ROFS)) => match self.look_at(slot) {
                Ok(_) => Err(Errno::EXIST),
                Err(_) => Err(errno),
            },
            other => other,
        }
    }

    /// Writes down whose a new name is, which another process may have replaced by now.
    fn record_made(
        &mut self,
        caller: &Caller,
        slot: &Slot,
        gid: u32,
        mode: u32,
        on_disk: u32,
    ) -> Result<(), Errno> {
        let who = self.credentials(caller)?;
        if (who.user.file, gid) == (0, 0) && mode == on_disk && self.files.is_empty() {
            return Ok(());
        }
        let made = openat(
            &*slot.directory,
            slot.name.as_slice(),
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        self.record_new(made.as_fd(), (who.user.file, gid), mode, on_disk)
    }

    pub(super) fn symlink(
        &mut self,
        caller: &Caller,
        target: u64,
        path: Path,
    ) -> Result<Answer, Errno> {
        let target = caller.memory().path(target)?;
        if target.is_empty() {
            return Err(Errno::NOENT);
        }
        let slot = self.slot(caller, path)?;
        if is_special(&slot) {
            return Err(Errno::EXIST);
        }
        let (_, gid) = self.prepare_to_make_name(caller, &slot, 0o777, false)?;
        symlinkat(
            &target,
            &*slot.directory,
            &c_name(&slot.name, slot.is_directory)?,
        )?;
        self.record_made(caller, &slot, gid, 0o777, 0o777)?;
        Ok(Answer::Value(0))
    }

    pub(super) fn mknod(
        &mut self,
        caller: &Caller,
        path: Path,
        mode: u32,
        numbers: u32,
    ) -> Result<Answer, Errno> {
        let device = |is_block| DeviceNumber {
            is_block,
            major: numbers >> 8 & 0xfff,
            minor: (numbers & 0xff) | (numbers >> 12 & 0xf_ff00),
        };
        let (kind, device) = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => (FileType::RegularFile, None),
            libc::S_IFIFO => (FileType::Fifo, None),
            libc::S_IFSOCK => (FileType::Socket, None),
            libc::S_IFCHR => (FileType::RegularFile, Some(device(false))),
            libc::S_IFBLK => (FileType::RegularFile, Some(device(true))),
            libc::S_IFDIR => return Err(Errno::PERM),
            _ => return Err(Errno::INVAL),
        };
        let slot = self.slot(caller, path)?;
        if is_special(&slot) {
            return Err(Errno::EXIST);
        }
        let (mode, gid) = self.prepare_to_make_name(caller, &slot, mode, false)?;
        let who = self.credentials(caller)?;
        // A character device without a number is what layers say of a file that is gone.
        let is_whiteout =
            device.is_some_and(|device| !device.is_block && (device.major, device.minor) == (0, 0));
        if device.is_some() && (is_whiteout || !who.may(Capability::Mknod)) {
            return Err(Errno::PERM);
        }
        let on_disk = mode_on_disk(mode, false);
        let name = c_name(&slot.name, slot.is_directory)?;
        let raw = Mode::from_raw_mode(on_disk);
        mknodat(&*slot.directory, &name, kind, raw, 0)?;
        if device.is_none() {
            self.record_made(caller, &slot, gid, mode, on_disk)?;
            return Ok(Answer::Value(0));
        }
        let made = openat(
            &*slot.directory,
            &name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = look(made.as_fd())?;
        self.files.ledger.remove(&file_id(&stat));
        self.record(&stat, |attributes| {
            attributes.uid = who.user.file;
            attributes.gid = gid;
            attributes.mode = mode;
            attributes.device = device;
        });
        Ok(Answer::Value(0))
    }

    pub(super) fn unlink(
        &mut self,
        caller: &Caller,
        path: Path,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let removes_directory = match flags.cast_signed() {
            0 => false,
            libc::AT_REMOVEDIR => true,
            _ => return Err(Errno::INVAL),
        };
        let slot = self.slot(caller, path).map_err(|errno| match errno {
            // The root.
            Errno::EXIST => Errno::BUSY,
            errno => errno,
        })?;
        match (slot.name.as_slice(), removes_directory) {
            (b"", _) => return Err(Errno::BUSY),
            (b".", true) => return Err(Errno::INVAL),
            (b"..", true) => return Err(Errno::NOTEMPTY),
            (b"." | b"..", false) => return Err(Errno::ISDIR),
            _ => {}
        }
        self.check_not_mounted(&slot)?;
        self.check_removal(caller, &slot)?;
        let flags = match removes_directory {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        let forgotten = self.without_birth(&slot);
        let name = c_name(&slot.name, slot.is_directory && !removes_directory)?;
        unlinkat(&*slot.directory, &name, flags)?;
        if let Some(id) = forgotten {
            self.files.ledger.remove(&id);
        }
        let guest = &mut self.service().guest;
        match removes_directory {
            true => guest.directories_moved(),
            false => guest.links_moved(),
        }
        Ok(Answer::Value(0))
    }

    /// Returns what the ledger must forget when this name goes: a file whose number may come again, and nothing tells the two
    /// apart.
    fn without_birth(&mut self, slot: &Slot) -> Option<crate::vocab::FileId> {
        if self.files.ledger.is_empty() {
            return None;
        }
        let stat = self.look_at(slot).ok()?;
        let id = file_id(&stat);
        (id.birth == (0, 0) && (stat.stx_nlink == 1 || Seen::is_a_directory(&stat))).then_some(id)
    }

    fn look_at(&self, slot: &Slot) -> Result<rustix::fs::Statx, Errno> {
        statx(
            &*slot.directory,
            slot.name.as_slice(),
            AtFlags::SYMLINK_NOFOLLOW,
            rustix::fs::StatxFlags::BASIC_STATS | rustix::fs::StatxFlags::BTIME,
        )
    }

    /// Refuses to touch what something is mounted on, or below.
    fn check_not_mounted(&mut self, slot: &Slot) -> Result<(), Errno> {
        let guest = &self.service().guest;
        match guest.tree(slot.tree).content {
            Content::Proc => Err(Errno::PERM),
            _ if guest.is_mounted_below(&slot.path()) => Err(Errno::BUSY),
            _ => Ok(()),
        }
    }

    /// Checks whether a name may be taken away.
    fn check_removal(&mut self, caller: &Caller, slot: &Slot) -> Result<(), Errno> {
        let who = self.credentials(caller)?;
        if !(who.may(Capability::DacOverride) && who.may(Capability::Fowner)) {
            let directory = self.truth().of(&look(slot.directory.as_fd())?);
            let file = self.truth().of(&self.look_at(slot)?);
            who.check_removal(&file, &directory)?;
        }
        match self.check_writable(Some(slot.tree)) {
            Ok(()) => Ok(()),
            Err(errno) => self.look_at(slot).and(Err(errno)),
        }
    }

    pub(super) fn rename(
        &mut self,
        caller: &Caller,
        from: Path,
        to: Path,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::PERM);
        }
        let busy = |errno| match errno {
            Errno::EXIST => Errno::BUSY,
            errno => errno,
        };
        let from = self.slot(caller, from).map_err(busy)?;
        let to = self.slot(caller, to).map_err(busy)?;
        if from.tree != to.tree {
            return Err(Errno::XDEV);
        }
        if is_special(&from) || is_special(&to) {
            return Err(Errno::BUSY);
        }
        self.check_not_mounted(&from)?;
        self.check_not_mounted(&to)?;
        self.check_writable(Some(from.tree))?;
        let who = self.credentials(caller)?;
        let moved = self.look_at(&from)?;
        let replaced = self.look_at(&to).ok();
        if !(who.may(Capability::DacOverride) && who.may(Capability::Fowner)) {
            self.check_removal(caller, &from)?;
            if replaced.is_some() {
                self.check_removal(caller, &to)?;
            } else {
                let directory = self.truth().of(&look(to.directory.as_fd())?);
                who.check(&directory, WRITE | EXECUTE)?;
            }
            // Its `..` changes.
            if Seen::is_a_directory(&moved) && from.guest != to.guest {
                who.check(&self.truth().of(&moved), WRITE)?;
            }
        }
        let forgotten = match flags.contains(RenameFlags::EXCHANGE) {
            true => None,
            false => self.without_birth(&to),
        };
        renameat_with(
            &*from.directory,
            &c_name(&from.name, from.is_directory)?,
            &*to.directory,
            &c_name(&to.name, to.is_directory)?,
            flags,
        )?;
        if let Some(id) = forgotten {
            self.files.ledger.remove(&id);
        }
        let is_directory = |stat: &rustix::fs::Statx| Seen::is_a_directory(stat);
        let guest = &mut self.service().guest;
        match is_directory(&moved) || replaced.as_ref().is_some_and(is_directory) {
            true => guest.directories_moved(),
            false => guest.links_moved(),
        }
        Ok(Answer::Value(0))
    }

    pub(super) fn link(
        &mut self,
        caller: &Caller,
        from: Path,
        to: Path,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let follow = libc::AT_SYMLINK_FOLLOW.cast_unsigned();
        let empty = libc::AT_EMPTY_PATH.cast_unsigned();
        if flags & !(follow | empty) != 0 {
            return Err(Errno::INVAL);
        }
        let nofollow = match flags & follow {
            0 => libc::AT_SYMLINK_NOFOLLOW.cast_unsigned(),
            _ => 0,
        };
        let opened = match self.find(caller, from, flags & empty | nofollow)? {
            Node::Opened(opened) => opened,
            Node::Proc(Entry::Directory { .. }) => return Err(Errno::PERM),
            Node::Proc(_) => return Err(Errno::XDEV),
        };
        if opened.is_directory() {
            return Err(Errno::PERM);
        }
        let slot = self.slot(caller, to)?;
        if is_special(&slot) {
            return Err(Errno::EXIST);
        }
        self.prepare_to_make_name(caller, &slot, 0, false)?;
        if opened.tree != Some(slot.tree) {
            return Err(Errno::XDEV);
        }
        self.check_linkable(caller, &opened)?;
        let name = c_name(&slot.name, slot.is_directory)?;
        if opened.is_link() {
            self.link_a_link(caller, &opened, from, &slot, &name)?;
        } else {
            let proc = self.service().guest.proc().clone();
            let place = super::super::guest::own(opened.fd.as_fd());
            linkat(
                &*proc,
                place.as_slice(),
                &*slot.directory,
                &name,
                AtFlags::SYMLINK_FOLLOW,
            )?;
        }
        Ok(Answer::Value(0))
    }

    /// A link cannot be reached by a descriptor: by its name, if that is still its own.
    fn link_a_link(
        &mut self,
        caller: &Caller,
        opened: &Opened,
        from: Path,
        slot: &Slot,
        name: &std::ffi::CStr,
    ) -> Result<(), Errno> {
        let text = caller.memory().path(from.address)?;
        let (guest, asker) = self.scene(caller)?;
        let found = guest.find_with_slot(&asker, from.at, text.to_bytes(), Last::Keep)?;
        let source = found.slot.ok_or(Errno::XDEV)?;
        if file_id(&self.look_at(&source)?) != file_id(&opened.stat) {
            return Err(Errno::NOENT);
        }
        linkat(
            &*source.directory,
            source.name.as_slice(),
            &*slot.directory,
            name,
            AtFlags::empty(),
        )
    }

    /// Refuses links to what is another's and could be abused, as `fs.protected_hardlinks` does.
    fn check_linkable(&mut self, caller: &Caller, opened: &Opened) -> Result<(), Errno> {
        let who = self.credentials(caller)?;
        let seen = self.truth().of(&opened.stat);
        if who.check_owner(&seen).is_ok() {
            return Ok(());
        }
        let runs_as_group = libc::S_ISGID | libc::S_IXGRP;
        let is_harmless = seen.mode & libc::S_IFMT == libc::S_IFREG
            && seen.mode & libc::S_ISUID == 0
            && seen.mode & runs_as_group != runs_as_group
            && who.check(&seen, READ | WRITE).is_ok();
        match is_harmless {
            true => Ok(()),
            false => Err(Errno::PERM),
        }
    }
}

fn is_special(slot: &Slot) -> bool {
    matches!(slot.name.as_slice(), b"" | b"." | b"..")
}
