//! Nothing but the result's ID on standard output, and errors.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::vocab::{Event, EventSink, SourceText};

use super::render::{Style, render};

#[derive(Default)]
pub(super) struct Quiet {
    source: Mutex<Option<SourceText>>,
}

impl EventSink for Quiet {
    fn emit(&self, event: Event) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Source(text) => *source = Some(text),
            Event::Diagnostic(diagnostic) if diagnostic.is_error() => {
                let text = render(&diagnostic, source.as_ref(), Style::of_stderr());
                // A closed standard error or output has no other place to be told.
                drop(std::io::stderr().lock().write_all(text.as_bytes()));
            }
            Event::Done(summary) => {
                if let Some(id) = summary.id {
                    drop(
                        std::io::stdout()
                            .lock()
                            .write_all(format!("{id}\n").as_bytes()),
                    );
                }
            }
            _ => {}
        }
    }
}
