//! A whole file becomes a [`Dockerfile`].
//!
//! In: text. Out: the stages that could be read and every diagnostic, in the order of their places. The file is read to its end
//! whatever is wrong; a caller goes on only if no diagnostic is an error.

use std::collections::BTreeMap;

use super::heredoc::{self, Mark};
use super::instructions::{self, Body, Parsed, StageWords};
use super::lines::{Lines, Logical};
use super::words::Header;
use super::{Dockerfile, Heredoc, Instruction, InstructionKind, Stage, checks, directives, lint};
use crate::vocab::{Diagnostic, Span, Spanned};

/// Reads a Dockerfile. All spans are bytes of `text`.
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut top = directives::read(text);
    if let Some(check) = &top.directives.check
        && let Err(problem) = checks::read(&check.value)
    {
        top.diagnostics
            .push(Diagnostic::error(problem).at(check.span));
    }
    let mut file = File {
        dockerfile: Dockerfile {
            directives: top.directives,
            escape: top.escape,
            global_args: Vec::new(),
            stages: Vec::new(),
            comments: BTreeMap::new(),
        },
        stage_words: Vec::new(),
        diagnostics: top.diagnostics,
        told_missing_stage: false,
        has_instructions: false,
    };
    let mut lines = Lines::new(text, top.escape, top.end);
    while let Some(logical) = lines.next_logical() {
        file.line(&logical, &mut lines);
    }
    file.finish()
}

/// Reads one ONBUILD trigger, whose escape character is always a backslash. Spans are bytes of `text`.
pub fn parse_trigger(text: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut lines = Lines::new(text, '\\', 0);
    let mut instruction = None;
    while let Some(logical) = lines.next_logical() {
        let Some(line) = Line::read(&logical, &mut lines, &mut diagnostics) else {
            continue;
        };
        if instruction.is_some() {
            diagnostics
                .push(Diagnostic::error("a trigger of ONBUILD is one instruction").at(line.span));
            break;
        }
        let keyword = line.header.keyword;
        let name = keyword.as_str().to_ascii_uppercase();
        if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            diagnostics.push(
                Diagnostic::error(format!("{name} cannot be a trigger of ONBUILD"))
                    .at(keyword.span()),
            );
            continue;
        }
        instruction = match line.parse('\\', &mut diagnostics) {
            Some(Parsed::Other(kind)) => Some(line.instruction(kind)),
            Some(Parsed::Arg(declarations)) => {
                Some(line.instruction(InstructionKind::Arg(declarations)))
            }
            // FROM is refused above.
            Some(Parsed::From(..)) | None => None,
        };
    }
    let failed = diagnostics.iter().any(Diagnostic::is_error);
    match instruction {
        Some(instruction) if !failed => Ok(instruction),
        None if !failed => Err(vec![Diagnostic::error("a trigger of ONBUILD is empty")]),
        _ => Err(diagnostics),
    }
}

/// A logical line with its heredocs.
pub(super) struct Line<'a> {
    pub(super) header: Header<'a>,
    pub(super) bodies: Vec<Body>,
    /// Heredocs included.
    span: Span,
}

impl<'a> Line<'a> {
    /// Cuts the line and reads the bodies that follow it. `None` if there is nothing on it.
    pub(super) fn read(
        logical: &'a Logical,
        lines: &mut Lines<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Line<'a>> {
        let part = logical.line.part();
        let header = Header::new(part);
        if header.keyword.is_empty() {
            return None;
        }
        let mut span = header.line().span();
        let mut bodies = Vec::new();
        if instructions::takes_heredocs(&header) {
            for mark in heredoc::marks(part.as_str()) {
                let mark_span = part.slice(mark.range.clone()).span();
                let Some(body) = body(mark, lines) else {
                    diagnostics.push(unterminated(mark_span));
                    span.end = lines.position().max(span.end);
                    break;
                };
                span = span.to(body.heredoc.span);
                bodies.push(body);
            }
        }
        Some(Line {
            header,
            bodies,
            span,
        })
    }

    fn parse(&self, escape: char, diagnostics: &mut Vec<Diagnostic>) -> Option<Parsed> {
        instructions::parse(&self.header, &self.bodies, escape, diagnostics)
    }

    fn instruction(&self, kind: InstructionKind) -> Instruction {
        Instruction {
            kind,
            span: self.span,
            text: self.header.line().as_str().to_owned(),
        }
    }
}

fn body(mark: Mark, lines: &mut Lines<'_>) -> Option<Body> {
    let (raw, span) = lines.next_body(&mark.name, mark.chomp)?;
    let content = match mark.chomp {
        true => heredoc::chomp(raw),
        false => raw.to_owned(),
    };
    let heredoc = Heredoc {
        name: mark.name.clone(),
        content,
        expand: mark.expand,
        chomp: mark.chomp,
        span,
    };
    Some(Body {
        mark,
        raw: raw.to_owned(),
        heredoc,
    })
}

fn unterminated(mark: Span) -> Diagnostic {
    Diagnostic::error("the heredoc is not terminated")
        .at(mark)
        .hint("its delimiter must stand alone on a line, with nothing before or behind it")
}

/// A file while it is read.
struct File {
    dockerfile: Dockerfile,
    stage_words: Vec<StageWords>,
    diagnostics: Vec<Diagnostic>,
    /// One "no stage yet" is enough, and none after a keyword that was meant to be FROM.
    told_missing_stage: bool,
    has_instructions: bool,
}

impl File {
    fn line(&mut self, logical: &Logical, lines: &mut Lines<'_>) {
        self.diagnostics.extend(lint::empty_continuation(logical));
        let Some(line) = Line::read(logical, lines, &mut self.diagnostics) else {
            self.diagnostics.push(
                Diagnostic::error("nothing follows the continuation")
                    .at(logical.extent)
                    .hint("remove the escape character at the end of the line"),
            );
            return;
        };
        self.has_instructions = true;
        if !logical.comments.is_empty() {
            let comments = logical.comments.clone();
            self.dockerfile.comments.insert(line.span.start, comments);
        }
        let keyword = line.header.keyword;
        let parsed = line.parse(self.dockerfile.escape, &mut self.diagnostics);
        let kind = match parsed {
            Some(Parsed::From(from, words)) => {
                self.dockerfile.stages.push(Stage {
                    from: Spanned::new(from, line.span),
                    instructions: Vec::new(),
                });
                self.stage_words.push(words);
                return;
            }
            Some(Parsed::Arg(declarations)) if self.dockerfile.stages.is_empty() => {
                self.dockerfile
                    .global_args
                    .push(Spanned::new(declarations, line.span));
                return;
            }
            Some(Parsed::Arg(declarations)) => InstructionKind::Arg(declarations),
            Some(Parsed::Other(kind)) => kind,
            None => {
                if !instructions::is_keyword(keyword.as_str())
                    && instructions::closest_keyword(keyword.as_str()) == Some("FROM")
                {
                    self.told_missing_stage = true;
                }
                return;
            }
        };
        match self.dockerfile.stages.last_mut() {
            Some(stage) => {
                stage.instructions.push(line.instruction(kind));
                if let Some(words) = self.stage_words.last_mut() {
                    words.instructions.push(keyword.word());
                }
            }
            None if self.told_missing_stage => {}
            None => {
                self.told_missing_stage = true;
                self.diagnostics.push(
                    Diagnostic::error(format!(
                        "{} stands before the first FROM",
                        keyword.as_str().to_ascii_uppercase()
                    ))
                    .at(keyword.span())
                    .hint("only ARG may stand there"),
                );
            }
        }
    }

    fn finish(mut self) -> (Dockerfile, Vec<Diagnostic>) {
        if !self.has_instructions {
            self.diagnostics
                .push(Diagnostic::error("the file has no instructions").at(Span::default()));
        } else if self.dockerfile.stages.is_empty() && !self.told_missing_stage {
            let span = self
                .dockerfile
                .global_args
                .last()
                .map_or(Span::default(), |args| args.span);
            self.diagnostics.push(
                Diagnostic::error("the file has no FROM")
                    .at(span)
                    .hint("a build starts from an image or from `scratch`"),
            );
        }
        self.diagnostics
            .extend(lint::check(&self.dockerfile, &self.stage_words));
        self.diagnostics
            .sort_by_key(|diagnostic| diagnostic.labels.first().map(|label| label.span.start));
        (self.dockerfile, self.diagnostics)
    }
}
