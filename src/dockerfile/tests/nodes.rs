//! Files as flat nodes.

use super::*;

/// Writes a node: `value flags… | args… (json)`, `@first-last`, heredocs, and what is nested in braces.
fn shown(node: &Node) -> String {
    let mut out = node.value.clone();
    for flag in &node.flags {
        write!(out, " {flag}").unwrap();
    }
    for arg in &node.args {
        write!(out, " {arg:?}").unwrap();
    }
    if node.json {
        out.push_str(" json");
    }
    for heredoc in &node.heredocs {
        write!(
            out,
            " <<{}{}{}{:?}",
            if heredoc.chomp { "-" } else { "" },
            heredoc.name,
            if heredoc.expand { "" } else { "'" },
            heredoc.content
        )
        .unwrap();
    }
    if let Some(nested) = &node.nested {
        write!(out, " {{{}}}", shown(nested)).unwrap();
    }
    out
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let (nodes, _) = nodes(text).unwrap();
    let found: Vec<String> = nodes.iter().map(shown).collect();
    assert_eq!(found, expected, "{text:?}");
}

#[track_caller]
fn fails(text: &str, messages: usize) {
    let mistakes = nodes(text).unwrap_err();
    assert_eq!(mistakes.len(), messages, "{text:?}: {mistakes:?}");
}

#[test]
fn words_and_texts() {
    check(
        "FROM --platform=$X  a  AS b",
        &[r#"from --platform=$X "a" "AS" "b""#],
    );
    check(
        "From a\nRun  echo  'a  b' ",
        &[r#"from "a""#, r#"run "echo  'a  b'""#],
    );
    check(
        "CMD\nCMD []\nCMD [\"a\", \"\\u00e9\"]\nCMD ['a']",
        &["cmd", "cmd json", r#"cmd "a" "é" json"#, r#"cmd "['a']""#],
    );
    check(
        "COPY --from=x --chown=\"a b\":c -- [\"a\",\"b\"]\nADD a b\tc\nVOLUME",
        &[
            r#"copy --from=x --chown=a b:c "a" "b" json"#,
            r#"add "a" "b" "c""#,
            "volume",
        ],
    );
    check(
        "ENV A=b C=\"d e\" F=\nENV a b  c\nLABEL x=y\nENV",
        &[
            r#"env "A" "b" "=" "C" "\"d e\"" "=" "F" "" "=""#,
            r#"env "a" "b  c" """#,
            r#"label "x" "y" "=""#,
            "env",
        ],
    );
    check(
        "ARG a b=c  d='e f'\nARG",
        &[r#"arg "a" "b=c" "d='e f'""#, "arg"],
    );
    check(
        "EXPOSE 80 $x/tcp\nWORKDIR /a b\nUSER\nMAINTAINER a  b\nSTOPSIGNAL 9",
        &[
            r#"expose "80" "$x/tcp""#,
            r#"workdir "/a b""#,
            "user",
            r#"maintainer "a  b""#,
            r#"stopsignal "9""#,
        ],
    );
    check(
        "HEALTHCHECK --interval=5s  Cmd  [\"a\"]\nHEALTHCHECK none\nHEALTHCHECK CMD a  b\nHEALTHCHECK",
        &[
            r#"healthcheck --interval=5s "Cmd" "a" json"#,
            r#"healthcheck "none""#,
            r#"healthcheck "CMD" "a  b""#,
            "healthcheck",
        ],
    );
    check(
        "SHELL a b\nNOPE x y\nRUN --x --y=\\\\z -- --w",
        &[r#"shell "a b""#, r#"nope """#, r#"run --x --y=\z "--w""#],
    );
}

#[test]
fn triggers_and_heredocs() {
    check(
        "ONBUILD --f Run  a  b\nONBUILD\nONBUILD ONBUILD COPY a b",
        &[
            r#"onbuild --f {run "a  b"}"#,
            "onbuild",
            r#"onbuild {onbuild {copy "a" "b"}}"#,
        ],
    );
    check(
        "ONBUILD RUN <<-A\n\tx\n\tA\nRUN <<'B' c\r\n$y\r\nB\r\n",
        &[
            r#"onbuild <<-A"\tx\n" {run "<<-A"}"#,
            r#"run "<<'B' c" <<B'"$y\r\n""#,
        ],
    );
    check(
        "RUN [\"<<A\"]\nCMD <<A",
        &[r#"run "<<A" json"#, r#"cmd "<<A""#],
    );
}

#[test]
fn lines_of_nodes() {
    let text = "# escape=`\n\nFROM a `\n# c\n\n  AS b\nRUN <<E\n1\nE\n`\nCOPY a b `\n\n# end";
    let (nodes, escape) = nodes(text).unwrap();
    let lines: Vec<_> = nodes.iter().map(|node| node.lines).collect();
    assert_eq!((lines, escape), (vec![(3, 6), (7, 9), (10, 13)], '`'));
}

#[test]
fn mistakes() {
    fails("", 1);
    fails("# comment\n", 1);
    fails(
        "# escape=x\n# escape=`\nENV a\nENV a=b c\nRUN [1]\nRUN <<A\n",
        6,
    );
    fails(&format!("{} RUN a", "ONBUILD ".repeat(100_000)), 1);
    // What only the second pass sees is none here.
    check(
        "# check=nonsense\nRUN\nONBUILD FROM x",
        &["run", r#"onbuild {from "x"}"#],
    );
}
