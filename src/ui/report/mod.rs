//! The page of a build: one HTML file that needs nothing else.
//!
//! In: the events of a build, which pass through a [`Recording`] to the display. Out: the page as text. All charts are drawn here, as
//! SVG whose horizontal measures are percentages, so that the page reads without a script and fits any window; the script opens the
//! step that a link leads to, and filters.
//!
//! What commands print, names of steps and of files are anybody's. They get into the page only by [`Html::text`](html::Html::text),
//! which escapes them, and as JSON without `<`; markup is only what is written in this program. The page's policy allows this one
//! style and this one script by their digests, and no network.

mod data;
mod graph;
mod head;
mod html;
mod log;
mod map;
mod page;
mod recording;
mod sizes;
mod steps;
mod story;
#[cfg(test)]
mod tests;
mod timeline;

pub use recording::Recording;
