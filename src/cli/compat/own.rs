//! A command line of `builder` in the making.

use std::ffi::OsString;

use crate::pipeline::Failure;
use crate::vocab::Diagnostic;

use super::super::usage;
use super::flag::{Does, Takes, Tool};
use super::parse::Typed;

/// Words of `builder`, without its name. Values are not shown: there may be a password among them.
pub(super) struct Own {
    subcommand: Vec<String>,
    flags: Vec<String>,
    words: Vec<String>,
}

/// What a tool's words come to so far.
pub(super) struct Draft<'a> {
    pub(super) own: Own,
    pub(super) notes: Vec<String>,
    pub(super) around: &'a Around<'a>,
}

/// What is outside of the command line.
pub(super) struct Around<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(super) is_there: &'a dyn Fn(&str) -> bool,
    /// The words in front of the tool's name say where credentials are.
    pub(super) has_authfile: bool,
}

impl Own {
    pub(super) fn new(subcommand: &[&str]) -> Own {
        Own {
            subcommand: subcommand.iter().map(|&word| word.to_owned()).collect(),
            flags: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Adds a flag with its value.
    pub(super) fn flag(&mut self, name: &str, value: &str) {
        // One word, so that a value may begin with a dash.
        self.flags.push(format!("--{name}={value}"));
    }

    /// Adds a flag that takes no value.
    pub(super) fn switch(&mut self, name: &str) {
        let word = format!("--{name}");
        if !self.flags.contains(&word) {
            self.flags.push(word);
        }
    }

    /// Adds the flags of another one.
    pub(super) fn take_flags(&mut self, other: &Own) {
        self.flags.extend(other.flags.iter().cloned());
    }

    /// Adds what is no flag.
    pub(super) fn word(&mut self, word: &str) {
        self.words.push(word.to_owned());
    }

    /// Returns the words after `builder`.
    pub(super) fn finish(self) -> Vec<OsString> {
        let separator = (!self.words.is_empty()).then(|| "--".to_owned());
        let all = self.subcommand.into_iter().chain(self.flags);
        let all = all.chain(separator).chain(self.words);
        all.map(OsString::from).collect()
    }
}

impl<'a> Draft<'a> {
    /// Does what the table alone says. Every refusal is told at once.
    pub(super) fn of(
        tool: &Tool,
        subcommand: &[&str],
        typed: &Typed,
        around: &'a Around<'a>,
    ) -> Result<Draft<'a>, Failure> {
        let mut draft = Draft {
            own: Own::new(subcommand),
            notes: Vec::new(),
            around,
        };
        let mut refused: Vec<Diagnostic> = Vec::new();
        for given in &typed.given {
            let asks = match given.flag.takes {
                Takes::Switch => given.value == "true",
                Takes::SwitchOn => given.value == "false",
                _ => true,
            };
            if !asks {
                continue;
            }
            match given.flag.does.with(&given.value) {
                None | Some(Does::Honoured(_) | Does::Unless(..)) => {}
                Some(Does::As(name)) if given.flag.is_switch() => draft.own.switch(name),
                Some(Does::As(name)) => draft.own.flag(name, &given.value),
                Some(Does::Noted(why)) => draft.note(&given.place, why),
                Some(Does::Refused(instead)) => {
                    let message = format!("`{} {}` is not supported", tool.name, given.place);
                    let known = refused.iter().any(|known| known.message == message);
                    if !known {
                        refused.push(Diagnostic::error(message).hint(instead));
                    }
                }
            }
        }
        match refused.is_empty() {
            true => Ok(draft),
            false => {
                let mut failure = usage("");
                failure.diagnostics = refused;
                Err(failure)
            }
        }
    }

    /// Tells once that a flag or a variable means nothing.
    pub(super) fn note(&mut self, place: &str, why: &str) {
        let note = format!("`{place}` means nothing here: {why}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.around.variable)(name).filter(|value| !value.is_empty())
    }
}

/// Returns a failure with something to do.
pub(super) fn refuse(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    let mut failure = usage(message);
    failure.diagnostics[0].hints.push(hint.into());
    failure
}

/// Writes the value of an `--output` or a `--cache-from`.
pub(super) fn spec(kind: &str, fields: &[(&str, &str)]) -> String {
    let mut text = format!("type={kind}");
    for (key, value) in fields {
        text.push(',');
        let field = format!("{key}={value}");
        match field.contains([',', '"']) {
            true => text.push_str(&format!("\"{}\"", field.replace('"', "\"\""))),
            false => text.push_str(&field),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_commas_are_quoted() {
        assert_eq!(
            spec("oci", &[("dest", "a,b"), ("tar", "false")]),
            "type=oci,\"dest=a,b\",tar=false"
        );
    }
}
