//! The options of `RUN --mount`.
//!
//! In: the value of one flag. Out: its options in order, with keys in lower case and aliases resolved (`src` is `source`, `dst`
//! and `destination` are `target`, `ro` is `readonly`, `rw` is `readwrite`), and a diagnostic for each mistake. An option whose
//! value has a variable is left for the time when it is known, and so is what depends on it.

use super::{MountFlag, Word};
use crate::vocab::{Diagnostic, Span, Spanned, nearest};

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];

/// Reads one `--mount=…`, whose value is `value` and which stands at `span`.
pub(super) fn parse(value: &Word, span: Span, diagnostics: &mut Vec<Diagnostic>) -> MountFlag {
    let mut options = Vec::new();
    if value.value.is_empty() {
        diagnostics.push(Diagnostic::error("flag `--mount` has no value").at(span));
        return MountFlag { options, span };
    }
    if value.value.contains('"') {
        diagnostics
            .push(Diagnostic::error("quotes cannot stand in the value of `--mount`").at(span));
        return MountFlag { options, span };
    }
    // Where quotes or backslashes were removed from the flag, its bytes do not line up with the file's.
    let lines_up = value.value.len() == value.span.end - value.span.start;
    let mut at = 0;
    for field in value.value.split(',') {
        let place = |from: usize, to: usize| match lines_up {
            true => Span::new(value.span.start + from, value.span.start + to),
            false => span,
        };
        let end = at + field.len();
        match option(field) {
            Ok((key, None)) => {
                options.push((Spanned::new(key.to_owned(), place(at, end)), None));
            }
            Ok((key, Some(text))) => {
                let text_start = end - text.len();
                let problem = value_problem(key, text);
                diagnostics.extend(problem.map(|problem| problem.at(place(text_start, end))));
                options.push((
                    Spanned::new(key.to_owned(), place(at, text_start - 1)),
                    Some(Spanned::new(text.to_owned(), place(text_start, end))),
                ));
            }
            Err(problem) => diagnostics.push(problem.at(place(at, end))),
        }
        at = end + 1;
    }
    let mount = MountFlag { options, span };
    check_together(&mount, diagnostics);
    mount
}

/// Checks a mount whose values are known, as [`parse`] checks those that have no variable.
pub fn check_mount(mount: &MountFlag) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for (key, value) in &mount.options {
        if let Some(value) = value {
            let problem = known_value_problem(&key.value, &value.value);
            diagnostics.extend(problem.map(|problem| problem.at(value.span)));
        }
    }
    check_together(mount, &mut diagnostics);
    diagnostics
}

/// Splits an option and resolves its key.
fn option(field: &str) -> Result<(&'static str, Option<&str>), Box<Diagnostic>> {
    let (written, value) = match field.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (field, None),
    };
    let key = match written.to_ascii_lowercase().as_str() {
        "type" => "type",
        "from" => "from",
        "source" | "src" => "source",
        "target" | "dst" | "destination" => "target",
        "readonly" | "ro" => "readonly",
        "readwrite" | "rw" => "readwrite",
        "id" => "id",
        "sharing" => "sharing",
        "required" => "required",
        "size" => "size",
        "mode" => "mode",
        "uid" => "uid",
        "gid" => "gid",
        "env" => "env",
        _ => {
            let unknown = Diagnostic::error(format!("unknown option `{written}` of `--mount`"));
            return Err(Box::new(match nearest(written, KEYS.iter().copied()) {
                Some(key) => unknown.hint(format!("did you mean `{key}`?")),
                None => unknown.hint("options are key=value pairs, separated by commas"),
            }));
        }
    };
    if value.is_none() && !matches!(key, "readonly" | "readwrite" | "required") {
        let problem = Diagnostic::error(format!("option `{written}` has no value"));
        return Err(Box::new(problem.hint(format!("write `{written}=…`"))));
    }
    Ok((key, value))
}

/// Tells what is wrong with a value by itself.
fn value_problem(key: &str, value: &str) -> Option<Diagnostic> {
    if has_variable(value) {
        if key == "from" {
            return Some(
                Diagnostic::error("variables are not expanded in `from`").hint(
                    "define a stage with `FROM … AS name`, where global arguments are, and name it",
                ),
            );
        }
        return None;
    }
    known_value_problem(key, value)
}

fn known_value_problem(key: &str, value: &str) -> Option<Diagnostic> {
    let invalid = |wanted: &str| {
        Some(Diagnostic::error(format!(
            "invalid value of `{key}`: wanted {wanted}, found `{value}`"
        )))
    };
    let one_of = |known: &[&'static str]| {
        let lower = value.to_ascii_lowercase();
        if known.contains(&lower.as_str()) {
            return None;
        }
        let problem = Diagnostic::error(format!("unknown {key} of a mount: `{value}`"));
        Some(match nearest(value, known.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint(format!("it is one of {}", known.join(", "))),
        })
    };
    match key {
        "type" => one_of(&TYPES),
        "sharing" => one_of(&SHARINGS),
        "readonly" | "readwrite" | "required" if !is_bool(value) => invalid("true or false"),
        "mode" if !is_number(value, 8) => invalid("an octal number"),
        "uid" | "gid" if !is_number(value, 10) => invalid("a number"),
        "size" if !is_size(value) => invalid("a size such as `64m`"),
        "target" if is_root(value) => Some(Diagnostic::error("a mount cannot cover `/`")),
        _ => None,
    }
}

/// Checks what options say to each other.
fn check_together(mount: &MountFlag, diagnostics: &mut Vec<Diagnostic>) {
    let find = |wanted: &str| mount.options.iter().rfind(|(key, _)| key.value == wanted);
    let text = |wanted: &str| {
        find(wanted)
            .and_then(|(_, value)| value.as_ref())
            .map_or("", |value| value.value.as_str())
    };
    let mount_type = match text("type").to_ascii_lowercase() {
        unset if unset.is_empty() => "bind".to_owned(),
        given if TYPES.contains(&given.as_str()) => given,
        // Not known yet, or told already.
        _ => return,
    };
    for (key, allowed) in [
        ("required", ["secret", "ssh", ""]),
        ("size", ["tmpfs", "", ""]),
        ("sharing", ["cache", "", ""]),
        ("env", ["secret", "", ""]),
        ("mode", ["secret", "ssh", "cache"]),
        ("uid", ["secret", "ssh", "cache"]),
        ("gid", ["secret", "ssh", "cache"]),
    ] {
        if let Some((written, _)) = find(key)
            && !allowed.contains(&mount_type.as_str())
        {
            diagnostics.push(
                Diagnostic::error(format!(
                    "option `{key}` is not for mounts of type `{mount_type}`"
                ))
                .at(written.span),
            );
        }
    }
    if mount_type == "secret" {
        if let Some((written, _)) = find("from") {
            diagnostics.push(Diagnostic::error("a secret mount has no `from`").at(written.span));
        }
        if let (Some((source, _)), Some(_)) = (find("source"), find("id")) {
            diagnostics.push(
                Diagnostic::error("a secret mount has either `id` or `source`, not both")
                    .at(source.span),
            );
        }
        if text("id").is_empty() && text("source").is_empty() && text("target").is_empty() {
            diagnostics.push(
                Diagnostic::error("a secret mount needs an `id` or a `target`").at(mount.span),
            );
        }
    } else if mount_type != "ssh" && text("target").is_empty() {
        diagnostics.push(
            Diagnostic::error(format!("a {mount_type} mount needs a `target`")).at(mount.span),
        );
    }
}

fn has_variable(value: &str) -> bool {
    // A `$` at the very end starts no name.
    value.find('$').is_some_and(|at| at + 1 < value.len())
}

/// The words that Go's `strconv.ParseBool` knows.
pub(super) fn is_bool(value: &str) -> bool {
    matches!(
        value,
        "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False"
    )
}

fn is_number(value: &str, radix: u32) -> bool {
    !value.starts_with('+') && u32::from_str_radix(value, radix).is_ok()
}

/// A number, possibly with a fraction and a unit of powers of 1024.
fn is_size(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let number_end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(number_end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    number.parse::<f64>().is_ok() && matches!(unit, "" | "k" | "m" | "g" | "t" | "p")
}

fn is_root(target: &str) -> bool {
    target.starts_with('/') && super::glob::clean(target) == "/"
}
