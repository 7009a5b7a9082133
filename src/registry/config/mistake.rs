//! What is wrong with a file of settings, with its place; and the two readers that say so.
//!
//! Invariant: no value of the file appears in a reader's message, because some values are tokens.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A mistake in a file of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Mistake {
    pub(in crate::registry) path: PathBuf,
    pub(in crate::registry) line: Option<usize>,
    pub(in crate::registry) what: String,
    pub(in crate::registry) hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// The text of a file that is being read.
#[derive(Clone, Copy)]
pub(in crate::registry) struct Source<'a> {
    pub(in crate::registry) path: &'a Path,
    pub(in crate::registry) text: &'a str,
}

impl Source<'_> {
    /// Returns a mistake at some bytes of the text.
    pub(super) fn at(&self, span: Range<usize>, what: impl Into<String>) -> Mistake {
        self.mistake(Some(self.line(span.start)), what.into())
    }

    /// Returns a mistake on the first line that has `value` in it.
    pub(super) fn near(&self, value: &str, what: impl Into<String>) -> Mistake {
        let line = self
            .text
            .lines()
            .position(|line| line.contains(value))
            .map(|index| index + 1);
        self.mistake(line, what.into())
    }

    fn mistake(&self, line: Option<usize>, what: String) -> Mistake {
        Mistake {
            path: self.path.to_owned(),
            line,
            what,
            hint: "correct the file: it decides where images come from, so it is not passed over"
                .to_owned(),
        }
    }

    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    pub(super) fn toml<T: DeserializeOwned>(&self) -> Result<T, Mistake> {
        toml::from_str(self.text).map_err(|error| {
            let line = error.span().map(|span| self.line(span.start));
            self.mistake(line, without_values(error.message()))
        })
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Mistake> {
        serde_json::from_str(self.text).map_err(|error| {
            let text = error.to_string();
            let what = text
                .rsplit_once(" at line ")
                .map_or(text.as_str(), |(what, _)| what);
            self.mistake(Some(error.line()), without_values(what))
        })
    }
}

/// Takes the quoted value out of `invalid type: string "VALUE", expected a boolean`.
fn without_values(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}***{}", &message[..first], &message[last + 1..])
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only the failure to read it is looked at")]
    struct File {
        header: bool,
    }

    #[test]
    fn messages_have_the_line_and_no_value() {
        let path = Path::new("/etc/x");
        for (toml, line) in [
            ("a = 1\n\nheader = \"Bearer hunter2\"\n", 3),
            ("header = [\n", 1),
            ("\nheader = hunter2\n", 2),
        ] {
            let text = toml;
            let mistake = Source { path, text }.toml::<File>().unwrap_err();
            assert_eq!(mistake.line, Some(line), "{mistake}");
            assert!(!mistake.to_string().contains("hunter2"), "{mistake}");
        }
        for (json, line) in [("{\n\"header\": \"hunter2\"}", 2), ("{\n\n", 3)] {
            let text = json;
            let mistake = Source { path, text }.json::<File>().unwrap_err();
            assert_eq!(mistake.line, Some(line), "{mistake}");
            assert!(!mistake.to_string().contains("hunter2"), "{mistake}");
        }
        let text = "{\"header\": 1";
        let mistake = Source { path, text }.json::<File>().unwrap_err();
        assert_eq!(
            mistake.to_string(),
            "`/etc/x`, line 1: invalid type: integer `1`, expected a boolean"
        );
    }
}
