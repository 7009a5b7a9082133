//! What happens during a build, for whoever shows it.

use std::time::Duration;

use super::{
    CacheKey, Chart, Contents, Descriptor, Diagnostic, Digest, Platform, Reason, Rung, SourceText,
    StorageDriver, Timestamp,
};

/// One line of work that is shown: a step, or a task around the steps (resolving a base, exporting, pushing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// The closed set of things that happen. Events of one vertex come in the order of this list; events of different vertices mix.
#[derive(Clone, Debug)]
pub enum Event {
    /// The Dockerfile that diagnostics point into.
    Source(SourceText),
    /// Steps are going to be executed. Threads may exist from here on: a live display may start its clock.
    Entered {
        rung: Rung,
        driver: StorageDriver,
        /// Why not a better one, and what is lacking: one short text each, the most telling first.
        reasons: Vec<String>,
    },
    /// What the steps are made from. Only where that was asked for.
    Planned(Chart),
    /// A vertex exists. `name` is a full line such as `[build 2/5] RUN make`.
    Declared {
        vertex: VertexId,
        name: String,
    },
    Started {
        vertex: VertexId,
    },
    /// Another process or thread computes the same thing; this one waits for it.
    Waiting {
        vertex: VertexId,
        pid: Option<u32>,
    },
    /// The step is performed because the cache has no result for it: what is not as it was, the weightiest first.
    Missed {
        vertex: VertexId,
        reasons: Vec<Reason>,
    },
    /// The result was in the cache. Takes the place of `Started` and `Finished`.
    Cached {
        vertex: VertexId,
    },
    /// Under which key a result was found, and when it was made. Only where that was asked for, when all steps are resolved.
    Found {
        vertex: VertexId,
        key: CacheKey,
        created: Timestamp,
    },
    /// What the step's command printed, as it came: may end within a line or a character.
    Output {
        vertex: VertexId,
        stream: Stream,
        bytes: Vec<u8>,
    },
    /// `done` of `total` bytes (0: not known) of something, such as `sha256:… pull`.
    Progress {
        vertex: VertexId,
        what: String,
        done: u64,
        total: u64,
    },
    Finished {
        vertex: VertexId,
    },
    Failed {
        vertex: VertexId,
        message: String,
    },
    /// The step's layer is being packed, while other steps go on; after [`Event::Finished`].
    Packing {
        vertex: VertexId,
    },
    Packed {
        vertex: VertexId,
    },
    /// A warning or an error, in the order in which they are found.
    Diagnostic(Diagnostic),
    /// The build succeeded.
    Done(Summary),
}

/// What was made.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The result's ID: the digest of the image's config, or of the index if one was made.
    pub id: Option<Digest>,
    pub images: Vec<SummaryImage>,
    pub steps: usize,
    pub cached: usize,
    pub elapsed: Duration,
    /// The steps that were performed, and how long each took, the slowest first.
    pub slowest: Vec<(String, Duration)>,
    /// What could be better.
    pub hints: Vec<String>,
}

/// One image of the result.
#[derive(Clone, Debug)]
pub struct SummaryImage {
    pub platform: Platform,
    pub manifest: Option<Descriptor>,
    /// The image's ID: the digest of its config.
    pub id: Option<Digest>,
    pub names: Vec<String>,
    /// Bytes of the final image's files, unpacked and as blobs; `None` where they were not counted.
    pub unpacked_size: Option<u64>,
    pub blob_size: Option<u64>,
    /// The other stages that were built for it, with the size of their files: name, bytes.
    pub stages: Vec<(String, u64)>,
    /// The layers that have files, lowest first; empty where their sizes are not known.
    pub layers: Vec<SummaryLayer>,
    /// Its files by directory. Only where that was asked for.
    pub contents: Option<Contents>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryLayer {
    /// The step that made it.
    pub made_by: String,
    /// Bytes of its files.
    pub size: u64,
}

/// Takes events from any thread. Implemented by the displays and by the tests' recorder.
pub trait EventSink: Send + Sync {
    /// Shows or records one event. Must not block on anything but its own output.
    fn emit(&self, event: Event);

    /// Leaves the screen to somebody else from here on: nothing is drawn any more that has to be taken back.
    fn pause(&self) {}
}

/// Takes no notice of anything.
pub struct Nobody;

impl EventSink for Nobody {
    fn emit(&self, _: Event) {}
}
