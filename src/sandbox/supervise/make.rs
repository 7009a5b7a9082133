//! The calls that make files, and those that open them for writing.
//!
//! What root makes in an ordinary directory is root's on disk already, and the kernel makes it. What another user makes, or
//! anybody in a directory that gives its group away, is made here and written down; so are devices, as empty regular files. A
//! new file is opened here too and the descriptor handed over: nothing can hold up the opening of a file that did not exist.
//! A file that exists is opened by the kernel, after a look at who asks.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, readlinkat, symlinkat,
};
use rustix::io::Errno;
use rustix::process::umask;

use crate::vocab::DeviceNumber;

use super::change::FILE_CAPABILITIES;
use super::credentials::{Capability, Credentials};
use super::listener::Answer;
use super::ownership::{EXECUTE, Found, READ, WRITE};
use super::place::{Place, Spot};
use super::supervision::{Caller, Supervision};

/// Links that lead to where a file is to be made.
const LINKS: usize = 40;
const SET_GROUP_ID: u32 = 0o2000;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Directory,
    /// With its text at this address.
    Link(u64),
    /// A regular file, FIFO or socket.
    Node(FileType),
    Device(DeviceNumber),
    /// Not a kind of file.
    Nothing,
}

impl Kind {
    /// Decodes what `mknod` is given.
    pub(super) fn node(mode: u32, number: u32) -> Kind {
        let device = |is_block| {
            Kind::Device(DeviceNumber {
                is_block,
                major: number >> 8 & 0xfff,
                minor: number & 0xff | number >> 12 & 0xf_ff00,
            })
        };
        match mode & libc::S_IFMT {
            libc::S_IFCHR => device(false),
            libc::S_IFBLK => device(true),
            libc::S_IFIFO => Kind::Node(FileType::Fifo),
            libc::S_IFSOCK => Kind::Node(FileType::Socket),
            libc::S_IFREG | 0 => Kind::Node(FileType::RegularFile),
            _ => Kind::Nothing,
        }
    }
}

impl Supervision {
    pub(super) fn make(
        &mut self,
        caller: &Caller,
        (at, address): (u32, u64),
        kind: Kind,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        let place = self.read_place(caller, at, address, false, false)?;
        let Ok(Some(spot)) = self.find_spot(caller, &place) else {
            return Ok(Answer::Continue);
        };
        let directory = self.files.look(&spot.directory)?;
        match kind {
            Kind::Nothing => return Ok(Answer::Continue),
            Kind::Device(_) => {}
            _ if is_kernels_to_make(&who, &directory) => return Ok(Answer::Continue),
            _ => {}
        }
        if self.is_kernels(&directory.status) {
            return Ok(Answer::Continue);
        }
        directory.check(&who, WRITE | EXECUTE)?;
        if let Kind::Device(device) = kind {
            // An overlay takes 0:0 for "there is nothing", and does not let anybody make it.
            if !who.may(Capability::Mknod) || device.is_whiteout() {
                return Err(Errno::PERM);
            }
        }
        if spot.is_directory && !matches!(kind, Kind::Directory) {
            return Err(Errno::NOENT);
        }
        let text = match kind {
            Kind::Link(address) => caller.memory().path(address)?,
            _ => CString::default(),
        };
        if matches!(kind, Kind::Link(_)) && text.is_empty() {
            return Err(Errno::NOENT);
        }
        let mask = self.umask_of(caller)?;
        self.is_held(caller)?;
        let at = (&spot.directory, &spot.name);
        with_umask(mask, || {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            match kind {
                Kind::Directory => mkdirat(at.0, at.1, mode),
                Kind::Link(_) => symlinkat(&text, at.0, at.1),
                Kind::Node(kind) => mknodat(at.0, at.1, kind, mode, 0),
                Kind::Device(_) => mknodat(at.0, at.1, FileType::RegularFile, mode, 0),
                Kind::Nothing => Err(Errno::INVAL),
            }
        })?;
        let made = super::super::walk::open(spot.directory.as_fd(), &spot.name)?;
        let device = match kind {
            Kind::Device(device) => Some(device),
            _ => None,
        };
        self.adopt_from(&made, &who, &directory, device)?;
        Ok(Answer::Value(0))
    }

    /// `open` for writing, or of what may have to be made.
    pub(super) fn open_file(
        &mut self,
        caller: &Caller,
        (at, address): (u32, u64),
        flags: u32,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let flags = OFlags::from_bits_retain(flags);
        if flags.contains(OFlags::PATH) {
            return Ok(Answer::Continue);
        }
        let who = self.credentials(caller)?;
        let is_exclusive = flags.contains(OFlags::CREATE | OFlags::EXCL);
        let follow = !flags.contains(OFlags::NOFOLLOW) && !is_exclusive;
        let mut place = self.read_place(caller, at, address, follow, false)?;
        if flags.contains(OFlags::TMPFILE) {
            return self.open_unnamed(caller, &place, &who, flags, mode);
        }
        for _ in 0..LINKS {
            match self.find_place(caller, &place) {
                Ok(_) if is_exclusive => return Ok(Answer::Continue),
                Ok(found) => return self.before_opening(&who, &found, flags),
                Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {}
                // A link of /proc, or something wrong, which the kernel says itself.
                Err(_) => return Ok(Answer::Continue),
            }
            let Ok(Some(spot)) = self.find_spot(caller, &place) else {
                return Ok(Answer::Continue);
            };
            // A link that leads to nothing leads to where it is made.
            if follow && let Ok(link) = super::super::walk::open(spot.directory.as_fd(), &spot.name)
            {
                let text = readlinkat(&link, c"", Vec::new())?;
                place = beside(&place, &text)?;
                continue;
            }
            return self.create_file(caller, &who, &spot, flags, mode);
        }
        Err(Errno::LOOP)
    }

    /// Another name for a file, or a first one. On an overlay it may be known by another number than the first name.
    pub(super) fn make_link(
        &mut self,
        caller: &Caller,
        (old_at, old): (u32, u64),
        follow: bool,
        (new_at, new): (u32, u64),
    ) -> Result<Answer, Errno> {
        if !self.files.has_lower() && !self.files.has_nameless() {
            return Ok(Answer::Continue);
        }
        let old = self.read_place(caller, old_at, old, follow, true)?;
        let Ok(fd) = self.find_place(caller, &old) else {
            return Ok(Answer::Continue);
        };
        let found = self.files.look(&fd)?;
        if !found.is_listed || found.status.is_directory() {
            return Ok(Answer::Continue);
        }
        let new = self.read_place(caller, new_at, new, false, false)?;
        let Ok(Some(spot)) = self.find_spot(caller, &new) else {
            return Ok(Answer::Continue);
        };
        let who = self.credentials(caller)?;
        self.files
            .look(&spot.directory)?
            .check(&who, WRITE | EXECUTE)?;
        let found = self.settle(fd.as_fd())?;
        let of_fd = format!("self/fd/{}", fd.as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        linkat(&self.proc, of_fd, &spot.directory, &spot.name, flags)?;
        let made = super::super::walk::open(spot.directory.as_fd(), &spot.name)?;
        self.files.record(made.as_fd(), found.attributes)?;
        Ok(Answer::Value(0))
    }

    /// Makes and opens a file.
    fn create_file(
        &mut self,
        caller: &Caller,
        who: &Credentials,
        spot: &Spot,
        flags: OFlags,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let directory = self.files.look(&spot.directory)?;
        if spot.is_directory
            || is_kernels_to_make(who, &directory)
            || self.is_kernels(&directory.status)
        {
            return Ok(Answer::Continue);
        }
        directory.check(who, WRITE | EXECUTE)?;
        let mask = self.umask_of(caller)?;
        self.is_held(caller)?;
        let own = flags | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let made = with_umask(mask, || {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            openat(&spot.directory, &spot.name, own, mode)
        });
        let made = match made {
            // Somebody else was quicker: it exists.
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => return Ok(Answer::Continue),
            other => other?,
        };
        self.adopt_from(&made, who, &directory, None)?;
        Ok(Answer::Descriptor {
            fd: made,
            close_on_exec: flags.contains(OFlags::CLOEXEC),
        })
    }

    /// A file without a name, in a directory.
    fn open_unnamed(
        &mut self,
        caller: &Caller,
        place: &Place,
        who: &Credentials,
        flags: OFlags,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let Ok(fd) = self.find_place(caller, place) else {
            return Ok(Answer::Continue);
        };
        let directory = self.files.look(&fd)?;
        if is_kernels_to_make(who, &directory) || !directory.status.is_directory() {
            return Ok(Answer::Continue);
        }
        directory.check(who, WRITE | EXECUTE)?;
        let mask = self.umask_of(caller)?;
        self.is_held(caller)?;
        let made = with_umask(mask, || {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            openat(&fd, c".", flags | OFlags::CLOEXEC, mode)
        })?;
        self.adopt_from(&made, who, &directory, None)?;
        Ok(Answer::Descriptor {
            fd: made,
            close_on_exec: flags.contains(OFlags::CLOEXEC),
        })
    }

    /// A file that exists is about to be opened for writing, or perhaps only for reading if it was there already.
    fn before_opening(
        &mut self,
        who: &Credentials,
        fd: &OwnedFd,
        flags: OFlags,
    ) -> Result<Answer, Errno> {
        let found = self.files.look(fd)?;
        let is_cut = flags.contains(OFlags::TRUNC);
        let want = match flags & OFlags::RWMODE {
            OFlags::WRONLY => WRITE,
            OFlags::RDWR => READ | WRITE,
            _ if is_cut => READ | WRITE,
            _ => READ,
        };
        if self.is_kernels(&found.status) {
            return Ok(Answer::Continue);
        }
        // The root is mounted without devices.
        if found.attributes.device.is_some() {
            return Err(Errno::ACCESS);
        }
        if found.is_listed || !who.makes_plain_files() {
            found.check(who, want)?;
        }
        if want & WRITE == 0 || !found.is_listed || !found.status.is_regular() {
            return Ok(Answer::Continue);
        }
        let found = self.settle(fd.as_fd())?;
        // The kernel takes these from a file that is written to, at the first byte; here it is when it is opened for that.
        let mut file = found.attributes.clone();
        file.xattrs.remove(FILE_CAPABILITIES);
        if !who.may(Capability::Fsetid) {
            file.mode &= !0o4000;
            if file.mode & 0o010 != 0 {
                file.mode &= !SET_GROUP_ID;
            }
        }
        if file != found.attributes {
            self.files.record(fd.as_fd(), file)?;
        }
        Ok(Answer::Continue)
    }

    /// Writes down whose a new file is.
    fn adopt_from(
        &mut self,
        made: &OwnedFd,
        who: &Credentials,
        directory: &Found,
        device: Option<DeviceNumber>,
    ) -> Result<(), Errno> {
        let is_directory = super::status::Status::of(made)?.is_directory();
        let passes_group = directory.attributes.mode & SET_GROUP_ID != 0;
        self.adopt(made.as_fd(), |file| {
            file.uid = who.user.file;
            file.gid = match passes_group {
                true => directory.attributes.gid,
                false => who.group.file,
            };
            file.device = device;
            if is_directory && passes_group {
                file.mode |= SET_GROUP_ID;
            } else if !is_directory
                && file.mode & 0o2010 == 0o2010
                && !who.is_in_group(file.gid)
                && !who.may(Capability::Fsetid)
            {
                file.mode &= !SET_GROUP_ID;
            }
        })
    }

    /// Returns the caller's own mask.
    pub(super) fn umask_of(&self, caller: &Caller) -> Result<u32, Errno> {
        let status = openat(
            &self.proc,
            format!("{}/status", caller.thread),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // It is in the second line, after a name of at most 16 characters, escaped.
        let mut bytes = [0; 256];
        let count = rustix::io::read(&status, &mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..count]);
        text.lines()
            .find_map(|line| line.strip_prefix("Umask:"))
            .and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
            .ok_or(Errno::SRCH)
    }
}

/// Names what a link's text leads to, by the path that led to the link.
fn beside(place: &Place, text: &CStr) -> Result<Place, Errno> {
    let path = place.path.as_bytes();
    let end = match text.to_bytes().starts_with(b"/") {
        true => 0,
        false => path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at + 1),
    };
    let joined = [&path[..end], text.to_bytes()].concat();
    Ok(Place {
        path: CString::new(joined).map_err(|_| Errno::INVAL)?,
        ..place.clone()
    })
}

/// Tells whether what the kernel makes there is what it ought to be.
fn is_kernels_to_make(who: &Credentials, directory: &Found) -> bool {
    who.makes_plain_files()
        && directory.attributes.mode & SET_GROUP_ID == 0
        && who.may(Capability::DacOverride)
}

/// Does something with another process's mask. This process has one thread.
pub(super) fn with_umask<T>(mask: u32, action: impl FnOnce() -> T) -> T {
    let own = umask(Mode::from_raw_mode(mask));
    let done = action();
    umask(own);
    done
}
