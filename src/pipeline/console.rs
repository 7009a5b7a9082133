//! The streams of this process for one command: its input, its terminal, its signals.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::sandbox::{self, Dialogue};
use crate::vocab::{Cancel, CancelReason, Stream};
use crate::worker::{Attended, Status, Streams};

use super::Failure;
use super::failure;

/// What a command gets of this process' streams. What it prints it prints here in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// It reads our standard input.
    pub input: bool,
    /// It has a terminal of its own.
    pub terminal: bool,
}

impl Console {
    /// Lets a command speak with the user. From here on signals are the command's. The status is there if nobody reads what it
    /// prints, for which reason it was ended.
    pub(super) fn attend<T>(
        self,
        cancel: &Cancel,
        work: impl FnOnce(Streams<'_>) -> T,
    ) -> Result<(T, Option<Status>), Failure> {
        let signals = sandbox::pass_signals().map_err(|error| failure::signals(&error))?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let raw = match self.terminal && self.input {
            true => RawMode::begin(stdin.as_fd()),
            false => None,
        };
        let size_of = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
            .into_iter()
            .find(|fd| isatty(fd));
        let mut is_heard = true;
        let mut output = |stream, bytes: &[u8]| {
            let fd = match stream {
                Stream::Stdout => stdout.as_fd(),
                Stream::Stderr => stderr.as_fd(),
            };
            if write_all(fd, bytes).is_err() && is_heard {
                is_heard = false;
                cancel.cancel(CancelReason::Terminated);
            }
        };
        let done = work(Streams::Attended(Attended {
            dialogue: Dialogue {
                input: self.input.then(|| stdin.as_fd()),
                has_terminal: self.terminal,
                size_of,
                signals: Some(&signals),
            },
            output: &mut output,
        }));
        drop(raw);
        Ok((done, (!is_heard).then_some(Status::Signal(13))))
    }
}

/// A terminal that hands over every key as it is, until this goes.
struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    fn begin(terminal: BorrowedFd<'a>) -> Option<RawMode<'a>> {
        let before = tcgetattr(terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Drain, &raw).ok()?;
        Some(RawMode { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        tcsetattr(self.terminal, OptionalActions::Drain, &self.before).ok();
    }
}

/// Writes without a buffer: what a command asks its user must be seen.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Somebody who shares the stream has made it so.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
