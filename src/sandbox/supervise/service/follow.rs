//! The tracer's half: a command's threads are followed from stop to stop.
//!
//! A thread stands still when it forks, executes, ends, or is at a call whose arguments are to be changed. What becomes of such a
//! call [`execution`](super::execution) says; here the thread goes on with it, and what it is doing meanwhile is its [`Phase`].

use std::collections::{HashMap, HashSet};

use rustix::io::Errno;

use super::super::calls::{Traced, traced};
use super::super::credentials::Credentials;
use super::super::family;
use super::super::ptrace::{self, Registers, Stop};
use super::super::supervision::{Caller, Supervision};
use super::detour::Detour;
use super::execution::Next;
use super::{Path, Service};

#[derive(Debug, Default)]
pub(super) struct Following {
    /// The first process, whose end is the command's.
    first: Option<i32>,
    ended: Option<Followed>,
    phases: HashMap<i32, Phase>,
    /// Children that stood still before their parents told of them.
    strangers: HashSet<i32>,
}

/// What a thread that went on is doing.
pub(super) enum Phase {
    /// Getting room, at its first call's registers; then it is where it was.
    Mapping {
        registers: Registers,
        length: u64,
        then: Option<Box<Phase>>,
    },
    /// Executing, if the kernel agrees.
    Executing(Executing),
    /// At a call whose end is waited for.
    Calling,
    Detour(Box<Detour>),
}

impl std::fmt::Debug for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Mapping { .. } => "Mapping",
            Phase::Executing(_) => "Executing",
            Phase::Calling => "Calling",
            Phase::Detour(_) => "Detour",
        })
    }
}

/// How the command's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Followed {
    Exited(i32),
    Killed(i32),
}

/// What a process is when it executes something.
pub(super) struct Executing {
    pub(super) executable: family::Executable,
    pub(super) who: Credentials,
}

impl Service {
    pub(super) fn phase(&self, thread: i32) -> Option<&Phase> {
        self.following.phases.get(&thread)
    }

    pub(super) fn set_phase(&mut self, thread: i32, phase: Phase) {
        self.following.phases.insert(thread, phase);
    }

    pub(super) fn take_phase(&mut self, thread: i32) -> Option<Phase> {
        self.following.phases.remove(&thread)
    }
}

impl Supervision {
    /// Begins to follow the command's first process, which stands still or is about to.
    pub(in crate::sandbox) fn follow_from(&mut self, process: i32) -> Result<(), Errno> {
        ptrace::seize(process)?;
        let service = self.service();
        service.family.begin(process);
        service.following.first = Some(process);
        Ok(())
    }

    /// Deals with all that the command's threads and the helpers have to tell. Returns how the first process ended, once it
    /// has.
    pub(in crate::sandbox) fn follow(&mut self) -> Option<Followed> {
        while let Ok(Some((thread, stop))) = ptrace::next() {
            self.stopped(thread, stop);
        }
        self.service().following.ended
    }

    /// Ends all that is left of the command, and waits for it.
    pub(in crate::sandbox) fn end_all(&mut self) {
        self.service().helpers.end_all();
        loop {
            let processes: Vec<i32> = self.service().family.processes().collect();
            for process in processes {
                // SAFETY: takes two numbers. It is a child that has not been waited for, so the number is its own.
                unsafe { libc::kill(process, libc::SIGKILL) };
            }
            match ptrace::wait_for_next() {
                Ok(Some((thread, stop))) => self.stopped(thread, stop),
                Ok(None) => {}
                // There are none left.
                Err(_) => return,
            }
        }
    }

    fn stopped(&mut self, thread: i32, stop: Stop) {
        if self.service().helpers.ended(thread) {
            return;
        }
        // ESRCH of whatever is done to a thread that was killed meanwhile: its end is still to be told.
        match stop {
            Stop::Exited(code) => self.gone(thread, Followed::Exited(code)),
            Stop::Killed(signal) => self.gone(thread, Followed::Killed(signal)),
            Stop::Seccomp => self.at_call(thread),
            Stop::CallEnded => self.call_ended(thread),
            Stop::Executed => {
                self.executed(thread);
                ptrace::go_on(thread, 0).ok();
            }
            Stop::Forked | Stop::Vforked | Stop::Cloned => {
                self.has_child(thread);
                ptrace::go_on(thread, 0).ok();
            }
            Stop::GroupStopped => {
                ptrace::listen(thread).ok();
            }
            Stop::Other => {
                let service = self.service();
                if service.family.has(thread) {
                    ptrace::go_on(thread, 0).ok();
                } else {
                    service.following.strangers.insert(thread);
                }
            }
            Stop::Signal(signal) => {
                ptrace::go_on(thread, signal).ok();
            }
        }
    }

    fn gone(&mut self, thread: i32, how: Followed) {
        let service = self.service();
        service.helpers.end_of(thread);
        let process = service.family.process_of(thread).unwrap_or(thread);
        service.rooms.leave(process, thread);
        if process == thread {
            service.rooms.left(process, thread);
        }
        service.family.remove(thread);
        service.memories.forget(thread);
        service.following.phases.remove(&thread);
        service.following.strangers.remove(&thread);
        if service.following.first == Some(thread) {
            service.following.ended = Some(how);
        }
    }

    fn has_child(&mut self, parent: i32) {
        let Ok(child) = ptrace::message(parent) else {
            return;
        };
        let (mut shares, mut is_process) = (false, true);
        if let Ok(registers) = Registers::of(parent) {
            let number = libc::c_long::from(registers.number());
            if number == libc::SYS_clone {
                let flags = registers.argument(0);
                shares = flags & libc::CLONE_VM as u64 != 0;
                is_process = flags & libc::CLONE_THREAD as u64 == 0;
            }
            #[cfg(target_arch = "x86_64")]
            {
                shares |= number == libc::SYS_vfork;
            }
        }
        let service = self.service();
        service.family.add(parent, child, is_process);
        if is_process {
            let of_parent = service.family.process_of(parent).unwrap_or(parent);
            service.rooms.forked(of_parent, child, shares);
        }
        if service.following.strangers.remove(&child) {
            ptrace::go_on(child, 0).ok();
        }
    }

    fn executed(&mut self, process: i32) {
        let former = ptrace::message(process).unwrap_or(process);
        let service = self.service();
        service.memories.forget(process);
        service.memories.forget(former);
        service.rooms.left(process, former);
        let phase = service.following.phases.remove(&former);
        if former != process {
            service.following.phases.remove(&process);
        }
        let executing = match phase {
            Some(Phase::Executing(executing)) => Some(executing),
            Some(Phase::Detour(detour)) => match *detour {
                Detour::Executing { executing, .. } => Some(executing),
                _ => None,
            },
            _ => None,
        };
        if let Some(executing) = executing {
            service.family.executes(process, executing.executable);
            // Fails for one that is gone.
            self.table.set(process, executing.who).ok();
        }
    }

    fn at_call(&mut self, thread: i32) {
        let Ok(mut registers) = Registers::of(thread) else {
            ptrace::go_on(thread, 0).ok();
            return;
        };
        if self.resume(thread, &registers) {
            return;
        }
        let caller = self.caller_at(thread, &registers);
        let done = match traced(registers.number()) {
            // The command has a filter of its own, and nobody traces for it.
            None => Err(Errno::NOSYS),
            Some(Traced::Chdir) => self.chdir(&caller),
            Some(Traced::Execve) => {
                let path = Path {
                    at: libc::AT_FDCWD,
                    address: registers.argument(0),
                };
                self.execve(&caller, path, registers.argument(1), 0, 0)
            }
            Some(Traced::Execveat) => {
                let path = Path {
                    at: caller.number(0).cast_signed(),
                    address: registers.argument(1),
                };
                let flags = caller.number(4);
                self.execve(&caller, path, registers.argument(2), flags, 1)
            }
        };
        let done = done.and_then(|next| match next {
            Next::Same(then) => {
                if let Some(executing) = then {
                    self.service()
                        .set_phase(thread, Phase::Executing(executing));
                }
                ptrace::go_on(thread, 0)
            }
            Next::Other(replacement) => self.replace(thread, &mut registers, replacement),
            Next::ByDescriptor(file, goal) => self.open_first(thread, &registers, file, goal),
        });
        if let Err(errno) = done {
            let service = self.service();
            service.following.phases.remove(&thread);
            let process = service.family.process_of(thread).unwrap_or(thread);
            service.rooms.leave(process, thread);
            registers.set_result(-i64::from(errno.raw_os_error()));
            registers.set_number(thread, -1).ok();
            registers.write(thread).ok();
            ptrace::go_on(thread, 0).ok();
        }
    }

    fn caller_at(&self, thread: i32, registers: &Registers) -> Caller {
        let mut arguments = [0; 6];
        for (at, argument) in arguments.iter_mut().enumerate() {
            *argument = registers.argument(at);
        }
        Caller::standing(thread, registers.number(), arguments)
    }

    fn call_ended(&mut self, thread: i32) {
        let service = self.service();
        let process = service.family.process_of(thread).unwrap_or(thread);
        match service.following.phases.remove(&thread) {
            Some(Phase::Detour(detour)) => {
                service.rooms.leave(process, thread);
                return self.detour_ended(thread, *detour);
            }
            Some(Phase::Mapping {
                registers,
                length,
                then,
            }) => {
                let mut again = registers;
                match Registers::of(thread).map(|now| now.result()) {
                    Ok(address @ 1..) => {
                        service.rooms.add(process, address.cast_unsigned(), length);
                        again.call_again(registers.number());
                        if let Some(phase) = then {
                            service.set_phase(thread, *phase);
                        }
                    }
                    _ => again.set_result(-i64::from(Errno::NOMEM.raw_os_error())),
                }
                again.write(thread).ok();
            }
            _ => service.rooms.leave(process, thread),
        }
        ptrace::go_on(thread, 0).ok();
    }
}
