//! The marks of CI systems in plain text: foldable sections, and errors that are shown beside the code.
//!
//! Sections must not interleave, and steps do. So one step at a time speaks at once, in an open section; what others say waits until
//! it is done, and then comes in sections of its own. A step's output can make none of these marks: GitLab's need a carriage return
//! and an escape sequence, which output has lost, and GitHub's `::` counts at the beginning of a line only, where the step's number
//! stands. GitHub's older `##[` counts anywhere and is broken up. Switching commands off around output (`stop-commands`) would
//! leave them off when the builder is killed.

use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Ci;
use super::render::clean;
use super::text::one_line;
use crate::vocab::{Diagnostic, Severity, SourceText};

impl Ci {
    pub(super) fn folds(&self) -> bool {
        *self != Ci::None
    }

    /// Returns the mark that begins section `number`, with its line feed.
    pub(super) fn open(&self, number: usize, title: &str, now: SystemTime) -> String {
        let title = one_line(title);
        match self {
            Ci::None => String::new(),
            Ci::GitLab => format!(
                "\x1b[0Ksection_start:{}:builder_{number}[collapsed=true]\r\x1b[0K{title}\n",
                seconds(now)
            ),
            Ci::GitHub { .. } => format!("::group::{}\n", escaped(&title)),
        }
    }

    /// Returns the mark that ends it.
    pub(super) fn close(&self, number: usize, now: SystemTime) -> String {
        match self {
            Ci::None => String::new(),
            Ci::GitLab => format!(
                "\x1b[0Ksection_end:{}:builder_{number}\r\x1b[0K\n",
                seconds(now)
            ),
            Ci::GitHub { .. } => "::endgroup::\n".to_owned(),
        }
    }

    /// Takes the force from what looks like a command of the CI system.
    pub(super) fn harmless(&self, text: String) -> String {
        if !matches!(self, Ci::GitHub { .. }) {
            return text;
        }
        let text = match text.contains("##[") {
            true => text.replace("##[", "##\u{200b}["),
            false => text,
        };
        // Blanks before it do not matter to the runner.
        let is_command = |line: &str| line.trim_start().starts_with("::");
        match text.lines().any(is_command) {
            true => text
                .split_inclusive('\n')
                .map(|line| match is_command(line) {
                    true => line.replacen("::", "\u{200b}::", 1),
                    false => line.to_owned(),
                })
                .collect(),
            false => text,
        }
    }

    /// Returns the line that shows a diagnostic beside the Dockerfile.
    pub fn annotation(
        &self,
        diagnostic: &Diagnostic,
        source: Option<&SourceText>,
    ) -> Option<String> {
        let Ci::GitHub {
            workspace,
            directory,
        } = self
        else {
            return None;
        };
        let level = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut properties = Vec::new();
        if let (Some(source), Some(label)) = (source, diagnostic.labels.first())
            && !source.name.starts_with('<')
        {
            let file = relative(workspace.as_deref(), &directory.join(&source.name));
            properties.push(format!("file={}", property(&file)));
            let start = source.line(label.span.start);
            let last = label.span.end.saturating_sub(1).max(label.span.start);
            properties.push(format!("line={start}"));
            properties.push(format!("endLine={}", source.line(last)));
        }
        let title = diagnostic.code.unwrap_or("builder");
        properties.push(format!("title={}", property(title)));
        let mut message = clean(&diagnostic.message);
        for cause in &diagnostic.causes {
            message.push_str(&format!("\ncause: {}", clean(cause)));
        }
        for hint in &diagnostic.hints {
            message.push_str(&format!("\nhint: {}", clean(hint)));
        }
        Some(format!(
            "::{level} {}::{}\n",
            properties.join(","),
            escaped(&message)
        ))
    }
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

/// Returns a path as it is below the workspace, or as it is.
fn relative(workspace: Option<&Path>, path: &Path) -> String {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    let below = workspace.and_then(|workspace| plain.strip_prefix(workspace).ok());
    clean(&below.unwrap_or(&plain).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::Span;

    #[test]
    fn an_annotation_points_into_the_workspace() {
        let ci = Ci::GitHub {
            workspace: Some("/w/repo".into()),
            directory: "/w/repo/./sub".into(),
        };
        let source = SourceText {
            name: "a,b/../Docker:file".to_owned(),
            text: "FROM a\nRUN x \\\n y\n".to_owned(),
        };
        let diagnostic = Diagnostic::error("100% wrong")
            .at(Span::new(7, source.text.len()))
            .cause("one\ntwo")
            .hint("do ::this");
        assert_eq!(
            ci.annotation(&diagnostic, Some(&source)).unwrap(),
            "::error file=sub/Docker%3Afile,line=2,endLine=3,title=builder::100%25 wrong%0Acause: one%0Atwo%0Ahint: do ::this\n"
        );
        let warning = Diagnostic::warning("w").code("StageNameCasing");
        assert_eq!(
            ci.annotation(&warning, None).unwrap(),
            "::warning title=StageNameCasing::w\n"
        );
        assert_eq!(Ci::GitLab.annotation(&warning, None), None);
    }

    #[test]
    fn marks_have_names_and_times() {
        let at = UNIX_EPOCH + std::time::Duration::from_secs(7);
        assert_eq!(
            Ci::GitLab.open(3, "[1/2] RUN a\nb\r", at),
            "\x1b[0Ksection_start:7:builder_3[collapsed=true]\r\x1b[0K[1/2] RUN a b\u{fffd}\n"
        );
        assert_eq!(
            Ci::GitLab.close(3, at),
            "\x1b[0Ksection_end:7:builder_3\r\x1b[0K\n"
        );
        let github = Ci::GitHub {
            workspace: None,
            directory: PathBuf::new(),
        };
        assert_eq!(github.open(3, "50%", at), "::group::50%25\n");
        assert_eq!(
            github.harmless("x ##[error]y".to_owned()),
            "x ##\u{200b}[error]y"
        );
        assert_eq!(
            github.harmless("a ::b::\n \t::stop-commands::x\n::c\n".to_owned()),
            "a ::b::\n \t\u{200b}::stop-commands::x\n\u{200b}::c\n"
        );
    }
}
