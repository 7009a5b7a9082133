//! Floor 2: whole builds on a small root of the machine's own programs. Needs user namespaces or root, and nothing else.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each floor uses its part")]
mod support;

mod attacks;
mod cache;
mod cache_upkeep;
mod check;
mod command;
mod content;
mod contexts;
mod copy;
mod drivers;
mod errors;
mod isolation;
mod language;
mod limits;
mod lower;
mod manifest;
mod mounts;
mod object_caches;
mod outputs;
mod registry;
mod remotes;
mod run;
mod secrets;
mod security;
mod shared_cache;
mod shared_mounts;
mod straight;
