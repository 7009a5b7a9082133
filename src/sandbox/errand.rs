//! What the inner half of init has the outer one do: things that must outlive the inner one, or that it lacks the rights for.
//!
//! ```text
//! u8 1 | stub, with two descriptors        remember it: remove it when the command has ended       no answer
//! u8 2                                     map the ids of my user namespace                        answer
//! u8 3, with one descriptor                register the emulators in this mount and keep it        answer
//!
//! answer: u8 0, or a report of what failed
//! ```
//!
//! One message each, over a socket that ends when the command is executed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::control;
use super::mount::Mount;
use super::report::{At, Failure, Report, Stage};
use super::stub::Stub;

/// Longest message: a name of 255 bytes with its times, or a report.
const LONGEST: usize = 4096;

/// The inner half's end.
#[derive(Debug)]
pub(super) struct Errands(UnixStream);

/// The outer half's end.
#[derive(Debug)]
pub(super) struct Desk(UnixStream);

#[derive(Debug)]
pub(super) enum Errand {
    Remember(Stub),
    MapIds,
    Register(Mount),
}

/// Makes both ends.
pub(super) fn pair() -> Result<(Errands, Desk), Errno> {
    let (here, there) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((Errands(here.into()), Desk(there.into())))
}

impl Errands {
    pub(super) fn remember(&self, stub: &Stub) -> Result<(), Errno> {
        let mut message = vec![1];
        message.extend(stub.encode());
        control::pass(&self.0, &message, &stub.descriptors()).map_err(|error| errno(&error))
    }

    pub(super) fn map_ids(&self) -> Result<(), Failure> {
        self.ask(2, &[])
    }

    pub(super) fn register(&self, instance: &Mount) -> Result<(), Failure> {
        self.ask(3, &[instance.as_fd()])
    }

    fn ask(&self, what: u8, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let stage = Stage::Errand;
        control::pass(&self.0, &[what], fds).at(stage, "")?;
        let mut answer = [0; LONGEST];
        let (count, _) = control::take(&self.0, &mut answer).at(stage, "")?;
        match &answer[..count] {
            [0] => Ok(()),
            report => match Report::decode(report) {
                Some(Report::Failed(failure)) => Err(failure),
                _ => Err(Errno::BADMSG).at(stage, ""),
            },
        }
    }
}

impl Desk {
    /// Takes the next errand; blocks until there is one. `None` at the end, and for what makes no sense.
    pub(super) fn take(&self) -> Option<Errand> {
        let mut message = [0; LONGEST];
        let (count, mut fds) = control::take(&self.0, &mut message).ok()?;
        let (&what, rest) = message[..count].split_first()?;
        Some(match what {
            1 => Errand::Remember(Stub::decode(rest, fds)?),
            2 => Errand::MapIds,
            3 => Errand::Register(Mount::from_fd(only(&mut fds)?)),
            _ => return None,
        })
    }

    /// Answers an errand that has an answer.
    pub(super) fn answer(&self, done: Result<(), Failure>) {
        let answer = match done {
            Ok(()) => vec![0],
            Err(failure) => Report::Failed(failure).encode(),
        };
        // Fails if the inner half is gone; its end is noticed elsewhere.
        control::pass(&self.0, &answer, &[]).ok();
    }
}

impl AsFd for Desk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn only(fds: &mut Vec<OwnedFd>) -> Option<OwnedFd> {
    match fds.len() {
        1 => fds.pop(),
        _ => None,
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
