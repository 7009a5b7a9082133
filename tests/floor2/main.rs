//! Floor 2: whole builds on a small root of the machine's own programs. Needs user namespaces or root, and nothing else.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each floor uses its part")]
mod support;

mod attacks;
mod cache;
mod cache_upkeep;
mod check;
mod ci_forms;
mod command;
mod compat;
mod content;
mod contexts;
mod copy;
mod display;
mod drivers;
mod error_texts;
mod errors;
mod explain;
mod golden;
mod handover;
mod isolation;
mod language;
mod limits;
mod look;
mod lower;
mod manifest;
mod mounts;
mod object_caches;
mod on_error;
mod outputs;
mod recipes;
mod registry;
mod remotes;
mod report;
mod run;
mod secrets;
mod security;
mod settings;
mod shared_cache;
mod shared_mounts;
mod straight;
mod try_image;
