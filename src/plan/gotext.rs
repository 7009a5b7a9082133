//! How Go's `fmt` prints values: history entries are made with it, and tools compare them.

use std::fmt::Write;

/// Prints a text as `%q` does.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        push_escaped(&mut quoted, character, '"');
    }
    quoted.push('"');
    quoted
}

/// Prints a list of texts as `%q` does: `["a" "b"]`.
pub(super) fn quote_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Prints a number as `%q` does: as the character that it is the code point of.
pub(super) fn quote_number(number: i64) -> String {
    let character = u32::try_from(number).ok().and_then(char::from_u32);
    let mut quoted = String::from("'");
    push_escaped(&mut quoted, character.unwrap_or('\u{fffd}'), '\'');
    quoted.push('\'');
    quoted
}

/// Prints nanoseconds as `time.Duration` does: `1h0m0s`, `1.5s`, `100ms`, `0s`.
pub(super) fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let (unit, name) = match total {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let mut whole = total / unit;
    let mut text = sign.to_owned();
    if name == "s" {
        let minutes = whole / 60;
        whole %= 60;
        match (minutes / 60, minutes % 60) {
            (0, 0) => {}
            (0, minutes) => text.push_str(&format!("{minutes}m")),
            (hours, minutes) => text.push_str(&format!("{hours}h{minutes}m")),
        }
    }
    text.push_str(&whole.to_string());
    if !total.is_multiple_of(unit) {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", total % unit);
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push_str(name);
    text
}

fn push_escaped(into: &mut String, character: char, quote: char) {
    match character {
        '\u{7}' => into.push_str("\\a"),
        '\u{8}' => into.push_str("\\b"),
        '\u{c}' => into.push_str("\\f"),
        '\n' => into.push_str("\\n"),
        '\r' => into.push_str("\\r"),
        '\t' => into.push_str("\\t"),
        '\u{b}' => into.push_str("\\v"),
        '\\' => into.push_str("\\\\"),
        _ if character == quote => {
            into.push('\\');
            into.push(character);
        }
        _ if is_printable(character) => into.push(character),
        _ => {
            let code = character as u32;
            let written = match code {
                0..0x80 => write!(into, "\\x{code:02x}"),
                0x80..0x10000 => write!(into, "\\u{code:04x}"),
                _ => write!(into, "\\U{code:08x}"),
            };
            written.expect("writing to a text cannot fail");
        }
    }
}

/// Rust escapes the characters that Go calls unprintable when it prints a text for debugging; a combining mark counts as
/// printable only behind another character.
fn is_printable(character: char) -> bool {
    let text = String::from_iter(['a', character]);
    !text.escape_debug().to_string().contains("\\u{") && character != '\u{7f}' && character != '\0'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_does() {
        for (text, wanted) in [
            ("a b", r#""a b""#),
            ("say \"hi\" \\ 'x'", r#""say \"hi\" \\ 'x'""#),
            ("a\tb\nc\u{7}\0\u{7f}", r#""a\tb\nc\a\x00\x7f""#),
            ("é 日本 e\u{301}", "\"é 日本 e\u{301}\""),
            (
                "\u{feff}\u{a0}\u{2028}\u{10ffff}",
                r#""\ufeff\u00a0\u2028\U0010ffff""#,
            ),
        ] {
            assert_eq!(quote(text), wanted);
        }
        assert_eq!(quote_list(&["a".into(), "b".into()]), r#"["a" "b"]"#);
        assert_eq!(quote_list(&[]), "[]");
    }

    #[test]
    fn numbers_are_quoted_as_go_does() {
        for (number, wanted) in [
            (0, r"'\x00'"),
            (3, r"'\x03'"),
            (10, r"'\n'"),
            (39, r"'\''"),
            (34, "'\"'"),
            (65, "'A'"),
            (-1, "'\u{fffd}'"),
        ] {
            assert_eq!(quote_number(number), wanted);
        }
    }

    #[test]
    fn durations_are_printed_as_go_does() {
        for (nanoseconds, wanted) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (60_000_000_000, "1m0s"),
            (90_000_000_001, "1m30.000000001s"),
            (3_600_000_000_000, "1h0m0s"),
            (-2_000_000_000, "-2s"),
        ] {
            assert_eq!(duration(nanoseconds), wanted);
        }
    }
}
