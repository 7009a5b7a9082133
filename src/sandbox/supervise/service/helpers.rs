//! Opening what may have to wait.
//!
//! A FIFO opens when its other end does, which may be never. So a process of its own waits, answers the caller and ends. It
//! is ended with the caller, and with the supervisor.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::super::listener::Answer;
use super::super::supervision::{Caller, Supervision};

/// The helpers at work: their processes and the threads they help.
#[derive(Debug, Default)]
pub(super) struct Helpers(Vec<(Pid, i32)>);

/// More than any command has waiting at once.
const MOST: usize = 256;

impl Helpers {
    /// Forgets one that has ended; returns whether the number was one's.
    pub(super) fn ended(&mut self, process: i32) -> bool {
        let before = self.0.len();
        self.0.retain(|(helper, _)| helper.as_raw_pid() != process);
        before != self.0.len()
    }

    /// Ends those of a thread that is gone.
    pub(super) fn end_of(&mut self, thread: i32) {
        for (helper, of) in &self.0 {
            if *of == thread {
                // It may have ended by itself.
                kill_process(*helper, Signal::KILL).ok();
            }
        }
    }

    /// Ends all.
    pub(super) fn end_all(&mut self) {
        for (helper, _) in &self.0 {
            kill_process(*helper, Signal::KILL).ok();
        }
    }
}

impl Supervision {
    /// Has a helper open again what `fd` leads to, and wait for that.
    pub(super) fn help(
        &mut self,
        caller: &Caller,
        fd: OwnedFd,
        flags: OFlags,
        close_on_exec: bool,
    ) -> Result<Answer, Errno> {
        if self.service().helpers.0.len() >= MOST {
            return Err(Errno::NFILE);
        }
        // SAFETY: this process has one thread, so the child is whole: no lock is held by a thread that it lacks.
        match unsafe { libc::fork() } {
            -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
            0 => {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
                let flags = flags - OFlags::NOFOLLOW;
                let answer = match self.service().guest.reopen(fd.as_fd(), flags) {
                    Ok(fd) => Answer::Descriptor { fd, close_on_exec },
                    Err(errno) => Answer::Error(errno),
                };
                self.answer(caller, answer);
                // SAFETY: ends the process; no code of ours runs after it.
                unsafe { libc::_exit(0) }
            }
            pid => {
                if let Some(pid) = Pid::from_raw(pid) {
                    self.service().helpers.0.push((pid, caller.thread));
                }
                Ok(Answer::Later)
            }
        }
    }
}
