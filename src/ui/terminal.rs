//! The live view: finished steps scroll away as lines, running ones stay at the bottom with a clock and their last lines.
//!
//! The live area is redrawn in place by moving the cursor up over it; everything above it is ordinary scrolled text, so a resize
//! or a copy loses nothing. The clock's thread starts only when threads may exist.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::vocab::{Event, EventSink, SourceText, VertexId};

use super::plain::summary_text;
use super::render::{Style, clean, render};
use super::text::{elapsed, entered, size};

/// Lines of a running step's output that are shown.
const WINDOW: usize = 6;
/// Time between two drawings.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Terminal {
    shared: Arc<Shared>,
    clock: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    screen: Mutex<Screen>,
    ended: Condvar,
}

struct Screen {
    style: Style,
    source: Option<SourceText>,
    vertices: BTreeMap<VertexId, Vertex>,
    /// Lines of the live area as drawn.
    drawn: usize,
    over: bool,
}

struct Vertex {
    name: String,
    running: Option<Instant>,
    waiting: Option<String>,
    lines: VecDeque<String>,
    open: Vec<u8>,
    /// All output, for the case that the step fails.
    log: Vec<u8>,
    progress: BTreeMap<String, (u64, u64)>,
}

/// Output of a failed step is shown whole up to this many bytes, its end beyond.
const LOG_LIMIT: usize = 1 << 20;

impl Terminal {
    pub(super) fn new(style: Style) -> Terminal {
        let screen = Screen {
            style,
            source: None,
            vertices: BTreeMap::new(),
            drawn: 0,
            over: false,
        };
        let shared = Arc::new(Shared {
            screen: Mutex::new(screen),
            ended: Condvar::new(),
        });
        Terminal {
            shared,
            clock: Mutex::new(None),
        }
    }

    fn start_clock(&self) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if clock.is_some() {
            return;
        }
        let shared = self.shared.clone();
        *clock = Some(std::thread::spawn(move || {
            let mut screen = shared.screen.lock().unwrap_or_else(PoisonError::into_inner);
            while !screen.over {
                screen = shared
                    .ended
                    .wait_timeout(screen, TICK)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                if !screen.over {
                    let mut text = String::new();
                    screen.erase(&mut text);
                    screen.draw(&mut text);
                    write(&text);
                }
            }
        }));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        {
            let mut screen = self
                .shared
                .screen
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let mut text = String::new();
            screen.erase(&mut text);
            write(&text);
            screen.over = true;
        }
        self.shared.ended.notify_all();
        if let Some(clock) = self
            .clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            // A clock that panicked has nothing left to say.
            drop(clock.join());
        }
    }
}

impl EventSink for Terminal {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Entered { .. }) {
            self.start_clock();
        }
        let screen = &mut *self
            .shared
            .screen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        screen.erase(&mut text);
        screen.take(event, &mut text);
        screen.draw(&mut text);
        write(&text);
    }
}

impl Screen {
    /// Changes the state; what scrolls away is added to `text`.
    fn take(&mut self, event: Event, text: &mut String) {
        match event {
            Event::Entered {
                rung,
                driver,
                reasons,
            } => text.push_str(&entered(rung, driver, &reasons)),
            Event::Source(source) => self.source = Some(source),
            Event::Declared { vertex, name } => {
                let vertex_state = Vertex {
                    name: clean(&name).replace('\n', " "),
                    running: None,
                    waiting: None,
                    lines: VecDeque::new(),
                    open: Vec::new(),
                    log: Vec::new(),
                    progress: BTreeMap::new(),
                };
                self.vertices.insert(vertex, vertex_state);
            }
            Event::Started { vertex } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.waiting = None;
                    vertex.running.get_or_insert_with(Instant::now);
                }
            }
            Event::Waiting { vertex, pid } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.running.get_or_insert_with(Instant::now);
                    let holder = pid.map_or_else(
                        || "another build".to_owned(),
                        |pid| format!("process {pid}"),
                    );
                    vertex.waiting = Some(format!("waiting for {holder}"));
                }
            }
            Event::Cached { vertex } => self.scroll(vertex, "36", "CACHED", text),
            Event::Finished { vertex } => self.scroll(vertex, "32", "DONE", text),
            Event::Failed { vertex, message } => {
                if let Some(state) = self.vertices.get(&vertex)
                    && !state.log.is_empty()
                {
                    text.push_str(&String::from_utf8_lossy(&state.log));
                    if !state.log.ends_with(b"\n") {
                        text.push('\n');
                    }
                }
                self.scroll(vertex, "31", &format!("ERROR {}", clean(&message)), text);
            }
            Event::Output { vertex, bytes, .. } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.output(&bytes);
                }
            }
            Event::Progress {
                vertex,
                what,
                done,
                total,
            } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.progress.insert(what, (done, total));
                }
            }
            Event::Diagnostic(diagnostic) => {
                text.push_str(&render(&diagnostic, self.source.as_ref(), self.style))
            }
            Event::Done(summary) => text.push_str(&summary_text(&summary)),
        }
    }

    fn scroll(&mut self, id: VertexId, colour: &str, state: &str, text: &mut String) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        let took = vertex
            .running
            .map(|started| format!(" {}", elapsed(started.elapsed())))
            .unwrap_or_default();
        text.push_str(&format!(
            "{} {}{took}\n",
            self.style.paint(colour, state),
            vertex.name
        ));
        vertex.running = None;
        vertex.log = Vec::new();
        vertex.lines.clear();
        vertex.progress.clear();
    }

    fn erase(&mut self, text: &mut String) {
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[0J", self.drawn));
            self.drawn = 0;
        }
    }

    fn draw(&mut self, text: &mut String) {
        if self.over {
            return;
        }
        let (width, height) = window_size();
        let mut lines = Vec::new();
        for vertex in self.vertices.values() {
            let Some(started) = vertex.running else {
                continue;
            };
            let mut head = format!("> {}", vertex.name);
            if let Some(waiting) = &vertex.waiting {
                head.push_str(&format!(" ({waiting})"));
            }
            let (done, total) = vertex
                .progress
                .values()
                .fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
            if total > 0 {
                head.push_str(&format!(" {} / {}", size(done), size(total)));
            }
            let clock = elapsed(started.elapsed());
            let room = width.saturating_sub(clock.len() + 2);
            lines.push(format!("{:room$} {clock}", cut(&head, room)));
            for line in &vertex.lines {
                lines.push(
                    self.style
                        .paint("2", &cut(&format!("    {line}"), width.saturating_sub(1))),
                );
            }
        }
        // Never more than the window: lines above it could not be erased.
        let fits = height.saturating_sub(1).max(1);
        if lines.len() > fits {
            lines.drain(..lines.len() - fits);
        }
        self.drawn = lines.len();
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }
}

impl Vertex {
    fn output(&mut self, bytes: &[u8]) {
        self.log.extend_from_slice(bytes);
        if self.log.len() > 2 * LOG_LIMIT {
            self.log.drain(..self.log.len() - LOG_LIMIT);
        }
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    let line = plain_line(&self.open);
                    self.open.clear();
                    if !line.is_empty() {
                        if self.lines.len() == WINDOW {
                            self.lines.pop_front();
                        }
                        self.lines.push_back(line);
                    }
                }
                _ if self.open.len() < 4096 => self.open.push(byte),
                _ => {}
            }
        }
    }
}

/// Returns a line of output without escape sequences and other control characters.
fn plain_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut line = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\x1b' => {
                if characters.next() == Some('[') {
                    for c in characters.by_ref() {
                        if ('@'..='~').contains(&c) {
                            break;
                        }
                    }
                }
            }
            '\t' => line.push_str("    "),
            c if c.is_control() => {}
            c => line.push(c),
        }
    }
    line
}

/// Cuts text to a number of columns; wide characters count two.
fn cut(text: &str, columns: usize) -> String {
    let mut used = 0;
    let mut cut = String::new();
    for c in text.chars() {
        let width = if is_wide(c) { 2 } else { 1 };
        if used + width > columns {
            break;
        }
        used += width;
        cut.push(c);
    }
    cut
}

/// East Asian wide blocks and emoji, roughly: enough to keep a line from wrapping.
fn is_wide(c: char) -> bool {
    matches!(u32::from(c), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd)
}

fn window_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

fn write(text: &str) {
    if !text.is_empty() {
        // A closed standard error has no other place to be told.
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_window() {
        assert_eq!(plain_line(b"\x1b[31mred\x1b[0m\x07 end"), "red end");
    }

    #[test]
    fn wide_characters_count_two() {
        assert_eq!(cut("日本語", 5), "日本");
        assert_eq!(cut("abc", 5), "abc");
    }
}
