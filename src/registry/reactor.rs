//! The event loop under the room's blocking calls: made with the first call, gone with the last user.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::runtime::{Builder, Runtime};

use super::error::RegistryError;
use crate::vocab::Cancel;

/// How often the flag is looked at.
const TICK: Duration = Duration::from_millis(50);
/// Futures of one call that advance at the same time.
const AT_ONCE: usize = 16;

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
    cancel: OnceLock<Cancel>,
}

impl Reactor {
    pub(super) fn new(threads: Threads) -> Reactor {
        Reactor {
            threads,
            runtime: OnceLock::new(),
            cancel: OnceLock::new(),
        }
    }

    /// Has every later wait end when `cancel` is raised; the first flag stays.
    pub(super) fn end_with(&self, cancel: &Cancel) {
        self.cancel.get_or_init(|| cancel.clone());
    }

    /// Runs a future on the calling thread to its end, or until the flag of [`end_with`](Reactor::end_with) is raised.
    pub(super) fn block_on<F: Future>(&self, future: F) -> Result<F::Output, RegistryError> {
        let runtime = self.runtime()?;
        let Some(cancel) = self.cancel.get() else {
            return Ok(runtime.block_on(future));
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                output = future => Ok(output),
                () = raised(cancel) => Err(RegistryError::Cancelled),
            }
        })
    }

    /// Runs futures at the same time, which takes no further thread, and returns what came of them in their order.
    pub(super) fn block_on_each<F: Future>(
        &self,
        futures: impl IntoIterator<Item = F>,
    ) -> Result<Vec<F::Output>, RegistryError> {
        self.block_on(stream::iter(futures).buffered(AT_ONCE).collect())
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

async fn raised(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(TICK).await;
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
