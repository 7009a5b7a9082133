//! The directories that processes are in, or have open.
//!
//! A relative path begins at one. To ask the kernel each time what a directory is called costs more than the call that is
//! asked for, so descriptors of directories are kept with their names. While one is kept its inode number is nobody else's, so
//! that device and inode tell directories apart. Names change only through the supervisor, which then forgets them all.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::lookup::Asker;
use super::table::{Content, Guest, TreeId, identify, is_directory, key};

/// More than any process has in use; each is a descriptor of the supervisor.
const MOST: usize = 256;

/// Where a lookup begins.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct Start {
    pub(super) fd: Rc<OwnedFd>,
    pub(super) tree: TreeId,
    /// Canonical.
    pub(super) guest: Rc<[u8]>,
}

#[derive(Debug, Default)]
pub(super) struct Directories(HashMap<(u32, u32, u64), Start>);

impl Directories {
    pub(super) fn forget_all(&mut self) {
        self.0.clear();
    }
}

impl Guest {
    /// To be called when a directory has got another name, or none.
    pub(in crate::sandbox) fn directories_moved(&mut self) {
        self.directories.forget_all();
    }

    pub(super) fn root(&self) -> Start {
        Start {
            fd: Rc::clone(&self.tree(0).fd),
            tree: 0,
            guest: Rc::from([]),
        }
    }

    /// Returns the directory that a process means by a descriptor or `AT_FDCWD`.
    pub(in crate::sandbox) fn start(
        &mut self,
        asker: &Asker<'_>,
        descriptor: i32,
    ) -> Result<Start, Errno> {
        let place = place_of(asker.thread, descriptor)?;
        let missing = |errno| match errno {
            // The thread is there, since its call is held; the descriptor is not.
            Errno::NOENT => Errno::BADF,
            errno => errno,
        };
        let proc = Rc::clone(self.proc());
        let stat = rustix::fs::statx(
            &*proc,
            place.as_slice(),
            rustix::fs::AtFlags::empty(),
            rustix::fs::StatxFlags::TYPE | rustix::fs::StatxFlags::INO,
        )
        .map_err(missing)?;
        if !is_directory(&stat) {
            return Err(Errno::NOTDIR);
        }
        if let Some(start) = self.directories.0.get(&key(&stat)) {
            return Ok(start.clone());
        }
        let fd = openat(
            &*proc,
            place.as_slice(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(missing)?;
        // Of what was opened, which another thread may have put there since.
        let key = key(&identify(std::os::fd::AsFd::as_fd(&fd), c"")?);
        let (tree, guest) = self.name_of(asker, &fd)?;
        let start = Start {
            fd: Rc::new(fd),
            tree,
            guest: Rc::from(guest),
        };
        if self.directories.0.len() >= MOST {
            self.directories.forget_all();
        }
        self.directories.0.insert(key, start.clone());
        Ok(start)
    }

    /// Returns the tree and the canonical path of an open file or directory; ENOENT if it is outside of all trees.
    pub(in crate::sandbox) fn name_of(
        &self,
        asker: &Asker<'_>,
        fd: &OwnedFd,
    ) -> Result<(TreeId, Vec<u8>), Errno> {
        let host = self.path_of_descriptor(std::os::fd::AsFd::as_fd(fd))?;
        if let Some(found) = self.guest_of(&host) {
            return Ok(found);
        }
        // A directory of the real /proc, which the supervisor gives out for processes of the family.
        let Some(below) = host.strip_prefix(b"/proc/") else {
            return Err(Errno::NOENT);
        };
        let proc = self
            .trees()
            .iter()
            .position(|tree| tree.content == Content::Proc);
        let first = below.split(|byte| *byte == b'/').next().unwrap_or_default();
        let is_foreign = number(first).is_some_and(|pid| !asker.family.has(pid));
        match proc {
            Some(tree) if !is_foreign => Ok((tree, host)),
            _ => Err(Errno::NOENT),
        }
    }
}

/// Returns where in /proc the directory, or a descriptor, of a thread is.
pub(in crate::sandbox) fn place_of(thread: i32, descriptor: i32) -> Result<Vec<u8>, Errno> {
    Ok(match descriptor {
        libc::AT_FDCWD => format!("{thread}/cwd"),
        0.. => format!("{thread}/fd/{descriptor}"),
        _ => return Err(Errno::BADF),
    }
    .into_bytes())
}

/// Reads a process's number, as names in /proc are written.
pub(in crate::sandbox) fn number(name: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(name).ok()?;
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    is_number.then(|| text.parse().ok()).flatten()
}
