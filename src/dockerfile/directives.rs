//! The parser directives at the top of a file, and what other frontend it may ask for.
//!
//! In: the whole text. Out: [`Directives`], the escape character, and diagnostics. `syntax` and `check` are also found behind a
//! `#!` line, and `syntax` in `//` comments and in a JSON document too, because files for other frontends look so.

use super::lines::BOM;
use super::{Directives, Word};
use crate::vocab::{Diagnostic, Span, Spanned};

/// What the top of a file says.
pub(super) struct Top {
    pub(super) directives: Directives,
    pub(super) escape: char,
    /// Where the first line starts that is no directive.
    pub(super) end: usize,
    pub(super) diagnostics: Vec<Diagnostic>,
}

pub(super) fn read(text: &str) -> Top {
    let start = if text.starts_with(BOM) {
        BOM.len_utf8()
    } else {
        0
    };
    let mut top = Top {
        directives: Directives::default(),
        escape: '\\',
        end: start,
        diagnostics: Vec::new(),
    };
    // What counts as a directive of the grammar.
    collect(text, start, "#", &mut top);
    if let Some(escape) = &top.directives.escape {
        match escape.value.as_str() {
            "\\" => {}
            "`" => top.escape = '`',
            other => top.diagnostics.push(
                Diagnostic::error(format!("invalid escape character `{other}`"))
                    .at(escape.span)
                    .hint("it is either a backslash or a backtick"),
            ),
        }
    }
    // What the detection of frontends finds beyond that.
    if text[start..].starts_with("#!") {
        let mut behind = Top {
            directives: Directives::default(),
            escape: '\\',
            end: start,
            diagnostics: Vec::new(),
        };
        let line_end = text.find('\n').map_or(text.len(), |newline| newline + 1);
        collect(text, line_end, "#", &mut behind);
        top.directives.syntax = behind.directives.syntax;
        top.directives.check = behind.directives.check;
        top.end = behind.end.max(top.end);
        top.diagnostics.append(&mut behind.diagnostics);
    }
    if top.directives.syntax.is_none() {
        top.directives.syntax = foreign_syntax(text, start);
    }
    top.diagnostics.extend(check_syntax(&top.directives));
    top
}

/// Takes lines `# key=value` from `at` on; the first line that is something else ends them.
fn collect(text: &str, at: usize, comment: &str, top: &mut Top) {
    let mut at = at;
    for line in text[at..].split_inclusive('\n') {
        let Some((key, value)) = directive(line, at, comment) else {
            return;
        };
        at += line.len();
        let place = match key.as_str() {
            "syntax" => &mut top.directives.syntax,
            "escape" => &mut top.directives.escape,
            "check" => &mut top.directives.check,
            _ => return,
        };
        top.end = at;
        match place {
            None => *place = Some(value),
            Some(first) => top.diagnostics.push(
                Diagnostic::error(format!("directive `{key}` is given twice"))
                    .at(value.span)
                    .label(first.span, "first given here"),
            ),
        }
    }
}

/// Reads a comment that has the form of a directive, without its `#`: the key in lower case, and the value.
pub(super) fn in_comment(comment: &Word) -> Option<(String, Word)> {
    directive(&comment.value, comment.span.start, "")
}

/// Reads one line that starts at `at`: the key in lower case, and the value.
fn directive(line: &str, at: usize, comment: &str) -> Option<(String, Word)> {
    let inside = line.trim_start().strip_prefix(comment)?.trim_start();
    let (key, value) = inside.split_once('=')?;
    let key = key.trim_end();
    let value_start = line.len() - value.trim_start().len();
    let value = value.trim();
    let is_name = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    if !is_name || value.is_empty() {
        return None;
    }
    let start = at + value_start;
    Some((
        key.to_ascii_lowercase(),
        Spanned::new(value.to_owned(), Span::new(start, start + value.len())),
    ))
}

fn foreign_syntax(text: &str, start: usize) -> Option<Word> {
    let start = match text[start..].strip_prefix("#!") {
        Some(_) => text.find('\n').map_or(text.len(), |newline| newline + 1),
        None => start,
    };
    let mut slashes = Top {
        directives: Directives::default(),
        escape: '\\',
        end: start,
        diagnostics: Vec::new(),
    };
    collect(text, start, "//", &mut slashes);
    if slashes.directives.syntax.is_some() {
        return slashes.directives.syntax;
    }
    let document = &text[start..];
    if !document.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(document).ok()?;
    let value = object.get("syntax")?.as_str()?.to_owned();
    let at = start + document.find("\"syntax\"")?;
    Some(Spanned::new(value, Span::new(at, at + "\"syntax\"".len())))
}

/// Warns if the file asks for a frontend that is not the Dockerfile one.
fn check_syntax(directives: &Directives) -> Option<Diagnostic> {
    let syntax = directives.syntax.as_ref()?;
    let warning = unknown_frontend(&syntax.value)?.at(syntax.span);
    Some(warning.hint("remove the `syntax` directive if the file is an ordinary Dockerfile"))
}

/// Returns a warning if `text` begins with the image of a frontend that is not the Dockerfile one.
pub fn unknown_frontend(text: &str) -> Option<Diagnostic> {
    let image = text.split_whitespace().next()?;
    (!is_dockerfile_frontend(image)).then(|| {
        Diagnostic::warning(format!(
            "frontends are not run: `{image}` is ignored and the file is read as a Dockerfile"
        ))
    })
}

/// Tells whether an image is Docker's own frontend, on any registry (mirrors keep the name).
fn is_dockerfile_frontend(image: &str) -> bool {
    let without_digest = image.split('@').next().unwrap_or(image);
    let name = match without_digest.rsplit_once(':') {
        // A colon before a slash is a port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => without_digest,
    };
    let mut components = name.rsplit('/');
    matches!(
        components.next(),
        Some("dockerfile" | "dockerfile-upstream")
    ) && components.next() == Some("docker")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerfile_frontends_are_known_by_name() {
        for (image, expected) in [
            ("docker/dockerfile:1", true),
            ("docker/dockerfile", true),
            ("docker/dockerfile:1.7-labs", true),
            ("docker/dockerfile-upstream:master", true),
            ("docker.io/docker/dockerfile:1@sha256:abc", true),
            ("mirror.local:5000/hub/docker/dockerfile:1", true),
            ("mirror.local:5000/other", false),
            ("dockerfile", false),
            ("docker/dockerfile2", false),
            ("tonistiigi/buildkit-pack", false),
        ] {
            assert_eq!(is_dockerfile_frontend(image), expected, "{image}");
        }
    }
}
