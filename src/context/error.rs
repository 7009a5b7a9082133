//! What can go wrong while inputs are read.

use std::io;
use std::path::PathBuf;

use crate::dockerfile::PatternError;

/// Reading a build input failed. Paths are relative to the source's root, except for the root and the ignore file themselves.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The kernel refused.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        /// What was tried, such as `read`.
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file was replaced by something else while the build read it.
    #[error("`{}` was replaced while the build was reading it", path.display())]
    Changed { path: PathBuf },
    /// The ignore file is no text.
    #[error("`{}` is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    /// A directory, FIFO or device stands where the ignore file should.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// The ignore file of a context is a link out of it, or to nothing.
    #[error("`{}` is a link that leads to nothing inside the build context", path.display())]
    LeadsNowhere { path: PathBuf },
    /// The patterns of an exclusion are malformed.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// A source word selects nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A plain name is missing, or a link leads nowhere.
    #[error("`{path}` not found{}", match excluded_by {
        Some((line, pattern)) if pattern.is_empty() => format!(": excluded by line {line} of the ignore file"),
        Some((line, pattern)) => format!(": excluded by line {line} of the ignore file: `{pattern}`"),
        None => String::new(),
    })]
    NotFound {
        /// As written in the instruction; with a wildcard, the match that leads nowhere.
        path: String,
        /// The line of the ignore file that took it out of the context, and its text if the source was told.
        excluded_by: Option<(usize, String)>,
        /// An existing path that differs in case or in a letter or two.
        similar: Option<String>,
    },
    /// Links that lead to each other, or more than forty in a row.
    #[error("too many symbolic links in `{path}`")]
    Links { path: String },
    /// The wildcard or an `--exclude` pattern is malformed.
    #[error(transparent)]
    BadPattern(#[from] PatternError),
    #[error(transparent)]
    Io(#[from] ContextError),
}

impl ContextError {
    /// Joins a failed system call with what it was for.
    pub(super) fn io(verb: &'static str, path: &[u8], error: rustix::io::Errno) -> ContextError {
        ContextError::Io {
            verb,
            path: shown(path),
            source: error.into(),
        }
    }
}

/// Returns a source-relative path for a message; the root is `.`.
pub(super) fn shown(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;

    if path.is_empty() {
        return PathBuf::from(".");
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}
