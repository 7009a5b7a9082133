//! Ignore patterns: `.dockerignore` files and `--exclude` lists.
//!
//! In: the text of a file, or a list. Out: [`IgnorePatterns`], which decides about paths relative to the context's root. A
//! pattern that matches a directory covers all below it; the last pattern that matches or covers a path decides; `!` brings
//! back. Reading files and walking directories is the caller's.
//!
//! A walk hands each directory's [`ParentMatches`] down, so that a path is compared once and not once per parent:
//! [`IgnorePatterns::decide`] and [`IgnorePatterns::decide_below`] always agree.

use super::glob::{PatternError, clean};
use super::matcher::{Language, Matcher};

/// A compiled list of patterns.
#[derive(Clone, Debug, Default)]
pub struct IgnorePatterns {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    matcher: Matcher,
    /// Written with `!`.
    brings_back: bool,
    line: usize,
}

/// What the patterns say about a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub excluded: bool,
    /// The 1-based line (or item) that decided; `None` if no pattern has to do with the path.
    pub line: Option<usize>,
}

/// Which patterns match a directory or one of its parents. The default is the root's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentMatches {
    /// One bit per pattern; the first 64 apart, so that usual lists allocate nothing.
    first: u64,
    more: Vec<u64>,
}

impl IgnorePatterns {
    /// Reads an ignore file: `#` in the first column starts a comment, lines are trimmed, a leading `/` means nothing.
    pub fn parse(text: &str) -> Result<IgnorePatterns, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        IgnorePatterns::compile(
            text.split('\n')
                .enumerate()
                .filter(|(_, line)| !line.starts_with('#'))
                .map(|(index, line)| (index + 1, line)),
        )
    }

    /// Takes patterns one by one; there are no comments.
    pub fn from_list(patterns: &[String]) -> Result<IgnorePatterns, PatternError> {
        IgnorePatterns::compile(
            patterns
                .iter()
                .enumerate()
                .map(|(index, pattern)| (index + 1, pattern.as_str())),
        )
    }

    fn compile<'a>(
        lines: impl Iterator<Item = (usize, &'a str)>,
    ) -> Result<IgnorePatterns, PatternError> {
        let mut patterns = Vec::new();
        for (line, text) in lines {
            let written = text.trim();
            let (brings_back, pattern) = match written.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, written),
            };
            if pattern.is_empty() {
                if brings_back {
                    return Err(PatternError::LoneExclamation { line: Some(line) });
                }
                continue;
            }
            let cleaned = clean(pattern);
            let relative = match cleaned.strip_prefix('/') {
                Some(rest) if !rest.is_empty() => rest,
                _ => cleaned.as_str(),
            };
            let matcher =
                Matcher::new(relative, Language::Deep).map_err(|error| PatternError::Syntax {
                    pattern: written.to_owned(),
                    line: Some(line),
                    reason: error.to_string(),
                })?;
            patterns.push(Pattern {
                matcher,
                brings_back,
                line,
            });
        }
        Ok(IgnorePatterns { patterns })
    }

    /// Tells whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Tells whether some pattern brings back what others exclude.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.brings_back)
    }

    /// Decides about a source of COPY or ADD as it is written, wildcards taken literally: what a lint can tell without looking
    /// at files.
    pub fn decide_source(&self, source: &str) -> Decision {
        let cleaned = clean(source);
        self.decide(cleaned.trim_start_matches('/').as_bytes())
    }

    /// Decides about a path (relative, clean). The root itself, `""`, is never excluded.
    pub fn decide(&self, path: &[u8]) -> Decision {
        if path.is_empty() {
            return Decision::default();
        }
        self.last_match(|_, pattern| {
            pattern.matcher.matches(path)
                || parents(path).any(|parent| pattern.matcher.matches(parent))
        })
    }

    /// Decides about a path directly below a directory whose matches are known.
    pub fn decide_below(&self, parent: &ParentMatches, path: &[u8]) -> Decision {
        if path.is_empty() {
            return Decision::default();
        }
        self.last_match(|index, pattern| parent.has(index) || pattern.matcher.matches(path))
    }

    /// Returns the matches of a directory directly below one whose matches are known.
    pub fn descend(&self, parent: &ParentMatches, directory: &[u8]) -> ParentMatches {
        let mut matches = parent.clone();
        for (index, pattern) in self.patterns.iter().enumerate() {
            if !matches.has(index) && pattern.matcher.matches(directory) {
                matches.set(index);
            }
        }
        matches
    }

    /// Tells whether something below a directory can be included: always if the directory is not excluded, else if a `!` pattern
    /// can bring it back. Where it cannot, a walk need not enter.
    pub fn may_include_below(&self, directory: &[u8]) -> bool {
        let decision = self.decide(directory);
        // What stands before the line that excludes the directory is overruled for all below it.
        !decision.excluded
            || self
                .patterns
                .iter()
                .rev()
                .take_while(|pattern| Some(pattern.line) > decision.line)
                .any(|pattern| pattern.brings_back && pattern.matcher.may_match_below(directory))
    }

    fn last_match(&self, matches: impl Fn(usize, &Pattern) -> bool) -> Decision {
        self.patterns
            .iter()
            .enumerate()
            .rev()
            .find(|(index, pattern)| matches(*index, pattern))
            .map_or_else(Decision::default, |(_, pattern)| Decision {
                excluded: !pattern.brings_back,
                line: Some(pattern.line),
            })
    }
}

impl ParentMatches {
    fn has(&self, pattern: usize) -> bool {
        let word = match pattern / 64 {
            0 => self.first,
            more => self.more.get(more - 1).copied().unwrap_or(0),
        };
        word & (1 << (pattern % 64)) != 0
    }

    fn set(&mut self, pattern: usize) {
        let bit = 1 << (pattern % 64);
        match pattern / 64 {
            0 => self.first |= bit,
            more => {
                if self.more.len() < more {
                    self.more.resize(more, 0);
                }
                self.more[more - 1] |= bit;
            }
        }
    }
}

/// Returns the directories above a path, topmost first, without the root.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|&(_, &byte)| byte == b'/')
        .map(|(index, _)| &path[..index])
}
