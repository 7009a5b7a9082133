//! Why an image could not be delivered.

use std::io;
use std::path::{Path, PathBuf};

use crate::registry::RegistryError;
use crate::rootfs::RootfsError;
use crate::store::StoreError;
use crate::vocab::{Digest, ExitCode};

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    #[error("`{}` exists and is no OCI layout", .0.display())]
    NotALayout(PathBuf),
    #[error("a Docker archive holds one platform, the result has {0}")]
    SeveralPlatforms(usize),
    #[error("blob {0} is not in the state directory")]
    MissingBlob(Digest),
    /// A blob could not be brought into the store.
    #[error("{message}")]
    Fetch {
        message: String,
        class: ExitCode,
        hint: Option<String>,
    },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Root(#[from] RootfsError),
    #[error("cancelled")]
    Cancelled,
}

impl ExportError {
    pub(super) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExportError {
        move |source| ExportError::Io {
            verb,
            path: path.to_owned(),
            source,
        }
    }

    /// Returns the class of failure that it is.
    pub fn class(&self) -> ExitCode {
        match self {
            ExportError::Store(_) => ExitCode::Store,
            ExportError::Fetch { class, .. } => *class,
            _ => ExitCode::Export,
        }
    }

    /// Returns what the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            ExportError::Registry(error) => error.hint(),
            ExportError::Store(error) => Some(error.hint()),
            ExportError::Fetch { hint, .. } => hint.clone(),
            ExportError::NotALayout(_) => {
                Some("name a directory that is empty or does not exist".to_owned())
            }
            ExportError::SeveralPlatforms(_) => {
                Some("use `type=oci`, or build one platform".to_owned())
            }
            _ => None,
        }
    }
}
