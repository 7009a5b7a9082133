//! Entering the sandbox: the one change that the whole process makes, early and once.
//!
//! A rung is entered here in the same way in which it was tried: the trials of [`survey`](super::survey) do this in a child.

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{
    DumpableBehavior, Gid, Uid, getegid, geteuid, getgid, getuid, set_dumpable_behavior,
};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, set_thread_res_gid, set_thread_res_uid,
    unshare_unsafe,
};

use crate::vocab::Rung;

use super::emulate::identity;
use super::error::SandboxError;
use super::helper::Helper;
use super::mount::{Attributes, Mount};
use super::subordinate::Ids;
use super::survey::Choice;
use super::trouble::{By, Call, Trouble};

static ENTERED: OnceLock<Rung> = OnceLock::new();

/// Moves this process to where commands can be run in the chosen way: into namespaces of its own, in which it may mount, or
/// nowhere for the rungs without. Idempotent.
///
/// Needs a process with a single thread. After a failure the process may be half-way (in a user namespace without ids) and
/// should do nothing more but report it. Supplementary groups are kept: they may be what makes the build's files readable;
/// commands do not have them.
pub fn enter(choice: &Choice) -> Result<Rung, SandboxError> {
    if let Some(rung) = ENTERED.get() {
        return Ok(*rung);
    }
    single_thread()?;
    Way::find(choice.rung)?.go().map_err(Trouble::explain)?;
    Ok(*ENTERED.get_or_init(|| choice.rung))
}

/// Tells whether [`enter`] has succeeded.
pub fn entered() -> bool {
    entered_rung().is_some()
}

/// Returns what [`enter`] has entered.
pub fn entered_rung() -> Option<Rung> {
    ENTERED.get().copied()
}

/// Shuts other processes of the same user out of this one: no core dump, no tracing, no look at its memory or environment.
/// For the builder, once it has entered; its own use of /proc/self goes on working.
pub fn protect_self() {
    // Fails for no process that asks for this value.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
}

/// How long a thread that has ended may take to be gone, on a busy machine.
const LEAVING: Duration = Duration::from_secs(2);

/// Makes sure that a fork of this process is a whole one, and that namespaces can be entered.
pub(super) fn single_thread() -> Result<(), SandboxError> {
    let started = Instant::now();
    loop {
        let tasks = fs::read_dir("/proc/self/task").map_err(|source| SandboxError::Read {
            path: "/proc/self/task".into(),
            source,
        })?;
        match tasks.count() {
            1 => return Ok(()),
            // Who joins a thread is told a moment before the kernel has forgotten it.
            _ if started.elapsed() < LEAVING => std::thread::sleep(Duration::from_micros(50)),
            count => return Err(SandboxError::Threads { count }),
        }
    }
}

/// What it takes to give files and processes their real owners. A user namespace brings these along.
const OVER_FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID);

/// A rung with what this process needs to enter it.
#[derive(Debug)]
pub(super) enum Way {
    Ns,
    /// The maps as the kernel takes them.
    NsFull {
        uid_map: String,
        gid_map: String,
    },
    NsSub(Ids),
    NsOne {
        uid: u32,
        gid: u32,
    },
    Chroot,
    Paths,
}

impl Way {
    /// Finds out what can be known without trying.
    pub(super) fn find(rung: Rung) -> Result<Way, SandboxError> {
        match rung {
            Rung::Ns => {
                root_with(CapabilitySet::SYS_ADMIN | OVER_FILES)?;
                Ok(Way::Ns)
            }
            Rung::NsFull => {
                root_with(CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETFCAP)?;
                Ok(Way::NsFull {
                    uid_map: identity(&read("/proc/self/uid_map")?),
                    gid_map: identity(&read("/proc/self/gid_map")?),
                })
            }
            Rung::NsSub => Ok(Way::NsSub(Ids::of(getuid().as_raw(), getgid().as_raw())?)),
            // The ids that files get.
            Rung::NsOne => Ok(Way::NsOne {
                uid: geteuid().as_raw(),
                gid: getegid().as_raw(),
            }),
            Rung::Chroot => {
                root_with(CapabilitySet::SYS_CHROOT)?;
                Ok(Way::Chroot)
            }
            Rung::Paths => Ok(Way::Paths),
        }
    }

    /// Goes there.
    pub(super) fn go(&self) -> Result<(), Trouble> {
        match self {
            Way::Ns => {}
            Way::NsFull { uid_map, gid_map } => {
                // Who writes the map of more than one id must stand outside.
                let helper = Helper::writing(uid_map, gid_map)?;
                unshare(UnshareFlags::NEWUSER).by(Call::UnshareUser)?;
                helper.map()?;
                become_root()?;
            }
            Way::NsSub(ids) => {
                // The map programs must run outside, with the user's own rights.
                let helper = Helper::running(ids)?;
                unshare(UnshareFlags::NEWUSER).by(Call::UnshareUser)?;
                helper.map()?;
                become_root()?;
            }
            Way::NsOne { uid, gid } => {
                unshare(UnshareFlags::NEWUSER).by(Call::UnshareUser)?;
                // Without this an ordinary user may not map a group: leaving one could open what it is kept from.
                fs::write("/proc/self/setgroups", "deny").by(Call::SetGroups)?;
                fs::write("/proc/self/uid_map", format!("0 {uid} 1\n")).by(Call::UidMap)?;
                fs::write("/proc/self/gid_map", format!("0 {gid} 1\n")).by(Call::GidMap)?;
                become_root()?;
            }
            Way::Chroot | Way::Paths => return Ok(()),
        }
        mount_namespace()
    }
}

fn read(path: &str) -> Result<String, SandboxError> {
    fs::read_to_string(path).map_err(|source| SandboxError::Read {
        path: path.into(),
        source,
    })
}

/// Makes sure that this process is user 0 with these capabilities.
fn root_with(needed: CapabilitySet) -> Result<(), SandboxError> {
    if !getuid().is_root() || !geteuid().is_root() {
        return Err(SandboxError::NotRoot {
            uid: geteuid().as_raw(),
        });
    }
    let present = capabilities(None)
        .map(|sets| sets.effective)
        .unwrap_or_else(|_| CapabilitySet::empty());
    match needed.difference(present) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(SandboxError::NoCapability {
            missing: missing
                .iter_names()
                .map(|(name, _)| format!("CAP_{name}"))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

fn mount_namespace() -> Result<(), Trouble> {
    unshare(UnshareFlags::NEWNS).by(Call::UnshareMount)?;
    // Slave: mounts made here stay here, and what the host unmounts goes here too.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .by(Call::Propagation)?;
    // Security modules may allow all of the above and refuse this. It ends where it is made.
    Mount::create("tmpfs", &[], Attributes::empty())
        .map(drop)
        .by(Call::MakeMount)
}

pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the callers do not pass FILES, the flag that the function warns of.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Takes the ids of the new namespace's root.
fn become_root() -> Result<(), Trouble> {
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).by(Call::SetIds)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).by(Call::SetIds)
}
