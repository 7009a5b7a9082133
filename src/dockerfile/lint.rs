//! The lint rules that syntax alone can tell.
//!
//! In: a parsed file. Out: warnings whose codes are names of `rules`. All stages are looked at, also those that nothing uses.
//! Rules that depend on values, on base images or on what the target needs are the plan's.

use std::collections::HashMap;

use super::instructions::StageWords;
use super::lines::Logical;
use super::{ArgDeclaration, Dockerfile, InstructionKind, Stage, Word, checks};
use crate::vocab::{Diagnostic, Span};

/// One warning for the empty lines of one instruction.
pub(super) fn empty_continuation(logical: &Logical) -> Option<Diagnostic> {
    let (first, rest) = logical.empty_continuations.split_first()?;
    let warning = Diagnostic::warning("empty line inside a continued instruction")
        .code("NoEmptyContinuation")
        .at(*first)
        .hint("remove the line, or make it a comment");
    let warning = rest.iter().fold(warning, |warning, span| warning.at(*span));
    // Checks in their JSON form speak of this line.
    Some(warning.label(logical.last_line, "the instruction ends here"))
}

/// Checks a whole file. `stage_words` has an entry per stage, with a keyword per instruction.
pub(super) fn check(dockerfile: &Dockerfile, stage_words: &[StageWords]) -> Vec<Diagnostic> {
    let mut lints = Lints::default();
    lints.keyword_casing(stage_words);
    let mut names: HashMap<&str, Span> = HashMap::new();
    for arguments in &dockerfile.global_args {
        lints.description_of_arguments(dockerfile, arguments.span, &arguments.value);
    }
    for (stage, words) in dockerfile.stages.iter().zip(stage_words) {
        lints.casing_of_from(words);
        if let Some(name) = &stage.from.value.name {
            lints.stage_name(&name.value, name.span, names.insert(&name.value, name.span));
            lints.description(dockerfile, stage.from.span, "FROM", &[&name.value]);
        }
        lints.instructions(dockerfile, stage, words);
    }
    lints.found
}

#[derive(Default)]
struct Lints {
    found: Vec<Diagnostic>,
}

impl Lints {
    fn warn(&mut self, rule: &'static str, warning: Diagnostic) {
        self.found.push(warning.code(rule));
    }

    fn keyword_casing(&mut self, stage_words: &[StageWords]) {
        let keywords: Vec<&Word> = stage_words
            .iter()
            .flat_map(|words| std::iter::once(&words.keyword).chain(&words.instructions))
            .collect();
        let lower = keywords.iter().filter(|word| is_lower(&word.value)).count();
        let upper = keywords.iter().filter(|word| is_upper(&word.value)).count();
        let (fits, wanted): (fn(&str) -> bool, _) = match lower > upper {
            true => (is_lower, "lower"),
            false => (is_upper, "upper"),
        };
        for word in keywords {
            if !fits(&word.value) {
                self.warn(
                    "ConsistentInstructionCasing",
                    Diagnostic::warning(format!(
                        "`{}` is not in {wanted} case as most instructions are",
                        word.value
                    ))
                    .at(word.span),
                );
            }
        }
    }

    fn casing_of_from(&mut self, words: &StageWords) {
        let Some((as_word, name)) = &words.name else {
            return;
        };
        let from = words.keyword.value.as_str();
        if (is_lower(from) && !is_lower(&as_word.value))
            || (is_upper(from) && !is_upper(&as_word.value))
        {
            self.warn(
                "FromAsCasing",
                Diagnostic::warning(format!(
                    "`{}` and `{from}` are not in the same case",
                    as_word.value
                ))
                .at(as_word.span),
            );
        }
        if name.value != name.value.to_lowercase() {
            self.warn(
                "StageNameCasing",
                Diagnostic::warning(format!("stage name `{}` is not in lower case", name.value))
                    .at(name.span),
            );
        }
    }

    fn stage_name(&mut self, name: &str, span: Span, earlier: Option<Span>) {
        if matches!(name, "scratch" | "context") {
            self.warn(
                "ReservedStageName",
                Diagnostic::warning(format!("stage name `{name}` is reserved")).at(span),
            );
        }
        if let Some(earlier) = earlier {
            self.warn(
                "DuplicateStageName",
                Diagnostic::warning(format!("stage name `{name}` is used twice"))
                    .at(span)
                    .label(earlier, "first used here"),
            );
        }
    }

    fn instructions(&mut self, dockerfile: &Dockerfile, stage: &Stage, words: &StageWords) {
        for (instruction, keyword) in stage.instructions.iter().zip(&words.instructions) {
            match &instruction.kind {
                InstructionKind::Maintainer(_) => self.warn(
                    "MaintainerDeprecated",
                    Diagnostic::warning("MAINTAINER is deprecated")
                        .at(keyword.span)
                        .hint("use `LABEL org.opencontainers.image.authors=…`"),
                ),
                InstructionKind::Arg(arguments) => {
                    self.description_of_arguments(dockerfile, instruction.span, arguments);
                }
                _ => {}
            }
        }
    }

    fn description_of_arguments(
        &mut self,
        dockerfile: &Dockerfile,
        span: Span,
        arguments: &[ArgDeclaration],
    ) {
        let names: Vec<&str> = arguments
            .iter()
            .map(|argument| argument.name.value.as_str())
            .collect();
        self.description(dockerfile, span, "ARG", &names);
    }

    /// Warns if the last comment line above what is defined at `span` does not begin with one of its names.
    fn description(&mut self, dockerfile: &Dockerfile, span: Span, keyword: &str, names: &[&str]) {
        let comments = dockerfile.comments.get(&span.start);
        let last = comments
            .into_iter()
            .flatten()
            .rfind(|comment| checks::check_value(comment).is_none());
        let Some(comment) = last else {
            return;
        };
        let first_word = comment.value.split(' ').next().unwrap_or_default();
        let wanted = match names {
            [] => return,
            names if names.contains(&first_word) => return,
            [name] => name,
            _ => "NAME",
        };
        self.warn(
            "InvalidDefinitionDescription",
            Diagnostic::warning(format!(
                "the comment above this {keyword} does not read `# {wanted} description`"
            ))
            .at(span)
            .label(comment.span, "this comment")
            .hint("put an empty line between them if it is no description"),
        );
    }
}

fn is_lower(word: &str) -> bool {
    word == word.to_lowercase()
}

fn is_upper(word: &str) -> bool {
    word == word.to_uppercase()
}
