//! Performs one step on this machine: composes store, cache, registry, context, rootfs, layer and sandbox.
//!
//! In: a [`Job`](crate::solve::Job). Out: a layer in the store and its record. Where a base's layers are not unpacked yet, they
//! are fetched and unpacked first, all at once, and only when a step needs their files. Owns no state but the store's.

mod add;
mod agent;
mod ahead;
mod base;
mod below;
mod cdi;
mod chmod;
mod command;
mod copy;
mod devices;
mod digests;
mod facts;
mod failed;
mod fetched;
mod ingredients;
mod kept;
mod keys;
mod machine;
mod means;
mod memory;
mod mounts;
mod pack;
mod redact;
mod root;
mod run;
mod secrets;
mod shared;
mod slots;
mod steps;
mod travel;
mod trial;
mod wire;

pub use agent::AgentAccess;
pub use ahead::Destination;
pub use base::open_layout_file;
pub use command::{Attended, HostMount, Streams};
pub use copy::{Chmod, ChmodError, CopyError, CopyOptions, CopyStats, Item, copy};
pub use failed::FailedStep;
pub use fetched::{checkout_id, no_subdirectory};
pub use keys::{KeyError, PrivateKey};
pub use machine::{LocalDirectory, Machine, Setup};
pub use means::Means;
pub use secrets::Credentials;
pub use shared::Caches;
pub use steps::now;
pub use travel::{MountsFrom, MountsTo};
pub use trial::{Status, Trial, Tried};
