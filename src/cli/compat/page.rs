//! The tables as text: for `--help`, and for `docs/moving.md`.

use super::flag::{Does, Flag, Takes, Tool};

/// Returns what `--help` of a tool says.
pub(super) fn help(tool: &Tool) -> String {
    let mut text = format!(
        "{}: its flags, and what becomes of them here\n\n",
        tool.title.replace('`', "")
    );
    for flag in tool.flags {
        let (word, how) = told(flag);
        text.push_str(&format!("  {}\n        {word}: {how}\n", written(flag)));
    }
    text.push_str("\nbuilder build --help has the words of this program\n");
    text
}

/// Returns a section of the docs.
#[cfg(test)]
pub(super) fn section(tool: &Tool) -> String {
    let mut text = format!("### {}\n\n", tool.title);
    if tool.flags.is_empty() {
        text.push_str("No flags.\n");
        return text;
    }
    text.push_str("| flag | | here |\n|---|---|---|\n");
    for flag in tool.flags {
        let (word, how) = told(flag);
        let cell = |text: &str| text.replace('|', "\\|");
        text.push_str(&format!(
            "| `{}` | {word} | {} |\n",
            cell(&written(flag)),
            cell(&how)
        ));
    }
    text
}

/// Returns a flag as it is written.
fn written(flag: &Flag) -> String {
    let short = flag.short.map(|short| format!("-{short}, "));
    let value = match flag.takes {
        Takes::Switch => String::new(),
        Takes::SwitchOn => "=false".to_owned(),
        Takes::Value(name) => format!(" {name}"),
        Takes::List(name) => format!(" {name}[,…]"),
        Takes::Optional(name, _) => format!("[={name}]"),
    };
    let aliases: String = flag
        .aliases
        .iter()
        .map(|name| format!(", --{name}"))
        .collect();
    format!(
        "{}--{}{aliases}{value}",
        short.unwrap_or_default(),
        flag.name
    )
}

/// Returns in one word what becomes of a flag, and how or why.
fn told(flag: &Flag) -> (&'static str, String) {
    let (word, text) = match flag.does.at_heart() {
        Does::As(name) if name == flag.name => ("honoured", "the same".to_owned()),
        Does::As(name) => ("honoured", format!("`--{name}`")),
        Does::Honoured(text) => ("honoured", text.to_owned()),
        Does::Noted(text) => ("noted", text.to_owned()),
        Does::Refused(text) => ("refused", text.to_owned()),
        Does::Unless(..) => unreachable!("the heart is none"),
    };
    let fine: Vec<String> = match flag.does {
        Does::Unless(values, _) => values
            .iter()
            .filter(|value| !value.is_empty())
            .map(|value| format!("`{value}`"))
            .collect(),
        _ => Vec::new(),
    };
    match fine.is_empty() {
        true => (word, text),
        false => (word, format!("{text}; not with {}", fine.join(", "))),
    }
}
