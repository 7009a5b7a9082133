//! Expanding the words of instructions, with their mistakes told in place.
//!
//! The one module that calls the language's expansion. A variable without a value is a warning here and nothing in the text.
//! What one word may draw from variables is bounded: `ENV A=$A$A`, some forty times, would fill any memory.

use std::cell::{Cell, RefCell};

use super::environment::Environment;
use super::report::{Mistake, Report, Reported};
use crate::dockerfile::{self, ExpandError, Word};
use crate::vocab::{Diagnostic, Span, nearest};

/// Bytes that variables may put into one word, and into one heredoc. An environment variable holds 128 KiB on Linux.
const WORD_LIMIT: usize = 1 << 20;
const HEREDOC_LIMIT: usize = 64 << 20;

/// What variables mean at one place.
pub(super) struct Words<'a> {
    pub(super) escape: char,
    pub(super) values: &'a Environment,
    /// Names that may be without a value and still are no mistake: declared ones.
    pub(super) declared: &'a dyn Fn(&str) -> bool,
    /// Where to point instead of the word itself: the FROM that fired the trigger in which the word stands.
    pub(super) at: Option<Span>,
}

/// A word of FROM, expanded: its lints need to know which variables it used.
pub(super) struct Matched {
    pub(super) text: String,
    /// Names that had a value.
    pub(super) used: Vec<String>,
    /// Names that had none.
    pub(super) missing: Vec<String>,
}

impl Words<'_> {
    /// Returns the text that one word stands for.
    pub(super) fn one(&self, word: &Word, report: &mut Report) -> Result<String, Reported> {
        let expanded = self.bounded(WORD_LIMIT, |lookup| {
            dockerfile::expand(&word.value, self.escape, lookup)
        });
        let expanded = report.take(expanded.map_err(|error| self.mistake(word.span, &error)))?;
        self.warn(word.span, &expanded.undefined, report);
        Ok(expanded.text)
    }

    /// Returns the words that one word stands for, where white space in values separates. Variables without a value are no
    /// matter of a lint there.
    pub(super) fn many(&self, word: &Word, report: &mut Report) -> Result<Vec<String>, Reported> {
        let expanded = self.bounded(WORD_LIMIT, |lookup| {
            dockerfile::expand_words(&word.value, self.escape, lookup)
        });
        let (words, _) = report.take(expanded.map_err(|error| self.mistake(word.span, &error)))?;
        Ok(words)
    }

    /// Returns a heredoc's body with its variables replaced.
    pub(super) fn heredoc(
        &self,
        body: &str,
        span: Span,
        report: &mut Report,
    ) -> Result<String, Reported> {
        let expanded = self.bounded(HEREDOC_LIMIT, |lookup| {
            dockerfile::expand_heredoc(body, lookup)
        });
        let mistake = |error: ExpandError| {
            // Offsets count from the body, whose own place is not known: tabs may have been taken from its lines.
            let error = ExpandError { offset: 0, ..error };
            self.mistake(span, &error)
        };
        let expanded = report.take(expanded.map_err(mistake))?;
        self.warn(span, &expanded.undefined, report);
        Ok(expanded.text)
    }

    /// Returns the text that a word of FROM stands for, with the names it used. Warns of nothing.
    pub(super) fn matched(&self, word: &Word) -> Result<Matched, Mistake> {
        let used = RefCell::new(Vec::new());
        let expanded = self.bounded(WORD_LIMIT, |lookup| {
            let noting = |name: &str| {
                let value = lookup(name);
                if value.is_some() {
                    used.borrow_mut().push(name.to_owned());
                }
                value
            };
            dockerfile::expand(&word.value, self.escape, &noting)
        });
        match expanded {
            Ok(expanded) => Ok(Matched {
                text: expanded.text,
                missing: expanded.undefined,
                used: used.into_inner(),
            }),
            Err(error) => Err(self.mistake(word.span, &error)),
        }
    }

    /// Expands with a look-up that hands out no more than `limit` bytes.
    fn bounded<T>(
        &self,
        limit: usize,
        expand: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> Result<T, ExpandError>,
    ) -> Result<T, ExpandError> {
        let left = Cell::new(Some(limit));
        let expanded = expand(&|name| {
            let value = self.values.get(name)?;
            left.set(left.get().and_then(|left| left.checked_sub(value.len())));
            Some(left.get().map_or("", |_| value).to_owned())
        })?;
        match left.get() {
            Some(_) => Ok(expanded),
            None => Err(ExpandError {
                offset: 0,
                message: format!("variables make this longer than {limit} bytes"),
            }),
        }
    }

    fn mistake(&self, span: Span, error: &ExpandError) -> Mistake {
        let span = self.at.unwrap_or_else(|| {
            let start = span.start.saturating_add(error.offset).min(span.end);
            Span::new(start, span.end)
        });
        Box::new(Diagnostic::error(error.message.clone()).at(span))
    }

    fn warn(&self, span: Span, undefined: &[String], report: &mut Report) {
        for name in undefined {
            if (self.declared)(name) {
                continue;
            }
            let warning = Diagnostic::warning(format!("variable `{name}` is used but not defined"))
                .code("UndefinedVar")
                .at(self.at.unwrap_or(span));
            report.add(match nearest(name, self.values.names()) {
                Some(known) => warning.hint(format!("did you mean `{known}`?")),
                None => warning,
            });
        }
    }
}
