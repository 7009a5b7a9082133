//! The plan: steps, what each needs, and what comes out.
//!
//! `steps[i]` is identity: all of it enters the cache key, except where a field says that it does not. `origins[i]` is
//! description and enters none.

use std::path::PathBuf;

use crate::image::ImageConfig;
use crate::vocab::{
    Descriptor, DiffId, Digest, GitTimes, ImageRef, NetworkMode, Platform, Security, Span, Ulimit,
};

/// A place in [`Graph::steps`]. Inputs always come before the steps that use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// Everything that the wanted outputs need, and nothing else.
#[derive(Clone, Debug)]
pub struct Graph {
    pub steps: Vec<Step>,
    pub origins: Vec<Origin>,
    pub outputs: Vec<Output>,
    /// Stages that were asked for besides; no image is made of them.
    pub beside: Vec<Beside>,
    /// Whether the outputs go into an index, even if there is only one.
    pub is_index: bool,
    /// `SOURCE_DATE_EPOCH`: the time of the images.
    pub epoch: Option<i64>,
    /// Enters the key of every step.
    pub cache_version: Option<String>,
}

impl Graph {
    /// Tells whether the files that a step makes are of use to other machines, which may have to make them otherwise.
    pub fn is_shared(&self, step: usize) -> bool {
        !matches!(&self.steps[step].op, Op::Copy(copy) if copy.is_shown_only)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub op: Op,
    /// The root that is worked on comes first, for every op that has one; then sources, in the order the op names them.
    pub inputs: Vec<StepId>,
}

/// Where a step comes from; for messages only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// In the Dockerfile; for steps from a base's ONBUILD triggers the FROM that fires them; `None` for implied ones.
    pub span: Option<Span>,
    /// The stage's name, or its number.
    pub stage: String,
    /// `[build 2/5] RUN make`
    pub name: String,
    /// Steps of a stage named here do not read the cache (`--no-cache`, `--no-cache-filter`).
    pub ignore_cache: bool,
}

impl Origin {
    /// Tells whether the step comes from an ONBUILD trigger of the base: no other step's instruction is called so.
    pub fn is_trigger(&self) -> bool {
        let instruction = self.name.split_once("] ").map(|(_, text)| text);
        instruction.is_some_and(|text| text.starts_with("ONBUILD "))
    }
}

/// The closed set of things that a step does.
#[expect(
    clippy::large_enum_variant,
    reason = "a graph has tens of steps, and every one of them is matched on"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// An empty root.
    Scratch,
    /// The root of an image. No inputs.
    Base(Base),
    /// Files of the host: the context or a named context that is a directory. No inputs; only ever a source.
    Local(Local),
    /// Files of a commit. No inputs; only ever a source.
    Git(Git),
    /// One downloaded file. No inputs; only ever a source.
    Http(Http),
    /// Inputs: root, then one per tree that a mount shows (see [`Tree`]).
    Run(Run),
    /// Inputs: root, then one per source tree (see [`CopyFrom::Tree`]).
    Copy(Copy),
    /// Makes a directory and its parents. Inputs: root.
    Workdir(Workdir),
}

/// How [`plan`](super::plan) asks for a base and finds it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseKey {
    pub location: BaseLocation,
    pub platform: Platform,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BaseLocation {
    /// The local store or a registry.
    Image(ImageRef),
    OciLayout {
        path: PathBuf,
        reference: Option<String>,
    },
}

/// A base that planning cannot go on without, and where it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseWanted {
    pub key: BaseKey,
    pub span: Option<Span>,
}

/// A resolved base image. Its identity in keys is `manifest` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub key: BaseKey,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// Lowest first.
    pub layers: Vec<(Descriptor, DiffId)>,
    pub config: ImageConfig,
    /// The platform that the image says it is for.
    pub platform: Platform,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Local {
    /// `None` is the main context.
    pub name: Option<String>,
}

/// A commit of a repository, already resolved. Its identity in keys is all but `url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    /// Without fragment and query; with the user name and password that were written.
    pub url: String,
    /// The full object name.
    pub commit: String,
    /// The full name that led to the commit; only with `keep_git_dir`, where a tag stays known.
    pub reference: Option<String>,
    /// The directory of the repository that is taken; `None` is all of it.
    pub subdirectory: Option<String>,
    pub keep_git_dir: bool,
    pub submodules: bool,
    pub times: GitTimes,
}

/// A file that was downloaded while planning. Its identity in keys is all but `url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub url: String,
    pub digest: Digest,
    /// The name under which it is copied.
    pub name: String,
    /// Seconds since 1970, as the server says; `None` where it does not say.
    pub modified: Option<i64>,
    /// An archive is unpacked, not copied.
    pub unpack: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub argv: Vec<String>,
    /// In order; complete but for HOME, which needs the image's passwd.
    pub env: Vec<(String, String)>,
    /// Which of them ARG declares, for who explains; in no key.
    pub arguments: Vec<String>,
    /// Environment that is in no key and no history: the predefined proxy arguments.
    pub ambient_env: Vec<(String, String)>,
    pub cwd: String,
    /// USER as written; empty is root.
    pub user: String,
    pub network: NetworkMode,
    pub add_hosts: Vec<(String, String)>,
    pub hostname: String,
    pub shm_size: u64,
    pub ulimits: Vec<Ulimit>,
    /// Heredoc scripts with a `#!` line, each mounted read-only and executable at `path` while the command runs.
    pub scripts: Vec<Script>,
    /// In order; a later one may lie inside an earlier one.
    pub mounts: Vec<Mount>,
    pub security: Security,
    pub devices: Vec<Device>,
    /// What the root's programs are for, where that is not this machine.
    pub foreign: Option<Platform>,
}

/// One `--mount`. Targets are absolute and clean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// Files of a tree; what is written to them is dropped.
    Bind {
        target: String,
        from: Tree,
        writable: bool,
    },
    Cache(CacheMount),
    Tmpfs {
        target: String,
        size: Option<u64>,
    },
    Secret(SecretMount),
    Ssh(SshMount),
}

/// A file or directory of the root that `inputs[input]` of the step made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub input: usize,
    /// Absolute and clean; links are followed inside the root.
    pub path: String,
}

/// A directory that builds share. No part of it gets into a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMount {
    pub target: String,
    /// The namespace, a `/`, and the id.
    pub id: String,
    pub sharing: Sharing,
    /// What a new one begins with.
    pub seed: Option<Tree>,
    pub read_only: bool,
    /// Of the directory itself, when it is made; `None` is what the seed has, else 0 and 0755.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
}

/// What happens where two steps mount one cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Both see it.
    #[default]
    Shared,
    /// The second gets another one.
    Private,
    /// The second waits.
    Locked,
}

/// A secret as a file, a variable, or both. Its value is in no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretMount {
    pub id: String,
    pub target: Option<String>,
    pub env: Option<String>,
    pub required: bool,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// The socket of an SSH agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshMount {
    pub id: String,
    pub target: String,
    pub required: bool,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// One `--device`: a path of the host, or a qualified name of the Container Device Interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub required: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// `/dev/pipes/EOF`
    pub path: String,
    pub content: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub sources: Vec<CopyFrom>,
    /// Absolute and clean, but for a trailing `/` that says "a directory".
    pub destination: String,
    pub chown: Option<Chown>,
    /// As written after expansion: octal or symbolic, syntax checked.
    pub chmod: Option<String>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
    /// ADD: unpack sources that are archives.
    pub unpack: bool,
    /// The time of what the step makes by itself, in seconds since 1970; `None` is the moment.
    pub epoch: Option<i64>,
    /// Made for mounts of a RUN to show: files of a context that are in no image.
    pub is_shown_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// Files of the tree that `inputs[input]` of the step made.
    Tree { input: usize, pattern: String },
    /// A heredoc: its expanded body becomes a file.
    Inline { name: String, content: String },
}

/// The value of `--chown`, split; names are looked up in the root that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chown {
    pub user: Owner,
    /// `None`: the user's primary group if the user is a name, else the same number.
    pub group: Option<Owner>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Id(u32),
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workdir {
    /// Absolute and clean.
    pub path: String,
    /// USER in effect, which owns the directories that are made; empty is root. A bare number has its group beside it.
    pub user: String,
    /// The directories' time, in seconds since 1970; `None` is the moment.
    pub epoch: Option<i64>,
}

/// One image that the build makes.
#[derive(Clone, Debug)]
pub struct Output {
    pub platform: Platform,
    /// The target stage's name, or `default`.
    pub stage: String,
    /// The step whose root is the image's.
    pub root: StepId,
    /// Complete but for `created`, `rootfs.diff_ids` and `history`.
    pub config: ImageConfig,
    /// All entries, base's first.
    pub history: Vec<HistoryItem>,
    /// Descriptions of the other stages that are built for this one: name, last step.
    pub stages: Vec<(String, StepId)>,
}

/// A stage that is built beside the target, for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// As it was asked for.
    pub stage: String,
    pub platform: Platform,
    pub root: StepId,
}

#[derive(Clone, Debug)]
pub enum HistoryItem {
    /// An entry of the base image, kept as it is.
    Inherited(crate::image::History),
    /// An instruction that changes no file.
    Empty { created_by: String },
    /// An instruction that adds the layer of `step`.
    Layer { created_by: String, step: StepId },
}
