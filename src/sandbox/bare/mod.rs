//! Commands without namespaces and mounts: the rung `paths`.
//!
//! The outer half of init is everything here: it is the command's tracer and supervisor, it alone opens files, and what it does
//! not serve the command does not have.
//!
//! ```text
//! outer half                                   inner half
//!  world: trees in place of mounts
//!  forks ───────────────────────────────────►  waits to be traced
//!  guard: traces, serves calls, ◄── listener ─ streams, limits, no_new_privs, Landlock, filters
//!         waits, ends what is left             execve
//! ```
//!
//! Nothing of it outlives the outer half: the kernel kills what it traces.

mod guard;
mod start;
mod world;

pub(super) use guard::{Order, run};
