//! One JSON object per event and line. The schema is documented in `docs/progress.md`; `v` is its version.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::vocab::{Diagnostic, Event, EventSink, Reason, Severity, SourceText, Stream, Summary};

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
        // Nobody but the page of a build draws these.
        Event::Source(_) | Event::Planned(_) | Event::Packing { .. } | Event::Packed { .. } => {
            return None;
        }
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
        Event::Missed { vertex, reasons } => {
            json!({ "event": "missed", "vertex": vertex.0, "reasons": reasons.iter().map(reason_object).collect::<Vec<_>>() })
        }
        Event::Found {
            vertex,
            key,
            created,
        } => {
            json!({ "event": "found", "vertex": vertex.0, "key": key.to_string(), "created": created.to_string() })
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

/// A reason: its kind, its text, and the files if there are some.
fn reason_object(reason: &Reason) -> Value {
    let mut object = json!({ "kind": reason.kind(), "text": reason.text(3) });
    if let Reason::Files { source, changes } = reason {
        object["source"] = json!(source);
        object["files"] = changes
            .iter()
            .flatten()
            .map(|change| json!({ "path": change.path, "change": change.change.word() }))
            .collect();
    }
    object
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
            let contents = image.contents.iter();
            let directories = contents.flat_map(|contents| &contents.directories);
            json!({
                "platform": image.platform.to_string(),
                "digest": image.manifest.as_ref().map(|manifest| manifest.digest.to_string()),
                "id": image.id.map(|id| id.to_string()),
                "names": image.names,
                "unpackedSize": image.unpacked_size,
                "blobSize": image.blob_size,
                "layers": image.layers.iter().map(|layer| json!({ "madeBy": layer.made_by, "size": layer.size })).collect::<Vec<_>>(),
                "directories": directories.map(|(path, bytes)| json!({ "path": path, "size": bytes })).collect::<Vec<_>>(),
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
        "slowest": summary.slowest.iter().map(|(step, took)| json!({ "name": step, "seconds": took.as_secs_f64() })).collect::<Vec<_>>(),
        "hints": summary.hints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Span, VertexId};

    /// One event of each kind.
    fn examples() -> Vec<Event> {
        let (step, task) = (VertexId(4), VertexId(1 << 24));
        let platform: crate::vocab::Platform = "linux/amd64".parse().unwrap();
        let digest = crate::vocab::Digest::of(b"example");
        vec![
            Event::Entered {
                rung: crate::vocab::Rung::NsOne,
                driver: crate::vocab::StorageDriver::Overlay,
                reasons: vec!["ns-sub: no subordinate ids".into()],
            },
            Event::Declared {
                vertex: step,
                name: "[3/5] COPY src /src".into(),
            },
            Event::Started { vertex: step },
            Event::Missed {
                vertex: step,
                reasons: vec![
                    Reason::Files {
                        source: "src".into(),
                        changes: Some(vec![crate::vocab::FileChange {
                            path: "src/main.rs".into(),
                            change: crate::vocab::Change::Content,
                        }]),
                    },
                    Reason::After {
                        step: "[2/5] RUN make".into(),
                    },
                ],
            },
            Event::Waiting {
                vertex: step,
                pid: Some(4711),
            },
            Event::Cached { vertex: step },
            Event::Found {
                vertex: step,
                key: crate::vocab::CacheKey(digest),
                created: crate::vocab::Timestamp::from_seconds(1_795_271_400),
            },
            Event::Output {
                vertex: step,
                stream: Stream::Stdout,
                bytes: b"compiling\n".to_vec(),
            },
            Event::Progress {
                vertex: task,
                what: "layer".into(),
                done: 1000,
                total: 5000,
            },
            Event::Finished { vertex: step },
            Event::Failed {
                vertex: step,
                message: "`make` failed with exit code 2".into(),
            },
            Event::Diagnostic(
                Diagnostic::error("`make` failed with exit code 2")
                    .at(Span::new(7, 12))
                    .hint("look above"),
            ),
            Event::Done(Summary {
                id: Some(digest),
                images: vec![crate::vocab::SummaryImage {
                    platform,
                    manifest: None,
                    id: Some(digest),
                    names: vec!["app:1".into()],
                    unpacked_size: Some(4200),
                    blob_size: None,
                    stages: vec![("build".into(), 9000)],
                    layers: vec![crate::vocab::SummaryLayer {
                        made_by: "[3/5] COPY src /src".into(),
                        size: 4200,
                    }],
                    contents: Some(crate::vocab::Contents {
                        directories: vec![("/src".into(), 4200)],
                        ..crate::vocab::Contents::default()
                    }),
                }],
                steps: 5,
                cached: 4,
                elapsed: std::time::Duration::from_millis(1500),
                slowest: vec![(
                    "[3/5] COPY src /src".into(),
                    std::time::Duration::from_millis(500),
                )],
                hints: vec!["a hint".into()],
            }),
        ]
    }

    #[test]
    fn the_examples_of_the_documentation_are_what_is_printed() {
        let source = SourceText {
            name: "Dockerfile".into(),
            text: "FROM a\nRUN make\n".into(),
        };
        let printed: Vec<String> = examples()
            .into_iter()
            .map(|event| {
                let mut line = object(event, Some(&source)).unwrap();
                line["v"] = json!(SCHEMA);
                line["time"] = json!(1_795_271_400.25);
                line.to_string()
            })
            .collect();
        let documentation = include_str!("../../docs/progress.md");
        let (_, after) = documentation
            .split_once("One line of each kind:\n\n```json\n")
            .unwrap();
        let (block, _) = after.split_once("```").unwrap();
        let printed = printed.join("\n") + "\n";
        assert!(block == printed, "docs/progress.md should have\n{printed}");
    }

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
