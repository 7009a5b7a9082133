//! Running a process confined.
//!
//! The program enters the sandbox once, early: [`enter`] moves the single-threaded process into a mount namespace of its own
//! (rung `ns`, for root) or into a user and a mount namespace with the user's subordinate ids (rung `ns-sub`). Everything
//! afterwards, store and root file systems included, happens inside as "root". Each command is then one [`run`]:
//!
//! ```text
//! builder (threads)            init, outer half                    init, inner half = the command
//!  run() ── spawns self ─────►  own session, no environment
//!        ── spec, fds ───────►  mount points in the root, pid namespace
//!        ◄── pidfd ───────────  fork ─────────────────────────────► pid 1: mount, ipc, uts [, cgroup, net] namespaces,
//!                               remembers, maps, registers ◄─────── mounts, root [, user namespace with emulators],
//!        ◄── stdout, stderr ─────────────────────────────────────── limits, filter, ids, execve
//!        ◄── report ──────────  waits; removes mount points         (failure: one report; success: silence)
//! ```
//!
//! A command whose request has a ledger is supervised besides (see [`supervise`]): it has one real id, and the outer half answers
//! the calls that show or change who it is and what its files are.
//!
//! Who runs a command may speak with it ([`Dialogue`]): its input, a terminal of its own, and signals go the same way, copied.
//!
//! In: a root as a mount, a command with its environment, ids and limits, what else it sees, devices, emulators. Out: the output as it comes, and how the command
//! ended. The room does not know images, Dockerfiles or where the root comes from; it makes no overlay and reads no
//! `/etc/passwd` of an image.
//!
//! Invariants. A command sees no file, process, descriptor or variable of the builder. Whoever dies, by SIGKILL too, takes the
//! command and all its descendants along: the outer half kills when its socket to the builder closes, the kernel kills the
//! inner half with the outer one, and the end of pid 1 ends its whole pid namespace. Mounts live in the command's own mount
//! namespace and end with it. Nothing is left on disk but what the command wrote, and mount points made in a writable mount.
//! An insecure command has the powers of the builder, and the invariants hold as far as it lets them.
//!
//! All `unsafe` code of the crate is here, in small functions with safe signatures.

#![allow(unsafe_code, reason = "this is the room for it")]

mod bare;
mod bound;
mod cgroup;
mod command;
mod control;
mod cpu;
mod device;
mod dialogue;
mod emulate;
mod enter;
mod errand;
mod error;
mod examine;
mod executable;
mod facts;
mod files;
mod filter;
mod foreign;
mod ground;
mod helper;
mod init;
mod inner;
mod instructions;
mod lack;
mod landlock;
mod limits;
mod memory;
mod mount;
mod network;
mod notification;
mod order;
mod private;
mod privileges;
mod report;
mod role;
mod run;
mod signals;
mod spec;
mod stub;
mod subordinate;
mod supervise;
mod survey;
mod syscalls;
mod trial;
mod trouble;
mod view;
mod walk;
mod wire;

#[cfg(test)]
mod tests;

pub use bound::spawn_bound;
pub use cgroup::{
    GroupError, Ineffective, Limits, OutOfMemory, StepGroup, StepGroups, oom_kills, own_limits,
    sweep_groups,
};
pub use cpu::{cpu_quota, usable_memory};
pub use dialogue::Dialogue;
pub use enter::{enter, entered, entered_rung, protect_self};
pub use error::{RunError, SandboxError, SignalError};
pub use examine::landlock_version;
pub use facts::{Facts, MapPower, MapProgram, Surroundings};
pub use files::raise_file_limit;
pub use foreign::can_run;
pub use lack::Lack;
pub use memory::memory_limit;
pub use network::{hosts_file, resolv_conf};
pub use role::run_internal_role;
pub use run::{emulators_work, run, run_attended};
pub use signals::{PassedSignals, end_after, pass_signals, raise_on_signals};
pub use spec::{
    DeviceNode, DevicePermissions, Emulator, Ended, Exit, MountSource, RunMount, RunSpec,
};
pub use survey::{Choice, Finding, Wanted, choose, survey};

pub use crate::vocab::Rung;
