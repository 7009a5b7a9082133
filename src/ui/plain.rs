//! Complete plain text: every line of every step, prefixed with the step's number, as it comes.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::vocab::{Event, EventSink, SourceText, Summary, VertexId};

use super::render::{Style, clean, render};
use super::text::{elapsed, entered, size};

/// A line that does not end is shown in pieces of this many bytes.
const LINE_LIMIT: usize = 64 << 10;

pub(super) struct Plain<W> {
    state: Mutex<State<W>>,
    style: Style,
}

struct State<W> {
    out: W,
    source: Option<SourceText>,
    vertices: BTreeMap<VertexId, Vertex>,
    /// Numbers are given when a vertex first has something to say.
    numbered: usize,
}

struct Vertex {
    name: String,
    number: Option<usize>,
    started: Option<Instant>,
    line: Vec<u8>,
}

impl<W: Write> Plain<W> {
    pub(super) fn new(out: W, style: Style) -> Plain<W> {
        let state = State {
            out,
            source: None,
            vertices: BTreeMap::new(),
            numbered: 0,
        };
        Plain {
            state: Mutex::new(state),
            style,
        }
    }
}

impl<W: Write + Send> EventSink for Plain<W> {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Progress { .. } => {}
            Event::Entered {
                rung,
                driver,
                reasons,
            } => state.write(&entered(rung, driver, &reasons)),
            Event::Source(source) => state.source = Some(source),
            Event::Declared { vertex, name } => {
                state.vertices.insert(
                    vertex,
                    Vertex {
                        name,
                        number: None,
                        started: None,
                        line: Vec::new(),
                    },
                );
            }
            Event::Started { vertex } => {
                let again = state
                    .vertices
                    .get(&vertex)
                    .is_some_and(|vertex| vertex.started.is_some());
                if !again {
                    state.headline(vertex);
                    if let Some(vertex) = state.vertices.get_mut(&vertex) {
                        vertex.started = Some(Instant::now());
                    }
                }
            }
            Event::Waiting { vertex, pid } => {
                state.headline(vertex);
                let holder = pid.map_or_else(
                    || "another build".to_owned(),
                    |pid| format!("process {pid}"),
                );
                state.line(
                    vertex,
                    &format!("waiting for {holder}, which computes the same step"),
                );
            }
            Event::Cached { vertex } => {
                state.headline(vertex);
                state.line(vertex, "CACHED");
                state.write("\n");
            }
            Event::Output { vertex, bytes, .. } => state.output(vertex, &bytes),
            Event::Finished { vertex } => {
                state.end_output(vertex);
                let took = state.took(vertex);
                state.line(vertex, &format!("DONE {took}"));
                state.write("\n");
            }
            Event::Failed { vertex, message } => {
                state.end_output(vertex);
                state.headline(vertex);
                state.line(vertex, &format!("ERROR: {}", clean(&message)));
                state.write("\n");
            }
            Event::Diagnostic(diagnostic) => {
                let text = render(&diagnostic, state.source.as_ref(), self.style);
                state.write(&text);
            }
            Event::Done(summary) => state.write(&summary_text(&summary)),
        }
    }
}

impl<W: Write> State<W> {
    fn write(&mut self, text: &str) {
        // A closed standard error has no other place to be told.
        drop(
            self.out
                .write_all(text.as_bytes())
                .and_then(|()| self.out.flush()),
        );
    }

    /// Gives a vertex its number and writes its name, once.
    fn headline(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        if vertex.number.is_none() {
            self.numbered += 1;
            vertex.number = Some(self.numbered);
            let text = format!(
                "#{} {}\n",
                self.numbered,
                clean(&vertex.name).replace('\n', " ")
            );
            self.write(&text);
        }
    }

    fn line(&mut self, id: VertexId, text: &str) {
        let number = self
            .vertices
            .get(&id)
            .and_then(|vertex| vertex.number)
            .unwrap_or_default();
        self.write(&format!("#{number} {text}\n"));
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
        let since = vertex
            .started
            .map(|started| started.elapsed().as_secs_f64())
            .unwrap_or_default();
        let number = vertex.number.unwrap_or_default();
        let mut text = String::new();
        for &byte in bytes {
            if byte == b'\n' || vertex.line.len() >= LINE_LIMIT {
                text.push_str(&output_line(number, since, &vertex.line));
                vertex.line.clear();
            }
            if byte != b'\n' {
                vertex.line.push(byte);
            }
        }
        if !text.is_empty() {
            self.write(&text);
        }
    }

    fn end_output(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        if !vertex.line.is_empty() {
            let since = vertex
                .started
                .map(|started| started.elapsed().as_secs_f64())
                .unwrap_or_default();
            let text = output_line(vertex.number.unwrap_or_default(), since, &vertex.line);
            vertex.line.clear();
            self.write(&text);
        }
    }
}

/// What commands print goes through as it is, but for a carriage return at the end.
fn output_line(number: usize, since: f64, line: &[u8]) -> String {
    format!(
        "#{number} {since:.3} {}\n",
        String::from_utf8_lossy(line).trim_end_matches('\r')
    )
}

/// Returns the last lines of a build: what was made, how large, how much came from the cache.
pub(super) fn summary_text(summary: &Summary) -> String {
    let mut text = String::new();
    for image in &summary.images {
        let mut line = String::from("image");
        if summary.images.len() > 1 {
            line.push_str(&format!(" {}", image.platform));
        }
        if let Some(manifest) = &image.manifest {
            line.push_str(&format!(" {}", manifest.digest));
        }
        if !image.names.is_empty() {
            line.push_str(&format!(" {}", image.names.join(" ")));
        }
        text.push_str(&line);
        text.push('\n');
        let mut sizes = Vec::new();
        if let Some(unpacked) = image.unpacked_size {
            sizes.push(format!("{} of files", size(unpacked)));
        }
        if let Some(blobs) = image.blob_size {
            sizes.push(format!("{} as layers", size(blobs)));
        }
        if !sizes.is_empty() {
            text.push_str(&format!("  size: {}\n", sizes.join(", ")));
        }
        for (stage, bytes) in &image.stages {
            let share = match image.unpacked_size {
                Some(own) if *bytes > own => format!(
                    ": the image is {:.1} % of it",
                    100.0 * own as f64 / *bytes as f64
                ),
                _ => String::new(),
            };
            text.push_str(&format!(
                "  stage `{stage}`: {} of files{share}\n",
                size(*bytes)
            ));
        }
    }
    text.push_str(&format!(
        "{} steps, {} cached, {}\n",
        summary.steps,
        summary.cached,
        elapsed(summary.elapsed)
    ));
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::vocab::{Diagnostic, Rung, StorageDriver, Stream};

    fn transcript(events: Vec<Event>) -> String {
        let plain = Plain::new(Vec::new(), Style::Plain);
        for event in events {
            plain.emit(event);
        }
        let out = plain.state.into_inner().unwrap().out;
        // Times differ from run to run.
        let text = String::from_utf8(out).unwrap();
        text.lines()
            .map(|line| line.replace("0.000 ", "T ").replace("0.0s", "T"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn lines_of_two_steps_keep_their_prefix() {
        let (a, b) = (VertexId(0), VertexId(1));
        let output = |vertex, text: &str| Event::Output {
            vertex,
            stream: Stream::Stdout,
            bytes: text.as_bytes().to_vec(),
        };
        let text = transcript(vec![
            Event::Entered {
                rung: Rung::NsOne,
                driver: StorageDriver::Overlay,
                reasons: vec!["ns-sub: no ids".into()],
            },
            Event::Declared {
                vertex: a,
                name: "[1/2] RUN a".into(),
            },
            Event::Declared {
                vertex: b,
                name: "[2/2] RUN b".into(),
            },
            Event::Started { vertex: a },
            output(a, "half "),
            Event::Cached { vertex: b },
            output(a, "line\nno end"),
            Event::Finished { vertex: a },
            Event::Diagnostic(Diagnostic::warning("w")),
        ]);
        expect![[r#"
            sandbox: ns-one, store: overlay (ns-sub: no ids; see `builder doctor`)
            #1 [1/2] RUN a
            #2 [2/2] RUN b
            #2 CACHED

            #1 T half line
            #1 T no end
            #1 DONE T

            warning: w"#]]
        .assert_eq(&text);
    }
}
