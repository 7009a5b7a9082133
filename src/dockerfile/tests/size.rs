//! Long texts: no limit of a line, and no work that grows faster than the text.

use super::super::work;
use super::*;

/// Everything that is done to a file before it is planned.
fn read_all(text: &str) {
    let (dockerfile, diagnostics) = parse(text);
    let checks = Checks::new(&dockerfile, None).unwrap();
    drop(checks.wanted(diagnostics));
    drop(nodes(text));
}

#[test]
fn a_line_of_ten_megabytes_is_a_line() {
    const LONG: usize = 10 << 20;
    let word = "x".repeat(LONG);
    let text = format!("FROM a\nRUN {word}\nENV A={word}\nCOPY {word} /\n");
    let (dockerfile, diagnostics) = parse(&text);
    assert!(diagnostics.is_empty(), "{:?}", diagnostics[0].message);
    let InstructionKind::Run(run) = &dockerfile.stages[0].instructions[0].kind else {
        panic!("is RUN");
    };
    let Command::Shell(command) = &run.command else {
        panic!("is the shell form");
    };
    assert_eq!(command.value.len(), LONG);
    let (found, _) = nodes(&text).unwrap();
    assert_eq!(found[2].args[1].len(), LONG);
}

#[test]
fn work_grows_no_faster_than_the_text() {
    for (head, piece, tail) in [
        ("FROM a\n", "RUN a \\\n", "b\n"),
        ("FROM a\n", "RUN x\n", ""),
        ("", "FROM a AS b\n", ""),
        ("FROM a\nRUN a \\\n", "\n", "b\n"),
        ("FROM a\nRUN a \\\n", "# c\n", "b\n"),
        ("", "# comment\n", "FROM a\n"),
        (
            "FROM a\nRUN ",
            "--mount=target=/x,ro ",
            "--network=none --network=none x\n",
        ),
        ("FROM a\nRUN ", "--network=none ", "x\n"),
        ("FROM a\nRUN ", "--nope ", "x\n"),
        ("FROM a\nCOPY --x=", "'\\a\" ", "\n"),
        ("FROM a\nENV ", "A=\"b c\" ", "\n"),
        ("FROM a\nENV ", "a ", "\n"),
        ("FROM a\nARG ", "a='b ", "\n"),
        ("FROM a\nCMD [", "\"a\",", "\"b\"]\n"),
        ("FROM a\nCMD [", "\"a\",", "1]\n"),
        ("FROM a\nCMD ", "[", "\n"),
        ("FROM a\nCOPY ", "a ", "/\n"),
        ("FROM a\nCOPY ", "<<E ", "/\n"),
        ("FROM a\nRUN <<E\n", "\tE x\n", "E\n"),
        ("FROM a\n", "RUN <<E\nE\n", ""),
        ("FROM a\nRUN <<E ", "${A:-$B} '\"' ", "\n"),
        ("FROM a\n", "ONBUILD ", "RUN x\n"),
        ("FROM a\n", "# check=skip=all\nMAINTAINER x\n", ""),
        ("# escape=`\n", "# escape=`\n", "FROM a\n"),
        ("FROM a\nEXPOSE ", "$A ", "\n"),
    ] {
        let text = |count: usize| format!("{head}{}{tail}", piece.repeat(count));
        let (one, two) = (
            work::of(|| read_all(&text(2_000))),
            work::of(|| read_all(&text(4_000))),
        );
        assert!(two <= one * 2 + 200, "{head}{piece}{tail}: {one} and {two}");
    }
}

#[test]
fn work_of_expansion_grows_no_faster_than_the_word() {
    let lookup = |name: &str| (name == "A").then(|| "a".to_owned());
    for piece in [
        "$A", "${A}", "${B:-x}", "\"$A\"", "'x'", "\\x", "a b ", "<", "$",
    ] {
        let cost = |count: usize| {
            let word = piece.repeat(count);
            work::of(|| {
                drop(expand(&word, '\\', &lookup));
                drop(expand_words(&word, '\\', &lookup));
                drop(expand_heredoc(&word, &lookup));
            })
        };
        let (one, two) = (cost(1_000), cost(2_000));
        assert!(two <= one * 2 + 100, "{piece}: {one} and {two}");
    }
}
