//! Init's outer half: makes the mount points and the pid namespace, forks, and stays outside until the command has ended.
//!
//! It lives in the builder's namespaces (mount points in use could not be removed from within), in a session of its own. Its only tie to the builder is the socket on its
//! standard input: instructions and descriptors come in, a pidfd of the inner half and one report go out, and when the other
//! end closes, for whatever reason, everything ends. Not a parent-death signal: that would follow the builder's thread, and a
//! command that is a set-user-ID program has none itself.

use std::ffi::CString;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal,
    set_dumpable_behavior, setsid, waitpid,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::control;
use super::inner::{self, Handover};
use super::mount::Mount;
use super::report::{At, Failure, Report, Stage};
use super::role::INIT;
use super::spec::Instructions;
use super::view::{Cgroups, Targets};
use super::walk::Stubs;

/// Performs the role of init.
pub(super) fn main() -> ! {
    // None of these can fail in a way that matters: the first belongs to kernels that cannot do the rest either.
    inner::close_from(3).ok();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    rustix::thread::set_name(&CString::new(INIT).expect("has no NUL")).ok();
    // Fails for a process group's leader, which the builder did not make this.
    setsid().ok();
    let status = match control() {
        Ok(control) => serve(&control),
        Err(_) => 1,
    };
    exit(status)
}

/// Ends without running anything else: neither half has anything to flush.
fn exit(status: i32) -> ! {
    // SAFETY: ends the process; no code of ours runs after it.
    unsafe { libc::_exit(status) }
}

fn control() -> Result<UnixStream, Errno> {
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
    Ok(UnixStream::from(socket))
}

/// Runs one command; returns the status of this process.
fn serve(control: &UnixStream) -> i32 {
    let mut stubs = Stubs::default();
    let ended = run(control, &mut stubs);
    stubs.remove();
    let report = match ended {
        Ok(Some(report)) => report,
        // Nobody is there to be told.
        Ok(None) => return 1,
        Err(failure) => Report::Failed(failure),
    };
    match control::pass(control, &report.encode(), &[]) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// Returns `None` if the builder left.
fn run(control: &UnixStream, stubs: &mut Stubs) -> Result<Option<Report>, Failure> {
    let (bytes, fds) = control::receive(control).at(Stage::Instructions, "")?;
    let wrong = Err(Errno::BADMSG);
    let Ok([root, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
        return wrong.at(Stage::Instructions, "descriptors");
    };
    let Some(instructions) = Instructions::decode(&bytes) else {
        return wrong.at(Stage::Instructions, "");
    };
    drop(bytes);

    let cgroups = Cgroups::of_this_machine();
    // SAFETY: not FILES, the flag that the function warns of.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.at(Stage::Namespaces, "pid")?;
    let targets = Targets::find(root.as_fd(), &instructions, stubs)?;
    let (status, inner_status) = std::io::pipe().at(Stage::Fork, "pipe")?;
    let Some(child) = fork().at(Stage::Fork, "")? else {
        drop(status);
        let report = inner::become_command(
            Handover {
                root: Mount::from_fd(root),
                targets,
                stdout,
                stderr,
                cgroups,
                status: &inner_status,
            },
            &instructions,
        );
        // If this cannot be written the outer half is gone, and this process with it.
        (&inner_status).write_all(&report.encode()).ok();
        exit(127);
    };
    // What the inner half has must end with it: the builder reads the output to its end.
    drop((root, targets, stdout, stderr, inner_status));
    supervise(control, child, status)
}

/// Returns the child's pid to the parent, `None` to the child.
fn fork() -> std::io::Result<Option<Pid>> {
    // SAFETY: this process has one thread, which `main` of the program guarantees by performing roles first; so the child is
    // whole: no lock is held by a thread that it lacks.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Waits for the command's end, or brings it about when the builder leaves.
fn supervise(
    control: &UnixStream,
    child: Pid,
    status: PipeReader,
) -> Result<Option<Report>, Failure> {
    let pidfd = match pidfd_open(child, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(errno) => {
            rustix::process::kill_process(child, Signal::KILL).ok();
            wait(child).ok();
            return Err(errno).at(Stage::Fork, "pidfd_open");
        }
    };
    // If this process is killed, the builder can still kill the command.
    let builder_left = control::pass(control, &[0], &[pidfd.as_fd()]).is_err()
        || wait_for_either(control, pidfd.as_fd());
    if builder_left {
        // Fails only if it has ended by itself.
        pidfd_send_signal(&pidfd, Signal::KILL).ok();
    }
    let ended = wait(child).at(Stage::Fork, "wait")?;
    if builder_left {
        return Ok(None);
    }
    // All writers are gone: this does not block.
    let mut bytes = Vec::new();
    let mut status = status;
    status.read_to_end(&mut bytes).at(Stage::Fork, "status")?;
    Ok(Some(if bytes.is_empty() {
        ended
    } else {
        Report::decode(&bytes)
            .ok_or(Errno::BADMSG)
            .at(Stage::Fork, "status")?
    }))
}

/// Returns whether the builder left before the command ended.
fn wait_for_either(control: &UnixStream, pidfd: BorrowedFd<'_>) -> bool {
    loop {
        let mut fds = [
            PollFd::new(control, PollFlags::IN | PollFlags::RDHUP),
            PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            // Cannot happen; ending everything is the safe answer.
            Err(_) => return true,
            Ok(_) => {}
        }
        if !fds[1].revents().is_empty() {
            return false;
        }
        // The builder has nothing more to say: whatever this is, it is the end.
        if !fds[0].revents().is_empty() {
            return true;
        }
    }
}

fn wait(child: Pid) -> Result<Report, Errno> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(None) => {}
            Ok(Some((_, status))) => {
                if let Some(code) = status.exit_status() {
                    return Ok(Report::Exited(code));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Report::Signalled(signal));
                }
            }
        }
    }
}
