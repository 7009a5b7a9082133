//! The page of builds that are told event by event.

use std::time::{Duration, Instant};

use super::log::{ALL, Log, fit};
use super::page::{Told, page};
use super::story::Story;
use crate::vocab::{
    Chart, ChartStage, ChartStep, Contents, Covered, Diagnostic, Event, ExitCode, LayerContents,
    Need, Reason, SizeNode, Stream, Summary, SummaryImage, Timestamp, VertexId,
};

/// What a hostile Dockerfile, file name or command would like to do.
const HOSTILE: &str =
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'><!--\u{202e}";

fn told(events: &[(f64, Event)], ended: ExitCode) -> String {
    let mut story = Story::new(Instant::now());
    for (at, event) in events {
        story.take_at(event, *at, std::thread::current().id());
    }
    story.end();
    page(&Told {
        story: &story,
        names: &["app:1".to_owned()],
        date: Timestamp::from_seconds(1_795_271_400),
        ended,
        elapsed: 10.0,
    })
}

fn hostile() -> Vec<(f64, Event)> {
    let (first, second) = (VertexId(0), VertexId(1));
    let name = |number: u8| format!("[{HOSTILE} {number}/2] RUN {HOSTILE}");
    let step = |vertex, number, needs: Vec<(VertexId, Need)>| ChartStep {
        vertex,
        name: name(number),
        stage: Some(0),
        needs,
    };
    let node = SizeNode {
        name: HOSTILE.to_owned(),
        bytes: 5_000_000,
        children: vec![SizeNode {
            name: HOSTILE.to_owned(),
            bytes: 5_000_000,
            children: Vec::new(),
        }],
    };
    let mut warning = Diagnostic::warning(HOSTILE).hint(HOSTILE);
    warning.causes.push(HOSTILE.to_owned());
    vec![
        (
            0.0,
            Event::Planned(Chart {
                stages: vec![ChartStage {
                    name: HOSTILE.to_owned(),
                    is_base: false,
                    is_final: true,
                }],
                steps: vec![
                    step(first, 1, Vec::new()),
                    step(second, 2, vec![(first, Need::Root)]),
                ],
            }),
        ),
        (
            0.0,
            Event::Declared {
                vertex: first,
                name: name(1),
            },
        ),
        (
            0.0,
            Event::Declared {
                vertex: second,
                name: name(2),
            },
        ),
        (0.1, Event::Started { vertex: first }),
        (
            0.2,
            Event::Missed {
                vertex: first,
                reasons: vec![Reason::Files {
                    source: HOSTILE.to_owned(),
                    changes: None,
                }],
            },
        ),
        (
            0.3,
            Event::Output {
                vertex: first,
                stream: Stream::Stdout,
                bytes: HOSTILE.as_bytes().to_vec(),
            },
        ),
        (4.0, Event::Finished { vertex: first }),
        (4.0, Event::Started { vertex: second }),
        (
            5.0,
            Event::Failed {
                vertex: second,
                message: HOSTILE.to_owned(),
            },
        ),
        (5.0, Event::Diagnostic(warning)),
        (
            5.0,
            Event::Diagnostic(Diagnostic::error(HOSTILE).hint(HOSTILE)),
        ),
        (
            6.0,
            Event::Done(Summary {
                images: vec![SummaryImage {
                    platform: "linux/amd64".parse().unwrap(),
                    manifest: None,
                    id: None,
                    names: vec![HOSTILE.to_owned()],
                    unpacked_size: Some(5_000_000),
                    blob_size: None,
                    stages: vec![(HOSTILE.to_owned(), 9)],
                    layers: Vec::new(),
                    contents: Some(Contents {
                        layers: vec![LayerContents {
                            made_by: name(1),
                            vertex: first,
                            is_base: false,
                            tree: node,
                        }],
                        directories: vec![(HOSTILE.to_owned(), 5)],
                        covered: vec![Covered {
                            made_by: HOSTILE.to_owned(),
                            is_of_base: false,
                            by: HOSTILE.to_owned(),
                            is_deleted: true,
                            path: HOSTILE.to_owned(),
                            files: 1,
                            bytes: 4,
                        }],
                        files: 1,
                        unread: 0,
                    }),
                }],
                steps: 2,
                elapsed: Duration::from_secs(6),
                hints: vec![HOSTILE.to_owned()],
                ..Summary::default()
            }),
        ),
    ]
}

#[test]
fn nothing_from_outside_is_markup() {
    for ended in [ExitCode::Success, ExitCode::Step] {
        let page = told(&hostile(), ended);
        assert!(page.matches("alert(1)").count() > 10, "it is shown");
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(!page.contains("<img"));
        assert!(!page.contains("<!--"));
        assert!(!page.contains('\u{202e}'));
        assert_eq!(
            page.matches("</script>").count(),
            2,
            "the data's and the script's own"
        );
        assert!(!page.contains("onerror=alert(2)>"));
        assert!(!page.contains("style=\""), "the policy would refuse it");
        assert!(!page.contains("http://") && !page.contains("https://"));
    }
}

#[test]
fn the_data_is_json_and_tells_the_steps() {
    let page = told(&hostile(), ExitCode::Step);
    let (_, rest) = page
        .split_once("<script type=\"application/json\" id=\"build\">")
        .unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(data["v"], 1);
    assert_eq!(data["exitCode"], 5);
    assert_eq!(data["steps"].as_array().unwrap().len(), 2);
    assert_eq!(data["steps"][1]["state"], "failed");
    assert_eq!(data["steps"][1]["error"], HOSTILE);
    assert_eq!(data["images"][0]["layers"][0]["tree"]["size"], 5_000_000);
}

#[test]
fn text_can_be_read_on_what_is_behind_it_in_light_and_in_the_dark() {
    let style = include_str!("style.css");
    let (light, rest) = style
        .split_once("@media (prefers-color-scheme: dark)")
        .unwrap();
    let (dark, _) = rest.split_once("* {").unwrap();
    for (theme, text) in [("light", light), ("dark", dark)] {
        let luminance = |name: &str| {
            let (_, rest) = text.split_once(&format!("--{name}: #")).unwrap();
            let part = |at: usize| {
                let value = f64::from(u8::from_str_radix(&rest[at..at + 2], 16).unwrap()) / 255.0;
                match value <= 0.04045 {
                    true => value / 12.92,
                    false => ((value + 0.055) / 1.055).powf(2.4),
                }
            };
            0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
        };
        for (front, behind) in [
            ("text", "card"),
            ("text", "ground"),
            ("text", "code"),
            ("text", "badge"),
            ("muted", "card"),
            ("muted", "ground"),
            ("muted", "code"),
            ("muted", "badge"),
            ("link", "card"),
            ("good", "good-ground"),
            ("bad", "bad-ground"),
            ("bad", "card"),
            ("on-bar", "bar"),
            ("on-bar", "task"),
            ("on-bar", "fail"),
            ("on-bar", "ended"),
            ("on-pack", "pack"),
            ("text", "k0"),
            ("text", "k1"),
            ("text", "k2"),
            ("text", "k3"),
            ("text", "k4"),
            ("text", "k5"),
            ("text", "k6"),
            ("text", "k7"),
        ] {
            let (one, other) = (luminance(front), luminance(behind));
            let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
            assert!(
                contrast >= 4.5,
                "{theme}: {front} on {behind}: {contrast:.2}"
            );
        }
    }
}

#[test]
fn a_build_that_ended_before_its_plan_has_a_page() {
    let error = Diagnostic::error("unknown instruction `RUNN`");
    let page = told(&[(0.1, Event::Diagnostic(error))], ExitCode::Dockerfile);
    for text in [
        "✕ Failed",
        "unknown instruction `RUNN`",
        "ended before there was a plan",
        "Nothing had to be executed",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn long_outputs_keep_their_beginning_and_their_end() {
    let mut log = Log::default();
    for number in 0..100_000 {
        log.push(format!("line {number} of many, with some more text\n").as_bytes());
    }
    log.push(b"10%\r20%\rno end");
    log.finish();
    assert!(log.head().starts_with("line 0 of"));
    assert_eq!(log.last(2)[1], "no end");
    assert!(log.last(2)[0].starts_with("line 99999 "));
    assert!(log.dropped > 0 && log.bytes() <= 1 << 20);
    let lines = log.head().lines().count() + log.tail().count() + log.dropped;
    assert_eq!(lines, 100_001, "a line that was replaced is none");
}

#[test]
fn all_outputs_together_are_bounded() {
    let mut logs: Vec<Log> = Vec::new();
    for _ in 0..40 {
        let mut log = Log::default();
        log.push(&b"some words of output\n".repeat(60_000));
        logs.push(log);
    }
    let small = {
        let mut log = Log::default();
        log.push(b"small\n");
        log
    };
    logs.push(small);
    let logs = std::cell::RefCell::new(logs);
    fit(|each| logs.borrow_mut().iter_mut().for_each(each));
    let logs = logs.into_inner();
    assert!(logs.iter().map(Log::bytes).sum::<usize>() <= ALL);
    assert_eq!(logs[40].head(), "small\n", "who says little keeps it");
    assert!(logs[0].last(1)[0].starts_with("some"));
}
