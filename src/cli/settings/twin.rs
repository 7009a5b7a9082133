//! The variable of every flag.
//!
//! `--no-cache` of `build` is `BUILDER_NO_CACHE`, and so is that of `digest` and `plan`, which take the same flags; so are flags that
//! every subcommand has. Flags of other subcommands have its name in front, `BUILDER_PRUNE_KEEP`, so that a variable that is there for
//! one subcommand means nothing to another: a file to build from is not one to pull the bases of.

use std::ffi::{OsStr, OsString};

use crate::pipeline::Failure;

use super::super::usage;
use super::apply::Setting;
use super::flag::{Flag, Kind};

const PREFIX: &str = "BUILDER_";

/// Subcommands whose flags are those of `build`; the empty name is that of flags that every subcommand has.
const BUILDS: [&str; 4] = ["", "build", "digest", "plan"];

/// Flags of other subcommands that are `build`'s and about this machine.
const SHARED: [&str; 2] = ["isolation", "storage-driver"];

/// What separates values of one line, where it cannot be a part of them.
const SEPARATORS: [(&str, char); 12] = [
    ("tag", ','),
    ("manifest", ','),
    ("add-host", ','),
    ("ulimit", ','),
    ("output", ';'),
    ("secret", ';'),
    ("ssh", ';'),
    ("build-context", ';'),
    ("context-overlay", ';'),
    ("append-to", ';'),
    ("registry-certificate", ';'),
    ("registry-client-cert", ';'),
];

/// Returns the variable that stands for a flag (`no-cache`) of a subcommand (`build`, `manifest add`), or of every subcommand (an empty
/// name).
pub(in super::super) fn twin(subcommand: &str, flag: &str) -> String {
    // As the forms of CI systems call it.
    if flag == "args-string" {
        return format!("{PREFIX}ARGS");
    }
    let spelled = |text: &str| text.replace(['-', ' '], "_").to_uppercase();
    match BUILDS.contains(&subcommand) || SHARED.contains(&flag) {
        true => format!("{PREFIX}{}", spelled(flag)),
        false => format!("{PREFIX}{}_{}", spelled(subcommand), spelled(flag)),
    }
}

/// Returns the variables that can stand for flags. An empty one is none: forms of CI systems leave them so.
pub(in super::super) fn variables(
    all: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(String, OsString)> {
    all.filter(|(name, value)| {
        name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) && !value.is_empty()
    })
    .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
    .collect()
}

/// Finds a variable.
pub(super) fn variable<'a>(name: &str, variables: &'a [(String, OsString)]) -> Option<&'a OsStr> {
    let found = variables.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_os_str())
}

/// Returns what the environment sets of these flags.
pub(super) fn settings(
    flags: &[Flag],
    variables: &[(String, OsString)],
) -> Result<Vec<Setting>, Failure> {
    let mut found = Vec::new();
    for flag in flags {
        let name = &flag.variable;
        let Some(value) = variable(name, variables) else {
            continue;
        };
        found.push(Setting {
            flag: flag.clone(),
            values: match flag.kind {
                Kind::Switch => match is_true(name, value)? {
                    true => vec!["true".into()],
                    false => Vec::new(),
                },
                Kind::Value => vec![value.to_owned()],
                Kind::List => list(&flag.name, value),
            },
            origin: name.clone(),
        });
    }
    Ok(found)
}

/// Reads a switch.
pub(super) fn is_true(name: &str, value: &OsStr) -> Result<bool, Failure> {
    let text = value.to_string_lossy();
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" => Ok(true),
        "false" | "0" | "no" | "off" | "f" => Ok(false),
        _ => {
            let mut failure = usage(format!("{name} is neither true nor false"));
            let hint = "true, 1, yes and on switch it on; false, 0, no and off leave it off";
            failure.diagnostics[0].hints.push(hint.to_owned());
            Err(failure)
        }
    }
}

/// Cuts a text into values: lines, or what the flag's separator separates.
fn list(flag: &str, value: &OsStr) -> Vec<OsString> {
    let Some(text) = value.to_str() else {
        return vec![value.to_owned()];
    };
    let separator = SEPARATORS.iter().find(|(known, _)| *known == flag);
    let pieces: Vec<&str> = match separator {
        Some((_, separator)) => text.split(['\n', *separator]).map(str::trim).collect(),
        None => text.lines().collect(),
    };
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
    pieces.map(OsString::from).collect()
}
