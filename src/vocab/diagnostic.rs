//! What is told to the user: a severity, a message, places, causes and hints.

use super::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// A place in the Dockerfile and what to say beside it (may be empty: the caret alone).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// One thing to tell. Rendered in one place (`ui`), never formatted by the room that made it.
///
/// `message` is lower case, has no full stop and fits after `error: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The name of a lint rule, such as `StageNameCasing`, where the message is one.
    pub code: Option<&'static str>,
    pub message: String,
    /// The first is where it went wrong, the others are context.
    pub labels: Vec<Label>,
    /// The chain of reasons, outermost first.
    pub causes: Vec<String>,
    /// What the user can do.
    pub hints: Vec<String>,
    /// The last lines that the failing step printed.
    pub output: Vec<String>,
}

impl Diagnostic {
    /// Returns an error with nothing but its message.
    pub fn error(message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code: None,
            message: message.into(),
            labels: Vec::new(),
            causes: Vec::new(),
            hints: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Returns a warning with nothing but its message.
    pub fn warning(message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            ..Diagnostic::error(message)
        }
    }

    /// Names the lint rule.
    pub fn code(mut self, code: &'static str) -> Diagnostic {
        self.code = Some(code);
        self
    }

    /// Adds a place.
    pub fn at(mut self, span: Span) -> Diagnostic {
        self.labels.push(Label {
            span,
            text: String::new(),
        });
        self
    }

    /// Adds a place with a remark.
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.labels.push(Label {
            span,
            text: text.into(),
        });
        self
    }

    /// Adds a reason.
    pub fn cause(mut self, cause: impl Into<String>) -> Diagnostic {
        self.causes.push(cause.into());
        self
    }

    /// Adds every error in `error`'s chain of sources, itself first.
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Diagnostic {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds something that the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hints.push(hint.into());
        self
    }

    /// Returns where the lint rule is explained, if there is such a page.
    pub fn link(&self) -> Option<String> {
        // The one rule without a page.
        let code = self
            .code
            .filter(|code| *code != "InvalidBaseImagePlatform")?;
        Some(format!(
            "https://docs.docker.com/go/dockerfile/rule/{}/",
            kebab_case(code)
        ))
    }

    /// Tells whether the build cannot go on.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Writes `JSONArgsRecommended` as `json-args-recommended`.
fn kebab_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let after_small = at > 0 && letters[at - 1].is_lowercase();
        let before_small = at > 0 && letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (after_small || before_small) {
            out.push('-');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_links() {
        for (code, link) in [
            ("JSONArgsRecommended", Some("json-args-recommended")),
            ("FromAsCasing", Some("from-as-casing")),
            ("SecretsUsedInArgOrEnv", Some("secrets-used-in-arg-or-env")),
            ("InvalidBaseImagePlatform", None),
        ] {
            let expected =
                link.map(|link| format!("https://docs.docker.com/go/dockerfile/rule/{link}/"));
            assert_eq!(Diagnostic::warning("x").code(code).link(), expected);
        }
        assert_eq!(Diagnostic::warning("x").link(), None);
    }
}
