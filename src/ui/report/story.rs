//! What is known of a build, in the order in which it is told.

use std::collections::BTreeMap;
use std::thread::ThreadId;
use std::time::Instant;

use crate::vocab::{
    CacheKey, Chart, Diagnostic, Event, Reason, SourceText, Summary, Timestamp, VertexId,
};

use super::super::text::one_line;
use super::log::{self, Log};

/// Tasks around the steps have numbers from here on.
const TASKS: u32 = 1 << 24;
/// Figures of a digest that tell it from others.
const SHORT: usize = 12;

/// A build as far as it has come.
#[derive(Debug)]
pub(super) struct Story {
    began: Instant,
    pub(super) source: Option<SourceText>,
    /// The sandbox, the storage driver, and why not better ones.
    pub(super) entered: Option<(String, String, Vec<String>)>,
    pub(super) chart: Chart,
    pub(super) rows: BTreeMap<VertexId, Row>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) summary: Option<Summary>,
    pub(super) threads: Vec<ThreadId>,
    /// Bytes of logs since they were last made to fit.
    unfitted: usize,
}

/// One line of work.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) state: State,
    /// In seconds since the build began, as all times.
    pub(super) started: Option<f64>,
    pub(super) ended: Option<f64>,
    pub(super) packing: Option<(f64, f64)>,
    /// Places in [`Story::threads`]; of the work, and of the packing.
    pub(super) thread: Option<usize>,
    pub(super) packing_thread: Option<usize>,
    /// When it began to wait for another process' result, and whose.
    pub(super) waited: Option<(f64, Option<u32>)>,
    pub(super) reasons: Vec<Reason>,
    pub(super) found: Option<(CacheKey, Timestamp)>,
    pub(super) message: Option<String>,
    pub(super) log: Log,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Never begun.
    #[default]
    Declared,
    /// Begun and not ended.
    Started,
    Cached,
    Done,
    Failed,
}

impl Story {
    pub(super) fn new(began: Instant) -> Story {
        Story {
            began,
            source: None,
            entered: None,
            chart: Chart::default(),
            rows: BTreeMap::new(),
            diagnostics: Vec::new(),
            summary: None,
            threads: Vec::new(),
            unfitted: 0,
        }
    }

    /// Takes what happens now, in this thread.
    pub(super) fn take(&mut self, event: &Event) {
        self.take_at(event, self.elapsed(), std::thread::current().id());
    }

    pub(super) fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(super) fn take_at(&mut self, event: &Event, now: f64, thread: ThreadId) {
        match event {
            Event::Source(source) => self.source = Some(source.clone()),
            Event::Planned(chart) => self.chart = chart.clone(),
            Event::Entered {
                rung,
                driver,
                reasons,
            } => {
                let names = (rung.name().to_owned(), driver.name().to_owned());
                self.entered = Some((names.0, names.1, reasons.clone()));
            }
            Event::Declared { vertex, name } => {
                let row = Row {
                    name: one_line(name),
                    ..Row::default()
                };
                self.rows.insert(*vertex, row);
            }
            Event::Started { vertex } => {
                let thread = self.thread(thread);
                let row = self.row(*vertex);
                row.started.get_or_insert(now);
                row.thread = Some(thread);
                row.state = State::Started;
            }
            Event::Waiting { vertex, pid } => self.row(*vertex).waited = Some((now, *pid)),
            Event::Missed { vertex, reasons } => self.row(*vertex).reasons = reasons.clone(),
            Event::Found {
                vertex,
                key,
                created,
            } => self.row(*vertex).found = Some((*key, *created)),
            Event::Cached { vertex } => {
                let row = self.row(*vertex);
                (row.state, row.ended) = (State::Cached, Some(now));
            }
            Event::Finished { vertex } => {
                let row = self.row(*vertex);
                row.log.finish();
                (row.state, row.ended) = (State::Done, Some(now));
            }
            Event::Failed { vertex, message } => {
                let row = self.row(*vertex);
                row.log.finish();
                (row.state, row.ended) = (State::Failed, Some(now));
                row.message = Some(message.clone());
            }
            Event::Packing { vertex } => {
                let thread = self.thread(thread);
                let row = self.row(*vertex);
                row.packing = Some((now, now));
                row.packing_thread = Some(thread);
            }
            Event::Packed { vertex } => {
                if let Some((_, end)) = &mut self.row(*vertex).packing {
                    *end = now;
                }
            }
            Event::Output { vertex, bytes, .. } => {
                self.row(*vertex).log.push(bytes);
                self.unfitted += bytes.len();
                if self.unfitted > log::ALL / 8 {
                    self.fit();
                }
            }
            Event::Progress { .. } => {}
            Event::Diagnostic(diagnostic) => self.diagnostics.push(diagnostic.clone()),
            Event::Done(summary) => self.summary = Some(summary.clone()),
        }
    }

    fn fit(&mut self) {
        self.unfitted = 0;
        let rows = std::cell::RefCell::new(&mut self.rows);
        log::fit(|each| {
            for row in rows.borrow_mut().values_mut() {
                each(&mut row.log);
            }
        });
    }

    /// Ends what has not ended: nothing is going to happen any more.
    pub(super) fn end(&mut self) {
        for row in self.rows.values_mut() {
            row.log.finish();
        }
        self.fit();
    }

    fn row(&mut self, vertex: VertexId) -> &mut Row {
        self.rows.entry(vertex).or_default()
    }

    fn thread(&mut self, thread: ThreadId) -> usize {
        let known = self.threads.iter().position(|known| *known == thread);
        known.unwrap_or_else(|| {
            self.threads.push(thread);
            self.threads.len() - 1
        })
    }

    /// Returns the errors that the build ended with, each once.
    pub(super) fn errors(&self) -> Vec<&Diagnostic> {
        let mut errors: Vec<&Diagnostic> = Vec::new();
        for diagnostic in self.diagnostics.iter().filter(|found| found.is_error()) {
            if !errors
                .iter()
                .any(|known| known.message == diagnostic.message)
            {
                errors.push(diagnostic);
            }
        }
        errors
    }

    /// Returns what is worth a line: bases that were there already are not.
    pub(super) fn shown(&self) -> impl Iterator<Item = (VertexId, &Row)> {
        let is_base = |vertex: &VertexId| {
            let step = self.chart.steps.get(vertex.0 as usize);
            let stage = step.and_then(|step| self.chart.stages.get(step.stage?));
            stage.is_some_and(|stage| stage.is_base)
        };
        self.rows
            .iter()
            .filter(move |(vertex, row)| {
                !(row.state == State::Declared && (is_task(**vertex) || is_base(vertex)))
            })
            .map(|(vertex, row)| (*vertex, row))
    }

    /// Returns when all that a step needs was there, and the step that came last; sources are there from the beginning.
    pub(super) fn ready(&self, vertex: VertexId) -> Option<(VertexId, f64)> {
        let step = self.chart.steps.get(vertex.0 as usize)?;
        let mut last: Option<(VertexId, f64)> = None;
        for (need, _) in &step.needs {
            let Some(row) = self.rows.get(need) else {
                continue;
            };
            if let (State::Done | State::Cached, Some(ended)) = (row.state, row.ended)
                && last.is_none_or(|(_, end)| end < ended)
            {
                last = Some((*need, ended));
            }
        }
        last
    }
}

impl Row {
    /// Returns how long it took, where it was begun.
    pub(super) fn took(&self, now: f64) -> Option<f64> {
        match self.state {
            State::Cached | State::Declared => None,
            _ => Some((self.ended.unwrap_or(now) - self.started?).max(0.0)),
        }
    }

    /// Returns the name in short: what stands in brackets, or the first word.
    pub(super) fn short(&self) -> &str {
        short(&self.name)
    }
}

/// Returns a step's name in short.
pub(super) fn short(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((place, _)) => place,
        None => name.split(' ').next().unwrap_or(name),
    }
}

/// Returns a step's instruction, without its place, and with digests in short.
pub(super) fn instruction(name: &str) -> String {
    brief(name.split_once("] ").map_or(name, |(_, text)| text))
}

/// Returns a name with digests in short, and Docker Hub's names as people write them.
pub(super) fn brief(name: &str) -> String {
    let name = name.replace("docker.io/library/", "");
    let mut parts = name.split("sha256:");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let figures = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        text.push_str("sha256:");
        match figures {
            64 => text.push_str(&format!("{}…{}", &part[..SHORT], &part[figures..])),
            _ => text.push_str(part),
        }
    }
    text
}

pub(super) fn is_task(vertex: VertexId) -> bool {
    vertex.0 >= TASKS
}
