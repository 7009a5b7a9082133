//! Landlock: the kernel keeps a command to its own files, where nothing else does.
//!
//! A command in a rung without namespaces is one more process of the user who builds. What it may do to files is decided here
//! for good, before it starts: nothing that is not named can be opened or executed, whatever a supervisor would do about it.
//! Signals and abstract sockets of others are out of reach from Linux 6.12 on.
//!
//! What an older kernel lacks is left out; [`level`] tells which it is.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// What may be done below a directory, or to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Execute and read.
    Execute,
    /// Read and write files, list directories, and execute. Making and removing is not among it.
    Use,
}

impl Access {
    fn rights(self) -> u64 {
        match self {
            Access::Execute => EXECUTE | READ_FILE,
            Access::Use => EXECUTE | READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE,
        }
    }
}

/// The level of Landlock that the kernel has; 0 without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level(pub(super) u32);

impl Level {
    /// TCP can be forbidden.
    const NETWORK: Level = Level(4);
    /// Signals and abstract sockets can be kept inside.
    const SCOPES: Level = Level(6);

    /// Tells whether signals can be kept inside.
    pub(super) fn has_scopes(self) -> bool {
        self >= Level::SCOPES
    }
}

/// Rights over files by the level that introduced them: how many bits are known from it on.
const KNOWN: [(Level, u32); 4] = [
    (Level(1), 13),
    (Level(2), 14),
    (Level(3), 15),
    (Level(5), 16),
];
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const TCP: u64 = 0b11;
const SCOPES: u64 = 0b11;
const RULE_PATH_BENEATH: libc::c_int = 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// Returns what the kernel has.
pub(super) fn level() -> Level {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel reads no attributes.
    let level = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Ruleset>(),
            0,
            VERSION,
        )
    };
    // Unknown, switched off or filtered.
    Level(u32::try_from(level).unwrap_or(0))
}

/// Returns the rights over files that a level knows.
fn known(level: Level) -> u64 {
    let bits = KNOWN
        .iter()
        .rev()
        .find(|(since, _)| level >= *since)
        .map_or(0, |(_, bits)| *bits);
    (1 << bits) - 1
}

/// Keeps this thread and all that it becomes to `allowed`, for good. `without_network` forbids TCP too. Needs
/// no_new_privs. Does nothing on a kernel without Landlock.
pub(super) fn restrict(
    allowed: &[(BorrowedFd<'_>, Access)],
    without_network: bool,
) -> Result<Level, Errno> {
    let level = level();
    if level == Level(0) {
        return Ok(level);
    }
    let ruleset = Ruleset {
        files: known(level),
        network: match without_network && level >= Level::NETWORK {
            true => TCP,
            false => 0,
        },
        scopes: match level.has_scopes() {
            true => SCOPES,
            false => 0,
        },
    };
    // Older kernels know a shorter structure, and take a longer one whose end is zero.
    // SAFETY: the kernel reads as many bytes as the live local has, and writes nothing.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<Ruleset>(),
            0,
        )
    };
    let fd = i32::try_from(made)
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(last_errno)?;
    // SAFETY: the call has just returned this descriptor, which nobody else knows.
    let rules = unsafe { OwnedFd::from_raw_fd(fd) };
    for (tree, access) in allowed {
        let rule = Beneath {
            allowed: access.rights() & ruleset.files,
            parent: tree.as_raw_fd(),
        };
        // SAFETY: the kernel reads one structure, a live local of the layout that the rule's type has.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                rules.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0,
            )
        };
        if added < 0 {
            return Err(last_errno());
        }
    }
    // SAFETY: takes two numbers.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) } {
        0 => Ok(level),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_knows_the_rights_of_those_before() {
        for (level, expected) in [
            (0, 0),
            (1, 0x1fff),
            (2, 0x3fff),
            (3, 0x7fff),
            (4, 0x7fff),
            (5, 0xffff),
            (7, 0xffff),
        ] {
            assert_eq!(known(Level(level)), expected, "{level}");
        }
    }
}
