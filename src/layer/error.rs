//! What can be wrong with an archive, and with an entry that is to be written into one.

use std::io;

/// Why an archive was refused. Offsets count bytes of the archive from its start and point at the header concerned.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed; a decompressor reports damage this way.
    #[error("cannot read the archive")]
    Read(#[from] io::Error),
    /// The archive ends inside a header or a file.
    #[error("the archive is cut short at byte {offset}")]
    Truncated { offset: u64 },
    /// The header's checksum is not that of its bytes: no tar archive, or a damaged one.
    #[error("no valid tar header at byte {offset}: wrong checksum")]
    Checksum { offset: u64 },
    /// One block of zeros and then something else: readers disagree on what follows, so nothing that follows is believed.
    #[error("a single block of zeros inside the archive at byte {offset}")]
    LoneZeroBlock { offset: u64 },
    /// A number is malformed, negative or larger than its meaning allows.
    #[error("the field `{field}` of the tar header at byte {offset} is not a usable number")]
    Number { field: &'static str, offset: u64 },
    /// An extended header breaks the PAX rules.
    #[error("the extended header at byte {offset} is malformed: {reason}")]
    Pax { reason: &'static str, offset: u64 },
    /// A sparse file's map contradicts itself or the archive.
    #[error("the sparse file at byte {offset} is malformed: {reason}")]
    Sparse { reason: &'static str, offset: u64 },
    /// More bytes than any honest archive has.
    #[error("{what} of the tar entry at byte {offset} is longer than {limit} bytes")]
    TooLong {
        what: &'static str,
        limit: u64,
        offset: u64,
    },
    /// A path, or a hard link's target, that has a `..` component.
    #[error("the tar entry `{}` leaves its root", path.escape_ascii())]
    Escapes { path: Vec<u8> },
    /// A name with a NUL byte.
    #[error("the name of the tar entry at byte {offset} has a NUL byte")]
    NulInName { offset: u64 },
    /// Entries that contradict each other or the rules of layers; found by [`validate_layer`](super::validate_layer) alone.
    #[error("the layer's entry `{}` {problem}", path.escape_ascii())]
    Layer {
        path: Vec<u8>,
        problem: &'static str,
    },
    /// The two blocks of zeros at the end are missing; found by [`validate_layer`](super::validate_layer) alone.
    #[error("the archive has no end mark")]
    NoEnd,
    /// Something other than zeros behind the end mark; found by [`validate_layer`](super::validate_layer) alone.
    #[error("something follows the archive's end before byte {offset}")]
    AfterEnd { offset: u64 },
    /// Reading on after an error.
    #[error("the archive was given up at an earlier error")]
    GivenUp,
    /// Something other than a directory that has the root's own path.
    #[error("the tar entry at byte {offset} has no name")]
    EmptyName { offset: u64 },
    /// A type of entry that means nothing in a file tree, or that is unknown.
    #[error("the tar entry at byte {offset} has the unsupported type `{}`", kind.escape_ascii())]
    UnsupportedType { kind: u8, offset: u64 },
}

impl From<TarError> for io::Error {
    fn from(error: TarError) -> io::Error {
        match error {
            TarError::Read(error) => error,
            TarError::Truncated { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// Why an entry cannot be written; the inner error of an [`io::Error`] of kind `InvalidInput`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("the path `{}` is not relative to the root, without `.`, `..` and empty components", path.escape_ascii())]
    Path { path: Vec<u8> },
    #[error("`{}` has a NUL byte in its {what}", path.escape_ascii())]
    Nul { path: Vec<u8>, what: &'static str },
    #[error("the {what} of `{}` is longer than {limit} bytes", path.escape_ascii())]
    TooLong {
        path: Vec<u8>,
        what: &'static str,
        limit: usize,
    },
    #[error("the root can only be a directory")]
    Root,
    #[error("`{}` has a {what} that a tar archive cannot hold", path.escape_ascii())]
    Number { path: Vec<u8>, what: &'static str },
    #[error("`{}` gave {found} bytes: wanted {wanted}", path.escape_ascii())]
    Short {
        path: Vec<u8>,
        wanted: u64,
        found: u64,
    },
    #[error("`{}` gave more than {wanted} bytes", path.escape_ascii())]
    Long { path: Vec<u8>, wanted: u64 },
}

impl From<EntryError> for io::Error {
    fn from(error: EntryError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}
