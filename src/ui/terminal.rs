//! The live view: finished steps scroll away as lines, running ones stay at the bottom with a clock and their last lines.
//!
//! The live area is redrawn in place by moving the cursor up over it; everything above it is ordinary scrolled text, so a resize
//! or a copy loses nothing. A frame is one write. The cursor is never hidden and no mode of the terminal is changed, so there is
//! nothing to restore, whatever ends the process. The clock's thread starts only when threads may exist; until then events draw.

use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::vocab::{Event, EventSink};

use super::Showing;
use super::render::Style;
use super::screen::{Screen, Size};

/// Time between two frames.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Terminal {
    shared: Arc<Shared>,
    clock: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    view: Mutex<View>,
    ended: Condvar,
}

struct View {
    screen: Screen,
    /// What will scroll away with the next frame.
    pending: String,
    last_frame: Option<Instant>,
    has_clock: bool,
}

impl Terminal {
    pub(super) fn new(style: Style, showing: &Showing) -> Terminal {
        let view = View {
            screen: Screen::new(style, showing, Instant::now()),
            pending: String::new(),
            last_frame: None,
            has_clock: false,
        };
        let shared = Arc::new(Shared {
            view: Mutex::new(view),
            ended: Condvar::new(),
        });
        Terminal {
            shared,
            clock: Mutex::new(None),
        }
    }

    fn start_clock(&self) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if clock.is_some() {
            return;
        }
        let shared = self.shared.clone();
        *clock = Some(std::thread::spawn(move || {
            let mut view = shared.view.lock().unwrap_or_else(PoisonError::into_inner);
            view.has_clock = true;
            while !view.screen.is_over() {
                view = shared
                    .ended
                    .wait_timeout(view, TICK)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                if !view.screen.is_over() {
                    view.draw();
                }
            }
        }));
    }
}

impl Terminal {
    /// Takes the live area away, and ends the clock.
    fn end(&self) {
        {
            let mut view = self
                .shared
                .view
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            view.screen.end();
            view.draw();
        }
        self.shared.ended.notify_all();
        if let Some(clock) = self
            .clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            // A clock that panicked has nothing left to say.
            drop(clock.join());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.end();
    }
}

impl EventSink for Terminal {
    fn pause(&self) {
        self.end();
    }

    fn emit(&self, event: Event) {
        if matches!(event, Event::Entered { .. }) {
            self.start_clock();
        }
        let view = &mut *self
            .shared
            .view
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // What may be the last word is not left to the clock.
        let is_urgent = matches!(
            event,
            Event::Diagnostic(_) | Event::Done(_) | Event::Failed { .. }
        );
        let now = Instant::now();
        view.screen.take(event, now, &mut view.pending);
        let is_due = view
            .last_frame
            .is_none_or(|last| now.saturating_duration_since(last) >= TICK);
        if is_urgent || (!view.has_clock && (is_due || !view.pending.is_empty())) {
            view.draw();
        }
    }
}

impl View {
    fn draw(&mut self) {
        let now = Instant::now();
        let text = std::mem::take(&mut self.pending);
        let frame = self.screen.frame(&text, window_size(), now);
        self.last_frame = Some(now);
        if !frame.is_empty() {
            // A closed standard error has no other place to be told.
            drop(std::io::stderr().lock().write_all(frame.as_bytes()));
        }
    }
}

fn window_size() -> Size {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
            columns: size.ws_col.into(),
            rows: size.ws_row.into(),
        },
        _ => Size {
            columns: 80,
            rows: 24,
        },
    }
}
