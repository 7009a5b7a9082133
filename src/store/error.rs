//! What can go wrong with the state directory, told apart by what the user can do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::vocab::Digest;

/// Why the store could not do what was asked. A damaged cache entry is not among these: it is a miss.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {verb} on a read-only file system: {}", path.display())]
    ReadOnly {
        path: PathBuf,
        verb: &'static str,
        source: io::Error,
    },
    /// No blocks, no inodes or no quota left.
    #[error("no space left to {verb}: {}", path.display())]
    Full {
        path: PathBuf,
        verb: &'static str,
        source: io::Error,
    },
    #[error("not allowed to {verb}: {}", path.display())]
    Denied {
        path: PathBuf,
        verb: &'static str,
        source: io::Error,
    },
    #[error("cannot {verb}: {}", path.display())]
    Io {
        path: PathBuf,
        verb: &'static str,
        source: io::Error,
    },
    /// Something that cannot be made again is not what it should be.
    #[error("the state directory is damaged, {what}: {}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("the state directory has another format, wanted `{wanted}`, found `{found}`: {}", path.display())]
    Version {
        path: PathBuf,
        wanted: &'static str,
        found: String,
    },
    /// Builds are running, so nothing may be removed.
    #[error("the state directory is in use by {}: {}", processes(pids), path.display())]
    Busy { path: PathBuf, pids: Vec<u32> },
    /// The bytes that came are not the bytes that were announced.
    #[error("wrong content, wanted {wanted}, found: {found}")]
    Mismatch { wanted: Digest, found: Digest },
    /// A document is longer than any honest one.
    #[error("blob {digest} has {size} bytes, more than the limit: {limit}")]
    TooLarge {
        digest: Digest,
        size: u64,
        limit: u64,
    },
}

impl StoreError {
    /// Sorts an error of the system by what can be done about it.
    pub(super) fn from_io(path: &Path, verb: &'static str, source: io::Error) -> StoreError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path, verb, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::Full { path, verb, source }
            }
            io::ErrorKind::PermissionDenied => StoreError::Denied { path, verb, source },
            _ => StoreError::Io { path, verb, source },
        }
    }

    /// Returns what the user can do.
    pub fn hint(&self) -> String {
        match self {
            StoreError::ReadOnly { .. } => {
                "give a state directory that can be written with `--root`".to_owned()
            }
            StoreError::Full { .. } => {
                "free space with `builder prune --all`, or give a state directory on another disk with `--root`"
                    .to_owned()
            }
            StoreError::Denied { path, .. } => format!(
                "check who owns `{}`: one user's state directory cannot be shared with another's; choose one with `--root`",
                path.display()
            ),
            StoreError::Io { source, .. } if is_missing_lock_support(source) => {
                "the file system has no file locks; give a state directory on a local disk with `--root`"
                    .to_owned()
            }
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
                "a file stands where a directory is wanted; give another state directory with `--root`"
                    .to_owned()
            }
            StoreError::Io { .. } => {
                "check the disk that holds the state directory, or give another one with `--root`"
                    .to_owned()
            }
            StoreError::Damaged { path, .. } => format!(
                "move `{}` away and build again: what is missing then will be made anew",
                path.display()
            ),
            StoreError::Version { .. } => {
                "use the version of builder that made it, or give another state directory with `--root`"
                    .to_owned()
            }
            StoreError::Busy { .. } => "wait until the running builds have ended".to_owned(),
            StoreError::Mismatch { .. } => {
                "the source sent something else than it promised; try again".to_owned()
            }
            StoreError::TooLarge { .. } => {
                "no image has a document of that length; check where it came from".to_owned()
            }
        }
    }

    /// Tells whether room on the disk would have helped.
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Full { .. })
    }
}

fn is_missing_lock_support(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn processes(pids: &[u32]) -> String {
    match pids {
        [] => "another process".to_owned(),
        [pid] => format!("process {pid}"),
        several => {
            let several: Vec<_> = several.iter().map(u32::to_string).collect();
            format!("processes {}", several.join(", "))
        }
    }
}
