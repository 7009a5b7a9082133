//! Values of the form `key=value,key=value`, as `--output` and `--cache-to` have them.

use crate::pipeline::Failure;
use crate::vocab::Compression;

use super::usage;

/// The fields of one value, taken one by one so that what is left over is an error.
pub(super) struct Fields<'a> {
    flag: &'a str,
    text: &'a str,
    fields: Vec<(String, String)>,
}

impl<'a> Fields<'a> {
    /// Splits at commas; a field in double quotes may hold some.
    pub(super) fn parse(flag: &'a str, text: &'a str) -> Result<Fields<'a>, Failure> {
        let mut fields: Vec<String> = vec![String::new()];
        let mut quoted = false;
        let mut characters = text.chars().peekable();
        while let Some(c) = characters.next() {
            let field = fields.last_mut().expect("there is always one");
            match c {
                '"' if quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    field.push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                other => field.push(other),
            }
        }
        if quoted {
            return Err(usage(format!(
                "`{flag} {text}` has a quote that does not end"
            )));
        }
        let pairs = fields.into_iter().map(|field| {
            let pair = field
                .split_once('=')
                .map(|(key, value)| (key.trim().to_lowercase(), value.to_owned()));
            pair.ok_or_else(|| usage(format!("`{flag} {text}`: `{field}` is not key=value")))
        });
        Ok(Fields {
            flag,
            text,
            fields: pairs.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn kind(&mut self) -> Result<String, Failure> {
        self.take("type")
            .ok_or_else(|| usage(format!("`{} {}` has no type=…", self.flag, self.text)))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.remove(at).1)
    }

    /// Takes a field that must be there and hold something.
    pub(super) fn need(&mut self, name: &str) -> Result<String, Failure> {
        let found = self.take(name).filter(|value| !value.is_empty());
        found.ok_or_else(|| self.refuse(&format!("{name}=… is missing")))
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> Result<bool, Failure> {
        match self.take(name).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(self.refuse(&format!("{name}={other} is neither true nor false"))),
        }
    }

    pub(super) fn compression(&mut self) -> Result<Compression, Failure> {
        let level = self.take("compression-level");
        let kind = self.take("compression");
        let number = |low: i32, high: i32, default: i32| match &level {
            None => Ok(default),
            Some(text) => text
                .parse::<i32>()
                .ok()
                .filter(|level| (low..=high).contains(level))
                .ok_or_else(|| {
                    self.refuse(&format!("compression-level must be from {low} to {high}"))
                }),
        };
        match kind.as_deref() {
            None | Some("gzip") => Ok(Compression::Gzip {
                level: number(1, 9, 6)? as u32,
            }),
            Some("zstd") => Ok(Compression::Zstd {
                level: number(1, 22, 3)?,
            }),
            Some("uncompressed") => Ok(Compression::Uncompressed),
            Some(other) => {
                let mut failure = self.refuse(&format!("compression `{other}` is not supported"));
                failure.diagnostics[0]
                    .hints
                    .push("gzip, zstd and uncompressed are".to_owned());
                Err(failure)
            }
        }
    }

    pub(super) fn refuse(&self, why: &str) -> Failure {
        usage(format!("`{} {}`: {why}", self.flag, self.text))
    }

    /// Refuses with something that helps.
    pub(super) fn refuse_with(&self, why: &str, hint: &str) -> Failure {
        let mut failure = self.refuse(why);
        failure.diagnostics[0].hints.push(hint.to_owned());
        failure
    }

    pub(super) fn done(self) -> Result<(), Failure> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, value)) => Err(usage(format!(
                "`{} {}`: `{name}={value}` is not supported for this type",
                self.flag, self.text
            ))),
        }
    }
}
