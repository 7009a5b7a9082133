//! The cache that machines share: what steps came to, in a registry, a directory, an object store or GitHub's cache.
//!
//! In: keys to look up, results and layers to publish. Out: entries whose stated inputs were compared with those asked for, and
//! blobs whose digests were checked. The room knows neither the store nor the graph; whatever it cannot use is a miss that is
//! told of once, never a failure of the build.
//!
//! ```text
//! Shared ── what a build asks, and remembers of the answers
//!   │        └─ Publisher   what a build gives, on threads of its own
//!   ▼
//! Place ─┬─ registry   REPOSITORY:SCOPE-step-KEY, and records inside REPOSITORY:TAG
//!        ├─ directory  entries/SCOPE-step-KEY, blobs/sha256/HEX
//!        ├─ bucket     manifests/SCOPE-step-KEY, blobs/sha256:HEX
//!        └─ actions    SCOPE-step-KEY.MOMENT, builder-blob-HEX
//! entry ── the document of one step: an image manifest (written)
//! trail ── SCOPE-trail-INSTRUCTIONS: keys to ask about together
//! mounts ── what cache mounts hold: SCOPE-mount-KEY
//! upkeep ── what lies at a place, and removing it
//! ```
//!
//! # Entries
//!
//! An entry is an ordinary image manifest under a name that is made of the scope and the step's key, so that every registry takes
//! it and no two jobs ever write to one name something else. Its layers are the step's layer in one or more forms; the record
//! (result, inputs, times) is an annotation, so that a look-up is one request. An entry without layers is a record alone: it
//! leads on to later keys, and is a miss as soon as files of it are needed.
//!
//! When an entry was last of use is the time of its file, in a directory. Registries keep no such time, so it is an annotation, which a build
//! that may write to the place renews when it is a day old, after its work and never on the way of a look-up.
//!
//! Trust: whoever can write to a place can put any files into a step's result there. So the places that are read and those that
//! are written are named apart; what a pull request may write, a release must not read.

mod actions;
mod bucket;
mod directory;
mod entry;
mod error;
mod folder;
pub mod mounts;
mod place;
mod publish;
mod registry;
mod shared;
#[cfg(test)]
mod tests;
mod trail;
pub mod upkeep;
mod written;

pub use entry::{Entry, EntryLayer, PackedForm, put_records};
pub use error::CacheError;
pub use place::Place;
pub use publish::{Open, Publication, Publisher, ToPublish};
pub use shared::Shared;
