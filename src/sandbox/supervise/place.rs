//! From what a caller names to a descriptor: paths are resolved as the caller would resolve them, inside its root.
//!
//! Absolute paths are the kernel's own work (`openat2` with the root as the root). A relative one is resolved below the
//! caller's directory, which most stay in; one that leaves it is walked name by name, since the kernel cannot be told where
//! the root is then. Descriptors are `O_PATH`: nothing is opened that could wait for somebody.
//!
//! Links of /proc that lead elsewhere than their text says are never followed, but for the caller's own: its working directory,
//! its root, its program and its descriptors (`/dev/stdout` is one of them).

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::super::walk::{self, errno};
use super::status::Status;
use super::supervision::{Caller, Supervision};

/// `AT_FDCWD` in the low half of an argument.
pub(super) const HERE: u32 = libc::AT_FDCWD.cast_unsigned();
/// Links on one path, as the kernel counts them.
const LINKS: usize = 40;
/// How often a tree may change under a resolution before it is walked.
const TRIES: usize = 8;

/// What a caller names.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// A descriptor's number, or [`HERE`].
    pub(super) at: u32,
    /// Empty for the descriptor itself.
    pub(super) path: CString,
    pub(super) follow: bool,
}

/// Where something is to be made.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) directory: OwnedFd,
    pub(super) name: CString,
    /// There was a slash after the name.
    pub(super) is_directory: bool,
}

impl Place {
    /// A descriptor itself.
    pub(super) fn descriptor(at: u32) -> Place {
        Place {
            at,
            path: CString::default(),
            follow: false,
        }
    }
}

impl Supervision {
    /// Reads a place from memory; an empty path is one only if `may_be_empty`.
    pub(super) fn read_place(
        &self,
        caller: &Caller,
        at: u32,
        address: u64,
        follow: bool,
        may_be_empty: bool,
    ) -> Result<Place, Errno> {
        let path = match address {
            0 if may_be_empty => CString::default(),
            _ => caller.memory().path(address)?,
        };
        if path.is_empty() && !may_be_empty {
            return Err(Errno::NOENT);
        }
        Ok(Place { at, path, follow })
    }

    /// Opens (`O_PATH`) what a place leads to. The caller is known to be itself when this returns.
    pub(super) fn find_place(&self, caller: &Caller, place: &Place) -> Result<OwnedFd, Errno> {
        let found = self.glimpse(caller, place)?;
        self.is_held(caller)?;
        Ok(found)
    }

    /// Like [`find`](Self::find), for whoever asks by himself whether the caller is still itself.
    pub(super) fn glimpse(&self, caller: &Caller, place: &Place) -> Result<OwnedFd, Errno> {
        match self.resolve(caller, place) {
            // Its own /proc, which this process sees as another's, and the links there.
            Err(Errno::LOOP) => self.walk(caller, place),
            Err(Errno::NOENT) if may_lead_to_proc(&place.path) => self.walk(caller, place),
            other => other,
        }
    }

    /// Finds the directory of a place, whose last name is not looked up. `None` if there is no such name: the root, or dots.
    pub(super) fn find_spot(&self, caller: &Caller, place: &Place) -> Result<Option<Spot>, Errno> {
        let path = place.path.as_bytes();
        let end = path
            .iter()
            .rposition(|byte| *byte != b'/')
            .map_or(0, |at| at + 1);
        let start = path[..end]
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at + 1);
        let name = &path[start..end];
        if matches!(name, b"" | b"." | b"..") {
            return Ok(None);
        }
        let c_string = |bytes: &[u8]| CString::new(bytes).expect("part of a C string");
        let directory = Place {
            at: place.at,
            path: c_string(&path[..start]),
            follow: true,
        };
        Ok(Some(Spot {
            directory: self.find_place(caller, &directory)?,
            name: c_string(name),
            is_directory: end < path.len(),
        }))
    }

    fn resolve(&self, caller: &Caller, place: &Place) -> Result<OwnedFd, Errno> {
        if place.path.is_empty() {
            return self.open_own(caller, place.at);
        }
        let is_absolute = place.path.as_bytes().starts_with(b"/");
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !place.follow {
            flags |= OFlags::NOFOLLOW;
        }
        let attempt = |from: BorrowedFd<'_>, within: ResolveFlags| {
            let resolve = within | ResolveFlags::NO_MAGICLINKS;
            let attempt = || openat2(from, &place.path, flags, Mode::empty(), resolve);
            (0..TRIES)
                .map(|_| attempt())
                .find(|result| !matches!(result, Err(Errno::AGAIN)))
                .unwrap_or(Err(Errno::XDEV))
        };
        let found = if is_absolute {
            match self.own_root(caller)? {
                None => attempt(self.root.as_fd(), ResolveFlags::IN_ROOT),
                Some(root) => attempt(root.as_fd(), ResolveFlags::IN_ROOT),
            }
        } else {
            let base = self.open_own(caller, place.at)?;
            attempt(base.as_fd(), ResolveFlags::BENEATH)
        };
        match found {
            // It leaves its base, or others kept moving things about.
            Err(Errno::XDEV) => self.walk(caller, place),
            other => other,
        }
    }

    /// Opens the caller's working directory or what one of its descriptors is of.
    fn open_own(&self, caller: &Caller, at: u32) -> Result<OwnedFd, Errno> {
        let name = match at {
            HERE => "cwd".to_owned(),
            // No process has so many; the kernel says so in the same words.
            at if at > i32::MAX.cast_unsigned() => return Err(Errno::BADF),
            at => format!("fd/{at}"),
        };
        self.open_in_proc(caller, &name)
            .map_err(|errno| match errno {
                Errno::NOENT => Errno::BADF,
                other => other,
            })
    }

    fn open_in_proc(&self, caller: &Caller, name: &str) -> Result<OwnedFd, Errno> {
        let path = format!("{}/{name}", caller.thread);
        openat(
            &self.proc,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    /// Returns the caller's root, if it can be another than the command's.
    fn own_root(&self, caller: &Caller) -> Result<Option<OwnedFd>, Errno> {
        match self.has_other_roots {
            false => Ok(None),
            true => self.open_in_proc(caller, "root").map(Some),
        }
    }

    /// Resolves name by name.
    fn walk(&self, caller: &Caller, place: &Place) -> Result<OwnedFd, Errno> {
        let root = match self.own_root(caller)? {
            Some(root) => root,
            None => self.root.try_clone().map_err(errno)?,
        };
        let root_id = Status::of(&root)?.id();
        let path = place.path.as_bytes();
        let mut here = match path.starts_with(b"/") {
            true => root.try_clone().map_err(errno)?,
            false => self.open_own(caller, place.at)?,
        };
        let must_be_directory = path.ends_with(b"/");
        let mut rest: VecDeque<Vec<u8>> = names(path).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                if Status::of(&here)?.id() != root_id {
                    here = open(here.as_fd(), c"..", true)?;
                }
                continue;
            }
            let is_in_proc = Some(Status::of(&here)?.device()) == self.proc_device;
            if is_in_proc && matches!(&name[..], b"self" | b"thread-self") {
                here = self.own_proc(caller, &mut rest)?;
                continue;
            }
            let name = CString::new(name).map_err(|_| Errno::INVAL)?;
            let next = open(here.as_fd(), &name, false)?;
            let is_last = rest.is_empty() && !must_be_directory;
            if !Status::of(&next)?.is_link() || (is_last && !place.follow) {
                here = next;
                continue;
            }
            links += 1;
            if links > LINKS || is_in_proc {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(&next, c"", Vec::new())?.into_bytes();
            if target.starts_with(b"/") {
                here = root.try_clone().map_err(errno)?;
            }
            for part in names(&target).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(part);
            }
        }
        if must_be_directory && !Status::of(&here)?.is_directory() {
            return Err(Errno::NOTDIR);
        }
        Ok(here)
    }

    /// Opens what a link of the caller's own directory in /proc leads to.
    fn own_proc(&self, caller: &Caller, rest: &mut VecDeque<Vec<u8>>) -> Result<OwnedFd, Errno> {
        let what = rest.pop_front().ok_or(Errno::LOOP)?;
        match &what[..] {
            b"cwd" | b"root" | b"exe" => {
                let name = std::str::from_utf8(&what).expect("one of three words");
                self.open_in_proc(caller, name)
            }
            b"fd" => {
                let number = rest.pop_front().ok_or(Errno::LOOP)?;
                let number = std::str::from_utf8(&number)
                    .ok()
                    .and_then(|number| number.parse::<u32>().ok())
                    .ok_or(Errno::NOENT)?;
                self.open_in_proc(caller, &format!("fd/{number}"))
            }
            _ => Err(Errno::LOOP),
        }
    }
}

fn open(directory: BorrowedFd<'_>, name: &CStr, is_directory: bool) -> Result<OwnedFd, Errno> {
    if is_directory {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        return openat(directory, name, flags, Mode::empty());
    }
    walk::open(directory, name)
}

/// Tells whether a path that leads nowhere is worth a second look: most do so because nothing is there.
fn may_lead_to_proc(path: &CStr) -> bool {
    let path = path.to_bytes();
    path.starts_with(b"/proc/") || path.starts_with(b"/dev/")
}

fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}
