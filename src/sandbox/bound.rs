//! Programs of this machine that must not outlive the builder.
//!
//! While contexts are read and planned, a signal or the timeout ends the builder at once, and SIGKILL does at any time. What it has
//! started would go on, with the credentials that it was given. What such a program has started itself is not reached.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Starts a program that gets SIGTERM when this thread has ended, however that came.
pub fn spawn_bound(command: &mut Command) -> io::Result<Child> {
    let us = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        match getppid() == Some(us) {
            true => Ok(()),
            // We ended before that.
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    // SAFETY: between fork and exec `bind` makes two system calls; it neither allocates nor takes locks.
    unsafe { command.pre_exec(bind) };
    command.spawn()
}
