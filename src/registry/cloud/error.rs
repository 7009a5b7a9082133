//! Why a built-in login failed. No value here holds a key or a token.

use std::io;
use std::path::PathBuf;

use super::super::error::{RegistryError, Said};

/// Why a built-in login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// A file that a variable names, or that lies where clouds' own tools put it.
    #[error("cannot read `{}`", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A variable or a file holds what cannot be used.
    #[error("`{place}` cannot be used: {what}")]
    Setting { place: String, what: String },
    /// A service of the cloud refuses.
    #[error("`{host}` answered {asked} with status {status}{said}")]
    Refused {
        host: String,
        asked: &'static str,
        status: u16,
        said: Said,
    },
    /// A service of the cloud says something else than what it should.
    #[error("`{host}` answered {asked} with something else")]
    Answer { host: String, asked: &'static str },
    #[error("cannot ask for {asked}")]
    Unreachable {
        asked: &'static str,
        #[source]
        source: Box<RegistryError>,
    },
}

impl LoginError {
    /// Returns the error of a variable or file.
    pub(super) fn setting(place: impl Into<String>, what: impl Into<String>) -> LoginError {
        LoginError::Setting {
            place: place.into(),
            what: what.into(),
        }
    }

    /// Returns what the user can do, where something is known.
    pub(in super::super) fn hint(&self) -> Option<String> {
        match self {
            LoginError::Unreachable { source, .. } => source.hint(),
            _ => None,
        }
    }
}
