//! Why a mount could not be saved or restored.

use std::io;

use crate::cache::CacheError;
use crate::vocab::Digest;

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The place itself.
    #[error(transparent)]
    Place(#[from] CacheError),
    /// What is there under the mount's name, as words that fit after "it".
    #[error("what is saved {0}")]
    Document(String),
    #[error("cannot read blob {blob}")]
    Blob {
        blob: Digest,
        #[source]
        source: io::Error,
    },
    #[error("blob {0} does not hold what the index says")]
    Content(Digest),
    #[error("cannot {verb} what is on its way")]
    Keep {
        verb: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("it has too many files for one document")]
    TooMany,
}

impl MountError {
    /// Tells whether what is saved is of no use, so that nothing can be added to it.
    pub fn is_spoilt(&self) -> bool {
        match self {
            MountError::Document(_) | MountError::Content(_) | MountError::Blob { .. } => true,
            MountError::Place(error) => matches!(error, CacheError::Gone(_)),
            MountError::Keep { .. } | MountError::TooMany => false,
        }
    }

    /// Tells whether a place misses blobs that a document names.
    pub fn misses_blobs(&self) -> bool {
        match self {
            MountError::Place(error) => error.misses_blobs(),
            _ => false,
        }
    }

    /// Returns what the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            MountError::Place(error) => error.hint(),
            _ => None,
        }
    }
}
