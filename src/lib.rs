//! `builder` turns a Dockerfile into an OCI image wherever a process can run.
//!
//! ```text
//! request ─ parse ─ resolve bases ─ plan (graph) ─ solve (cache | execute) ─ assemble image ─ export / push
//! ```
//!
//! Three ideas carry it. *A typed plan*: syntax, meaning and doing are three types, and nothing after planning sees Dockerfile
//! text. *Results are records, bytes are lazy*: a step's result is a small record; a build whose every step hits touches records
//! alone. *Two products per step*: the snapshot lets the next step start at once, the packed layer is made meanwhile, and only
//! for steps whose layer leaves the build.
//!
//! # Rooms
//!
//! Read [`pipeline`] first: one build from request to exit. Arrows go down only; `tests/arrows.rs` holds the table.
//!
//! | floor | room | purpose |
//! |---|---|---|
//! | upper | [`cli`] | flags become a request; subcommands |
//! | | [`pipeline`] | one build, top to bottom |
//! | | [`ui`] | events and diagnostics become terminal, plain text, JSON lines |
//! | | [`export`] | sinks: registry, OCI layout, Docker archive, tar, directory |
//! | | [`worker`] | performs one step on this machine (implements [`solve::Worker`]) |
//! | edge | [`context`] | build inputs: directories and repositories, their selection and content digests |
//! | | [`store`] | the cache on disk: layers, records, cache mounts, what was fetched |
//! | | [`rootfs`] | a step's file tree: mount, apply, diff |
//! | | [`sandbox`] | running a process confined; all `unsafe` |
//! | | [`cache`] | the cache that machines share, in registries, directories and object stores |
//! | | [`registry`] | distribution client, plain downloads, object stores; all `async` |
//! | pure | [`dockerfile`] | text becomes syntax |
//! | | [`plan`] | syntax becomes a graph |
//! | | [`image`] | OCI documents |
//! | | [`layer`] | tar and compression as streams |
//! | | [`solve`] | the graph becomes results |
//! | all | [`vocab`] | the words |

pub mod cache;
pub mod cli;
pub mod context;
pub mod dockerfile;
pub mod export;
pub mod image;
pub mod layer;
pub mod pipeline;
pub mod plan;
pub mod registry;
pub mod rootfs;
pub mod sandbox;
pub mod solve;
pub mod store;
pub mod ui;
pub mod vocab;
pub mod worker;
