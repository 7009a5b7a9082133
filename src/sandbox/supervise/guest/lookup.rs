//! Looking paths up.
//!
//! A path is a directory and a name in it. Directories are found once, by the words that led there: in one `openat2` if those
//! meet no link, since then the words alone say which trees they go through, else component by component. What is not a plain
//! name in a plain directory goes component by component too.

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
use super::directories::{Parents, Start};
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
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is what is nearly always found"
)]
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

/// A plain name in a directory, on which nothing is mounted.
#[derive(Debug)]
pub(in crate::sandbox) struct Near<'p> {
    pub(in crate::sandbox) directory: Start,
    pub(in crate::sandbox) name: &'p [u8],
}

/// The quick way's answer.
#[derive(Debug)]
enum Quick {
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
        if let Some(near) = self.near(asker, at, path)? {
            let fd = openat(
                &*near.directory.fd,
                near.name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let stat = look(fd.as_fd())?;
            if last == Last::Keep || !is_link(&stat) {
                return Ok(Node::Opened(Opened {
                    fd: Rc::new(fd),
                    tree: Some(near.directory.tree),
                    stat,
                }));
            }
        }
        let start = self.begin(asker, at, path)?;
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
            if name.len() > NAME_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            let directory = self.parent(asker, &start, parent)?;
            return Ok(Slot {
                directory: directory.fd,
                tree: directory.tree,
                guest: directory.guest.to_vec(),
                name: name.to_vec(),
                is_directory: path.ends_with(b"/"),
            });
        }
        let found = self.walk(asker, start, path, None)?;
        found.slot.ok_or(Errno::EXIST)
    }

    /// Finds the directory of a path that ends with a plain name, on which nothing is mounted; `None` for other paths.
    pub(in crate::sandbox) fn near<'p>(
        &mut self,
        asker: &Asker<'_>,
        at: i32,
        path: &'p [u8],
    ) -> Result<Option<Near<'p>>, Errno> {
        let start = self.begin(asker, at, path)?;
        let Some((parent, name)) = split(path).filter(|_| !path.ends_with(b"/")) else {
            return Ok(None);
        };
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let directory = self.parent(asker, &start, parent)?;
        let is_plain = self.tree(directory.tree).content == Content::Directory
            && !self.is_mounted_in(&directory.guest, name);
        Ok(is_plain.then_some(Near { directory, name }))
    }

    /// Finds a directory from another one, which the asker may search.
    pub(super) fn parent(
        &mut self,
        asker: &Asker<'_>,
        start: &Start,
        text: &[u8],
    ) -> Result<Start, Errno> {
        if text.is_empty() {
            self.may_search(asker, start)?;
            return Ok(start.clone());
        }
        let key = Parents::key(&asker.who, start, text);
        if let Some(known) = self.parents.get(&key) {
            return Ok(known);
        }
        let (directory, has_links) = self.directory(asker, start, text)?;
        self.may_search(asker, &directory)?;
        // Processes come and go by themselves.
        if self.tree(directory.tree).content != Content::Proc {
            self.parents.keep(key, &directory, has_links);
        }
        Ok(directory)
    }

    /// Finds a directory; tells whether a link may have led there.
    fn directory(
        &mut self,
        asker: &Asker<'_>,
        start: &Start,
        text: &[u8],
    ) -> Result<(Start, bool), Errno> {
        match self.quick(asker, start, text) {
            Quick::Opened(fd, tree) => {
                let guest = self.route(start, text).guest;
                let directory = Start {
                    fd: Rc::new(fd),
                    tree,
                    guest: Rc::from(guest),
                };
                return Ok((directory, false));
            }
            Quick::Failed(errno) => return Err(errno),
            Quick::Unknown => {}
        }
        let found = self.walk(asker, start.clone(), text, Some(Last::Follow))?;
        let directory = match found.node.ok_or(Errno::NOENT)? {
            node if !node.is_directory() => return Err(Errno::NOTDIR),
            Node::Opened(opened) => {
                let (tree, guest) = match found.slot {
                    Some(slot) if self.is_plain_in(&slot) => {
                        let path = slot.path();
                        (self.tree_of(&path).0, path)
                    }
                    _ => self.name_of(asker, &opened.fd)?,
                };
                Start {
                    fd: opened.fd,
                    tree,
                    guest: Rc::from(guest),
                }
            }
            Node::Proc(entry) => self.proc_directory(&entry)?,
        };
        Ok((directory, true))
    }

    /// Tells whether what is in a slot is named by it: a link of /proc leads elsewhere.
    fn is_plain_in(&self, slot: &Slot) -> bool {
        self.tree(slot.tree).content != Content::Proc
    }

    fn proc_directory(&self, entry: &Entry) -> Result<Start, Errno> {
        let path = join(b"/proc", entry.path());
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        Ok(Start {
            fd: Rc::new(procfs::open_directory(self, entry)?),
            tree: self.tree_of(b"/proc").0,
            guest: Rc::from(path),
        })
    }

    pub(super) fn begin(
        &mut self,
        asker: &Asker<'_>,
        at: i32,
        path: &[u8],
    ) -> Result<Start, Errno> {
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

    /// Opens a directory in one step, if no link is on the way and the asker may search all of it.
    fn quick(&self, asker: &Asker<'_>, start: &Start, path: &[u8]) -> Quick {
        if !asker.who.may_search_all() {
            return Quick::Unknown;
        }
        let route = self.route(start, path);
        let tree = self.tree(route.tree);
        if tree.content != Content::Directory
            || (route.goes_up && (route.crosses || start.tree != 0))
        {
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
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat2(directory, below, flags, Mode::empty(), resolve) {
            Ok(fd) => Quick::Opened(fd, route.tree),
            // A link was met, the last name may be one; or names changed under the kernel's feet.
            Err(Errno::LOOP | Errno::NOTDIR | Errno::AGAIN | Errno::XDEV) => Quick::Unknown,
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
            Node::Proc(entry) => self.proc_directory(&entry)?,
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
        if let Some((fd, tree)) = self.token(&stat) {
            return Ok(Opened {
                stat: look(fd.as_fd())?,
                fd,
                tree,
            });
        }
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

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    [directory, b"/", name].concat()
}

/// Splits a path that ends with a plain name into what is before it and the name.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = &path[..end];
    let at = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    let (parent, name) = path.split_at(at);
    (name != b"." && name != b"..").then_some((parent, name))
}
