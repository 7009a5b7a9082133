//! What is to be run: the words between the builder and this room.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::vocab::{Ledger, NetworkMode, Secret, Security, Ulimit};

use super::cgroup::StepGroup;

/// A command and all it is given.
pub struct RunSpec {
    /// The root: a detached mount (from `fsmount` or `open_tree`), or a directory, which is bound with all that is mounted
    /// below it. Closed when the command has ended.
    pub root: OwnedFd,
    /// The program and its arguments. A program without a slash is looked for in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment; nothing is added.
    pub env: Vec<(String, String)>,
    /// Must exist in the root. What it lacks in one of `mounts` is made there.
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub hostname: String,
    pub network: NetworkMode,
    /// Content of /etc/resolv.conf and of /etc/hosts. The command may change them; nothing of it stays.
    pub resolv_conf: Vec<u8>,
    pub hosts: Vec<u8>,
    /// Bytes of /dev/shm.
    pub shm_size: u64,
    /// Clamped to what the builder itself may have.
    pub ulimits: Vec<Ulimit>,
    /// In order; a later one may lie inside an earlier one, or cover it.
    pub mounts: Vec<RunMount>,
    pub security: Security,
    /// More devices than every command has.
    pub devices: Vec<DeviceNode>,
    /// For programs of architectures that the machine cannot run by itself. With any of them the command has a user namespace
    /// of its own, which needs Linux 6.7, in which nobody can make device nodes, and in which no emulator of the machine is
    /// known but these.
    pub emulators: Vec<Emulator>,
    /// What the files of the root are, where the disk cannot say it. Then the command has one id on this machine, and what it
    /// is told and what it does about owners, modes and devices goes by the ledger, which comes back with its end. With a ledger
    /// of devices it has the ids that it seems to have, and devices alone go by the ledger.
    pub ledger: Option<Ledger>,
    /// An empty directory, of the builder's own, for what is made for the command: then it runs without namespaces and mounts,
    /// as the rung `paths` does, with a ledger and as a user of this machine who need have no rights. What is left there when
    /// it has ended is for the caller to remove.
    pub scratch: Option<OwnedFd>,
    /// Control groups with the limits of the command.
    pub group: Option<Arc<StepGroup>>,
}

/// Something mounted while the command runs.
#[derive(Debug)]
pub struct RunMount {
    /// Absolute. What it lacks is made, and taken away again where it was made in the root: directories, and as the last one
    /// what fits `source`. Links are followed inside the root. Not the root itself and not in /proc.
    pub target: String,
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug)]
pub enum MountSource {
    /// A detached mount, or a directory, file or socket (opened with `O_PATH` after the sandbox was entered), which is bound
    /// with all that is mounted below it.
    Tree { fd: OwnedFd, read_only: bool },
    /// An empty directory of `size` bytes at most, by default half of the memory. Has the mode of the directory that it covers;
    /// where there was none, everybody may write.
    Tmpfs { size: Option<u64> },
    /// A read-only file that is nowhere but in memory.
    File {
        content: Secret<Vec<u8>>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// A device of the machine that the command may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// On the host.
    pub source: PathBuf,
    /// In the root.
    pub path: String,
    /// What the mode allows is narrowed to these. There is no device controller: user 0 is not bound by a mode.
    pub permissions: DevicePermissions,
    /// The host's where they are `None`. Where no device can be made (in a user namespace) it is the host's own that is bound,
    /// with its own mode and owner.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
}

/// The letters of a device's permissions, as CDI and control groups have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePermissions {
    pub read: bool,
    pub write: bool,
    /// Means nothing here: a node that the command makes cannot be opened in any case.
    pub mknod: bool,
}

/// A program that runs programs of another architecture.
#[derive(Debug)]
pub struct Emulator {
    /// As Go names it.
    pub architecture: String,
    /// A static qemu-user (6.0 or newer), opened.
    pub program: OwnedFd,
}

/// What is left of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub exit: Exit,
    /// There if one was given.
    pub ledger: Option<Ledger>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Leaves out the values of variables: some are secrets.
impl fmt::Debug for RunSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("RunSpec")
            .field("argv", &self.argv)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .field("groups", &self.groups)
            .field("network", &self.network)
            .field("ulimits", &self.ulimits)
            .field("mounts", &self.mounts)
            .field("security", &self.security)
            .field("devices", &self.devices)
            .field("emulators", &self.emulators)
            .field("ledger", &self.ledger.as_ref().map(Ledger::len))
            .finish_non_exhaustive()
    }
}
