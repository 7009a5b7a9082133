//! What the live view shows: a frame is made of the state of the build, the size of the window and the time.
//!
//! Finished steps become ordinary text that scrolls away; running ones stay below it, each with a headline and a window of its last
//! lines. The windows share the height. No line is as wide as the window, so that none wraps.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::vocab::{Event, Reason, SourceText, VertexId, reasons_text};

use super::Showing;
use super::colours::Colours;
use super::lines::{Lines, clean_line, without_tabs};
use super::render::{Style, clean, render};
use super::summary::summary_text;
use super::text::{elapsed, entered, found, one_line, size};
use super::width::{cut, fit, width};

/// Lines of a running step's output that are shown, where the user says nothing.
const WINDOW: usize = 6;
/// Lines that are kept for the window, which may grow.
const KEPT_LINES: usize = 64;
/// Output of a failed step is shown whole up to this many bytes, its end beyond.
const LOG_LIMIT: usize = 16 << 20;
/// How long a layer is packed before that is shown.
const PACKING_SHOWN: Duration = Duration::from_millis(300);
/// The time over which a rate is measured.
const RATE: Duration = Duration::from_secs(5);

pub(super) struct Screen {
    style: Style,
    colours: Colours,
    showing: Showing,
    source: Option<SourceText>,
    vertices: BTreeMap<VertexId, Vertex>,
    began: Instant,
    cached: usize,
    done: usize,
    /// The columns of the lines of the live area as drawn.
    drawn: Vec<usize>,
    over: bool,
}

#[derive(Default)]
struct Vertex {
    name: String,
    running: Option<Instant>,
    waiting: Option<String>,
    /// What runs is the packing of its layer.
    is_packing: bool,
    reasons: Vec<Reason>,
    lines: VecDeque<String>,
    output: Lines,
    /// All output, for the case that the step fails.
    log: VecDeque<u8>,
    /// Bytes of the log that are gone.
    lost: u64,
    progress: BTreeMap<String, (u64, u64)>,
    /// When how many bytes were done.
    samples: VecDeque<(Instant, u64)>,
}

/// Columns and rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Screen {
    pub(super) fn new(style: Style, showing: &Showing, now: Instant) -> Screen {
        Screen {
            style,
            colours: Colours::parse(&showing.colours),
            showing: showing.clone(),
            source: None,
            vertices: BTreeMap::new(),
            began: now,
            cached: 0,
            done: 0,
            drawn: Vec::new(),
            over: false,
        }
    }

    /// Changes the state; what scrolls away is added to `text`.
    pub(super) fn take(&mut self, event: Event, now: Instant, text: &mut String) {
        match event {
            Event::Entered {
                rung,
                driver,
                reasons,
            } => text.push_str(&entered(rung, driver, &reasons)),
            Event::Source(source) => self.source = Some(source),
            Event::Planned(_) => {}
            // After its step has scrolled away.
            Event::Packing { vertex } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.running = Some(now);
                    vertex.is_packing = true;
                }
            }
            Event::Packed { vertex } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.end();
                }
            }
            Event::Declared { vertex, name } => {
                let state = Vertex {
                    name: one_line(&name),
                    ..Vertex::default()
                };
                self.vertices.insert(vertex, state);
            }
            Event::Started { vertex } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.waiting = None;
                    vertex.running.get_or_insert(now);
                }
            }
            Event::Waiting { vertex, pid } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.running.get_or_insert(now);
                    let holder = pid.map_or_else(
                        || "another build".to_owned(),
                        |pid| format!("process {pid}"),
                    );
                    vertex.waiting = Some(format!("waiting for {holder}"));
                }
            }
            Event::Missed { vertex, reasons } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.reasons = reasons;
                }
            }
            Event::Found {
                vertex,
                key,
                created,
            } => {
                if let Some(vertex) = self.vertices.get(&vertex) {
                    text.push_str(&format!("{}: {}\n", vertex.name, found(&key, created)));
                }
            }
            Event::Cached { vertex } => {
                self.cached += 1;
                let colour = self.colours.cached.clone();
                self.scroll(vertex, &colour, "CACHED", now, text);
            }
            Event::Finished { vertex } => {
                self.done += 1;
                let colour = self.colours.done.clone();
                self.scroll(vertex, &colour, "DONE", now, text);
            }
            Event::Failed { vertex, message } => {
                if let Some(vertex) = self.vertices.get_mut(&vertex) {
                    vertex.show_log(self.style, text);
                }
                let state = format!("ERROR {}", one_line(&message));
                let colour = self.colours.error.clone();
                self.scroll(vertex, &colour, &state, now, text);
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
                    vertex.progress(what, done, total, now);
                }
            }
            Event::Diagnostic(diagnostic) => {
                text.push_str(&render(&diagnostic, self.source.as_ref(), self.style));
            }
            Event::Done(summary) => {
                text.push_str(&summary_text(&summary, self.showing.summary));
            }
        }
    }

    /// Ends the live area: the next frame has none.
    pub(super) fn end(&mut self) {
        self.over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Returns the bytes that turn the last frame into the next one, with `text` above it.
    pub(super) fn frame(&mut self, text: &str, size: Size, now: Instant) -> String {
        let mut frame = String::new();
        // A window that became narrower has wrapped what was drawn.
        let up: usize = self
            .drawn
            .iter()
            .map(|columns| columns.div_ceil(size.columns.max(1)).max(1))
            .sum();
        if up > 0 {
            frame.push_str(&format!("\x1b[{up}A\r"));
        }
        let lines = match self.over {
            true => Vec::new(),
            false => self.live(size, now),
        };
        // Each line clears what was right of it; nothing is blank in between.
        for line in text.split_inclusive('\n') {
            frame.push_str(line.strip_suffix('\n').unwrap_or(line));
            frame.push_str(match up {
                0 => "\n",
                _ => "\x1b[K\n",
            });
        }
        for (line, colour) in &lines {
            let painted = match colour {
                Some(code) => self.style.paint(code, line),
                None => line.clone(),
            };
            frame.push_str(&painted);
            frame.push_str(match up {
                0 => "\n",
                _ => "\x1b[K\n",
            });
        }
        if up > 0 {
            frame.push_str("\x1b[J");
        }
        self.drawn = lines.iter().map(|(line, _)| width(line)).collect();
        frame
    }

    /// Returns the lines of the live area with their colours; all narrower than the window, and fewer than it has rows.
    fn live(&self, size: Size, now: Instant) -> Vec<(String, Option<&'static str>)> {
        let columns = size.columns.saturating_sub(1);
        let rows = size.rows.saturating_sub(1);
        let running: Vec<(&Vertex, Instant)> = self
            .vertices
            .values()
            .filter(|vertex| vertex.is_shown(now))
            .filter_map(|vertex| Some((vertex, vertex.running?)))
            .collect();
        if running.is_empty() || rows == 0 {
            return Vec::new();
        }
        let mut lines = Vec::new();
        let clock = elapsed(now.saturating_duration_since(self.began));
        let status = format!(
            "building {clock}: {} running, {} done, {} cached",
            running.len(),
            self.done,
            self.cached
        );
        if rows > running.len() {
            lines.push((cut(&status, columns), Some("1")));
        }
        let heads = running.len().min(rows.saturating_sub(lines.len()));
        let mut left = rows.saturating_sub(lines.len() + heads);
        let most = self.showing.log_lines.unwrap_or(WINDOW).min(KEPT_LINES);
        for (at, (vertex, since)) in running.iter().enumerate() {
            if at + 1 == heads && running.len() > heads {
                let more = format!("… and {} more", running.len() - at);
                lines.push((cut(&more, columns), None));
                break;
            }
            lines.push((vertex.headline(*since, now, columns), None));
            let share = left / (running.len() - at);
            let window = vertex.window(share.min(most));
            left -= window.len();
            for line in window {
                lines.push((cut(&format!("    {line}"), columns), Some("2")));
            }
        }
        lines
    }

    fn scroll(&mut self, id: VertexId, colour: &str, state: &str, now: Instant, text: &mut String) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        let took = vertex.running.map_or_else(String::new, |started| {
            format!(" {}", elapsed(now.saturating_duration_since(started)))
        });
        text.push_str(&format!(
            "{} {}{took}\n",
            self.style.paint(colour, state),
            vertex.name
        ));
        if !vertex.reasons.is_empty() {
            let why = one_line(&reasons_text(&vertex.reasons, self.showing.files()));
            text.push_str(&self.style.paint("2", &format!("     not cached: {why}")));
            text.push('\n');
        }
        vertex.end();
    }
}

impl Vertex {
    /// Forgets all but the name.
    fn end(&mut self) {
        *self = Vertex {
            name: std::mem::take(&mut self.name),
            ..Vertex::default()
        };
    }

    /// Tells whether it is worth a line: layers that are packed in no time would only flicker.
    fn is_shown(&self, now: Instant) -> bool {
        let long = |since| now.saturating_duration_since(since) >= PACKING_SHOWN;
        self.running
            .is_some_and(|since| !self.is_packing || long(since))
    }

    fn output(&mut self, bytes: &[u8]) {
        self.log.extend(bytes);
        let excess = self.log.len().saturating_sub(LOG_LIMIT);
        self.log.drain(..excess);
        self.lost += excess as u64;
        for line in self.output.push(bytes) {
            let line = without_tabs(&clean_line(&line.bytes, false));
            if line.is_empty() {
                continue;
            }
            if self.lines.len() == KEPT_LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }

    fn progress(&mut self, what: String, done: u64, total: u64, now: Instant) {
        self.progress.insert(what, (done, total));
        let (done, _) = self.bytes();
        self.samples.push_back((now, done));
        while self.samples.len() > 2 && now.saturating_duration_since(self.samples[0].0) > RATE {
            self.samples.pop_front();
        }
    }

    /// Returns how many bytes are done, of how many.
    fn bytes(&self) -> (u64, u64) {
        self.progress.values().fold((0, 0), |sum, part| {
            (
                sum.0.saturating_add(part.0),
                sum.1.saturating_add(part.1.max(part.0)),
            )
        })
    }

    /// Returns the last lines, the one that is being written among them.
    fn window(&self, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let open = without_tabs(&clean_line(self.output.open(), false));
        let has_output = !self.lines.is_empty() || !open.is_empty();
        if !has_output && !self.reasons.is_empty() {
            let why = one_line(&reasons_text(&self.reasons, 3));
            lines.push(format!("not cached: {why}"));
        }
        lines.extend(self.lines.iter().cloned());
        if !open.is_empty() {
            lines.push(open);
        }
        lines.split_off(lines.len().saturating_sub(most))
    }

    fn headline(&self, since: Instant, now: Instant, columns: usize) -> String {
        let clock = elapsed(now.saturating_duration_since(since));
        let mut tail = String::new();
        if let Some(waiting) = &self.waiting {
            tail = format!("({waiting})");
        }
        let doing = match self.is_packing {
            true => "packing ",
            false => "",
        };
        let (done, total) = self.bytes();
        if total > 0 {
            tail = match total > done {
                true => format!("{} / {}", size(done), size(total)),
                false => size(done),
            };
            if let Some(rate) = self.rate(now) {
                tail.push_str(&format!(" {}/s", size(rate as u64)));
                if total > done {
                    let left = Duration::from_secs((total - done) / (rate as u64).max(1));
                    tail.push_str(&format!(" {} left", elapsed(left)));
                }
            }
        }
        let tail = match tail.is_empty() {
            true => clock,
            false => format!("{tail} {clock}"),
        };
        // In a narrow window the name matters more than figures.
        let tail = match width(&tail) + 12 > columns {
            true => String::new(),
            false => tail,
        };
        let room = columns.saturating_sub(width(&tail) + 1);
        let name = format!("> {doing}{}", self.name);
        match tail.is_empty() {
            true => cut(&name, columns),
            false => format!("{} {tail}", fit(&name, room)),
        }
    }

    /// Returns bytes per second over the last seconds.
    fn rate(&self, now: Instant) -> Option<f64> {
        let (since, before) = *self.samples.front()?;
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        let (done, _) = self.bytes();
        let rate = done.saturating_sub(before) as f64 / seconds;
        (seconds >= 0.5 && rate >= 1.0).then_some(rate)
    }

    fn show_log(&mut self, style: Style, text: &mut String) {
        if self.lost > 0 {
            let lost = size(self.lost);
            text.push_str(&clean(&format!("… {lost} of output before this\n")));
        }
        let mut lines = Lines::default();
        let log: &[u8] = self.log.make_contiguous();
        let mut whole: Vec<_> = lines.push(log);
        whole.extend(lines.finish());
        for line in whole.iter().filter(|line| !line.is_replaced) {
            text.push_str(&without_tabs(&clean_line(
                &line.bytes,
                style == Style::Coloured,
            )));
            text.push('\n');
        }
    }
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
