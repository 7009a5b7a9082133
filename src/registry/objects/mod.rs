//! Object stores and cache services: places for documents and blobs under names, on this room's connections.
//!
//! ```text
//! Bucket ── S3 and its kin, by the object_store crate    ◀── address  which host, which region
//!   │         ├─ connector  its requests, on our connections; refusals become typed
//!   │         └─ keys       whom it signs for              ◀── cloud: what the ECR login finds
//! ActionsCache ── GitHub's cache, by its service and the storage that this points to
//!   │         ├─ service    who may write and read what, and where
//!   │         └─ storage    bytes to and from there
//!   ▼
//! reader ── a blob that goes on after a cut, and is checked      parts ── a large blob in pieces, several at the same time
//! ```
//!
//! In: names, bytes. Out: bytes; of blobs only those that have their digests. What is behind the names is not known here. Everything that may
//! pass is tried again, by the limits of [`retry`](super::retry) and as `Retry-After` says: the crate's own retries are switched off.

mod actions;
mod address;
mod bucket;
mod connector;
mod keys;
mod parts;
mod reader;
mod service;
mod storage;

pub use actions::ActionsCache;
pub use bucket::{Bucket, Object};

use super::error::RegistryError;

/// What came of asking for a document.
type Answer = Result<Option<Vec<u8>>, RegistryError>;
