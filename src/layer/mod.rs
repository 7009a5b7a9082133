//! Layers as streams: tar entries, compression, digests. Works over `Read` and `Write`; opens no file.

mod entry;

pub use entry::{Entry, EntryKind, Mtime};
