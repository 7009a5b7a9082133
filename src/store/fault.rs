//! A hook for tests: a child process can be told to die, or to find the disk full, at its Nth change of the disk.
//!
//! [`growth`] and [`removal`] stand before every call that changes what a later process sees; removal needs no room, so it does
//! not fail on a full disk. Outside of tests they are nothing.

use std::io;

/// Before something is made or written.
#[inline(always)]
pub(super) fn growth() -> io::Result<()> {
    #[cfg(test)]
    if plan::reached() {
        return Err(rustix::io::Errno::NOSPC.into());
    }
    Ok(())
}

/// Before something is removed.
#[inline(always)]
pub(super) fn removal() {
    #[cfg(test)]
    plan::reached();
}

/// After the bytes of a file have reached the disk.
#[inline(always)]
pub(super) fn synced(_path: &std::path::Path) {
    #[cfg(test)]
    SYNCED.with_borrow_mut(|synced| synced.push(_path.to_owned()));
}

#[cfg(test)]
thread_local! {
    /// What this thread has synced, in order; a later power cut cannot tear it.
    pub(super) static SYNCED: std::cell::RefCell<Vec<std::path::PathBuf>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod plan {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// `BUILDER_STORE_FAULT=kill:N` ends the process by SIGKILL at the Nth point; `full:N` says yes there and at all later ones.
    pub(super) fn reached() -> bool {
        static PLAN: OnceLock<Option<(bool, u64)>> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let plan = PLAN.get_or_init(|| {
            let plan = std::env::var("BUILDER_STORE_FAULT").ok()?;
            let (kind, at) = plan.split_once(':')?;
            Some((kind == "kill", at.parse().ok()?))
        });
        let Some((kill, at)) = *plan else {
            return false;
        };
        let count = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
        if kill && count == at {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL)
                .expect("a process may kill itself");
        }
        !kill && count >= at
    }
}
