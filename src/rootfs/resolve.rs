//! Paths resolved beneath a root: by `openat2` where the kernel has it, else component by component.
//!
//! In: a root's file descriptor and a path of bytes from an image or archive. Out: a descriptor. Links are followed as a
//! process with that root would follow them: absolute ones start at the root, `..` stops there, magic links of /proc are
//! refused. The walk by hand serves three cases that `openat2` cannot: no such system call (old seccomp profiles), paths
//! longer than PATH_MAX, and making what is missing on the way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::stat::{FileKind, Stat};

/// The kernel's limit for a path in one call, its NUL included.
const PATH_MAX: usize = 4096;
/// Links that may be followed for one path; the kernel's number.
const MAX_LINKS: u32 = 40;
/// `openat2` gives up when anything on the machine is renamed while it goes through `..`; it asks to be called again.
const ATTEMPTS: u32 = 64;

/// A directory to work beneath, not to read.
pub(super) const PATH_DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A directory to read, itself no link.
pub(super) const READ_DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens `path` beneath `root`; `O_NOFOLLOW` in `flags` is about the last component only.
pub(super) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let asked: &[u8] = if path.is_empty() { b"." } else { path };
    if asked.len() < PATH_MAX && has_openat2() {
        for _ in 0..ATTEMPTS {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(root, asked, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => continue,
                Err(Errno::NAMETOOLONG) => break,
                other => return other.map_err(io::Error::from),
            }
        }
    }
    open_by_walking(root, path, flags)
}

/// Opens the directory `path` beneath `root`, where no component may be a link. Any length.
pub(super) fn open_directory_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> io::Result<OwnedFd> {
    let flags = flags | READ_DIRECTORY;
    let mut at = rustix::fs::openat(root, ".", PATH_DIRECTORY, Mode::empty())?;
    let mut components = path
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
        .peekable();
    if components.peek().is_none() {
        return Ok(rustix::fs::openat(root, ".", flags, Mode::empty())?);
    }
    while let Some(name) = components.next() {
        let flags = match components.peek() {
            Some(_) => PATH_DIRECTORY | OFlags::NOFOLLOW,
            None => flags,
        };
        at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
    }
    Ok(at)
}

pub(super) fn open_by_walking(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> io::Result<OwnedFd> {
    let mut walker = Walker::new(root);
    let end = walker
        .go(path, !flags.contains(OFlags::NOFOLLOW), &mut |_, _, _| {
            Ok(false)
        })
        .map_err(|refused| refused.source)?;
    let name: &[u8] = match &end {
        End::Directory => b".",
        End::Other(name) => name,
    };
    // The last component is known to be no link, or a link that is not to be followed.
    Ok(rustix::fs::openat(
        walker.directory(),
        name,
        flags | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

fn has_openat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let probe = rustix::fs::openat2(
            rustix::fs::CWD,
            "/",
            PATH_DIRECTORY,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        );
        // Filters answer EPERM for what they do not know, kernels ENOSYS.
        !matches!(probe, Err(Errno::NOSYS | Errno::PERM))
    })
}

/// Where a walk ended: in the directory it stands in, or at a name there that is no directory.
pub(super) enum End {
    Directory,
    Other(Vec<u8>),
}

/// Why a walk stopped, and where.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) path: Vec<u8>,
    pub(super) source: io::Error,
}

/// What is where a directory is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Nothing,
    /// A deletion mark of overlayfs.
    Whiteout,
}

/// Is asked for a directory of that name where the walk stands; says whether it is there now.
pub(super) type Make<'m, 'a> = dyn FnMut(&Walker<'a>, &[u8], Obstacle) -> io::Result<bool> + 'm;

/// Goes down a path one name at a time and holds every directory on the way, so that `..` is a step back.
pub(super) struct Walker<'a> {
    root: BorrowedFd<'a>,
    stack: Vec<(Vec<u8>, OwnedFd)>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Walker<'a> {
        Walker {
            root,
            stack: Vec::new(),
        }
    }

    /// Returns the directory that the walk stands in.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.stack
            .last()
            .map_or(self.root, |(_, directory)| directory.as_fd())
    }

    /// Returns the path of `name` in the directory that the walk stands in, links resolved.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        for (component, _) in &self.stack {
            path.extend_from_slice(component);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// Goes along `path`. Where a name is missing or deleted, `make` is called with the walk and the name, and says whether
    /// it has made a directory of that name.
    pub(super) fn go(
        &mut self,
        path: &[u8],
        follow_last: bool,
        make: &mut Make<'_, 'a>,
    ) -> Result<End, Refused> {
        let mut links = 0;
        let mut pending = Vec::new();
        push_components(&mut pending, path);
        while let Some(name) = pending.pop() {
            if name == b".." {
                self.stack.pop();
                continue;
            }
            let here = self.directory();
            let mut obstacle = None;
            let stat = match rustix::fs::statat(here, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let stat = Stat::from(stat);
                    if stat.is_whiteout() {
                        obstacle = Some(Obstacle::Whiteout);
                    }
                    Some(stat)
                }
                Err(Errno::NOENT) => {
                    obstacle = Some(Obstacle::Nothing);
                    None
                }
                Err(error) => return Err(self.refused(&name, error.into())),
            };
            if let Some(obstacle) = obstacle {
                match make(self, &name, obstacle) {
                    Ok(true) => {
                        self.enter(name)?;
                        continue;
                    }
                    Ok(false) if stat.is_none() => {
                        return Err(self.refused(&name, Errno::NOENT.into()));
                    }
                    Ok(false) => {}
                    Err(error) => return Err(self.refused(&name, error)),
                }
            }
            match stat.map(|stat| stat.kind) {
                Some(FileKind::Directory) => self.enter(name)?,
                Some(FileKind::Symlink) if follow_last || !pending.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(self.refused(&name, Errno::LOOP.into()));
                    }
                    let target = match rustix::fs::readlinkat(here, &name, Vec::new()) {
                        Ok(target) => target.into_bytes(),
                        Err(error) => return Err(self.refused(&name, error.into())),
                    };
                    if target.first() == Some(&b'/') {
                        self.stack.clear();
                    }
                    push_components(&mut pending, &target);
                }
                _ if pending.is_empty() => return Ok(End::Other(name)),
                _ => return Err(self.refused(&name, Errno::NOTDIR.into())),
            }
        }
        Ok(End::Directory)
    }

    fn enter(&mut self, name: Vec<u8>) -> Result<(), Refused> {
        let flags = PATH_DIRECTORY | OFlags::NOFOLLOW;
        match rustix::fs::openat(self.directory(), &name, flags, Mode::empty()) {
            Ok(directory) => {
                self.stack.push((name, directory));
                Ok(())
            }
            Err(error) => Err(self.refused(&name, error.into())),
        }
    }

    fn refused(&self, name: &[u8], source: io::Error) -> Refused {
        Refused {
            path: self.path_of(name),
            source,
        }
    }
}

/// Puts the components of `path` on a stack, the first on top.
fn push_components(pending: &mut Vec<Vec<u8>>, path: &[u8]) {
    let components = path.split(|&byte| byte == b'/').rev();
    pending.extend(
        components
            .filter(|name| !matches!(*name, b"" | b"."))
            .map(<[u8]>::to_vec),
    );
}

/// Splits a path at its last slash.
pub(super) fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
