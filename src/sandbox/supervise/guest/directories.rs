//! The directories that processes are in, or have open.
//!
//! A relative path begins at one. To ask the kernel each time what a directory is called costs more than the call that is
//! asked for, so descriptors of directories are kept with their names. While one is kept its inode number is nobody else's, so
//! that device and inode tell directories apart. Names change only through the supervisor, which then forgets them all; in a
//! tree that others change too (a shared cache), a directory that they have moved is used as one that was open before.
//!
//! A descriptor opened with `O_PATH` cannot be passed to the caller of a held call. What cannot be opened otherwise (a link, a
//! socket) is kept, and the caller gets a *token* in its place: an empty file of memory, known by its inode.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Statx, openat};
use rustix::io::Errno;

use super::super::credentials::Credentials;
use super::lookup::{Asker, Near};
use super::native::Natives;
use super::table::{Content, Guest, TreeId, identify, is_directory, key};

/// More than any process has in use; each is a descriptor of the supervisor.
const MOST: usize = 256;

/// Only words.
const MOST_NO_LINKS: usize = 4096;

/// Where a lookup begins.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct Start {
    pub(in crate::sandbox) fd: Rc<OwnedFd>,
    pub(in crate::sandbox) tree: TreeId,
    /// Canonical.
    pub(super) guest: Rc<[u8]>,
}

/// By device and inode.
#[derive(Debug, Default)]
pub(super) struct Directories(HashMap<(u32, u32, u64), Start>);

impl Directories {
    pub(super) fn forget_all(&mut self) {
        self.0.clear();
    }
}

/// Directories by the words that led to them: who asked, from where, what for.
#[derive(Debug, Default)]
pub(super) struct Parents {
    plain: HashMap<Key, Start>,
    /// Perhaps by way of a link, which may be taken away like any file.
    by_links: HashMap<Key, Start>,
    /// Absolute paths of the root's own tree that end with no link.
    no_links: HashSet<Box<[u8]>>,
}

pub(super) type Key = (usize, Vec<u8>);

impl Parents {
    /// All credentials that there were are kept, so that their places tell them apart.
    pub(super) fn key(who: &Arc<Credentials>, start: &Start, text: &[u8]) -> Key {
        let mut words = Vec::with_capacity(start.guest.len() + text.len() + 2);
        if !text.starts_with(b"/") {
            words.extend_from_slice(&start.guest);
            // Which is no part of a path.
            words.push(0);
        }
        words.extend_from_slice(text);
        (Arc::as_ptr(who).addr(), words)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Start> {
        self.plain
            .get(key)
            .or_else(|| self.by_links.get(key))
            .cloned()
    }

    pub(super) fn keep(&mut self, key: Key, directory: &Start, has_links: bool) {
        if self.plain.len() + self.by_links.len() >= MOST {
            self.plain.clear();
            self.by_links.clear();
        }
        let all = match has_links {
            true => &mut self.by_links,
            false => &mut self.plain,
        };
        all.insert(key, directory.clone());
    }
}

impl Guest {
    /// To be called when a name that may be a link's has changed.
    pub(in crate::sandbox) fn links_moved(&mut self) {
        self.parents.by_links.clear();
        if let Some(natives) = &mut self.natives {
            natives.links_moved();
        }
        self.parents.no_links.clear();
    }

    /// Tells whether a path is known to end with what is no link. Programs that make paths canonical ask that of each directory
    /// on each path; before anything else can be there, what is there has to move.
    pub(in crate::sandbox) fn is_no_link(&self, asker: &Asker<'_>, path: &[u8]) -> bool {
        asker.who.may_search_all() && self.parents.no_links.contains(path)
    }

    /// Keeps a path that ends with what is no link.
    pub(in crate::sandbox) fn keep_no_link(
        &mut self,
        asker: &Asker<'_>,
        near: &Near<'_>,
        path: &[u8],
    ) {
        // Other trees may be changed by others.
        if near.directory.tree != 0 || !path.starts_with(b"/") || !asker.who.may_search_all() {
            return;
        }
        let known = &mut self.parents.no_links;
        if known.len() >= MOST_NO_LINKS {
            known.clear();
        }
        known.insert(path.into());
    }

    /// Has a descriptor that leads to `token` mean another file.
    pub(in crate::sandbox) fn stands_for(
        &mut self,
        token: &OwnedFd,
        file: Rc<OwnedFd>,
        tree: Option<TreeId>,
    ) -> Result<(), Errno> {
        if self.tokens.len() >= MOST {
            self.tokens.clear();
        }
        let key = key(&identify(token.as_fd(), c"")?);
        self.tokens.insert(key, (file, tree));
        Ok(())
    }

    /// Returns the file that a descriptor means which leads to a token.
    pub(in crate::sandbox) fn token(&self, stat: &Statx) -> Option<(Rc<OwnedFd>, Option<TreeId>)> {
        match self.tokens.is_empty() {
            true => None,
            false => self.tokens.get(&key(stat)).cloned(),
        }
    }

    /// To be called when a directory has got another name, or none, or may be searched by others than before.
    pub(in crate::sandbox) fn directories_moved(&mut self) {
        self.directories.forget_all();
        self.parents = Parents::default();
        self.natives = self.natives.as_ref().map(|_| Natives::default());
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
        let key = key(&identify(fd.as_fd(), c"")?);
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
        let host = self.path_of_descriptor(fd.as_fd())?;
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
