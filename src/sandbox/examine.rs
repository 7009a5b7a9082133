//! What a rung is good for once it is entered: everything that a command needs is done here, in a child that was made for it.
//!
//! A refusal of what no command can do without is a [`Trouble`], a refusal of anything else a [`Lack`].

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::set_parent_process_death_signal;
use rustix::process::{Signal, chroot, fchdir, pivot_root};
use rustix::thread::UnshareFlags;

use crate::vocab::{Ownership, Rung};

use super::enter::unshare;
use super::lack::{Lack, Lacks};
use super::mount::{Attributes, Mount};
use super::trial::attempt;
use super::trouble::{By, Call, Trouble};
use super::{filter, network, notification, privileges};

/// The first version of Landlock that knows scopes (Linux 6.12).
const SCOPES: u32 = 6;

/// Does what commands of this rung need. The process has entered it, and is not needed afterwards.
pub(super) fn examine(rung: Rung) -> Result<Lacks, Trouble> {
    // A change of ids has cleared it.
    set_parent_process_death_signal(Some(Signal::KILL)).ok();
    let mut lacks = Lacks::default();
    match landlock_version() {
        0 => {
            // Namespaces hide the files of others by themselves.
            lacks.add(if rung.has_namespaces() {
                Lack::SocketScope
            } else {
                Lack::Landlock
            });
        }
        version if version < SCOPES => lacks.add(Lack::SocketScope),
        _ => {}
    }
    if !rung.has_namespaces() || rung.ownership() == Ownership::InLedger {
        // With a user namespace of its own it may install filters and gain privileges all the same.
        attempt(|| notification::held_calls(rung.has_namespaces()))?;
    }
    if rung.has_namespaces() {
        unshare(UnshareFlags::NEWPID).by(Call::UnsharePid)?;
        // It ends with the first child, so this comes last.
        lacks = lacks.and(attempt(|| namespaces(rung))?);
    } else {
        lacks.add(Lack::PidNamespace);
        attempt(notification::traced_calls)?;
        attempt(resolution)?;
        if rung == Rung::Chroot {
            attempt(other_root)?;
        }
    }
    Ok(lacks)
}

/// What init's inner half does.
fn namespaces(rung: Rung) -> Result<Lacks, Trouble> {
    let mut lacks = Lacks::default();
    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
        .by(Call::UnshareOthers)?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .by(Call::Propagation)?;
    // As init does: a process whose root is covered may make no user namespace, which may be needed for this.
    if unshare(UnshareFlags::NEWNET).is_err() || network::loopback_up().is_err() {
        lacks.add(Lack::Loopback);
    }
    if Mount::create("proc", &[], Attributes::empty()).is_err() {
        lacks.add(Lack::Proc);
        Mount::copy_tree(CWD, Path::new("/proc")).by(Call::CopyMount)?;
    }
    if Mount::create("devpts", &[], Attributes::empty()).is_err() {
        lacks.add(Lack::Terminals);
    }
    if Mount::create("mqueue", &[], Attributes::empty()).is_err() {
        lacks.add(Lack::MessageQueues);
    }

    let root = Mount::create("tmpfs", &[], Attributes::empty()).by(Call::MakeMount)?;
    root.attach_over("/").by(Call::AttachMount)?;
    // In a user namespace nobody expects it.
    let node = mknodat(
        &root,
        "node",
        FileType::CharacterDevice,
        Mode::RUSR,
        makedev(1, 3),
    );
    if rung == Rung::Ns && node.is_err() {
        lacks.add(Lack::DeviceFiles);
    }
    fchdir(&root).by(Call::AttachMount)?;
    match pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH).by(Call::AttachMount)?,
        Err(_) => {
            lacks.add(Lack::PivotRoot);
            chroot(".").by(Call::Chroot)?;
        }
    }
    filter::install(&filter::program()).by(Call::Filter)?;
    Ok(lacks)
}

/// What a command is that has another root directory: nobody who could change it again.
fn other_root() -> Result<Lacks, Trouble> {
    chroot("/").by(Call::Chroot)?;
    privileges::drop_all().by(Call::DropCapabilities)?;
    Ok(Lacks::default())
}

/// Paths below a directory of the supervisor's.
fn resolution() -> Result<Lacks, Trouble> {
    let open = || {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::openat2(
            root.as_fd(),
            "..",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_MAGICLINKS,
        )
        .map(drop)
    };
    match open() {
        // A rename or a mount anywhere on the machine came between, which says that the call is there; whoever needs it tries again.
        Err(Errno::AGAIN) => {}
        opened => Result::<(), Errno>::by(opened, Call::ResolveBeneath)?,
    }
    Ok(Lacks::default())
}

/// Returns the version of Landlock's interface; 0 if there is none, or it is switched off.
pub fn landlock_version() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call reads nothing through the pointer.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u64>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}
