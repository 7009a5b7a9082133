//! One flag that ends a build: raised by a signal, the timeout or the first failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Why the build should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// SIGINT.
    Interrupted,
    /// SIGTERM or SIGHUP.
    Terminated,
    /// `--timeout`.
    Timeout,
    /// Another step has failed.
    Failed,
}

/// A shared flag; the first reason given stays. Whoever waits polls it at least ten times a second, or is woken by what the
/// raiser does besides (a signal to a process group, a closed channel).
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicU8>);

impl Cancel {
    /// Returns a flag that is down.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Raises the flag. Safe in a signal handler: one atomic operation.
    pub fn cancel(&self, reason: CancelReason) {
        let code = match reason {
            CancelReason::Interrupted => 1,
            CancelReason::Terminated => 2,
            CancelReason::Timeout => 3,
            CancelReason::Failed => 4,
        };
        let _earlier_reason_stands = self
            .0
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst)
            .is_err();
    }

    /// Lowers the flag where it was raised because a step failed, and the build goes on all the same. All steps have ended.
    pub fn forgive_failure(&self) {
        let _another_reason_stands = self
            .0
            .compare_exchange(4, 0, Ordering::SeqCst, Ordering::SeqCst)
            .is_err();
    }

    /// Returns why the build should end, if it should.
    pub fn reason(&self) -> Option<CancelReason> {
        match self.0.load(Ordering::SeqCst) {
            1 => Some(CancelReason::Interrupted),
            2 => Some(CancelReason::Terminated),
            3 => Some(CancelReason::Timeout),
            4 => Some(CancelReason::Failed),
            _ => None,
        }
    }

    /// Tells whether the flag is up.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}
