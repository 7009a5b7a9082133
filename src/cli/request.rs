//! What was typed becomes what it means.

use std::path::PathBuf;
use std::time::Duration;

use crate::pipeline::Failure;
use crate::sandbox;
use crate::vocab::{
    BuildRequest, ContextSource, DigestFiles, DockerfileSource, GitPlace, GitRef, ImageRef,
    NamedContext, NetworkMode, OutputSpec, Platform, RequiredIsolation, Ulimit, shown_url,
};

use super::args::{Build, Global, Network, RequireIsolation};
use super::caches::{Around, caches, is_off};
use super::forms;
use super::output::{self, outputs};
use super::scope::JobScope;
use super::{grants, handover, isolation, limits, usage};
use crate::ui::Showing;

/// Steps at the same time where neither flag nor quota says more: four, because many steps wait for the network or sleep.
const JOBS_AT_LEAST: usize = 4;

/// Memory that a step is thought to need where it is short: more at the same time would be killed rather than be fast.
const MEMORY_OF_A_STEP: u64 = 64 << 20;

/// What the machine leaves to the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    pub(super) cpus: usize,
    /// Bytes.
    pub(super) memory: u64,
}

impl Machine {
    pub(super) fn this() -> Machine {
        Machine {
            cpus: sandbox::cpu_quota(),
            memory: sandbox::usable_memory(),
        }
    }
}

/// Returns how many steps run at the same time where nobody says.
fn jobs(machine: Machine) -> usize {
    let fit = usize::try_from(machine.memory / MEMORY_OF_A_STEP).unwrap_or(usize::MAX);
    (2 * machine.cpus).max(JOBS_AT_LEAST).min(fit).max(1)
}

/// Returns the request, and how to show it.
pub(super) fn request(
    global: &Global,
    args: Build,
    machine: Machine,
) -> Result<(BuildRequest, Showing), Failure> {
    let mut tags = args
        .tag
        .iter()
        .map(|text| image(text))
        .collect::<Result<Vec<_>, _>>()?;
    for line in args.forms.tags()? {
        tags.push(image(line.text.trim()).map_err(|failure| line.refuse(failure))?);
    }
    let outputs = outputs(&args, &tags)?;
    let digest_files = digest_files(&args, &tags, &outputs)?;
    let variables = |name: &str| std::env::var(name).ok();
    let job = JobScope::of(&variables);
    let (cache_from, cache_to) = caches(
        &args.caches,
        &Around {
            job: &job,
            variables: &variables,
        },
    )?;
    let mut registry = global.registry_options()?;
    registry.accounts = args.account.of(&pushed(&outputs))?;
    let handover = args.handover.handover(
        &handover::Result {
            outputs: &outputs,
            has_name: has_name(&tags, &outputs) || !args.append_to.is_empty(),
        },
        args.show.system(&variables),
        &variables,
    )?;
    let (annotations, index_annotations) = annotations(&args.annotation)?;
    let showing = args.show.showing(
        args.progress,
        args.quiet,
        (args.context.as_str(), args.file.is_none()),
        &variables,
    );
    let context = context(&args.context)?;
    if args.ignorefile.is_some() && !matches!(context, ContextSource::Directory(_)) {
        return Err(usage("`--ignorefile` needs a directory as the context"));
    }
    let mut given = file_args(&args.build_arg_file)?;
    given.extend(args.forms.build_args()?);
    given.extend(args.build_arg.iter().cloned());
    let mut stages_beside: Vec<String> = Vec::new();
    for name in args.forms.required_stages().chain(output::stages(&outputs)) {
        if !stages_beside.contains(name) {
            stages_beside.push(name.clone());
        }
    }
    let request = BuildRequest {
        root: global.state_directory()?,
        lower_roots: global.lower_directories(),
        context,
        overlays: args.forms.overlays()?,
        dockerfile: match &args.file {
            None => DockerfileSource::Default,
            Some(path) if path.as_os_str() == "-" => DockerfileSource::Stdin,
            Some(path) if path.to_str().is_some_and(is_url) => {
                DockerfileSource::Http(path.display().to_string())
            }
            Some(path) => DockerfileSource::File(path.clone()),
        },
        tags,
        target: args.target.filter(|target| !target.is_empty()),
        stages_beside,
        build_args: build_args(&given, &|name| std::env::var(name).ok())?,
        labels: args
            .label
            .iter()
            .map(|text| pair("--label", text))
            .collect::<Result<_, _>>()?,
        annotations,
        index_annotations,
        platforms: args
            .platform
            .iter()
            .map(|text| {
                text.parse::<Platform>()
                    .map_err(|error| usage(error.to_string()))
            })
            .collect::<Result<_, _>>()?,
        pull: args.pull,
        no_cache: args.no_cache || is_off(&args.caches)?,
        cache_version: args.forms.cache_version(),
        explain: args.show.explain,
        counts_files: args.show.counts_files(),
        tells_chart: args.show.report()?.is_some(),
        no_cache_filter: args.no_cache_filter,
        named_contexts: args
            .build_context
            .iter()
            .map(|text| named_context(text))
            .collect::<Result<_, _>>()?,
        add_hosts: args
            .add_host
            .iter()
            .map(|text| add_host(text))
            .collect::<Result<_, _>>()?,
        network: match args.network {
            Network::Default => NetworkMode::Default,
            Network::Host => NetworkMode::Host,
            Network::None => NetworkMode::None,
        },
        isolation: isolation::rung(&args.isolation)?,
        required_isolation: match args.require_isolation {
            RequireIsolation::Any => RequiredIsolation::Any,
            RequireIsolation::Strict => RequiredIsolation::Strict,
        },
        storage_driver: isolation::driver(&args.storage_driver)?,
        allowed: grants::allowed(&args.allow)?,
        secrets: args
            .secret
            .iter()
            .map(|text| grants::secret(text, &|name| std::env::var_os(name).is_some()))
            .collect::<Result<_, _>>()?,
        agents: grants::agents(&args.ssh)?,
        emulators: args
            .emulator
            .iter()
            .map(|text| grants::emulator(text))
            .collect::<Result<_, _>>()?,
        shm_size: bytes("--shm-size", &args.shm_size)?,
        ulimits: args
            .ulimit
            .iter()
            .map(|text| ulimit(text))
            .collect::<Result<_, _>>()?,
        step_limits: limits::step_limits(args.limits)?,
        jobs: match args.jobs {
            Some(0) => return Err(usage("`--jobs` must be at least 1")),
            Some(jobs) => jobs,
            None => jobs(machine),
        },
        timeout: args
            .timeout
            .as_deref()
            .map(|text| duration("--timeout", text))
            .transpose()?,
        outputs,
        cache_from,
        cache_to,
        content_tag: args.content_tag,
        append_to: args
            .append_to
            .iter()
            .map(|text| output::append_to(text))
            .collect::<Result<_, _>>()?,
        ignore_immutable_tags: args.ignore_immutable_tags,
        iidfile: args.iidfile,
        metadata_file: args.metadata_file,
        digest_files,
        handover,
        local_indexes: args
            .manifest
            .iter()
            .map(|text| {
                let name = image(text)?;
                output::tagged(&name)?;
                Ok(name)
            })
            .collect::<Result<_, Failure>>()?,
        ignore_file: args.ignorefile,
        source_date_epoch: args
            .source_date_epoch
            .or_else(|| std::env::var("SOURCE_DATE_EPOCH").ok())
            .filter(|text| !text.is_empty()),
        registry,
        smoke: args.after.smoke()?,
        on_failure: args.after.on_failure()?,
    };
    Ok((request, showing))
}

/// Returns the names that are pushed.
fn pushed(outputs: &[OutputSpec]) -> Vec<ImageRef> {
    let names = outputs.iter().filter_map(|output| match output {
        OutputSpec::Image {
            names, push: true, ..
        } => Some(names),
        _ => None,
    });
    names.flatten().cloned().collect()
}

/// Reads an image reference.
pub(super) fn image(text: &str) -> Result<ImageRef, Failure> {
    text.parse()
        .map_err(|error: crate::vocab::ReferenceError| usage(error.to_string()))
}

fn context(text: &str) -> Result<ContextSource, Failure> {
    let path = PathBuf::from(text);
    if text == "-" {
        return Ok(ContextSource::Stdin);
    }
    // What is there is meant, whatever else the name could be.
    if path.is_dir() {
        return Ok(ContextSource::Directory(path));
    }
    if let Some(git) = repository(text)? {
        return Ok(ContextSource::Git(git));
    }
    if is_url(text) {
        return Ok(ContextSource::Http(text.to_owned()));
    }
    match path.is_file() {
        true => Ok(ContextSource::Archive(path)),
        false => Ok(ContextSource::Directory(path)),
    }
}

fn has_name(tags: &[ImageRef], outputs: &[OutputSpec]) -> bool {
    let is_named = |output: &OutputSpec| matches!(output, OutputSpec::Image { names, .. } if !names.is_empty());
    !tags.is_empty() || outputs.iter().any(is_named)
}

/// Returns the files of digests, if there will be a digest and names for them.
fn digest_files(
    args: &Build,
    tags: &[ImageRef],
    outputs: &[OutputSpec],
) -> Result<DigestFiles, Failure> {
    let is_image =
        |output: &OutputSpec| !matches!(output, OutputSpec::Tar { .. } | OutputSpec::Local { .. });
    let has_name = has_name(tags, outputs);
    for (flag, file, needs_name) in [
        ("--digest-file", &args.digest_file, false),
        (
            "--image-name-with-digest-file",
            &args.image_name_with_digest_file,
            true,
        ),
        (
            "--image-name-tag-with-digest-file",
            &args.image_name_tag_with_digest_file,
            true,
        ),
    ] {
        if file.is_none() {
            continue;
        }
        if !outputs.iter().any(is_image) {
            return Err(usage(format!("`{flag}` needs an output that is an image")));
        }
        if needs_name && !has_name {
            return Err(usage(format!(
                "`{flag}` needs a name: `--tag REGISTRY/NAME:TAG`"
            )));
        }
    }
    Ok(DigestFiles {
        digest: args.digest_file.clone(),
        name: args.image_name_with_digest_file.clone(),
        name_and_tag: args.image_name_tag_with_digest_file.clone(),
    })
}

/// Reads files of build arguments: a line each, without those that are blank or begin with `#`.
fn file_args(files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut given = Vec::new();
    for file in files {
        for line in forms::lines_of(file)? {
            if line.text.starts_with('=') || !line.text.contains('=') {
                return Err(line.refuse(usage("the line is not NAME=VALUE")));
            }
            given.push(line.text);
        }
    }
    Ok(given)
}

/// Reads the name of a repository; `None` if the text is something else.
fn repository(text: &str) -> Result<Option<GitRef>, Failure> {
    let parsed = GitRef::parse(text, GitPlace::CommandLine).transpose();
    parsed.map_err(|error| {
        let mut failure = usage(format!(
            "the repository cannot be used: `{}`",
            shown_url(text)
        ));
        failure.diagnostics[0].causes.push(error.to_string());
        failure
    })
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn build_args(
    typed: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut given = Vec::new();
    for text in typed {
        match text.split_once('=') {
            Some(("", _)) | None if text.is_empty() || text.starts_with('=') => {
                return Err(usage(format!("`--build-arg {text}` has no name")));
            }
            Some((name, value)) => given.push((name.to_owned(), value.to_owned())),
            None => given.extend(environment(text).map(|value| (text.clone(), value))),
        }
    }
    Ok(given)
}

fn pair(flag: &str, text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some(("", _)) => Err(usage(format!("`{flag} {text}` has no name"))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None if flag == "--label" && !text.is_empty() => Ok((text.to_owned(), String::new())),
        None => Err(usage(format!("`{flag} {text}` is not NAME=VALUE"))),
    }
}

type Pairs = Vec<(String, String)>;

/// Splits annotations into those of manifests and those of the index.
fn annotations(typed: &[String]) -> Result<(Pairs, Pairs), Failure> {
    let (mut manifest, mut index) = (Vec::new(), Vec::new());
    for text in typed {
        let (levels, rest) = match text.split_once(':') {
            Some((levels, rest)) if !levels.contains(['=', '.']) => (levels, rest),
            _ => ("manifest", text.as_str()),
        };
        let annotation = pair("--annotation", rest)?;
        for level in levels.split(',') {
            match level {
                "manifest" => manifest.push(annotation.clone()),
                "index" => index.push(annotation.clone()),
                other => {
                    let mut failure = usage(format!(
                        "`--annotation {text}`: level `{other}` is not supported"
                    ));
                    failure.diagnostics[0]
                        .hints
                        .push("levels are `manifest` (the default) and `index`".to_owned());
                    return Err(failure);
                }
            }
        }
    }
    Ok((manifest, index))
}

fn named_context(text: &str) -> Result<(String, NamedContext), Failure> {
    let (name, value) = pair("--build-context", text)?;
    let name = name.to_lowercase();
    let context = if let Some(reference) = value.strip_prefix("docker-image://") {
        NamedContext::Image(image(reference)?)
    } else if let Some(rest) = value.strip_prefix("oci-layout://") {
        let (path, reference) = match rest.split_once('@') {
            Some((path, digest)) => (path, Some(digest.to_owned())),
            None => match rest.rsplit_once(':') {
                Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
                _ => (rest, None),
            },
        };
        NamedContext::OciLayout {
            path: PathBuf::from(path),
            reference,
        }
    } else if let Some(stage) = value.strip_prefix("target:") {
        if stage.is_empty() {
            return Err(usage(format!("`--build-context {text}` names no stage")));
        }
        NamedContext::Stage(stage.to_owned())
    } else if PathBuf::from(&value).is_dir() {
        NamedContext::Directory(PathBuf::from(value))
    } else if let Some(git) = repository(&value)? {
        NamedContext::Git(git)
    } else if is_url(&value) {
        NamedContext::Http(value)
    } else if let Some((scheme, _)) = value.split_once("://") {
        let mut failure = usage(format!(
            "`--build-context {text}`: there are no contexts of the kind `{scheme}`"
        ));
        failure.diagnostics[0].hints.push(
            "a directory, docker-image://REF, oci-layout://PATH[:TAG|@DIGEST], a git URL, an http or https URL, and target:STAGE are contexts"
                .to_owned(),
        );
        return Err(failure);
    } else {
        NamedContext::Directory(PathBuf::from(value))
    };
    Ok((name, context))
}

pub(super) fn add_host(text: &str) -> Result<(String, String), Failure> {
    let refuse = || usage(format!("`--add-host {text}` is not HOST:IP"));
    let (host, address) = text.split_once(['=', ':']).ok_or_else(refuse)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(refuse());
    }
    if bare == "host-gateway" {
        // Steps share the builder's network: its own address is the gateway.
        return Ok((host.to_owned(), "127.0.0.1".to_owned()));
    }
    bare.parse::<std::net::IpAddr>().map_err(|_| refuse())?;
    Ok((host.to_owned(), bare.to_owned()))
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

pub(super) fn ulimit(text: &str) -> Result<Ulimit, Failure> {
    let refuse = || usage(format!("`--ulimit {text}` is not NAME=SOFT[:HARD]"));
    let (name, limits) = text.split_once('=').ok_or_else(refuse)?;
    if !ULIMITS.contains(&name) {
        let mut failure = usage(format!("`--ulimit {text}`: there is no limit `{name}`"));
        failure.diagnostics[0]
            .hints
            .push(format!("limits are {}", ULIMITS.join(", ")));
        return Err(failure);
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| refuse()),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if soft > hard {
        return Err(usage(format!(
            "`--ulimit {text}`: the soft limit is above the hard one"
        )));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// Reads a number of bytes with an optional unit (`k`, `m`, `g`, `t`, each 1024 times the one before; `b` or `ib` may follow).
pub(super) fn bytes(flag: &str, text: &str) -> Result<u64, Failure> {
    let refuse = || usage(format!("`{flag} {text}` is not a size such as 64m or 2g"));
    let lower = text.trim().to_lowercase();
    let digits = lower.len() - lower.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = lower.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(refuse()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(refuse)
}

/// Reads a duration such as `90s`, `20m`, `1h30m`, `7d`, `500ms`; a bare number is seconds.
pub(super) fn duration(flag: &str, text: &str) -> Result<Duration, Failure> {
    let refuse = || {
        usage(format!(
            "`{flag} {text}` is not a duration such as 90s, 20m or 1h30m"
        ))
    };
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len()
            - after
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(refuse()),
        };
        let number: f64 = number.parse().map_err(|_| refuse())?;
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| refuse())?;
        rest = after;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("64m", 64 << 20),
            ("1", 1),
            ("2GiB", 2 << 30),
            ("10 kb", 10 << 10),
        ] {
            assert_eq!(bytes("--x", text).unwrap(), expected, "{text}");
        }
        for text in ["", "m", "-1", "1x", "99999999999999999999g"] {
            assert!(bytes("--x", text).is_err(), "{text}");
        }
    }

    #[test]
    fn jobs_follow_processors_and_memory() {
        for (cpus, mebibytes, expected) in [
            (1, 24 << 10, 4),
            (8, 24 << 10, 16),
            (64, 256, 4),
            (64, 512, 8),
            (2, 100, 1),
            (2, 0, 1),
        ] {
            let machine = Machine {
                cpus,
                memory: mebibytes << 20,
            };
            assert_eq!(jobs(machine), expected, "{machine:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("2", 2000),
            ("1.5s", 1500),
        ] {
            assert_eq!(
                duration("--x", text).unwrap().as_millis(),
                milliseconds,
                "{text}"
            );
        }
        for text in ["", "s", "1y", "1.2.3s", "-1s"] {
            assert!(duration("--x", text).is_err(), "{text}");
        }
    }

    #[test]
    fn build_args_come_from_the_environment_or_not_at_all() {
        let environment = |name: &str| (name == "SET").then(|| "value".to_owned());
        let given = build_args(
            &["A=1=2".into(), "SET".into(), "UNSET".into(), "E=".into()],
            &environment,
        )
        .unwrap();
        let expected = [("A", "1=2"), ("SET", "value"), ("E", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(given, expected);
        assert!(build_args(&["=x".into()], &environment).is_err());
    }

    #[test]
    fn named_contexts() {
        let check = |text: &str, expected: NamedContext| {
            assert_eq!(named_context(text).unwrap().1, expected, "{text}")
        };
        check("a=dir/x", NamedContext::Directory("dir/x".into()));
        check(
            "a=docker-image://alpine",
            NamedContext::Image("alpine".parse().unwrap()),
        );
        let layout = |reference: Option<&str>| NamedContext::OciLayout {
            path: "/l".into(),
            reference: reference.map(str::to_owned),
        };
        check("a=oci-layout:///l", layout(None));
        check("a=oci-layout:///l:tag", layout(Some("tag")));
        check("a=oci-layout:///l@sha256:00", layout(Some("sha256:00")));
        check("a=https://x/y", NamedContext::Http("https://x/y".into()));
        check("a=target:b", NamedContext::Stage("b".into()));
        for text in ["a=https://x/y.git#v1", "a=git@x:y", "a=file:///x.git"] {
            let (_, context) = named_context(text).unwrap();
            assert!(matches!(context, NamedContext::Git(_)), "{text}");
        }
        for text in ["a", "a=target:", "a=ftp://x/y", "a=https://x/y.git?odd=1"] {
            assert!(named_context(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(
            add_host("a:1.2.3.4").unwrap(),
            ("a".into(), "1.2.3.4".into())
        );
        assert_eq!(add_host("a=[::1]").unwrap(), ("a".into(), "::1".into()));
        assert_eq!(add_host("a:::1").unwrap(), ("a".into(), "::1".into()));
        assert!(add_host("a:b").is_err());
        assert!(add_host("a").is_err());
    }

    #[test]
    fn ulimits() {
        assert_eq!(
            ulimit("nofile=10:20").unwrap(),
            Ulimit {
                name: "nofile".into(),
                soft: 10,
                hard: 20
            }
        );
        assert_eq!(ulimit("core=-1").unwrap().soft, u64::MAX);
        assert!(ulimit("nofile=20:10").is_err());
        assert!(ulimit("files=1").is_err());
    }
}
