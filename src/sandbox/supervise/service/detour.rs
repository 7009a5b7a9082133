//! Calls by a descriptor, where the kernel has no path for what a path means.
//!
//! A process whose root directory is the command's finds there what is on disk. What is mounted (/proc, /dev, a cache, a secret) is
//! nowhere in it. To go there, or to execute it, takes several calls, which the thread makes in place of its own one:
//!
//! ```text
//! openat                held, and answered with the very file
//! fchdir or execveat    of the descriptor
//! close                 unless something is executed, which closes it
//! ```
//!
//! Between them the thread stands at its own call again. A signal may come in there; the calls of its handler are none of these,
//! and the thread's own begins anew afterwards.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::super::listener::Answer;
use super::super::ptrace::{self, Registers};
use super::super::supervision::{Caller, Supervision};
use super::follow::{Executing, Phase};
use super::replacement::Replacement;

/// What is done with the descriptor.
pub(super) enum Goal {
    Directory,
    Program(Box<Replacement>),
}

/// How far a thread is. The registers are those of its own call.
pub(super) enum Detour {
    /// Opening.
    Opening {
        registers: Registers,
        file: OwnedFd,
        goal: Goal,
    },
    /// Standing at its call with the descriptor.
    Opened {
        registers: Registers,
        descriptor: u64,
        goal: Goal,
    },
    Going {
        registers: Registers,
        descriptor: u64,
    },
    Executing {
        registers: Registers,
        descriptor: u64,
        executing: Executing,
    },
    /// Standing at its call, to close the descriptor before that ends.
    Done {
        registers: Registers,
        descriptor: u64,
        result: i64,
    },
    Closing {
        registers: Registers,
        result: i64,
    },
}

impl Supervision {
    /// Has a thread that stands at its call get a descriptor of `file` for it.
    pub(super) fn open_first(
        &mut self,
        thread: i32,
        registers: &Registers,
        file: OwnedFd,
        goal: Goal,
    ) -> Result<(), Errno> {
        let mut opening = *registers;
        // Where the path is does not matter: nobody reads it.
        let here = libc::AT_FDCWD as u64;
        for (at, value) in [here, 0, 0, 0].into_iter().enumerate() {
            opening.set_argument(at, value);
        }
        let detour = Detour::Opening {
            registers: *registers,
            file,
            goal,
        };
        self.call_instead(thread, opening, libc::SYS_openat, detour)
    }

    /// Answers the call that gets the descriptor.
    pub(super) fn give_way(&mut self, caller: &Caller) -> Option<Answer> {
        let phase = self.service().phase(caller.thread)?;
        let Phase::Detour(detour) = phase else {
            return None;
        };
        let Detour::Opening { file, .. } = &**detour else {
            return None;
        };
        Some(match file.try_clone() {
            Ok(fd) => Answer::Descriptor {
                fd,
                close_on_exec: true,
            },
            Err(_) => Answer::Error(Errno::MFILE),
        })
    }

    /// Goes on with a thread that stands at its own call again; returns whether it does.
    pub(super) fn resume(&mut self, thread: i32, now: &Registers) -> bool {
        let service = self.service();
        let detour = match service.take_phase(thread) {
            Some(Phase::Detour(detour)) => *detour,
            Some(other) => {
                service.set_phase(thread, other);
                return false;
            }
            None => return false,
        };
        match detour {
            Detour::Opened {
                registers,
                descriptor,
                goal,
            } if registers.is_where(now) => {
                let begun = match goal {
                    Goal::Directory => {
                        let mut going = registers;
                        going.set_argument(0, descriptor);
                        let detour = Detour::Going {
                            registers,
                            descriptor,
                        };
                        self.call_instead(thread, going, libc::SYS_fchdir, detour)
                    }
                    Goal::Program(mut replacement) => {
                        replacement.descriptor = Some(descriptor);
                        self.replace(thread, &mut { registers }, *replacement)
                    }
                };
                if let Err(errno) = begun {
                    let result = -i64::from(errno.raw_os_error());
                    self.close(thread, registers, descriptor, result);
                }
                true
            }
            Detour::Done {
                registers,
                descriptor,
                result,
            } if registers.is_where(now) => {
                self.close(thread, registers, descriptor, result);
                true
            }
            // The call is a handler's.
            _ => false,
        }
    }

    /// Goes on with a thread at the end of one of the calls.
    pub(super) fn detour_ended(&mut self, thread: i32, detour: Detour) {
        let result = Registers::of(thread).map_or(-i64::from(libc::ESRCH), |now| now.result());
        let (registers, next) = match detour {
            Detour::Opening {
                registers, goal, ..
            } => match u64::try_from(result) {
                Ok(descriptor) => (
                    registers,
                    Ok(Detour::Opened {
                        registers,
                        descriptor,
                        goal,
                    }),
                ),
                Err(_) => (registers, Err(result)),
            },
            Detour::Going {
                registers,
                descriptor,
            }
            | Detour::Executing {
                registers,
                descriptor,
                ..
            } => (
                registers,
                Ok(Detour::Done {
                    registers,
                    descriptor,
                    result,
                }),
            ),
            Detour::Closing { registers, result } => (registers, Err(result)),
            // Those do not end: they stand before a call.
            Detour::Opened { registers, .. } | Detour::Done { registers, .. } => {
                (registers, Err(-i64::from(libc::EINTR)))
            }
        };
        let mut again = registers;
        match next {
            Ok(detour) => {
                again.call_again(registers.number());
                self.service()
                    .set_phase(thread, Phase::Detour(Box::new(detour)));
            }
            Err(result) => again.set_result(result),
        }
        // ESRCH of one that was killed meanwhile: its end is still to be told.
        again.write(thread).ok();
        ptrace::go_on(thread, 0).ok();
    }

    fn close(&mut self, thread: i32, registers: Registers, descriptor: u64, result: i64) {
        let mut closing = registers;
        closing.set_argument(0, descriptor);
        let detour = Detour::Closing { registers, result };
        self.call_instead(thread, closing, libc::SYS_close, detour)
            .ok();
    }

    /// Has a thread that stands at a call make another one, and tell its end.
    pub(super) fn call_instead(
        &mut self,
        thread: i32,
        mut registers: Registers,
        number: i64,
        detour: Detour,
    ) -> Result<(), Errno> {
        registers.set_number(thread, number)?;
        registers.write(thread)?;
        self.service()
            .set_phase(thread, Phase::Detour(Box::new(detour)));
        ptrace::go_on_to_end_of_call(thread)
    }
}
