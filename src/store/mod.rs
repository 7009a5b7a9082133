//! The cache on disk: everything that builds leave behind for later builds.
//!
//! In: bytes, trees, records and names from the upper rooms. Out: the same, after any number of crashes. The store does not
//! know what a step is, unpacks nothing, mounts nothing and talks to no network.
//!
//! # Layout
//!
//! ```text
//! ROOT/v1/                       0700: layers hold set-uid programs that other users of the host must not reach
//!   format                       the text `builder-store 1`
//!   oci/                         an OCI image layout, readable by other tools
//!     oci-layout
//!     index.json                 the images, and the only home of their names: one entry for each name
//!                                (org.opencontainers.image.ref.name), and one without a name for a dangling image
//!     blobs/sha256/HEX
//!   layers/LAYERID/              owners on disk
//!     layer.json                 {"size": bytes of regular files, "ledger": bytes of fs.ledger if it is there, "original": what
//!                                tells fs/ from its copies}; a layer is there when this file is there and not empty
//!     fs/                        the unpacked tree: overlay's lower directory
//!     fs.ledger                  what its files are in the image where the disk cannot say it (the rootfs room's file)
//!   layers-devices/LAYERID/      the same; devices are empty files, and their numbers are in fs.ledger
//!   layers-ledger/LAYERID/       the same; all files are the builder's own on disk, and fs.ledger is always there
//!   packed/LAYERID/VARIANT.json  a layer's packed form: diff ID, blob, members (VARIANT: tar, gzip-6, zstd-3, gzip-6@EPOCH)
//!   records/KK/KEY.json          a step's result; the file's modification time is its last use, to the day
//!   mounts/KEY/N/                a copy of a cache mount: `fs/`, which steps write to, and `lock`, whose time is the last use
//!   contexts/HASH                what the context room remembers of one directory
//!   ingredients/HASH             what the steps of one project were made of the last time (the worker's file)
//!   listings/HEX                 the bytes behind a content digest that stands in a key: which files there were
//!   remotes/                     downloads, mirrors of repositories and files of commits (see `remotes`)
//!   unsynced/BOOTID/LAYERID      empty: the layer was made during that boot and may not have reached the disk
//!   witness/KIND/                what shows to others whether trees of a kind look right to them (the rootfs room's files)
//!   groups/NONCE                 control groups that a build has made; whoever makes them writes it and locks it
//!   locks/KEY                    exists while a process holds or wants the lock of a key; holds the holder's pid
//!   locks/images                 taken around every change of index.json
//!   locks/in-use                 builds hold it shared, prune exclusive; never removed
//!   tmp/SESSION.lock             flock-ed by the living process
//!   tmp/SESSION/                 all that is not complete, on the same file system as its later place
//! ```
//!
//! A change of meaning is a new `vN` beside `v1`, never a migration in place.
//!
//! # What survives what
//!
//! *A killed process* loses what it had not finished, and nothing else. Everything is completed inside `tmp/SESSION` and
//! becomes visible by one rename. What a dead process left in `tmp` and `locks` is removed by [`Store::sweep`]. Removal hides
//! first (`layer.json` or the record goes), then deletes.
//!
//! *A crash of the machine* may lose what can be made again, and nothing else. No step waits for the disk. Without a sync a
//! rename may reach the disk before the bytes do, and a file is then too short, so:
//!
//! - a record, packed form or `layer.json` that is torn is a miss, and so is a packed form whose blob has another length;
//! - a layer has an empty file below `unsynced` from before its rename. Names that appear in one order are assumed to
//!   appear in that order after the crash too, as a journal has it, so a layer without that mark was synced or checked. A mark
//!   of another boot hides the layer until [`Store::sweep`] has compared the sum of its files with `layer.json`;
//! - image names cannot be made again: [`Store::put_image`] syncs the image's blobs, then `index.json`, then the directories.
//!   Naming again what has that name already writes nothing.
//!
//! # What is trusted
//!
//! A digest that was checked, not a file name. [`Store::read_blob`] hashes what it returns, and every manifest and config is
//! read through it. [`BlobWriter::commit_checked`] hashes on the way in; [`BlobWriter::commit`] is for callers that have hashed
//! the bytes themselves. [`Store::blob`] opens without hashing: its readers send the bytes to somebody who checks (a registry)
//! or check themselves. [`Store::verify`] reads everything again.
//!
//! # Sharing
//!
//! Any number of processes may share a store. Two that make the same thing both succeed: the second finds it there and drops
//! its own. [`Store::lock`] is for not doing work twice, not for soundness. All files belong to the user who runs the
//! builder, also when they were made as "root" of a user namespace; only the contents of `layers/*/fs` and `mounts/*/*/fs` may belong to other
//! IDs, so removing layers (`prune`, `sweep`) needs the namespace and nothing else does.
//!
//! A store may lie over others, which are looked into after it and never written to (see `lower`). Its records may speak of their
//! layers, and its images of their blobs; that holds nothing.
//!
//! Records, packed forms and blobs are the same whoever made them. Unpacked layers are of two kinds, for processes that can give
//! files away and for those that cannot ([`Store::set_ownership`]); a layer that is there in the other kind alone is unpacked
//! anew from its packed form, and where it has none its record is a miss.

mod blobs;
mod disk;
mod documents;
mod error;
mod fault;
mod home;
mod images;
mod ingredients;
mod inventory;
mod layers;
mod lock;
mod lower;
mod mounts;
mod packed;
mod prune;
mod records;
mod remotes;
mod session;
mod tree;
mod unsynced;
mod usage;
mod verify;

pub use blobs::BlobWriter;
pub use error::StoreError;
pub use home::Store;
pub use images::StoredImage;
pub use layers::{Layer, PendingLayer};
pub use lock::{InUse, Lock, TryLock};
pub use lower::LowerStore;
pub use mounts::{CacheDirectory, MountClaim, NewCacheDirectory, Share};
pub use packed::{Packed, PackedMember};
pub use prune::{PruneOptions, Pruned, Tally};
pub use records::Record;
pub use remotes::{DownloadWriter, KeptDownload, PendingCheckout, Repository};
pub use session::Swept;
pub use usage::{DiskUsage, Usage};
pub use verify::{Problem, ProblemKind};

#[cfg(test)]
mod lower_tests;
#[cfg(test)]
mod tests;
