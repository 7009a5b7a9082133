//! Emulators for one command, unknown to the rest of the machine.
//!
//! From Linux 6.7 on each user namespace may have a binfmt_misc of its own, and a program is looked up in the nearest one. So
//! the command gets a user namespace, with every id mapped to itself, made when all its mounts are in place; the instance is
//! made by the inner half, inside, and filled and kept by the outer one, outside, since an instance without a mount ends. It is
//! attached nowhere.
//!
//! The host's instance is never written to.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::Pid;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::errand::Errands;
use super::foreign;
use super::mount::{Attributes, Mount};
use super::report::{At, Failure, Stage};

/// An emulator with its architecture.
pub(super) type Registered = (String, OwnedFd);

/// The inner half: moves it into a user namespace in which the emulators work. Everything that needs power over other
/// namespaces, mounts above all, comes before.
pub(super) fn enter(errands: &Errands) -> Result<(), Failure> {
    // A mount namespace too, since only its owner may make a mount.
    // SAFETY: the flags do not contain FILES, the one that the function warns of.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }
        .at(Stage::UserNamespace, "")?;
    errands.map_ids()?;
    let closed = Attributes::MOUNT_ATTR_NOSUID
        | Attributes::MOUNT_ATTR_NODEV
        | Attributes::MOUNT_ATTR_NOEXEC;
    let instance = Mount::create("binfmt_misc", &[], closed).at(Stage::Instance, "")?;
    errands.register(&instance)
}

/// The outer half: maps every id that this process has to itself.
pub(super) fn map_ids(inner: Pid) -> Result<(), Failure> {
    for name in ["uid_map", "gid_map"] {
        let map = || {
            let own = fs::read_to_string(format!("/proc/self/{name}"))?;
            fs::write(
                format!("/proc/{}/{name}", inner.as_raw_pid()),
                identity(&own),
            )
        };
        map().at(Stage::UserNamespace, name)?;
    }
    Ok(())
}

/// The outer half: makes the emulators known. They are opened here and now, by descriptor.
pub(super) fn register(instance: &Mount, emulators: &[Registered]) -> Result<(), Failure> {
    for (architecture, program) in emulators {
        let write = || {
            let register = openat(
                instance,
                "register",
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let path = format!("/proc/self/fd/{}", program.as_raw_fd());
            // The kernel takes an entry in one write, or not at all.
            File::from(register).write_all(foreign::entry(architecture, &path).as_bytes())
        };
        write().at(Stage::Emulator, architecture)?;
    }
    Ok(())
}

/// Returns a map of the ids on the inner side of `map` to themselves, line by line: a line that spans two of them is refused.
pub(super) fn identity(map: &str) -> String {
    map.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (first, count) = (words.next()?, words.nth(1)?);
            Some(format!("{first} {first} {count}\n"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_to_themselves_line_by_line() {
        for (own, expected) in [
            ("         0          0 4294967295\n", "0 0 4294967295\n"),
            (
                "         0       1000          1\n         1     100000      65536\n",
                "0 0 1\n1 1 65536\n",
            ),
        ] {
            assert_eq!(identity(own), expected);
        }
    }
}
