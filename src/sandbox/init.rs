//! Init's outer half: makes the mount points and the pid namespace, forks, and stays outside until the command has ended.
//!
//! It lives in the builder's namespaces (mount points in use could not be removed from within), in a session of its own. Its
//! only tie to the builder is the socket on its standard input: an order and descriptors come in, a pidfd of the inner half
//! and one report go out, and when the other end closes, for whatever reason, everything ends. Not a parent-death signal: that
//! would follow the builder's thread, and a command that is a set-user-ID program has none itself. Until the command is
//! executed the inner half has errands for it.

use std::ffi::CString;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal,
    set_dumpable_behavior, setsid, waitpid,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::vocab::Ledger;

use super::bare;
use super::control;
use super::dialogue::Input;
use super::emulate::{self, Registered};
use super::errand::{self, Desk, Errand, Errands, Owned, Supervise};
use super::inner::{self, Handover};
use super::instructions::Instructions;
use super::mount::Mount;
use super::order::Order;
use super::report::{At, Failure, Report, Stage};
use super::role::INIT;
use super::stub::Stubs;
use super::supervise::{Plan, Supervision, passing};
use super::view::{Cgroups, Targets};

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
pub(super) fn exit(status: i32) -> ! {
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
    let (report, ledger) = match ended {
        Ok(Some(outcome)) => (outcome.report, outcome.ledger),
        // Nobody is there to be told.
        Ok(None) => return 1,
        Err(failure) => (Report::Failed(failure), None),
    };
    let (report, ledger) = match ledger.map(|ledger| passing::pack(&ledger)).transpose() {
        Ok(ledger) => (report, ledger),
        Err(errno) => {
            let failure = Err::<(), _>(errno).at(Stage::Ledger, "");
            (Report::Failed(failure.expect_err("just made")), None)
        }
    };
    let ledger: Vec<_> = ledger.iter().map(AsFd::as_fd).collect();
    match control::pass(control, &report.encode(), &ledger) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// How it ended, and what the files of a supervised command are then.
pub(super) struct Outcome {
    pub(super) report: Report,
    pub(super) ledger: Option<Ledger>,
}

/// Returns `None` if the builder left.
fn run(control: &UnixStream, stubs: &mut Stubs) -> Result<Option<Outcome>, Failure> {
    let (bytes, fds) = control::receive(control).at(Stage::Instructions, "")?;
    let Some(order) = Order::decode(&bytes) else {
        return Err(Errno::BADMSG).at(Stage::Instructions, "");
    };
    drop(bytes);
    match order {
        Order::Run(instructions) => run_command(control, instructions, fds, stubs),
        Order::TryEmulation => {
            supervised(
                control,
                Charge::default(),
                stubs,
                |_, errands| match emulate::enter(&errands) {
                    Ok(()) => Report::Exited(0),
                    Err(failure) => Report::Failed(failure),
                },
            )
        }
    }
}

fn run_command(
    control: &UnixStream,
    instructions: Box<Instructions>,
    fds: Vec<OwnedFd>,
    stubs: &mut Stubs,
) -> Result<Option<Outcome>, Failure> {
    if fds.len() != instructions.descriptors() {
        return Err(Errno::BADMSG).at(Stage::Instructions, "descriptors");
    }
    let mut fds = fds.into_iter();
    let mut next = || fds.next().expect("counted");
    let (root, stdout, stderr) = (next(), next(), next());
    let stdin = (instructions.input != Input::Nothing).then(&mut next);
    if instructions.bare.is_some() {
        let trees = (0..instructions.trees()).map(|_| next()).collect();
        let ledger = passing::unpack(next()).at(Stage::Ledger, "")?;
        let order = bare::Order {
            root,
            stdin,
            stdout,
            stderr,
            trees,
            scratch: next(),
            ledger,
        };
        return bare::run(control, instructions, order, stubs);
    }
    let trees = (0..instructions.trees())
        .map(|_| Mount::from_fd(next()))
        .collect();
    let emulators = instructions
        .emulators
        .iter()
        .map(|architecture| (architecture.clone(), next()))
        .collect();

    let plan = match instructions.supervised {
        None => None,
        Some(_) => instructions.supervision(passing::unpack(next()).at(Stage::Ledger, "")?),
    };
    let charge = Charge { emulators, plan };

    let cgroups = Cgroups::of_this_machine();
    // SAFETY: not FILES, the flag that the function warns of.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.at(Stage::Namespaces, "pid")?;
    let targets = Targets::find(root.as_fd(), stubs)?;
    // What the inner half has is in this process no longer: the builder reads the output to its end, and secrets are dropped.
    supervised(control, charge, stubs, move |status, errands| {
        inner::become_command(
            Handover {
                root: Mount::from_fd(root),
                trees,
                targets,
                stdin,
                stdout,
                stderr,
                cgroups,
                status,
                errands,
            },
            &instructions,
        )
    })
}

/// What the outer half is to do for the inner one.
#[derive(Default)]
struct Charge {
    emulators: Vec<Registered>,
    plan: Option<Plan>,
}

/// Forks the inner half and waits for its end. `inner` is done by it alone, and what it owns is dropped here.
fn supervised(
    control: &UnixStream,
    charge: Charge,
    stubs: &mut Stubs,
    inner: impl FnOnce(&PipeWriter, Errands) -> Report,
) -> Result<Option<Outcome>, Failure> {
    let (status, inner_status) = std::io::pipe().at(Stage::Fork, "pipe")?;
    let (errands, desk) = errand::pair().at(Stage::Fork, "socketpair")?;
    let Some(child) = fork().at(Stage::Fork, "")? else {
        drop((status, desk, charge));
        let report = inner(&inner_status, errands);
        // If this cannot be written the outer half is gone, and this process with it.
        (&inner_status).write_all(&report.encode()).ok();
        exit(127);
    };
    drop((inner, errands, inner_status));
    Supervisor {
        control,
        child,
        desk: Some(desk),
        charge,
        instance: None,
        supervision: None,
        stubs,
    }
    .supervise(status)
}

/// Returns the child's pid to the parent, `None` to the child.
pub(super) fn fork() -> std::io::Result<Option<Pid>> {
    // SAFETY: this process has one thread, which `main` of the program guarantees by performing roles first; so the child is
    // whole: no lock is held by a thread that it lacks.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// What the outer half is busy with while the inner one lives.
struct Supervisor<'a> {
    control: &'a UnixStream,
    child: Pid,
    /// `None` when the inner half has no more errands.
    desk: Option<Desk>,
    charge: Charge,
    /// Keeps the emulators known.
    instance: Option<Mount>,
    /// `None` before it begins, and for commands without.
    supervision: Option<Supervision>,
    stubs: &'a mut Stubs,
}

impl Supervisor<'_> {
    /// Waits for the command's end, or brings it about when the builder leaves.
    fn supervise(mut self, mut status: PipeReader) -> Result<Option<Outcome>, Failure> {
        let pidfd = match pidfd_open(self.child, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                rustix::process::kill_process(self.child, Signal::KILL).ok();
                wait(self.child).ok();
                return Err(errno).at(Stage::Fork, "pidfd_open");
            }
        };
        // If this process is killed, the builder can still kill the command.
        let builder_left = control::pass(self.control, &[0], &[pidfd.as_fd()]).is_err()
            || self.wait_for_either(pidfd.as_fd());
        if builder_left {
            // Fails only if it has ended by itself.
            pidfd_send_signal(&pidfd, Signal::KILL).ok();
        }
        let ended = wait(self.child).at(Stage::Fork, "wait")?;
        // Its end of the socket is closed, so that this does not block.
        while self.run_errand() {}
        if builder_left {
            return Ok(None);
        }
        // All writers are gone: this does not block.
        let mut bytes = Vec::new();
        status.read_to_end(&mut bytes).at(Stage::Fork, "status")?;
        let report = if bytes.is_empty() {
            ended
        } else {
            Report::decode(&bytes)
                .ok_or(Errno::BADMSG)
                .at(Stage::Fork, "status")?
        };
        Ok(Some(Outcome {
            report,
            ledger: match self.supervision {
                Some(supervision) => Some(supervision.into_ledger()),
                // Nothing could be supervised, so nothing has changed.
                None => self.charge.plan.map(|plan| plan.ledger),
            },
        }))
    }

    /// Returns whether the builder left before the command ended. Runs errands meanwhile.
    fn wait_for_either(&mut self, pidfd: BorrowedFd<'_>) -> bool {
        let mut is_over = false;
        loop {
            let desk = self.desk.as_ref().map(AsFd::as_fd);
            let held = self
                .supervision
                .as_ref()
                .filter(|_| !is_over)
                .map(AsFd::as_fd);
            // What is not there is asked about in another's place, for nothing.
            let [desk, held] = [desk, held].map(|fd| match fd {
                Some(fd) => PollFd::from_borrowed_fd(fd, PollFlags::IN),
                None => PollFd::from_borrowed_fd(pidfd, PollFlags::empty()),
            });
            let mut fds = [
                PollFd::new(self.control, PollFlags::IN | PollFlags::RDHUP),
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
                desk,
                held,
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                // Cannot happen; ending everything is the safe answer.
                Err(_) => return true,
                Ok(_) => {}
            }
            let [builder, command, errand, held] = fds.map(|fd| !fd.revents().is_empty());
            if command {
                return false;
            }
            // The builder has nothing more to say: whatever this is, it is the end.
            if builder {
                return true;
            }
            if errand {
                self.run_errand();
            }
            if held && let Some(supervision) = &mut self.supervision {
                // At its end every process of the command is gone, and so is the first, soon.
                is_over |= !supervision.serve();
            }
        }
    }

    /// Runs one errand; returns whether there may be more.
    fn run_errand(&mut self) -> bool {
        let Some(desk) = self.desk.take() else {
            return false;
        };
        let Some(errand) = desk.take() else {
            return false;
        };
        let done = errand.and_then(|errand| match errand {
            Errand::Remember(stub) => {
                self.stubs.push(stub);
                Ok(())
            }
            Errand::MapIds => emulate::map_ids(self.child),
            Errand::Register(instance) => {
                let done = emulate::register(&instance, &self.charge.emulators);
                self.instance = Some(instance);
                done
            }
            Errand::Own(owned) => self.write_down(&owned).at(Stage::Supervision, ""),
            Errand::Supervise(request) => self.begin(request).at(Stage::Supervision, ""),
        });
        desk.answer(done);
        self.desk = Some(desk);
        true
    }

    fn write_down(&mut self, owned: &Owned) -> Result<(), Errno> {
        let plan = self.charge.plan.as_mut().ok_or(Errno::INVAL)?;
        plan.own(owned.file.as_fd(), owned.uid, owned.gid, owned.mode)
    }

    /// Begins to supervise.
    fn begin(&mut self, request: Supervise) -> Result<(), Errno> {
        let plan = self.charge.plan.take().ok_or(Errno::INVAL)?;
        self.supervision = Some(Supervision::new(
            plan,
            request.listener,
            request.root,
            self.child.as_raw_pid(),
            request.capabilities,
        )?);
        Ok(())
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
