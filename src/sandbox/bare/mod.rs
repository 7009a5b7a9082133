//! Commands without namespaces and mounts: the rungs `chroot` and `paths`.
//!
//! The outer half of init is everything here: it is the command's tracer and supervisor, and what it does not serve the command
//! does not have. On `paths` it alone opens files. On `chroot` the root is the command's root directory, so that the kernel
//! opens and executes what is on disk there; the outer half does what the kernel cannot: whatever is mounted, and whatever
//! changes a name or an owner.
//!
//! ```text
//! outer half                                   inner half
//!  world: trees in place of mounts
//!  forks ───────────────────────────────────►  waits to be traced
//!  guard: traces, serves calls, ◄── listener ─ streams, limits, [chroot,] no rights, Landlock, filters
//!         waits, ends what is left             execve
//! ```
//!
//! Nothing of it outlives the outer half: the kernel kills what it traces.

mod guard;
mod start;
mod world;

pub(super) use guard::{Order, run};
