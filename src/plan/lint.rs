//! Warnings about instructions that are carried out, so that values, base images and triggers count.
//!
//! The rules that syntax alone can tell are the language's own (`dockerfile`); all rules are in its table.

use super::BaseKey;
use super::build::StageBuilder;
use crate::dockerfile::{Command, Copy, IgnorePatterns, Instruction, InstructionKind, KeyValue};
use crate::vocab::{Diagnostic, Span, names_a_secret};

/// What the lints want to know beyond the build's own inputs.
#[derive(Clone, Copy, Default)]
pub struct Linting<'a> {
    /// What the main context leaves out.
    pub ignore: Option<&'a IgnorePatterns>,
    /// Look at every stage, also at those that the target does not need.
    pub all_stages: bool,
    /// Bases whose config could not be had and is made up: what variables they define is not known.
    pub unknown: &'a [BaseKey],
}

impl StageBuilder<'_> {
    /// Looks at what an instruction is, before it is carried out.
    pub(super) fn lint(&mut self, instruction: &Instruction) {
        let keyword = keyword(instruction);
        match &instruction.kind {
            InstructionKind::Cmd(command) => {
                self.used_once("CMD", keyword);
                self.shell_form("CMD", command, keyword);
            }
            InstructionKind::Entrypoint(command) => {
                self.used_once("ENTRYPOINT", keyword);
                self.shell_form("ENTRYPOINT", command, keyword);
            }
            InstructionKind::Healthcheck(_) => self.used_once("HEALTHCHECK", keyword),
            InstructionKind::Env(pairs) => self.legacy("ENV", pairs),
            InstructionKind::Label(pairs) => self.legacy("LABEL", pairs),
            _ => {}
        }
    }

    fn used_once(&mut self, name: &'static str, span: Span) {
        let span = self.place(span);
        let Some(overruled) = self.used.insert(name, span) else {
            return;
        };
        let warning = Diagnostic::warning(format!(
            "{name} is given more than once in the stage: only the last one counts"
        ))
        .code("MultipleInstructionsDisallowed")
        .at(overruled);
        self.report.add(match overruled == span {
            // Both stand in triggers of the base.
            true => warning,
            false => warning.label(span, "overruled here"),
        });
    }

    fn shell_form(&mut self, name: &str, command: &Command, span: Span) {
        let shell = self.state.config.config.shell.as_ref();
        if matches!(command, Command::Exec(_)) || shell.is_some_and(|shell| !shell.is_empty()) {
            return;
        }
        self.warn(
            "JSONArgsRecommended",
            span,
            Diagnostic::warning(format!(
                "{name} in shell form keeps signals from the program"
            ))
            .hint(format!("write `{name} [\"program\", \"argument\"]`")),
        );
    }

    fn legacy(&mut self, name: &str, pairs: &[KeyValue]) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            self.warn(
                "LegacyKeyValueFormat",
                pair.key.span.to(pair.value.span),
                Diagnostic::warning(format!(
                    "`{name} key=value` should be used instead of `{name} key value`"
                )),
            );
        }
    }

    /// Warns of the first WORKDIR in this Dockerfile if where it leads depends on the base image.
    pub(super) fn lint_workdir(&mut self, path: &str, span: Span) {
        let is_first = !std::mem::replace(&mut self.state.workdir_is_set, true);
        if is_first && !path.starts_with('/') {
            self.warn(
                "WorkdirRelativePath",
                span,
                Diagnostic::warning(format!(
                    "relative WORKDIR `{path}` depends on the base image"
                )),
            );
        }
    }

    /// Looks at one port of EXPOSE, whose grammar is right.
    pub(super) fn lint_port(&mut self, port: &str, span: Span) {
        let container = port.rsplit(':').next().unwrap_or(port);
        let protocol = container
            .split_once('/')
            .map_or("", |(_, protocol)| protocol);
        if protocol != protocol.to_lowercase() {
            self.warn(
                "ExposeProtoCasing",
                span,
                Diagnostic::warning(format!("protocol of `{port}` is not in lower case")),
            );
        }
        let mapped = port.strip_suffix(container).unwrap_or_default();
        if mapped.contains(|character| character != ':') {
            self.warn(
                "ExposeInvalidFormat",
                span,
                Diagnostic::warning(format!(
                    "EXPOSE maps no ports: of `{port}` only the container's is recorded"
                )),
            );
        }
    }

    /// Looks at a name that ARG or ENV defines.
    pub(super) fn lint_name(&mut self, instruction: &str, name: &str, span: Span) {
        if names_a_secret(name) {
            self.warn(
                "SecretsUsedInArgOrEnv",
                span,
                Diagnostic::warning(format!(
                    "{instruction} should not hold secrets, and `{name}` looks like one"
                ))
                .hint("values of ARG and ENV stay readable in the image and its history"),
            );
        }
    }

    /// Looks at a local source of COPY or ADD, with its variables replaced.
    pub(super) fn lint_source(&mut self, keyword: &str, copy: &Copy, source: &str, span: Span) {
        let Some(ignore) = self.planning.inputs.linting.ignore else {
            return;
        };
        // What `!` brings back cannot be told without looking at files.
        if copy.from.is_some() || ignore.has_exceptions() {
            return;
        }
        let decision = ignore.decide_source(source);
        if decision.excluded {
            let warning = Diagnostic::warning(format!(
                "{keyword} of `{source}`, which the ignore file leaves out of the context"
            ));
            self.warn(
                "CopyIgnoredFile",
                span,
                match decision.line {
                    Some(line) => {
                        warning.hint(format!("line {line} of the ignore file excludes it"))
                    }
                    None => warning,
                },
            );
        }
    }

    fn warn(&mut self, rule: &'static str, span: Span, warning: Diagnostic) {
        let span = self.place(span);
        self.report.add(warning.code(rule).at(span));
    }
}

/// Returns where an instruction's keyword stands.
fn keyword(instruction: &Instruction) -> Span {
    let span = instruction.span;
    let length = instruction.text.find(char::is_whitespace);
    let end = span.start + length.unwrap_or(instruction.text.len());
    Span::new(span.start, end.min(span.end))
}
