//! Looking after a place: what is there, and removing what is of no use any more.
//!
//! In: a place, which of its scopes are meant, and what may stay. Out: what lies there, or what went. Nobody asks here what an entry is
//! for: a build that misses one performs the step.
//!
//! ```text
//! contents ── names, then documents ──> Listed
//! choice   ── Listed, Criteria ──> what goes          (no place, no clock)
//! prune    ── documents, then blobs that none names
//! ```
//!
//! Only what looks like the cache's own goes: by its name *and* by what is in it. Damaged documents, documents of other programs under such
//! a name, and everything else at the place are told of or counted, and left alone.

mod choice;
mod contents;
mod prune;
#[cfg(test)]
mod tests;

pub use choice::Criteria;
pub use contents::{About, Contents, Listed, Scopes, Sort, State, list, size_of};
pub use prune::{Pruned, Pruning, prune};
