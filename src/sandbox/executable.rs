//! This program as something to execute that a command cannot write to.
//!
//! Until a command's own program is loaded its process is this program, and `/proc/self/exe`, given as the command or in a
//! `#!` line, is a way back to this program's file; as root, or where the user owns the file, it could be overwritten
//! (CVE-2019-5736). So init is not started from the file itself but from a read-only mount of it, or, where that cannot be,
//! from a sealed copy in memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use super::mount::{Attributes, Mount};

const SELF: &str = "/proc/self/exe";

/// Made at the first use and kept for the life of the process.
static PROTECTED: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Returns a path at which a child of this process can execute this program.
pub(super) fn path() -> io::Result<String> {
    let mut protected = PROTECTED.lock().unwrap_or_else(PoisonError::into_inner);
    let fd = match &mut *protected {
        Some(fd) => fd,
        empty => empty.insert(read_only_mount().or_else(|_| sealed_copy())?),
    };
    Ok(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn read_only_mount() -> io::Result<OwnedFd> {
    // The link leads into the mount namespace that the program was started in; only a file of the present one can be mounted.
    let path = fs::read_link(SELF)?;
    let file = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let (running, found) = (fs::metadata(SELF)?, rustix::fs::fstat(&file)?);
    if (running.dev(), running.ino()) != (found.st_dev, found.st_ino) {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    let mount = Mount::copy(&file, Path::new(""))?;
    mount.restrict(Attributes::MOUNT_ATTR_RDONLY)?;
    Ok(mount.into_fd())
}

fn sealed_copy() -> io::Result<OwnedFd> {
    // Kernels before 6.3 do not know EXEC; from then on a setting may make it necessary.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create(super::role::INIT, flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(super::role::INIT, flags))?;
    let mut copy = File::from(copy);
    io::copy(&mut File::open(SELF)?, &mut copy)?;
    rustix::fs::fcntl_add_seals(
        copy.as_fd(),
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_copy_cannot_be_written() {
        let copy = sealed_copy().unwrap();
        let length = fs::metadata(SELF).unwrap().len();
        assert_eq!(rustix::fs::fstat(&copy).unwrap().st_size as u64, length);
        assert!(rustix::io::pwrite(&copy, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&copy, 0).is_err());
    }
}
