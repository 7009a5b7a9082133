//! Performs one step on this machine.

mod chmod;
mod copy;

pub use copy::{Chmod, ChmodError, CopyError, CopyOptions, CopyStats, Item, copy};
