//! The command lines of the tools that people come from: kaniko's executor and warmer, buildah, podman, docker.
//!
//! ```text
//! words of the tool ─ parse (by its table) ─ translate ─ words of `builder`, and notes
//! ```
//!
//! In: the words of this process, and the environment. Out: command lines of `builder`, which go through the same parser as those that
//! are typed: there is no second way to build. Every flag of a tool is a row of its table, and the row says what becomes of it: it is
//! honoured, noted as meaningless here, or refused with what to do instead. `docs/moving.md` is written from the tables.

mod buildah;
mod buildah_flags;
mod docker;
mod docker_flags;
mod flag;
mod images;
mod images_flags;
mod kaniko;
mod kaniko_flags;
mod own;
mod page;
mod parse;
mod route;
#[cfg(test)]
mod tests;

pub(super) use route::{Routed, route};
