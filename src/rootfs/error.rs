//! What can go wrong with a file tree. Each error names the path and what was being done to it; paths inside a tree are shown
//! from its root.

use std::io;

use crate::layer::TarError;

/// Why a tree could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("cannot {verb} `{path}`")]
    Io {
        verb: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    /// The archive itself, not what it asks for.
    #[error("cannot unpack the archive")]
    Archive(#[from] TarError),
    /// An entry that is well formed and cannot be meant.
    #[error("archive entry `{path}` {problem}")]
    Entry { path: String, problem: &'static str },
    /// The kernel knows no such owner here: a user namespace maps fewer ids than the tree needs.
    #[error("cannot give `{path}` to owner {uid}:{gid}: no such id in this user namespace")]
    Owner {
        path: String,
        uid: u32,
        gid: u32,
        #[source]
        source: io::Error,
    },
    /// The file beside a layer directory says what its files are; without it nobody knows.
    #[error("`{path}` is damaged")]
    Sidecar { path: String },
    #[error("`{path}` is not a directory")]
    NotADirectory { path: String },
    #[error("`{path}` is not a regular file")]
    NotAFile { path: String },
    #[error("`{path}` is larger than {limit} bytes")]
    TooLarge { path: String, limit: usize },
    /// Applied elsewhere, such a name would delete something.
    #[error("`{path}` cannot be in a layer: a name that begins with `.wh.` means a deletion there")]
    WhiteoutName { path: String },
    #[error("`{path}` cannot be in a layer: the device 0:0 means a deletion there")]
    DeletionDevice { path: String },
    /// overlayfs would show what the layer deletes.
    #[error("the disk of `{path}` takes no deletion marks, so overlayfs cannot stack it")]
    Marks { path: String },
    #[error("{count} layers are more than overlayfs can stack: at most {limit}", limit = super::MAX_LOWERS)]
    TooManyLayers { count: usize },
    #[error("cannot mount an overlay: {step}{log}")]
    Mount {
        step: &'static str,
        /// What the kernel said besides the error number; empty, or begins with `: `.
        log: String,
        #[source]
        source: io::Error,
    },
    #[error("cancelled")]
    Cancelled,
}

/// Why a user or group has no number.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("no user `{0}` in the image's /etc/passwd")]
    NoUser(String),
    #[error("no group `{0}` in the image's /etc/group")]
    NoGroup(String),
    #[error("`{0}` is no user or group id: the largest is 4294967294")]
    TooLarge(String),
    #[error("cannot look up `{name}`")]
    Read {
        name: String,
        #[source]
        source: Box<RootfsError>,
    },
}

/// Adds the verb and the path that an error number lacks.
pub(super) trait During<T> {
    fn during(self, verb: &'static str, path: impl Shown) -> Result<T, RootfsError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, verb: &'static str, path: impl Shown) -> Result<T, RootfsError> {
        self.map_err(|error| RootfsError::Io {
            verb,
            path: path.shown(),
            source: error.into(),
        })
    }
}

/// A path that becomes text only where there is an error to tell: most calls succeed.
pub(super) trait Shown {
    /// Returns text that can be printed: control characters and bytes that are no UTF-8 are escaped.
    fn shown(&self) -> String;
}

/// A path of the host.
impl Shown for &[u8] {
    fn shown(&self) -> String {
        let mut text = String::with_capacity(self.len());
        for chunk in self.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    text.extend(character.escape_default());
                } else {
                    text.push(character);
                }
            }
            text.push_str(&chunk.invalid().escape_ascii().to_string());
        }
        text
    }
}

impl Shown for &str {
    fn shown(&self) -> String {
        self.as_bytes().shown()
    }
}

/// A path of a tree, shown from the root.
pub(super) struct Rooted<'a>(&'a [u8]);

pub(super) fn rooted(path: &[u8]) -> Rooted<'_> {
    Rooted(path)
}

impl Shown for Rooted<'_> {
    fn shown(&self) -> String {
        let path = self.0.shown();
        match path.starts_with('/') {
            true => path,
            false => format!("/{path}"),
        }
    }
}
