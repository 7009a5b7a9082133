//! What the kernel finds by itself, where the root is the root directory of the processes, too.
//!
//! There a path means two things: what the supervisor finds, with all that is mounted, and what the kernel finds, on disk alone. As
//! long as both find the same directory, and nothing is mounted on the name in it, the kernel may as well make the call itself.
//! That is asked of the kernel, once for each directory and each way of naming it, with links and all; so a link that leads
//! to /proc, or through it, is no special case.
//!
//! The tree may change between the question and the call. Then the caller gets what is on disk.

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, readlinkat, statx,
};
use rustix::io::Errno;

use super::directories::{Key, Parents, Start};
use super::lookup::{Asker, Last, join, split};
use super::table::{Guest, identify, is_link, key};

/// More than are in use at once; each holds a descriptor.
const MOST: usize = 256;
/// Links at the end of a path; what has more is looked up in the other way.
const MOST_LINKS: usize = 8;

/// Directories by the words that led to them; `None` for what the kernel does not find.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Natives {
    plain: HashMap<Key, Option<Start>>,
    /// By way of a link, which may be taken away like any file; or nothing.
    by_links: HashMap<Key, Option<Start>>,
}

impl Natives {
    fn get(&self, key: &Key) -> Option<&Option<Start>> {
        self.plain.get(key).or_else(|| self.by_links.get(key))
    }

    fn keep(&mut self, key: Key, found: Option<Start>, has_links: bool) {
        if self.plain.len() + self.by_links.len() >= MOST {
            *self = Natives::default();
        }
        let all = match has_links {
            true => &mut self.by_links,
            false => &mut self.plain,
        };
        all.insert(key, found);
    }

    pub(super) fn links_moved(&mut self) {
        self.by_links.clear();
    }
}

/// What the kernel finds.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is what is nearly always found"
)]
pub(in crate::sandbox) enum Native {
    /// No such name in a directory that is there.
    Nothing,
    /// A directory, by the form of its path.
    Directory,
    File(Statx),
}

impl Guest {
    /// The root is the root directory of the processes.
    pub(in crate::sandbox) fn becomes_root_directory(&mut self) {
        self.natives = Some(Natives::default());
    }

    pub(in crate::sandbox) fn is_root_directory(&self) -> bool {
        self.natives.is_some()
    }

    /// Returns what the kernel finds at a path; `None` if that may be another thing than is meant, or an error.
    pub(in crate::sandbox) fn natively(
        &mut self,
        asker: &Asker<'_>,
        at: i32,
        path: &[u8],
        last: Last,
    ) -> Option<Native> {
        let (mut at, mut text) = (at, path.to_vec());
        for _ in 0..=MOST_LINKS {
            let (directory, name) = self.directory_natively(asker, at, &text)?;
            if name.is_empty() {
                return Some(Native::Directory);
            }
            let stat = match statx(
                &*directory.fd,
                name,
                AtFlags::SYMLINK_NOFOLLOW,
                StatxFlags::BASIC_STATS | StatxFlags::BTIME,
            ) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Some(Native::Nothing),
                Err(_) => return None,
            };
            if last == Last::Keep || !is_link(&stat) {
                return Some(Native::File(stat));
            }
            let target = readlinkat(&*directory.fd, name, Vec::new())
                .ok()?
                .into_bytes();
            text = match target.starts_with(b"/") {
                true => target,
                false => join(&directory.guest, &target),
            };
            at = libc::AT_FDCWD;
        }
        None
    }

    /// Returns the directory of a path and its last name, which is empty if the path is one of a directory by its form.
    pub(in crate::sandbox) fn directory_natively<'p>(
        &mut self,
        asker: &Asker<'_>,
        at: i32,
        path: &'p [u8],
    ) -> Option<(Start, &'p [u8])> {
        self.natives.as_ref()?;
        let start = self.begin(asker, at, path).ok()?;
        if start.tree != 0 {
            return None;
        }
        let (parent, name) = match split(path) {
            Some((parent, name)) if !path.ends_with(b"/") => (parent, name),
            _ => (path, &b""[..]),
        };
        let directory = match parent {
            b"" => start,
            parent => {
                let key = Parents::key(&asker.who, &start, parent);
                match self.natives.as_ref()?.get(&key) {
                    Some(known) => known.clone()?,
                    None => {
                        let (found, has_links) = match self.same_directory(asker, &start, parent) {
                            Some((found, has_links)) => (Some(found), has_links),
                            None => (None, true),
                        };
                        let natives = self.natives.as_mut()?;
                        natives.keep(key, found.clone(), has_links);
                        found?
                    }
                }
            }
        };
        (name.is_empty() || !self.is_mounted_in(&directory.guest, name))
            .then_some((directory, name))
    }

    /// Finds a directory, if the kernel finds the same one; tells whether a link may have led there.
    fn same_directory(
        &mut self,
        asker: &Asker<'_>,
        start: &Start,
        text: &[u8],
    ) -> Option<(Start, bool)> {
        let meant = self.parent(asker, start, text).ok()?;
        if meant.tree != 0 {
            return None;
        }
        // A canonical path has no links, so that its end is where the process is.
        let path = match text.starts_with(b"/") {
            true => text.to_vec(),
            false => join(&start.guest, text),
        };
        let open = |more: ResolveFlags| {
            openat2(
                &*self.tree(0).fd,
                path.as_slice(),
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more,
            )
        };
        let (found, has_links) = match open(ResolveFlags::NO_SYMLINKS) {
            Ok(found) => (found, false),
            Err(_) => (open(ResolveFlags::empty()).ok()?, true),
        };
        let found = identify(found.as_fd(), c"").ok()?;
        let known = identify(meant.fd.as_fd(), c"").ok()?;
        (key(&found) == key(&known)).then_some((meant, has_links))
    }
}
