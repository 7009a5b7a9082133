//! One command's supervision: takes a held call, finds who answers it, answers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{CWD, OFlags, fstatfs, openat};
use rustix::io::Errno;

use crate::vocab::{Attributes, Ledger};

use super::calls::Operation;
use super::credentials::{Credentials, Table};
use super::interrupt::Interrupts;
use super::listener::{Answer, Listener, Notification};
use super::memory::Memory;
use super::ownership::Files;
use super::service::Service;
use super::status::Status;
use super::traps::{Abi, Call, Decoder, Mode};

/// `f_type` of procfs and sysfs.
const PROC: i64 = 0x9fa0;
const SYS: i64 = 0x6265_6572;

/// What is known before the command is there.
#[derive(Debug)]
pub(in crate::sandbox) struct Plan {
    pub(in crate::sandbox) mode: Mode,
    pub(in crate::sandbox) uid: u32,
    pub(in crate::sandbox) gid: u32,
    pub(in crate::sandbox) groups: Vec<u32>,
    /// The command has all its capabilities in every set, and may do more than other commands.
    pub(in crate::sandbox) insecure: bool,
    /// What RLIMIT_LOCKS is said to be: soft, hard.
    pub(in crate::sandbox) locks: (u64, u64),
    pub(in crate::sandbox) hostname: String,
    pub(in crate::sandbox) ledger: Ledger,
}

impl Plan {
    /// Writes down whose a file is that lies outside the root.
    pub(in crate::sandbox) fn own(
        &mut self,
        file: BorrowedFd<'_>,
        uid: u32,
        gid: u32,
        mode: u32,
    ) -> Result<(), Errno> {
        let attributes = Attributes {
            uid,
            gid,
            mode: mode & 0o7777,
            ..Attributes::default()
        };
        self.ledger.insert(Status::of(file)?.id(), attributes);
        Ok(())
    }
}

/// What the outer half answers held calls with.
#[derive(Debug)]
pub(in crate::sandbox) struct Supervision {
    listener: Listener,
    decoder: Decoder,
    /// The first process, until it executes the command: what it does itself, it does for real.
    preparing: Option<i32>,
    locks: (u64, u64),
    pub(super) hostname: String,
    pub(super) mode: Mode,
    /// The root directory, as the command sees it.
    pub(super) root: OwnedFd,
    /// Some process may have another root.
    pub(super) has_other_roots: bool,
    /// This process's /proc.
    pub(super) proc: OwnedFd,
    /// The command's /proc.
    pub(super) proc_device: Option<(u32, u32)>,
    /// Its /sys.
    sys_device: Option<(u32, u32)>,
    pub(super) table: Table,
    /// For a command whose paths the kernel cannot resolve.
    pub(super) service: Option<Box<Service>>,
    pub(super) files: Files,
}

/// A held call and who makes it.
#[derive(Clone, Copy, Debug)]
pub(in crate::sandbox) struct Caller {
    pub(super) id: u64,
    /// The thread.
    pub(super) thread: i32,
    memory: Memory,
    pub(super) abi: Abi,
    /// The call's own.
    which: u32,
    pub(super) arguments: [u64; 6],
}

impl Caller {
    /// Returns a caller that a tracer has stopped.
    pub(super) fn standing(thread: i32, which: u32, arguments: [u64; 6]) -> Caller {
        Caller {
            id: 0,
            thread,
            memory: Memory::of(thread),
            abi: Abi::NATIVE,
            which,
            arguments,
        }
    }

    pub(super) fn is_prlimit(&self) -> bool {
        libc::c_long::from(self.which) == libc::SYS_prlimit64
    }

    pub(super) fn memory(&self) -> Memory {
        self.memory
    }

    /// Returns the low half of an argument: an id, a mode, flags.
    pub(super) fn number(&self, argument: usize) -> u32 {
        (self.arguments[argument] & 0xffff_ffff) as u32
    }
}

impl Supervision {
    /// Begins with the first process, which holds `capabilities`.
    pub(in crate::sandbox) fn new(
        plan: Plan,
        listener: OwnedFd,
        root: OwnedFd,
        process: i32,
        capabilities: u64,
    ) -> Result<Supervision, Errno> {
        let mut first = Credentials::new(plan.uid, plan.gid, &plan.groups, capabilities);
        if plan.insecure {
            first = first.with_everything();
        }
        let kernels = |name: &str, magic: i64| {
            // Nothing is mounted for a command without namespaces.
            let Ok(fd) = open(&root, name) else {
                return Ok(None);
            };
            let is_kernels = fstatfs(&fd)?.f_type == magic;
            Ok::<_, Errno>(match is_kernels {
                true => Some(Status::of(&fd)?.device()),
                false => None,
            })
        };
        let emulates_ids = plan.mode.emulates_ids();
        Ok(Supervision {
            proc_device: kernels("proc", PROC)?,
            sys_device: kernels("sys", SYS)?,
            proc: open(CWD, "/proc")?,
            // Not held: `chroot`.
            has_other_roots: plan.insecure || !emulates_ids,
            files: Files::new(plan.ledger, root.as_fd())?,
            listener: Listener::from_fd(listener),
            decoder: Decoder::new(),
            preparing: emulates_ids.then_some(process),
            locks: plan.locks,
            hostname: plan.hostname,
            mode: plan.mode,
            root,
            table: match emulates_ids {
                true => Table::new(first, process)?,
                false => Table::unused(first),
            },
            service: None,
        })
    }

    /// Serves the command's paths too.
    pub(in crate::sandbox) fn serve_paths(&mut self, service: Service) {
        self.service = Some(Box::new(service));
    }

    /// Answers a call that was left for later.
    pub(super) fn answer(&self, caller: &Caller, answer: Answer) {
        self.listener.answer(caller.id, answer);
    }

    /// Answers one held call. To be called when the descriptor is readable. Returns whether there can be more.
    pub(in crate::sandbox) fn serve(&mut self) -> bool {
        match self.listener.receive() {
            Ok(Some(notification)) => {
                let answer = self.decide(&notification);
                self.listener.answer(notification.id, answer);
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Answers held calls until a signal has come.
    pub(in crate::sandbox) fn serve_until(&mut self, interrupts: &Interrupts) {
        loop {
            match self.listener.wait(interrupts) {
                Ok(Some(notification)) => {
                    let answer = self.decide(&notification);
                    self.listener.answer(notification.id, answer);
                }
                // Callers end without a word to the listener; their ends are told by signals.
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Returns what the files are at the end.
    pub(in crate::sandbox) fn into_ledger(self) -> Ledger {
        self.files.into_ledger()
    }

    fn decide(&mut self, notification: &Notification) -> Answer {
        if self.service.is_some() {
            return self.decide_served(notification);
        }
        let Some((call, abi)) = self.decoder.decode(notification.arch, notification.number) else {
            return Answer::Continue;
        };
        if self.preparing == Some(notification.thread) {
            if call != Call::Execve {
                return Answer::Continue;
            }
            self.preparing = None;
        }
        let caller = Caller {
            id: notification.id,
            thread: notification.thread,
            memory: Memory::of(notification.thread),
            abi,
            which: notification.number,
            arguments: notification.arguments,
        };
        match self.dispatch(call, &caller) {
            Ok(answer) => answer,
            Err(errno) => Answer::Error(errno),
        }
    }

    fn decide_served(&mut self, notification: &Notification) -> Answer {
        let Some(operation) = self.operation(notification.arch, notification.number) else {
            return Answer::Continue;
        };
        let caller = Caller {
            id: notification.id,
            thread: notification.thread,
            memory: self.memory_of(notification.thread),
            abi: Abi::NATIVE,
            which: notification.number,
            arguments: notification.arguments,
        };
        let answer = match operation {
            Operation::Identity => self
                .decoder
                .decode(notification.arch, notification.number)
                .and_then(|(call, _)| self.identity(call, &caller))
                .unwrap_or(Err(Errno::NOSYS)),
            operation => self.perform(operation, &caller),
        };
        answer.unwrap_or_else(Answer::Error)
    }

    fn dispatch(&mut self, call: Call, caller: &Caller) -> Result<Answer, Errno> {
        if !self.mode.emulates_ids() {
            return self.of_devices(call, caller);
        }
        if let Some(answer) = self.identity(call, caller) {
            return answer;
        }
        self.light(call, caller)
    }

    /// Tells whether a file is one of the kernel's own, which has no owner but the kernel's.
    pub(super) fn is_kernels(&self, status: &Status) -> bool {
        let device = Some(status.device());
        device == self.proc_device || device == self.sys_device
    }

    /// Tells whether the caller's number has been its own until now: asked after looking, before doing.
    pub(super) fn is_held(&self, caller: &Caller) -> Result<(), Errno> {
        // A traced thread's number is its own until its end was told here.
        match self.service.is_some() || self.listener.is_held(caller.id) {
            true => Ok(()),
            false => Err(Errno::SRCH),
        }
    }

    pub(super) fn credentials(&self, caller: &Caller) -> Result<Arc<Credentials>, Errno> {
        self.table.of(caller.thread)
    }

    /// Makes the caller somebody else.
    pub(super) fn become_other(
        &mut self,
        caller: &Caller,
        credentials: Credentials,
    ) -> Result<(), Errno> {
        self.is_held(caller)?;
        self.table.set(caller.thread, credentials)
    }

    pub(super) fn locks(&self) -> (u64, u64) {
        self.locks
    }
}

fn open(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, rustix::fs::Mode::empty())
}

impl AsFd for Supervision {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
