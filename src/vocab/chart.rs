//! What a build consists of, for whoever draws it.

use super::VertexId;

/// The stages and steps of a build, and what needs what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chart {
    pub stages: Vec<ChartStage>,
    /// In the order of the plan: inputs come before what uses them.
    pub steps: Vec<ChartStep>,
}

/// One stage, for one platform; or a base image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartStage {
    /// Its name, its number, or the base's reference.
    pub name: String,
    pub is_base: bool,
    /// Whether the final image is made of it: its files are in layers of that image.
    pub is_final: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartStep {
    pub vertex: VertexId,
    /// `[build 2/5] RUN make`
    pub name: String,
    /// A place in [`Chart::stages`]; `None` for contexts and other sources.
    pub stage: Option<usize>,
    /// Which steps it needs, and what for.
    pub needs: Vec<(VertexId, Need)>,
}

/// What a step has of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// It begins with its files.
    Root,
    /// It copies files.
    Copy,
    /// It sees files while it runs.
    Mount,
}
