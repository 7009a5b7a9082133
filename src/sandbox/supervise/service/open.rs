//! Opening.
//!
//! The supervisor opens and passes the descriptor. It must never wait: everything is opened so that it does not block, and
//! what may have to wait for another process (a FIFO) is opened by a helper.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, fcntl_setfl, ftruncate, memfd_create, openat};
use rustix::io::Errno;

use crate::vocab::mode_on_disk;

use super::super::credentials::Capability;
use super::super::guest::{Content, Found, Last, Near, Node, Opened, Slot, TreeId, look};
use super::super::listener::Answer;
use super::super::permission::{EXECUTE, READ, Seen, WRITE};
use super::super::procfs::{self, Entry};
use super::super::supervision::{Caller, Supervision};
use super::{Path, own};

/// What the caller asked for.
#[derive(Clone, Copy, Debug)]
struct How {
    /// As far as they matter while opening.
    flags: OFlags,
    close_on_exec: bool,
    creates: bool,
    exclusively: bool,
    truncates: bool,
    waits: bool,
    mode: u32,
}

/// Flags that are handed on.
const PASSED: OFlags = OFlags::RWMODE
    .union(OFlags::APPEND)
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC)
    .union(OFlags::DIRECT)
    .union(OFlags::NOATIME)
    .union(OFlags::LARGEFILE)
    .union(OFlags::from_bits_retain(libc::O_ASYNC as u32));
/// Flags that stay with the open file.
const STAYING: OFlags = OFlags::APPEND
    .union(OFlags::DIRECT)
    .union(OFlags::NOATIME)
    .union(OFlags::from_bits_retain(libc::O_ASYNC as u32));

impl How {
    fn new(flags: u32, mode: u32) -> How {
        let flags = OFlags::from_bits_retain(flags);
        let passed = PASSED | OFlags::NONBLOCK;
        How {
            flags: flags & PASSED,
            close_on_exec: flags.contains(OFlags::CLOEXEC),
            creates: flags.contains(OFlags::CREATE),
            exclusively: flags.contains(OFlags::CREATE | OFlags::EXCL),
            truncates: flags.contains(OFlags::TRUNC),
            waits: !(flags & passed).contains(OFlags::NONBLOCK),
            mode,
        }
    }

    fn writes(&self) -> bool {
        self.truncates || !(self.flags & OFlags::RWMODE).is_empty()
    }

    fn wants(&self) -> u32 {
        let wants = match self.flags & OFlags::RWMODE {
            OFlags::WRONLY => WRITE,
            OFlags::RDWR => READ | WRITE,
            _ => READ,
        };
        if self.truncates { wants | WRITE } else { wants }
    }

    fn last(&self) -> Last {
        match self.exclusively || self.flags.contains(OFlags::NOFOLLOW) {
            true => Last::Keep,
            false => Last::Follow,
        }
    }

    fn answer(&self, fd: OwnedFd) -> Answer {
        Answer::Descriptor {
            fd,
            close_on_exec: self.close_on_exec,
        }
    }
}

impl Supervision {
    pub(super) fn open(
        &mut self,
        caller: &Caller,
        path: Path,
        flags: u32,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let text = caller.memory().path(path.address)?;
        let text = text.to_bytes();
        let how = How::new(flags, mode);
        let flags = OFlags::from_bits_retain(flags);
        if flags.contains(OFlags::PATH) {
            return self.open_path(caller, path.at, text, &how);
        }
        if flags.contains(OFlags::TMPFILE) {
            return self.open_nameless(caller, path.at, text, &how, flags.contains(OFlags::EXCL));
        }
        let may_open_all = self.credentials(caller)?.may(Capability::DacOverride);
        let (guest, asker) = self.scene(caller)?;
        if !how.exclusively
            && may_open_all
            && let Some(Near { directory, name }) = guest.near(&asker, path.at, text)?
        {
            let quick =
                how.flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(&*directory.fd, name, quick, Mode::empty()) {
                Ok(fd) => return self.opened(caller, fd, directory.tree, &how),
                Err(Errno::NOENT) if how.creates => {}
                // A link; or a FIFO without a reader, perhaps.
                Err(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => {
                    return self.open_slowly(caller, path.at, text, &how);
                }
                Err(errno) => return Err(errno),
            }
        } else if !how.exclusively {
            return self.open_slowly(caller, path.at, text, &how);
        }
        if !how.creates {
            return self.open_slowly(caller, path.at, text, &how);
        }
        let (guest, asker) = self.scene(caller)?;
        let slot = guest.slot(&asker, path.at, text)?;
        match self.create(caller, &slot, &how) {
            // Another process was quicker, or it is a link that leads nowhere yet.
            Err(Errno::EXIST) if !how.exclusively => self.open_slowly(caller, path.at, text, &how),
            other => other,
        }
    }

    /// Finishes what was opened without a look at it.
    fn opened(
        &mut self,
        caller: &Caller,
        fd: OwnedFd,
        tree: TreeId,
        how: &How,
    ) -> Result<Answer, Errno> {
        let stat = look(fd.as_fd())?;
        let seen = self.truth().of(&stat);
        self.check_openable(&seen, Some(tree), how)?;
        if let Some(device) = seen.device {
            let device = (&stat, device);
            return self.open_device(caller, device, how.flags, how.waits, how.close_on_exec);
        }
        if seen.mode & libc::S_IFMT == libc::S_IFIFO
            && how.waits
            && how.flags & OFlags::RWMODE == OFlags::RDONLY
        {
            let flags = how.flags;
            return self.help(caller, fd, flags, how.close_on_exec);
        }
        self.hand_over(fd, how)
    }

    /// Refuses what may not be opened so, whoever asks.
    fn check_openable(
        &mut self,
        seen: &Seen,
        tree: Option<TreeId>,
        how: &How,
    ) -> Result<(), Errno> {
        match seen.mode & libc::S_IFMT {
            libc::S_IFDIR if how.creates || how.writes() => return Err(Errno::ISDIR),
            libc::S_IFDIR => {}
            _ if how.flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
            libc::S_IFSOCK => return Err(Errno::NXIO),
            libc::S_IFLNK => return Err(Errno::LOOP),
            libc::S_IFCHR | libc::S_IFBLK => {
                // What stands for a device is opened elsewhere, and needs no writable file system.
                let is_given = tree
                    .is_none_or(|tree| self.service().guest.tree(tree).content == Content::File);
                return match seen.device.is_some() || is_given {
                    true => Ok(()),
                    false => Err(Errno::ACCESS),
                };
            }
            libc::S_IFIFO => return Ok(()),
            _ => {}
        }
        match how.writes() {
            true => self.check_writable(tree),
            false => Ok(()),
        }
    }

    /// Truncates, and has the file wait as it was asked to.
    fn hand_over(&mut self, fd: OwnedFd, how: &How) -> Result<Answer, Errno> {
        if how.truncates {
            match how.flags & OFlags::RWMODE {
                OFlags::RDONLY => {
                    let guest = &self.service().guest;
                    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK;
                    guest.reopen(fd.as_fd(), flags)?;
                }
                _ => match ftruncate(&fd, 0) {
                    // Not a regular file.
                    Err(Errno::INVAL) | Ok(()) => {}
                    Err(errno) => return Err(errno),
                },
            }
        }
        if how.waits {
            fcntl_setfl(&fd, how.flags & STAYING)?;
        }
        Ok(how.answer(fd))
    }

    fn open_slowly(
        &mut self,
        caller: &Caller,
        at: i32,
        text: &[u8],
        how: &How,
    ) -> Result<Answer, Errno> {
        let (guest, asker) = self.scene(caller)?;
        let Found { slot, node } = guest.find_with_slot(&asker, at, text, how.last())?;
        match (node, slot) {
            (Some(_), _) if how.exclusively => Err(Errno::EXIST),
            (Some(Node::Opened(opened)), _) => self.open_found(caller, opened, how),
            (Some(Node::Proc(entry)), _) => self.open_entry(caller, &entry, how),
            (None, Some(slot)) if how.creates => self.create(caller, &slot, how),
            (None, _) => Err(Errno::NOENT),
        }
    }

    fn open_found(&mut self, caller: &Caller, opened: Opened, how: &How) -> Result<Answer, Errno> {
        let seen = self.truth().of(&opened.stat);
        if opened.is_link() && how.flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::NOTDIR);
        }
        self.check_openable(&seen, opened.tree, how)?;
        let who = self.credentials(caller)?;
        who.check(&seen, how.wants())?;
        if how.flags.contains(OFlags::NOATIME) {
            who.check_owner(&seen)?;
        }
        if let Some(device) = seen.device {
            let device = (&opened.stat, device);
            return self.open_device(caller, device, how.flags, how.waits, how.close_on_exec);
        }
        let is_fifo = seen.mode & libc::S_IFMT == libc::S_IFIFO;
        // One that has both ends never waits. One without a name is a pipe, whose ends are there.
        if is_fifo
            && how.waits
            && opened.tree.is_some()
            && how.flags & OFlags::RWMODE != OFlags::RDWR
        {
            let fd = own(opened.fd)?;
            return self.help(caller, fd, how.flags, how.close_on_exec);
        }
        let flags = (how.flags - OFlags::NOFOLLOW) | OFlags::NONBLOCK;
        let guest = &self.service().guest;
        let fd = guest.reopen(opened.fd.as_fd(), flags)?;
        self.hand_over(fd, how)
    }

    fn open_entry(&mut self, caller: &Caller, entry: &Entry, how: &How) -> Result<Answer, Errno> {
        let own_process = procfs::process_of(entry.path()).is_some();
        match entry {
            Entry::Directory { .. } if how.creates || how.writes() => Err(Errno::ISDIR),
            Entry::Directory { path } if path.is_empty() => {
                let listing = self.list_processes()?;
                Ok(how.answer(listing))
            }
            Entry::Link { .. } | Entry::Object { .. } => Err(Errno::LOOP),
            Entry::File { .. } | Entry::Written { .. } if how.flags.contains(OFlags::DIRECTORY) => {
                Err(Errno::NOTDIR)
            }
            // The kernel's own switches are nobody's in here.
            Entry::File { .. } if how.writes() && !own_process => Err(Errno::ROFS),
            Entry::Written { .. } if how.writes() => Err(Errno::ACCESS),
            Entry::Written { path, content } => {
                let fd = self.write_entry(caller, path, *content)?;
                Ok(how.answer(fd))
            }
            Entry::Directory { path } | Entry::File { path } => {
                let flags = how.flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
                let proc = self.service().guest.proc().clone();
                let fd = openat(&*proc, path.as_slice(), flags, Mode::empty())?;
                Ok(how.answer(fd))
            }
        }
    }

    /// Makes a file where there is none.
    fn create(&mut self, caller: &Caller, slot: &Slot, how: &How) -> Result<Answer, Errno> {
        if slot.is_directory || matches!(slot.name.as_slice(), b"" | b"." | b"..") {
            return Err(Errno::ISDIR);
        }
        if how.flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::INVAL);
        }
        let who = self.credentials(caller)?;
        let (mode, gid) = self.prepare_to_make(caller, slot, how.mode, false)?;
        let on_disk = mode_on_disk(mode, false);
        let flags = (how.flags - OFlags::DIRECTORY)
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::NOCTTY;
        let fd = openat(
            &*slot.directory,
            slot.name.as_slice(),
            flags,
            Mode::from_raw_mode(on_disk),
        )?;
        self.record_new(fd.as_fd(), (who.user.file, gid), mode, on_disk)?;
        Ok(how.answer(fd))
    }

    /// Checks whether something can be made there; returns the mode and the group that it gets.
    pub(super) fn prepare_to_make(
        &mut self,
        caller: &Caller,
        slot: &Slot,
        mode: u32,
        is_directory: bool,
    ) -> Result<(u32, u32), Errno> {
        let who = self.credentials(caller)?;
        let guest = &self.service().guest;
        if guest.tree(slot.tree).content == Content::Proc {
            return Err(Errno::NOENT);
        }
        if guest.mounted_at(&slot.path()).is_some() {
            return Err(Errno::EXIST);
        }
        let directory = self.truth().of(&look(slot.directory.as_fd())?);
        who.check(&directory, WRITE | EXECUTE)?;
        self.check_writable(Some(slot.tree))?;
        Ok(who.makes(mode, is_directory, &directory))
    }

    fn open_nameless(
        &mut self,
        caller: &Caller,
        at: i32,
        text: &[u8],
        how: &How,
        is_exclusive: bool,
    ) -> Result<Answer, Errno> {
        if how.flags & OFlags::RWMODE == OFlags::RDONLY {
            return Err(Errno::INVAL);
        }
        let (guest, asker) = self.scene(caller)?;
        let Node::Opened(directory) = guest.find(&asker, at, text, Last::Follow)? else {
            return Err(Errno::OPNOTSUPP);
        };
        if !directory.is_directory() {
            return Err(Errno::NOTDIR);
        }
        let who = self.credentials(caller)?;
        let seen = self.truth().of(&directory.stat);
        who.check(&seen, WRITE | EXECUTE)?;
        self.check_writable(directory.tree)?;
        let (mode, gid) = who.makes(how.mode, false, &seen);
        let on_disk = mode_on_disk(mode, false);
        let mut flags = how.flags | OFlags::TMPFILE | OFlags::CLOEXEC;
        if is_exclusive {
            flags |= OFlags::EXCL;
        }
        let fd = openat(&*directory.fd, ".", flags, Mode::from_raw_mode(on_disk))?;
        self.record_new(fd.as_fd(), (who.user.file, gid), mode, on_disk)?;
        Ok(how.answer(fd))
    }

    fn open_path(
        &mut self,
        caller: &Caller,
        at: i32,
        text: &[u8],
        how: &How,
    ) -> Result<Answer, Errno> {
        let (guest, asker) = self.scene(caller)?;
        let last = match how.flags.contains(OFlags::NOFOLLOW) {
            true => Last::Keep,
            false => Last::Follow,
        };
        let node = guest.find(&asker, at, text, last)?;
        if how.flags.contains(OFlags::DIRECTORY) && !node.is_directory() {
            return Err(Errno::NOTDIR);
        }
        // The kernel gives no caller a descriptor of this kind. One for reading does what it is used for.
        let reading = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match node {
            Node::Opened(opened) => {
                let kind = u32::from(opened.stat.stx_mode) & libc::S_IFMT;
                match kind == libc::S_IFREG || kind == libc::S_IFDIR {
                    true => guest.reopen(opened.fd.as_fd(), reading)?,
                    false => {
                        let token = memfd_create(c"path", MemfdFlags::CLOEXEC)?;
                        guest.stands_for(&token, opened.fd, opened.tree)?;
                        token
                    }
                }
            }
            Node::Proc(entry @ Entry::Directory { .. }) => {
                let fd = procfs::open_directory(guest, &entry)?;
                guest.reopen(fd.as_fd(), reading | OFlags::DIRECTORY)?
            }
            Node::Proc(Entry::File { path } | Entry::Written { path, .. }) => openat(
                &**guest.proc(),
                path.as_slice(),
                reading | OFlags::NOFOLLOW,
                Mode::empty(),
            )?,
            Node::Proc(Entry::Link { .. } | Entry::Object { .. }) => return Err(Errno::LOOP),
        };
        Ok(how.answer(fd))
    }
}
