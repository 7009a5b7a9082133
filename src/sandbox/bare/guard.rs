//! The outer half: makes the world, forks, traces, serves, and ends what is left.

use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::vocab::Ledger;

use super::super::control;
use super::super::dialogue::Input;
use super::super::errand::{self, Desk, Errand, Supervise};
use super::super::init::{Outcome, exit, fork};
use super::super::instructions::Instructions;
use super::super::landlock::Access;
use super::super::report::{At, Failure, Report, Stage};
use super::super::stub::Stubs;
use super::super::supervise::{Followed, Interrupts, Plan, Service, Supervision};
use super::start::{self, Start};
use super::world::{self, World};

/// What came with the instructions.
pub(in crate::sandbox) struct Order {
    pub(in crate::sandbox) root: OwnedFd,
    pub(in crate::sandbox) stdin: Option<OwnedFd>,
    pub(in crate::sandbox) stdout: OwnedFd,
    pub(in crate::sandbox) stderr: OwnedFd,
    pub(in crate::sandbox) trees: Vec<OwnedFd>,
    pub(in crate::sandbox) scratch: OwnedFd,
    pub(in crate::sandbox) ledger: Ledger,
}

/// Runs a command to its end; `None` if the builder left before.
pub(in crate::sandbox) fn run(
    control: &UnixStream,
    instructions: Box<Instructions>,
    order: Order,
    stubs: &mut Stubs,
) -> Result<Option<Outcome>, Failure> {
    let Order {
        root,
        stdin,
        stdout,
        stderr,
        trees,
        scratch,
        ledger,
    } = order;
    // All that is made here, and on the command's behalf, gets its mode as it is said.
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut world = world::make(root, trees, scratch, &instructions, ledger, stubs)?;
    if let (Input::Terminal, Some(terminal)) = (instructions.input, &stdin) {
        world.show_own_terminal(terminal).at(Stage::Dev, "tty")?;
    }
    let plan = instructions
        .supervision(std::mem::take(&mut world.ledger))
        .ok_or(Errno::INVAL)
        .at(Stage::Supervision, "")?;
    // What is left of the command when its first process has ended becomes this one's.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .at(Stage::Parent, "subreaper")?;
    let children = watch_children()
        .map_err(std::io::Error::from)
        .at(Stage::Fork, "signalfd")?;
    let (status, inner_status) = std::io::pipe().at(Stage::Fork, "pipe")?;
    let (errands, desk) = errand::pair().at(Stage::Fork, "socketpair")?;
    let Some(child) = fork().at(Stage::Fork, "")? else {
        drop((status, desk, children));
        let trees = world.guest.trees();
        let root = match world.guest.is_root_directory() {
            true => Some(trees[0].fd.as_fd()),
            false => None,
        };
        let mut within: Vec<_> = trees
            .iter()
            .enumerate()
            .filter(|(_, tree)| tree.holds_programs())
            .map(|(at, tree)| match at == 0 && root.is_some() {
                true => (tree.fd.as_fd(), Access::Use),
                false => (tree.fd.as_fd(), Access::Execute),
            })
            .collect();
        within.push((world.programs.as_fd(), Access::Execute));
        let report = start::become_command(
            Start {
                root,
                cwd: world.cwd.as_fd(),
                stdin: stdin.as_ref(),
                stdout: &stdout,
                stderr: &stderr,
                within,
                status: &inner_status,
                errands,
            },
            &instructions,
        );
        // If this cannot be written the outer half is gone, and this process with it.
        (&inner_status).write_all(&report.encode()).ok();
        exit(127);
    };
    // The builder reads the output to its end, and secrets are dropped.
    drop((errands, inner_status, stdin, stdout, stderr, instructions));
    Guard {
        control,
        child,
        children,
        desk: Some(desk),
        waiting: Some((plan, world)),
        supervision: None,
        made: Vec::new(),
    }
    .watch(status)
}

/// Has the ends and stops of children told by a descriptor.
fn watch_children() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(NixSignal::SIGCHLD);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

struct Guard<'a> {
    control: &'a UnixStream,
    child: Pid,
    children: SignalFd,
    /// `None` when the inner half has no more errands.
    desk: Option<Desk>,
    /// Until the inner half asks to be served.
    waiting: Option<(Plan, World)>,
    supervision: Option<Supervision>,
    made: Vec<crate::vocab::FileId>,
}

/// Why the watch is over.
enum End {
    BuilderLeft,
    Command(Followed),
}

impl Guard<'_> {
    fn watch(mut self, mut status: PipeReader) -> Result<Option<Outcome>, Failure> {
        let pidfd = pidfd_open(self.child, PidfdFlags::empty());
        let told = pidfd
            .and_then(|pidfd| {
                control::pass(self.control, &[0], &[pidfd.as_fd()])
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })
            .is_ok();
        let end = match told {
            true => self.wait(),
            false => End::BuilderLeft,
        };
        // Fails if it has ended.
        kill_process(self.child, Signal::KILL).ok();
        let ledger = match self.supervision.take() {
            Some(mut supervision) => {
                supervision.end_all();
                let mut ledger = supervision.into_ledger();
                for file in &self.made {
                    ledger.remove(file);
                }
                Some(ledger)
            }
            None => {
                end_children(self.child);
                None
            }
        };
        let End::Command(followed) = end else {
            return Ok(None);
        };
        // All writers are gone: this does not block.
        let mut bytes = Vec::new();
        status.read_to_end(&mut bytes).at(Stage::Fork, "status")?;
        let report = match (bytes.is_empty(), followed) {
            (false, _) => Report::decode(&bytes)
                .ok_or(Errno::BADMSG)
                .at(Stage::Fork, "status")?,
            (true, Followed::Exited(code)) => Report::Exited(code),
            (true, Followed::Killed(signal)) => Report::Signalled(signal),
        };
        Ok(Some(Outcome { report, ledger }))
    }

    fn wait(&mut self) -> End {
        loop {
            let children = self.children.as_fd();
            let absent = |fd: Option<BorrowedFd<'_>>| fd.is_some();
            let desk = self.desk.as_ref().map(AsFd::as_fd);
            let held = self.supervision.as_ref().map(AsFd::as_fd);
            let (has_desk, has_held) = (absent(desk), absent(held));
            // What is not there is asked about in another's place, for nothing.
            let polled = |fd: Option<BorrowedFd<'_>>| match fd {
                Some(_) => PollFlags::IN,
                None => PollFlags::empty(),
            };
            let mut fds = [
                PollFd::new(self.control, PollFlags::IN | PollFlags::RDHUP),
                PollFd::from_borrowed_fd(children, PollFlags::IN),
                PollFd::from_borrowed_fd(desk.unwrap_or(children), polled(desk)),
                PollFd::from_borrowed_fd(held.unwrap_or(children), polled(held)),
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                // Cannot happen; ending everything is the safe answer.
                Err(_) => return End::BuilderLeft,
                Ok(_) => {}
            }
            let [builder, child, errand, held] = fds.map(|fd| !fd.revents().is_empty());
            if held
                && has_held
                && let Some(supervision) = &mut self.supervision
            {
                supervision.serve();
            }
            if child {
                // What it says is no more than that there is something.
                while matches!(self.children.read_signal(), Ok(Some(_))) {}
                if let Some(followed) = self.followed() {
                    return End::Command(followed);
                }
            }
            // The builder has nothing more to say: whatever this is, it is the end.
            if builder {
                return End::BuilderLeft;
            }
            if errand && has_desk {
                self.run_errand();
            }
            if self.supervision.is_some()
                && let Ok(interrupts) = Interrupts::begin(self.control.as_fd())
            {
                return self.attend(&interrupts);
            }
        }
    }

    /// Waits for the end as `wait` does, from when the command is served, in fewer calls.
    fn attend(&mut self, interrupts: &Interrupts) -> End {
        // There are no more errands.
        self.desk = None;
        loop {
            // Before a look at what it is about: what comes after it interrupts the wait.
            let news = interrupts.take();
            if news.child
                && let Some(followed) = self.followed()
            {
                return End::Command(followed);
            }
            if news.input && self.builder_left() {
                return End::BuilderLeft;
            }
            if let Some(supervision) = &mut self.supervision {
                supervision.serve_until(interrupts);
            }
        }
    }

    fn builder_left(&self) -> bool {
        let flags = PollFlags::IN | PollFlags::RDHUP;
        let mut fds = [PollFd::new(self.control, flags)];
        !matches!(
            poll(&mut fds, Some(&Timespec::default())),
            Ok(0) | Err(Errno::INTR)
        )
    }

    fn followed(&mut self) -> Option<Followed> {
        if let Some(supervision) = &mut self.supervision {
            return supervision.follow();
        }
        let mut status = 0;
        let child = self.child.as_raw_pid();
        // SAFETY: the kernel writes one number to a live local.
        match unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } {
            pid if pid == child && libc::WIFEXITED(status) => {
                Some(Followed::Exited(libc::WEXITSTATUS(status)))
            }
            pid if pid == child && libc::WIFSIGNALED(status) => {
                Some(Followed::Killed(libc::WTERMSIG(status)))
            }
            _ => None,
        }
    }

    fn run_errand(&mut self) {
        let Some(desk) = self.desk.take() else {
            return;
        };
        let Some(errand) = desk.take() else {
            return;
        };
        let done = errand.and_then(|errand| match errand {
            Errand::Supervise(request) => self.begin(request).at(Stage::Supervision, ""),
            _ => Err(Errno::INVAL).at(Stage::Errand, ""),
        });
        desk.answer(done);
        self.desk = Some(desk);
    }

    fn begin(&mut self, request: Supervise) -> Result<(), Errno> {
        let (plan, world) = self.waiting.take().ok_or(Errno::INVAL)?;
        let child = self.child.as_raw_pid();
        let mut supervision = Supervision::new(
            plan,
            request.listener,
            request.root,
            child,
            request.capabilities,
        )?;
        let World {
            guest,
            terminals,
            programs,
            made,
            ..
        } = world;
        self.made = made;
        supervision.serve_paths(Service::new(guest, programs));
        supervision.show_terminals(terminals);
        supervision.follow_from(child)?;
        self.supervision = Some(supervision);
        Ok(())
    }
}

/// Waits for a child that was killed, and for what it may have made.
fn end_children(child: Pid) {
    kill_process(child, Signal::KILL).ok();
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one number to a live local.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        let error = std::io::Error::last_os_error();
        if ended < 0 && error.kind() != std::io::ErrorKind::Interrupted {
            return;
        }
    }
}
