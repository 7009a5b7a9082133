//! One diagnostic as text: message, excerpt with a caret, causes, last output, hints.

use std::io::IsTerminal as _;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::lines::reorders;
use super::text::one_line;
use crate::vocab::{Diagnostic, Severity, SourceText, Span};

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Coloured,
}

impl Style {
    /// Returns what suits standard error: colour on a terminal, unless `NO_COLOR` is set or `CLICOLOR` is 0; `CLICOLOR_FORCE`
    /// colours anything.
    pub(super) fn of_stderr() -> Style {
        Style::of(std::io::stderr().is_terminal())
    }

    /// The same for standard output.
    pub(super) fn of_stdout() -> Style {
        Style::of(std::io::stdout().is_terminal())
    }

    fn of(is_terminal: bool) -> Style {
        let set = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty() && value != "0")
                .is_some()
        };
        let off = std::env::var_os("CLICOLOR").is_some_and(|value| value == "0");
        let terminal = is_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            Style::Plain
        } else if set("CLICOLOR_FORCE") || terminal && !off {
            Style::Coloured
        } else {
            Style::Plain
        }
    }

    /// Wraps text in an SGR sequence where colour is on.
    pub(super) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Style::Plain => text.to_owned(),
            Style::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Returns a diagnostic as lines, the last ended by a line feed. `source` is what its labels point into.
pub fn render(diagnostic: &Diagnostic, source: Option<&SourceText>, style: Style) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = continued(&diagnostic.message);
    let mut title = level.primary_title(message.as_str());
    if let Some(code) = diagnostic.code {
        title = title.id(code);
    }
    let mut snippet = None;
    // A file's name is anybody's.
    let name = source.map(|source| one_line(&source.name));
    let name = name.unwrap_or_default();
    if let Some(source) = source
        && !diagnostic.labels.is_empty()
    {
        let mut excerpt = Snippet::source(source.text.as_str())
            .path(name.as_str())
            .fold(true);
        for (at, label) in diagnostic.labels.iter().enumerate() {
            let kind = if at == 0 {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            let mut annotation = kind.span(first_line(&source.text, label.span));
            if !label.text.is_empty() {
                annotation = annotation.label(label.text.as_str());
            }
            excerpt = excerpt.annotation(annotation);
        }
        snippet = Some(excerpt);
    }
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    let mut text = match snippet {
        Some(snippet) => renderer.render(&[title.element(snippet)]),
        None => renderer.render(&[annotate_snippets::Group::with_title(title)]),
    };
    text.push('\n');
    if !diagnostic.output.is_empty() {
        text.push_str("  last output:\n");
        for line in &diagnostic.output {
            text.push_str(&format!("  | {}\n", continued(line)));
        }
    }
    for cause in &diagnostic.causes {
        text.push_str(&format!(
            "  {} {}\n",
            style.paint("1", "cause:"),
            continued(cause)
        ));
    }
    if let Some(link) = diagnostic.link() {
        text.push_str(&format!("  {} {link}\n", style.paint("1", "see:")));
    }
    for hint in &diagnostic.hints {
        text.push_str(&format!(
            "  {} {}\n",
            style.paint("1;36", "hint:"),
            continued(hint)
        ));
    }
    text
}

/// A span of many lines is shown by its first: the caret says where to begin to read.
fn first_line(text: &str, span: Span) -> std::ops::Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (floor(span.start), floor(span.end));
    let end = text[start..end.max(start)]
        .find('\n')
        .map_or(end.max(start), |at| start + at);
    start..end
}

/// Text from outside must not move the cursor or ring the bell.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' && c != '\n' || reorders(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The same for a text of several lines: whatever they say, all but the first have a mark before them, so that none looks like one of this
/// program's, or of a CI system's.
fn continued(text: &str) -> String {
    clean(text).replace('\n', "\n  | ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn no_line_is_anybody_elses() {
        let source = SourceText {
            name: "D\n::set-output name=x::y\u{1b}[31m\u{202e}".to_owned(),
            text: "FROM scratch\n".to_owned(),
        };
        let mut diagnostic = Diagnostic::error("`a\n::one` failed").at(Span::new(0, 4));
        diagnostic.output = vec!["out\n::two".to_owned()];
        let diagnostic = diagnostic.cause("why\n::three").hint("do\n::four");
        let text = render(&diagnostic, Some(&source), Style::Plain);
        for line in text.lines() {
            assert!(!line.trim_start().starts_with("::"), "{text}");
        }
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        for told in ["::one", "::two", "::three", "::four"] {
            assert!(text.contains(told), "{text}");
        }
    }

    #[test]
    fn an_error_with_everything() {
        let source = SourceText {
            name: "Dockerfile".to_owned(),
            text: "FROM scratch\nRUN make \\\n  all\n".to_owned(),
        };
        let mut diagnostic = Diagnostic::error("`make` failed with exit code 2")
            .at(Span::new(13, source.text.len() - 1))
            .cause("the first reason")
            .hint("do something else");
        diagnostic.output = vec!["make: *** no rule\u{1b}[31m".to_owned()];
        expect![[r#"
            error: `make` failed with exit code 2
             --> Dockerfile:2:1
              |
            2 | RUN make \
              | ^^^^^^^^^^
              last output:
              | make: *** no rule�[31m
              cause: the first reason
              hint: do something else
        "#]]
        .assert_eq(&render(&diagnostic, Some(&source), Style::Plain));
    }

    #[test]
    fn a_warning_without_a_place_shows_its_rule() {
        let warning =
            Diagnostic::warning("stage name `A` should be lower case").code("StageNameCasing");
        expect![[r#"
            warning[StageNameCasing]: stage name `A` should be lower case
              see: https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
        "#]]
        .assert_eq(&render(&warning, None, Style::Plain));
    }

    #[test]
    fn a_span_beyond_the_text_is_cut() {
        let source = SourceText {
            name: "D".to_owned(),
            text: "é".to_owned(),
        };
        render(
            &Diagnostic::error("x").at(Span::new(1, 99)),
            Some(&source),
            Style::Plain,
        );
    }
}
