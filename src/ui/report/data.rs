//! The page's facts for machines: the JSON in its `script` element with the ID `build`.

use serde_json::{Value, json};

use crate::vocab::{ExitCode, SizeNode};

use super::page::Told;
use super::story::State;

/// Grows with every change that a reader could stumble over.
const VERSION: u32 = 1;

pub(super) fn data(told: &Told<'_>) -> Value {
    let story = told.story;
    let steps: Vec<Value> = story
        .shown()
        .map(|(vertex, row)| {
            json!({
                "vertex": vertex.0,
                "name": row.name,
                "state": match row.state {
                    State::Declared => "not reached",
                    State::Started => "started",
                    State::Cached => "cached",
                    State::Done => "done",
                    State::Failed => "failed",
                },
                "started": row.started,
                "ended": row.ended,
                "packing": row.packing.map(|(from, to)| [from, to]),
                "thread": row.thread,
                "reasons": row.reasons.iter().map(|reason| json!({ "kind": reason.kind(), "text": reason.text(3) })).collect::<Vec<_>>(),
                "key": row.found.as_ref().map(|(key, _)| key.to_string()),
                "error": row.message,
            })
        })
        .collect();
    let images: Vec<Value> = story
        .summary
        .iter()
        .flat_map(|summary| &summary.images)
        .map(|image| {
            let contents = image.contents.as_ref();
            json!({
                "platform": image.platform.to_string(),
                "digest": image.manifest.as_ref().map(|manifest| manifest.digest.to_string()),
                "names": image.names,
                "unpackedSize": image.unpacked_size,
                "blobSize": image.blob_size,
                "layers": contents.map(|contents| contents.layers.iter().map(|layer| json!({
                    "vertex": layer.vertex.0,
                    "madeBy": layer.made_by,
                    "tree": tree(&layer.tree),
                })).collect::<Vec<_>>()),
                "covered": contents.map(|contents| contents.covered.iter().map(|covered| json!({
                    "layerOf": covered.made_by,
                    "by": covered.by,
                    "deleted": covered.is_deleted,
                    "path": covered.path,
                    "files": covered.files,
                    "size": covered.bytes,
                })).collect::<Vec<_>>()),
            })
        })
        .collect();
    let (count, cached) = told.steps();
    json!({
        "v": VERSION,
        "builder": env!("CARGO_PKG_VERSION"),
        "date": told.date.to_string(),
        "succeeded": told.ended == ExitCode::Success,
        "exitCode": told.ended as u8,
        "elapsed": told.elapsed,
        "stepCount": count,
        "cached": cached,
        "steps": steps,
        "images": images,
    })
}

fn tree(node: &SizeNode) -> Value {
    let children: Vec<Value> = node.children.iter().map(tree).collect();
    json!({ "name": node.name, "size": node.bytes, "children": children })
}
