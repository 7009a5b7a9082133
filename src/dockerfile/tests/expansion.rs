//! Expansion of words.

use super::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "A" => "alpha",
        "EMPTY" => "",
        "SPACED" => " one  two ",
        "PATH_" => "/usr/lib/x.tar.gz",
        "STARS" => "a***b",
        "X" => "xxyy",
        "LINES" => "ab\ncb",
        "É" => "e",
        "PATTERN" => "*/",
        _ => return None,
    };
    Some(value.to_owned())
}

/// Expected is the text, or `error`, with the undefined names behind a `|`.
fn check(word: &str, expected: &str) {
    let found = match expand(word, '\\', &lookup) {
        Ok(expanded) if expanded.undefined.is_empty() => expanded.text,
        Ok(expanded) => format!("{}|{}", expanded.text, expanded.undefined.join(",")),
        Err(_) => "error".to_owned(),
    };
    assert_eq!(found, expected, "{word}");
}

#[test]
fn names() {
    check("plain", "plain");
    check("$A", "alpha");
    check("${A}b", "alphab");
    check("a$A-$A", "aalpha-alpha");
    check("$NOPE.$NOPE", ".|NOPE");
    check("$A_b", "|A_b");
    check("$É", "e");
    check("$", "$");
    check("$ x", "$ x");
    check("a$.b", "a$.b");
    check("$12x", "x|12");
    check("$@$*$#$?$-$$$!$0", "|@,*,#,?,-,$,!,0");
    check("${#}", "|#");
    check("\"$A\"$EMPTY'$A'", "alpha$A");
}

#[test]
fn operators() {
    for (word, expected) in [
        ("${A-w}", "alpha"),
        ("${A:-w}", "alpha"),
        ("${EMPTY-w}", ""),
        ("${EMPTY:-w}", "w"),
        ("${NOPE-w}", "w|NOPE"),
        ("${NOPE:-}", "|NOPE"),
        ("${A+w}", "w"),
        ("${EMPTY+w}", "w"),
        ("${EMPTY:+w}", ""),
        ("${NOPE+w}", "|NOPE"),
        ("${A:+$A${A}}", "alphaalpha"),
        ("${NOPE:-${EMPTY:-${A}}}", "alpha|NOPE"),
        ("${NOPE:-a b}", "a b|NOPE"),
        ("${NOPE:-\"}\"}", "}|NOPE"),
        ("${NOPE:-\\}}", "}|NOPE"),
        ("${A?w}", "alpha"),
        ("${EMPTY?w}", ""),
        ("${EMPTY:?w}", "error"),
        ("${NOPE?w}", "error"),
        // The word is looked at even where it is not used.
        ("${A:-${NOPE:?w}}", "error"),
        ("${A:-$NOPE}", "alpha|NOPE"),
    ] {
        check(word, expected);
    }
}

#[test]
fn patterns() {
    for (word, expected) in [
        ("${PATH_#*/}", "usr/lib/x.tar.gz"),
        ("${PATH_##*/}", "x.tar.gz"),
        ("${PATH_%.*}", "/usr/lib/x.tar"),
        ("${PATH_%%.*}", "/usr/lib/x"),
        ("${PATH_#nope}", "/usr/lib/x.tar.gz"),
        ("${X#*x*y}", "y"),
        ("${X##*x}", "yy"),
        ("${X#*}", "xxyy"),
        ("${X##*}", ""),
        ("${X%}", "xxyy"),
        ("${X#?}", "xyy"),
        ("${X#$NOPE}", "xxyy|NOPE"),
        ("${X%%$EMPTY}", "xxyy"),
        ("${STARS%%\\**}", "a"),
        ("${STARS#a\\*}", "**b"),
        ("${STARS#'a*'}", "***b"),
        ("${A/p/P}", "alPha"),
        ("${A/a/}", "lpha"),
        ("${A//a/-}", "-lph-"),
        ("${A//[a]/-}", "alpha"),
        ("${PATH_//\\//_}", "_usr_lib_x.tar.gz"),
        ("${PATH_/\\/*\\//}", "x.tar.gz"),
        ("${PATH_/$PATTERN/}", "x.tar.gz"),
        ("${X//x/\\/}", "\\/\\/yy"),
        ("${X/$EMPTY/w}", "wxxyy"),
        ("${X//$EMPTY/-}", "-x-x-y-y-"),
        ("${X//*/-}", "-"),
        ("${X///}", "xxyy"),
        ("${NOPE/a/b}", "|NOPE"),
        // A pattern does not cross lines.
        ("${LINES//?b/-}", "-\n-"),
        ("${LINES/*/-}", "-\ncb"),
        ("${A#\\x}", "error"),
        ("${A#x\\\\}", "alpha"),
        ("${A/p}", "error"),
        ("${A//}", "error"),
        ("${A/p/", "error"),
    ] {
        check(word, expected);
    }
}

#[test]
fn quotes_and_escapes() {
    for (word, expected) in [
        ("'a\\b$A'", "a\\b$A"),
        ("\"a 'b' $A\"", "a 'b' alpha"),
        ("\"\\\"\\$A\\\\\\n\"", "\"$A\\\\n"),
        ("\\$A\\'\\a\\ ", "$A'a "),
        ("a\\", "a"),
        ("\"a\\", "error"),
        ("\"a", "error"),
        ("'a", "error"),
        ("a''b\"\"", "ab"),
        ("<< x", "<< x"),
    ] {
        check(word, expected);
    }
    let backtick = expand("C:\\x`$A `` \"`$\"", '`', &lookup).unwrap();
    assert_eq!(backtick.text, "C:\\x$A ` $");
}

#[test]
fn bad_substitutions_say_where() {
    for (word, offset, message) in [
        ("a${", 1, "`${` is not closed: missing `}`"),
        ("a${A", 1, "`${` is not closed: missing `}`"),
        ("a${A:", 1, "`${` is not closed: missing `}`"),
        ("a${A:-b", 1, "`${` is not closed: missing `}`"),
        ("a${A:-${B}", 1, "`${` is not closed: missing `}`"),
        ("a${A/b", 1, "`${` is not closed: missing `/`"),
        ("${}", 0, "bad substitution: no name after `${`"),
        ("${:x}", 0, "bad substitution: no name after `${`"),
        ("${{A}", 0, "bad substitution: no name after `${`"),
        ("${.A}", 0, "bad substitution: `.` cannot start a name"),
        ("b${A:#x}", 4, "unsupported operator `:#` in a substitution"),
        ("${A=x}", 3, "unsupported operator `=` in a substitution"),
        ("é${A^}", 5, "unsupported operator `^` in a substitution"),
        ("x${N:?give $A}", 1, "N: give alpha"),
        ("${N:?}", 0, "`N` must be set"),
        ("${EMPTY:?}", 0, "`EMPTY` must not be empty"),
        ("ab'c", 2, "the single quote is not closed"),
        ("ab\"c$A", 2, "the double quote is not closed"),
        ("${A#\\x}", 0, "invalid pattern `\\x`: `\\x` is no escape"),
    ] {
        let error = expand(word, '\\', &lookup).expect_err(word);
        assert_eq!(
            (error.offset, error.message.as_str()),
            (offset, message),
            "{word}"
        );
    }
}

#[test]
fn deep_nesting_is_refused_and_not_a_crash() {
    let deep = |depth: usize| format!("{}x{}", "${N:-".repeat(depth), "}".repeat(depth));
    assert_eq!(expand(&deep(100), '\\', &lookup).unwrap().text, "x");
    assert!(expand(&deep(100_000), '\\', &lookup).is_err());
    assert!(expand(&"${N:-".repeat(100_000), '\\', &lookup).is_err());
}

#[test]
fn words_are_split_after_expansion() {
    for (word, expected) in [
        ("80 $SPACED", vec!["80", "one", "two"]),
        ("\"$SPACED\"", vec![" one  two "]),
        ("a$SPACED.b", vec!["a", "one", "two", ".b"]),
        ("a\\ b 'c d'e", vec!["a b", "c de"]),
        ("$EMPTY ''", vec![]),
        ("  ", vec![]),
    ] {
        let (words, _) = expand_words(word, '\\', &lookup).unwrap();
        assert_eq!(words, expected, "{word}");
    }
    let (_, undefined) = expand_words("$NOPE $A", '\\', &lookup).unwrap();
    assert_eq!(undefined, ["NOPE"]);
}

#[test]
fn heredoc_bodies_have_no_quotes() {
    for (body, expected) in [
        ("it's \"$A\" '$A'\n", "it's \"alpha\" 'alpha'\n"),
        ("\\$A \\\\ $(x) `y`\n", "$A \\ $(x) `y`\n"),
        ("\\\n", "\n"),
        ("${NOPE:-\"d\"}", "\"d\""),
        ("plain", "plain"),
    ] {
        assert_eq!(
            expand_heredoc(body, &lookup).unwrap().text,
            expected,
            "{body}"
        );
    }
    assert_eq!(
        expand_heredoc("$NOPE", &lookup).unwrap().undefined,
        ["NOPE"]
    );
}
