//! What a rung that works does without.

use std::fmt;

use crate::vocab::RequiredIsolation;

/// Something that commands would have, or be kept from, if the surroundings allowed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lack {
    /// Processes of the surroundings are not told apart by a pid namespace.
    PidNamespace,
    /// Landlock: other files than the root's are out of reach by the rung's own means alone.
    Landlock,
    /// Landlock's scope: abstract sockets of the surroundings can be reached.
    SocketScope,
    /// The surroundings' /proc is shown.
    Proc,
    /// `pivot_root`: the root is changed by `chroot`, and CAP_SYS_CHROOT taken away.
    PivotRoot,
    /// No network without a network: `--network=none`.
    Loopback,
    /// Device files cannot be made.
    DeviceFiles,
    /// Terminals: /dev/pts.
    Terminals,
    /// Message queues: /dev/mqueue.
    MessageQueues,
}

impl Lack {
    pub(super) const ALL: [Lack; 9] = [
        Lack::PidNamespace,
        Lack::Landlock,
        Lack::SocketScope,
        Lack::Proc,
        Lack::PivotRoot,
        Lack::Loopback,
        Lack::DeviceFiles,
        Lack::Terminals,
        Lack::MessageQueues,
    ];

    /// Names it in one word.
    pub fn name(self) -> &'static str {
        match self {
            Lack::PidNamespace => "pid-namespace",
            Lack::Landlock => "landlock",
            Lack::SocketScope => "socket-scope",
            Lack::Proc => "proc",
            Lack::PivotRoot => "pivot-root",
            Lack::Loopback => "loopback",
            Lack::DeviceFiles => "device-files",
            Lack::Terminals => "terminals",
            Lack::MessageQueues => "message-queues",
        }
    }

    /// Says what it takes to have it; `None` where the rung itself is the reason.
    pub fn hint(self) -> Option<&'static str> {
        Some(match self {
            Lack::PidNamespace => return None,
            Lack::Landlock => "Linux 5.13 or newer, with `landlock` in the boot parameter `lsm`",
            Lack::SocketScope => "Linux 6.12 or newer, with `landlock` in the boot parameter `lsm`",
            Lack::Proc => {
                "Docker: `--security-opt systempaths=unconfined`; Kubernetes: `procMount: Unmasked` (with `hostUsers: false`)"
            }
            Lack::PivotRoot => {
                "a seccomp profile that allows `pivot_root`; Docker: `--security-opt seccomp=unconfined`; Kubernetes: \
                 `seccompProfile: {type: Unconfined}`"
            }
            Lack::Loopback => {
                "CAP_NET_ADMIN; Docker: `--cap-add NET_ADMIN`; Kubernetes: `capabilities: {add: [NET_ADMIN]}`"
            }
            Lack::DeviceFiles => "root outside of any user namespace, with CAP_MKNOD",
            Lack::Terminals => "a mount of `devpts`",
            Lack::MessageQueues => "a mount of `mqueue`",
        })
    }

    /// Tells whether a command can reach what it should not because of it.
    pub fn is_refused_by(self, required: RequiredIsolation) -> bool {
        match required {
            RequiredIsolation::Any => false,
            RequiredIsolation::Strict => {
                matches!(
                    self,
                    Lack::PidNamespace | Lack::Landlock | Lack::SocketScope
                )
            }
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lack::PidNamespace => {
                "no pid namespace: processes of the surroundings are hidden by the supervisor only"
            }
            Lack::Landlock => {
                "no Landlock: other files of this user are hidden by the supervisor only"
            }
            Lack::SocketScope => {
                "no Landlock scope: abstract sockets of this machine's daemons can be reached"
            }
            Lack::Proc => "no /proc of its own: names of the surroundings' processes can be seen",
            Lack::PivotRoot => {
                "no `pivot_root`: `chroot` in its place, and CAP_SYS_CHROOT is taken from commands"
            }
            Lack::Loopback => "no loopback interface for `--network=none`",
            Lack::DeviceFiles => {
                "no device files: what `mknod` makes is a device in the image alone"
            }
            Lack::Terminals => "no terminals in /dev/pts",
            Lack::MessageQueues => "no message queues in /dev/mqueue",
        })
    }
}

/// A set of them, small enough for one word between processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lacks(u16);

impl Lacks {
    pub(super) fn add(&mut self, lack: Lack) {
        self.0 |= 1 << lack as u8;
    }

    pub(super) fn and(self, other: Lacks) -> Lacks {
        Lacks(self.0 | other.0)
    }

    pub(super) fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn from_bits(bits: u16) -> Lacks {
        Lacks(bits)
    }

    pub(super) fn list(self) -> Vec<Lack> {
        Lack::ALL
            .into_iter()
            .filter(|lack| self.0 & (1 << *lack as u8) != 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lack_survives_the_word() {
        let mut all = Lacks::default();
        for (at, lack) in Lack::ALL.into_iter().enumerate() {
            assert_eq!(lack as usize, at);
            all.add(lack);
        }
        assert_eq!(Lacks::from_bits(all.bits()).list(), Lack::ALL);
    }
}
