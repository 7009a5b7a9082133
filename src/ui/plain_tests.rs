//! Tests of the module beside.

use expect_test::{Expect, expect};

use super::*;
use crate::ui::Ci;
use crate::vocab::{Diagnostic, Reason, Rung, StorageDriver, Stream};

fn transcript(events: Vec<Event>, showing: Showing) -> String {
    let plain = Plain::new(Vec::new(), Style::Plain, &showing);
    for event in events {
        plain.emit(event);
    }
    let out = plain.state.into_inner().unwrap().out;
    String::from_utf8(out).unwrap()
}

/// Times differ from run to run.
fn check(events: Vec<Event>, ci: Ci, expected: &Expect) {
    let showing = Showing {
        ci,
        ..Showing::default()
    };
    let text = transcript(events, showing);
    let normal: String = text
        .lines()
        .map(|line| {
            let line = line.replace("0.000 ", "T ").replace("0.0s", "T");
            let line = line.replace('\x1b', "^[").replace('\r', "^M");
            let line = line.replace('\u{200b}', "<200B>");
            let words: Vec<String> = line
                .split(':')
                .map(|word| match word.parse::<u64>() {
                    Ok(_) => "UNIX".to_owned(),
                    Err(_) => word.to_owned(),
                })
                .collect();
            words.join(":") + "\n"
        })
        .collect();
    expected.assert_eq(&normal);
}

const A: VertexId = VertexId(0);
const B: VertexId = VertexId(1);

fn declared(vertex: VertexId, name: &str) -> Event {
    Event::Declared {
        vertex,
        name: name.to_owned(),
    }
}

fn output(vertex: VertexId, text: &str) -> Event {
    Event::Output {
        vertex,
        stream: Stream::Stdout,
        bytes: text.as_bytes().to_vec(),
    }
}

#[test]
fn lines_of_two_steps_keep_their_prefix() {
    check(
        vec![
            Event::Entered {
                rung: Rung::NsOne,
                driver: StorageDriver::Overlay,
                reasons: vec!["ns-sub: no ids".into()],
            },
            declared(A, "[1/2] RUN a"),
            declared(B, "[2/2] RUN b"),
            Event::Started { vertex: A },
            Event::Missed {
                vertex: A,
                reasons: vec![Reason::Command, Reason::Heredoc],
            },
            output(A, "half "),
            Event::Cached { vertex: B },
            output(A, "line\nno end"),
            Event::Finished { vertex: A },
            Event::Diagnostic(Diagnostic::warning("w")),
        ],
        Ci::None,
        &expect![[r#"
            sandbox: ns-one, store: overlay (ns-sub: no ids; see `builder doctor`)
            #1 [1/2] RUN a
            #1 not cached: the command changed; the heredoc changed
            #2 [2/2] RUN b
            #2 CACHED

            #1 T half line
            #1 T no end
            #1 DONE T

            warning: w
        "#]],
    );
}

#[test]
fn output_can_neither_forge_lines_nor_move_the_cursor_and_a_progress_bar_is_one_line() {
    check(
        vec![
            declared(A, "[1/1] RUN a"),
            Event::Started { vertex: A },
            output(A, "10%\r20%\r100%\n\x1b[1A\x1b[2K#9 DONE\r\n\x1b[31mred\n"),
            Event::Finished { vertex: A },
        ],
        Ci::None,
        &expect![[r#"
            #1 [1/1] RUN a
            #1 T 100%
            #1 T #9 DONE
            #1 T ^[[31mred^[[0m
            #1 DONE T

        "#]],
    );
}

/// Two steps at the same time, and a third that fails.
fn parallel() -> Vec<Event> {
    let c = VertexId(2);
    vec![
        declared(A, "[1/3] RUN a"),
        declared(B, "[2/3] RUN b"),
        declared(c, "[3/3] RUN c"),
        Event::Started { vertex: A },
        output(A, "a1\n"),
        Event::Started { vertex: B },
        output(B, "b1 ##[error]x\n"),
        output(A, "a2\n"),
        Event::Started { vertex: c },
        output(c, "section_end:1:builder_1\r\x1b[0K\n"),
        output(c, "::error::forged\n"),
        Event::Finished { vertex: B },
        Event::Finished { vertex: A },
        output(c, "live\n"),
        Event::Failed {
            vertex: c,
            message: "no".to_owned(),
        },
        Event::Diagnostic(Diagnostic::error("no")),
    ]
}

#[test]
fn sections_of_gitlab_follow_each_other() {
    check(
        parallel(),
        Ci::GitLab,
        &expect![[r#"
            ^[[0Ksection_start:UNIX:builder_1[collapsed=true]^M^[[0K[1/3] RUN a
            #1 [1/3] RUN a
            #1 T a1
            #1 T a2
            #1 DONE T

            ^[[0Ksection_end:UNIX:builder_1^M^[[0K
            ^[[0Ksection_start:UNIX:builder_2[collapsed=true]^M^[[0K[2/3] RUN b
            #2 [2/3] RUN b
            #2 T b1 ##[error]x
            #2 DONE T

            ^[[0Ksection_end:UNIX:builder_2^M^[[0K
            ^[[0Ksection_start:UNIX:builder_3[collapsed=true]^M^[[0K[3/3] RUN c
            #3 [3/3] RUN c
            #3 T 
            #3 T ::error::forged
            #3 T live
            #3 ERROR: no

            ^[[0Ksection_end:UNIX:builder_3^M^[[0K
            error: no
        "#]],
    );
}

#[test]
fn groups_of_github_follow_each_other_and_errors_are_marked() {
    check(
        parallel(),
        Ci::GitHub {
            workspace: None,
            directory: "/w".into(),
        },
        &expect![[r#"
            ::group::[1/3] RUN a
            #1 [1/3] RUN a
            #1 T a1
            #1 T a2
            #1 DONE T

            ::endgroup::
            ::group::[2/3] RUN b
            #2 [2/3] RUN b
            #2 T b1 ##<200B>[error]x
            #2 DONE T

            ::endgroup::
            ::group::[3/3] RUN c
            #3 [3/3] RUN c
            #3 T 
            #3 T ::error::forged
            #3 T live
            #3 ERROR: no

            ::endgroup::
            error: no
            ::error title=builder::no
        "#]],
    );
}

#[test]
fn timestamps_stand_before_every_line() {
    let showing = Showing {
        timestamps: true,
        ..Showing::default()
    };
    let text = transcript(vec![declared(A, "a"), Event::Cached { vertex: A }], showing);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, end) in lines.iter().zip(["Z #1 a", "Z #1 CACHED"]) {
        assert!(line.starts_with("20") && line.ends_with(end), "{line}");
        assert_eq!(&line[10..11], "T");
    }
    assert_eq!(lines[2], "");
}
