//! The sink that events pass through on their way to the display.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::vocab::{Event, EventSink, ExitCode, Timestamp};

use super::page;
use super::story::Story;

/// Passes events on and remembers them for the page. Memory is bounded: of the logs, so much is kept as the page shows.
pub struct Recording<'a> {
    display: &'a dyn EventSink,
    /// Whether the display is told under which keys results were found; the page always is.
    tells_keys: bool,
    names: Vec<String>,
    date: Timestamp,
    story: Mutex<Story>,
}

impl<'a> Recording<'a> {
    /// Begins; `names` are what the result is going to be called.
    pub fn new(display: &'a dyn EventSink, tells_keys: bool, names: Vec<String>) -> Recording<'a> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.unwrap_or_default().as_secs();
        Recording {
            display,
            tells_keys,
            names,
            date: Timestamp::from_seconds(i64::try_from(seconds).unwrap_or(0)),
            story: Mutex::new(Story::new(Instant::now())),
        }
    }

    /// Returns the page of a build that has ended so.
    pub fn page(&self, ended: ExitCode) -> String {
        let mut story = self.story.lock().unwrap_or_else(PoisonError::into_inner);
        story.end();
        let elapsed = match &story.summary {
            Some(summary) => summary.elapsed.as_secs_f64(),
            None => story.elapsed(),
        };
        page::page(&page::Told {
            story: &story,
            names: &self.names,
            date: self.date,
            ended,
            elapsed,
        })
    }
}

impl EventSink for Recording<'_> {
    fn emit(&self, event: Event) {
        {
            let mut story = self.story.lock().unwrap_or_else(PoisonError::into_inner);
            story.take(&event);
        }
        if self.tells_keys || !matches!(event, Event::Found { .. }) {
            self.display.emit(event);
        }
    }

    fn pause(&self) {
        self.display.pause();
    }
}
