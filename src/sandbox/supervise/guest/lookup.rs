//! Looking paths up.
//!
//! The quick way is one `openat2` that meets no link; with no links in it the text of a path alone says which trees it goes
//! through. It serves those who may search every directory. Everything else goes component by component.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2, readlinkat, statx,
};
use rustix::io::Errno;

use super::super::credentials::Credentials;
use super::super::family::Family;
use super::super::permission::{EXECUTE, Truth};
use super::super::procfs::{self, Entry};
use super::directories::Start;
use super::table::{Content, Guest, TreeId, is_directory, is_link};

/// Links on one path, as the kernel counts them.
const MOST_LINKS: usize = 40;
/// Longest path with its NUL.
const PATH_MAX: usize = 4096;
/// Longest name.
const NAME_MAX: usize = 255;

/// Who looks something up.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct Asker<'a> {
    pub(in crate::sandbox) thread: i32,
    /// The process that the thread is of.
    pub(in crate::sandbox) process: i32,
    pub(in crate::sandbox) family: &'a Family,
    pub(in crate::sandbox) who: Arc<Credentials>,
    pub(in crate::sandbox) truth: Truth<'a>,
}

/// What becomes of a link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Last {
    Follow,
    Keep,
}

/// Something that was found.
#[derive(Debug)]
pub(in crate::sandbox) enum Node {
    Opened(Opened),
    Proc(Entry),
}

/// A file of any kind, opened with `O_PATH`.
#[derive(Debug)]
pub(in crate::sandbox) struct Opened {
    pub(in crate::sandbox) fd: Rc<OwnedFd>,
    /// `None` for what is in no tree: a pipe, a file of memory, a device of the host.
    pub(in crate::sandbox) tree: Option<TreeId>,
    pub(in crate::sandbox) stat: Statx,
}

/// Where a name is, or would be.
#[derive(Debug)]
pub(in crate::sandbox) struct Slot {
    pub(in crate::sandbox) directory: Rc<OwnedFd>,
    pub(in crate::sandbox) tree: TreeId,
    /// The directory's canonical path.
    pub(in crate::sandbox) guest: Vec<u8>,
    /// Empty for the root directory; may be `.` or `..`.
    pub(in crate::sandbox) name: Vec<u8>,
    /// A slash follows the name.
    pub(in crate::sandbox) is_directory: bool,
}

/// What a path leads to.
#[derive(Debug)]
pub(in crate::sandbox) struct Found {
    /// Where it is; `None` for the root, and for what `..` or a link of /proc led to.
    pub(in crate::sandbox) slot: Option<Slot>,
    /// `None` if there is no such name in `slot`.
    pub(in crate::sandbox) node: Option<Node>,
}

/// The quick way's answer.
#[derive(Debug)]
pub(in crate::sandbox) enum Quick {
    /// Opened with the flags that were asked for.
    Opened(OwnedFd, TreeId),
    Failed(Errno),
    /// The quick way does not lead there.
    Unknown,
}

/// Where the text of a path leads if it meets no link.
struct Route {
    tree: TreeId,
    /// Canonical.
    guest: Vec<u8>,
    /// It has `..`.
    goes_up: bool,
    /// It has been in another tree than the one it starts in.
    crosses: bool,
    /// It has to be a directory.
    is_directory: bool,
}

impl Slot {
    /// Returns the canonical path of the name.
    pub(in crate::sandbox) fn path(&self) -> Vec<u8> {
        join(&self.guest, &self.name)
    }
}

impl Guest {
    /// Finds what a path leads to.
    pub(in crate::sandbox) fn find(
        &mut self,
        asker: &Asker<'_>,
        at: i32,
        path: &[u8],
        last: Last,
    ) -> Result<Node, Errno> {
        let flags = OFlags::PATH
            | match last {
                Last::Follow => OFlags::empty(),
                Last::Keep => OFlags::NOFOLLOW,
            };
        let start = self.begin(asker, at, path)?;
        match self.quick(asker, &start, path, flags) {
            Quick::Opened(fd, tree) => {
                let stat = look(fd.as_fd())?;
                return Ok(Node::Opened(Opened {
                    fd: Rc::new(fd),
                    tree: Some(tree),
                    stat,
                }));
            }
            Quick::Failed(errno) => return Err(errno),
            Quick::Unknown => {}
        }
        self.walk(asker, start, path, Some(last))?
            .node
            .ok_or(Errno::NOENT)
    }

    /// Finds where a path's last name is, and what is there.
    pub(in crate::sandbox) fn find_with_slot(
        &mut self,
        asker: &Asker<'_>,
        at: i32,
        path: &[u8],
        last: Last,
    ) -> Result<Found, Errno> {
        let start = self.begin(asker, at, path)?;
        self.walk(asker, start, path, Some(last))
    }

    /// Finds where a path's last name is, without a look at what is there.
    pub(in crate::sandbox) fn slot(
        &mut self,
        asker: &Asker<'_>,
        at: i32,
        path: &[u8],
    ) -> Result<Slot, Errno> {
        let start = self.begin(asker, at, path)?;
        if let Some((parent, name)) = split(path) {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            if name.len() > NAME_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            let parent_is_start = parent.is_empty();
            let quick = if parent_is_start && asker.who.may_search_all() {
                Some((Rc::clone(&start.fd), start.tree, start.guest.to_vec()))
            } else {
                match self.quick(asker, &start, parent, flags) {
                    Quick::Opened(fd, tree) => {
                        Some((Rc::new(fd), tree, self.route(&start, parent).guest))
                    }
                    Quick::Failed(errno) => return Err(errno),
                    Quick::Unknown => None,
                }
            };
            if let Some((directory, tree, guest)) = quick {
                return Ok(Slot {
                    directory,
                    tree,
                    guest,
                    name: name.to_vec(),
                    is_directory: path.ends_with(b"/"),
                });
            }
        }
        let found = self.walk(asker, start, path, None)?;
        found.slot.ok_or(Errno::EXIST)
    }

    /// Opens what a path leads to with `flags`, if no link is on it and the asker may search every directory. `flags` make
    /// nothing new; a device or FIFO is the caller's business.
    pub(in crate::sandbox) fn open_quickly(
        &mut self,
        asker: &Asker<'_>,
        at: i32,
        path: &[u8],
        flags: OFlags,
    ) -> Result<Quick, Errno> {
        let start = self.begin(asker, at, path)?;
        Ok(self.quick(asker, &start, path, flags))
    }

    fn begin(&mut self, asker: &Asker<'_>, at: i32, path: &[u8]) -> Result<Start, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        match path.starts_with(b"/") {
            true => Ok(self.root()),
            false => self.start(asker, at),
        }
    }

    /// Follows the text of a path.
    fn route(&self, start: &Start, path: &[u8]) -> Route {
        let mut route = Route {
            tree: start.tree,
            guest: start.guest.to_vec(),
            goes_up: false,
            crosses: false,
            is_directory: true,
        };
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => route.is_directory = true,
                b".." => {
                    route.is_directory = true;
                    route.goes_up = true;
                    if route.guest == self.tree(route.tree).guest && route.tree != 0 {
                        route.crosses = true;
                    }
                    let end = route.guest.iter().rposition(|byte| *byte == b'/');
                    route.guest.truncate(end.unwrap_or(0));
                    if route.crosses {
                        route.tree = self.tree_of(&route.guest).0;
                    }
                }
                name => {
                    route.is_directory = false;
                    route.guest.push(b'/');
                    route.guest.extend_from_slice(name);
                    if let Some(tree) = self.mounted_at(&route.guest) {
                        route.tree = tree;
                        route.crosses = true;
                    }
                }
            }
        }
        route
    }

    fn quick(&self, asker: &Asker<'_>, start: &Start, path: &[u8], flags: OFlags) -> Quick {
        if !asker.who.may_search_all() {
            return Quick::Unknown;
        }
        let route = self.route(start, path);
        let tree = self.tree(route.tree);
        if tree.content == Content::Proc || (route.goes_up && (route.crosses || start.tree != 0)) {
            return Quick::Unknown;
        }
        let mut long;
        let (directory, below): (BorrowedFd<'_>, &[u8]) = if route.goes_up {
            // From the top, where `..` cannot lead out: without links the text of both is the same.
            long = start.guest.to_vec();
            long.push(b'/');
            long.extend_from_slice(path);
            (self.tree(0).fd.as_fd(), &long)
        } else if route.crosses {
            long = route.guest[tree.guest.len()..].to_vec();
            if long.is_empty() && tree.content == Content::File {
                return match route.is_directory {
                    true => Quick::Failed(Errno::NOTDIR),
                    false => match self.reopen(tree.fd.as_fd(), flags) {
                        Ok(fd) => Quick::Opened(fd, route.tree),
                        Err(errno) => Quick::Failed(errno),
                    },
                };
            }
            if route.is_directory {
                long.push(b'/');
            }
            (tree.fd.as_fd(), &long)
        } else {
            (start.fd.as_fd(), path)
        };
        let below = match below.iter().position(|byte| *byte != b'/') {
            Some(first) => &below[first..],
            None => b".",
        };
        if below.len() >= PATH_MAX {
            return Quick::Unknown;
        }
        let resolve = ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | match route.goes_up {
                true => ResolveFlags::IN_ROOT,
                false => ResolveFlags::BENEATH,
            };
        match openat2(
            directory,
            below,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Ok(fd) => Quick::Opened(fd, route.tree),
            // A link was met; or names changed under the kernel's feet.
            Err(Errno::LOOP | Errno::AGAIN | Errno::XDEV) => Quick::Unknown,
            Err(errno) => Quick::Failed(errno),
        }
    }

    /// Goes component by component. `last` is `None` if the last one is not to be looked at.
    fn walk(
        &mut self,
        asker: &Asker<'_>,
        start: Start,
        path: &[u8],
        last: Option<Last>,
    ) -> Result<Found, Errno> {
        let mut here = start;
        let mut rest: Vec<Vec<u8>> = names(path).collect();
        rest.reverse();
        let mut is_directory_wanted = wants_directory(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let is_last = rest.is_empty();
            if name == b".." && !(is_last && last.is_none()) {
                here = self.above(asker, &here)?;
                continue;
            }
            if name.len() > NAME_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            self.may_search(asker, &here)?;
            let slot = |is_directory| Slot {
                directory: Rc::clone(&here.fd),
                tree: here.tree,
                guest: here.guest.to_vec(),
                name: name.clone(),
                is_directory,
            };
            if is_last && last.is_none() {
                return Ok(Found {
                    slot: Some(slot(path.ends_with(b"/"))),
                    node: None,
                });
            }
            let node = match self.child(asker, &here, &name) {
                Err(Errno::NOENT) if is_last => {
                    return Ok(Found {
                        slot: Some(slot(is_directory_wanted)),
                        node: None,
                    });
                }
                other => other?,
            };
            let follow = !is_last || is_directory_wanted || last == Some(Last::Follow);
            if let Some(text) = node.link(follow)? {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                if text.is_empty() {
                    return Err(Errno::NOENT);
                }
                if text.starts_with(b"/") {
                    here = self.root();
                }
                if is_last {
                    is_directory_wanted |= wants_directory(&text);
                }
                let names: Vec<_> = names(&text).collect();
                rest.extend(names.into_iter().rev());
                continue;
            }
            let node = match node {
                // Its text was not taken, so it is followed to the very thing.
                Node::Proc(Entry::Object { path, .. }) if follow => {
                    Node::Opened(self.behind(asker, &path)?)
                }
                node => node,
            };
            if !node.is_directory() {
                if !is_last || is_directory_wanted {
                    return Err(Errno::NOTDIR);
                }
                return Ok(Found {
                    slot: Some(slot(false)),
                    node: Some(node),
                });
            }
            if is_last {
                return Ok(Found {
                    slot: Some(slot(true)),
                    node: Some(node),
                });
            }
            here = self.enter(asker, &here, &name, node)?;
        }
        // The root, or what `..` led to.
        Ok(Found {
            slot: None,
            node: Some(self.node_of(here)?),
        })
    }

    fn may_search(&self, asker: &Asker<'_>, here: &Start) -> Result<(), Errno> {
        if asker.who.may_search_all() || self.tree(here.tree).content == Content::Proc {
            return Ok(());
        }
        let stat = look(here.fd.as_fd())?;
        asker.who.check(&asker.truth.of(&stat), EXECUTE)
    }

    /// Finds one name in a directory.
    fn child(&self, asker: &Asker<'_>, here: &Start, name: &[u8]) -> Result<Node, Errno> {
        let path = join(&here.guest, name);
        if let Some(id) = self.mounted_at(&path) {
            let tree = self.tree(id);
            return Ok(match tree.content {
                Content::Proc => Node::Proc(Entry::Directory { path: Vec::new() }),
                _ => Node::Opened(Opened {
                    fd: Rc::clone(&tree.fd),
                    tree: Some(id),
                    stat: look(tree.fd.as_fd())?,
                }),
            });
        }
        if self.tree(here.tree).content == Content::Proc {
            let below = procfs::below(&here.guest);
            return procfs::step(self, asker, below, name).map(Node::Proc);
        }
        let fd = openat(
            &*here.fd,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = look(fd.as_fd())?;
        Ok(Node::Opened(Opened {
            fd: Rc::new(fd),
            tree: Some(here.tree),
            stat,
        }))
    }

    /// Goes into a directory that was found.
    fn enter(
        &self,
        asker: &Asker<'_>,
        here: &Start,
        name: &[u8],
        node: Node,
    ) -> Result<Start, Errno> {
        Ok(match node {
            Node::Opened(opened) => {
                let guest = match opened.tree {
                    Some(_) if !is_inside_proc(self, here) => join(&here.guest, name),
                    // A link of /proc led there.
                    _ => self.name_of(asker, &opened.fd)?.1,
                };
                Start {
                    tree: self.tree_of(&guest).0,
                    fd: opened.fd,
                    guest: Rc::from(guest),
                }
            }
            Node::Proc(entry) => {
                let path = join(b"/proc", entry.path());
                let path = path.strip_suffix(b"/").unwrap_or(&path);
                Start {
                    fd: Rc::new(procfs::open_directory(self, &entry)?),
                    tree: self.tree_of(b"/proc").0,
                    guest: Rc::from(path),
                }
            }
        })
    }

    /// Returns the directory above.
    fn above(&self, asker: &Asker<'_>, here: &Start) -> Result<Start, Errno> {
        let end = here.guest.iter().rposition(|byte| *byte == b'/');
        self.open_canonical(asker, &here.guest[..end.unwrap_or(0)])
    }

    /// Opens a directory by its canonical path.
    fn open_canonical(&self, asker: &Asker<'_>, path: &[u8]) -> Result<Start, Errno> {
        let (id, below) = self.tree_of(path);
        let tree = self.tree(id);
        let fd = if below.is_empty() {
            Rc::clone(&tree.fd)
        } else if tree.content == Content::Proc {
            let entry = Entry::Directory {
                path: below.to_vec(),
            };
            procfs::check(asker, below)?;
            Rc::new(procfs::open_directory(self, &entry)?)
        } else {
            Rc::new(openat2(
                &*tree.fd,
                below,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            )?)
        };
        Ok(Start {
            fd,
            tree: id,
            guest: Rc::from(path),
        })
    }

    fn node_of(&self, here: Start) -> Result<Node, Errno> {
        if self.tree(here.tree).content == Content::Proc {
            return Ok(Node::Proc(Entry::Directory {
                path: procfs::below(&here.guest).to_vec(),
            }));
        }
        Ok(Node::Opened(Opened {
            stat: look(here.fd.as_fd())?,
            fd: here.fd,
            tree: Some(here.tree),
        }))
    }

    /// Opens what a descriptor of a process leads to; `path` is below /proc.
    pub(in crate::sandbox) fn behind(
        &self,
        asker: &Asker<'_>,
        path: &[u8],
    ) -> Result<Opened, Errno> {
        let fd = openat(
            &**self.proc(),
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = look(fd.as_fd())?;
        let tree = match self.tree_that_is(&stat) {
            Some(tree) => Some(tree),
            None => self.name_of(asker, &fd).ok().map(|(tree, _)| tree),
        };
        Ok(Opened {
            fd: Rc::new(fd),
            tree,
            stat,
        })
    }
}

impl Node {
    /// Returns the text of a link; `None` for what is none, or is not to be followed.
    fn link(&self, follow: bool) -> Result<Option<Vec<u8>>, Errno> {
        if !follow {
            return Ok(None);
        }
        match self {
            Node::Opened(opened) if is_link(&opened.stat) => {
                Ok(Some(readlinkat(&*opened.fd, c"", Vec::new())?.into_bytes()))
            }
            Node::Proc(Entry::Link { text, .. }) => Ok(Some(text.clone())),
            _ => Ok(None),
        }
    }

    pub(in crate::sandbox) fn is_directory(&self) -> bool {
        match self {
            Node::Opened(opened) => is_directory(&opened.stat),
            Node::Proc(entry) => matches!(entry, Entry::Directory { .. }),
        }
    }
}

impl Opened {
    pub(in crate::sandbox) fn is_link(&self) -> bool {
        is_link(&self.stat)
    }

    pub(in crate::sandbox) fn is_directory(&self) -> bool {
        is_directory(&self.stat)
    }
}

fn is_inside_proc(guest: &Guest, here: &Start) -> bool {
    guest.tree(here.tree).content == Content::Proc
}

/// Returns what a descriptor shows, with all that the ledger goes by.
pub(in crate::sandbox) fn look(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    statx(
        fd,
        c"",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}

fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
}

fn wants_directory(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.ends_with(b"/.") || path == b"."
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    [directory, b"/", name].concat()
}

/// Splits a path that ends with a plain name into what is before it and the name.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = &path[..end];
    let at = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    let (parent, name) = path.split_at(at);
    (name != b"." && name != b"..").then_some((parent, name))
}
