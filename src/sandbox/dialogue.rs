//! What goes to a command while it runs: input, the size of its terminal, signals.
//!
//! In: what the builder itself was given. Nothing of it reaches the command as it is: input is copied to a pipe, or to a terminal
//! of the command's own, so that a command can neither read back the builder's files nor type at the user's terminal.
//!
//! ```text
//! builder's input ──► feed ──► pipe, or pty ──► command
//! builder's output ◄───────── pipes, or pty ◄── command
//! ```

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::vocab::CancelReason;

use super::signals::PassedSignals;

/// Input is read in pieces of at most this size.
const PIECE: usize = 16 << 10;
/// This many requests to end are passed on; the next one ends the command.
const PATIENCE: usize = 2;
/// Of a terminal that nothing is known of.
const USUAL_SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// How a command is attended while it runs.
#[derive(Clone, Copy, Default)]
pub struct Dialogue<'a> {
    /// What it reads; `None` is nothing.
    pub input: Option<BorrowedFd<'a>>,
    /// It has a terminal of its own for all its streams. Who shows the output on a real one has put that into raw mode.
    pub has_terminal: bool,
    /// The terminal whose size that one has.
    pub size_of: Option<BorrowedFd<'a>>,
    /// What is passed on to it.
    pub signals: Option<&'a PassedSignals>,
}

/// What a command's standard input is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Input {
    /// `/dev/null`
    #[default]
    Nothing,
    /// A descriptor that comes along.
    Given,
    /// The same, and it is the terminal of the command's session.
    Terminal,
}

impl Dialogue<'_> {
    pub(super) fn kind(&self) -> Input {
        match (self.has_terminal, self.input) {
            (true, _) => Input::Terminal,
            (false, Some(_)) => Input::Given,
            (false, None) => Input::Nothing,
        }
    }
}

/// The ends of the command's streams.
pub(super) struct Ends {
    /// The command's: standard input, if there is one.
    pub(super) stdin: Option<OwnedFd>,
    /// The command's, if they are no pipes.
    pub(super) terminal: Option<OwnedFd>,
    /// The builder's, of the terminal.
    pub(super) screen: Option<File>,
    pub(super) feed: Feed,
}

/// The builder's side of what goes to a command.
#[derive(Default)]
pub(super) struct Feed {
    source: Option<OwnedFd>,
    sink: Option<File>,
    /// What was read and not written yet.
    pending: Vec<u8>,
    /// Stays open longer than `sink`.
    terminal: Option<File>,
    size_of: Option<OwnedFd>,
    signals: Option<OwnedFd>,
    /// How often it was asked to end.
    asked: usize,
    /// The signal that ended it, where the kernel would have kept that from the first process of a namespace.
    pub(super) ended_by: Option<i32>,
}

impl Ends {
    /// Makes what a dialogue needs.
    pub(super) fn of(dialogue: &Dialogue<'_>) -> io::Result<Ends> {
        let own = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| fd.try_clone_to_owned()).transpose();
        let mut feed = Feed {
            source: own(dialogue.input)?,
            size_of: own(dialogue.size_of)?,
            signals: own(dialogue.signals.map(AsFd::as_fd))?,
            ..Feed::default()
        };
        if !dialogue.has_terminal {
            let mut stdin = None;
            if dialogue.input.is_some() {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                rustix::io::ioctl_fionbio(&writer, true)?;
                feed.sink = Some(File::from(writer));
                stdin = Some(reader);
            }
            return Ok(Ends {
                stdin,
                terminal: None,
                screen: None,
                feed,
            });
        }
        let (ours, theirs) = terminal()?;
        let size = dialogue.size_of.and_then(|fd| tcgetwinsize(fd).ok());
        tcsetwinsize(&ours, size.unwrap_or(USUAL_SIZE))?;
        feed.terminal = Some(ours.try_clone()?);
        if dialogue.input.is_some() {
            feed.sink = Some(ours.try_clone()?);
        }
        Ok(Ends {
            stdin: Some(theirs.try_clone()?),
            terminal: Some(theirs),
            screen: Some(ours),
            feed,
        })
    }
}

/// Returns both ends of a new terminal; the first one does not block.
fn terminal() -> io::Result<(File, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let ours = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the kernel reads one number from a live local.
    if unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // Not by its name: the terminals of the machine need not be mounted here.
    // SAFETY: the call takes a number and touches no memory of this process.
    let theirs = unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if theirs < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this call, so nobody else owns it.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((File::from(ours), theirs))
}

/// Makes standard input the terminal of this session, whose leader this process is.
pub(super) fn take_terminal() -> io::Result<()> {
    // SAFETY: the call takes a number and touches no memory of this process.
    match unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Feed {
    /// Returns what can be read from, if anything may be.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        let is_wanted = self.pending.is_empty() && self.sink.is_some();
        self.source.as_ref().filter(|_| is_wanted).map(AsFd::as_fd)
    }

    /// Returns what can be written to, if there is something to write.
    pub(super) fn sink(&self) -> Option<BorrowedFd<'_>> {
        let is_wanted = !self.pending.is_empty();
        self.sink.as_ref().filter(|_| is_wanted).map(AsFd::as_fd)
    }

    pub(super) fn signals(&self) -> Option<BorrowedFd<'_>> {
        self.signals.as_ref().map(AsFd::as_fd)
    }

    /// Reads a piece of input.
    pub(super) fn read(&mut self) {
        let Some(source) = &self.source else { return };
        let mut buffer = vec![0; PIECE];
        match rustix::io::read(source, &mut buffer) {
            Ok(0) => self.end(),
            Ok(count) => {
                buffer.truncate(count);
                self.pending = buffer;
                self.write();
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // A terminal that hung up.
            Err(_) => self.end(),
        }
    }

    /// Writes what it takes.
    pub(super) fn write(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        match sink.write(&self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // It reads no more.
            Err(_) => self.end(),
        }
    }

    /// Closes the command's input. A terminal stays, and is told the end in its own way.
    fn end(&mut self) {
        const END_OF_TRANSMISSION: u8 = 4;
        if let (Some(terminal), Some(_)) = (&mut self.terminal, &self.sink) {
            // Whoever does not read loses it, which is as well.
            terminal.write_all(&[END_OF_TRANSMISSION]).ok();
        }
        self.pending.clear();
        self.source = None;
        self.sink = None;
    }

    /// Passes signals on to `command`. Returns why it is to end, if it is and does not run yet.
    pub(super) fn pass_signals(&mut self, command: Option<&OwnedFd>) -> Option<CancelReason> {
        let signals = self.signals.as_ref()?;
        let mut numbers = [0; 64];
        let Ok(count) = rustix::io::read(signals, &mut numbers) else {
            return None;
        };
        for number in numbers[..count].iter().map(|number| i32::from(*number)) {
            if number == libc::SIGWINCH {
                self.follow_size();
                continue;
            }
            let Some(command) = command else {
                return Some(match number {
                    libc::SIGINT => CancelReason::Interrupted,
                    _ => CancelReason::Terminated,
                });
            };
            self.pass(number, command);
        }
        None
    }

    fn follow_size(&self) {
        if let (Some(terminal), Some(size_of)) = (&self.terminal, &self.size_of)
            && let Ok(size) = tcgetwinsize(size_of)
        {
            // The command is told by the kernel.
            tcsetwinsize(terminal, size).ok();
        }
    }

    fn pass(&mut self, number: i32, command: &OwnedFd) {
        let asks_to_end = matches!(number, libc::SIGINT | libc::SIGTERM);
        self.asked += usize::from(asks_to_end);
        // The kernel drops a signal without a handler for the first process of a pid namespace.
        if self.asked > PATIENCE || !has_said_what_to_do(command, number) {
            self.ended_by = Some(number);
            pidfd_send_signal(command, Signal::KILL).ok();
        } else if let Some(signal) = Signal::from_named_raw(number) {
            // Fails if it has ended.
            pidfd_send_signal(command, signal).ok();
        }
    }
}

/// Tells whether a process handles or ignores a signal; also where that cannot be known.
fn has_said_what_to_do(process: &OwnedFd, number: i32) -> bool {
    let masks = || {
        let pid = pid_of(process)?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(mask("SigCgt:")? | mask("SigIgn:")?)
    };
    masks().is_none_or(|mask| mask & 1 << (number - 1) != 0)
}

/// Returns the number of a process in this namespace.
fn pid_of(process: &OwnedFd) -> Option<Pid> {
    let mut text = String::new();
    File::open(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))
        .and_then(|mut file| file.read_to_string(&mut text))
        .ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    Pid::from_raw(line.trim().parse().ok()?)
}
