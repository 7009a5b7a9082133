//! Variable expansion of words.
//!
//! In: a word as written, the escape character, and a lookup. Out: the text with quotes and escapes removed and variables
//! replaced, and the names that the lookup did not know. Knows no stages and no arguments: what a name means is the
//! caller's. The forms are `$name`, `${name}`, `${name-w}` `${name+w}` `${name?w}` (also with `:`), `${name#p}` `${name##p}`
//! `${name%p}` `${name%%p}`, `${name/p/r}` `${name//p/r}`.
//!
//! The word of an operator is expanded whether it is used or not, so a name in it counts as undefined and an error in it as
//! an error all the same.

use std::collections::HashSet;
use std::ops::Range;

use super::replace::{self, Length};
use super::work;

/// An expanded word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    /// Names that have no value, each once, in order of appearance.
    pub undefined: Vec<String>,
}

/// A word that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpandError {
    /// The byte in the word where the trouble starts.
    pub offset: usize,
    pub message: String,
}

/// Returns the value of a variable, or `None` if it is not set.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands a word.
pub fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
    if !word.contains(['$', '\'', '"', escape]) {
        return Ok(Expanded {
            text: word.to_owned(),
            undefined: Vec::new(),
        });
    }
    let mut expander = Expander::new(word, escape, Some(lookup));
    let text = expander.until(None, Escapes::Remove, None)?;
    Ok(Expanded {
        text,
        undefined: expander.undefined,
    })
}

/// Expands a word and splits the result at white space that is neither quoted nor escaped; values of variables are split too.
/// Returns the words, and the names that have no value.
pub fn expand_words(
    word: &str,
    escape: char,
    lookup: Lookup<'_>,
) -> Result<(Vec<String>, Vec<String>), ExpandError> {
    let mut expander = Expander::new(word, escape, Some(lookup));
    let mut words = Words::default();
    expander.until(None, Escapes::Remove, Some(&mut words))?;
    let words = words.finish().into_iter().map(|(word, _)| word).collect();
    Ok((words, expander.undefined))
}

/// Expands the body of a COPY or ADD heredoc: quotes are ordinary characters, the escape is always a backslash, and one before
/// any character is removed.
pub fn expand_heredoc(body: &str, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
    if !body.contains(['$', '\\']) {
        return Ok(Expanded {
            text: body.to_owned(),
            undefined: Vec::new(),
        });
    }
    let mut expander = Expander::new(body, '\\', Some(lookup));
    expander.quotes = Quotes::Ordinary;
    let text = expander.until(None, Escapes::Remove, None)?;
    Ok(Expanded {
        text,
        undefined: expander.undefined,
    })
}

/// Splits a line into words as a shell would, and returns where each stands. Variables are left alone and belong to one word; a
/// `<<` takes the white space behind it along.
pub(super) fn word_ranges(line: &str) -> Result<Vec<Range<usize>>, ExpandError> {
    Ok(lex(line)?.into_iter().map(|(_, range)| range).collect())
}

/// Removes the quotes and escapes of one word; variables are left alone. `None` if it is not exactly one word.
pub(super) fn unquote(word: &str) -> Result<Option<String>, ExpandError> {
    let mut words = lex(word)?.into_iter();
    match (words.next(), words.next()) {
        (Some((word, _)), None) => Ok(Some(word)),
        _ => Ok(None),
    }
}

fn lex(text: &str) -> Result<Vec<(String, Range<usize>)>, ExpandError> {
    let mut expander = Expander::new(text, '\\', None);
    let mut words = Words::default();
    expander.until(None, Escapes::Remove, Some(&mut words))?;
    Ok(words.finish())
}

/// Nesting beyond this is refused: the expander recurses.
const MAX_DEPTH: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Remove,
    Ordinary,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Remove,
    /// In patterns, which have their own use for backslashes.
    Keep,
}

struct Expander<'a> {
    text: &'a str,
    at: usize,
    escape: char,
    quotes: Quotes,
    /// Without one, variables stay as written.
    lookup: Option<Lookup<'a>>,
    undefined: Vec<String>,
    /// What is in `undefined`.
    told: HashSet<String>,
    depth: usize,
}

impl<'a> Expander<'a> {
    fn new(text: &'a str, escape: char, lookup: Option<Lookup<'a>>) -> Expander<'a> {
        Expander {
            text,
            at: 0,
            escape,
            quotes: Quotes::Remove,
            lookup,
            undefined: Vec::new(),
            told: HashSet::new(),
            depth: 0,
        }
    }

    /// Expands up to `stop`, which is taken too, or to the end.
    fn until(
        &mut self,
        stop: Option<char>,
        escapes: Escapes,
        mut words: Option<&mut Words>,
    ) -> Result<String, ExpandError> {
        let start = self.at;
        let mut result = String::new();
        while let Some(next) = self.peek() {
            if Some(next) == stop {
                self.next();
                return Ok(result);
            }
            let from = self.at;
            let (text, splits) = match next {
                '$' => (self.dollar()?, self.lookup.is_some()),
                '\'' if self.quotes == Quotes::Remove => (self.single_quoted()?, false),
                '"' if self.quotes == Quotes::Remove => (self.double_quoted(escapes)?, false),
                '<' if words.is_some() => (self.less_than(), false),
                _ if next == self.escape => {
                    let mut text = String::new();
                    self.next();
                    if escapes == Escapes::Keep {
                        text.push(next);
                    }
                    text.extend(self.next());
                    (text, false)
                }
                _ => {
                    self.next();
                    if words.is_none() {
                        let escape = self.escape;
                        self.skip_while(|next| {
                            !matches!(next, '$' | '\'' | '"')
                                && next != escape
                                && Some(next) != stop
                        });
                    }
                    (self.text[from..self.at].to_owned(), true)
                }
            };
            if let Some(words) = words.as_deref_mut() {
                words.add(&text, from..self.at, splits);
            }
            result.push_str(&text);
        }
        match stop {
            None => Ok(result),
            Some(stop) => Err(error(start, format!("missing `{stop}`"))),
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        match self.text[self.at..].split_once('\'') {
            Some((inside, _)) => {
                self.at += inside.len() + 1;
                Ok(inside.to_owned())
            }
            None => {
                self.at = self.text.len();
                Err(error(start, "the single quote is not closed"))
            }
        }
    }

    fn double_quoted(&mut self, escapes: Escapes) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        let mut result = String::new();
        while let Some(next) = self.peek() {
            match next {
                '"' => {
                    self.next();
                    return Ok(result);
                }
                '$' => {
                    let value = self.dollar()?;
                    result.push_str(&value);
                }
                _ if next == self.escape => {
                    self.next();
                    if escapes == Escapes::Keep {
                        result.push(next);
                    }
                    match self.peek() {
                        None => break,
                        Some(escaped)
                            if escaped == '"' || escaped == '$' || escaped == self.escape =>
                        {
                            self.next();
                            result.push(escaped);
                        }
                        Some(_) => result.push(next),
                    }
                }
                _ => {
                    self.next();
                    result.push(next);
                }
            }
        }
        Err(error(start, "the double quote is not closed"))
    }

    /// A heredoc mark keeps the blanks behind it, so that `<<  EOF` and `<<- EOF` are one word.
    fn less_than(&mut self) -> String {
        let start = self.at;
        self.next();
        if self.peek() == Some('<') {
            self.next();
            let rest = &self.text[self.at..];
            let dash = rest
                .strip_prefix('-')
                .filter(|behind| behind.starts_with(char::is_whitespace));
            self.at += rest.len() - dash.unwrap_or(rest).trim_start().len();
        }
        self.text[start..self.at].to_owned()
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(match name.as_str() {
                "" => "$".to_owned(),
                name => match self.lookup {
                    Some(_) => self.value(name).unwrap_or_default(),
                    None => self.text[start..self.at].to_owned(),
                },
            });
        }
        self.next();
        if self.depth == MAX_DEPTH {
            return Err(error(start, "`${` is nested too deeply"));
        }
        self.depth += 1;
        let value = self.braced(start)?;
        self.depth -= 1;
        Ok(match self.lookup {
            Some(_) => value,
            None => self.text[start..self.at].to_owned(),
        })
    }

    /// Expands what follows `${`.
    fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        let unclosed = || error(start, "`${` is not closed: missing `}`");
        let Some(first) = self.peek() else {
            return Err(unclosed());
        };
        let name = self.name();
        if name.is_empty() {
            return Err(match first {
                '}' | ':' | '{' => error(start, "bad substitution: no name after `${`"),
                other => error(
                    start,
                    format!("bad substitution: `{other}` cannot start a name"),
                ),
            });
        }
        let operator_at = self.at;
        match self.next() {
            None => Err(unclosed()),
            Some('}') => Ok(self.value(&name).unwrap_or_default()),
            Some(':') => match self.next() {
                None => Err(unclosed()),
                Some(operator @ ('-' | '+' | '?')) => {
                    self.conditional(start, &name, operator, true)
                }
                Some(other) => Err(error(
                    operator_at,
                    format!("unsupported operator `:{other}` in a substitution"),
                )),
            },
            Some(operator @ ('-' | '+' | '?')) => self.conditional(start, &name, operator, false),
            Some(operator @ ('#' | '%')) => self.trimmed(start, &name, operator),
            Some('/') => self.replaced(start, &name),
            Some(other) => Err(error(
                operator_at,
                format!("unsupported operator `{other}` in a substitution"),
            )),
        }
    }

    fn conditional(
        &mut self,
        start: usize,
        name: &str,
        operator: char,
        empty_is_unset: bool,
    ) -> Result<String, ExpandError> {
        let word = self.operand(start, '}', Escapes::Remove)?;
        let found = self.value(name);
        let is_unset = found.is_none();
        let value = found.filter(|value| !(empty_is_unset && value.is_empty()));
        match (operator, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            // Lexing without variables looks at the form alone.
            (_, None) if self.lookup.is_none() => Ok(String::new()),
            (_, None) if !word.is_empty() => Err(error(start, format!("{name}: {word}"))),
            (_, None) if is_unset => Err(error(start, format!("`{name}` must be set"))),
            (_, None) => Err(error(start, format!("`{name}` must not be empty"))),
        }
    }

    fn trimmed(&mut self, start: usize, name: &str, operator: char) -> Result<String, ExpandError> {
        let length = if self.peek() == Some(operator) {
            self.next();
            Length::Longest
        } else {
            Length::Shortest
        };
        let pattern = self.operand(start, '}', Escapes::Keep)?;
        let value = self.value(name).unwrap_or_default();
        let result = match operator {
            '#' => replace::trim_prefix(&value, &pattern, length),
            _ => replace::trim_suffix(&value, &pattern, length),
        };
        result.map_err(|reason| error(start, format!("invalid pattern `{pattern}`: {reason}")))
    }

    fn replaced(&mut self, start: usize, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.operand(start, '/', Escapes::Keep)?;
        let replacement = self.operand(start, '}', Escapes::Keep)?;
        let value = self.value(name).unwrap_or_default();
        replace::replace(&value, &pattern, &replacement, all)
            .map_err(|reason| error(start, format!("invalid pattern `{pattern}`: {reason}")))
    }

    fn operand(
        &mut self,
        start: usize,
        stop: char,
        escapes: Escapes,
    ) -> Result<String, ExpandError> {
        self.until(Some(stop), escapes, None).map_err(|failure| {
            // The end of the text was met; an unclosed quote or an inner failure says more.
            if failure.message == format!("missing `{stop}`") {
                error(start, format!("`${{` is not closed: missing `{stop}`"))
            } else {
                failure
            }
        })
    }

    /// Takes a name: letters, digits and `_`; a run of digits; or one special character. Empty if there is none.
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(digit) if digit.is_numeric() => self.skip_while(char::is_numeric),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.next();
            }
            _ => self.skip_while(|next| next.is_alphabetic() || next.is_numeric() || next == '_'),
        }
        self.text[start..self.at].to_owned()
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.lookup?(name);
        if value.is_none() && self.told.insert(name.to_owned()) {
            self.undefined.push(name.to_owned());
        }
        value
    }

    fn skip_while(&mut self, accept: impl Fn(char) -> bool) {
        let rest = &self.text[self.at..];
        let skipped = rest.find(|next| !accept(next)).unwrap_or(rest.len());
        work::note(skipped);
        self.at += skipped;
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        work::note(1);
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }
}

/// Collects words while text is expanded.
#[derive(Default)]
struct Words {
    words: Vec<(String, Range<usize>)>,
    word: String,
    range: Option<Range<usize>>,
}

impl Words {
    /// Adds text that stands at `range`; with `splits`, white space in it ends words.
    fn add(&mut self, text: &str, range: Range<usize>, splits: bool) {
        if !splits {
            return self.extend(text, range);
        }
        for character in text.chars() {
            if character.is_whitespace() {
                self.end_word();
            } else {
                self.extend(character.encode_utf8(&mut [0; 4]), range.clone());
            }
        }
    }

    fn extend(&mut self, text: &str, range: Range<usize>) {
        self.word.push_str(text);
        self.range = Some(match self.range.take() {
            Some(begun) => begun.start..range.end,
            None => range,
        });
    }

    fn end_word(&mut self) {
        let range = self.range.take();
        let word = std::mem::take(&mut self.word);
        // Quotes around nothing make no word.
        if let Some(range) = range
            && !word.is_empty()
        {
            self.words.push((word, range));
        }
    }

    fn finish(mut self) -> Vec<(String, Range<usize>)> {
        self.end_word();
        self.words
    }
}

fn error(offset: usize, message: impl Into<String>) -> ExpandError {
    ExpandError {
        offset,
        message: message.into(),
    }
}
