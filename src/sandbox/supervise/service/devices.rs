//! Devices: files that stand for the few that every command may use.
//!
//! A command without rights can make no device node; one that it makes, or that was in the image, is an empty file with a note
//! in the ledger. Opening it opens the machine's own device of that number, if it is one of the harmless ones.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Statx, fcntl_setfl, fstat, makedev, mkdirat, openat};
use rustix::io::Errno;

use crate::vocab::{Attributes, DeviceNumber, mode_on_disk};

use super::super::guest::look;
use super::super::listener::Answer;
use super::super::permission::file_id;
use super::super::supervision::{Caller, Supervision};

/// Character devices that are the same for everybody: name, numbers.
pub(in crate::sandbox) const HARMLESS: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("ptmx", 5, 2),
];
/// Terminals, by number.
const TERMINAL: u32 = 136;

/// The terminals that the command has made.
#[derive(Default)]
pub(super) struct Devices {
    terminals: Vec<u32>,
    /// The files that were opened last for each.
    opened: Vec<((u32, u32), Statx)>,
    /// Where they are shown.
    directory: Option<OwnedFd>,
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devices")
            .field("terminals", &self.terminals)
            .finish_non_exhaustive()
    }
}

impl Devices {
    /// Returns the file for which a device was opened: programs look whether both are one.
    pub(super) fn file_of(&self, device: &Statx) -> Option<Statx> {
        let is_device = u32::from(device.stx_mode) & libc::S_IFMT == libc::S_IFCHR;
        let numbers = (device.stx_rdev_major, device.stx_rdev_minor);
        let (_, file) = self
            .opened
            .iter()
            .find(|(other, _)| is_device && *other == numbers)?;
        Some(*file)
    }
}

impl Supervision {
    /// Tells where the command's terminals are to be shown.
    pub(in crate::sandbox) fn show_terminals(&mut self, directory: OwnedFd) {
        self.service().devices.directory = Some(directory);
    }

    /// Notes that a file stands for a device.
    pub(in crate::sandbox) fn is_device(
        &mut self,
        fd: std::os::fd::BorrowedFd<'_>,
        device: DeviceNumber,
        attributes: (u32, u32, u32),
    ) -> Result<(), Errno> {
        let stat = look(fd)?;
        let (uid, gid, mode) = attributes;
        self.files.ledger.insert(
            file_id(&stat),
            Attributes {
                uid,
                gid,
                mode,
                device: Some(device),
                ..Attributes::default()
            },
        );
        Ok(())
    }

    pub(super) fn open_device(
        &mut self,
        caller: &Caller,
        (file, device): (&Statx, DeviceNumber),
        flags: OFlags,
        waits: bool,
        close_on_exec: bool,
    ) -> Result<Answer, Errno> {
        let fd = self.open_real(caller, device, flags)?;
        let numbers = (device.major, device.minor);
        let opened = &mut self.service().devices.opened;
        opened.retain(|(other, _)| *other != numbers);
        opened.push((numbers, *file));
        if waits {
            fcntl_setfl(&fd, flags & OFlags::APPEND)?;
        }
        Ok(Answer::Descriptor { fd, close_on_exec })
    }

    fn open_real(
        &mut self,
        caller: &Caller,
        device: DeviceNumber,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        let numbers = (device.major, device.minor);
        let flags = (flags & (OFlags::RWMODE | OFlags::APPEND))
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let path = match numbers {
            _ if device.is_block => return Err(Errno::ACCESS),
            (TERMINAL, number) if self.service().devices.terminals.contains(&number) => {
                format!("/dev/pts/{number}")
            }
            _ => {
                let (name, ..) = HARMLESS
                    .iter()
                    .find(|(_, major, minor)| (*major, *minor) == numbers)
                    .ok_or(Errno::ACCESS)?;
                format!("/dev/{name}")
            }
        };
        let fd = rustix::fs::open(path.as_str(), flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (stat.st_rdev == makedev(device.major, device.minor));
        if !is_it {
            return Err(Errno::NXIO);
        }
        if numbers == (5, 2) {
            self.show_terminal(caller, &fd)?;
        }
        Ok(fd)
    }

    /// Shows the terminal whose other end was just opened.
    fn show_terminal(&mut self, caller: &Caller, master: &OwnedFd) -> Result<(), Errno> {
        let mut number: libc::c_uint = 0;
        // SAFETY: the kernel writes one number to a live local.
        let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
        if result < 0 {
            return Err(Errno::NXIO);
        }
        let who = self.credentials(caller)?;
        self.service().devices.terminals.push(number);
        let Some(directory) = &self.service().devices.directory else {
            return Ok(());
        };
        let mode = 0o620;
        let shown = openat(
            directory,
            number.to_string(),
            OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(mode_on_disk(mode, false)),
        )?;
        self.is_device(
            shown.as_fd(),
            DeviceNumber {
                is_block: false,
                major: TERMINAL,
                minor: number,
            },
            (who.user.file, who.group.file, mode),
        )
    }
}

/// Makes a directory that may be there already.
pub(super) fn make_directory(at: &OwnedFd, name: &str, mode: u32) -> Result<(), Errno> {
    match mkdirat(at, name, Mode::from_raw_mode(mode)) {
        Err(Errno::EXIST) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    }
}
