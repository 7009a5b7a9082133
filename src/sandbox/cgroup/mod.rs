//! Control groups: how much of the machine the builder itself has, and groups that keep each command within limits.
//!
//! ```text
//! hierarchy   where each controller is mounted, and where the builder is in it      (/proc/self/cgroup, mountinfo)
//!  ├ own      what the builder may use: the smallest limit from its group upwards
//!  └ place    where groups of commands can be made without escaping a limit
//!     └ setting → group: one command's directories, limits, its end           register: what a dead builder left
//! ```
//!
//! Versions 1 and 2 and their mixtures are one case: each controller is looked for by itself. In: limits by value. Out: numbers,
//! groups, and typed reasons where there can be none. Nothing here decides what to do about a limit that has no effect.
//!
//! Invariants. A command's group is never outside a limit that binds the builder. No process but the builder itself is moved
//! about. Each directory is in the register before it is made, and whoever finds the register's lock free removes it.

mod error;
mod group;
mod groups;
mod hierarchy;
mod own;
mod place;
mod register;
mod setting;

pub use error::GroupError;
pub use group::{OutOfMemory, StepGroup};
pub use groups::{Ineffective, StepGroups};
pub use own::{Limits, oom_kills, own_limits};
pub use register::sweep_groups;

pub(super) use own::{memory_limit, processor_quota};
