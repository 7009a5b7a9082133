//! The inner half: becomes the command.
//!
//! It waits to be traced before it does anything that needs it, and has nothing of the outer half's when it executes.

use std::io::{PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, chroot, fchdir, set_dumpable_behavior, setsid};

use super::super::command::Command;
use super::super::dialogue::{self, Input};
use super::super::errand::{Errands, Supervise};
use super::super::inner::{close_on_exec_from, default_signals, die_with_parent};
use super::super::instructions::Instructions;
use super::super::landlock::{self, Access};
use super::super::report::{At, Failure, Report, Stage};
use super::super::supervise::{listener, paths_program};
use super::super::{filter, limits, privileges};

/// What it starts with.
pub(super) struct Start<'a> {
    /// What becomes its root directory, if anything does.
    pub(super) root: Option<BorrowedFd<'a>>,
    pub(super) cwd: BorrowedFd<'a>,
    /// `None` is `/dev/null`.
    pub(super) stdin: Option<&'a OwnedFd>,
    pub(super) stdout: &'a OwnedFd,
    pub(super) stderr: &'a OwnedFd,
    /// What it may reach by itself.
    pub(super) within: Vec<(BorrowedFd<'a>, Access)>,
    /// Where the report goes; its reader lives as long as the outer half.
    pub(super) status: &'a PipeWriter,
    pub(super) errands: Errands,
}

/// Becomes the command; returns only if that failed.
pub(super) fn become_command(start: Start<'_>, instructions: &Instructions) -> Report {
    match prepare(start, instructions) {
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

fn prepare(start: Start<'_>, instructions: &Instructions) -> Result<Command, Failure> {
    die_with_parent(start.status)?;
    // Cannot fail for a process that has just been forked.
    setsid().at(Stage::Parent, "setsid")?;
    default_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    connect_streams(&start)?;
    if instructions.input == Input::Terminal {
        dialogue::take_terminal().at(Stage::Streams, "terminal")?;
    }
    if let Some(root) = start.root {
        fchdir(root).at(Stage::Pivot, "fchdir")?;
        chroot(".").at(Stage::Pivot, "chroot")?;
    }
    fchdir(start.cwd).at(Stage::WorkingDirectory, &instructions.cwd)?;

    let command = Command::new(&instructions.argv, instructions.env.reveal());
    let confinement = filter::program();
    close_on_exec_from(3).at(Stage::Streams, "close_range")?;
    limits::apply(&instructions.limits_to_set())?;
    // The outer half has to look into it; nobody else of the user's can, once Landlock is on.
    set_dumpable_behavior(DumpableBehavior::Dumpable).at(Stage::Parent, "dumpable")?;
    rustix::thread::set_no_new_privs(true).at(Stage::Capabilities, "no_new_privs")?;
    let kept = privileges::kept(false);
    privileges::drop_all().at(Stage::Capabilities, "")?;
    let level =
        landlock::restrict(&start.within, instructions.private_network).at(Stage::Landlock, "")?;
    filter::install(&confinement).at(Stage::Filter, "")?;

    let mut sender = Sender::start(start.errands)?;
    let program = paths_program(!level.has_scopes(), instructions.private_network);
    let listener = listener::install(&program).at(Stage::Supervision, "listener")?;
    sender.send(listener, kept.bits())?;
    Ok(command)
}

fn connect_streams(start: &Start<'_>) -> Result<(), Failure> {
    let stage = Stage::Streams;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let null = open("/dev/null", flags, Mode::empty()).at(stage, "/dev/null")?;
    for (fd, number) in [
        (start.stdin.unwrap_or(&null).as_fd(), libc::STDIN_FILENO),
        (start.stdout.as_fd(), libc::STDOUT_FILENO),
        (start.stderr.as_fd(), libc::STDERR_FILENO),
    ] {
        // SAFETY: the three standard descriptors belong to nobody in this process: nothing here prints or reads.
        if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
            return Err(std::io::Error::last_os_error()).at(stage, "dup2");
        }
    }
    Ok(())
}

/// Sends the listener. To send a descriptor is itself a call that is held once there is one, and nobody answers before it has
/// arrived: so a twin of this process, made before, with the same descriptors, does it.
struct Sender {
    twin: i32,
    number: PipeWriter,
    answer: std::io::PipeReader,
}

impl Sender {
    fn start(errands: Errands) -> Result<Sender, Failure> {
        let stage = Stage::Supervision;
        let (mut numbers, number) = std::io::pipe().at(stage, "pipe")?;
        let (answer, mut answers) = std::io::pipe().at(stage, "pipe")?;
        let flags = libc::CLONE_FILES | libc::SIGCHLD;
        // SAFETY: this process has one thread, so that the child, which has a copy of its memory, is whole. Descriptors are
        // shared: what the child owns by name it does not close, since it ends without running anything else.
        match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
            0 => {
                let mut bytes = [0; 12];
                let told = match numbers.read_exact(&mut bytes) {
                    Ok(()) => send(&errands, bytes),
                    Err(error) => Err(error).at(stage, "sender"),
                };
                let report = match told {
                    Ok(()) => vec![0],
                    Err(failure) => Report::Failed(failure).encode(),
                };
                // If this fails the other one is gone.
                answers.write_all(&report).ok();
                // SAFETY: ends the process; no code of ours runs after it.
                unsafe { libc::_exit(0) }
            }
            twin => {
                let twin = i32::try_from(twin)
                    .ok()
                    .filter(|twin| *twin > 0)
                    .ok_or_else(std::io::Error::last_os_error)
                    .at(stage, "clone")?;
                // The errands' socket stays open in both: the outer half goes by what is said, and by the command's end.
                std::mem::forget((errands, numbers, answers));
                Ok(Sender {
                    twin,
                    number,
                    answer,
                })
            }
        }
    }

    /// Waits until the outer half serves this process.
    fn send(&mut self, listener: OwnedFd, capabilities: u64) -> Result<(), Failure> {
        let stage = Stage::Supervision;
        let mut bytes = listener.as_raw_fd().to_ne_bytes().to_vec();
        bytes.extend(capabilities.to_ne_bytes());
        self.number.write_all(&bytes).at(stage, "sender")?;
        let mut answer = vec![0; 4096];
        let count = self.answer.read(&mut answer).at(stage, "sender")?;
        let mut status = 0;
        // SAFETY: the kernel writes one number to a live local.
        unsafe { libc::waitpid(self.twin, &raw mut status, libc::__WALL) };
        drop(listener);
        match &answer[..count] {
            [0] => Ok(()),
            report => match Report::decode(report) {
                Some(Report::Failed(failure)) => Err(failure),
                _ => Err(Errno::BADMSG).at(stage, "sender"),
            },
        }
    }
}

fn send(errands: &Errands, bytes: [u8; 12]) -> Result<(), Failure> {
    let [number, low, high] = [0, 4, 8].map(|at| bytes[at..at + 4].try_into().expect("four bytes"));
    let capabilities =
        u64::from(u32::from_ne_bytes(low)) | u64::from(u32::from_ne_bytes(high)) << 32;
    // SAFETY: the sender of the number owns the descriptor, which both share, and keeps it until it has an answer.
    let listener = unsafe { BorrowedFd::borrow_raw(i32::from_ne_bytes(number)) };
    let listener = listener
        .try_clone_to_owned()
        .at(Stage::Supervision, "dup")?;
    let root = rustix::fs::openat(
        rustix::fs::CWD,
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    errands.supervise(&Supervise {
        listener,
        root: root.at(Stage::Supervision, "root")?,
        capabilities,
    })
}
