//! The flags of instructions: which there are, and what was given.
//!
//! In: the flag words of a line and the flags that the instruction knows. Out: [`Flags`], and a diagnostic for each flag that
//! is unknown, given twice, or has no or a wrong value.

use super::Word;
use super::words::FlagWord;
use super::work;
use crate::vocab::{Diagnostic, Span, Spanned, nearest};

/// What values a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// `--flag`, `--flag=true` or `--flag=false`
    Bool,
    /// `--flag=value`, once
    Value,
    /// `--flag=value`, any number of times
    List,
}

pub(super) type KnownFlag = (&'static str, FlagKind);

/// The flags that were given rightly.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// Each at most once.
    given: Vec<Given>,
    /// Flags that may come any number of times.
    lists: Vec<Given>,
}

#[derive(Debug)]
struct Given {
    name: &'static str,
    value: Word,
    /// The whole flag.
    span: Span,
}

impl Flags {
    /// Checks the flags of `instruction`.
    pub(super) fn read(
        instruction: &str,
        words: &[FlagWord<'_>],
        known: &[KnownFlag],
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Flags {
        let mut flags = Flags::default();
        for word in words {
            match flags.one(instruction, word, known) {
                Ok((given, FlagKind::List)) => flags.lists.push(given),
                Ok((given, _)) => flags.given.push(given),
                Err(diagnostic) => diagnostics.push(*diagnostic),
            }
        }
        flags
    }

    fn one(
        &self,
        instruction: &str,
        word: &FlagWord<'_>,
        known: &[KnownFlag],
    ) -> Result<(Given, FlagKind), Box<Diagnostic>> {
        let span = word.part.span();
        work::note(1 + self.given.len());
        let Some(&(name, kind)) = known.iter().find(|(name, _)| *name == word.name) else {
            return Err(Box::new(unknown(instruction, word, known)));
        };
        if kind != FlagKind::List
            && let Some(first) = self.given.iter().find(|given| given.name == name)
        {
            let problem = Diagnostic::error(format!("flag `--{name}` is given twice"));
            return Err(Box::new(
                problem.at(span).label(first.span, "first given here"),
            ));
        }
        let value = match (kind, &word.value) {
            (FlagKind::Bool, None) => Spanned::new("true".to_owned(), span),
            (FlagKind::Bool, Some((value, part))) => {
                let value = value.to_ascii_lowercase();
                if value != "true" && value != "false" {
                    let message = format!("flag `--{name}` is either `true` or `false`");
                    return Err(Box::new(Diagnostic::error(message).at(span)));
                }
                Spanned::new(value, part.span())
            }
            (_, Some((value, part))) => Spanned::new(value.clone(), part.span()),
            (_, None) => {
                let problem = Diagnostic::error(format!("flag `--{name}` has no value")).at(span);
                return Err(Box::new(problem.hint(format!("write `--{name}=…`"))));
            }
        };
        Ok((Given { name, value, span }, kind))
    }

    /// Returns the value of a flag; an empty one counts as not given.
    pub(super) fn value(&self, name: &str) -> Option<Word> {
        self.given
            .iter()
            .find(|given| given.name == name && !given.value.value.is_empty())
            .map(|given| given.value.clone())
    }

    /// Returns the values of a flag in order, and the place of each flag.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = (Word, Span)> {
        self.lists
            .iter()
            .filter(move |given| given.name == name)
            .map(|given| (given.value.clone(), given.span))
    }

    pub(super) fn boolean(&self, name: &str) -> Option<Spanned<bool>> {
        let given = self.given.iter().find(|given| given.name == name)?;
        Some(Spanned::new(given.value.value == "true", given.span))
    }

    /// Returns the place of the first flag.
    pub(super) fn first_span(&self) -> Option<Span> {
        self.given.first().map(|given| given.span)
    }
}

fn unknown(instruction: &str, word: &FlagWord<'_>, known: &[KnownFlag]) -> Diagnostic {
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let diagnostic = Diagnostic::error(format!("unknown flag `--{}` for {instruction}", word.name))
        .at(word.part.span());
    match nearest(&word.name, names.iter().copied()) {
        Some(name) => diagnostic.hint(format!("did you mean `--{name}`?")),
        None if names.is_empty() => diagnostic.hint(format!(
            "{instruction} has no flags; write `--` before text that starts with `--`"
        )),
        None => {
            let names: Vec<String> = names.iter().map(|name| format!("`--{name}`")).collect();
            diagnostic.hint(format!("{instruction} has {}", names.join(", ")))
        }
    }
}
