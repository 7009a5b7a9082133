//! Who uploads a blob: of several threads that want the same one at a registry, one does, and the others wait for what comes of it.
//!
//! A blob that one repository has got can then be mounted in another, which costs no bytes.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::vocab::Digest;

/// Registry and blob.
type Work = (String, Digest);

#[derive(Default)]
pub(super) struct Turns {
    under_way: Mutex<HashSet<Work>>,
    ended: Condvar,
}

/// The right to upload one blob, given back with the value.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    work: Work,
}

impl Turns {
    /// Waits until nobody uploads the blob to this registry. Whoever has the turn ends it, or is ended by the limits of its requests.
    pub(super) fn take(&self, registry: &str, digest: Digest) -> Turn<'_> {
        let work = (registry.to_owned(), digest);
        let under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut under_way = self
            .ended
            .wait_while(under_way, |under_way| under_way.contains(&work))
            .unwrap_or_else(PoisonError::into_inner);
        under_way.insert(work.clone());
        Turn { turns: self, work }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let under_way = self.turns.under_way.lock();
        under_way
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.work);
        self.turns.ended.notify_all();
    }
}
