//! What users see: events and diagnostics become a live terminal view, plain text, JSON lines, or nothing but an ID.
//!
//! All displays write to standard error, so that an archive or an ID can go to standard output. One display owns the screen at a
//! time. No display decides anything about the build. The page of `--report` is made beside the display, by a [`Recording`] of what
//! passes to it, and written by whoever asked for it.

mod ci;
mod colours;
mod display;
mod json;
mod lines;
mod plain;
mod quiet;
mod render;
mod report;
mod screen;
mod summary;
mod terminal;
mod text;
mod width;

pub use display::{Ci, Showing, SummaryLength, display, report, report_in, shown};
pub use render::render;
pub use report::Recording;
pub use text::{size, table};
