//! What a build looks like on a terminal: through a real one of the kernel's, at a fixed size.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};

use crate::support::lab::Lab;
use crate::support::terminal::Session;

/// Runs a build on a terminal; returns all that it wrote there and its exit code.
fn on_terminal(lab: &Lab, columns: u16, rows: u16, variables: &[(&str, &str)]) -> (String, i32) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(Some(&size), None).unwrap();
    let clone = |end: &OwnedFd| Stdio::from(end.try_clone().unwrap());
    let mut command = lab.command();
    command
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .args(["build", lab.context().to_str().unwrap()])
        .stderr(clone(&pty.slave))
        .stdout(Stdio::null());
    for (name, value) in variables {
        command.env(name, value);
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    drop(pty.slave);
    let mut written = Vec::new();
    let mut terminal = File::from(pty.master);
    let mut buffer = [0; 4096];
    // At its end a terminal gives an error.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        written.extend_from_slice(&buffer[..count]);
    }
    let code = child.wait().unwrap().code().unwrap();
    (String::from_utf8(written).unwrap(), code)
}

/// Asserts that a terminal shows nothing but lines and colours when all is over, and returns its lines.
fn lines_left(written: &str) -> Vec<String> {
    let mut rows: Vec<String> = vec![String::new()];
    let mut row = 0;
    let mut rest = written.chars();
    let mut column = 0;
    while let Some(c) = rest.next() {
        match c {
            '\n' => {
                row += 1;
                if row == rows.len() {
                    rows.push(String::new());
                }
            }
            '\r' => column = 0,
            '\x1b' => {
                assert_eq!(rest.next(), Some('['), "{written:?}");
                let mut number = String::new();
                let end = loop {
                    match rest.next().unwrap() {
                        c if c.is_ascii_digit() || c == ';' => number.push(c),
                        c => break c,
                    }
                };
                match end {
                    'A' => row -= number.parse::<usize>().unwrap(),
                    'K' => rows[row] = rows[row].chars().take(column).collect(),
                    'J' => {
                        rows.truncate(row + 1);
                        rows[row] = rows[row].chars().take(column).collect();
                    }
                    'm' => {}
                    other => panic!("`{other}` in {written:?}"),
                }
            }
            c => {
                let mut line: Vec<char> = rows[row].chars().collect();
                line.truncate(column);
                line.push(c);
                column += 1;
                rows[row] = line.into_iter().collect();
            }
        }
    }
    rows
}

#[test]
fn a_terminal_is_left_with_whole_lines_and_without_the_live_view() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\nRUN printf 'one\\ntwo\\n\\033[2J\\033[?25l\\r#9 forged' && echo x > /x\n",
    );
    for (columns, rows) in [(80, 24), (20, 5)] {
        lab.builder(&["prune", "--all"]);
        let (written, code) = on_terminal(&lab, columns, rows, &[]);
        assert_eq!(code, 0, "{written}");
        let lines = lines_left(&written);
        let text = lines.join("\n");
        assert!(text.contains("RUN printf"), "{text}");
        assert!(!text.contains("building "), "{text}");
        // It stands in the step's own text, and begins no line.
        assert!(!lines.iter().any(|line| line.starts_with("#9")), "{text}");
        assert!(written.contains("\x1b[32mDONE\x1b[0m"), "{written:?}");
        assert_eq!(lines.last().map(String::as_str), Some(""), "{text}");
    }
}

#[test]
fn a_window_that_becomes_smaller_is_followed() {
    let Some(lab) = Lab::with_base() else { return };
    let wide = "x".repeat(60);
    // The pauses are the step's own: there is a frame between its lines.
    lab.dockerfile(&format!(
        "FROM base\nRUN for i in $(seq 100 130); do echo line $i {wide}; sleep 0.1; done\n"
    ));
    let mut command = lab.command();
    command
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .args(["build", lab.context().to_str().unwrap()]);
    let mut terminal = Session::start(command);
    let before = terminal.shows("line 103");
    assert!(before.contains(&wide), "{before}");
    terminal.resize(8, 30);
    terminal.shows("line 110");
    let after = terminal.shows("line 120");
    let lines: Vec<&str> = after.split('\n').collect();
    // The first and the last are cut by the look itself; the rows in between are whole.
    for line in &lines[1..lines.len() - 1] {
        let line = line.replace('\r', "");
        let shown: String = line
            .split('\x1b')
            .enumerate()
            .map(|(at, part)| match at {
                0 => part,
                _ => part
                    .split_once(char::is_alphabetic)
                    .map_or("", |(_, text)| text),
            })
            .collect();
        assert!(shown.chars().count() < 30, "{shown:?} in a window of 30");
    }
    let (code, _) = terminal.ends();
    assert_eq!(code, Some(0));
}

#[test]
fn a_failed_step_shows_all_of_its_output_and_no_colour_where_none_is_wanted() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\nRUN i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; exit 3\n",
    );
    let (written, code) = on_terminal(&lab, 60, 10, &[("NO_COLOR", "1")]);
    assert_eq!(code, 5, "{written}");
    // What follows ESC and [, up to its letter: `m` is colour, `A` is three lines up.
    let mut sequences = written.split("\x1b[").skip(1);
    let is_colour = |rest: &str| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic());
        end.is_some_and(|at| rest[at..].starts_with('m'))
    };
    assert!(!sequences.any(is_colour), "{written:?}");
    let lines = lines_left(&written);
    for number in 0..300 {
        let line = format!("line {number}");
        assert!(lines.contains(&line), "{line} is missing");
    }
    assert!(lines.iter().any(|line| line.contains("exit code 3")));
}

#[test]
fn ci_systems_get_their_marks_and_the_dockerfile_below_the_workspace() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch\nCOYP a b\n");
    let context = lab.context();
    let mut command = lab.command();
    command
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_WORKSPACE", context.parent().unwrap())
        .args(["build", context.to_str().unwrap()]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("\n::error file=context/Dockerfile,line=2,endLine=2,title=builder::"),
        "{text}"
    );
    command.args(["--ci", "none"]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.contains("::error"), "{text}");
    // A check has them too, but for its JSON.
    lab.dockerfile("FROM scratch\nCMD x\n");
    let check = |call: &str| {
        let mut command = lab.command();
        command
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_WORKSPACE", context.parent().unwrap())
            .args(["build", call, context.to_str().unwrap()]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let text = check("--check");
    assert!(
        text.contains(
            "\n::warning file=context/Dockerfile,line=2,endLine=2,title=JSONArgsRecommended::"
        ),
        "{text}"
    );
    let json = check("--call=check,format=json");
    assert!(!json.contains("::warning"), "{json}");
}
