//! The `WWW-Authenticate` header: what a server wants to see before it answers (RFC 9110, section 11.6.1).
//!
//! One header may hold several challenges, a challenge several parameters, and both are separated by commas, which quoted values may
//! hold as well. Nothing is refused: what cannot be understood is skipped.

use std::collections::BTreeMap;

/// One challenge: `Bearer realm="…",service="…"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Lower case.
    pub(super) scheme: String,
    /// Names in lower case.
    pub(super) parameters: BTreeMap<String, String>,
}

/// Reads all challenges of one header value.
pub(super) fn parse(value: &str) -> Vec<Challenge> {
    let mut rest = Cursor { rest: value };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        let word = rest.take(is_token);
        if word.is_empty() {
            // A stray character, or the end.
            if rest.next().is_none() {
                return challenges;
            }
            continue;
        }
        let mut after = rest.clone();
        after.skip(|c| c.is_ascii_whitespace());
        // `name = value` belongs to the challenge before it; anything else begins one.
        if after.rest.starts_with('=')
            && !after.rest.starts_with("==")
            && let Some(challenge) = challenges.last_mut()
        {
            after.next();
            after.skip(|c| c.is_ascii_whitespace());
            let value = after.value();
            challenge
                .parameters
                .entry(word.to_ascii_lowercase())
                .or_insert(value);
            rest = after;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: BTreeMap::new(),
            });
            after.skip_token68();
            rest = after;
        }
    }
}

#[derive(Clone)]
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.take(unwanted);
    }

    /// Reads a quoted string or a bare word.
    fn value(&mut self) -> String {
        if !self.rest.starts_with('"') {
            return self
                .take(|c| c != ',' && !c.is_ascii_whitespace())
                .to_owned();
        }
        self.next();
        let mut value = String::new();
        while let Some(character) = self.next() {
            match character {
                '"' => break,
                '\\' => value.extend(self.next()),
                character => value.push(character),
            }
        }
        value
    }

    /// Skips the other form of credentials (`Negotiate YII…=`), which ends at a comma.
    fn skip_token68(&mut self) {
        let mut after = self.clone();
        after.skip(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        let padded = after.rest.starts_with('=');
        after.skip(|c| c == '=');
        let ends = after.rest.is_empty() || after.rest.starts_with(',');
        if ends && (padded || after.rest.len() < self.rest.len()) {
            *self = after;
        }
    }
}

fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: &[(&str, &[(&str, &str)])]) {
        let expected: Vec<Challenge> = expected
            .iter()
            .map(|(scheme, parameters)| Challenge {
                scheme: (*scheme).to_owned(),
                parameters: parameters
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            })
            .collect();
        assert_eq!(parse(value), expected, "{value}");
    }

    #[test]
    fn challenges_are_told_apart() {
        check("", &[]);
        check("Basic", &[("basic", &[])]);
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            &[(
                "bearer",
                &[
                    ("realm", "https://auth.docker.io/token"),
                    ("service", "registry.docker.io"),
                    ("scope", "repository:a/b:pull,push"),
                ],
            )],
        );
        check(
            r#"Basic realm="a, b=c \"d\"" , Bearer realm = "x" , service=y"#,
            &[
                ("basic", &[("realm", r#"a, b=c "d""#)]),
                ("bearer", &[("realm", "x"), ("service", "y")]),
            ],
        );
        check(
            r#"Negotiate, Negotiate YII=, NTLM abc, basic Realm="z""#,
            &[
                ("negotiate", &[]),
                ("negotiate", &[]),
                ("ntlm", &[]),
                ("basic", &[("realm", "z")]),
            ],
        );
    }

    #[test]
    fn odd_headers_do_not_loop_or_panic() {
        check(r#"Bearer realm="open"#, &[("bearer", &[("realm", "open")])]);
        check(
            r#"Bearer realm="open\"#,
            &[("bearer", &[("realm", "open")])],
        );
        // The other form of credentials, by the grammar.
        check("Bearer realm=", &[("bearer", &[])]);
        check(r#"Bearer realm="""#, &[("bearer", &[("realm", "")])]);
        check(r#"=,"",é, Basic"#, &[("basic", &[])]);
        check(
            r#"Bearer realm="a",realm="b""#,
            &[("bearer", &[("realm", "a")])],
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in ".{0,200}") {
            parse(&text);
        }
    }
}
