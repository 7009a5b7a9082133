//! A step's file tree: layers applied to directories, stacked by overlayfs or composed, and what changed read back.
//!
//! ```text
//! layer (tar) ── apply_layer ──> layer directory ─┐
//!                                 layer directory ─┼─ mount_overlay ──> Tree (the merged root) ── write_tree, export_tree
//!                    upper directory (fresh) ──────┘                        │ lookup_user, make_dirs, extract_archive
//!                    upper directory <──────── RUN and COPY write through ──┘
//!                          └── write_layer ──> layer (tar)
//! ```
//!
//! Where overlayfs does not work, [`Trees`] composes a plain directory from the layer directories; a step changes it in place,
//! and what it has changed is put into a layer directory afterwards:
//!
//! ```text
//! layer directories ── Trees::write ──> Tree (one directory) <── RUN and COPY ── TreeWriter::fill ──> layer directory
//!                                         └── the next step of the stage
//! ```
//!
//! A *layer directory* is in overlayfs' own form: a deleted name is a character device 0:0, a directory that hides what is
//! below it has the attribute `user.overlay.opaque`. Mounts always say `userxattr`, as real root too, so that there is one
//! form on disk; an upper directory becomes a layer directory as it is.
//!
//! Owners, modes, devices and capabilities are real where the process can give files away; else they are in a ledger
//! ([`Owners`]), which a layer directory keeps in a file beside it ([`Sidecar`]) and a root gets from its layers
//! ([`seed_owners`], [`note_owners`]). Both give the same layers, to the byte. Caches, which are no layers and which several steps
//! write to at once, have such a file too ([`SharedOwners`]). Between machines they
//! travel as two streams ([`read_cache`], [`fill_cache`]).
//!
//! [`Listing`] tells the files of layers without any of this: no directory, no namespace.
//!
//! The process is root, or root of its own user and mount namespace, or nobody in particular with a ledger. Contents are hostile everywhere: a path from an archive
//! or an image is resolved beneath its root by the kernel, never by comparing text. What this room does not do: run
//! processes, choose directories, keep records, compress or hash.

mod apply;
mod cached;
mod carry;
mod compose;
mod context;
mod cursor;
mod diff;
mod error;
mod export;
mod extract;
mod index;
mod ledgers;
mod listing;
mod lower;
mod marks;
mod metadata;
mod overlay;
mod owners;
mod parcel;
mod pool;
mod probe;
mod remove;
mod resolve;
mod scan;
mod shared;
mod sidecar;
mod stat;
mod subtree;
#[cfg(test)]
mod tests;
mod times;
mod tree;
mod twins;
mod unpack;
mod users;
mod walk;
mod witness;
mod xattr;

pub use apply::{Applied, apply_layer};
pub use cached::{Piece, fill_cache, read_cache};
pub use context::{ContextWriter, extract_context};
pub use diff::{DiffStats, write_layer};
pub use error::{RootfsError, UserError};
pub use export::{ExportStats, export_tree, write_tree};
pub use extract::extract_archive;
pub use ledgers::{note_owners, seed_owners};
pub use listing::{
    Aspect, Change, Difference, Digests, Hidden, Listed, ListedKind, Listing, ListingError, Origin,
    Unresolved, aspects, compare,
};
pub use marks::{has_loose_marks, settle_marks};
pub use overlay::{MAX_LOWERS, mount_overlay, write_stub_layer};
pub use owners::{DescribeError, Owners};
pub use pool::{TreeWriter, Trees};
pub use probe::overlay_works;
pub use remove::{remove_tree, tree_size};
pub use scan::ScanStats;
pub use shared::SharedOwners;
pub use sidecar::{Noted, Sidecar};
pub use stat::{FileKind, Stat};
pub use subtree::subtree;
pub use times::Times;
pub use tree::Tree;
pub use users::{Owner, User, lookup_owner, lookup_user};
pub use witness::{WitnessError, check_witness, write_witness};
