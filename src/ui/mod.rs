//! What users see: events and diagnostics become a live terminal view, plain text, JSON lines, or nothing but an ID.
//!
//! All displays write to standard error, so that an archive or an ID can go to standard output. One display owns the screen at a
//! time. No display decides anything about the build.

mod display;
mod json;
mod plain;
mod quiet;
mod render;
mod terminal;
mod text;

pub use display::{display, report, report_in, shown};
pub use render::render;
pub use text::{size, table};
