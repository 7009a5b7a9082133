//! A blob as it comes in: counted, hashed and handed on, wherever it comes from and however often that is cut.

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::error::RegistryError;
use super::pull::Piece;
use crate::vocab::{Descriptor, Sha256};

/// What has come of a blob.
pub(super) struct Receipt {
    pub(super) blob: Descriptor,
    /// In messages.
    pub(super) what: String,
    /// Bytes that have come.
    pub(super) done: u64,
    hash: Sha256,
    pieces: mpsc::Sender<Piece>,
}

/// Why a copy ended early.
pub(super) enum Stop {
    Error(RegistryError),
    /// Nobody reads any more.
    Unwanted,
}

impl Receipt {
    pub(super) fn new(blob: &Descriptor, what: String, pieces: mpsc::Sender<Piece>) -> Receipt {
        Receipt {
            blob: blob.clone(),
            what,
            done: 0,
            hash: Sha256::new(),
            pieces,
        }
    }

    /// Tells whether nothing is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.done == self.blob.size
    }

    /// Takes what came, whose first `skip` bytes had come before.
    pub(super) async fn take(&mut self, mut chunk: Bytes, skip: &mut u64) -> Result<(), Stop> {
        let known = (*skip).min(chunk.len() as u64);
        *skip -= known;
        // `known` is at most the chunk's length.
        chunk.advance(known as usize);
        if chunk.is_empty() {
            return Ok(());
        }
        let done = self.done + chunk.len() as u64;
        if done > self.blob.size {
            return Err(Stop::Error(self.wrong_size(done)));
        }
        self.done = done;
        self.hash.update(&chunk);
        let handed = self.pieces.send(Piece::Bytes(chunk)).await;
        handed.map_err(|_| Stop::Unwanted)
    }

    /// Takes the end of a body.
    pub(super) fn end(&self) -> Result<(), Stop> {
        match self.done < self.blob.size {
            true => Err(Stop::Error(self.wrong_size(self.done))),
            false => Ok(()),
        }
    }

    /// Tells whether all that came is what was wanted. Asked once.
    pub(super) fn verify(&mut self) -> Result<(), RegistryError> {
        let found = std::mem::take(&mut self.hash).finish();
        match found == self.blob.digest {
            true => Ok(()),
            false => Err(RegistryError::DigestMismatch {
                what: self.what.clone(),
                expected: self.blob.digest,
                found,
            }),
        }
    }

    /// Says how it ended.
    pub(super) async fn conclude(&self, transferred: Result<(), Stop>) {
        let last = match transferred {
            Ok(()) => Piece::Verified,
            Err(Stop::Error(error)) => Piece::Failed(error),
            Err(Stop::Unwanted) => return,
        };
        // An error means that the reader is gone, and with it the question.
        drop(self.pieces.send(last).await);
    }

    pub(super) fn wrong_size(&self, found: u64) -> RegistryError {
        RegistryError::SizeMismatch {
            what: self.what.clone(),
            expected: self.blob.size,
            found,
        }
    }
}
