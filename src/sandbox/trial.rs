//! Trying something out in a child, which changes nothing here and may hang or die.

use std::io::{self, PipeReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid,
};

use super::lack::Lacks;
use super::trouble::{By, Call, Trouble, decode, encode};

/// Trials take some milliseconds; a machine that is busy may take long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does `what` in a child of this process, which must have one thread, and returns what came of it.
pub(super) fn attempt(what: impl FnOnce() -> Result<Lacks, Trouble>) -> Result<Lacks, Trouble> {
    let (answer, mut reply) = io::pipe().by(Call::Fork)?;
    let child = start(|| {
        // If nobody listens there is nothing to be done.
        reply.write_all(&encode(&what())).ok();
        0
    })?;
    drop(reply);
    let heard = hear(answer);
    // It has nothing left to do. What it started dies with it.
    kill_process(child, Signal::KILL).ok();
    while waitpid(Some(child), WaitOptions::empty()).err() == Some(Errno::INTR) {}
    match heard {
        Ok(bytes) => decode(&bytes).unwrap_or(Err(Trouble::Call {
            call: Call::End,
            errno: libc::ETIMEDOUT,
        })),
        Err(error) => Err(error).by(Call::Fork),
    }
}

/// Starts a child that ends with a status, when this process dies, and after a time in any case.
pub(super) fn start(what: impl FnOnce() -> i32) -> Result<Pid, Trouble> {
    // SAFETY: the process has one thread, which `choose` has checked (children have one anyway); so the child is whole and may
    // run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).by(Call::Fork),
        0 => {
            // Whoever waits for it may be killed meanwhile, and a change of ids clears the first of these.
            set_parent_process_death_signal(Some(Signal::KILL)).ok();
            // SAFETY: takes a number. The signal ends the process: its handler, where one is set, exits.
            unsafe { libc::alarm(PATIENCE.as_secs() as libc::c_uint) };
            // What is above belongs to the parent: nothing may return or unwind into it.
            let status = catch_unwind(AssertUnwindSafe(what)).unwrap_or(libc::EIO);
            // SAFETY: ends the child without running exit handlers, which are the parent's.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(Pid::from_raw(pid).expect("a child's pid is positive")),
    }
}

/// Waits for the one message of a child; empty if it does not come, or the child died.
fn hear(mut answer: PipeReader) -> io::Result<Vec<u8>> {
    let timeout = rustix::time::Timespec::try_from(PATIENCE).expect("patience is short");
    let mut fds = [PollFd::new(&answer, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(0) => return Ok(Vec::new()),
            Ok(_) => break,
        }
    }
    let mut bytes = vec![0; 4096];
    let count = answer.read(&mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}
