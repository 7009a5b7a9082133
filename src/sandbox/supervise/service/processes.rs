//! What concerns processes: a command's own alone.

use rustix::io::Errno;

use super::super::credentials;
use super::super::listener::Answer;
use super::super::supervision::{Caller, Supervision};
use super::super::traps::Call;

impl Supervision {
    /// A process that could not be looked into could not be served.
    pub(super) fn prctl(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        const SET_PTRACER: u32 = 0x5961_6d61;
        match caller.number(0) {
            SET_PTRACER => Ok(Answer::Value(0)),
            option if option == libc::PR_SET_DUMPABLE.cast_unsigned() => Ok(Answer::Value(0)),
            _ => self
                .identity(Call::Prctl, caller)
                .unwrap_or(Err(Errno::INVAL)),
        }
    }

    /// Lets pass what concerns a process of the command. The arguments are numbers, which nobody changes meanwhile.
    pub(super) fn of_process(&mut self, caller: &Caller, argument: usize) -> Result<Answer, Errno> {
        let pid = caller.number(argument).cast_signed();
        if pid != 0 && !self.service().family.has(pid) {
            return Err(Errno::SRCH);
        }
        let is_limit =
            argument == 0 && caller.number(1) == credentials::RESOURCE && caller.is_prlimit();
        match is_limit {
            true => self
                .identity(Call::Prlimit64, caller)
                .unwrap_or(Err(Errno::INVAL)),
            false => Ok(Answer::Continue),
        }
    }

    /// Signals to one process of the command pass. Those to all, or to a group, go to each of the command's.
    pub(super) fn kill(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let (target, signal) = (
            caller.number(0).cast_signed(),
            caller.number(1).cast_signed(),
        );
        match target {
            1.. => return self.of_process(caller, 0),
            // Its own group, which nobody but the command is in.
            0 => return Ok(Answer::Continue),
            _ => {}
        }
        let service = self.service();
        let own = service
            .family
            .process_of(caller.thread)
            .unwrap_or(caller.thread);
        let targets: Vec<i32> = service
            .family
            .processes()
            .filter(|process| match target {
                -1 => *process != own,
                group => group_of(*process) == Some(-group),
            })
            .collect();
        if targets.is_empty() {
            return Err(Errno::SRCH);
        }
        let mut done = Err(Errno::SRCH);
        for process in targets {
            // SAFETY: takes two numbers.
            match unsafe { libc::kill(process, signal) } {
                0 => done = Ok(Answer::Value(0)),
                _ => {
                    let error = std::io::Error::last_os_error();
                    if Errno::from_io_error(&error) == Some(Errno::INVAL) {
                        return Err(Errno::INVAL);
                    }
                }
            }
        }
        done
    }
}

fn group_of(process: i32) -> Option<i32> {
    // SAFETY: takes a number.
    match unsafe { libc::getpgid(process) } {
        group @ 1.. => Some(group),
        _ => None,
    }
}
