//! Why a step was not in the cache, as values and as words.

use super::{Digest, names_a_secret, without_passwords};

/// Longer values are shown by their beginning.
const VALUE_LIMIT: usize = 40;
/// Texts without blanks from this length on may be a token.
const TOKEN_LENGTH: usize = 20;

/// One input of a step that is not what it was the last time that the step was performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing like the step was performed here before.
    New,
    /// The step was told not to read the cache.
    Forced,
    /// All is as it was, and the step failed.
    FailedBefore,
    /// All is as it was, and the result is not kept any more.
    Gone,
    Command,
    Heredoc,
    /// Files that are copied, or that a mount shows.
    Files {
        /// The source as the Dockerfile has it.
        source: String,
        /// What is known of the difference; `None` where no list of the former files is kept.
        changes: Option<Vec<FileChange>>,
    },
    Variable {
        /// `ARG` or `ENV`.
        keyword: &'static str,
        name: String,
        /// `None` where it was not set.
        old: Option<String>,
        new: Option<String>,
    },
    /// Variables are set in another order.
    VariableOrder,
    /// Something else that the instruction says, such as `user`.
    Other {
        name: String,
        old: Option<String>,
        new: Option<String>,
    },
    /// The base image.
    Base {
        /// The step that names it.
        step: String,
        old: Option<Digest>,
        new: Digest,
    },
    /// An earlier step that was performed in this build.
    After {
        step: String,
    },
    /// The root is another one, for an earlier step that was in the cache.
    Root,
    /// The stage that is copied from is another one; its files are not known yet.
    Stage,
}

/// One file that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// As the Dockerfile would name it.
    pub path: String,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Content,
    New,
    Gone,
    Mode,
    Owner,
    /// A file became a link, say.
    Kind,
}

impl Change {
    /// Returns the word for it, which goes after the path.
    pub fn word(self) -> &'static str {
        match self {
            Change::Content => "changed",
            Change::New => "new",
            Change::Gone => "gone",
            Change::Mode => "mode changed",
            Change::Owner => "owner changed",
            Change::Kind => "kind changed",
        }
    }
}

impl Reason {
    /// Returns the word that machines know it by.
    pub fn kind(&self) -> &'static str {
        match self {
            Reason::New => "new",
            Reason::Forced => "forced",
            Reason::FailedBefore => "failed-before",
            Reason::Gone => "gone",
            Reason::Command => "command",
            Reason::Heredoc => "heredoc",
            Reason::Files { .. } => "files",
            Reason::Variable { .. } | Reason::VariableOrder => "variable",
            Reason::Other { .. } => "other",
            Reason::Base { .. } => "base",
            Reason::After { .. } => "after",
            Reason::Root => "root",
            Reason::Stage => "stage",
        }
    }

    /// Returns it on one line, with at most so many files. Values that may be secret are not in it.
    pub fn text(&self, most_files: usize) -> String {
        match self {
            Reason::New => "nothing like it was built here before".to_owned(),
            Reason::Forced => "the cache is not to be read".to_owned(),
            Reason::FailedBefore => "it failed the last time".to_owned(),
            Reason::Gone => "its result is no longer there".to_owned(),
            Reason::Command => "the command changed".to_owned(),
            Reason::Heredoc => "the heredoc changed".to_owned(),
            Reason::Files {
                changes: Some(changes),
                ..
            } if !changes.is_empty() => files(changes, most_files),
            Reason::Files { source, .. } if matches!(source.as_str(), "." | "/" | "") => {
                "the files changed".to_owned()
            }
            Reason::Files { source, .. } => format!("the files of `{source}` changed"),
            Reason::Variable {
                keyword,
                name,
                old,
                new,
            } => {
                let what = format!("{keyword} {name}");
                match names_a_secret(name) {
                    true => without_values(&what, old.is_some(), new.is_some()),
                    false => change(&what, old.as_deref(), new.as_deref()),
                }
            }
            Reason::VariableOrder => "the order of the environment changed".to_owned(),
            Reason::Other { name, old, new } => {
                change(&format!("`{name}`"), old.as_deref(), new.as_deref())
            }
            Reason::Base { step, old, new } => match old {
                Some(old) => format!(
                    "{step}: the base's digest changed, {} → {}",
                    short(old),
                    short(new)
                ),
                None => format!("{step}: another base"),
            },
            Reason::After { step } => format!("after {step}"),
            Reason::Root => "it starts from the result of another earlier step".to_owned(),
            Reason::Stage => "the stage that it copies from changed".to_owned(),
        }
    }
}

/// Returns several reasons on one line.
pub fn reasons_text(reasons: &[Reason], most_files: usize) -> String {
    let texts: Vec<String> = reasons
        .iter()
        .map(|reason| reason.text(most_files))
        .collect();
    texts.join("; ")
}

fn files(changes: &[FileChange], most: usize) -> String {
    let shown: Vec<String> = changes
        .iter()
        .take(most)
        .map(|change| format!("{} {}", change.path, change.change.word()))
        .collect();
    let mut text = shown.join(", ");
    match changes.len().saturating_sub(most) {
        0 => {}
        more if most == 0 => text = format!("{more} files changed"),
        more => text.push_str(&format!(" and {more} more")),
    }
    text
}

fn change(what: &str, old: Option<&str>, new: Option<&str>) -> String {
    match (old.map(shown), new.map(shown)) {
        (Some(Some(old)), Some(Some(new))) if old != new => format!("{what} {old} → {new}"),
        (None, Some(Some(new))) => format!("{what} {new} is new"),
        (old, new) => without_values(what, old.is_some(), new.is_some()),
    }
}

fn without_values(what: &str, was_set: bool, is_set: bool) -> String {
    match (was_set, is_set) {
        (false, _) => format!("{what} is new"),
        (_, false) => format!("{what} is gone"),
        _ => format!("{what} changed"),
    }
}

/// Returns a value for a line of text, unless it looks like something that nobody should see.
fn shown(value: &str) -> Option<String> {
    if looks_like_a_token(value) {
        return None;
    }
    let clean = without_passwords(value);
    if clean.is_empty() {
        return Some("``".to_owned());
    }
    let line: String = clean
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut cut: String = line.chars().take(VALUE_LIMIT).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    Some(match cut.contains(' ') {
        true => format!("`{cut}`"),
        false => cut,
    })
}

/// Tells whether a value has the looks of a password or key: long, in one piece, of letters of both cases and figures.
fn looks_like_a_token(value: &str) -> bool {
    let is_key = value.contains("PRIVATE KEY");
    let mut words = value.split(|c: char| c.is_whitespace() || matches!(c, '/' | ':' | '@' | ','));
    is_key
        || words.any(|word| {
            let has = |of: fn(&char) -> bool| word.chars().any(|c| of(&c));
            word.len() >= TOKEN_LENGTH
                && has(char::is_ascii_uppercase)
                && has(char::is_ascii_lowercase)
                && has(char::is_ascii_digit)
        })
}

fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, old: Option<&str>, new: Option<&str>) -> Reason {
        Reason::Variable {
            keyword: "ARG",
            name: name.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        }
    }

    #[test]
    fn variables_are_shown_with_their_values_unless_these_may_be_secret() {
        let long = "x ".repeat(60);
        for (name, old, new, text) in [
            ("VERSION", Some("1.2"), Some("1.3"), "ARG VERSION 1.2 → 1.3"),
            ("VERSION", None, Some("1.3"), "ARG VERSION 1.3 is new"),
            ("VERSION", Some("1.2"), None, "ARG VERSION is gone"),
            ("VERSION", Some(""), Some("a b"), "ARG VERSION `` → `a b`"),
            ("TOKEN", Some("one"), Some("two"), "ARG TOKEN changed"),
            ("TOKEN", None, Some("two"), "ARG TOKEN is new"),
            (
                "MIRROR",
                Some("https://me:pass@host/a"),
                Some("https://me:pass@host/b"),
                "ARG MIRROR https://me:***@host/a → https://me:***@host/b",
            ),
            (
                "X",
                Some("a"),
                Some("Zx81kdiw92JDKAlqpw0c"),
                "ARG X changed",
            ),
            ("X", Some("a\nb"), Some("c"), "ARG X `a b` → c"),
            (
                "X",
                Some("a"),
                Some(long.as_str()),
                "ARG X a → `x x x x x x x x x x x x x x x x x x x x …`",
            ),
            (
                "REVISION",
                Some("a"),
                Some("9e107d9d372bb6826bd81d3542a419d6"),
                "ARG REVISION a → 9e107d9d372bb6826bd81d3542a419d6",
            ),
        ] {
            assert_eq!(variable(name, old, new).text(3), text);
        }
    }

    #[test]
    fn the_first_files_are_named() {
        let change = |path: &str, change| FileChange {
            path: path.to_owned(),
            change,
        };
        let changes = vec![
            change("a", Change::Content),
            change("b", Change::New),
            change("c", Change::Gone),
            change("d", Change::Mode),
        ];
        let reason = |changes| Reason::Files {
            source: "src".to_owned(),
            changes,
        };
        assert_eq!(
            reason(Some(changes.clone())).text(2),
            "a changed, b new and 2 more"
        );
        assert_eq!(
            reason(Some(changes)).text(9),
            "a changed, b new, c gone, d mode changed"
        );
        assert_eq!(reason(None).text(2), "the files of `src` changed");
    }
}
