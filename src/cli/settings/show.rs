//! `--print-config`: each setting with its value and where it comes from, as a file that could set it.
//!
//! Credentials are said to be set and not shown; so are values of build arguments and specifications of caches, which hold them often.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::vocab::{nearest, without_passwords};

use super::apply::Setting;
use super::flag::{Flag, Kind, flags};
use super::twin;

/// Settings whose values may be credentials.
const HIDDEN: [&str; 6] = [
    "args-string",
    "cache",
    "cache-from",
    "cache-to",
    "password",
    "remote",
];

/// What variables begin with that are no flag's.
const OTHERS: [&str; 7] = [
    "BUILDER_CREDS",
    "BUILDER_CONFIG",
    "BUILDER_NO_CONFIG",
    "BUILDER_REGISTRY",
    "BUILDER_SANDBOX_",
    "BUILDER_STORE_",
    "BUILDER_TEST_",
];

/// Returns the lines.
pub(super) fn settings(
    command: &Command,
    own: &[Flag],
    matches: &ArgMatches,
    settings: &[Setting],
    variables: &[(String, OsString)],
) -> String {
    let mut text = String::new();
    for flag in own {
        let Some(source) = matches.value_source(flag.id.as_str()) else {
            continue;
        };
        let raw = matches.get_raw(flag.id.as_str()).into_iter().flatten();
        let values: Vec<String> = raw
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        if flag.kind == Kind::Switch && values.iter().all(|value| value == "false") {
            continue;
        }
        let set = settings.iter().find(|set| set.flag.id == flag.id);
        let origin = match (set, source) {
            (Some(set), _) => set.origin.as_str(),
            (None, ValueSource::CommandLine) => "command line",
            (None, ValueSource::EnvVariable) => "environment",
            (None, _) => "default",
        };
        text.push_str(&format!(
            "{} = {}  # {origin}\n",
            flag.name,
            value(flag, &values)
        ));
    }
    text.push_str(&credentials(matches, variables));
    for (name, _) in variables {
        text.push_str(&unknown(command, name).unwrap_or_default());
    }
    text
}

fn value(flag: &Flag, values: &[String]) -> String {
    let quoted = |text: &String| {
        let shown = match (flag.name.as_str(), text.split_once('=')) {
            (name, _) if HIDDEN.contains(&name) => "(set)".to_owned(),
            ("build-arg", Some((name, _))) => format!("{name}=(set)"),
            _ => discreet(text),
        };
        serde_json::Value::from(shown).to_string()
    };
    match (flag.kind, values) {
        (Kind::Switch, _) => "true".to_owned(),
        (Kind::Value, [one]) => quoted(one),
        _ => {
            let values: Vec<String> = values.iter().map(quoted).collect();
            format!("[{}]", values.join(", "))
        }
    }
}

/// Returns a text without accounts and queries of URLs: a token may be either.
fn discreet(text: &str) -> String {
    let text = without_passwords(text);
    let Some((scheme, rest)) = text.split_once("://") else {
        return text;
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?***"),
        None => (rest, ""),
    };
    let host = rest.split('/').next().unwrap_or_default();
    let rest = match host.rfind('@') {
        Some(at) => format!("***{}", &rest[at..]),
        None => rest.to_owned(),
    };
    format!("{scheme}://{rest}{query}")
}

/// Credentials have their own variable.
fn credentials(matches: &ArgMatches, variables: &[(String, OsString)]) -> String {
    let Ok(typed) = matches.try_contains_id("creds") else {
        return String::new();
    };
    let is_set = |name: &&str| twin::variable(name, variables).is_some();
    let variables = [
        "BUILDER_CREDS",
        "BUILDER_REGISTRY_AUTH",
        "BUILDER_REGISTRY_USER",
    ];
    let typed = typed.then_some("command line");
    match typed.or_else(|| variables.into_iter().find(is_set)) {
        Some(origin) => format!("# creds: set, by {origin}\n"),
        None => "# creds: unset\n".to_owned(),
    }
}

/// Returns a line for a variable that stands for nothing.
fn unknown(command: &Command, name: &str) -> Option<String> {
    if OTHERS.iter().any(|other| name.starts_with(other)) {
        return None;
    }
    let mut known = Vec::new();
    collect(command, command, &mut Vec::new(), &mut known);
    if known.iter().any(|variable| variable == name) {
        return None;
    }
    let near = nearest(name, known.iter().map(String::as_str));
    let near = near.map(|near| format!("; did you mean {near}?"));
    Some(format!(
        "# {name} stands for no flag{}\n",
        near.unwrap_or_default()
    ))
}

/// Collects the variables of a subcommand and those below it.
pub(super) fn collect(
    root: &Command,
    at: &Command,
    path: &mut Vec<String>,
    known: &mut Vec<String>,
) {
    known.extend(flags(root, path).into_iter().map(|flag| flag.variable));
    for inner in at.get_subcommands() {
        path.push(inner.get_name().to_owned());
        collect(root, inner, path, known);
        path.pop();
    }
}
