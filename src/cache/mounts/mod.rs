//! What cache mounts hold travels between machines, and of it only what a place does not have.
//!
//! In: a mount as two streams (what its files are, what they hold), and a place. Out: the same streams on another machine. The room
//! reads no directory of a mount and makes none; whoever does decides which mounts travel and when.
//!
//! ```text
//! streams ── cuts ──> chunks ── without those that the place has ──> packs ──┐
//!                        └── index: chunks in packs, streams in chunks ──────┼──> document SCOPE-mount-KEY
//! streams <── chunks, each checked <── packs <───────────────────────────────┘
//! ```
//!
//! Chunks are small, so that a change moves little; packs are some MiB, so that a mount is some dozens of requests and not thousands.
//! A pack that is needed for less than a half is given up, and what is needed of it sent again. A document names all blobs as its
//! layers, so that no registry collects them as garbage, and every registry takes it.
//!
//! Trust: whoever can write to a place can put any files into a mount there, as into a step's result. Their paths stay below the
//! mount, and their size within a limit.

mod chunks;
mod cuts;
mod document;
mod error;
mod index;
mod restore;
mod save;
#[cfg(test)]
mod tests;

pub use chunks::{Outline, PackError, Packed, Streams};
pub use document::{MountName, Version};
pub use error::MountError;
pub use index::Index;
pub use restore::{look_up, note_use, restore};
pub use save::{Saved, save};
