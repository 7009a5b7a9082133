//! Which lint rules a file wants, and what comes of those that it breaks.
//!
//! In: a parsed file (its `check` directive, and comments of that form right above instructions), and what the build says in the
//! directive's place. Out: [`Checks`], which goes through warnings. A directive reads
//! `skip=RULE,RULE;error=true;experimental=RULE`, with `all` for every rule, and ends at its first blank. Names that are no
//! rules are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::{Dockerfile, Word, directives, mount, rules};
use crate::vocab::{Diagnostic, Severity, Span};

/// Tells wanted warnings from others.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    file: Options,
    /// Where an instruction starts that has options of its own; where it ends.
    instructions: BTreeMap<usize, (usize, Options)>,
}

impl Checks {
    /// Takes what the file says. `given` takes the place of its directive; the comments of instructions count all the same.
    pub fn new(dockerfile: &Dockerfile, given: Option<&str>) -> Result<Checks, String> {
        let file = match (given, &dockerfile.directives.check) {
            (Some(given), _) => read(given)?,
            // One that cannot be read has been told as an error by the parser.
            (None, Some(directive)) => read(&directive.value).unwrap_or_default(),
            (None, None) => Options::default(),
        };
        let mut instructions = BTreeMap::new();
        for span in dockerfile.instruction_spans() {
            let comments = dockerfile.comments.get(&span.start);
            if let Some(options) = comments.and_then(|comments| of_comments(comments)) {
                instructions.insert(span.start, (span.end, options));
            }
        }
        Ok(Checks { file, instructions })
    }

    /// Returns the diagnostics without the warnings of rules that are off. What names no rule stays.
    pub fn wanted(&self, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
        diagnostics.retain(|diagnostic| match diagnostic.code {
            Some(code) if diagnostic.severity == Severity::Warning => {
                self.wants(code, decides(code, diagnostic))
            }
            _ => true,
        });
        diagnostics
    }

    /// Returns the error that `error=true` makes of the warnings that were told.
    pub fn verdict<'a>(
        &self,
        told: impl IntoIterator<Item = &'a Diagnostic>,
    ) -> Option<Diagnostic> {
        if !self.file.error {
            return None;
        }
        let broken: BTreeSet<&str> = told
            .into_iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Warning)
            .filter_map(|diagnostic| diagnostic.code)
            .collect();
        if broken.is_empty() {
            return None;
        }
        let names: Vec<&str> = broken.into_iter().collect();
        Some(
            Diagnostic::error(format!("lint rules are broken: {}", names.join(", "))).hint(
                "`error=true` in the `check` directive or in BUILDKIT_DOCKERFILE_CHECK makes an error of warnings",
            ),
        )
    }

    fn wants(&self, code: &str, place: Option<Span>) -> bool {
        let own = place.and_then(|place| {
            let (_, (end, options)) = self.instructions.range(..=place.start).next_back()?;
            (place.start <= *end).then_some(options)
        });
        let any = |test: fn(&Options, &str) -> bool| {
            test(&self.file, code) || own.is_some_and(|options| test(options, code))
        };
        match rules::rule(code) {
            Some(rule) if rule.experimental => any(Options::tries),
            _ => !any(Options::skips),
        }
    }
}

/// Returns the place whose instruction has a say: where the warning points, but for a rule that points at an instruction because
/// of a later one.
fn decides(code: &str, diagnostic: &Diagnostic) -> Option<Span> {
    let labels = &diagnostic.labels;
    let label = match code {
        "MultipleInstructionsDisallowed" => labels.last(),
        _ => labels.first(),
    };
    label.map(|label| label.span)
}

/// The meaning of a `check` directive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    skip: Names,
    experimental: Names,
    error: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    names: Vec<String>,
}

impl Options {
    fn skips(&self, code: &str) -> bool {
        self.skip.has(code)
    }

    fn tries(&self, code: &str) -> bool {
        self.experimental.has(code)
    }
}

impl Names {
    fn has(&self, code: &str) -> bool {
        self.all || self.names.iter().any(|name| name == code)
    }

    fn read(&mut self, value: &str) {
        match value {
            "all" => self.all = true,
            list => self.names = list.split(',').map(|name| name.trim().to_owned()).collect(),
        }
    }
}

/// Reads the value of a `check` directive, or says what is wrong with it.
pub(super) fn read(value: &str) -> Result<Options, String> {
    let mut options = Options::default();
    let value = value.trim();
    // What follows a blank is a remark.
    let value = value.split(' ').next().unwrap_or_default();
    if value.is_empty() {
        return Ok(options);
    }
    for option in value.splitn(3, ';') {
        let Some((key, value)) = option.split_once('=') else {
            return Err(format!(
                "invalid option of the `check` directive: `{option}`"
            ));
        };
        let (key, value) = (key.trim(), value.trim());
        match key {
            "skip" => options.skip.read(value),
            "experimental" => options.experimental.read(value),
            "error" if mount::is_bool(value) => {
                options.error = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
            }
            "error" => {
                return Err(format!(
                    "`error` in the `check` directive is either true or false, not `{value}`"
                ));
            }
            other => {
                return Err(format!(
                    "unknown option of the `check` directive: `{other}`"
                ));
            }
        }
    }
    Ok(options)
}

/// Returns the options of the first comment that has the form of the directive; one that cannot be read has none.
fn of_comments(comments: &[Word]) -> Option<Options> {
    let value = comments.iter().find_map(check_value)?;
    read(&value.value).ok()
}

/// Returns the value of a comment that has the form of the `check` directive.
pub(super) fn check_value(comment: &Word) -> Option<Word> {
    let (key, value) = directives::in_comment(comment)?;
    (key == "check").then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let names = |all: bool, names: &[&str]| Names {
            all,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        for (value, skip, experimental, error) in [
            ("", names(false, &[]), names(false, &[]), false),
            (
                "skip=A,B",
                names(false, &["A", "B"]),
                names(false, &[]),
                false,
            ),
            (
                "skip=all;error=true",
                names(true, &[]),
                names(false, &[]),
                true,
            ),
            (
                "skip=A // why",
                names(false, &["A"]),
                names(false, &[]),
                false,
            ),
            (
                "error=1;experimental=all;skip=A",
                names(false, &["A"]),
                names(true, &[]),
                true,
            ),
            (
                "skip=A;skip=B",
                names(false, &["B"]),
                names(false, &[]),
                false,
            ),
        ] {
            let expected = Options {
                skip,
                experimental,
                error,
            };
            assert_eq!(read(value), Ok(expected), "{value}");
        }
        for value in [
            "skip",
            "x=1",
            "error=maybe",
            "skip=A;error=true;skip=B;error=true;x",
        ] {
            // A fourth option is part of the third one's value.
            assert_eq!(
                read(value).is_err(),
                !value.starts_with("skip=A"),
                "{value}"
            );
        }
        assert!(read("skip=A;experimental=B;error=true;skip=C").is_err());
    }
}
