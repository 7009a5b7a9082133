//! What the inner half of init has the outer one do: things that must outlive the inner one, or that it lacks the rights for.
//!
//! ```text
//! u8 1 | stub, with two descriptors        remember it: remove it when the command has ended
//! u8 2                                     map the ids of my user namespace
//! u8 3, with one descriptor                register the emulators in this mount and keep it
//! u8 4 | u64 capabilities, with two          supervise me: a listener, and my root
//! u8 5 | uid | gid | mode, with one          write down whose this file is
//!
//! answer: u8 0, or a report of what failed
//! ```
//!
//! One message each, over a socket that ends when the command is executed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::control;
use super::mount::Mount;
use super::report::{At, Failure, Report, Stage};
use super::stub::Stub;
use super::wire::Reader;

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
    Supervise(Supervise),
    Own(Owned),
}

/// A file that the inner half has made and cannot give away.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) file: OwnedFd,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// What the supervisor needs of the command.
#[derive(Debug)]
pub(super) struct Supervise {
    pub(super) listener: OwnedFd,
    pub(super) root: OwnedFd,
    /// What the command may have.
    pub(super) capabilities: u64,
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
        self.ask(&message, &stub.descriptors())
            .map_err(|failure| Errno::from_raw_os_error(failure.errno))
    }

    pub(super) fn map_ids(&self) -> Result<(), Failure> {
        self.ask(&[2], &[])
    }

    pub(super) fn register(&self, instance: &Mount) -> Result<(), Failure> {
        self.ask(&[3], &[instance.as_fd()])
    }

    pub(super) fn supervise(&self, request: &Supervise) -> Result<(), Failure> {
        let mut message = vec![4];
        message.extend(request.capabilities.to_le_bytes());
        self.ask(&message, &[request.listener.as_fd(), request.root.as_fd()])
    }

    pub(super) fn own(&self, owned: &Owned) -> Result<(), Failure> {
        let mut message = vec![5];
        for number in [owned.uid, owned.gid, owned.mode] {
            message.extend(number.to_le_bytes());
        }
        self.ask(&message, &[owned.file.as_fd()])
    }

    fn ask(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let stage = Stage::Errand;
        control::pass(&self.0, message, fds).at(stage, "")?;
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
    /// Takes the next errand, which wants an answer; blocks until there is one. `None` at the end.
    pub(super) fn take(&self) -> Option<Result<Errand, Failure>> {
        let mut message = [0; LONGEST];
        let (count, fds) = control::take(&self.0, &mut message).ok()?;
        let (&what, rest) = message[..count].split_first()?;
        // The one thing that can be wrong with a message of the same program is that its descriptors did not arrive.
        Some(
            decode(what, rest, fds)
                .ok_or(Errno::MFILE)
                .at(Stage::Errand, ""),
        )
    }

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

fn decode(what: u8, rest: &[u8], mut fds: Vec<OwnedFd>) -> Option<Errand> {
    Some(match (what, fds.len()) {
        (1, _) => Errand::Remember(Stub::decode(rest, fds)?),
        (2, 0) => Errand::MapIds,
        (3, 1) => Errand::Register(Mount::from_fd(fds.pop()?)),
        (4, 2) => Errand::Supervise(Supervise {
            root: fds.pop()?,
            listener: fds.pop()?,
            capabilities: u64::from_le_bytes(rest.try_into().ok()?),
        }),
        (5, 1) => {
            let mut reader = Reader(rest);
            let owned = Owned {
                file: fds.pop()?,
                uid: reader.u32()?,
                gid: reader.u32()?,
                mode: reader.u32()?,
            };
            Errand::Own(reader.finish(owned)?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn errands_and_answers_arrive_in_order() {
        let root = tempfile::TempDir::new().unwrap();
        let at = File::open(root.path()).unwrap();
        let (errands, desk) = pair().unwrap();
        let asked = std::thread::spawn(move || {
            let stub = Stub::make(at.as_fd(), c"f", false).unwrap();
            let refused = Err(Errno::PERM).at(Stage::UserNamespace, "uid_map");
            assert_eq!(errands.remember(&stub), Ok(()));
            assert_eq!(errands.remember(&stub), Err(Errno::MFILE));
            assert_eq!(errands.map_ids(), refused);
        });
        assert!(matches!(desk.take(), Some(Ok(Errand::Remember(_)))));
        desk.answer(Ok(()));
        assert!(matches!(desk.take(), Some(Ok(Errand::Remember(_)))));
        desk.answer(Err(Errno::MFILE).at(Stage::Errand, ""));
        assert!(matches!(desk.take(), Some(Ok(Errand::MapIds))));
        desk.answer(Err(Errno::PERM).at(Stage::UserNamespace, "uid_map"));
        asked.join().unwrap();
        assert!(desk.take().is_none());
    }

    #[test]
    fn an_errand_without_its_descriptors_is_refused() {
        let (errands, desk) = pair().unwrap();
        for message in [&[1][..], &[3], &[9], &[1, 1, 0, 0, 0, b'f']] {
            control::pass(&errands.0, message, &[]).unwrap();
            let failure = desk.take().unwrap().unwrap_err();
            assert_eq!(failure.errno, Errno::MFILE.raw_os_error(), "{message:?}");
        }
    }
}
