//! The command line as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};

use super::show::Show;
use crate::vocab::Secret;

/// Turns a Dockerfile into an OCI image wherever a process can run: no daemon, no root, no Docker.
#[derive(Debug, Parser)]
#[command(
    name = "builder",
    version,
    max_term_width = 110,
    after_help = "Every flag has a variable, such as BUILDER_NO_CACHE for --no-cache of build, and a project can have a builder.toml \
                  (docs/settings.md)\nAs another tool: builder executor|warmer|bud|buildah|podman|docker …, or by that name of the program (docs/moving.md)",
    disable_help_subcommand = true
)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Before or after the subcommand.
#[derive(Debug, ClapArgs)]
pub(super) struct Global {
    /// Work in this directory: every other path is relative to it
    #[arg(
        id = "working-directory",
        short = 'C',
        long = "directory",
        value_name = "DIR",
        global = true
    )]
    pub(super) directory: Option<PathBuf>,
    /// State directory: images, layers, cache [default: /var/lib/builder as root, else ~/.local/share/builder]
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) root: Option<PathBuf>,
    /// State directory that is only read, and looked into where the own one does not have something; several in order
    #[arg(long, value_name = "DIR", global = true, value_delimiter = ':')]
    pub(super) lower_root: Vec<OsString>,
    /// Pull images of HOST from URL first, then from HOST itself
    #[arg(long, value_name = "HOST=URL", global = true, value_delimiter = ',')]
    pub(super) registry_mirror: Vec<String>,
    /// Allow plain HTTP, and TLS without a valid certificate, for this registry; `*`: for every registry
    #[arg(long, value_name = "HOST[:PORT]", global = true, value_delimiter = ',')]
    pub(super) insecure_registry: Vec<String>,
    /// File of credentials [default: that of REGISTRY_AUTH_FILE, else auth.json and config.json in their usual places]
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) authfile: Option<PathBuf>,
    /// Authorities (*.crt) and client certificates (*.cert with *.key) for every registry
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) cert_dir: Option<PathBuf>,
    /// Believe the authorities of this file about one registry, besides all others
    #[arg(long, value_name = "HOST=FILE", global = true)]
    pub(super) registry_certificate: Vec<String>,
    /// Show one registry this certificate
    #[arg(long, value_name = "HOST=CERT,KEY", global = true)]
    pub(super) registry_client_cert: Vec<String>,
    /// Attempts after the first where a registry or the network fails for a moment [default: 4]
    #[arg(long, value_name = "N", global = true)]
    pub(super) retry: Option<u32>,
    /// Pause before the second attempt; each next one is twice as long [default: 500ms]
    #[arg(long, value_name = "DURATION", global = true)]
    pub(super) retry_delay: Option<String>,
    /// Read settings from this file, and not from `builder.toml` of the context
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// Read no file of settings
    #[arg(long, global = true, conflicts_with = "config")]
    pub(super) no_config: bool,
    /// Print the settings, each with its value and where it comes from, and do nothing else
    #[arg(long, global = true)]
    pub(super) print_config: bool,
}

/// An account for the registries of one command.
#[derive(Debug, ClapArgs)]
pub(super) struct Account {
    /// Account for the registry that is pulled from or pushed to; processes of this machine can see it: the variable
    /// BUILDER_CREDS takes the same unseen, and BUILDER_REGISTRY, BUILDER_REGISTRY_USER, BUILDER_REGISTRY_PASSWORD name a registry
    #[arg(long, value_name = "USER:PASSWORD", value_parser = hidden)]
    pub(super) creds: Option<Secret<String>>,
}

/// Takes a value that is shown nowhere.
fn hidden(text: &str) -> Result<Secret<String>, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<Build>),
    /// Print the tag that `build --content-tag` gives the result, without building
    Digest(Box<Build>),
    /// Say what a build would do, and why what is not in the cache is not
    Plan(Box<Plan>),
    /// Run an image without Docker, in a root that is thrown away
    Run(Box<super::run::Run>),
    /// Bring an image from a registry into the state directory
    Pull(Pull),
    /// Send an image of the state directory to its registry
    Push(Push),
    /// Indexes of several platforms: put together, looked at, pushed
    #[command(subcommand)]
    Manifest(super::manifest::Command),
    /// List images
    Images(Images),
    /// List files of an image; without one, list images
    Ls(super::look::Ls),
    /// Print a file of an image
    Cat(super::look::Cat),
    /// Say what differs between two images, by file
    Diff(super::look::Diff),
    /// Show an image's manifest and config as JSON
    Inspect(Inspect),
    /// Give an image another name
    Tag(Tag),
    /// Remove names of images; what nothing else needs goes with the next prune
    Rmi(Remove),
    /// Make an image of a root file system tar
    Import(Import),
    /// Write an image to an archive or OCI layout
    Save(Save),
    /// Remove what no image needs
    Prune(Prune),
    /// Show what takes the space
    Du(Du),
    /// What is in a cache, of this machine or one that machines share, and pruning it
    #[command(subcommand)]
    Cache(super::cache_command::Command),
    /// Say what this environment allows: how steps are run, and what a better way would need
    Doctor(Doctor),
    /// Keep credentials for a registry
    Login(Login),
    /// Forget credentials for a registry
    Logout(Logout),
    /// Look into a failed step that `build --on-error=save:FILE` has saved; or show how texts are understood
    Debug(Box<DebugArgs>),
    /// Print completions for a shell
    Completion(super::manual::Completion),
    /// Write the manual pages to a directory
    Man(super::manual::Man),
    /// Show the version
    Version,
}

/// `builder build`: short forms and defaults are those of `docker build`.
#[derive(Debug, ClapArgs)]
pub(super) struct Build {
    /// Dockerfile: a path, a URL, or `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Name the image, and keep it in the state directory unless it is pushed
    #[arg(short, long, value_name = "REF")]
    pub(super) tag: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Set an ARG; without a value, from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Add a label to the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) label: Vec<String>,
    /// Add an annotation to the manifest (`index:KEY=VALUE`: to the index)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) annotation: Vec<String>,
    /// Platform to build for, such as linux/amd64; several make an index
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(super) platform: Vec<String>,
    /// Ask the registry for each base image, even where it is in the state directory
    #[arg(long)]
    pub(super) pull: bool,
    /// Execute every step
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Execute every step of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    #[command(flatten)]
    pub(super) caches: Caches,
    /// Tag what is pushed with a hash of all that it is built from too; where the registry has that tag, only name it and end
    #[arg(long)]
    pub(super) content_tag: bool,
    /// Name another build context: a directory, docker-image://REF, oci-layout://PATH[:TAG], a git or http URL, target:STAGE
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) build_context: Vec<String>,
    /// Add a line to /etc/hosts of RUN
    #[arg(long, value_name = "HOST:IP")]
    pub(super) add_host: Vec<String>,
    /// Network of RUN
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(super) network: Network,
    /// How to confine RUN: auto, ns, ns-full, ns-sub, ns-one, chroot, paths [default: the first of these that works]
    #[arg(
        long,
        value_name = "RUNG",
        default_value = "auto",
        hide_default_value = true
    )]
    pub(super) isolation: String,
    /// What RUN must be kept from: `any` takes what the machine gives, `strict` refuses a weaker sandbox than namespaces,
    /// filter and socket scope make
    #[arg(long, value_name = "LEVEL", default_value = "any")]
    pub(super) require_isolation: RequireIsolation,
    /// How to keep the files of a step's root: auto, overlay, tree [default: overlay where it works]
    #[arg(
        long,
        value_name = "DRIVER",
        default_value = "auto",
        hide_default_value = true
    )]
    pub(super) storage_driver: String,
    /// Give a secret to steps that ask for it: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SPEC")]
    pub(super) secret: Vec<String>,
    /// Give an SSH agent to steps that ask for it: ID[=SOCKET|KEY[,KEY]] [default: the agent of SSH_AUTH_SOCK]
    #[arg(long, value_name = "SPEC")]
    pub(super) ssh: Vec<String>,
    /// Let steps ask for more: network.host, security.insecure, device[=NAME]
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub(super) allow: Vec<String>,
    /// Run programs of another architecture with a static qemu-user, such as arm64=/usr/bin/qemu-aarch64-static
    #[arg(long, value_name = "ARCH=PATH")]
    pub(super) emulator: Vec<String>,
    /// Size of /dev/shm in RUN, such as 64m
    #[arg(long, value_name = "BYTES", default_value = "64m")]
    pub(super) shm_size: String,
    /// Resource limit of RUN
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(super) ulimit: Vec<String>,
    #[command(flatten)]
    pub(super) limits: StepLimits,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write digests and names to a file as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// How to show the build
    #[arg(
        long,
        value_name = "MODE",
        default_value = "auto",
        env = "BUILDKIT_PROGRESS"
    )]
    pub(super) progress: Progress,
    #[command(flatten)]
    pub(super) show: Show,
    /// Print the image ID only
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Push the image to its registry: --output type=registry
    #[arg(long)]
    pub(super) push: bool,
    #[command(flatten)]
    pub(super) account: Account,
    /// Push the image by digest and add it to the index under REF, which other jobs may add to at the same time
    #[arg(long, value_name = "REF[,run=ID][,expect=PLATFORM]")]
    pub(super) append_to: Vec<String>,
    /// Leave a tag as it is where the registry does not let it be moved, and do not fail
    #[arg(long, alias = "push-ignore-immutable-tag-errors")]
    pub(super) ignore_immutable_tags: bool,
    /// Keep the image in the state directory: --output type=image
    #[arg(long)]
    pub(super) load: bool,
    /// Where the result goes: type=image|registry|oci|docker|tar|local[,dest=PATH][,…]; a bare path is type=local, `-` a tar on
    /// standard output; target=STAGE with type=tar and type=local: the files of another stage
    #[arg(short, long, value_name = "SPEC")]
    pub(super) output: Vec<String>,
    #[command(flatten)]
    pub(super) after: super::after::After,
    /// End the build after this time, such as 90s, 20m, 1h30m
    #[arg(long, value_name = "DURATION")]
    pub(super) timeout: Option<String>,
    /// Steps at the same time [default: by the CPU quota and memory limit of the builder's control group]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Look at the Dockerfile and do not build: --call check
    #[arg(long, conflicts_with = "call")]
    pub(super) check: bool,
    /// What to do: build, check (lint rules), outline (what the target can be given) or targets[,format=json|text]
    #[arg(long, value_name = "METHOD", default_value = "build")]
    pub(super) call: String,
    /// Write the digest of the manifest or index to a file
    #[arg(long, value_name = "FILE")]
    pub(super) digest_file: Option<PathBuf>,
    /// Write NAME@DIGEST to a file, a line for each name
    #[arg(long, value_name = "FILE")]
    pub(super) image_name_with_digest_file: Option<PathBuf>,
    /// Write NAME:TAG@DIGEST to a file, a line for each name
    #[arg(long, value_name = "FILE")]
    pub(super) image_name_tag_with_digest_file: Option<PathBuf>,
    /// Add the image to the index REF of the state directory, which is made if it does not exist
    #[arg(long, value_name = "REF")]
    pub(super) manifest: Vec<String>,
    /// Time of the image in seconds since 1970 [default: SOURCE_DATE_EPOCH of the environment, else the clock]
    #[arg(long, value_name = "SECONDS")]
    pub(super) source_date_epoch: Option<String>,
    /// Give files of new layers that are younger than that time its value: `rewrite-timestamp=true` of every output
    #[arg(long)]
    pub(super) rewrite_timestamp: bool,
    /// Read lines of NAME=VALUE as build arguments; `--build-arg` goes before them
    #[arg(long, value_name = "FILE")]
    pub(super) build_arg_file: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) forms: super::forms::Forms,
    /// Leave out of the context what this file says, instead of its own ignore files
    #[arg(long, value_name = "FILE")]
    pub(super) ignorefile: Option<PathBuf>,
    #[command(flatten)]
    pub(super) handover: super::handover::Handover,
    /// What COPY and ADD read from: a directory, a tar, a git URL, the URL of a tar or Dockerfile, or `-` for one of these on
    /// standard input
    #[arg(value_name = "CONTEXT")]
    pub(super) context: String,
}

/// Caches that machines share.
#[derive(Debug, ClapArgs)]
pub(super) struct Caches {
    /// Share the results of all steps, and cache mounts, through a repository, a directory, a bucket of an object store or GitHub's cache:
    /// both `--cache-from` and `--cache-to …,mode=max`; several are separated by `;`. `off`: read and write no cache
    #[arg(long, value_name = "REPOSITORY|DIR|s3://BUCKET/PREFIX|gha|off")]
    pub(super) cache: Vec<String>,
    /// Take results of steps from type=registry,ref=REF|local,src=DIR|s3,bucket=NAME…|gha[,scope=NAME|auto]
    /// [,scope-fallback=NAME][,mounts=true|false|ID][,mounts-max-size=SIZE]; a bare REF is type=registry
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_from: Vec<String>,
    /// Give results of steps to type=registry,ref=REF|local,dest=DIR|s3,bucket=NAME…|gha|inline[,mode=min|max][,scope=NAME|auto]
    /// [,mounts=true|false|ID][,mounts-max-size=SIZE][,ignore-error=true][,compression=…]
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_to: Vec<String>,
}

/// Limits of each RUN by control groups; where there is no way to have them, the build says so and goes on.
#[derive(Debug, ClapArgs)]
pub(super) struct StepLimits {
    /// Memory of a RUN, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    pub(super) memory: Option<String>,
    /// Memory and swap together; -1: any amount of swap [default: as much swap as memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Processors' worth of time of a RUN, such as 1.5
    #[arg(long, value_name = "N", conflicts_with_all = ["cpu_quota", "cpu_period"])]
    pub(super) cpus: Option<String>,
    /// Microseconds of processor time of a RUN in each period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<i64>,
    /// Length of the period [default: 100000]
    #[arg(long, value_name = "MICROSECONDS")]
    pub(super) cpu_period: Option<u64>,
    /// Share of processor time, relative to 1024
    #[arg(short, long, value_name = "N")]
    pub(super) cpu_shares: Option<u64>,
    /// Processors of a RUN, such as 0-3,5
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes of a RUN
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_mems: Option<String>,
    /// Processes and threads of a RUN; -1: any number
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) pids_limit: Option<i64>,
    /// Control group to make those of RUNs in: absolute, below the builder's own, or a systemd slice
    #[arg(long, value_name = "GROUP")]
    pub(super) cgroup_parent: Option<String>,
}

/// `builder plan`
#[derive(Debug, ClapArgs)]
pub(super) struct Plan {
    #[command(flatten)]
    pub(super) build: Build,
    /// Format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// `builder debug`
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct DebugArgs {
    #[command(subcommand)]
    pub(super) text: Option<Debug>,
    #[command(flatten)]
    pub(super) surroundings: super::run::Surroundings,
    /// File of `build --on-error=save:FILE`; one with the name of a subcommand is `./NAME`
    #[arg(value_name = "FILE", required = true)]
    pub(super) file: Option<PathBuf>,
    /// Command to run in the root of the failed step [default: a shell]
    #[arg(value_name = "COMMAND", last = true)]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Debug {
    /// Cut a Dockerfile into instructions, arguments and heredocs
    Parse {
        /// Dockerfile; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Replace the variables of a word
    Expand {
        /// Escape character
        #[arg(long, value_name = "C", default_value = "\\")]
        escape: char,
        /// Set a variable
        #[arg(long, value_name = "K=V")]
        env: Vec<String>,
        /// Split at blanks, and print a JSON list
        #[arg(long)]
        words: bool,
        /// Word to expand
        #[arg(value_name = "WORD", allow_hyphen_values = true)]
        word: String,
    },
    /// Tell whether patterns of an ignore file exclude a path
    Ignore {
        /// Pattern, as a line of the file
        #[arg(long, value_name = "P", allow_hyphen_values = true)]
        pattern: Vec<String>,
        /// Path, relative to the context
        #[arg(value_name = "PATH", allow_hyphen_values = true)]
        path: PathBuf,
    },
    /// List the files of a build context
    Context {
        /// Directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Network {
    Default,
    Host,
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum RequireIsolation {
    Any,
    Strict,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Progress {
    Auto,
    Tty,
    Plain,
    Rawjson,
    Quiet,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Doctor {
    /// As of `build`
    #[arg(
        long,
        value_name = "RUNG",
        default_value = "auto",
        hide_default_value = true
    )]
    pub(super) isolation: String,
    /// As of `build`
    #[arg(
        long,
        value_name = "DRIVER",
        default_value = "auto",
        hide_default_value = true
    )]
    pub(super) storage_driver: String,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Pull {
    /// Image to pull
    #[arg(value_name = "REF", required_unless_present = "file")]
    pub(super) images: Vec<String>,
    /// Pull the bases of a Dockerfile
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Set an ARG of that Dockerfile; without a value, from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Platform to pull [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Option<String>,
    #[command(flatten)]
    pub(super) account: Account,
    /// Print digests only
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Push {
    /// Image to push
    #[arg(value_name = "REF")]
    pub(super) image: String,
    /// Name to push it under [default: its own]
    #[arg(value_name = "DESTINATION")]
    pub(super) destination: Option<String>,
    #[command(flatten)]
    pub(super) account: Account,
    /// Print the digest only
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Write the digest to a file
    #[arg(long, value_name = "FILE")]
    pub(super) digest_file: Option<PathBuf>,
    /// Leave a tag as it is where the registry does not let it be moved, and do not fail
    #[arg(long, alias = "push-ignore-immutable-tag-errors")]
    pub(super) ignore_immutable_tags: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Images {
    /// Show digests and IDs whole
    #[arg(long)]
    pub(super) no_trunc: bool,
    /// Print IDs only
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Inspect {
    /// Name, or at least four digits of a digest
    #[arg(value_name = "IMAGE", required = true)]
    pub(super) images: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Tag {
    /// Name, or at least four digits of a digest
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,
    /// New name
    #[arg(value_name = "REF", required = true)]
    pub(super) names: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Remove {
    /// Name, or at least four digits of a digest (all its names)
    #[arg(value_name = "IMAGE", required = true)]
    pub(super) images: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Import {
    /// Tar of a root file system, plain or compressed; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Name of the image
    #[arg(value_name = "REF")]
    pub(super) name: Option<String>,
    /// Apply a Dockerfile instruction that changes the config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(super) change: Vec<String>,
    /// Comment of the history entry
    #[arg(short, long, value_name = "TEXT")]
    pub(super) message: Option<String>,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Save {
    /// Image to write
    #[arg(value_name = "IMAGE", required = true)]
    pub(super) images: Vec<String>,
    /// File, or directory for `oci-dir`; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value = "-")]
    pub(super) output: PathBuf,
    /// Format
    #[arg(long, default_value = "docker")]
    pub(super) format: SaveFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SaveFormat {
    /// What `docker load` takes
    Docker,
    /// An OCI layout as a tar
    Oci,
    /// An OCI layout as a directory
    OciDir,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Prune {
    /// Remove the cache of steps too, not only what is unreachable
    #[arg(short, long)]
    pub(super) all: bool,
    /// Remove only what was not used for this time, such as 24h or 7d
    #[arg(long, value_name = "DURATION")]
    pub(super) older_than: Option<String>,
    /// Remove the least recently used until this much is left, such as 10g
    #[arg(long, value_name = "BYTES", visible_alias = "max-size")]
    pub(super) keep: Option<String>,
    /// Keep the N most recently used steps and cache mounts, whatever the other flags say; alone, all others go
    #[arg(long, value_name = "N")]
    pub(super) keep_last: Option<usize>,
    /// Remove unpacked layers that are there as blobs too; steps that need them unpack them again
    #[arg(long)]
    pub(super) trees: bool,
    /// Say what would go, and keep it
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask (there is no question; for scripts of other tools)
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(super) force: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Du {
    /// Read every blob and record, and say what is damaged
    #[arg(long)]
    pub(super) verify: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Login {
    /// Registry host
    #[arg(value_name = "HOST", default_value = "docker.io")]
    pub(super) registry: String,
    /// User name
    #[arg(short, long)]
    pub(super) username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(super) password_stdin: bool,
    /// Password; processes of this machine can see it: `--password-stdin` takes the same unseen
    #[arg(short, long, value_name = "PASSWORD", value_parser = hidden, conflicts_with = "password_stdin")]
    pub(super) password: Option<Secret<String>>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Logout {
    /// Registry host
    #[arg(value_name = "HOST", default_value = "docker.io")]
    pub(super) registry: String,
}
