//! What a step reads of other trees than its root: the sources of a copy, and what a run's mounts show.

use std::borrow::Cow;

use crate::plan::{CopyFrom, Mount, Op, Step, StepId, Tree, literal};

/// Files of one input of a step, named as a source word of COPY names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The step that makes the tree.
    pub tree: StepId,
    pub pattern: Cow<'a, str>,
    pub parents: bool,
    pub exclude: &'a [String],
}

/// Returns what a step reads, in the order in which keys name it.
pub fn readings(step: &Step) -> Vec<Reading<'_>> {
    match &step.op {
        Op::Copy(copy) => {
            let trees = copy.sources.iter().filter_map(|source| match source {
                CopyFrom::Tree { input, pattern } => Some(Reading {
                    tree: step.inputs[*input],
                    pattern: Cow::Borrowed(pattern),
                    parents: copy.parents,
                    exclude: &copy.exclude,
                }),
                CopyFrom::Inline { .. } => None,
            });
            trees.collect()
        }
        Op::Run(run) => {
            let trees = run.mounts.iter().filter_map(shown).map(|tree| Reading {
                tree: step.inputs[tree.input],
                pattern: Cow::Owned(literal(&tree.path)),
                parents: false,
                exclude: &[],
            });
            trees.collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the tree that a mount shows, or begins with.
pub(super) fn shown(mount: &Mount) -> Option<&Tree> {
    match mount {
        Mount::Bind { from, .. } => Some(from),
        Mount::Cache(cache) => cache.seed.as_ref(),
        Mount::Tmpfs { .. } | Mount::Secret(_) | Mount::Ssh(_) => None,
    }
}
