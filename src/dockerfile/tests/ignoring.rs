//! Ignore files and lists.

use super::*;

fn check(file: &str, cases: &[(&str, bool, Option<usize>)]) {
    let patterns = IgnorePatterns::parse(file).unwrap();
    for &(path, excluded, line) in cases {
        let expected = Decision { excluded, line };
        assert_eq!(
            patterns.decide(path.as_bytes()),
            expected,
            "{path} by {file:?}"
        );
        assert_eq!(
            walk(&patterns, path),
            expected,
            "{path} by {file:?}, walked"
        );
    }
}

/// Decides as a walk does, with the parents' matches handed down.
pub(super) fn walk(patterns: &IgnorePatterns, path: &str) -> Decision {
    let mut parent = ParentMatches::default();
    for (at, _) in path.match_indices('/') {
        parent = patterns.descend(&parent, &path.as_bytes()[..at]);
    }
    patterns.decide_below(&parent, path.as_bytes())
}

#[test]
fn single_patterns() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir3/file", true),
        ("**file", "file", true),
        ("**file", "dir/myfile", true),
        ("**/file", "myfile", false),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("*.md", "README.md", true),
        ("*.md", "docs/README.md", false),
        ("docs", "docs/a/b", true),
        ("/docs/", "docs/a", true),
        ("x/../docs", "docs", true),
        ("../docs", "docs", false),
        ("Docs", "docs", false),
        ("\\#x", "#x", true),
        ("\\!y", "!y", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("*/*/c", "a/b/c/d", true),
        ("**a**b", "x/a/b", true),
        ("**a**b*", "a/ab", true),
        (".", "a", false),
        ("/", "a", false),
        ("", "a", false),
        ("a", "", false),
    ] {
        let patterns = IgnorePatterns::parse(pattern).unwrap();
        assert_eq!(
            patterns.decide(path.as_bytes()).excluded,
            expected,
            "{pattern} {path}"
        );
        assert_eq!(
            walk(&patterns, path).excluded,
            expected,
            "{pattern} {path} walked"
        );
    }
}

#[test]
fn the_last_line_that_matches_decides() {
    check(
        "*\n!c\nc/f\n",
        &[
            ("a", true, Some(1)),
            ("c", false, Some(2)),
            ("c/x/y", false, Some(2)),
            ("c/f", true, Some(3)),
            ("c/f/z", true, Some(3)),
        ],
    );
    check(
        "\u{feff}# comment\r\n\r\n  **  \r\n! /c/f/g.txt \r\n # no comment\r\n",
        &[
            ("c/f", true, Some(3)),
            ("c/f/g.txt", false, Some(4)),
            ("# no comment", true, Some(5)),
        ],
    );
    check("!a\na\n", &[("a", true, Some(2))]);
    // A later exception of the directory covers what is below, however deep the exclusion.
    check(
        "d/x\n!d\n",
        &[
            ("d/x", false, Some(2)),
            ("d/y", false, Some(2)),
            ("e", false, None),
        ],
    );
}

#[test]
fn lists_have_no_comments() {
    let list = |items: &[&str]| {
        let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
        IgnorePatterns::from_list(&items).unwrap()
    };
    let patterns = list(&["#x", "", "*.o", "!a.o"]);
    assert!(patterns.decide(b"#x").excluded);
    assert_eq!(patterns.decide(b"b.o").line, Some(3));
    assert!(!patterns.decide(b"a.o").excluded);
    assert!(list(&["", " "]).is_empty());
    assert!(IgnorePatterns::parse("# x\n").unwrap().is_empty());
}

#[test]
fn bad_patterns_name_their_line() {
    for (text, line, message) in [
        ("a\n[\n", 2, "invalid pattern `[`: `[` is not closed"),
        ("!\n", 1, "invalid pattern `!`: it excepts nothing"),
        ("a\n\n! \n", 3, "invalid pattern `!`: it excepts nothing"),
        ("!a\\", 1, "invalid pattern `!a\\`: it ends in a backslash"),
    ] {
        let error = IgnorePatterns::parse(text).expect_err(text);
        assert_eq!(
            (error.line(), error.to_string().as_str()),
            (Some(line), message)
        );
    }
}

#[test]
fn a_walk_enters_excluded_directories_only_where_something_comes_back() {
    for (file, directory, expected) in [
        ("*\n!c/f", "c", true),
        ("*\n!c/f", "d", false),
        ("*\n!c/f\nc/f", "c/f", false),
        ("*\n!c/*/g", "c/x", true),
        ("*\n!c/*/g", "c/x/y", false),
        ("*\n!**/g", "any/where", true),
        ("*\n!**", "any", true),
        ("*\n!c/**", "c/d/e", true),
        ("*\n!c/**", "d", false),
        ("!c/f\n*", "c", false),
        ("node_modules\n!x/node_modules/keep", "node_modules", false),
        ("*\n!cd/f", "c", false),
        ("*\n!c?/f", "cd", true),
        ("c", "c", false),
        ("c", "d", true),
    ] {
        let patterns = IgnorePatterns::parse(file).unwrap();
        assert_eq!(
            patterns.may_include_below(directory.as_bytes()),
            expected,
            "{file:?} {directory}"
        );
    }
}

#[test]
fn more_patterns_than_bits_in_a_word() {
    let file: String = (0..200).map(|n| format!("d{n}\n")).collect();
    let patterns = IgnorePatterns::parse(&file).unwrap();
    for path in ["d0/x", "d63/x", "d64/x", "d199/x/y"] {
        assert!(walk(&patterns, path).excluded);
        assert_eq!(walk(&patterns, path), patterns.decide(path.as_bytes()));
    }
}

#[test]
fn hostile_patterns_take_no_exponential_time() {
    let stars = "**a".repeat(100) + "b*";
    let patterns = IgnorePatterns::parse(&stars).unwrap();
    assert!(
        !patterns
            .decide("a/".repeat(500).trim_end_matches('/').as_bytes())
            .excluded
    );
    let long = "?".repeat(1000);
    assert!(
        Glob::parse(&long)
            .unwrap()
            .matches("é".repeat(1000).as_bytes())
    );
}
