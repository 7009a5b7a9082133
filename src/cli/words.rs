//! A command typed as one word, cut as a shell would cut it; nothing is expanded.

/// Why a text cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenQuote(pub(super) char);

/// Cuts at blanks outside of quotes. In `'…'` everything stands for itself, in `"…"` a backslash takes the meaning of `"`, `\`, `$`
/// and a backtick, elsewhere of any character.
pub(super) fn words(text: &str) -> Result<Vec<String>, OpenQuote> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None, '\\') => match characters.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => word.get_or_insert_default().push('\\'),
            },
            (Some('"'), '\\') => {
                let special = |c: &char| matches!(c, '"' | '\\' | '$' | '`');
                let meant = characters.next_if(special).unwrap_or('\\');
                word.get_or_insert_default().push(meant);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some(open) => Err(OpenQuote(open)),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_shells_do() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        };
        check("", &[]);
        check(" a  b\tc\n", &["a", "b", "c"]);
        check("sh -c 'a \"b\" \\n $x'", &["sh", "-c", "a \"b\" \\n $x"]);
        check(r#"a"b c"'d e'f"#, &["ab cd ef"]);
        check(r#""\"\\\$\n""#, &[r#""\$\n"#]);
        check(r"a\ b \'", &["a b", "'"]);
        check("'' \"\"", &["", ""]);
        assert_eq!(words("a 'b"), Err(OpenQuote('\'')));
        assert_eq!(words("a \"b"), Err(OpenQuote('"')));
    }
}
