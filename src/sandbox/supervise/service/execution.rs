//! The calls whose arguments are changed: execve, execveat and chdir.
//!
//! The thread stands at the call. What it asked for is found in the root, and the call gets the host's path for it, with the
//! arguments that [`exec`](super::super::exec) plans: a [`Replacement`], or a descriptor where the kernel has no path.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::vocab::FileId;

use super::super::elf::{self, Program, SCRIPT_HEAD};
use super::super::exec::{self, Files, NAME_OPTION, Way};
use super::super::family;
use super::super::guest::{Last, Native, Node, Opened};
use super::super::identity::{Executable, FileCapabilities};
use super::super::memory::Memory;
use super::super::permission::{EXECUTE, file_id};
use super::super::supervision::{Caller, Supervision};
use super::Path;
use super::detour::Goal;
use super::follow::Executing;
use super::replacement::Replacement;

/// More pointers than any call can have: each points to a byte at least, and all are limited to a quarter of the stack.
const MOST_ARGUMENTS: usize = 1 << 20;
/// Longest argument with its NUL, the kernel's limit.
const LONGEST_ARGUMENT: usize = 131_072;
/// Loaders are smaller than this.
const LARGEST_LOADER: u64 = 16 << 20;
/// What is known of programs.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Whether a loader knows [`NAME_OPTION`], by file and time of change.
    loaders: HashMap<(FileId, i64, u32), bool>,
    /// Copies of programs that name their loader by its path on the host.
    copies: HashMap<(FileId, i64, u32), Vec<u8>>,
    made: u32,
}

/// What becomes of a call.
pub(super) enum Next {
    /// The kernel makes it as it is.
    Same(Option<Executing>),
    Other(Replacement),
    /// The kernel has no path for what is meant.
    ByDescriptor(OwnedFd, Goal),
}

impl Supervision {
    pub(super) fn chdir(&mut self, caller: &Caller) -> Result<Next, Errno> {
        let path = Path {
            at: libc::AT_FDCWD,
            address: caller.arguments[0],
        };
        let is_inside = self.service().guest.is_root_directory();
        if is_inside {
            let text = caller.memory().path(path.address)?;
            let (guest, asker) = self.scene(caller)?;
            if asker.who.may_search_all()
                && guest
                    .natively(&asker, path.at, text.to_bytes(), Last::Follow)
                    .is_some()
            {
                return Ok(Next::Same(None));
            }
        }
        let node = self.find(caller, path, 0)?;
        if !node.is_directory() {
            return Err(Errno::NOTDIR);
        }
        let fd = match node {
            Node::Opened(opened) => {
                let seen = self.truth().of(&opened.stat);
                self.credentials(caller)?.check(&seen, EXECUTE)?;
                opened.fd
            }
            Node::Proc(entry) => {
                let guest = &self.service().guest;
                super::super::procfs::open_directory(guest, &entry)?.into()
            }
        };
        let guest = &self.service().guest;
        let host = guest.path_of_descriptor(fd.as_fd())?;
        let path = match guest.guest_of(&host) {
            _ if !is_inside => host,
            Some((0, path)) if path.is_empty() => b"/".to_vec(),
            Some((0, path)) if !is_deleted(&path) => path,
            _ => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = guest.reopen(fd.as_fd(), flags)?;
                return Ok(Next::ByDescriptor(fd, Goal::Directory));
            }
        };
        Ok(Next::Other(Replacement {
            path: host_path(path)?,
            path_at: 0,
            arguments: None,
            then: None,
            descriptor: None,
        }))
    }

    pub(super) fn execve(
        &mut self,
        caller: &Caller,
        path: Path,
        arguments: u64,
        flags: u32,
        path_at: usize,
    ) -> Result<Next, Errno> {
        let known = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
        if flags & !known.cast_unsigned() != 0 {
            return Err(Errno::INVAL);
        }
        let memory = caller.memory();
        let opened = match self.find(caller, path, flags)? {
            Node::Opened(opened) if opened.is_link() => return Err(Errno::LOOP),
            Node::Opened(opened) => opened,
            Node::Proc(_) => return Err(Errno::ACCESS),
        };
        let called = match memory.path(path.address) {
            Ok(text) if text.is_empty() => format!("/dev/fd/{}", path.at).into_bytes(),
            Ok(text) if path.at >= 0 && !text.to_bytes().starts_with(b"/") => {
                let start = format!("/dev/fd/{}/", path.at).into_bytes();
                [&start, text.to_bytes()].concat()
            }
            Ok(text) => text.into_bytes(),
            // An address of nothing, with a descriptor in its place.
            Err(_) => format!("/dev/fd/{}", path.at).into_bytes(),
        };
        let pointers = pointers(memory, arguments)?;
        let name = match pointers.first() {
            Some(first) => memory
                .text(*first, LONGEST_ARGUMENT)?
                .ok_or(Errno::TOOBIG)?
                .into_bytes(),
            None => Vec::new(),
        };
        let file = self.executable(caller, &opened)?;
        let (guest_path, host) = (file.guest.clone(), file.host.clone());
        let is_foreign = file.program == Program::Foreign;
        let mut lookup = Lookup::new(self, caller);
        let plan = exec::plan(&called, &name, file, &mut lookup);
        let all_native = lookup.all_native;
        if is_foreign {
            self.say_foreign(caller, &guest_path);
        }
        let plan = plan?;
        let who = self.credentials(caller)?.execute(&plan.rights)?;
        let rest = pointers.get(1..).unwrap_or_default().to_vec();
        let arguments = plan.arguments.map(|first| (first, rest));
        let then = Some(Executing {
            executable: family::Executable {
                path: plan.guest.into(),
                loaders_arguments: if plan.by_loader { 3 } else { 0 },
            },
            who,
        });
        let other = |path: Vec<u8>, path_at| {
            Ok::<_, Errno>(Replacement {
                path: host_path(path)?,
                path_at,
                arguments,
                then: None,
                descriptor: None,
            })
        };
        if !self.service().guest.is_root_directory() {
            let replacement = other(plan.host, path_at)?;
            return Ok(Next::Other(Replacement {
                then,
                ..replacement
            }));
        }
        let program = match plan.host == host {
            true => opened,
            false => Lookup::new(self, caller).opened(&plan.host)?,
        };
        let is_on_disk = !plan.by_loader && program.tree == Some(0) && !is_deleted(&plan.host);
        if all_native && !plan.by_loader && self.is_called_natively(caller, path) {
            return Ok(Next::Same(then));
        }
        if is_on_disk {
            let replacement = other(plan.host, path_at)?;
            return Ok(Next::Other(Replacement {
                then,
                ..replacement
            }));
        }
        let guest = &self.service().guest;
        let fd = guest.reopen(program.fd.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK)?;
        let replacement = other(Vec::new(), 1)?;
        Ok(Next::ByDescriptor(
            fd,
            Goal::Program(Box::new(Replacement {
                then,
                ..replacement
            })),
        ))
    }

    /// Tells whether the kernel finds the program that a call names.
    fn is_called_natively(&mut self, caller: &Caller, path: Path) -> bool {
        let Ok(text) = caller.memory().path(path.address) else {
            return false;
        };
        let Ok((guest, asker)) = self.scene(caller) else {
            return false;
        };
        // A descriptor is the same for both.
        text.is_empty()
            || matches!(
                guest.natively(&asker, path.at, text.to_bytes(), Last::Follow),
                Some(Native::File(_))
            )
    }

    /// Tells on the caller's own standard error what "exec format error" does not.
    fn say_foreign(&mut self, caller: &Caller, path: &[u8]) {
        let place = format!("{}/fd/2", caller.thread);
        let proc = self.service().guest.proc().clone();
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY;
        let Ok(fd) = openat(&*proc, place, flags | OFlags::CLOEXEC, Mode::empty()) else {
            return;
        };
        let text = format!(
            "builder: `{}` is a program of another architecture, 32 bits wide perhaps, which cannot run in the sandbox `{}`\n",
            String::from_utf8_lossy(path),
            match self.service().guest.is_root_directory() {
                true => "chroot",
                false => "paths",
            }
        );
        // Whoever closed it did not want to know.
        rustix::io::write(&fd, text.as_bytes()).ok();
    }

    /// Looks into a file that the caller wants to execute.
    fn executable(&mut self, caller: &Caller, opened: &Opened) -> Result<exec::File, Errno> {
        let seen = self.truth().of(&opened.stat);
        if seen.mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Errno::ACCESS);
        }
        self.credentials(caller)?.check(&seen, EXECUTE)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let guest = &self.service().guest;
        let fd = guest.reopen(opened.fd.as_fd(), flags)?;
        let host = guest.path_of_descriptor(opened.fd.as_fd())?;
        let named = match opened.tree {
            Some(_) if !host.ends_with(b" (deleted)") => guest.guest_of(&host),
            _ => None,
        };
        let file = File::from(fd);
        let head = read_at(&file, 0, SCRIPT_HEAD)?;
        let program = elf::recognise(&head, |at, length| read_at(&file, at, length))?;
        let rights = Executable {
            uid: seen.uid,
            gid: seen.gid,
            mode: seen.mode & 0o7777,
            capabilities: self
                .files
                .ledger
                .get(&file_id(&opened.stat))
                .and_then(|entry| entry.xattrs.get(&b"security.capability"[..]))
                .and_then(|value| FileCapabilities::parse(value)),
        };
        let is_script = matches!(program, Program::Script { .. });
        let is_inside = self.service().guest.is_root_directory();
        let (guest, host) = match named {
            // The kernel finds it by the same name as everybody, or not by a name.
            Some((_, path)) if is_inside => (path.clone(), path),
            None if is_inside => (host.clone(), host),
            Some((_, path)) => (path, host),
            // The kernel finds it by no name that the caller could not take away before it looks.
            None if is_script => (host.clone(), host),
            None => {
                let copy = self.copy(&opened.stat, &file, None)?;
                (host, copy)
            }
        };
        Ok(exec::File {
            guest,
            host,
            program,
            rights,
            id: (opened.tree, opened.stat),
        })
    }

    /// Copies a program to where only the supervisor writes, with another loader perhaps; returns the copy's path.
    fn copy(
        &mut self,
        stat: &rustix::fs::Statx,
        file: &File,
        loader: Option<(&elf::Loader, &[u8])>,
    ) -> Result<Vec<u8>, Errno> {
        let changed = (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
        let key = (file_id(stat), changed.0, changed.1);
        if let Some(copy) = self.service().programs.copies.get(&key) {
            return Ok(copy.clone());
        }
        let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let service = self.service();
        service.programs.made += 1;
        let name = format!("program-{}", service.programs.made);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o755);
        let copy = File::from(openat(&service.scratch, name.as_str(), flags, mode)?);
        let mut from = file.try_clone().map_err(io)?;
        std::io::Seek::rewind(&mut from).map_err(io)?;
        if rustix::fs::ioctl_ficlone(&copy, &from).is_err() {
            std::io::copy(&mut from, &mut &copy).map_err(io)?;
        }
        if let Some((loader, path)) = loader {
            let length = copy.metadata().map_err(io)?.len();
            let header = read_at(&copy, loader.header_at, elf::program_header_size())?;
            let writes = elf::rename_loader(loader, length, &header, path).ok_or(Errno::NOEXEC)?;
            for (at, bytes) in writes {
                copy.write_all_at(&bytes, at).map_err(io)?;
            }
        }
        let path = service.guest.path_of_descriptor(copy.as_fd())?;
        // Closed for writing, or it could not be executed.
        drop(copy);
        service.programs.copies.insert(key, path.clone());
        Ok(path)
    }

    fn knows_option(&mut self, opened: &Opened) -> Result<bool, Errno> {
        let stat = &opened.stat;
        let key = (file_id(stat), stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
        let service = self.service();
        if let Some(known) = service.programs.loaders.get(&key) {
            return Ok(*known);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd: OwnedFd = service.guest.reopen(opened.fd.as_fd(), flags)?;
        let mut bytes = Vec::new();
        File::from(fd)
            .take(LARGEST_LOADER)
            .read_to_end(&mut bytes)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        // musl has the option's name without the dashes.
        let option = &NAME_OPTION[2..];
        let knows = bytes
            .windows(option.len() + 1)
            .any(|window| window.starts_with(option) && window.ends_with(b"\0"));
        service.programs.loaders.insert(key, knows);
        Ok(knows)
    }
}

/// Looks files up for one call.
struct Lookup<'a> {
    supervision: &'a mut Supervision,
    caller: &'a Caller,
    /// Whatever was looked up the kernel finds by itself.
    all_native: bool,
}

impl<'a> Lookup<'a> {
    fn new(supervision: &'a mut Supervision, caller: &'a Caller) -> Lookup<'a> {
        Lookup {
            supervision,
            caller,
            all_native: true,
        }
    }

    fn is_native(&mut self, path: &[u8]) -> bool {
        let Ok((guest, asker)) = self.supervision.scene(self.caller) else {
            return false;
        };
        let found = guest.natively(&asker, libc::AT_FDCWD, path, Last::Follow);
        matches!(found, Some(Native::File(_)))
    }

    fn opened(&mut self, path: &[u8]) -> Result<Opened, Errno> {
        let (guest, asker) = self.supervision.scene(self.caller)?;
        match guest.find(&asker, libc::AT_FDCWD, path, Last::Follow)? {
            Node::Opened(opened) => Ok(opened),
            Node::Proc(_) => Err(Errno::ACCESS),
        }
    }
}

impl Files for Lookup<'_> {
    fn find(&mut self, path: &[u8]) -> Result<exec::File, Errno> {
        let opened = self.opened(path)?;
        if self.supervision.service().guest.is_root_directory() {
            self.all_native &= self.is_native(path);
        }
        self.supervision.executable(self.caller, &opened)
    }

    fn way(&mut self, file: &exec::File) -> Result<Way, Errno> {
        let Program::Dynamic(loader) = &file.program else {
            return Err(Errno::NOEXEC);
        };
        let opened = self.opened(&loader.path)?;
        let seen = self.supervision.truth().of(&opened.stat);
        if seen.mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Errno::ACCESS);
        }
        self.supervision
            .credentials(self.caller)?
            .check(&seen, EXECUTE)?;
        if self.supervision.service().guest.is_root_directory() {
            if self.is_native(&loader.path) {
                return Ok(Way::Copy(file.host.clone()));
            }
            return match has_name(file) && self.supervision.knows_option(&opened)? {
                true => Ok(Way::Loader(loader.path.clone())),
                false => Err(Errno::NOEXEC),
            };
        }
        let guest = &self.supervision.service().guest;
        let host = guest.path_of_descriptor(opened.fd.as_fd())?;
        // What has no name of its own in the root cannot be named to the loader either.
        let is_named = has_name(file);
        if is_named && self.supervision.knows_option(&opened)? {
            return Ok(Way::Loader(host));
        }
        let program = File::open(std::ffi::OsStr::new(
            std::str::from_utf8(&file.host).map_err(|_| Errno::NOENT)?,
        ))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let mut stat = file.id.1;
        if !is_named {
            // The copy without the loader's name is another file.
            stat = super::super::guest::look(program.as_fd())?;
        }
        self.supervision
            .copy(&stat, &program, Some((loader, &host)))
            .map(Way::Copy)
    }
}

fn has_name(file: &exec::File) -> bool {
    file.id.0.is_some() && file.guest.starts_with(b"/") && !is_deleted(&file.guest)
}

/// Tells whether the kernel says of a file that it has no name any more.
fn is_deleted(path: &[u8]) -> bool {
    path.ends_with(b" (deleted)")
}

/// Reads a list of pointers that ends with one to nothing.
fn pointers(memory: Memory, address: u64) -> Result<Vec<u64>, Errno> {
    const PAGE: u64 = 4096;
    let mut pointers = Vec::new();
    if address == 0 {
        return Ok(pointers);
    }
    let mut at = address;
    while pointers.len() < MOST_ARGUMENTS {
        // To the end of the page, after which there may be nothing; a pointer across it is read with what follows.
        let mut count = ((PAGE - at % PAGE) / 8).clamp(1, 128) as usize;
        if pointers.is_empty() {
            count = count.min(16);
        }
        let mut bytes = vec![0; 8 * count];
        memory.read(at, &mut bytes)?;
        for pointer in bytes.as_chunks().0 {
            match u64::from_ne_bytes(*pointer) {
                0 => return Ok(pointers),
                pointer => pointers.push(pointer),
            }
        }
        at = at.checked_add(8 * count as u64).ok_or(Errno::FAULT)?;
    }
    Err(Errno::TOOBIG)
}

fn host_path(path: Vec<u8>) -> Result<CString, Errno> {
    const PATH_MAX: usize = 4096;
    if path.len() >= PATH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    CString::new(path).map_err(|_| Errno::INVAL)
}

fn read_at(file: &File, at: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let Some(at) = at.checked_add(filled as u64) else {
            break;
        };
        match file.read_at(&mut bytes[filled..], at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            // An offset that no file has.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
