//! Values of the form `key=value,key=value`, as `--output` and `--cache-to` have them.

use crate::pipeline::Failure;
use crate::vocab::{Compression, without_passwords};

use super::usage;

/// Fields whose values no message shows.
const SECRETS: [&str; 4] = ["secret_access_key", "session_token", "token", "ghtoken"];

/// The fields of one value, taken one by one so that what is left over is an error.
pub(super) struct Fields<'a> {
    flag: &'a str,
    /// The value as messages show it.
    text: String,
    fields: Vec<(String, String)>,
}

impl<'a> Fields<'a> {
    /// Takes what a value without fields says as fields.
    pub(super) fn of(flag: &'a str, text: &str, fields: &[(&str, &str)]) -> Fields<'a> {
        let fields = fields.iter();
        Fields {
            flag,
            text: text.to_owned(),
            fields: fields
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// Splits at commas; a field in double quotes may hold some.
    pub(super) fn parse(flag: &'a str, text: &str) -> Result<Fields<'a>, Failure> {
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
                "`{flag} {}` has a quote that does not end",
                without_secrets(text)
            )));
        }
        let pairs = fields.into_iter().map(|field| {
            let pair = field
                .split_once('=')
                .map(|(key, value)| (key.trim().to_lowercase(), value.to_owned()));
            pair.ok_or_else(|| {
                // It may be the rest of a secret that a comma has cut.
                let (text, field) = match without_secrets(text) {
                    shown if shown == text => (shown, field),
                    shown => (shown, "a field".to_owned()),
                };
                usage(format!("`{flag} {text}`: `{field}` is not key=value"))
            })
        });
        let fields: Vec<(String, String)> = pairs.collect::<Result<_, _>>()?;
        let has_secret = fields.iter().any(|(name, _)| is_secret(name));
        let text = match has_secret {
            true => shown(&fields),
            false => without_passwords(text),
        };
        Ok(Fields { flag, text, fields })
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
            Some(field) => Err(usage(format!(
                "`{} {}`: `{}` is not supported for this type",
                self.flag,
                self.text,
                shown(std::slice::from_ref(field))
            ))),
        }
    }
}

fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name)
}

fn shown(fields: &[(String, String)]) -> String {
    let fields = fields.iter().map(|(name, value)| match is_secret(name) {
        true => format!("{name}=***"),
        false => format!("{name}={value}"),
    });
    without_passwords(&fields.collect::<Vec<_>>().join(","))
}

/// Cuts a text that cannot be split into fields where its first secret begins.
fn without_secrets(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let begins = SECRETS.iter().filter_map(|name| lower.find(name));
    match begins.min() {
        Some(at) => format!("{}***", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_a_secret() {
        let check = |text: &str, expected: &str| {
            let failure = match Fields::parse("--x", text) {
                Err(failure) => failure,
                Ok(mut fields) => match fields.take("taken") {
                    Some(_) => fields.refuse("no"),
                    None => fields.done().unwrap_err(),
                },
            };
            assert_eq!(failure.diagnostics[0].message, expected, "{text}");
            assert!(!format!("{failure:?}").contains("hunter2"));
        };
        let plain = "`--x a=b`: `a=b` is not supported for this type";
        check("a=b", plain);
        let left = "`--x token=***,a=b`: `token=***` is not supported for this type";
        check("token=hunter2,a=b", left);
        check(
            "taken=1,Secret_Access_Key=\"hunter2,hunter2\"",
            "`--x taken=1,secret_access_key=***`: no",
        );
        check(
            "a=b,session_token=hunter2,hunter2",
            "`--x a=b,***`: `a field` is not key=value",
        );
        check(
            "a=b,\"ghtoken=hunter2",
            "`--x a=b,\"***` has a quote that does not end",
        );
        check("a", "`--x a`: `a` is not key=value");
    }
}
