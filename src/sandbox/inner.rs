//! Init's inner half: pid 1 of the command's namespaces, until it becomes the command.
//!
//! It was forked from a single-threaded process, so it may allocate and use everything. The order of its stages is the
//! point: mounts while the host is in sight, the root changed before anything of it is opened, a user namespace for emulators
//! when nothing is left to be mounted, limits after the last file is open, the filter while CAP_SYS_ADMIN is still there (so that no_new_privs can stay 0), ids and capabilities last.

use std::io::PipeWriter;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, mkdirat, open, stat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{
    Signal, chdir, chroot, fchdir, pivot_root, set_parent_process_death_signal, setsid,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::command::Command;
use super::dialogue::Input;
use super::errand::{Errands, Supervise};
use super::instructions::Instructions;
use super::mount::{Mount, mount_id};
use super::report::{At, Failure, Report, Stage};
use super::supervise::{listener, traps};
use super::view::{self, Cgroups, Targets};
use super::{dialogue, emulate, filter, limits, network, privileges, walk};

/// What the inner half takes over from the outer one.
pub(super) struct Handover<'a> {
    pub(super) root: Mount,
    /// What is mounted of the host's, in the order of the instructions.
    pub(super) trees: Vec<Mount>,
    pub(super) targets: Targets,
    /// `None` is `/dev/null`.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) cgroups: Cgroups,
    /// Where the report goes; its reader lives as long as the outer half.
    pub(super) status: &'a PipeWriter,
    pub(super) errands: Errands,
}

/// Becomes the command; returns only if that failed.
pub(super) fn become_command(handover: Handover<'_>, instructions: &Instructions) -> Report {
    match prepare(handover, instructions) {
        Err(failure) => Report::Failed(failure),
        Ok(command) => {
            let (kind, errno) = command.execute();
            Report::NoCommand {
                kind,
                errno: errno.raw_os_error(),
            }
        }
    }
}

fn prepare(mut handover: Handover<'_>, instructions: &Instructions) -> Result<Command, Failure> {
    die_with_parent(handover.status)?;
    // Cannot fail for a process that has just been forked.
    setsid().at(Stage::Parent, "setsid")?;
    default_signals();
    rustix::process::umask(Mode::empty());

    make_namespaces(instructions.private_network, handover.cgroups)?;
    if instructions.private_network {
        network::loopback_up().at(Stage::Loopback, "lo")?;
    }
    let null = view::build(&mut handover, instructions)?;
    let was_pivoted = change_root(&handover.root)?;
    // Some containers forbid it. /etc/hosts has the name all the same.
    nix::unistd::sethostname(&instructions.hostname).ok();

    connect_streams(&handover, &null, instructions.uid)?;
    if instructions.input == Input::Terminal {
        dialogue::take_terminal().at(Stage::Streams, "terminal")?;
    }
    if !instructions.emulators.is_empty() {
        emulate::enter(&handover.errands)?;
    }
    enter_working_directory(&instructions.cwd)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));

    let command = Command::new(&instructions.argv, instructions.env.reveal());
    let filter = filter::program();
    close_on_exec_from(3).at(Stage::Streams, "close_range")?;
    limits::apply(&instructions.limits_to_set())?;
    if instructions.insecure {
        give_all(instructions, &handover.errands)?;
    } else {
        confine(instructions, was_pivoted, &filter, &handover.errands)?;
    }
    // A change of ids clears the signal.
    die_with_parent(handover.status)?;
    Ok(command)
}

/// Becomes the user of a command in the sandbox.
fn confine(
    instructions: &Instructions,
    was_pivoted: bool,
    filter: &[filter::Instruction],
    errands: &Errands,
) -> Result<(), Failure> {
    let kept = privileges::kept(was_pivoted);
    privileges::bound(kept).at(Stage::Capabilities, "")?;
    if !instructions.private_network {
        privileges::leave_abstract_sockets().at(Stage::Filter, "abstract sockets")?;
    }
    filter::install(filter).at(Stage::Filter, "")?;
    if is_supervised(instructions, errands, kept.bits())? {
        // It is another user only as far as it is told.
        return privileges::limit(0, kept).at(Stage::Capabilities, "");
    }
    become_user(instructions)?;
    privileges::limit(instructions.uid, kept).at(Stage::Capabilities, "")
}

/// Becomes the user of an insecure command.
fn give_all(instructions: &Instructions, errands: &Errands) -> Result<(), Failure> {
    let all = privileges::held().at(Stage::Capabilities, "")?;
    if is_supervised(instructions, errands, all)? {
        return privileges::keep_all().at(Stage::Capabilities, "");
    }
    privileges::keep_over_change_of_user().at(Stage::Capabilities, "")?;
    become_user(instructions)?;
    privileges::keep_all().at(Stage::Capabilities, "")
}

/// Has the outer half supervise this process from here on, if that is wanted. Until the command is executed it lets pass
/// everything. Returns whether it also answers for ids.
fn is_supervised(
    instructions: &Instructions,
    errands: &Errands,
    capabilities: u64,
) -> Result<bool, Failure> {
    let Some(mode) = instructions.supervised else {
        return Ok(false);
    };
    let root = open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Stage::Supervision, "/")?;
    let listener = match listener::install(&traps::program(mode)) {
        // Where something else supervises already, no device can be made, and all else is as it should be.
        Err(_) if !mode.emulates_ids() => return Ok(false),
        installed => installed.at(Stage::Supervision, "listener")?,
    };
    errands.supervise(&Supervise {
        listener,
        root,
        capabilities,
    })?;
    Ok(mode.emulates_ids())
}

fn become_user(instructions: &Instructions) -> Result<(), Failure> {
    privileges::become_user(instructions.uid, instructions.gid, &instructions.groups)
        .at(Stage::Identity, "")
}

/// Has the kernel kill this process when its parent dies, and makes sure that it has not died before.
pub(super) fn die_with_parent(status: &PipeWriter) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).at(Stage::Parent, "")?;
    // The parent's pid is not visible from in here. Its end of the pipe is.
    let mut fds = [PollFd::new(status, PollFlags::empty())];
    poll(&mut fds, Some(&rustix::time::Timespec::default())).at(Stage::Parent, "")?;
    if fds[0].revents().contains(PollFlags::ERR) {
        return Err(Errno::SRCH).at(Stage::Parent, "");
    }
    Ok(())
}

/// Makes all the others; the pid namespace is there.
fn make_namespaces(private_network: bool, cgroups: Cgroups) -> Result<(), Failure> {
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // On version 1 the command sees the machine's hierarchies, and its own place in them has to agree with that.
    if cgroups == Cgroups::Unified {
        flags |= UnshareFlags::NEWCGROUP;
    }
    if private_network {
        flags |= UnshareFlags::NEWNET;
    }
    // SAFETY: the flags do not contain FILES, the one that the function warns of.
    unsafe { unshare_unsafe(flags) }.at(Stage::Namespaces, "")?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .at(Stage::Namespaces, "make mounts private")
}

/// Puts all handlers back and unblocks all signals: whoever started the builder may have ignored some.
pub(super) fn default_signals() {
    /// No smaller than the kernel's `struct sigaction`; all zeroes are the default action without flags.
    const DEFAULT: [u64; 8] = [0; 8];
    const SET_SIZE: usize = 8;
    for signal in 1..=64 {
        // The C library refuses to touch two of them. SIGKILL and SIGSTOP are refused by the kernel, which is well.
        // SAFETY: the kernel reads a structure that is no larger than DEFAULT and writes nothing; no code is installed.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SET_SIZE,
            );
        }
    }
    // SAFETY: an empty set is made by sigemptyset before use; the old mask is not asked for.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Makes the mount `/`, which it is attached over. Returns whether the host's tree is gone; where `pivot_root` is filtered or
/// impossible (an initial ramdisk) it is only out of reach.
fn change_root(root: &Mount) -> Result<bool, Failure> {
    let stage = Stage::Pivot;
    fchdir(root).at(stage, "fchdir")?;
    let was_pivoted = match pivot_root(".", ".") {
        Ok(()) => {
            // The old root is now mounted over the new one, where "." leads.
            unmount(".", UnmountFlags::DETACH).at(stage, "umount")?;
            true
        }
        Err(_) => {
            chroot(".").at(stage, "chroot")?;
            false
        }
    };
    chdir("/").at(stage, "chdir")?;
    // Something that is still mounted over the root would show where a path leaves it upwards.
    let (root, above) = (stat("/").at(stage, "/")?, stat("/..").at(stage, "/..")?);
    if (root.st_dev, root.st_ino) != (above.st_dev, above.st_ino) {
        return Err(Errno::BUSY).at(stage, "/..");
    }
    Ok(was_pivoted)
}

fn connect_streams(handover: &Handover<'_>, null: &OwnedFd, uid: u32) -> Result<(), Failure> {
    let stage = Stage::Streams;
    for (fd, number) in [
        (
            handover.stdin.as_ref().unwrap_or(null).as_fd(),
            libc::STDIN_FILENO,
        ),
        (handover.stdout.as_fd(), libc::STDOUT_FILENO),
        (handover.stderr.as_fd(), libc::STDERR_FILENO),
    ] {
        // SAFETY: the three standard descriptors belong to nobody in this process: nothing here prints or reads.
        if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
            return Err(std::io::Error::last_os_error()).at(stage, "dup2");
        }
    }
    for fd in [&handover.stdout, &handover.stderr]
        .into_iter()
        .chain(&handover.stdin)
    {
        // /dev/stdout leads to the pipe's inode, which is opened again with the user's rights. An id that cannot be mapped is
        // reported when the process is to become it.
        fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>).ok();
    }
    Ok(())
}

/// Inside the root and by names alone: `/proc/self/fd/N` leads nowhere (CVE-2024-21626). What is missing is made in a mount,
/// whose owner could not know of it, but not in the root.
fn enter_working_directory(path: &str) -> Result<(), Failure> {
    let root = open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Stage::WorkingDirectory, "/")?;
    let enter = || {
        let root_id = mount_id(root.as_fd())?;
        let directory = walk::walk(root.as_fd(), path, |parent, name, _| {
            if mount_id(parent)? == root_id {
                return Err(Errno::NOENT);
            }
            mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            walk::open(parent, name)
        });
        fchdir(directory?)?;
        // The kernel says so if it is not below the root.
        let here = rustix::process::getcwd(Vec::new())?;
        if here.as_bytes().starts_with(b"/") {
            Ok(())
        } else {
            Err(Errno::NOENT)
        }
    };
    enter().at(Stage::WorkingDirectory, path)
}

/// Leaves no descriptor to the command from `first` on.
pub(super) fn close_on_exec_from(first: libc::c_uint) -> Result<(), Errno> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes descriptors that this process was started with and knows nothing about.
pub(super) fn close_from(first: libc::c_uint) -> Result<(), Errno> {
    close_range(first, 0)
}

fn close_range(first: libc::c_uint, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the callers see to it that no live value of this process owns a descriptor in the range that is closed: one of
    // them only sets a flag, the other runs before any is opened.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
