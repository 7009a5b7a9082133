//! Statements about all texts.

use proptest::prelude::*;

use super::ignoring::walk;
use super::*;

/// Lines that are nearly right.
fn line() -> impl Strategy<Value = String> {
    let keyword = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "CMD",
        "ENTRYPOINT",
        "ONBUILD",
        "HEALTHCHECK",
        "SHELL",
        "VOLUME",
        "EXPOSE",
        "USER",
        "WORKDIR",
        "from",
        "# escape=`\n",
        "# syntax=x\n",
        "#",
        "",
        "\u{feff}",
    ]);
    let piece = prop::sample::select(vec![
        " ",
        "a",
        "é",
        "\\",
        "\n",
        "\\\n",
        "`\n",
        "\r\n",
        "\t",
        "\"",
        "'",
        "$",
        "${",
        "}",
        ":-",
        "=",
        "A=b",
        "[",
        "\"a\"",
        ",",
        "]",
        "<<E",
        "<<-'F'",
        "\nE\n",
        "\n\tF\n",
        "--mount=type=cache,",
        "target=/x",
        "--from=",
        "--",
        "--link",
        "AS",
        "CMD",
        "RUN",
        "#",
        "/",
        "*",
        "\u{a0}",
        "\0",
        "<<",
    ]);
    (keyword, prop::collection::vec(piece, 0..12))
        .prop_map(|(keyword, pieces)| format!("{keyword} {}", pieces.concat()))
}

/// All spans lie in the text, at characters' borders.
fn assert_spans(text: &str) {
    let (dockerfile, diagnostics) = parse(text);
    let checks = Checks::new(&dockerfile, None).unwrap();
    drop(checks.verdict(&checks.wanted(diagnostics.clone())));
    assert_nodes(text, &dockerfile, &diagnostics);
    for label in diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels) {
        assert!(
            text.get(label.span.start..label.span.end).is_some(),
            "{label:?}"
        );
    }
    for stage in &dockerfile.stages {
        assert!(
            text.get(stage.from.span.start..stage.from.span.end)
                .is_some()
        );
        for instruction in &stage.instructions {
            assert!(
                text.get(instruction.span.start..instruction.span.end)
                    .is_some()
            );
        }
    }
    assert!(!dockerfile.stages.is_empty() || diagnostics.iter().any(|d| d.is_error()));
}

/// The flat nodes are those of the syntax: one for each instruction, on lines that follow each other.
fn assert_nodes(text: &str, dockerfile: &Dockerfile, diagnostics: &[crate::vocab::Diagnostic]) {
    let Ok((nodes, escape)) = nodes(text) else {
        assert!(diagnostics.iter().any(|one| one.is_error()), "{text:?}");
        return;
    };
    assert_eq!(escape, dockerfile.escape);
    let lines = text.matches('\n').count() + 1;
    let mut last = 0;
    for node in &nodes {
        let (first, end) = node.lines;
        assert!(
            last < first && first <= end && end <= lines,
            "{text:?} {node:?}"
        );
        last = end;
    }
    if !diagnostics.iter().any(|one| one.is_error()) {
        assert_eq!(
            nodes.len(),
            dockerfile.instruction_spans().count(),
            "{text:?}"
        );
    }
}

/// A slow reading of one pattern: all ways, one character after the other.
fn model_matches(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => {
            let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
            if rest.is_empty() {
                return true;
            }
            let after_slash = (0..path.len())
                .filter(|&at| path[at] == '/')
                .map(|at| at + 1);
            std::iter::once(0)
                .chain(after_slash)
                .any(|at| model_matches(rest, &path[at..]))
        }
        ['*', rest @ ..] => {
            let reach = path.iter().position(|&c| c == '/').unwrap_or(path.len());
            (0..=reach).any(|at| model_matches(rest, &path[at..]))
        }
        ['?', rest @ ..] => {
            matches!(path, [first, path @ ..] if *first != '/' && model_matches(rest, path))
        }
        [wanted, rest @ ..] => {
            matches!(path, [first, path @ ..] if first == wanted && model_matches(rest, path))
        }
    }
}

fn model_decides(patterns: &[String], path: &str) -> bool {
    let mut excluded = false;
    for pattern in patterns {
        let (brings_back, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern.as_str()),
        };
        let pattern: Vec<char> = pattern.chars().collect();
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        let covered = ends.into_iter().any(|end| {
            let path: Vec<char> = path[..end].chars().collect();
            model_matches(&pattern, &path)
        });
        if covered {
            excluded = !brings_back;
        }
    }
    excluded
}

/// Clean patterns with `**` as a component only: elsewhere moby has quirks that the tables of `ignoring` hold.
fn pattern() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        3 => "[ab]{1,2}",
        2 => "[ab?*]{1,3}".prop_filter("a component of its own", |text| !text.contains("**")),
        1 => Just("**".to_owned()),
    ];
    (
        prop::bool::weighted(0.3),
        prop::collection::vec(component, 1..4),
    )
        .prop_map(|(brings_back, components)| {
            format!(
                "{}{}",
                if brings_back { "!" } else { "" },
                components.join("/")
            )
        })
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,3}", 1..5).prop_map(|components| components.join("/"))
}

/// An instruction as text, and what it is expected to be described as.
fn instruction() -> impl Strategy<Value = (String, String)> {
    let word = || "[a-z/.]{1,8}";
    prop_oneof![
        prop::collection::vec(word(), 1..4).prop_map(|words| {
            (
                format!("RUN {}", words.join("  ")),
                format!("RUN <{}>", words.join("  ")),
            )
        }),
        prop::collection::vec("[a-z \"\\\\\u{e9}]{0,6}", 1..4).prop_map(|words| {
            let json = serde_json::to_string(&words).unwrap();
            (format!("CMD {json}"), format!("CMD {words:?}"))
        }),
        prop::collection::vec(("[A-Z]{1,4}", "[a-z0-9.=]{0,6}"), 1..4).prop_map(|pairs| {
            let text: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let expected: String = pairs
                .iter()
                .map(|(key, value)| format!(" <{key}>=<{value}>"))
                .collect();
            (
                format!("ENV {}", text.join(" \\\n\t")),
                format!("ENV{expected}"),
            )
        }),
        (prop::collection::vec(word(), 1..4), word(), any::<bool>()).prop_map(
            |(sources, destination, link)| {
                let flag = if link { "--link " } else { "" };
                let expected: String = sources
                    .iter()
                    .map(|source| format!(" <{source}>"))
                    .collect();
                let after = if link { " link" } else { "" };
                (
                    format!("COPY {flag}{} {destination}", sources.join(" ")),
                    format!("COPY{expected} to <{destination}>{after}"),
                )
            }
        ),
        ("[A-Z]{1,4}", prop::collection::vec("[a-z $'\"]{0,8}", 0..4)).prop_map(|(name, lines)| {
            let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
            (
                format!("RUN cat <<{name}\n{body}{name}"),
                format!("RUN <cat <<{name}> <<{name}{body:?}"),
            )
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        assert_spans(&text);
        // Only that it returns.
        drop(parse_trigger(&text));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_spans(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_flags_make_the_parser_panic(keyword in "(RUN|COPY|ADD|FROM|HEALTHCHECK|ONBUILD RUN)", flags in prop::collection::vec("--[a-z-]{0,12}(=[a-z0-9=,./\"'\\\\ $]{0,16})?", 0..6), rest in "[a-z<\"\\[\\]' \n]{0,20}") {
        assert_spans(&format!("FROM x\n{keyword} {} {rest}\n", flags.join(" ")));
    }

    #[test]
    fn no_heredocs_make_the_parser_panic(marks in prop::collection::vec("[0-9]?<<-?['\"]?[A-C]{1,2}['\"]?", 1..4), lines in prop::collection::vec("\t?[A-C$\\\\]{0,3}\r?", 0..8)) {
        assert_spans(&format!("FROM x\nRUN {}\n{}", marks.join(" "), lines.join("\n")));
    }

    #[test]
    fn no_nearly_right_file_makes_the_parser_panic(lines in prop::collection::vec(line(), 0..8)) {
        let text = lines.join("\n");
        assert_spans(&text);
        drop(parse_trigger(&text));
    }

    #[test]
    fn what_is_printed_is_read_back(instructions in prop::collection::vec(instruction(), 0..6)) {
        let (lines, expected): (Vec<_>, Vec<_>) = instructions.into_iter().unzip();
        let text = format!("FROM x\n{}\n", lines.join("\n# comment\n\n"));
        let (dockerfile, diagnostics) = parse(&text);
        prop_assert!(!diagnostics.iter().any(|d| d.is_error()), "{}", tell(&text, &diagnostics));
        let expected: String = expected.iter().map(|line| format!("{line}\n")).collect();
        prop_assert_eq!(describe(&dockerfile), format!("FROM <x>\n{expected}"));
    }

    #[test]
    fn a_trigger_is_read_as_the_instruction_was(instruction in instruction()) {
        let text = format!("FROM x\nONBUILD {}\n", instruction.0);
        let (dockerfile, _) = parse(&text);
        let InstructionKind::Onbuild(onbuild) = &dockerfile.stages[0].instructions[0].kind else {
            panic!("is ONBUILD");
        };
        let trigger = parse_trigger(&onbuild.trigger).unwrap();
        prop_assert_eq!(describe_kind(&trigger.kind), instruction.1);
    }

    #[test]
    fn text_without_special_characters_expands_to_itself(text in "[^$'\"\\\\]*") {
        let nothing = |_: &str| None;
        let expanded = expand(&text, '\\', &nothing).unwrap();
        prop_assert_eq!(&expanded.text, &text);
        prop_assert!(expanded.undefined.is_empty());
        prop_assert_eq!(expand_heredoc(&text, &nothing).unwrap().text, text.as_str());
        let (words, _) = expand_words(&text, '\\', &nothing).unwrap();
        if !text.contains('<') {
            prop_assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_word_makes_expansion_panic(word in "[a$ {}:\\-+?#%/*'\"\\\\<é0\n]*") {
        let lookup = |name: &str| (name == "a").then(|| "a*\u{e9}/\na".to_owned());
        drop(expand(&word, '\\', &lookup));
        drop(expand(&word, '`', &lookup));
        drop(expand_words(&word, '\\', &lookup));
        drop(expand_heredoc(&word, &lookup));
    }

    #[test]
    fn double_quotes_keep_a_value_as_it_is(value in any::<String>()) {
        let lookup = |_: &str| Some(value.clone());
        prop_assert_eq!(&expand("\"$X\"", '\\', &lookup).unwrap().text, &value);
        prop_assert_eq!(&expand("${X}", '\\', &lookup).unwrap().text, &value);
    }

    #[test]
    fn deciding_agrees_with_the_slow_model(patterns in prop::collection::vec(pattern(), 0..5), paths in prop::collection::vec(path(), 1..8)) {
        let compiled = IgnorePatterns::from_list(&patterns).unwrap();
        for path in &paths {
            let decision = compiled.decide(path.as_bytes());
            prop_assert_eq!(decision.excluded, model_decides(&patterns, path), "{:?} {}", &patterns, path);
            prop_assert_eq!(walk(&compiled, path), decision);
        }
    }

    #[test]
    fn what_comes_back_is_below_directories_that_are_entered(patterns in prop::collection::vec(pattern(), 0..5), path in path()) {
        let compiled = IgnorePatterns::from_list(&patterns).unwrap();
        if !compiled.decide(path.as_bytes()).excluded {
            for (at, _) in path.match_indices('/') {
                let directory = &path.as_bytes()[..at];
                prop_assert!(!compiled.decide(directory).excluded || compiled.may_include_below(directory));
            }
        }
    }

    #[test]
    fn no_pattern_makes_matching_panic(pattern in "[ab*?\\[\\]^\\-\\\\/!.é]*", path in prop::collection::vec(any::<u8>(), 0..20)) {
        if let Ok(patterns) = IgnorePatterns::from_list(std::slice::from_ref(&pattern)) {
            patterns.decide(&path);
            patterns.may_include_below(&path);
        }
        for glob in [Glob::parse(&pattern), Glob::parse_deep(&pattern)].into_iter().flatten() {
            glob.matches(&path);
            glob.may_match_below(&path);
        }
    }
}
