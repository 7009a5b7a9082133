//! The JSON (exec) form of arguments: an array of strings.
//!
//! In: the text of an instruction's arguments. Out: the strings with their places, or the reason why it is not that form. A
//! lone half of a surrogate pair becomes U+FFFD, as Go's decoder has it, which is why the strings are decoded here.

use std::ops::Range;

use super::work;

/// What a text is, seen as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// Decoded strings and where each stands, quotes included.
    Strings(Vec<(String, Range<usize>)>),
    /// A valid array that holds something else.
    OtherArray,
    /// Not a JSON array: the plain form.
    No,
}

/// Reads a whole text; white space around the array is allowed.
pub(super) fn read(text: &str) -> Json {
    let start = text.len() - text.trim_start().len();
    if !text[start..].starts_with('[') {
        return Json::No;
    }
    let mut reader = Reader {
        text,
        at: start + 1,
    };
    match reader.strings() {
        Some(strings) => Json::Strings(strings),
        None if is_array(&text[start..]) => Json::OtherArray,
        None => Json::No,
    }
}

fn is_array(text: &str) -> bool {
    work::note(text.len());
    serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text).is_ok()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn strings(&mut self) -> Option<Vec<(String, Range<usize>)>> {
        let mut strings = Vec::new();
        self.skip_blanks();
        if self.eat(']') {
            return self.is_at_end().then_some(strings);
        }
        loop {
            self.skip_blanks();
            let start = self.at;
            let string = self.string()?;
            strings.push((string, start..self.at));
            self.skip_blanks();
            match self.next()? {
                ',' => {}
                ']' => return self.is_at_end().then_some(strings),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        if !self.eat('"') {
            return None;
        }
        let mut string = String::new();
        loop {
            match self.next()? {
                '"' => return Some(string),
                '\\' => self.escaped(&mut string)?,
                control if control < ' ' => return None,
                other => string.push(other),
            }
        }
    }

    fn escaped(&mut self, string: &mut String) -> Option<()> {
        let plain = match self.next()? {
            same @ ('"' | '\\' | '/') => same,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex()?;
                char::from_u32(first)
                    .or_else(|| self.low_surrogate(first))
                    .unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return None,
        };
        string.push(plain);
        Some(())
    }

    /// Completes a pair, or leaves the reader where it is.
    fn low_surrogate(&mut self, high: u32) -> Option<char> {
        let back = self.at;
        if (0xd800..0xdc00).contains(&high)
            && self.eat('\\')
            && self.eat('u')
            && let Some(low @ 0xdc00..0xe000) = self.hex()
        {
            return char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
        }
        self.at = back;
        None
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn next(&mut self) -> Option<char> {
        work::note(1);
        let next = self.text[self.at..].chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_blanks();
        self.at == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[&str]>) {
        let found = match read(text) {
            Json::Strings(strings) => Some(
                strings
                    .into_iter()
                    .map(|(string, _)| string)
                    .collect::<Vec<_>>(),
            ),
            Json::OtherArray => None,
            Json::No => Some(vec!["plain".to_owned()]),
        };
        let expected = expected.map(|list| {
            list.iter()
                .map(|string| (*string).to_owned())
                .collect::<Vec<_>>()
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn only_arrays_of_strings_are_the_json_form() {
        check("[]", Some(&[]));
        check(" [ ] ", Some(&[]));
        check(r#"["a", "b c"]"#, Some(&["a", "b c"]));
        check(r#"["\u00e9\t\"\\\/"]"#, Some(&["é\t\"\\/"]));
        check(
            r#"["\ud83d\ude00 \ud83d \udc00x"]"#,
            Some(&["😀 \u{fffd} \u{fffd}x"]),
        );
        check(r#"["a", 1]"#, None);
        check(r#"["a", ["b"]]"#, None);
        check("[null]", None);
        for plain in [
            "['a','b']",
            r#"["a","b""#,
            r#"["a",]"#,
            r#"["a"] x"#,
            r#"["a" "b"]"#,
            r#"["\x"]"#,
            r#"["\u12"]"#,
            r#"["\u+123"]"#,
            "[ -f x ]",
            "[",
            "",
            "a",
            "[\"\u{1}\"]",
        ] {
            check(plain, Some(&["plain"]));
        }
    }

    #[test]
    fn strings_have_places() {
        let Json::Strings(strings) = read(r#" ["a", "bc"]"#) else {
            panic!("is an array of strings");
        };
        assert_eq!(strings[1].1, 7..11);
    }
}
