//! Words become flags and words, as the flag library of Go programs has it: `--flag value`, `--flag=value`, `-f value`, `-fvalue`,
//! `-f=value`, `-abc`, `--switch=false`, and `--` before what is no flag.
//!
//! What is not in the tool's table is refused here, with the flag that may have been meant.

use std::ffi::OsString;

use crate::pipeline::Failure;
use crate::vocab::nearest;

use super::super::usage;
use super::flag::{Flag, Takes, Tool};

/// What was typed, or came from a variable.
pub(super) struct Given {
    pub(super) flag: &'static Flag,
    /// As messages name it: `--flag`, or the variable.
    pub(super) place: String,
    pub(super) value: String,
}

/// A command line, read.
#[derive(Default)]
pub(super) struct Typed {
    pub(super) given: Vec<Given>,
    pub(super) words: Vec<String>,
    /// Help was asked for.
    pub(super) help: bool,
}

/// Where flags may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anywhere.
    All,
    /// Before the first word that is none; that word and all after it are left as they are.
    Front,
}

impl Typed {
    /// Returns every value of a flag, in order.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let given = self.given.iter().filter(|given| given.flag.name == name);
        given.map(|given| given.value.as_str()).collect()
    }

    /// Returns the value that counts.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.all(name).pop()
    }

    /// Tells whether a switch was turned on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.last(name) == Some("true")
    }

    /// Takes variables for the flags that were not typed.
    pub(super) fn take_variables(
        &mut self,
        tool: &'static Tool,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Failure> {
        let Some(prefix) = tool.variables else {
            return Ok(());
        };
        for flag in tool.flags {
            if self.given.iter().any(|given| given.flag.name == flag.name) {
                continue;
            }
            let name = flag.name.replace('-', "_").to_uppercase();
            let name = match name.starts_with(prefix) {
                true => name,
                false => format!("{prefix}{name}"),
            };
            if let Some(value) = variable(&name).filter(|value| !value.is_empty()) {
                self.give(flag, name, &value)?;
            }
        }
        Ok(())
    }

    fn give(&mut self, flag: &'static Flag, place: String, value: &str) -> Result<(), Failure> {
        if flag.is_switch() {
            let is_on = boolean(value)
                .ok_or_else(|| usage(format!("`{place}={value}` is neither true nor false")))?;
            self.given.push(Given {
                flag,
                place,
                value: is_on.to_string(),
            });
            return Ok(());
        }
        let values: Vec<&str> = match flag.takes {
            Takes::List(_) => value.split(',').collect(),
            _ => vec![value],
        };
        for value in values {
            self.given.push(Given {
                flag,
                place: place.clone(),
                value: value.to_owned(),
            });
        }
        Ok(())
    }
}

/// Reads the words after the tool's name.
pub(super) fn parse(
    tool: &'static Tool,
    words: &[OsString],
    reach: Reach,
) -> Result<Typed, Failure> {
    let words: Vec<&str> = words
        .iter()
        .map(|word| {
            word.to_str()
                .ok_or_else(|| usage(format!("`{}` is not UTF-8", word.to_string_lossy())))
        })
        .collect::<Result<_, _>>()?;
    let mut typed = Typed::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" && reach == Reach::All {
            typed.words.extend(words.map(str::to_owned));
            break;
        }
        if let Some(rest) = word.strip_prefix("--") {
            long(tool, rest, &mut typed, &mut words)?;
        } else if let Some(rest) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            short(tool, rest, &mut typed, &mut words)?;
        } else {
            typed.words.push(word.to_owned());
            if reach == Reach::Front {
                typed.words.extend(words.map(str::to_owned));
                break;
            }
        }
    }
    Ok(typed)
}

fn long<'a>(
    tool: &'static Tool,
    rest: &str,
    typed: &mut Typed,
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    let (name, value) = match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    };
    let found = tool
        .flags
        .iter()
        .find(|flag| flag.name == name || flag.aliases.contains(&name));
    let Some(flag) = found else {
        if name == "help" {
            typed.help = true;
            return Ok(());
        }
        return Err(unknown(tool, &format!("--{name}")));
    };
    let place = format!("--{name}");
    match (value, flag.takes) {
        (Some(value), _) => typed.give(flag, place, value),
        (None, Takes::Switch | Takes::SwitchOn) => typed.give(flag, place, "true"),
        (None, Takes::Optional(_, implied)) => typed.give(flag, place, implied),
        (None, Takes::Value(_) | Takes::List(_)) => {
            let value = words.next().ok_or_else(|| no_value(tool, &place))?;
            typed.give(flag, place, value)
        }
    }
}

fn short<'a>(
    tool: &'static Tool,
    letters: &str,
    typed: &mut Typed,
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    let mut rest = letters;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        let Some(flag) = tool.flags.iter().find(|flag| flag.short == Some(letter)) else {
            if letter == 'h' {
                typed.help = true;
                continue;
            }
            return Err(unknown(tool, &format!("-{letter}")));
        };
        let place = format!("-{letter}");
        if let Some(value) = rest.strip_prefix('=') {
            return typed.give(flag, place, value);
        }
        match flag.takes {
            Takes::Switch | Takes::SwitchOn => typed.give(flag, place, "true")?,
            Takes::Optional(_, implied) => typed.give(flag, place, implied)?,
            Takes::Value(_) | Takes::List(_) if !rest.is_empty() => {
                return typed.give(flag, place, rest);
            }
            Takes::Value(_) | Takes::List(_) => {
                let value = words.next().ok_or_else(|| no_value(tool, &place))?;
                return typed.give(flag, place, value);
            }
        }
    }
    Ok(())
}

/// Reads a truth value as Go does.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn no_value(tool: &Tool, place: &str) -> Failure {
    usage(format!("`{} {place}` needs a value", tool.name))
}

fn unknown(tool: &Tool, place: &str) -> Failure {
    let mut failure = usage(format!("`{}` has no flag `{place}`", tool.name));
    let names = tool.flags.iter().map(|flag| flag.name);
    let near = nearest(place.trim_start_matches('-'), names);
    let hint = match near.filter(|_| place.starts_with("--")) {
        Some(name) => format!("did you mean `--{name}`?"),
        None => format!("`{} --help` lists those that are known", tool.name),
    };
    failure.diagnostics[0].hints.push(hint);
    failure
}

#[cfg(test)]
mod tests {
    use super::super::flag::{Does, flag};
    use super::*;

    static TOOL: Tool = Tool {
        name: "tool",
        title: "",
        variables: Some("TOOL_"),
        flags: &[
            flag("file", Takes::Value("F"), Does::As("file")).short('f'),
            flag("quiet", Takes::Switch, Does::As("quiet")).short('q'),
            flag("all", Takes::SwitchOn, Does::As("all"))
                .short('a')
                .aliases(&["everyThing"]),
            flag("list", Takes::List("L"), Does::As("list")),
            flag("pull", Takes::Optional("P", "always"), Does::As("pull")),
        ],
    };

    fn shown(typed: Result<Typed, Failure>) -> String {
        match typed {
            Err(failure) => {
                let first = &failure.diagnostics[0];
                format!("error: {} ({})", first.message, first.hints.join(" "))
            }
            Ok(typed) => {
                let given = typed.given.iter();
                let given = given.map(|given| format!("{}={}", given.flag.name, given.value));
                let mut all: Vec<String> = given.collect();
                all.extend(typed.words.iter().map(|word| format!("[{word}]")));
                if typed.help {
                    all.push("help".to_owned());
                }
                all.join(" ")
            }
        }
    }

    fn read(text: &str, reach: Reach) -> String {
        let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        shown(parse(&TOOL, &words, reach))
    }

    #[test]
    fn flags_are_written_as_in_go() {
        for (text, expected) in [
            ("--file x", "file=x"),
            ("--file=x=y", "file=x=y"),
            ("--file=", "file="),
            ("-f x y", "file=x [y]"),
            ("-fx", "file=x"),
            ("-f=x", "file=x"),
            ("-qfx", "quiet=true file=x"),
            ("-qa", "quiet=true all=true"),
            ("-q=false", "quiet=false"),
            ("--quiet=F --all=0", "quiet=false all=false"),
            ("--everyThing=1", "all=true"),
            ("--quiet false", "quiet=true [false]"),
            ("--list a,b --list c", "list=a list=b list=c"),
            ("--pull x", "pull=always [x]"),
            ("--pull=never", "pull=never"),
            ("x --quiet -- --file", "quiet=true [x] [--file]"),
            ("-", "[-]"),
            ("--file - .", "file=- [.]"),
            ("--help", "help"),
            ("-h", "help"),
            (
                "--fiel x",
                "error: `tool` has no flag `--fiel` (did you mean `--file`?)",
            ),
            (
                "-x",
                "error: `tool` has no flag `-x` (`tool --help` lists those that are known)",
            ),
            ("--file", "error: `tool --file` needs a value ()"),
            ("-f", "error: `tool -f` needs a value ()"),
            (
                "--quiet=maybe",
                "error: `--quiet=maybe` is neither true nor false ()",
            ),
        ] {
            assert_eq!(read(text, Reach::All), expected, "{text}");
        }
        assert_eq!(
            read("-q build -f x -- y", Reach::Front),
            "quiet=true [build] [-f] [x] [--] [y]"
        );
    }

    #[test]
    fn variables_stand_for_flags_that_were_not_typed() {
        let variable = |name: &str| match name {
            "TOOL_FILE" => Some("v".to_owned()),
            "TOOL_QUIET" => Some("true".to_owned()),
            "TOOL_LIST" => Some(String::new()),
            _ => None,
        };
        let mut typed = parse(&TOOL, &["-fx".into()], Reach::All).ok().unwrap();
        typed.take_variables(&TOOL, &variable).unwrap();
        assert_eq!(shown(Ok(typed)), "file=x quiet=true");
        let mut typed = Typed::default();
        let bad = |name: &str| (name == "TOOL_QUIET").then(|| "x".to_owned());
        let failure = typed.take_variables(&TOOL, &bad).unwrap_err();
        assert!(failure.diagnostics[0].message.contains("TOOL_QUIET"));
    }
}
