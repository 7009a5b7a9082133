//! The event loop under the room's blocking calls: made with the first call, gone with the last user.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use super::error::RegistryError;

/// Whether threads may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// No thread is ever started: the process has yet to enter a namespace. Transfers advance only while a call of the room waits.
    None,
    /// A small multi-threaded event loop: transfers advance by themselves.
    Some,
}

/// Made when it is first needed. Tasks on it must not own it: it ends on the thread of a caller.
pub(super) struct Reactor {
    threads: Threads,
    runtime: OnceLock<Runtime>,
}

impl Reactor {
    pub(super) fn new(threads: Threads) -> Reactor {
        Reactor {
            threads,
            runtime: OnceLock::new(),
        }
    }

    /// Runs a future to its end on the calling thread.
    pub(super) fn block_on<F: Future>(&self, future: F) -> Result<F::Output, RegistryError> {
        Ok(self.runtime()?.block_on(future))
    }

    fn runtime(&self) -> Result<&Runtime, RegistryError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let mut builder = match self.threads {
            Threads::None => Builder::new_current_thread(),
            Threads::Some => Builder::new_multi_thread(),
        };
        if self.threads == Threads::Some {
            builder.worker_threads(2).thread_name("registry");
        }
        let made = builder
            .enable_io()
            .enable_time()
            .build()
            .map_err(|source| RegistryError::Runtime { source })?;
        // Where two threads were first, one loop is kept and the other one ends unused.
        Ok(self.runtime.get_or_init(|| made))
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
