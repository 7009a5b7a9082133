//! Why a shared cache could not be used.

use std::io;
use std::path::PathBuf;

use crate::registry::RegistryError;
use crate::vocab::Digest;

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("cannot {verb} `{}`", path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A document that may name blobs: none can be removed.
    #[error("what `{name}` needs is not known: it {why}")]
    Unreadable { name: String, why: String },
    /// A layer that an entry promised, or one of this machine's own.
    #[error("blob {0} is gone")]
    Gone(Digest),
}

impl CacheError {
    /// Tells whether a place refused a document because it misses blobs that this names.
    pub(super) fn misses_blobs(&self) -> bool {
        match self {
            CacheError::Gone(_) => true,
            CacheError::Registry(RegistryError::Status { said, .. }) => said.has("BLOB_UNKNOWN"),
            CacheError::Registry(RegistryError::NotFound { .. }) => true,
            CacheError::Registry(_) | CacheError::File { .. } | CacheError::Unreadable { .. } => {
                false
            }
        }
    }

    /// Returns what happened, without the place.
    pub(super) fn cause(&self) -> String {
        match self {
            CacheError::File { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// Returns what the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            CacheError::Registry(error) => error.hint(),
            CacheError::Unreadable { .. } => {
                Some("blobs were left alone; remove the document if it is of no use".to_owned())
            }
            CacheError::File { .. } | CacheError::Gone(_) => None,
        }
    }
}
