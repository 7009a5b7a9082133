//! Devices of a command that has real owners but not the power to make devices: root of a user namespace.
//!
//! What it makes is made here as an empty regular file, with the owner and mode that the device would have, and written down;
//! everything that is done to it later the kernel does to that file. Where a name is taken away the entry goes with it, and where
//! it is asked what a file is the number is told, as in the light mode.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, mknodat, openat};
use rustix::io::Errno;

use crate::vocab::Attributes;

use super::listener::Answer;
use super::make::{Kind, with_umask};
use super::place::HERE;
use super::supervision::{Caller, Supervision};
use super::traps::Call;

const SET_GROUP_ID: u32 = 0o2000;
/// CAP_DAC_OVERRIDE and CAP_MKNOD.
const NEEDED: u64 = 1 << 1 | 1 << 27;

/// Who a process is to the kernel.
struct Real {
    uid: u32,
    gid: u32,
    capabilities: u64,
}

impl Supervision {
    pub(super) fn of_devices(&mut self, call: Call, caller: &Caller) -> Result<Answer, Errno> {
        match self.held_for_devices(call, caller) {
            // Who is not let look into a process with other ids (set-id, in a container that has no CAP_SYS_PTRACE) leaves
            // its calls to the kernel. What was refused for another reason the kernel refuses too.
            Err(Errno::FAULT | Errno::PERM | Errno::ACCESS) => Ok(Answer::Continue),
            answer => answer,
        }
    }

    fn held_for_devices(&mut self, call: Call, caller: &Caller) -> Result<Answer, Errno> {
        let (at, address, mode, number) = match call {
            Call::Mknod => (HERE, 0, 1, 2),
            Call::Mknodat => (caller.number(0), 1, 2, 3),
            _ => return self.light(call, caller),
        };
        let (mode, number) = (caller.number(mode), caller.number(number));
        let named = (at, caller.arguments[address]);
        self.make_device(caller, named, Kind::node(mode, number), mode)
    }

    fn make_device(
        &mut self,
        caller: &Caller,
        (at, address): (u32, u64),
        kind: Kind,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let Kind::Device(device) = kind else {
            return Ok(Answer::Continue);
        };
        // An overlay takes 0:0 for "there is nothing", and the kernel says so.
        // Who may not is told by the kernel why.
        let Ok(who) = self.real_credentials(caller) else {
            return Ok(Answer::Continue);
        };
        if device.is_whiteout() || who.capabilities & NEEDED != NEEDED {
            return Ok(Answer::Continue);
        }
        let place = self.read_place(caller, at, address, false, false)?;
        let Ok(Some(spot)) = self.find_spot(caller, &place) else {
            return Ok(Answer::Continue);
        };
        let directory = self.files.look(&spot.directory)?;
        if spot.is_directory || self.is_kernels(&directory.status) {
            return Ok(Answer::Continue);
        }
        let mask = self.umask_of(caller)?;
        self.is_held(caller)?;
        with_umask(mask, || {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            mknodat(&spot.directory, &spot.name, FileType::RegularFile, mode, 0)
        })?;
        let made = super::super::walk::open(spot.directory.as_fd(), &spot.name)?;
        // The directory may have given its group already.
        let keeps_group = directory.status.mode() & SET_GROUP_ID != 0;
        let group = (!keeps_group).then(|| Gid::from_raw(who.gid));
        let owner = Some(Uid::from_raw(who.uid));
        chownat(&made, c"", owner, group, AtFlags::EMPTY_PATH)?;
        let attributes = Attributes {
            device: Some(device),
            ..Attributes::default()
        };
        self.files.record(made.as_fd(), attributes)?;
        Ok(Answer::Value(0))
    }

    fn real_credentials(&self, caller: &Caller) -> Result<Real, Errno> {
        let status = openat(
            &self.proc,
            format!("{}/status", caller.thread),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut bytes = vec![0; 16 << 10];
        let count = rustix::io::read(&status, &mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..count]);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        // Real, effective, saved, and that of the file system.
        let of_files = |name| field(name)?.split_whitespace().nth(3)?.parse().ok();
        let capabilities = || u64::from_str_radix(field("CapEff:")?.trim(), 16).ok();
        let read = || {
            Some(Real {
                uid: of_files("Uid:")?,
                gid: of_files("Gid:")?,
                capabilities: capabilities()?,
            })
        };
        read().ok_or(Errno::SRCH)
    }
}
