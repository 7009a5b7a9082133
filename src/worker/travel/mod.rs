//! Cache mounts that come from other machines, and go to them.
//!
//! In: a mount that a step is about to get, or what a build's steps have left in theirs. Out: a directory filled before the step
//! begins, or a version at a place. Decides what travels and when; how is [`cache::mounts`](crate::cache::mounts)' work, and what a
//! directory is as streams is `rootfs`'.
//!
//! - *Restored* is what is not here: a mount whose first copy is missing or empty, once per build, under a lock that other builds
//!   wait for, and in a directory beside, which takes the place of the empty one by a rename. A directory that holds something stays
//!   as it is: this machine's steps wrote it.
//! - *Saved* is what a step of this build could write to, after the build, from the first copy, in the way that its steps share it: one
//!   that is alone on its mount is never read in the middle of its work. A mount that others write to meanwhile is read again.
//! - Whatever is wrong with what was saved is a warning, and the mount begins as it would without.

mod known;
mod restore;
mod save;

pub(super) use known::Travel;
pub use known::{MountsFrom, MountsTo};
