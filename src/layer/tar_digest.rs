//! The SHA-256 of a layer's tar, on a thread of its own once the layer is large enough to have any.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::vocab::{Digest, Sha256};

use super::crew::Sealed;

/// Chunks that wait for their turn. Hashing is faster than compressing, so that few do.
const QUEUE: usize = 1;

pub(super) enum TarDigest {
    Caller(Sha256),
    Thread(Hasher),
}

/// Takes in chunks in the order in which they come; ends with its owner.
pub(super) struct Hasher {
    /// `None` once there are no more.
    chunks: Option<SyncSender<Arc<Sealed>>>,
    thread: Option<JoinHandle<Sha256>>,
}

impl TarDigest {
    /// Moves the work to a thread, if the system gives one.
    pub(super) fn start_thread(&mut self) {
        let TarDigest::Caller(so_far) = self else {
            return;
        };
        let so_far = so_far.clone();
        let (chunks, queue) = sync_channel(QUEUE);
        let started = thread::Builder::new()
            .name("layer-hash".to_owned())
            .spawn(move || hash(so_far, queue));
        if let Ok(thread) = started {
            *self = TarDigest::Thread(Hasher {
                chunks: Some(chunks),
                thread: Some(thread),
            });
        }
    }

    pub(super) fn update(&mut self, sealed: &Arc<Sealed>) -> io::Result<()> {
        match self {
            TarDigest::Caller(digest) => digest.update(sealed.bytes()),
            TarDigest::Thread(Hasher {
                chunks: Some(chunks),
                ..
            }) => chunks.send(Arc::clone(sealed)).map_err(|_| lost())?,
            TarDigest::Thread(Hasher { chunks: None, .. }) => return Err(lost()),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<Digest> {
        match self {
            TarDigest::Caller(digest) => Ok(digest.finish()),
            TarDigest::Thread(mut hasher) => {
                hasher.chunks = None;
                let thread = hasher.thread.take().ok_or_else(lost)?;
                Ok(thread.join().map_err(|_| lost())?.finish())
            }
        }
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.chunks = None;
        if let Some(thread) = self.thread.take() {
            // Nobody wants the digest any more.
            drop(thread.join());
        }
    }
}

fn hash(mut digest: Sha256, queue: Receiver<Arc<Sealed>>) -> Sha256 {
    for sealed in queue {
        digest.update(sealed.bytes());
    }
    digest
}

fn lost() -> io::Error {
    io::Error::other("the thread that hashes is gone")
}
