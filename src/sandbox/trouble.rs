//! Why a trial failed: a call with its error number, or what a program said. Crosses from the child that tried as bytes, and
//! is explained outside.
//!
//! ```text
//! u8 0 | u16 lacks                          it works
//! u8 1 | u8 call | i32 error number         a call was refused
//! u8 2 | u8 program | text to the end       a map program failed; no text: it is not there
//! ```

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use super::error::SandboxError;
use super::lack::Lacks;
use super::subordinate::{GIDS, UIDS};

/// Calls that surroundings refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Call {
    Fork,
    UnshareUser,
    SetGroups,
    UidMap,
    GidMap,
    SetIds,
    UnshareMount,
    Propagation,
    MakeMount,
    AttachMount,
    CopyMount,
    UnsharePid,
    UnshareOthers,
    Chroot,
    DropCapabilities,
    Filter,
    Listener,
    PassDescriptor,
    Notification,
    GiveDescriptor,
    ReadMemory,
    Trace,
    TraceStop,
    ResolveBeneath,
    End,
}

impl Call {
    const ALL: [Call; 25] = [
        Call::Fork,
        Call::UnshareUser,
        Call::SetGroups,
        Call::UidMap,
        Call::GidMap,
        Call::SetIds,
        Call::UnshareMount,
        Call::Propagation,
        Call::MakeMount,
        Call::AttachMount,
        Call::CopyMount,
        Call::UnsharePid,
        Call::UnshareOthers,
        Call::Chroot,
        Call::DropCapabilities,
        Call::Filter,
        Call::Listener,
        Call::PassDescriptor,
        Call::Notification,
        Call::GiveDescriptor,
        Call::ReadMemory,
        Call::Trace,
        Call::TraceStop,
        Call::ResolveBeneath,
        Call::End,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Call::Fork => "fork",
            Call::UnshareUser => "unshare(CLONE_NEWUSER)",
            Call::SetGroups => "write /proc/self/setgroups",
            Call::UidMap => "write uid_map",
            Call::GidMap => "write gid_map",
            Call::SetIds => "setresuid",
            Call::UnshareMount => "unshare(CLONE_NEWNS)",
            Call::Propagation => "mount",
            Call::MakeMount => "fsmount",
            Call::AttachMount => "move_mount",
            Call::CopyMount => "open_tree",
            Call::UnsharePid => "unshare(CLONE_NEWPID)",
            Call::UnshareOthers => "unshare(CLONE_NEWIPC | CLONE_NEWUTS)",
            Call::Chroot => "chroot",
            Call::DropCapabilities => "capset",
            Call::Filter => "seccomp(SECCOMP_SET_MODE_FILTER)",
            Call::Listener => "seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)",
            Call::PassDescriptor => "sendmsg(SCM_RIGHTS)",
            Call::Notification => "ioctl(SECCOMP_IOCTL_NOTIF_RECV)",
            Call::GiveDescriptor => "ioctl(SECCOMP_IOCTL_NOTIF_ADDFD)",
            Call::ReadMemory => "process_vm_readv",
            Call::Trace => "ptrace(PTRACE_SEIZE)",
            Call::TraceStop => "ptrace(PTRACE_O_TRACESECCOMP)",
            Call::ResolveBeneath => "openat2",
            Call::End => "come to an end",
        }
    }
}

/// Why a trial failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Call { call: Call, errno: i32 },
    MapProgram { is_group: bool, message: String },
}

/// Names the call that failed.
pub(super) trait By<T> {
    fn by(self, call: Call) -> Result<T, Trouble>;
}

impl<T> By<T> for Result<T, Errno> {
    fn by(self, call: Call) -> Result<T, Trouble> {
        self.map_err(|errno| Trouble::Call {
            call,
            errno: errno.raw_os_error(),
        })
    }
}

impl<T> By<T> for io::Result<T> {
    fn by(self, call: Call) -> Result<T, Trouble> {
        self.map_err(|error| Trouble::Call {
            call,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

impl Trouble {
    /// Finds the reason behind it.
    pub(super) fn explain(self) -> SandboxError {
        match self {
            Trouble::Call { call, errno } => {
                refused(call.name(), io::Error::from_raw_os_error(errno), call)
            }
            Trouble::MapProgram { is_group, message } => {
                let program = if is_group { GIDS } else { UIDS };
                if message.is_empty() {
                    return SandboxError::NoMapProgram { program };
                }
                SandboxError::MapProgram {
                    program,
                    message,
                    no_new_privileges: rustix::thread::no_new_privs().unwrap_or(false),
                }
            }
        }
    }
}

fn refused(name: &'static str, source: io::Error, call: Call) -> SandboxError {
    let setting = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let is = |path: &str, value: &str| setting(path).is_ok_and(|found| found == value);
    let is_about_namespaces = matches!(
        call,
        Call::UnshareUser
            | Call::SetGroups
            | Call::UidMap
            | Call::GidMap
            | Call::UnshareMount
            | Call::Propagation
            | Call::MakeMount
    );
    match source.raw_os_error() {
        _ if call == Call::End => SandboxError::NoEnd,
        Some(libc::ENOSPC | libc::EUSERS) if call == Call::UnshareUser => {
            SandboxError::NamespaceLimit {
                limit: setting("/proc/sys/user/max_user_namespaces")
                    .unwrap_or_else(|_| "unknown".to_owned()),
            }
        }
        Some(libc::EBUSY) if call == Call::Listener => SandboxError::NestedListener,
        Some(libc::ENOSYS | libc::EINVAL) => SandboxError::Kernel { call: name },
        Some(libc::EPERM | libc::EACCES) if is_about_namespaces && !is_privileged() => {
            if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
                SandboxError::NamespacesOff
            } else if is(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1",
            ) {
                SandboxError::AppArmor { call: name }
            } else {
                SandboxError::Refused { call: name, source }
            }
        }
        _ => SandboxError::Refused { call: name, source },
    }
}

/// Tells whether this process needs no user namespace.
fn is_privileged() -> bool {
    geteuid().is_root()
        && capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Makes the message of a child.
pub(super) fn encode(outcome: &Result<Lacks, Trouble>) -> Vec<u8> {
    match outcome {
        Ok(lacks) => {
            let mut bytes = vec![0];
            bytes.extend(lacks.bits().to_le_bytes());
            bytes
        }
        Err(Trouble::Call { call, errno }) => {
            let mut bytes = vec![1, *call as u8];
            bytes.extend(errno.to_le_bytes());
            bytes
        }
        Err(Trouble::MapProgram { is_group, message }) => {
            let mut bytes = vec![2, u8::from(*is_group)];
            bytes.extend(message.as_bytes());
            // One write into a pipe is not torn up to 4096 bytes.
            bytes.truncate(4096);
            bytes
        }
    }
}

/// Reads it; `None` for anything that [`encode`] does not make.
pub(super) fn decode(bytes: &[u8]) -> Option<Result<Lacks, Trouble>> {
    Some(match bytes {
        [0, low, high] => Ok(Lacks::from_bits(u16::from_le_bytes([*low, *high]))),
        [1, call, errno @ ..] => Err(Trouble::Call {
            call: *Call::ALL.get(usize::from(*call))?,
            errno: i32::from_le_bytes(errno.try_into().ok()?),
        }),
        [2, is_group, message @ ..] => Err(Trouble::MapProgram {
            is_group: *is_group == 1,
            message: String::from_utf8_lossy(message).into_owned(),
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::lack::Lack;

    #[test]
    fn every_outcome_survives_the_pipe() {
        let mut lacks = Lacks::default();
        lacks.add(Lack::MessageQueues);
        let mut outcomes = vec![
            Ok(lacks),
            Err(Trouble::MapProgram {
                is_group: true,
                message: "no".to_owned(),
            }),
        ];
        for (at, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, at);
            assert!(!call.name().is_empty());
            outcomes.push(Err(Trouble::Call { call, errno: 38 }));
        }
        for outcome in outcomes {
            assert_eq!(decode(&encode(&outcome)), Some(outcome));
        }
        for bytes in [&b""[..], &[0], &[1, 200, 0, 0, 0, 0], &[1, 0, 0], &[9]] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
