//! The wildcards of COPY and ADD sources.
//!
//! In: a source as written after expansion. Out: [`Glob`], which selects paths relative to the source's root. It does not
//! list directories.

use super::matcher::{Language, Matcher};

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Bad syntax. `line` is the 1-based line (or item) where the pattern stands in its file (or list).
    #[error("invalid pattern `{pattern}`: {reason}")]
    Syntax {
        pattern: String,
        line: Option<usize>,
        reason: String,
    },
    /// `!` with nothing behind it.
    #[error("invalid pattern `!`: it excepts nothing")]
    LoneExclamation { line: Option<usize> },
}

impl PatternError {
    /// Returns the 1-based line (or item) of the pattern.
    pub fn line(&self) -> Option<usize> {
        match self {
            PatternError::Syntax { line, .. } | PatternError::LoneExclamation { line } => *line,
        }
    }
}

/// A source pattern: Go's `filepath.Match` by path component. A leading `/`, `.` components and a trailing `/` mean nothing, and
/// `..` stops at the root.
#[derive(Clone, Debug)]
pub struct Glob {
    matcher: Matcher,
    literal_prefix: String,
    is_literal: bool,
}

impl Glob {
    /// Reads a pattern in which `**` is nothing special.
    pub fn parse(pattern: &str) -> Result<Glob, PatternError> {
        Glob::new(pattern, Language::Plain)
    }

    /// Reads a pattern in which `**` crosses components, as `--parents` has it.
    pub fn parse_deep(pattern: &str) -> Result<Glob, PatternError> {
        Glob::new(pattern, Language::Deep)
    }

    fn new(pattern: &str, language: Language) -> Result<Glob, PatternError> {
        let rooted = clean(&format!("/{pattern}"));
        let relative = &rooted[1..];
        let matcher = Matcher::new(relative, language).map_err(|error| PatternError::Syntax {
            pattern: pattern.to_owned(),
            line: None,
            reason: error.to_string(),
        })?;
        let literals: Vec<String> = relative.split('/').map_while(literal_component).collect();
        Ok(Glob {
            matcher,
            is_literal: literals.len() == relative.split('/').count(),
            literal_prefix: literals.join("/"),
        })
    }

    /// Tells whether a path (relative, clean) is selected.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.matcher.matches(path)
    }

    /// Tells whether something below a directory (relative, clean, `""` for the root) can be selected.
    pub fn may_match_below(&self, directory: &[u8]) -> bool {
        self.matcher.may_match_below(directory)
    }

    /// Tells whether the pattern has no wildcard. It then is [`Glob::literal_prefix`].
    pub fn is_literal(&self) -> bool {
        self.is_literal
    }

    /// Returns the leading components that have no wildcard, escapes removed; `""` if the first has one.
    pub fn literal_prefix(&self) -> &str {
        &self.literal_prefix
    }
}

/// Returns a component without its escapes, or `None` if it has a wildcard.
fn literal_component(component: &str) -> Option<String> {
    let mut literal = String::new();
    let mut characters = component.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' | '?' | '[' => return None,
            '\\' => literal.extend(characters.next()),
            other => literal.push(other),
        }
    }
    Some(literal)
}

/// Returns the shortest equal path by text alone, as Go's `filepath.Clean` does; `.` for nothing.
pub(super) fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => match components.last() {
                Some(&last) if last != ".." => {
                    components.pop();
                }
                _ if is_rooted => {}
                _ => components.push(".."),
            },
            other => components.push(other),
        }
    }
    let joined = components.join("/");
    match (is_rooted, joined.as_str()) {
        (true, _) => format!("/{joined}"),
        (false, "") => ".".to_owned(),
        (false, _) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_is_by_text_alone() {
        for (path, expected) in [
            ("", "."),
            ("/", "/"),
            ("a/../b", "b"),
            ("../x", "../x"),
            ("/../x", "/x"),
            ("a//b/./c/", "a/b/c"),
            ("a/../../b", "../b"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn globs_match_by_component() {
        for (pattern, path, expected) in [
            ("*", "abc", true),
            ("*", ".hidden", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("a[^x]b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[[]x", "[x", true),
            ("**", "a/b", false),
            ("**", "a", true),
            ("/a/./b/", "a/b", true),
            ("../x", "x", true),
            ("./*.c", "m.c", true),
            ("src/*.c", "src/m.c", true),
            ("", "", true),
            (".", "", true),
        ] {
            assert_eq!(
                Glob::parse(pattern).unwrap().matches(path.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
        assert!(Glob::parse("a?b").unwrap().matches(b"a\xffb"));
        assert!(!Glob::parse("a?b").unwrap().matches(b"a\xff\xffb"));
        assert!(Glob::parse("*b").unwrap().matches(b"a\xffb"));
    }

    #[test]
    fn deep_globs_cross_components() {
        for (pattern, path, expected) in [
            ("**/*.txt", "a.txt", true),
            ("**/*.txt", "d/e/a.txt", true),
            ("d/**/x", "d/x", true),
            ("d/**/x", "d/a/b/x", true),
            ("d/**/x", "e/x", false),
            ("d/**", "d/a/b", true),
            ("d/**", "d", false),
            ("*/x", "a/b/x", false),
        ] {
            let glob = Glob::parse_deep(pattern).unwrap();
            assert_eq!(glob.matches(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in [
            "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "\\", "a[b", "[]",
            "[a\\",
        ] {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn literal_prefixes_are_whole_components() {
        for (pattern, prefix, is_literal) in [
            ("a/b", "a/b", true),
            ("/a/b/", "a/b", true),
            ("a/b*/c", "a", false),
            ("*/a", "", false),
            ("a/\\*b", "a/*b", true),
            ("a/[b]", "a", false),
            (".", "", true),
        ] {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(
                (glob.literal_prefix(), glob.is_literal()),
                (prefix, is_literal),
                "{pattern}"
            );
        }
    }

    #[test]
    fn directories_that_cannot_hold_a_match_are_told() {
        for (pattern, directory, expected) in [
            ("a/*/c", "", true),
            ("a/*/c", "a", true),
            ("a/*/c", "a/b", true),
            ("a/*/c", "a/b/c", false),
            ("a/*/c", "b", false),
            ("*.c", "d", false),
            ("a/b", "a", true),
            ("a/b", "ab", false),
            ("ab", "a", false),
            ("a/[bc]/d", "a/b", true),
            ("a/[bc]/d", "a/x", false),
        ] {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(
                glob.may_match_below(directory.as_bytes()),
                expected,
                "{pattern} {directory}"
            );
        }
    }
}
