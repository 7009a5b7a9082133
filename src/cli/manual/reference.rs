//! `docs/reference.md`: every subcommand and flag as text. A test writes it, and holds it to what the program takes.

use clap::{Arg, ArgAction, Command};

use super::super::settings::variable_of;
use super::commands;

/// Returns what follows the page's introduction.
pub(super) fn reference() -> String {
    let commands = commands();
    let mut text = String::new();
    for (words, command) in &commands {
        text.push_str(&section(words, command));
    }
    text
}

fn section(words: &str, command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string);
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace('\n', " ");
    let mut text = format!("\n## {words}\n\n{}.\n\n", about.unwrap_or_default());
    text.push_str(&format!("```\n{}\n```\n", usage.trim()));
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    if !aliases.is_empty() {
        text.push_str(&format!("\nAlso: `{}`.\n", aliases.join("`, `")));
    }
    let is_root = words == "builder";
    let shown = |arg: &&Arg| {
        let is_ours = !matches!(
            arg.get_action(),
            ArgAction::Help | ArgAction::HelpLong | ArgAction::HelpShort | ArgAction::Version
        );
        is_ours && !arg.is_hide_set() && arg.is_global_set() == is_root
    };
    let positional: Vec<&Arg> = command.get_positionals().filter(shown).collect();
    let flags: Vec<&Arg> = command
        .get_opts()
        .chain(switches(command))
        .filter(shown)
        .collect();
    let mut flags = flags;
    flags.sort_by_key(|flag| flag.get_long().unwrap_or_default().to_owned());
    if is_root {
        let below = command.get_subcommands();
        text.push_str("\n| subcommand | |\n|---|---|\n");
        for sub in below {
            let name = sub.get_name();
            let about = cell(&sub.get_about().map(ToString::to_string).unwrap_or_default());
            text.push_str(&format!("| [`{name}`](#builder-{name}) | {about} |\n"));
        }
        text.push_str("\nBefore or after every subcommand:\n");
    }
    if !positional.is_empty() {
        text.push_str("\n| argument | |\n|---|---|\n");
        for arg in positional {
            let name = arg.get_value_names().unwrap_or_default().join(" ");
            text.push_str(&format!("| `{}` | {} |\n", cell(&name), told(arg)));
        }
    }
    if !flags.is_empty() {
        text.push_str("\n| flag | variable | |\n|---|---|---|\n");
        for arg in flags {
            let subcommand = words.strip_prefix("builder ").unwrap_or_default();
            let own = variable_of(subcommand, arg);
            let other = arg.get_env().map(|name| name.display().to_string());
            let variables: Vec<String> = own
                .into_iter()
                .chain(other)
                .map(|name| format!("`{name}`"))
                .collect();
            text.push_str(&format!(
                "| {} | {} | {} |\n",
                written(arg),
                variables.join(", "),
                told(arg)
            ));
        }
    }
    text
}

/// Flags without a value, which clap does not count as options.
fn switches(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.get_action().takes_values())
}

/// Returns a flag with its short form, its other names and its value.
fn written(arg: &Arg) -> String {
    let mut names: Vec<String> = arg
        .get_short()
        .map(|c| format!("-{c}"))
        .into_iter()
        .collect();
    names.extend(arg.get_long().map(|name| format!("--{name}")));
    let others = arg.get_visible_aliases().unwrap_or_default();
    names.extend(others.iter().map(|name| format!("--{name}")));
    let value = match arg.get_action().takes_values() {
        true => arg.get_value_names().map(|names| names.join(" ")),
        false => None,
    };
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match value {
        Some(value) if arg.is_require_equals_set() => {
            format!("{}`[={}]`", names.join(", "), cell(&value))
        }
        Some(value) => format!("{} `{}`", names.join(", "), cell(&value)),
        None => names.join(", "),
    }
}

/// Returns what a flag does, the values it knows and its default.
fn told(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help());
    let mut text = cell(&help.map(ToString::to_string).unwrap_or_default());
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && arg.get_action().takes_values())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() && !arg.is_hide_possible_values_set() {
        text.push_str(&format!(" [{}]", values.join(", ")));
    }
    let defaults = arg.get_default_values();
    if !defaults.is_empty() && !arg.is_hide_default_value_set() && arg.get_action().takes_values() {
        let default = defaults.join(" ".as_ref());
        text.push_str(&format!(" [default: {}]", default.display()));
    }
    text
}

/// Returns a text that stays in its cell of a table.
fn cell(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|").replace('<', "\\<")
}
