//! Why a document from outside cannot be used.

use crate::vocab::DigestError;

/// What is wrong with a manifest, index or config.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not JSON, or JSON of another shape.
    #[error("the {what} is malformed")]
    Malformed {
        what: &'static str,
        source: serde_json::Error,
    },
    /// More bytes than any honest document has.
    #[error("the {what} is larger than {limit} bytes: {size}")]
    TooLarge {
        what: &'static str,
        size: u64,
        limit: u64,
    },
    /// The document can be read as two different things.
    #[error("the manifest has both `layers` and `manifests`, so it could be read in two ways")]
    Ambiguous,
    /// Docker's first format, which names no config.
    #[error("the image is in Docker's old manifest format (schema 1), which is not supported")]
    Schema1,
    /// A schema version that does not exist.
    #[error("manifest schema version {0} is not supported: wanted 2")]
    SchemaVersion(u64),
    /// The manifest of something else: a chart, a signature, a cache.
    #[error("not an image but an artifact: `{0}`")]
    NotAnImage(String),
    /// The document's own type and the one that it came with contradict each other.
    #[error("the manifest came as `{outside}` and says that it is `{inside}`")]
    Contradiction { outside: String, inside: String },
    /// A digest that cannot be checked.
    #[error("the {what} names a blob that cannot be checked")]
    Digest {
        what: &'static str,
        source: DigestError,
    },
}
