//! The lint rules that syntax alone can tell, and the `check` directive.
//!
//! In: a parsed file. Out: warnings whose codes are BuildKit's rule names. Rules that need values of variables or base images
//! are the plan's; [`apply_check`] is for those warnings too. Stages that nothing uses are looked at all the same.

use std::collections::HashMap;

use super::instructions::StageWords;
use super::{Command, Directives, Dockerfile, InstructionKind, Stage, Word, mount};
use crate::vocab::{Diagnostic, Severity, Span};

/// Applies `# check=skip=A,B;error=true`: drops the warnings of skipped rules, and makes errors of the others. Diagnostics
/// without a code are no lints and stay.
pub fn apply_check(directives: &Directives, diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    // A directive that cannot be read has been told as an error by the parser.
    let check = directives
        .check
        .as_ref()
        .and_then(|check| read_check(&check.value).ok())
        .unwrap_or_default();
    let is_lint = |diagnostic: &Diagnostic| {
        diagnostic.code.is_some() && diagnostic.severity == Severity::Warning
    };
    diagnostics
        .into_iter()
        .filter(|diagnostic| {
            let skipped = diagnostic.code.is_some_and(|code| check.skips(code));
            !(is_lint(diagnostic) && skipped)
        })
        .map(|mut diagnostic| {
            if check.error && is_lint(&diagnostic) {
                diagnostic.severity = Severity::Error;
            }
            diagnostic
        })
        .collect()
}

/// The meaning of a `check` directive.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Check {
    skip_all: bool,
    skip: Vec<String>,
    error: bool,
}

impl Check {
    fn skips(&self, code: &str) -> bool {
        self.skip_all || self.skip.iter().any(|rule| rule.eq_ignore_ascii_case(code))
    }
}

/// Reads the value of a `check` directive, or says what is wrong with it.
pub(super) fn read_check(value: &str) -> Result<Check, String> {
    let mut check = Check::default();
    for option in value.split(';') {
        let Some((key, value)) = option.split_once('=') else {
            return Err(format!(
                "invalid option of the `check` directive: `{option}`"
            ));
        };
        let (key, value) = (key.trim(), value.trim());
        match key {
            "skip" => {
                check.skip_all |= value == "all";
                check
                    .skip
                    .extend(value.split(',').map(|rule| rule.trim().to_owned()));
            }
            // Every rule is always on.
            "experimental" => {}
            "error" if mount::is_bool(value) => {
                check.error = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
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
    Ok(check)
}

/// One warning for the empty lines of one instruction.
pub(super) fn empty_continuation(empty: &[Span]) -> Option<Diagnostic> {
    let (first, rest) = empty.split_first()?;
    let warning = Diagnostic::warning("empty line inside a continued instruction")
        .code("NoEmptyContinuation")
        .at(*first)
        .hint("remove the line, or make it a comment");
    Some(rest.iter().fold(warning, |warning, span| warning.at(*span)))
}

/// Checks a whole file. `stage_words` has an entry per stage, with a keyword per instruction.
pub(super) fn check(dockerfile: &Dockerfile, stage_words: &[StageWords]) -> Vec<Diagnostic> {
    let mut lints = Lints::default();
    lints.keyword_casing(stage_words);
    for words in stage_words {
        lints.casing_of_from(words);
    }
    // What stages hand on to those that build on them.
    let mut ends: HashMap<&str, Inherited> = HashMap::new();
    let mut names: HashMap<&str, Span> = HashMap::new();
    for (stage, words) in dockerfile.stages.iter().zip(stage_words) {
        let mut state = ends
            .get(stage.from.value.image.value.to_lowercase().as_str())
            .copied()
            .unwrap_or_default();
        lints.stage(stage, words, &mut state);
        if let Some(name) = &stage.from.value.name {
            lints.stage_name(&name.value, name.span, names.insert(&name.value, name.span));
            ends.insert(&name.value, state);
        }
    }
    lints.found
}

/// What earlier instructions have set, also those of a parent stage.
#[derive(Clone, Copy, Default)]
struct Inherited {
    shell: bool,
    workdir: bool,
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

    fn stage(&mut self, stage: &Stage, words: &StageWords, state: &mut Inherited) {
        let mut once: HashMap<&'static str, Span> = HashMap::new();
        for (instruction, keyword) in stage.instructions.iter().zip(&words.instructions) {
            let span = keyword.span;
            let is_single = match &instruction.kind {
                InstructionKind::Cmd(command) => {
                    self.shell_form("CMD", command, span, state);
                    Some("CMD")
                }
                InstructionKind::Entrypoint(command) => {
                    self.shell_form("ENTRYPOINT", command, span, state);
                    Some("ENTRYPOINT")
                }
                InstructionKind::Healthcheck(_) => Some("HEALTHCHECK"),
                InstructionKind::Shell(_) => {
                    state.shell = true;
                    None
                }
                InstructionKind::Maintainer(_) => {
                    self.warn(
                        "MaintainerDeprecated",
                        Diagnostic::warning("MAINTAINER is deprecated")
                            .at(span)
                            .hint("use `LABEL org.opencontainers.image.authors=…`"),
                    );
                    None
                }
                InstructionKind::Workdir(path) => {
                    self.workdir(&path.value, path.span, state);
                    None
                }
                InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                    for pair in pairs.iter().filter(|pair| pair.legacy) {
                        let written = keyword.value.to_ascii_uppercase();
                        self.warn(
                            "LegacyKeyValueFormat",
                            Diagnostic::warning(format!(
                                "`{written} key=value` should be used instead of `{written} key value`"
                            ))
                            .at(pair.key.span.to(pair.value.span)),
                        );
                    }
                    None
                }
                InstructionKind::Expose(ports) => {
                    for port in ports {
                        self.port(&port.value, port.span);
                    }
                    None
                }
                _ => None,
            };
            if let Some(name) = is_single
                && let Some(overruled) = once.insert(name, span)
            {
                self.warn(
                    "MultipleInstructionsDisallowed",
                    Diagnostic::warning(format!(
                        "{name} is given more than once in the stage: only the last one counts"
                    ))
                    .at(overruled)
                    .label(span, "overruled here"),
                );
            }
        }
    }

    fn shell_form(&mut self, name: &str, command: &Command, span: Span, state: &Inherited) {
        if matches!(command, Command::Shell(_)) && !state.shell {
            self.warn(
                "JSONArgsRecommended",
                Diagnostic::warning(format!(
                    "{name} in shell form keeps signals from the program"
                ))
                .at(span)
                .hint(format!("write `{name} [\"program\", \"argument\"]`")),
            );
        }
    }

    fn workdir(&mut self, path: &str, span: Span, state: &mut Inherited) {
        let start = path.trim_start_matches(['"', '\'']);
        // What a variable holds is not known here.
        if !state.workdir && !start.starts_with(['/', '$']) {
            self.warn(
                "WorkdirRelativePath",
                Diagnostic::warning(format!(
                    "relative WORKDIR `{path}` depends on the base image"
                ))
                .at(span),
            );
        }
        state.workdir = true;
    }

    fn port(&mut self, port: &str, span: Span) {
        if let Some((_, protocol)) = port.rsplit_once('/')
            && !protocol.contains(['$', '{', '}'])
            && protocol != protocol.to_lowercase()
        {
            self.warn(
                "ExposeProtoCasing",
                Diagnostic::warning(format!("protocol of `{port}` is not in lower case")).at(span),
            );
        }
    }
}

fn is_lower(word: &str) -> bool {
    word == word.to_lowercase()
}

fn is_upper(word: &str) -> bool {
    word == word.to_uppercase()
}
