//! Physical lines become logical ones: comments dropped, continuation lines joined, heredoc bodies read.
//!
//! In: the text of a file and its escape character. Out: [`Joined`] lines, whose every byte knows its place in the file, and
//! the raw bodies of heredocs. What the lines mean is not looked at here.

use std::ops::Range;

use super::{Word, work};
use crate::vocab::{Span, Spanned};

/// One instruction's text on one line, with the way back to the file.
#[derive(Debug)]
pub(super) struct Joined {
    text: String,
    /// Where in `text` a piece starts, and where in the file; ascending.
    pieces: Vec<(usize, usize)>,
}

impl Joined {
    fn new() -> Joined {
        Joined {
            text: String::new(),
            pieces: Vec::new(),
        }
    }

    fn push(&mut self, piece: &str, file_offset: usize) {
        if !piece.is_empty() {
            self.pieces.push((self.text.len(), file_offset));
            self.text.push_str(piece);
        }
    }

    /// Returns the whole line.
    pub(super) fn part(&self) -> Part<'_> {
        Part {
            line: self,
            start: 0,
            end: self.text.len(),
        }
    }

    /// Returns the place in the file of the byte at `at`.
    fn offset(&self, at: usize) -> usize {
        work::note(1);
        let after = self.pieces.partition_point(|&(start, _)| start <= at);
        match after
            .checked_sub(1)
            .and_then(|piece| self.pieces.get(piece))
        {
            Some(&(start, file)) => file + (at - start),
            None => 0,
        }
    }
}

/// A part of a joined line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    line: &'a Joined,
    start: usize,
    end: usize,
}

impl<'a> Part<'a> {
    pub(super) fn as_str(self) -> &'a str {
        &self.line.text[self.start..self.end]
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Returns the part at `range`, counted from this part's start.
    pub(super) fn slice(self, range: Range<usize>) -> Part<'a> {
        Part {
            line: self.line,
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    /// Returns what follows the first `from` bytes.
    pub(super) fn after(self, from: usize) -> Part<'a> {
        self.slice(from..self.end - self.start)
    }

    /// Returns the part without white space at both ends.
    pub(super) fn trim(self) -> Part<'a> {
        let text = self.as_str();
        let start = text.len() - text.trim_start().len();
        self.slice(start..start + text.trim().len())
    }

    /// Returns the bytes of the joined line that the part covers.
    pub(super) fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// Returns the place in the file. An empty part is an empty span just after what stands before it.
    pub(super) fn span(self) -> Span {
        if self.start < self.end {
            let start = self.line.offset(self.start);
            return Span::new(start, (self.line.offset(self.end - 1) + 1).max(start));
        }
        let at = match self.start {
            0 => self.line.offset(0),
            start => self.line.offset(start - 1) + 1,
        };
        Span::new(at, at)
    }

    pub(super) fn word(self) -> Word {
        Spanned::new(self.as_str().to_owned(), self.span())
    }
}

/// A logical line and what is known from joining it.
pub(super) struct Logical {
    pub(super) line: Joined,
    /// The empty lines inside a continuation.
    pub(super) empty_continuations: Vec<Span>,
    /// The comment lines right above, without `#` and trimmed. Blank lines, empty comments and directives end such a block.
    pub(super) comments: Vec<Word>,
    /// The physical lines that were joined, without the end of the last one. Comments and blank lines that a continuation ran
    /// into belong to them.
    pub(super) extent: Span,
    /// The last of these lines.
    pub(super) last_line: Span,
}

/// Goes through a file once.
pub(super) struct Lines<'a> {
    text: &'a str,
    at: usize,
    escape: char,
    /// Lines before this are directives, which are nobody's comments.
    directives_end: usize,
    /// Where the last physical line ends.
    line_end: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str, escape: char, directives_end: usize) -> Lines<'a> {
        let at = if text.starts_with(BOM) {
            BOM.len_utf8()
        } else {
            0
        };
        Lines {
            text,
            at,
            escape,
            directives_end,
            line_end: at,
        }
    }

    /// Returns where the last physical line ends, its line feed left out.
    pub(super) fn line_end(&self) -> usize {
        self.line_end
    }

    /// Returns where the next physical line starts.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Returns the next instruction's text. Comments and blank lines before it are skipped.
    pub(super) fn next_logical(&mut self) -> Option<Logical> {
        let mut comments = Vec::new();
        loop {
            let (start, line) = self.next_physical()?;
            let trimmed = line.trim_start();
            match trimmed.strip_prefix('#') {
                Some(comment) if comment.trim().is_empty() => comments.clear(),
                Some(_) if start < self.directives_end => {}
                Some(comment) => {
                    let at = start + (line.len() - comment.trim_start().len());
                    let comment = comment.trim();
                    let span = Span::new(at, at + comment.len());
                    comments.push(Spanned::new(comment.to_owned(), span));
                }
                None if trimmed.is_empty() => comments.clear(),
                None => return Some(self.join(start, line, comments)),
            }
        }
    }

    fn join(&mut self, line_start: usize, first: &str, comments: Vec<Word>) -> Logical {
        let mut line = Joined::new();
        let mut empty_continuations = Vec::new();
        let mut last_start = line_start;
        let trimmed = first.trim_start();
        let mut continued = continuation(trimmed, self.escape);
        line.push(
            continued.unwrap_or(trimmed),
            line_start + (first.len() - trimmed.len()),
        );
        while continued.is_some() {
            let Some((start, next)) = self.next_physical() else {
                break;
            };
            last_start = start;
            let trimmed = next.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                empty_continuations.push(Span::new(start, start + next.len()));
                continue;
            }
            continued = continuation(next, self.escape);
            line.push(continued.unwrap_or(next), start);
        }
        Logical {
            line,
            empty_continuations,
            comments,
            extent: Span::new(line_start, self.line_end),
            last_line: Span::new(last_start, self.line_end),
        }
    }

    /// Reads lines up to one that is `terminator` alone (behind tabs, with `chomp`). `None`, with everything read, if there is
    /// none. The body keeps its tabs and line ends.
    pub(super) fn next_body(&mut self, terminator: &str, chomp: bool) -> Option<(&'a str, Span)> {
        let body_start = self.at;
        loop {
            let line_start = self.at;
            let (_, line) = self.next_physical()?;
            let line = if chomp {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if line == terminator {
                let end = self.text[..self.at].trim_end_matches(['\r', '\n']).len();
                return Some((
                    &self.text[body_start..line_start],
                    Span::new(body_start, end.max(line_start)),
                ));
            }
        }
    }

    /// Returns the next line without its end, and where it starts.
    fn next_physical(&mut self) -> Option<(usize, &'a str)> {
        if self.at >= self.text.len() {
            return None;
        }
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
        work::note(length);
        self.at += length;
        let line = rest[..length].trim_end_matches(['\r', '\n']);
        self.line_end = start + line.len();
        Some((start, line))
    }
}

pub(super) const BOM: char = '\u{feff}';

/// Returns `line` up to its continuation mark: an escape character that only blanks follow and that is not itself escaped.
fn continuation(line: &str, escape: char) -> Option<&str> {
    let kept = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!kept.ends_with(escape)).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Vec<String> {
        let mut lines = Lines::new(text, '\\', 0);
        std::iter::from_fn(|| lines.next_logical())
            .map(|logical| logical.line.text)
            .collect()
    }

    #[test]
    fn lines_are_joined_as_written() {
        for (text, expected) in [
            ("", vec![]),
            ("# only\n\n  # comments\n", vec![]),
            ("\u{feff}A b\r\nC d", vec!["A b", "C d"]),
            ("A \\\n  b", vec!["A   b"]),
            ("A \\  \t\n# gone\n  # gone too\nb\nC", vec!["A b", "C"]),
            ("A \\\n\n   \nb", vec!["A b"]),
            ("A \\", vec!["A "]),
            ("A \\\\\nB", vec!["A \\\\", "B"]),
            ("\\\nA", vec!["A"]),
            ("  \tA # text\n", vec!["A # text"]),
            // A comment cannot be continued.
            ("# c \\\nA", vec!["A"]),
        ] {
            assert_eq!(joined(text), expected, "{text:?}");
        }
    }

    #[test]
    fn comments_right_above_belong_to_an_instruction() {
        for (text, expected) in [
            ("# a\n#b\nX", vec!["a", "b"]),
            ("# a\n\n  #  b c \r\nX", vec!["b c"]),
            ("# a\n#\nX", vec![]),
            ("# a\nX \\\n# inside\ny", vec!["a"]),
            ("#\u{e9}\u{a0}\nX", vec!["\u{e9}"]),
        ] {
            let logical = Lines::new(text, '\\', 0).next_logical().unwrap();
            let found: Vec<&str> = logical
                .comments
                .iter()
                .map(|comment| &text[comment.span.start..comment.span.end])
                .collect();
            assert_eq!(found, expected, "{text:?}");
        }
        let logical = Lines::new("# escape=`\n# a\nX", '`', 11).next_logical();
        assert_eq!(logical.unwrap().comments.len(), 1);
    }

    #[test]
    fn extents_hold_whatever_a_continuation_runs_into() {
        for (text, extent, last) in [
            ("\n A b\nC", " A b", " A b"),
            ("A \\\n# c\n\nb\r\nC", "A \\\n# c\n\nb", "b"),
            ("A \\\n\n  # c", "A \\\n\n  # c", "  # c"),
            ("\\\n\n", "\\\n", ""),
        ] {
            let logical = Lines::new(text, '\\', 0).next_logical().unwrap();
            let cut = |span: Span| &text[span.start..span.end];
            assert_eq!(
                (cut(logical.extent), cut(logical.last_line)),
                (extent, last),
                "{text:?}"
            );
        }
    }

    #[test]
    fn parts_know_their_place() {
        let text = "\u{feff}  A \\\n# x\n bc\n";
        let mut lines = Lines::new(text, '\\', 0);
        let logical = lines.next_logical().unwrap();
        let part = logical.line.part();
        assert_eq!(part.as_str(), "A  bc");
        for (range, expected) in [
            (0..1, "A"),
            (3..5, "bc"),
            (3..4, "b"),
            (0..5, "A \\\n# x\n bc"),
        ] {
            let span = part.slice(range).span();
            assert_eq!(&text[span.start..span.end], expected);
        }
        assert_eq!(
            part.after(5).span(),
            Span::new(text.len() - 1, text.len() - 1)
        );
    }
}
