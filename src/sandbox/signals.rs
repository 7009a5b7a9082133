//! Signals that end a build.
//!
//! The handler does two things that are safe in it: an atomic store and `_exit`. Nobody is killed from here: commands are in
//! sessions of their own, which no terminal reaches, and end when the builder ends them or when the builder ends.

use std::io;
use std::sync::OnceLock;

use crate::vocab::{Cancel, CancelReason};

use super::error::SignalError;

static FLAG: OnceLock<Cancel> = OnceLock::new();

/// SIGINT, SIGTERM and SIGHUP raise `cancel`; a SIGINT that finds it raised ends the process at once with status 130, and every
/// running command with it. A signal that was ignored when the program started (`nohup`) stays ignored. Once per process.
pub fn raise_on_signals(cancel: &Cancel) -> Result<(), SignalError> {
    FLAG.set(cancel.clone()).map_err(|_| SignalError::Taken)?;
    for (signal, name) in [
        (libc::SIGINT, "SIGINT"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGHUP, "SIGHUP"),
    ] {
        handle(signal).map_err(|source| SignalError::Install {
            signal: name,
            source,
        })?;
    }
    Ok(())
}

fn handle(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: sigaction is plain C data, for which zeroes are a valid value (no flags, empty mask).
    let (mut old, mut new): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let handler: extern "C" fn(libc::c_int) = on_signal;
    new.sa_sigaction = handler as libc::sighandler_t;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: both structures are live and initialised; `on_signal` has the signature of a handler without SA_SIGINFO, and
    // calls only what is async-signal-safe.
    unsafe {
        if libc::sigaction(signal, std::ptr::null(), &raw mut old) != 0 {
            return Err(io::Error::last_os_error());
        }
        if old.sa_sigaction == libc::SIG_IGN {
            return Ok(());
        }
        if libc::sigaction(signal, &raw const new, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    // An initialised OnceLock is read with one atomic load, and it was initialised before the handler was installed.
    let Some(cancel) = FLAG.get() else { return };
    if signal == libc::SIGINT && cancel.reason() == Some(CancelReason::Interrupted) {
        // SAFETY: `_exit` is async-signal-safe and runs no code of ours.
        unsafe { libc::_exit(130) };
    }
    cancel.cancel(if signal == libc::SIGINT {
        CancelReason::Interrupted
    } else {
        CancelReason::Terminated
    });
}
