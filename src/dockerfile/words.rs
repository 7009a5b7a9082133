//! Cutting an instruction's line into keyword, flags, arguments and words.
//!
//! In: parts of a joined line. Out: smaller parts, all with their places. Which flags exist and what words mean is decided
//! elsewhere.

use std::ops::Range;

use super::lines::Part;
use super::work;

/// An instruction's line, cut at the top level.
#[derive(Clone, Debug)]
pub(super) struct Header<'a> {
    /// The line, without white space in front but as it ends.
    line: Part<'a>,
    pub(super) keyword: Part<'a>,
    pub(super) flags: Vec<FlagWord<'a>>,
    /// Everything behind the flags, trimmed.
    pub(super) arguments: Part<'a>,
}

/// A word that starts with `--`.
#[derive(Clone, Debug)]
pub(super) struct FlagWord<'a> {
    pub(super) part: Part<'a>,
    /// Without `--`; quotes and backslashes removed.
    pub(super) name: String,
    /// What follows the first `=`, likewise, and where it stands.
    pub(super) value: Option<(String, Part<'a>)>,
}

impl<'a> Header<'a> {
    pub(super) fn new(line: Part<'a>) -> Header<'a> {
        let text = line.as_str();
        let line = line.after(text.len() - text.trim_start().len());
        let trimmed = line.trim();
        let text = trimmed.as_str();
        let keyword_end = text.find(is_blank).unwrap_or(text.len());
        let (flags, arguments) = flag_words(trimmed.after(keyword_end));
        Header {
            line,
            keyword: trimmed.slice(0..keyword_end),
            flags,
            arguments: arguments.trim(),
        }
    }

    /// Returns everything behind the keyword, blanks at the end included.
    pub(super) fn after_keyword(&self) -> &'a str {
        let keyword = self.keyword.as_str();
        self.line.as_str()[keyword.len()..].trim_start()
    }

    /// Returns the whole line, trimmed.
    pub(super) fn line(&self) -> Part<'a> {
        self.line.trim()
    }
}

/// Tells whether a character separates words of the plain forms.
pub(super) fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Takes the leading words that start with `--`. A lone `--` ends them and is dropped.
fn flag_words(rest: Part<'_>) -> (Vec<FlagWord<'_>>, Part<'_>) {
    let mut flags = Vec::new();
    let mut rest = rest;
    loop {
        let text = rest.as_str();
        let start = text.len() - text.trim_start().len();
        if !text[start..].starts_with("--") {
            return (flags, rest);
        }
        let word = rest.after(start);
        let (flag, length) = flag_word(word);
        rest = word.after(length);
        if flag.name.is_empty() && flag.value.is_none() {
            return (flags, rest);
        }
        flags.push(flag);
    }
}

/// Takes one flag, up to a blank that is neither quoted nor escaped. Returns how many bytes it is long.
fn flag_word(text: Part<'_>) -> (FlagWord<'_>, usize) {
    let mut plain = String::new();
    // Where `=` stands: in `plain`, and in the text.
    let mut equals = None;
    let mut quote = None;
    let mut end = text.as_str().len();
    let mut characters = text.as_str().char_indices();
    while let Some((at, character)) = characters.next() {
        work::note(1);
        match (quote, character) {
            (None, blank) if blank.is_whitespace() => {
                end = at;
                break;
            }
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (_, '\\') => plain.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => {
                if character == '=' && equals.is_none() {
                    equals = Some((plain.len(), at));
                }
                plain.push(character);
            }
        }
    }
    let value =
        equals.map(|(plain_at, at)| (plain[plain_at + 1..].to_owned(), text.slice(at + 1..end)));
    let name_end = equals.map_or(plain.len(), |(plain_at, _)| plain_at);
    let flag = FlagWord {
        part: text.slice(0..end),
        name: plain.get(2..name_end).unwrap_or_default().to_owned(),
        value,
    };
    (flag, end)
}

/// Splits at blanks. The ranges in `atoms` (of the joined line, ascending) stay whole.
pub(super) fn split_blanks<'a>(part: Part<'a>, atoms: &[Range<usize>]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let text = part.as_str();
    work::note(text.len());
    let base = part.range().start;
    let mut start = None;
    let mut skip_to = 0;
    for (at, character) in text.char_indices() {
        if at < skip_to {
            continue;
        }
        if is_blank(character) {
            if let Some(start) = start.take() {
                parts.push(part.slice(start..at));
            }
            continue;
        }
        start.get_or_insert(at);
        if let Ok(atom) = atoms.binary_search_by_key(&(base + at), |atom| atom.start) {
            skip_to = (atoms[atom].end - base).min(text.len());
        }
    }
    if let Some(start) = start {
        parts.push(part.slice(start..text.len()));
    }
    parts
}

/// Splits the words of ENV, LABEL and ARG at white space that is neither quoted nor escaped. Quotes and escapes stay, but for
/// an escape character at the very end.
pub(super) fn split_quoted(part: Part<'_>, escape: char) -> Vec<Part<'_>> {
    let text = part.as_str();
    work::note(text.len());
    let mut parts = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut end = text.len();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if let Some(start) = start.take() {
                parts.push(part.slice(start..at));
            }
            continue;
        }
        start.get_or_insert(at);
        match quote {
            Some(open) if open == character => quote = None,
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some('\'') => {}
            _ if character == escape => {
                let escaped = characters.next();
                if escaped.is_none() {
                    end = at;
                }
            }
            _ => {}
        }
    }
    if let Some(start) = start
        && start < end
    {
        parts.push(part.slice(start..end));
    }
    parts
}

/// Splits a word at its first `=`.
pub(super) fn split_equals(part: Part<'_>) -> Option<(Part<'_>, Part<'_>)> {
    let at = part.as_str().find('=')?;
    Some((part.slice(0..at), part.after(at + 1)))
}

/// Splits `key value with blanks` at the first blanks. `None` where there are none.
pub(super) fn split_legacy(part: Part<'_>) -> Option<(Part<'_>, Part<'_>)> {
    let text = part.as_str();
    let key_end = text.find(is_blank)?;
    let value_start = text.len() - text[key_end..].trim_start_matches(is_blank).len();
    Some((part.slice(0..key_end), part.after(value_start)))
}
