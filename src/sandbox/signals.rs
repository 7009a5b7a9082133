//! Signals that end a build.
//!
//! The handler does only what is safe in one: atomic operations and `_exit`. Nobody is killed from here: commands are in
//! sessions of their own, which no terminal reaches, and end when the builder ends them or when the builder ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use rustix::pipe::PipeFlags;

use crate::vocab::{Cancel, CancelReason, ExitCode};

use super::error::SignalError;

static FLAG: OnceLock<Cancel> = OnceLock::new();
/// A first SIGINT has come.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The status that the first signal stands for; 0 before it came.
static ENDING: AtomicI32 = AtomicI32::new(0);
/// Whoever does not look at the flag is ended after this many seconds.
const GRACE: libc::c_uint = 5;
/// With which status a timeout ends a process that has no flag yet.
static STATUS: AtomicI32 = AtomicI32::new(1);

/// SIGINT, SIGTERM and SIGHUP raise `cancel`; a second SIGINT ends the process at once with status 130, and every running
/// command with it. So does, with the first signal's status, what has not ended after a few seconds: a write that nobody
/// takes, a disk that does not answer. A signal that was ignored when the program started (`nohup`) stays ignored. Once per process.
pub fn raise_on_signals(cancel: &Cancel) -> Result<(), SignalError> {
    FLAG.set(cancel.clone()).map_err(|_| SignalError::Taken)?;
    for (signal, name) in [
        (libc::SIGALRM, "SIGALRM"),
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

/// Signals that come to this process, as numbers in a pipe.
pub struct PassedSignals {
    reader: OwnedFd,
}

impl AsFd for PassedSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// The writing end of their pipe; -1 before there is one.
static PASSED: AtomicI32 = AtomicI32::new(-1);

/// From here on signals are for a command, and end nothing by themselves: those that ask to end or tell something, and changes of
/// the terminal's size. One that was ignored when the program started stays ignored.
pub fn pass_signals() -> Result<PassedSignals, SignalError> {
    let failed = |signal| move |source| SignalError::Install { signal, source };
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
    let (reader, writer) = pipe.map_err(|errno| failed("signals")(errno.into()))?;
    // Handlers stay installed for as long as the process is there, and so does this.
    PASSED.store(writer.into_raw_fd(), Ordering::SeqCst);
    for (signal, name) in [
        (libc::SIGINT, "SIGINT"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGWINCH, "SIGWINCH"),
    ] {
        handle_by(signal, on_passed).map_err(failed(name))?;
    }
    Ok(PassedSignals { reader })
}

extern "C" fn on_passed(signal: libc::c_int) {
    let number = signal as u8;
    // SAFETY: `write` is async-signal-safe and reads one byte of a live local; the pipe does not block, and one that is full has
    // enough to tell. The place of errno is the interrupted thread's own, and it finds there what it left.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(PASSED.load(Ordering::SeqCst), (&raw const number).cast(), 1);
        *errno = before;
    }
}

fn handle(signal: libc::c_int) -> io::Result<()> {
    handle_by(signal, on_signal)
}

fn handle_by(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: sigaction is plain C data, for which zeroes are a valid value (no flags, empty mask).
    let (mut old, mut new): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    new.sa_sigaction = handler as libc::sighandler_t;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: both structures are live and initialised; both handlers have the signature of one without SA_SIGINFO, and
    // call only what is async-signal-safe.
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
    let Some(cancel) = FLAG.get() else {
        if signal == libc::SIGALRM {
            // SAFETY: `_exit` is async-signal-safe and runs no code of ours.
            unsafe { libc::_exit(STATUS.load(Ordering::SeqCst)) };
        }
        return;
    };
    if signal == libc::SIGINT && INTERRUPTED.swap(true, Ordering::SeqCst) {
        // SAFETY: `_exit` is async-signal-safe and runs no code of ours.
        unsafe { libc::_exit(130) };
    }
    let (reason, status) = match signal {
        libc::SIGINT => (CancelReason::Interrupted, ExitCode::Interrupted),
        libc::SIGALRM => (CancelReason::Timeout, ExitCode::Timeout),
        _ => (CancelReason::Terminated, ExitCode::Terminated),
    };
    let first = ENDING.compare_exchange(0, status as i32, Ordering::SeqCst, Ordering::SeqCst);
    if let (Err(first), libc::SIGALRM) = (first, signal) {
        // SAFETY: `_exit` is async-signal-safe and runs no code of ours.
        unsafe { libc::_exit(first) };
    }
    cancel.cancel(reason);
    // SAFETY: `alarm` is async-signal-safe; it takes the place of the timeout, which has nothing left to end.
    unsafe { libc::alarm(GRACE) };
}

/// Ends the build after `timeout`: raises the flag of [`raise_on_signals`] where that was called by then, and else, while there
/// is nothing to tidy up yet, ends the process with `status`. Needs no thread: the kernel's timer sends SIGALRM.
pub fn end_after(timeout: Duration, status: ExitCode) -> Result<(), SignalError> {
    STATUS.store(status as i32, Ordering::SeqCst);
    let failed = |source| SignalError::Install {
        signal: "SIGALRM",
        source,
    };
    handle(libc::SIGALRM).map_err(failed)?;
    let never = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    // A timer of zero would be none.
    let timeout = timeout.max(Duration::from_micros(1));
    let timer = libc::itimerval {
        it_interval: never,
        it_value: libc::timeval {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_usec: timeout.subsec_micros().into(),
        },
    };
    // SAFETY: `timer` is live and initialised; the old value is not asked for.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(failed(io::Error::last_os_error())),
    }
}
