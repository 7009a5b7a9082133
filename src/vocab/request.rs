//! What a build was asked to do, after files, environment and terminal were looked at. Made by `cli`, read by `pipeline`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    CacheFrom, CacheTo, GitRef, Handover, ImageRef, Platform, RequiredIsolation, Rung, Secret,
    StorageDriver,
};

/// Everything that one `builder build` means.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// The state directory.
    pub root: PathBuf,
    /// State directories that are only read, looked into in this order after that one.
    pub lower_roots: Vec<PathBuf>,
    pub context: ContextSource,
    /// Laid over the context, later ones over earlier ones.
    pub overlays: Vec<ContextOverlay>,
    pub dockerfile: DockerfileSource,
    /// Names of the result, as given by `-t`; each full.
    pub tags: Vec<ImageRef>,
    pub target: Option<String>,
    /// Stages that must succeed too before anything is delivered, each once.
    pub stages_beside: Vec<String>,
    /// In the order given; a value that the environment supplied is already filled in, a name without a value is left out.
    pub build_args: Vec<(String, String)>,
    pub labels: Vec<(String, String)>,
    /// Of each manifest.
    pub annotations: Vec<(String, String)>,
    /// Of the index, where there is one.
    pub index_annotations: Vec<(String, String)>,
    /// Empty: the host's.
    pub platforms: Vec<Platform>,
    /// Ask the registry even where the local store has the image.
    pub pull: bool,
    pub no_cache: bool,
    /// Whether it is told under which keys results were found.
    pub explain: bool,
    /// Whether the files of the result are counted by directory, which reads the names of all of them.
    pub counts_files: bool,
    /// Whether it is told what the steps are made from.
    pub tells_chart: bool,
    /// Stage names whose steps are not taken from the cache.
    pub no_cache_filter: Vec<String>,
    /// Results of steps are kept and found under it alone.
    pub cache_version: Option<String>,
    pub named_contexts: Vec<(String, NamedContext)>,
    /// Lines for /etc/hosts of RUN: name, address.
    pub add_hosts: Vec<(String, String)>,
    pub network: NetworkMode,
    /// How commands are confined; `None`: as well as this machine can.
    pub isolation: Option<Rung>,
    pub required_isolation: RequiredIsolation,
    /// How roots are put together; `None`: by overlayfs where it works.
    pub storage_driver: Option<StorageDriver>,
    pub allowed: Allowed,
    /// By id; the last of an id counts.
    pub secrets: Vec<(String, SecretSource)>,
    /// By id.
    pub agents: Vec<(String, AgentSource)>,
    pub emulators: Vec<EmulatorProgram>,
    /// Bytes of /dev/shm in RUN.
    pub shm_size: u64,
    pub ulimits: Vec<Ulimit>,
    /// Of each RUN.
    pub step_limits: StepLimits,
    /// Steps at the same time.
    pub jobs: usize,
    pub timeout: Option<Duration>,
    pub outputs: Vec<OutputSpec>,
    /// Asked in this order where the state directory knows nothing of a step.
    pub cache_from: Vec<CacheFrom>,
    pub cache_to: Vec<CacheTo>,
    /// Whether a pushed result gets a name made of what it is built from, and is looked for under it first.
    pub content_tag: bool,
    /// Indexes at registries that the result is added to.
    pub append_to: Vec<AppendTo>,
    /// A tag that the registry does not let be moved is no failure.
    pub ignore_immutable_tags: bool,
    pub iidfile: Option<PathBuf>,
    pub metadata_file: Option<PathBuf>,
    pub digest_files: DigestFiles,
    pub handover: Handover,
    /// Indexes of the state directory that the result is added to.
    pub local_indexes: Vec<ImageRef>,
    /// Stands for the ignore files of the context.
    pub ignore_file: Option<PathBuf>,
    /// `SOURCE_DATE_EPOCH` of the environment; the build argument of that name goes before it.
    pub source_date_epoch: Option<String>,
    pub registry: RegistryOptions,
    /// Commands that must succeed in each image before anything is delivered.
    pub smoke: Vec<Vec<String>>,
    pub on_failure: OnFailure,
}

/// What is done when a RUN has failed and the other steps have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    #[default]
    End,
    /// This command runs in the root of the failed step, on the user's terminal.
    Shell(Vec<String>),
    /// The root of the failed step is written to a file with what is known of it.
    Save(PathBuf),
}

/// Files that tell the next job what was built, in the form of kaniko's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestFiles {
    /// The digest of the manifest or index and nothing else.
    pub digest: Option<PathBuf>,
    /// A line `NAME@DIGEST` for each name.
    pub name: Option<PathBuf>,
    /// A line `NAME:TAG@DIGEST` for each name.
    pub name_and_tag: Option<PathBuf>,
}

/// Where the build context comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextSource {
    Directory(PathBuf),
    /// A tar of this machine.
    Archive(PathBuf),
    /// `-`: a tar, or a Dockerfile without a context.
    Stdin,
    Git(GitRef),
    /// A tar, or a Dockerfile.
    Http(String),
}

impl Default for ContextSource {
    /// The working directory.
    fn default() -> ContextSource {
        ContextSource::Directory(PathBuf::from("."))
    }
}

/// `--context-overlay SRC[:DEST]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextOverlay {
    pub source: OverlaySource,
    /// In the context: relative and clean; empty is its root.
    pub dest: String,
    /// The destination was written as a directory, with a `/` at its end.
    pub is_into: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlaySource {
    /// A directory, an archive or another file.
    Path(PathBuf),
    Http(String),
}

/// Where the Dockerfile comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile`, else `dockerfile`, in the context.
    #[default]
    Default,
    /// `-f FILE`: relative to the working directory, as `docker build` has it.
    ///
    /// Where the context is no directory, a relative path is one inside the context.
    File(PathBuf),
    Stdin,
    Http(String),
}

/// The value of `--build-context NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    Directory(PathBuf),
    /// `docker-image://REF`
    Image(ImageRef),
    /// `oci-layout://PATH[:TAG|@DIGEST]`
    OciLayout {
        path: PathBuf,
        reference: Option<String>,
    },
    Git(GitRef),
    /// One file, whose name is `context`.
    Http(String),
    /// `target:STAGE`: a stage of the same Dockerfile.
    Stage(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The builder's own network.
    #[default]
    Default,
    Host,
    /// A loopback interface and nothing else.
    None,
}

/// `--allow`: what a Dockerfile may ask for beyond the ordinary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `network.host`
    pub network_host: bool,
    /// `security.insecure`
    pub security_insecure: bool,
    /// `device`
    pub every_device: bool,
    /// `device=NAME`
    pub devices: Vec<String>,
}

impl Allowed {
    /// Tells whether a device may be used: by its name, or by its kind (`vendor.com/class` of `vendor.com/class=name`).
    pub fn device(&self, name: &str) -> bool {
        let kind = name.split_once('=').map_or(name, |(kind, _)| kind);
        self.every_device
            || self
                .devices
                .iter()
                .any(|allowed| allowed == name || allowed == kind)
    }
}

/// Where the value of a `--secret` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    /// A variable of the builder's environment.
    Variable(String),
}

/// What answers for a `--ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSource {
    /// The socket that `SSH_AUTH_SOCK` names.
    Environment,
    /// A socket of an agent, or files of private keys.
    Paths(Vec<PathBuf>),
}

/// `--emulator ARCH=PATH`: runs the programs of a foreign architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatorProgram {
    /// As platforms name it: `arm64`.
    pub architecture: String,
    pub path: PathBuf,
}

/// How much of the machine a RUN has (`--security`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// What a container has.
    #[default]
    Sandbox,
    /// All powers of the builder itself, and no system call filter.
    Insecure,
}

/// `--ulimit NAME=SOFT[:HARD]`; `u64::MAX` is "unlimited".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// What a RUN may use of the machine at most, all its processes together; `None` is no limit of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepLimits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together, `u64::MAX` for any amount of swap. `None`: as much swap as memory.
    pub memory_and_swap: Option<u64>,
    /// Microseconds of processor time in each period.
    pub cpu_quota: Option<u64>,
    /// In microseconds; `None`: 100 ms.
    pub cpu_period: Option<u64>,
    /// Relative to 1024, where others want the processors too.
    pub cpu_shares: Option<u64>,
    /// Processors as the kernel lists them: `0-3,5`.
    pub cpus: Option<String>,
    /// Memory nodes, listed alike.
    pub memory_nodes: Option<String>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Where the control groups of RUNs are made: absolute, or below the builder's own; a systemd slice by its name.
    pub parent: Option<String>,
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    Uncompressed,
    Gzip { level: u32 },
    Zstd { level: i32 },
}

impl Default for Compression {
    fn default() -> Compression {
        Compression::Gzip { level: 6 }
    }
}

/// The form in which a layer leaves the build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerForm {
    pub compression: Compression,
    /// No file is younger than this, in seconds since 1970.
    pub clamp: Option<i64>,
}

impl LayerForm {
    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<LayerForm> {
        let (compression, clamp) = match text.split_once('@') {
            Some((compression, clamp)) => (compression, Some(clamp.parse().ok()?)),
            None => (text, None),
        };
        let compression = match compression.split_once('-') {
            None if compression == "tar" => Compression::Uncompressed,
            Some(("gzip", level)) => Compression::Gzip {
                level: level.parse().ok()?,
            },
            Some(("zstd", level)) => Compression::Zstd {
                level: level.parse().ok()?,
            },
            _ => return None,
        };
        Some(LayerForm { compression, clamp })
    }
}

impl fmt::Display for LayerForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.compression {
            Compression::Uncompressed => f.write_str("tar"),
            Compression::Gzip { level } => write!(f, "gzip-{level}"),
            Compression::Zstd { level } => write!(f, "zstd-{level}"),
        }?;
        match self.clamp {
            None => Ok(()),
            Some(seconds) => write!(f, "@{seconds}"),
        }
    }
}

impl From<Compression> for LayerForm {
    fn from(compression: Compression) -> LayerForm {
        LayerForm {
            compression,
            clamp: None,
        }
    }
}

/// Which time an output shows where the time of the build is not wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Epoch {
    /// `SOURCE_DATE_EPOCH` of the build, if it has one.
    #[default]
    Build,
    /// `source-date-epoch=SECONDS`
    At(i64),
    /// `source-date-epoch=`: none, whatever the build has.
    Unset,
}

impl Epoch {
    /// Returns the seconds, given those of the build.
    pub fn or(self, build: Option<i64>) -> Option<i64> {
        match self {
            Epoch::Build => build,
            Epoch::At(seconds) => Some(seconds),
            Epoch::Unset => None,
        }
    }
}

/// How an image output is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageWriting {
    pub compression: Compression,
    pub epoch: Epoch,
    /// `rewrite-timestamp=true`: files of new layers that are younger than the epoch get its time.
    pub rewrite_timestamp: bool,
}

/// One `--output`. The image store output is what `-t`, `--load`, and no `--output` at all come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputSpec {
    /// `type=image`: the local store, and the registry with `push`.
    Image {
        names: Vec<ImageRef>,
        store: bool,
        push: bool,
        writing: ImageWriting,
        oci_media_types: bool,
    },
    /// `type=oci,dest=…[,tar=false]`
    Oci {
        dest: PathBuf,
        tar: bool,
        writing: ImageWriting,
    },
    /// `type=docker,dest=…`: an archive that `docker load` takes. `dest` `-` is standard output.
    Docker {
        dest: PathBuf,
        writing: ImageWriting,
    },
    /// `type=tar,dest=…`: the root file system. `dest` `-` is standard output.
    Tar {
        dest: PathBuf,
        /// `target=…`: the files of this stage, which is among those beside.
        stage: Option<String>,
        epoch: Epoch,
        /// `platform-split=…`: a directory for each platform. `None`: where there are several.
        split: Option<bool>,
    },
    /// `type=local,dest=…`: the root file system as a directory.
    Local {
        dest: PathBuf,
        /// As for `Tar`.
        stage: Option<String>,
        epoch: Epoch,
        /// As for `Tar`.
        split: Option<bool>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressMode {
    #[default]
    Auto,
    Tty,
    Plain,
    RawJson,
    Quiet,
}

/// An index at a registry that several jobs add to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendTo {
    /// Has a tag.
    pub image: ImageRef,
    /// What other runs have put there is left out.
    pub run: Option<String>,
    /// The index is written when it has all of these.
    pub expect: Vec<Platform>,
}

/// How registries are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// `--registry-mirror HOST=URL`, in order.
    pub mirrors: Vec<(String, String)>,
    /// `--insecure-registry HOST[:PORT]`: plain HTTP, and TLS without a check where HTTPS answers. Loopback hosts are always
    /// tried with plain HTTP after HTTPS. `*` is every registry.
    pub insecure: Vec<String>,
    /// `--authfile`: read in place of the file that `REGISTRY_AUTH_FILE` names.
    pub auth_file: Option<PathBuf>,
    /// `--creds`, for each registry that it is for: these go before everything else.
    pub accounts: Vec<RegistryAccount>,
    /// `--cert-dir DIR`: certificates for every registry, instead of the directories of single hosts.
    pub cert_dir: Option<PathBuf>,
    /// `--registry-certificate HOST=FILE`: authorities that are believed about one registry, besides all others.
    pub authorities: Vec<(String, PathBuf)>,
    /// `--registry-client-cert HOST=CERT,KEY`: what one registry is shown.
    pub identities: Vec<(String, PathBuf, PathBuf)>,
    /// `--retry`: attempts after the first; `None`: the usual number.
    pub retries: Option<u32>,
    /// `--retry-delay`: the first pause; each next one is twice as long.
    pub retry_delay: Option<Duration>,
}

/// A user name and a password for one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAccount {
    pub registry: String,
    pub user: String,
    pub password: Secret<String>,
}
