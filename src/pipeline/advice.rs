//! What could be better in a Dockerfile, told at the end of a build that has just paid for it.
//!
//! Only what is certain from the plan and from the layers that this build made; nothing is said about steps that were in the cache.
//! Where the files of the result were counted, also what ships in it for nothing, whenever it was made.

use std::path::Path;

use crate::plan::{CopyFrom, Graph, Op, Run, StepId};
use crate::solve::{ChainLayer, Solution};
use crate::store::Store;
use crate::vocab::{Contents, Covered, LayerId, size};

/// Hints that one build gives.
const MOST: usize = 2;
/// Fewer bytes are not worth a word.
const WORTH: u64 = 1 << 20;

/// Commands that fetch what a project needs, by lists of its own.
const INSTALLS: [&str; 14] = [
    "apt-get install",
    "apt install",
    "apk add",
    "dnf install",
    "yum install",
    "npm ci",
    "npm install",
    "yarn install",
    "pnpm install",
    "pip install -r",
    "go mod download",
    "bundle install",
    "composer install",
    "poetry install",
];

/// Returns the hints, the most useful first.
pub(super) fn advice<'a>(
    graph: &Graph,
    solution: &Solution,
    store: &Store,
    contents: impl Iterator<Item = &'a Contents>,
) -> Vec<String> {
    let mut hints = Vec::new();
    for output in &graph.outputs {
        let mut below_all: Option<StepId> = None;
        for step in ancestry(graph, output.root) {
            match &graph.steps[step.0].op {
                Op::Copy(copy) if copies_everything(graph, step, &copy.sources) => {
                    below_all.get_or_insert(step);
                }
                Op::Run(run) if !solution.cached[step.0] => {
                    if let (Some(copy), Some(command)) = (below_all, install(run)) {
                        hints.push(format!(
                            "`{command}` is after `{}`, so any edit repeats it: copy the files that it reads before it, and the rest after it",
                            text(&graph.origins[copy.0].name)
                        ));
                        // Once is enough.
                        below_all = None;
                    }
                }
                _ => {}
            }
        }
        for layer in solution.chain(graph, output.root) {
            if let ChainLayer::Built { step, id } = layer
                && !solution.cached[step.0]
                && let Some(bytes) = apt_lists(store, &id)
            {
                hints.push(format!(
                    "`{}` leaves {} of package lists: end it with `&& rm -rf /var/lib/apt/lists/*`, or mount a cache at /var/lib/apt",
                    text(&graph.origins[step.0].name),
                    size(bytes)
                ));
            }
        }
    }
    hints.dedup();
    hints.truncate(MOST);
    for contents in contents {
        for hint in contents.covered.iter().filter_map(covered).take(MOST) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
    }
    hints
}

/// Returns what to do about files that are in a layer and not in the image.
fn covered(covered: &Covered) -> Option<String> {
    // What a base has brought along, nobody here can leave out.
    if covered.is_of_base || covered.bytes < WORTH {
        return None;
    }
    let (by, of) = (text(&covered.by), text(&covered.made_by));
    let (bytes, path) = (size(covered.bytes), &covered.path);
    Some(match covered.is_deleted {
        true => format!(
            "`{by}` deletes {bytes} at {path}, which ship all the same in the layer of `{of}`: delete them in the step that makes them"
        ),
        false => format!(
            "`{by}` writes {bytes} at {path} anew, which ship a second time in the layer of `{of}`: set owners, modes and contents where the files are made"
        ),
    })
}

/// Returns the steps that a root is made of, lowest first.
fn ancestry(graph: &Graph, root: StepId) -> Vec<StepId> {
    let mut steps = vec![root];
    let mut at = root;
    while let Some(&below) = graph.steps[at.0].inputs.first() {
        steps.push(below);
        at = below;
    }
    steps.reverse();
    steps
}

fn copies_everything(graph: &Graph, step: StepId, sources: &[CopyFrom]) -> bool {
    sources.iter().any(|source| match source {
        CopyFrom::Tree { input, pattern } => {
            let tree = graph.steps[step.0].inputs[*input];
            matches!(graph.steps[tree.0].op, Op::Local(_))
                && matches!(pattern.as_str(), "." | "./" | "/")
        }
        CopyFrom::Inline { .. } => false,
    })
}

/// Returns the command of a step that installs packages.
fn install(run: &Run) -> Option<&'static str> {
    let line = run.argv.last()?;
    INSTALLS.into_iter().find(|command| line.contains(command))
}

/// Returns the bytes of apt's lists in a layer, if it has many.
fn apt_lists(store: &Store, layer: &LayerId) -> Option<u64> {
    let layer = store.layer(layer).ok()??;
    let directory = layer.fs.join("var/lib/apt/lists");
    // Links are not followed on the way: what is in a layer is anybody's.
    let is_plain = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let mut way = layer.fs.clone();
    for name in ["var", "lib", "apt", "lists"] {
        way.push(name);
        if !is_plain(&way) {
            return None;
        }
    }
    let entries = std::fs::read_dir(directory).ok()?;
    let bytes = entries
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len())
        .sum();
    (bytes >= WORTH).then_some(bytes)
}

fn text(name: &str) -> String {
    let text = name.split_once("] ").map_or(name, |(_, text)| text);
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
