//! The builder's side of one command.

use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::vocab::{Cancel, Stream};

use super::cgroup::StepGroup;
use super::dialogue::{Dialogue, Ends, Feed};
use super::error::RunError;
use super::instructions::Instructions;
use super::mount::Mount;
use super::order::Order;
use super::report::{At, Failure, Report, Stage};
use super::role::INIT;
use super::spec::{Ended, Exit, MountSource, RunSpec};
use super::supervise::passing;
use super::{control, enter, executable};

/// How often the flag is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long init may take to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Output is read in pieces of at most this size.
const PIECE: usize = 64 << 10;
/// What a pipe can hold at most after its last writer has gone (`fs.pipe-max-size` without privileges).
const PIPE_CAPACITY: usize = 1 << 20;

/// Runs a command to its end, or to that of `cancel`, and hands over its output as it comes. When it returns, the command and
/// all its descendants are gone.
///
/// Blocks; several threads may run commands at the same time. An `output` that blocks holds up the command, not the builder's
/// other work.
pub fn run(
    spec: RunSpec,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<Ended, RunError> {
    run_attended(spec, &Dialogue::default(), output, cancel)
}

/// Runs a command as [`run`] does, and passes on to it what `dialogue` says. What it prints on a terminal comes as standard
/// output.
pub fn run_attended(
    spec: RunSpec,
    dialogue: &Dialogue<'_>,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<Ended, RunError> {
    if !enter::entered() {
        return Err(RunError::NotEntered);
    }
    if cancel.is_cancelled() {
        return Err(RunError::Cancelled);
    }
    let instructions = Instructions {
        input: dialogue.kind(),
        ..Instructions::new(&spec)?
    };
    let running = Running::start(&spec, instructions, dialogue)?;
    let (report, ledger, ended_by) = running.finish(output, cancel)?;
    let exit = match (report.into_result(&spec)?, ended_by) {
        (Exit::Signal(libc::SIGKILL), Some(signal)) => Exit::Signal(signal),
        (exit, _) => exit,
    };
    let ledger = match spec.ledger {
        None => None,
        Some(_) => Some(
            ledger
                .ok_or(Errno::BADMSG)
                .and_then(passing::unpack)
                .at(Stage::Ledger, "")
                .map_err(Failure::into_setup)?,
        ),
    };
    Ok(Ended { exit, ledger })
}

/// Tells whether commands can have emulators here; the error says why not. Blocks for as long as an empty command.
pub fn emulators_work() -> Result<(), RunError> {
    if !enter::entered() {
        return Err(RunError::NotEntered);
    }
    let running = Running::spawn(
        &Order::TryEmulation,
        &[],
        [None, None],
        Feed::default(),
        None,
    )?;
    match running.finish(&mut |_, _| (), &Cancel::new())?.0 {
        Report::Failed(failure) => Err(failure.into_setup()),
        _ => Ok(()),
    }
}

/// A command in progress. Dropping it ends the command.
struct Running {
    init: Child,
    control: UnixStream,
    /// The inner half, which is the command.
    command: Option<OwnedFd>,
    streams: [(Stream, Option<File>); 2],
    feed: Feed,
    report: Vec<u8>,
    /// What the files of a supervised command are at its end.
    ledger: Option<OwnedFd>,
}

impl Running {
    fn start(
        spec: &RunSpec,
        instructions: Instructions,
        dialogue: &Dialogue<'_>,
    ) -> Result<Running, RunError> {
        let failed = |source: io::Error| RunError::Spawn { source };
        let mountable = |fd: &OwnedFd| match spec.scratch {
            Some(_) => Ok(None),
            None => mountable(fd),
        };
        let root = mountable(&spec.root).map_err(|errno| RunError::Setup {
            stage: Stage::Root.name(),
            detail: String::new(),
            source: errno.into(),
        })?;
        let trees = spec
            .mounts
            .iter()
            .filter_map(|mount| match &mount.source {
                MountSource::Tree { fd, .. } => Some((&mount.target, fd)),
                _ => None,
            })
            .map(|(target, fd)| match mountable(fd) {
                Ok(mount) => Ok((mount, fd)),
                Err(errno) => Err(RunError::Mount {
                    target: target.clone(),
                    source: errno.into(),
                }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let ends = Ends::of(dialogue).map_err(|source| RunError::Dialogue { source })?;
        let (streams, writers) = match (ends.screen, ends.terminal) {
            (Some(screen), Some(terminal)) => {
                let twin = terminal.try_clone().map_err(failed)?;
                ([Some(screen), None], [terminal, twin])
            }
            _ => {
                let (stdout, stdout_writer) = output_pipe().map_err(failed)?;
                let (stderr, stderr_writer) = output_pipe().map_err(failed)?;
                ([Some(stdout), Some(stderr)], [stdout_writer, stderr_writer])
            }
        };
        let mut fds = vec![
            root.as_ref().map_or(spec.root.as_fd(), AsFd::as_fd),
            writers[0].as_fd(),
            writers[1].as_fd(),
        ];
        fds.extend(ends.stdin.iter().map(AsFd::as_fd));
        fds.extend(
            trees
                .iter()
                .map(|(mount, fd)| mount.as_ref().map_or(fd.as_fd(), AsFd::as_fd)),
        );
        fds.extend(
            spec.emulators
                .iter()
                .map(|emulator| emulator.program.as_fd()),
        );
        let ledger = match &spec.ledger {
            None => None,
            Some(ledger) => Some(
                passing::pack(ledger)
                    .at(Stage::Ledger, "")
                    .map_err(Failure::into_setup)?,
            ),
        };
        fds.extend(ledger.iter().map(AsFd::as_fd));
        fds.extend(spec.scratch.iter().map(AsFd::as_fd));
        let order = Order::Run(Box::new(instructions));
        let group = spec.group.as_deref();
        Running::spawn(&order, &fds, streams, ends.feed, group)
    }

    /// Starts init with an order.
    fn spawn(
        order: &Order,
        fds: &[BorrowedFd<'_>],
        [stdout, stderr]: [Option<File>; 2],
        feed: Feed,
        group: Option<&StepGroup>,
    ) -> Result<Running, RunError> {
        let failed = |source: io::Error| RunError::Spawn { source };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let init = Command::new(executable::path().map_err(failed)?)
            .arg0(INIT)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let running = Running {
            init,
            control: ours,
            command: None,
            streams: [(Stream::Stdout, stdout), (Stream::Stderr, stderr)],
            feed,
            report: Vec::new(),
            ledger: None,
        };
        if let Some(group) = group {
            // It has started nothing: that comes with the order.
            group
                .admit(running.init.id())
                .map_err(|source| RunError::Group { source })?;
        }
        control::send(&running.control, &order.encode(), fds).map_err(failed)?;
        Ok(running)
    }

    /// Follows it to its end.
    fn finish(
        mut self,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<(Report, Option<OwnedFd>, Option<i32>), RunError> {
        let was_cancelled = self.follow(output, cancel);
        let status = self.end(output)?;
        if was_cancelled {
            return Err(RunError::Cancelled);
        }
        let report = Report::decode(&self.report).ok_or_else(|| RunError::Lost {
            how: match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => status.to_string(),
            },
        })?;
        Ok((report, self.ledger.take(), self.feed.ended_by))
    }

    /// Passes the output on until init closes its end. Returns whether the command was told to end.
    fn follow(&mut self, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> bool {
        let mut buffer = vec![0; PIECE];
        let mut deadline = None;
        loop {
            if deadline.is_none() && cancel.is_cancelled() {
                // Init sees the end of its input and kills the command. A socket that is closed already has the same effect.
                self.control.shutdown(Shutdown::Write).ok();
                deadline = Some(Instant::now() + PATIENCE);
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return true;
            }
            let [out, err, control, source, sink, signals] = self.wait();
            if source {
                self.feed.read();
            }
            if sink {
                self.feed.write();
            }
            if signals && let Some(reason) = self.feed.pass_signals(self.command.as_ref()) {
                cancel.cancel(reason);
            }
            for (at, ready) in [out, err].into_iter().enumerate() {
                if ready {
                    self.pass_on(at, &mut buffer, output);
                }
            }
            if control && !self.receive() {
                return deadline.is_some();
            }
        }
    }

    /// Waits until something can be done with the streams, the socket or what is passed on, or for one tick.
    fn wait(&self) -> [bool; 6] {
        /// What is written to and not read from.
        const SINK: usize = 4;
        let mut fds = Vec::with_capacity(6);
        let sources = [
            self.streams[0].1.as_ref().map(AsFd::as_fd),
            self.streams[1].1.as_ref().map(AsFd::as_fd),
            Some(self.control.as_fd()),
            self.feed.source(),
            self.feed.sink(),
            self.feed.signals(),
        ];
        fds.extend(sources.iter().enumerate().filter_map(|(at, fd)| {
            let flags = match at == SINK {
                true => PollFlags::OUT,
                false => PollFlags::IN,
            };
            fd.map(|fd| PollFd::from_borrowed_fd(fd, flags))
        }));
        let tick = rustix::time::Timespec::try_from(TICK).expect("a tick is short");
        match poll(&mut fds, Some(&tick)) {
            // A signal: the flag may be up.
            Err(_) => [false; 6],
            Ok(_) => {
                let mut polled = fds.iter();
                sources.map(|source| {
                    source.is_some() && polled.next().is_some_and(|fd| !fd.revents().is_empty())
                })
            }
        }
    }

    /// Passes on one piece of one stream; returns its length, 0 if there is no more for now or for ever.
    fn pass_on(
        &mut self,
        at: usize,
        buffer: &mut [u8],
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> usize {
        let (stream, pipe) = &mut self.streams[at];
        match pipe.as_mut().map(|pipe| pipe.read(buffer)) {
            Some(Ok(count)) if count > 0 => {
                output(*stream, &buffer[..count]);
                count
            }
            Some(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                0
            }
            // The end; no other error is possible on a pipe.
            _ => {
                *pipe = None;
                0
            }
        }
    }

    /// Takes what init says; returns whether there may be more.
    fn receive(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match control::take(&self.control, &mut bytes) {
            Ok((0, _)) | Err(_) => false,
            Ok((count, fds)) => {
                let mut said = &bytes[..count];
                if let Some(fd) = fds.into_iter().next() {
                    if self.command.is_none() {
                        self.command = Some(fd);
                        // The byte that carried it.
                        said = &said[1..];
                    } else {
                        self.ledger = Some(fd);
                    }
                }
                self.report.extend_from_slice(said);
                true
            }
        }
    }

    /// Reaps init and passes on what is left in the pipes. Does not wait for their end: a command can hand a descriptor to a
    /// process outside.
    fn end(
        &mut self,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<std::process::ExitStatus, RunError> {
        if Report::decode(&self.report).is_none() {
            self.kill();
        }
        let status = self
            .init
            .wait()
            .map_err(|source| RunError::Spawn { source })?;
        let mut buffer = vec![0; PIECE];
        for at in 0..self.streams.len() {
            let mut left = PIPE_CAPACITY;
            while left > 0 {
                match self.pass_on(at, &mut buffer, output) {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
        }
        Ok(status)
    }

    /// Ends the command, whether or not init is still there to do it.
    fn kill(&mut self) {
        self.control.shutdown(Shutdown::Write).ok();
        if let Some(command) = &self.command {
            // Fails if it is gone.
            pidfd_send_signal(command, Signal::KILL).ok();
            wait_for_end(command);
        }
        // Init ends by itself now. Unless it is stuck, and then it has nothing left to do.
        let init = i32::try_from(self.init.id()).ok().and_then(Pid::from_raw);
        if let Some(Ok(init)) = init.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            wait_for_end(&init);
        }
        // Fails if it was reaped, and does nothing if it has ended.
        self.init.kill().ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Reaped already on every way but an early error or a panic in `output`.
        if !matches!(self.init.try_wait(), Ok(Some(_))) {
            self.kill();
            self.init.wait().ok();
        }
    }
}

/// Waits for the end of a process, but not for ever.
fn wait_for_end(process: &OwnedFd) {
    let patience = rustix::time::Timespec::try_from(PATIENCE).expect("patience is short");
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    while poll(&mut fds, Some(&patience)) == Err(Errno::INTR) {}
}

/// Returns a mount of a directory or file; `None` for what is a detached mount already, which older kernels do not copy.
fn mountable(root: &OwnedFd) -> Result<Option<Mount>, Errno> {
    match Mount::copy_tree(root, Path::new("")) {
        Ok(mount) => Ok(Some(mount)),
        Err(Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A pipe whose reading end does not block.
fn output_pipe() -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((File::from(reader), writer))
}
