//! The words that every room uses, and [`each`], which does something with several things at a time. No I/O; depends on no other room.
//!
//! Glossary: a *digest* names bytes (SHA-256). A *diff ID* is the digest of a layer's uncompressed tar, a *blob* is what a
//! registry stores (usually compressed). A *layer* is one step's change of the file tree; a *snapshot* is the same change as a
//! directory on disk. A *stage* is one `FROM` section of a Dockerfile, a *step* one node of the graph that is solved. A *result
//! ID* names what a step made, so that the keys of later steps can speak of it.

mod cache;
mod cancel;
mod chart;
mod contents;
mod diagnostic;
mod digest;
mod event;
mod exit;
mod git;
mod handover;
mod isolation;
mod key;
mod ledger;
mod miss;
mod nearest;
mod platform;
mod reference;
mod request;
mod secret;
mod size;
mod span;
mod time;
mod turns;

pub use cache::{
    ActionsPlace, BucketKeys, BucketPlace, CacheFrom, CacheMode, CachePlace, CacheScope, CacheTo,
    MOUNTS_MAX_SIZE, MountChoice,
};
pub use cancel::{Cancel, CancelReason};
pub use chart::{Chart, ChartStage, ChartStep, Need};
pub use contents::{Contents, Covered, LayerContents, SizeNode};
pub use diagnostic::{Diagnostic, Label, Severity};
pub use digest::{Descriptor, DiffId, Digest, DigestError, LayerId, ResultId, Sha256};
pub use event::{Event, EventSink, Nobody, Stream, Summary, SummaryImage, SummaryLayer, VertexId};
pub use exit::ExitCode;
pub use git::{
    GitPlace, GitRef, GitRefError, GitTimes, check_commit, is_commit, percent_decoded, shown_url,
    split_credentials, without_passwords,
};
pub use handover::{Chosen, Field, Handover, OutputsFile, Template, TemplateError};
pub use isolation::{RequiredIsolation, Rung, StorageDriver, UnknownName};
pub use key::{CacheKey, KeyBuilder, KeyComponent};
pub use ledger::{Attributes, DeviceNumber, FileId, Ledger, Ownership, mode_on_disk};
pub use miss::{Change, FileChange, Reason, reasons_text};
pub use nearest::{likeness, nearest};
pub use platform::{Platform, PlatformError};
pub use reference::{ImageRef, ReferenceError};
pub use request::{
    AgentSource, Allowed, AppendTo, BuildRequest, Compression, ContextOverlay, ContextSource,
    DigestFiles, DockerfileSource, EmulatorProgram, Epoch, ImageWriting, LayerForm, NamedContext,
    NetworkMode, OnFailure, OutputSpec, OverlaySource, ProgressMode, RegistryAccount,
    RegistryOptions, SecretSource, Security, StepLimits, Ulimit,
};
pub use secret::{Secret, names_a_secret};
pub use size::size;
pub use span::{SourceText, Span, Spanned};
pub use time::Timestamp;
pub use turns::each;
