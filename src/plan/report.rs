//! What planning has to say, collected so that one run shows all mistakes.

use std::collections::HashMap;

use crate::vocab::{Diagnostic, Span};

/// Errors and warnings in the order found; the same one twice (two platforms, two stages from one base) is kept once.
#[derive(Default)]
pub(super) struct Report {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Where in the two lists stands what points at a place: equal ones are looked for only there.
    by_place: HashMap<(bool, Option<Span>), Vec<usize>>,
}

/// An error on its way to the report.
pub(super) type Mistake = Box<Diagnostic>;

/// Stands for an error that is in the report already: whoever gets it gives up what it was doing, and nothing more.
#[derive(Debug)]
pub(super) struct Reported;

impl Report {
    /// Takes in an error or a warning.
    pub(super) fn add(&mut self, diagnostic: Diagnostic) {
        let list = match diagnostic.is_error() {
            true => &mut self.errors,
            false => &mut self.warnings,
        };
        let place = diagnostic.labels.first().map(|label| label.span);
        let alike = self
            .by_place
            .entry((diagnostic.is_error(), place))
            .or_default();
        if !alike.iter().any(|&at| list[at] == diagnostic) {
            alike.push(list.len());
            list.push(diagnostic);
        }
    }

    /// Takes in an error and returns what stands for it.
    pub(super) fn refuse(&mut self, diagnostic: Diagnostic) -> Reported {
        self.add(diagnostic);
        Reported
    }

    /// Passes `result` on with its error taken in.
    pub(super) fn take<T>(&mut self, result: Result<T, Mistake>) -> Result<T, Reported> {
        result.map_err(|mistake| self.refuse(*mistake))
    }

    /// Tells whether an error was found.
    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Returns the warnings, or all there is if one of it is an error, in the order of the text.
    pub(super) fn finish(self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let place = |diagnostic: &Diagnostic| diagnostic.labels.first().map(|label| label.span);
        let mut warnings = self.warnings;
        warnings.sort_by_key(place);
        if self.errors.is_empty() {
            return Ok(warnings);
        }
        let mut all = self.errors;
        all.sort_by_key(place);
        all.extend(warnings);
        Err(all)
    }
}
