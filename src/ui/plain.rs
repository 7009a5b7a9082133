//! Complete plain text: every line of every step, prefixed with the step's number, as it comes.
//!
//! Where a CI system folds text, the lines of one step stand together (see `ci`).

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::vocab::{Event, EventSink, SourceText, Timestamp, VertexId};

use super::Showing;
use super::lines::{Line, Lines, clean_line};
use super::render::{Style, render};
use super::summary::summary_text;
use super::text::{elapsed, entered, found, missed, one_line};

/// A line that something takes the place of is shown when nothing else was for so long.
const PROGRESS: Duration = Duration::from_secs(1);
/// More than this does not wait for another step's end.
const WAITING_LIMIT: usize = 4 << 20;

pub(super) struct Plain<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    style: Style,
    showing: Showing,
    source: Option<SourceText>,
    vertices: BTreeMap<VertexId, Vertex>,
    /// Numbers are given when a vertex first has something to say.
    numbered: usize,
    folds: Folds,
}

#[derive(Default)]
struct Vertex {
    name: String,
    number: Option<usize>,
    started: Option<Instant>,
    lines: Lines,
    spoke: Option<Instant>,
}

/// Which section is open, and what waits for its end.
#[derive(Default)]
struct Folds {
    open: Option<(VertexId, usize)>,
    /// Sections that there were: names must not come twice.
    sections: usize,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    vertex: VertexId,
    text: String,
    is_over: bool,
}

impl<W: Write> Plain<W> {
    pub(super) fn new(out: W, style: Style, showing: &Showing) -> Plain<W> {
        let state = State {
            out,
            style,
            showing: showing.clone(),
            source: None,
            vertices: BTreeMap::new(),
            numbered: 0,
            folds: Folds::default(),
        };
        Plain {
            state: Mutex::new(state),
        }
    }
}

impl<W: Write + Send> EventSink for Plain<W> {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.take(event);
    }
}

impl<W: Write> State<W> {
    fn take(&mut self, event: Event) {
        match event {
            Event::Progress { .. }
            | Event::Planned(_)
            | Event::Packing { .. }
            | Event::Packed { .. } => {}
            Event::Entered {
                rung,
                driver,
                reasons,
            } => self.aside(&entered(rung, driver, &reasons)),
            Event::Source(source) => self.source = Some(source),
            Event::Declared { vertex, name } => {
                let declared = Vertex {
                    name: one_line(&name),
                    ..Vertex::default()
                };
                self.vertices.insert(vertex, declared);
            }
            Event::Started { vertex } => {
                let again = self
                    .vertices
                    .get(&vertex)
                    .is_some_and(|vertex| vertex.started.is_some());
                if !again {
                    self.headline(vertex);
                    if let Some(vertex) = self.vertices.get_mut(&vertex) {
                        vertex.started = Some(Instant::now());
                    }
                }
            }
            Event::Waiting { vertex, pid } => {
                self.headline(vertex);
                let holder = pid.map_or_else(
                    || "another build".to_owned(),
                    |pid| format!("process {pid}"),
                );
                self.line(
                    vertex,
                    &format!("waiting for {holder}, which computes the same step"),
                );
            }
            Event::Missed { vertex, reasons } => {
                let text = missed(&reasons, &self.showing);
                self.line(vertex, &text);
            }
            Event::Found {
                vertex,
                key,
                created,
            } => {
                let line = self.prefixed(vertex, &found(&key, created));
                self.aside(&line);
            }
            Event::Cached { vertex } => {
                self.headline(vertex);
                self.line(vertex, "CACHED\n");
                self.end(vertex);
            }
            Event::Output { vertex, bytes, .. } => self.output(vertex, &bytes),
            Event::Finished { vertex } => {
                self.end_output(vertex);
                let took = self.took(vertex);
                self.line(vertex, &format!("DONE {took}\n"));
                self.end(vertex);
            }
            Event::Failed { vertex, message } => {
                self.end_output(vertex);
                self.headline(vertex);
                self.line(vertex, &format!("ERROR: {}\n", one_line(&message)));
                self.end(vertex);
            }
            Event::Diagnostic(diagnostic) => {
                let text = render(&diagnostic, self.source.as_ref(), self.style);
                if diagnostic.is_error() {
                    self.fold_all();
                }
                self.aside(&text);
                let annotation = self
                    .showing
                    .ci
                    .annotation(&diagnostic, self.source.as_ref());
                if let Some(annotation) = annotation {
                    self.write(&annotation);
                }
            }
            Event::Done(summary) => {
                self.fold_all();
                let text = summary_text(&summary, self.showing.summary);
                self.aside(&text);
            }
        }
    }

    /// Writes as it is.
    fn write(&mut self, text: &str) {
        // A closed standard error has no other place to be told.
        drop(
            self.out
                .write_all(text.as_bytes())
                .and_then(|()| self.out.flush()),
        );
    }

    /// Makes lines of text ready to be written.
    fn ready(&self, text: &str) -> String {
        let text = self.showing.ci.harmless(text.to_owned());
        if !self.showing.timestamps {
            return text;
        }
        let now = timestamp();
        text.split_inclusive('\n')
            .map(|line| match line {
                "\n" => line.to_owned(),
                line => format!("{now} {line}"),
            })
            .collect()
    }

    /// Writes what belongs to no step, outside of all sections.
    fn aside(&mut self, text: &str) {
        self.close();
        let text = self.ready(text);
        self.write(&text);
    }

    /// Writes what a step says, or keeps it until it is the step's turn.
    fn say(&mut self, id: VertexId, text: &str) {
        let text = self.ready(text);
        if !self.showing.ci.folds() {
            return self.write(&text);
        }
        match self.folds.open {
            Some((open, _)) if open == id => return self.write(&text),
            None => {
                let waiting = std::mem::take(&mut self.folds.waiting);
                let (own, others): (VecDeque<_>, VecDeque<_>) = waiting
                    .into_iter()
                    .partition(|waiting| waiting.vertex == id);
                self.folds.waiting = others;
                self.open(id);
                for waiting in own {
                    self.write(&waiting.text);
                }
                return self.write(&text);
            }
            Some(_) => {}
        }
        let mut waiting = self.folds.waiting.iter_mut();
        let length = match waiting.find(|waiting| waiting.vertex == id && !waiting.is_over) {
            Some(waiting) => {
                waiting.text.push_str(&text);
                waiting.text.len()
            }
            None => {
                self.folds.waiting.push_back(Waiting {
                    vertex: id,
                    text,
                    is_over: false,
                });
                0
            }
        };
        if length > WAITING_LIMIT {
            self.close();
            self.next();
        }
    }

    fn open(&mut self, id: VertexId) {
        self.folds.sections += 1;
        let section = self.folds.sections;
        self.folds.open = Some((id, section));
        let name = self
            .vertices
            .get(&id)
            .map_or("", |vertex| vertex.name.as_str());
        let mark = self.showing.ci.open(section, name, SystemTime::now());
        self.write(&mark);
    }

    fn close(&mut self) {
        if let Some((_, section)) = self.folds.open.take() {
            let mark = self.showing.ci.close(section, SystemTime::now());
            self.write(&mark);
        }
    }

    /// A step has said its last word.
    fn end(&mut self, id: VertexId) {
        if !self.showing.ci.folds() {
            return;
        }
        if self.folds.open.is_some_and(|(open, _)| open == id) {
            self.close();
            self.next();
        } else {
            for waiting in &mut self.folds.waiting {
                waiting.is_over |= waiting.vertex == id;
            }
            if self.folds.open.is_none() {
                self.next();
            }
        }
    }

    /// Writes what waited of steps that are over; then the next step that is not speaks.
    fn next(&mut self) {
        let waiting = std::mem::take(&mut self.folds.waiting);
        let (over, going): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|waiting| waiting.is_over);
        for waiting in over {
            self.open(waiting.vertex);
            self.write(&waiting.text);
            self.close();
        }
        self.folds.waiting = going;
        if let Some(waiting) = self.folds.waiting.pop_front() {
            self.open(waiting.vertex);
            self.write(&waiting.text);
        }
    }

    /// Writes all that waits.
    fn fold_all(&mut self) {
        self.close();
        while !self.folds.waiting.is_empty() {
            self.next();
            self.close();
        }
    }

    /// Gives a vertex its number and writes its name, once.
    fn headline(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        if vertex.number.is_none() {
            self.numbered += 1;
            vertex.number = Some(self.numbered);
            let text = format!("#{} {}\n", self.numbered, vertex.name);
            self.say(id, &text);
        }
    }

    fn prefixed(&self, id: VertexId, text: &str) -> String {
        let vertex = self.vertices.get(&id);
        let number = vertex.and_then(|vertex| vertex.number).unwrap_or_default();
        format!("#{number} {text}\n")
    }

    fn line(&mut self, id: VertexId, text: &str) {
        let line = self.prefixed(id, text);
        self.say(id, &line);
    }

    fn took(&self, id: VertexId) -> String {
        let started = self.vertices.get(&id).and_then(|vertex| vertex.started);
        started
            .map(|started| elapsed(started.elapsed()))
            .unwrap_or_default()
    }

    fn output(&mut self, id: VertexId, bytes: &[u8]) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        let now = Instant::now();
        let mut text = String::new();
        for line in vertex.lines.push(bytes) {
            let is_shown = !line.is_replaced
                || vertex
                    .spoke
                    .or(vertex.started)
                    .is_none_or(|spoke| now.saturating_duration_since(spoke) >= PROGRESS);
            if is_shown {
                vertex.spoke = Some(now);
                text.push_str(&vertex.output_line(&line));
            }
        }
        if !text.is_empty() {
            self.say(id, &text);
        }
    }

    fn end_output(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        if let Some(line) = vertex.lines.finish() {
            let text = vertex.output_line(&line);
            self.say(id, &text);
        }
    }
}

impl Vertex {
    fn output_line(&self, line: &Line) -> String {
        let since = self
            .started
            .map(|started| started.elapsed().as_secs_f64())
            .unwrap_or_default();
        format!(
            "#{} {since:.3} {}\n",
            self.number.unwrap_or_default(),
            clean_line(&line.bytes, true)
        )
    }
}

/// Returns the present moment to the millisecond.
fn timestamp() -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let whole = Timestamp::from_seconds(since.as_secs() as i64).to_string();
    format!(
        "{}.{:03}Z",
        whole.trim_end_matches('Z'),
        since.subsec_millis()
    )
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
