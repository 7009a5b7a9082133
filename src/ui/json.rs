//! One JSON object per event and line. The schema is documented in `docs/progress.md`; `v` is its version.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::vocab::{Diagnostic, Event, EventSink, Severity, SourceText, Stream, Summary};

const SCHEMA: u32 = 1;

pub(super) struct JsonLines<W> {
    state: Mutex<(W, Option<SourceText>)>,
}

impl<W: Write> JsonLines<W> {
    pub(super) fn new(out: W) -> JsonLines<W> {
        JsonLines {
            state: Mutex::new((out, None)),
        }
    }
}

impl<W: Write + Send> EventSink for JsonLines<W> {
    fn emit(&self, event: Event) {
        let (out, source) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Source(text) = &event {
            *source = Some(text.clone());
        }
        let Some(mut line) = object(event, source.as_ref()) else {
            return;
        };
        line["v"] = json!(SCHEMA);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        line["time"] = json!(now.as_secs_f64());
        // A closed standard error has no other place to be told.
        drop(
            out.write_all(format!("{line}\n").as_bytes())
                .and_then(|()| out.flush()),
        );
    }
}

fn object(event: Event, source: Option<&SourceText>) -> Option<Value> {
    Some(match event {
        Event::Source(_) => return None,
        Event::Entered {
            rung,
            driver,
            reasons,
        } => {
            json!({ "event": "entered", "sandbox": rung.name(), "store": driver.name(), "reasons": reasons })
        }
        Event::Declared { vertex, name } => {
            json!({ "event": "declared", "vertex": vertex.0, "name": name })
        }
        Event::Started { vertex } => json!({ "event": "started", "vertex": vertex.0 }),
        Event::Waiting { vertex, pid } => {
            json!({ "event": "waiting", "vertex": vertex.0, "pid": pid })
        }
        Event::Cached { vertex } => json!({ "event": "cached", "vertex": vertex.0 }),
        Event::Output {
            vertex,
            stream,
            bytes,
        } => json!({
            "event": "output",
            "vertex": vertex.0,
            "stream": match stream { Stream::Stdout => "stdout", Stream::Stderr => "stderr" },
            "text": String::from_utf8_lossy(&bytes),
        }),
        Event::Progress {
            vertex,
            what,
            done,
            total,
        } => {
            json!({ "event": "progress", "vertex": vertex.0, "what": what, "done": done, "total": total })
        }
        Event::Finished { vertex } => json!({ "event": "finished", "vertex": vertex.0 }),
        Event::Failed { vertex, message } => {
            json!({ "event": "failed", "vertex": vertex.0, "message": message })
        }
        Event::Diagnostic(diagnostic) => {
            let mut object = diagnostic_object(&diagnostic, source);
            object["event"] = json!("diagnostic");
            object
        }
        Event::Done(summary) => summary_object(&summary),
    })
}

fn diagnostic_object(diagnostic: &Diagnostic, source: Option<&SourceText>) -> Value {
    let places: Vec<Value> = diagnostic
        .labels
        .iter()
        .filter_map(|label| {
            let source = source?;
            Some(json!({
                "file": source.name,
                "start": source.line(label.span.start),
                "end": source.line(label.span.end.saturating_sub(1).max(label.span.start)),
                "text": label.text,
            }))
        })
        .collect();
    json!({
        "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "rule": diagnostic.code,
        "link": diagnostic.link(),
        "message": diagnostic.message,
        "places": places,
        "causes": diagnostic.causes,
        "hints": diagnostic.hints,
        "output": diagnostic.output,
    })
}

fn summary_object(summary: &Summary) -> Value {
    let images: Vec<Value> = summary
        .images
        .iter()
        .map(|image| {
            json!({
                "platform": image.platform.to_string(),
                "digest": image.manifest.as_ref().map(|manifest| manifest.digest.to_string()),
                "id": image.id.map(|id| id.to_string()),
                "names": image.names,
                "unpackedSize": image.unpacked_size,
                "blobSize": image.blob_size,
                "stages": image.stages.iter().map(|(name, bytes)| json!({ "name": name, "size": bytes })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "event": "done",
        "images": images,
        "steps": summary.steps,
        "cached": summary.cached,
        "elapsed": summary.elapsed.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Span, VertexId};

    #[test]
    fn every_line_is_an_object_with_a_version() {
        let lines = JsonLines::new(Vec::new());
        lines.emit(Event::Source(SourceText {
            name: "Dockerfile".into(),
            text: "FROM a\nRUN b\n".into(),
        }));
        lines.emit(Event::Output {
            vertex: VertexId(1),
            stream: Stream::Stderr,
            bytes: vec![0xff, b'\n'],
        });
        lines.emit(Event::Diagnostic(
            Diagnostic::error("no").at(Span::new(7, 12)),
        ));
        let out = lines.state.into_inner().unwrap().0;
        let objects: Vec<Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects.len(), 2);
        assert!(
            objects
                .iter()
                .all(|object| object["v"] == 1 && object["time"].is_f64())
        );
        assert_eq!(objects[0]["text"], "\u{fffd}\n");
        assert_eq!(objects[1]["places"][0]["start"], 2);
    }
}
