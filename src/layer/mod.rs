//! Layers as streams: tar entries, compression, digests. Works over `Read` and `Write`; opens no file.
//!
//! In: [`Entry`]s with their content, or the bytes of a blob. Out: a blob with its digests ([`LayerWriter`]), a plain archive
//! ([`TarWriter`]), or entries again ([`decompress`], [`TarReader`]). Equal entries give equal bytes. It knows nothing of file
//! trees: which entries make a layer, what whiteouts mean and how entries land on a disk is `rootfs`' work.

mod ahead;
mod chunk;
mod content;
mod crew;
mod cuts;
mod decompress;
mod digesting;
mod encoder;
mod entry;
mod error;
mod header;
mod input;
mod member;
mod pack;
mod path;
mod pax;
mod reader;
mod sparse;
mod tar_digest;
#[cfg(test)]
mod tests;
mod validate;
mod writer;
mod zip;

pub use ahead::ReadAhead;
pub use content::Stretch;
pub use decompress::{Format, decompress, decompress_within, detect};
pub use digesting::DigestingReader;
pub use entry::{Entry, EntryKind, Mtime};
pub use error::{EntryError, TarError};
pub use header::is_tar;
pub use member::Member;
pub use pack::{LayerWriter, PackedLayer};
pub use reader::TarReader;
pub use validate::{LayerSummary, validate_layer};
pub use writer::{HeaderWriter, TarWriter};
pub use zip::{ZipError, ZipMember, ZipReader, is_zip};
