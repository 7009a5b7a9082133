//! Build inputs: directories of the host and roots of stages; which of their files an instruction selects, and the digest of
//! what was selected.
//!
//! In: an opened directory ([`Source`]), the pattern and flags of one source word ([`Query`]). Out: a [`Selection`], which
//! names files and holds none; its digest; and a [`Walk`] over it, by which the worker copies. Nothing of it writes, but for the
//! stat cache.
//!
//! Invariants: a look-up never leaves the source's root, whatever links say and whoever swaps them meanwhile: every component
//! is opened by itself, on the descriptor of its parent, without following links; links are read and followed by us, with the
//! root as `/`. A selection is opened again the same way when it is used, and then a link on its path is an error. Neither
//! depth nor size of a tree costs stack or descriptors: lists are explicit, and only the innermost directories stay open.
//!
//! Repositories are inputs too: `git` runs the program of that name, `git_remote` fetches commits, `git_files` writes their files.
//! These alone write, into directories that they are given.
//!
//! Not here: downloads; where fetched things are kept; looking up owners; the ignore language itself, which is `dockerfile`'s.

mod digest;
mod error;
mod git;
mod git_files;
mod git_remote;
mod ignore_file;
mod list;
mod listing;
mod meta;
mod overlay;
mod resolve;
mod select;
mod source;
mod stat_cache;
#[cfg(test)]
pub(crate) mod testing;
mod trail;
mod walk;
mod xattrs;

/// How a source is told what to leave out.
pub use crate::dockerfile::IgnorePatterns;
pub use error::{ContextError, SelectError};
pub use git::{Git, GitError, Remote};
pub use git_files::{Submodule, is_plain_directory, level};
pub use git_remote::GitCommit;
pub use ignore_file::ignore_file;
pub use list::list;
pub use listing::changes;
pub use meta::{Kind, Meta};
pub use select::{ParentDirectory, Query, SelectedRoot, Selection, select};
pub use source::Source;
pub use trail::{Trail, descend, open_directory};
pub use walk::{Node, Visit, Walk, open_file};
pub use xattrs::{Xattrs, read_all_xattrs, read_xattrs};
