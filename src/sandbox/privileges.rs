//! What power a command keeps.
//!
//! A command in the sandbox: user 0 keeps the capabilities that Docker gives, other users none; set-user-ID programs gain at most the same, since the
//! bounding set holds no others. no_new_privs stays 0, so that `su` and `sudo` work.
//!
//! An insecure command: every user has all that the builder has, in every set.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
/// AUDIT_WRITE and SETFCAP.
const DOCKER: u64 = 0xa804_25fb;

/// Returns what may be kept. Where the root was changed with `chroot`, the power to do that again would lead out of it.
pub(super) fn kept(root_was_pivoted: bool) -> CapabilitySet {
    let mut kept = CapabilitySet::from_bits_retain(DOCKER);
    if !root_was_pivoted {
        kept.remove(CapabilitySet::SYS_CHROOT);
    }
    kept
}

/// Keeps this process and all that it becomes away from abstract sockets of others, which belong to the network and not to the
/// files: some of the machine's daemons listen there and trust whoever is root. Needs CAP_SYS_ADMIN. Kernels before Linux 6.12
/// cannot do it.
pub(super) fn leave_abstract_sockets() -> Result<(), Errno> {
    /// `struct landlock_ruleset_attr`: file system, network, scope.
    const ATTRIBUTES: [u64; 3] = [0, 0, LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET];
    const LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    // SAFETY: the kernel reads as many bytes as the constant has and writes nothing.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ATTRIBUTES.as_ptr(),
            size_of_val(&ATTRIBUTES),
            0,
        )
    };
    let Ok(fd @ 0..) = i32::try_from(made) else {
        return match last_errno() {
            // Unknown, switched off, or older than the scope.
            Errno::NOSYS | Errno::OPNOTSUPP | Errno::TOOBIG | Errno::INVAL | Errno::PERM => Ok(()),
            errno => Err(errno),
        };
    };
    // SAFETY: the call has just returned this descriptor, which nobody else knows.
    let rules = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes two numbers.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Removes everything but `kept` from the bounding set.
pub(super) fn bound(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

/// Becomes the user; no id may be all ones, which the kernel takes for "leave as it is". Only for a single-threaded process: these are calls of one thread.
pub(super) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups)?;
    let gid = Gid::from_raw(gid);
    set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, uid)
}

/// Returns all that this process has.
pub(super) fn held() -> Result<u64, Errno> {
    Ok(capabilities(None)?.permitted.bits())
}

/// Has the change of user leave the capabilities as they are.
pub(super) fn keep_over_change_of_user() -> Result<(), Errno> {
    rustix::thread::set_keep_capabilities(true)
}

/// Gives the command everything that this process has.
pub(super) fn keep_all() -> Result<(), Errno> {
    let all = capabilities(None)?.permitted;
    set_capabilities(
        None,
        CapabilitySets {
            effective: all,
            permitted: all,
            inheritable: all,
        },
    )?;
    // What makes them survive the execution of a program by a user other than 0.
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if all.contains(capability) {
            configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}

/// Leaves this process, and all that it becomes, without any.
pub(super) fn drop_all() -> Result<(), Errno> {
    match bound(CapabilitySet::empty()) {
        // Who has none cannot narrow what he could get either; no_new_privs sees to that.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

/// Leaves user 0 with `kept`, any other user with nothing.
pub(super) fn limit(uid: u32, kept: CapabilitySet) -> Result<(), Errno> {
    let present = capabilities(None)?;
    let left = if uid == 0 {
        present.permitted & kept
    } else {
        CapabilitySet::empty()
    };
    set_capabilities(
        None,
        CapabilitySets {
            effective: left,
            permitted: left,
            inheritable: CapabilitySet::empty(),
        },
    )
}
