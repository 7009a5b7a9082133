//! The trees of a root.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, Statx, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;

use super::directories::{Directories, Parents};
use super::native::Natives;

/// Which tree; 0 is the root's own.
pub(in crate::sandbox) type TreeId = usize;

/// What is mounted, in place of a mount.
#[derive(Debug)]
pub(in crate::sandbox) struct Tree {
    pub(in crate::sandbox) fd: Rc<OwnedFd>,
    /// How the kernel names it, to recognise what lies below.
    pub(super) host: Vec<u8>,
    /// Where it is in the root, canonical; empty for the root itself.
    pub(in crate::sandbox) guest: Vec<u8>,
    pub(in crate::sandbox) read_only: bool,
    pub(in crate::sandbox) content: Content,
    /// Device and inode of its topmost directory, or of the file that it is.
    id: (u32, u32, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Content {
    Directory,
    /// One file, socket or device.
    File,
    /// /proc.
    Proc,
}

/// Files by the device and inode of what stands for them.
pub(super) type Tokens = HashMap<(u32, u32, u64), (Rc<OwnedFd>, Option<TreeId>)>;

/// A root, and what supervised processes have as their directories.
#[derive(Debug)]
pub(in crate::sandbox) struct Guest {
    trees: Vec<Tree>,
    pub(super) directories: Directories,
    pub(super) parents: Parents,
    /// By device and inode: what a descriptor stands for that could not be passed.
    pub(super) tokens: Tokens,
    /// The host's /proc.
    proc: Rc<OwnedFd>,
    /// The root is the root directory of the processes, too; then what the kernel finds there by itself.
    pub(super) natives: Option<Natives>,
}

impl Tree {
    /// Tells whether there may be programs of the command's in it.
    pub(in crate::sandbox) fn holds_programs(&self) -> bool {
        self.content == Content::Directory && !matches!(self.guest.as_slice(), b"/dev" | b"/sys")
    }
}

impl Guest {
    /// Begins with the root alone. `proc` is the host's.
    pub(in crate::sandbox) fn new(root: OwnedFd, proc: OwnedFd) -> Result<Guest, Errno> {
        let mut guest = Guest {
            trees: Vec::new(),
            directories: Directories::default(),
            parents: Parents::default(),
            tokens: Tokens::new(),
            proc: Rc::new(proc),
            natives: None,
        };
        guest.mount(Vec::new(), root, false)?;
        Ok(guest)
    }

    /// Puts a tree at a canonical path. A later one covers an earlier one.
    pub(in crate::sandbox) fn mount(
        &mut self,
        at: Vec<u8>,
        fd: OwnedFd,
        read_only: bool,
    ) -> Result<TreeId, Errno> {
        let stat = identify(fd.as_fd(), c"")?;
        let content = match is_directory(&stat) {
            true => Content::Directory,
            false => Content::File,
        };
        let host = self.path_of_descriptor(fd.as_fd())?;
        Ok(self.add(Tree {
            id: key(&stat),
            fd: Rc::new(fd),
            host,
            guest: at,
            read_only,
            content,
        }))
    }

    /// Puts the processes of the family at /proc. `listing` is the directory that shows its entries.
    pub(in crate::sandbox) fn mount_proc(&mut self, listing: OwnedFd) -> Result<TreeId, Errno> {
        let host = self.path_of_descriptor(listing.as_fd())?;
        let stat = identify(listing.as_fd(), c"")?;
        Ok(self.add(Tree {
            id: key(&stat),
            fd: Rc::new(listing),
            host,
            guest: b"/proc".to_vec(),
            read_only: false,
            content: Content::Proc,
        }))
    }

    fn add(&mut self, tree: Tree) -> TreeId {
        self.trees.push(tree);
        self.directories_moved();
        self.trees.len() - 1
    }

    pub(in crate::sandbox) fn tree(&self, tree: TreeId) -> &Tree {
        &self.trees[tree]
    }

    pub(in crate::sandbox) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// The host's /proc.
    pub(in crate::sandbox) fn proc(&self) -> &Rc<OwnedFd> {
        &self.proc
    }

    /// Returns the tree that is mounted at a canonical path.
    pub(in crate::sandbox) fn mounted_at(&self, path: &[u8]) -> Option<TreeId> {
        self.trees
            .iter()
            .rposition(|tree| tree.guest.len() == path.len() && tree.guest == path)
    }

    /// Tells whether something is mounted on a name in the directory at a canonical path.
    pub(super) fn is_mounted_in(&self, directory: &[u8], name: &[u8]) -> bool {
        self.trees.iter().any(|tree| {
            tree.guest.len() == directory.len() + 1 + name.len()
                && tree.guest.ends_with(name)
                && tree.guest.starts_with(directory)
                && tree.guest[directory.len()] == b'/'
        })
    }

    /// Tells whether something is mounted at a canonical path or below it.
    pub(in crate::sandbox) fn is_mounted_below(&self, path: &[u8]) -> bool {
        self.trees
            .iter()
            .any(|tree| strip_prefix(&tree.guest, path).is_some())
    }

    /// Returns the tree that a canonical path lies in, with the path below it (without a slash at its start).
    pub(in crate::sandbox) fn tree_of<'p>(&self, path: &'p [u8]) -> (TreeId, &'p [u8]) {
        self.trees
            .iter()
            .enumerate()
            .filter_map(|(id, tree)| Some((id, tree, strip_prefix(path, &tree.guest)?)))
            // The last one of equals, which covers the others.
            .max_by_key(|(_, tree, _)| tree.guest.len())
            .map(|(id, _, rest)| (id, rest))
            .expect("the root is a prefix of every path")
    }

    /// Returns where in the root the thing is that the kernel names so: its tree and its canonical path.
    pub(in crate::sandbox) fn guest_of(&self, host: &[u8]) -> Option<(TreeId, Vec<u8>)> {
        let (id, tree, rest) = self
            .trees
            .iter()
            .enumerate()
            .filter_map(|(id, tree)| Some((id, tree, strip_prefix(host, &tree.host)?)))
            .max_by_key(|(_, tree, _)| tree.host.len())?;
        let mut path = tree.guest.clone();
        if !rest.is_empty() {
            path.push(b'/');
            path.extend_from_slice(rest);
        }
        Some((id, path))
    }

    /// Returns the tree that is this very file.
    pub(in crate::sandbox) fn tree_that_is(&self, stat: &Statx) -> Option<TreeId> {
        let key = key(stat);
        self.trees
            .iter()
            .rposition(|tree| tree.content == Content::File && tree.id == key)
    }

    /// Returns how the kernel names what a descriptor of this process leads to.
    pub(in crate::sandbox) fn path_of_descriptor(
        &self,
        fd: BorrowedFd<'_>,
    ) -> Result<Vec<u8>, Errno> {
        Ok(readlinkat(&*self.proc, own(fd).as_slice(), Vec::new())?.into_bytes())
    }

    /// Opens again what a descriptor of this process leads to.
    pub(in crate::sandbox) fn reopen(
        &self,
        fd: BorrowedFd<'_>,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        openat(
            &*self.proc,
            own(fd).as_slice(),
            flags | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        )
    }
}

/// Returns the path below /proc of a descriptor of this process.
pub(in crate::sandbox) fn own(fd: BorrowedFd<'_>) -> Vec<u8> {
    use std::os::fd::AsRawFd;
    format!("self/fd/{}", fd.as_raw_fd()).into_bytes()
}

/// Returns what follows `prefix` and a slash in `path`, or nothing if they are equal.
pub(in crate::sandbox) fn strip_prefix<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    match path.strip_prefix(prefix)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        // The host's own root directory ends with the slash.
        rest if prefix == b"/" => Some(rest),
        _ => None,
    }
}

pub(super) fn identify(fd: BorrowedFd<'_>, path: &std::ffi::CStr) -> Result<Statx, Errno> {
    let flags = match path.is_empty() {
        true => rustix::fs::AtFlags::EMPTY_PATH,
        false => rustix::fs::AtFlags::empty(),
    };
    statx(fd, path, flags, StatxFlags::TYPE | StatxFlags::INO)
}

pub(super) fn key(stat: &Statx) -> (u32, u32, u64) {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

pub(super) fn is_directory(stat: &Statx) -> bool {
    u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR
}

pub(super) fn is_link(stat: &Statx) -> bool {
    u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFLNK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_slashes() {
        for (path, prefix, expected) in [
            ("/a/b", "/a", Some("b")),
            ("/a", "/a", Some("")),
            ("/ab", "/a", None),
            ("/a/b", "", Some("a/b")),
            ("", "", Some("")),
            ("/a", "/", Some("a")),
            ("/a (deleted)", "/a", None),
        ] {
            let rest = strip_prefix(path.as_bytes(), prefix.as_bytes());
            assert_eq!(rest, expected.map(str::as_bytes), "{path} {prefix}");
        }
    }
}
