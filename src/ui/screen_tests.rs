//! Tests of the module beside: frames, drawn by a small terminal.

use expect_test::expect;

use super::*;
use crate::vocab::{Rung, StorageDriver, Stream};

/// A terminal that knows what frames are made of, and refuses everything else. Wide characters take two cells.
struct Emulator {
    columns: usize,
    rows: Vec<String>,
    row: usize,
    column: usize,
    writes: usize,
}

impl Emulator {
    fn new(columns: usize) -> Emulator {
        Emulator {
            columns,
            rows: vec![String::new()],
            row: 0,
            column: 0,
            writes: 0,
        }
    }

    fn write(&mut self, frame: &str) {
        self.writes += 1;
        let mut rest = frame.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\n' => {
                    (self.row, self.column) = (self.row + 1, 0);
                    if self.row == self.rows.len() {
                        self.rows.push(String::new());
                    }
                }
                '\r' => self.column = 0,
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['));
                    let mut number = String::new();
                    let end = loop {
                        match rest.next().unwrap() {
                            c if c.is_ascii_digit() || c == ';' => number.push(c),
                            c => break c,
                        }
                    };
                    match end {
                        'A' => self.row = self.row.saturating_sub(number.parse().unwrap()),
                        'K' => self.truncate(),
                        'J' => {
                            self.truncate();
                            self.rows.truncate(self.row + 1);
                        }
                        'm' => {}
                        other => panic!("{other} is no part of a frame"),
                    }
                }
                c => {
                    assert!(!c.is_control(), "{c:?} in a frame");
                    let line = &mut self.rows[self.row];
                    if self.column == 0 && !line.is_empty() {
                        // What is written over is cleared by what follows.
                        line.clear();
                    }
                    line.push(c);
                    self.column = width(line);
                    assert!(self.column <= self.columns, "wrapped: {line}");
                }
            }
        }
    }

    fn truncate(&mut self) {
        if self.column == 0 {
            self.rows[self.row].clear();
        }
    }

    fn shown(&self) -> String {
        let lines: Vec<&str> = self.rows.iter().map(|row| row.trim_end()).collect();
        lines.join("\n")
    }
}

struct Session {
    screen: Screen,
    terminal: Emulator,
    began: Instant,
    size: Size,
}

impl Session {
    fn new(columns: usize, rows: usize, showing: &Showing) -> Session {
        let began = Instant::now();
        Session {
            screen: Screen::new(Style::Coloured, showing, began),
            // What scrolls away may be longer than the window and wraps there.
            terminal: Emulator::new(1000),
            began,
            size: Size { columns, rows },
        }
    }

    fn at(&mut self, seconds: f64, events: Vec<Event>) {
        let now = self.began + Duration::from_secs_f64(seconds);
        let mut text = String::new();
        for event in events {
            self.screen.take(event, now, &mut text);
        }
        let frame = self.screen.frame(&text, self.size, now);
        self.terminal.write(&frame);
        assert!(
            self.screen
                .drawn
                .iter()
                .all(|columns| *columns < self.size.columns),
            "a line of the live area reaches the edge"
        );
        assert!(self.screen.drawn.len() < self.size.rows.max(1));
    }
}

fn started(number: u32, name: &str) -> Vec<Event> {
    let vertex = VertexId(number);
    vec![
        Event::Declared {
            vertex,
            name: name.to_owned(),
        },
        Event::Started { vertex },
    ]
}

fn output(number: u32, bytes: &[u8]) -> Event {
    Event::Output {
        vertex: VertexId(number),
        stream: Stream::Stdout,
        bytes: bytes.to_vec(),
    }
}

#[test]
fn a_layer_that_takes_time_to_pack_has_a_line_after_its_step() {
    let mut session = Session::new(60, 12, &Showing::default());
    let vertex = VertexId(0);
    let packed = |done| Event::Progress {
        vertex,
        what: "layer".to_owned(),
        done,
        total: 0,
    };
    session.at(0.0, started(0, "[1/2] COPY data /"));
    session.at(
        1.0,
        vec![Event::Finished { vertex }, Event::Packing { vertex }],
    );
    let finished = session.terminal.shown();
    assert!(!finished.contains("packing"), "{finished}");
    session.at(2.0, vec![packed(20_000_000)]);
    session.at(3.0, vec![packed(60_000_000)]);
    expect![[r#"
        DONE [1/2] COPY data / 1.0s
        building 3.0s: 1 running, 1 done, 0 cached
        > packing [1/2] COPY data /            60.0MB 40.0MB/s 2.0s
    "#]]
    .assert_eq(&session.terminal.shown());
    session.at(4.0, vec![Event::Packed { vertex }]);
    assert_eq!(session.terminal.shown(), finished);
}

#[test]
fn a_build_from_its_beginning_to_its_end() {
    let mut session = Session::new(60, 12, &Showing::default());
    session.at(
        0.0,
        vec![Event::Entered {
            rung: Rung::Ns,
            driver: StorageDriver::Overlay,
            reasons: Vec::new(),
        }],
    );
    session.at(0.0, started(0, "[a 2/3] RUN make"));
    session.at(0.0, started(1, "pull debian"));
    session.at(
        1.0,
        vec![
            Event::Missed {
                vertex: VertexId(0),
                reasons: vec![Reason::Command],
            },
            Event::Progress {
                vertex: VertexId(1),
                what: "layer".to_owned(),
                done: 1_000_000,
                total: 10_000_000,
            },
        ],
    );
    session.at(
        2.0,
        vec![Event::Progress {
            vertex: VertexId(1),
            what: "layer".to_owned(),
            done: 3_000_000,
            total: 10_000_000,
        }],
    );
    expect![[r#"
        sandbox: ns, store: overlay
        building 2.0s: 2 running, 0 done, 0 cached
        > [a 2/3] RUN make                                     2.0s
            not cached: the command changed
        > pull debian       3.00MB / 10.0MB 2.00MB/s 3.0s left 2.0s
    "#]]
    .assert_eq(&session.terminal.shown());
    session.at(
        3.0,
        vec![
            output(0, "one\ntwo\n\x1b[2J\x1b[31m日本\t語\n10%\r20%".as_bytes()),
            Event::Finished {
                vertex: VertexId(1),
            },
        ],
    );
    session.at(
        4.0,
        vec![Event::Failed {
            vertex: VertexId(0),
            message: "exit code 1".to_owned(),
        }],
    );
    session.screen.end();
    session.at(4.0, Vec::new());
    expect![[r#"
        sandbox: ns, store: overlay
        DONE pull debian 3.0s
        one
        two
        日本      語
        20%
        ERROR exit code 1 [a 2/3] RUN make 4.0s
             not cached: the command changed
    "#]]
    .assert_eq(&session.terminal.shown());
    assert_eq!(session.terminal.writes, 8, "one write for a frame");
}

#[test]
fn windows_share_the_height_and_no_line_reaches_the_edge() {
    for columns in [1, 2, 5, 20, 21, 80] {
        for rows in [1, 2, 3, 5, 10, 24] {
            let mut session = Session::new(columns, rows, &Showing::default());
            for number in 0..7 {
                session.at(
                    1.0,
                    started(number, "[build 1/9] RUN 日本語 make everything"),
                );
                let text = "日本語e\u{301}\tx".repeat(20) + "\n";
                let lines = text.repeat(9);
                session.at(
                    2.0,
                    vec![
                        output(number, lines.as_bytes()),
                        Event::Progress {
                            vertex: VertexId(number),
                            what: String::new(),
                            done: u64::MAX,
                            total: u64::MAX,
                        },
                    ],
                );
            }
            session.screen.end();
            session.at(3.0, Vec::new());
            assert_eq!(session.terminal.shown(), "", "{columns}x{rows}");
        }
    }
}

#[test]
fn a_window_that_became_narrower_leaves_nothing_behind() {
    let mut session = Session::new(80, 24, &Showing::default());
    session.at(0.0, started(0, &"x".repeat(200)));
    assert_eq!(session.screen.drawn.len(), 2);
    let drawn: usize = session
        .screen
        .drawn
        .iter()
        .map(|width| width.div_ceil(20))
        .sum();
    session.size.columns = 20;
    let frame = session.screen.frame("", session.size, session.began);
    assert!(frame.starts_with(&format!("\x1b[{drawn}A\r")), "{frame:?}");
}

#[test]
fn the_user_says_how_many_lines_a_window_has() {
    for (lines, expected) in [(Some(0), 0), (Some(2), 2), (None, WINDOW)] {
        let showing = Showing {
            log_lines: lines,
            ..Showing::default()
        };
        let mut session = Session::new(80, 24, &showing);
        session.at(0.0, started(0, "a"));
        session.at(0.0, vec![output(0, "line\n".repeat(30).as_bytes())]);
        assert_eq!(session.screen.drawn.len(), 2 + expected);
    }
}
