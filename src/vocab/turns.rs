//! Several things at a time, by a few threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Acts on each item; after the first failure nothing more is begun. Returns what came of those that were acted on, in the order of
/// the items, and that failure.
pub fn each<T: Sync, R: Send, E: Send>(
    items: &[T],
    at_once: usize,
    act: impl Fn(&T) -> Result<R, E> + Sync,
) -> (Vec<R>, Option<E>) {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let failure: Mutex<Option<E>> = Mutex::new(None);
    let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            if failed().is_some() {
                return;
            }
            match act(item) {
                Ok(result) => {
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((at, result));
                }
                Err(error) => {
                    failed().get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once.min(items.len()) {
            // Where no thread can be had, the others do it.
            drop(std::thread::Builder::new().spawn_scoped(scope, work));
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    let results = done.into_iter().map(|(_, result)| result).collect();
    let failure = failure.into_inner();
    (results, failure.unwrap_or_else(PoisonError::into_inner))
}
