//! `builder run`: an image tried out without Docker. Flags are those of `docker run`.
//!
//! The exit status is the command's own, so the builder's failures have one that commands hardly have: Docker's 125.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode as ProcessExitCode;

use clap::Args as ClapArgs;

use crate::pipeline::{self, Console, Failure, HostMount, Overrides, Subject, TryImage};
use crate::plan::{Mount, SecretMount};
use crate::store::Store;
use crate::ui;
use crate::vocab::{
    BuildRequest, Cancel, CancelReason, Diagnostic, ExitCode, ImageRef, NetworkMode, Platform,
    ProgressMode,
};

use super::args::{Account, Global, Network, StepLimits};
use super::build::told;
use super::fields::Fields;
use super::images::find;
use super::request::{add_host, bytes, image, ulimit};
use super::{grants, isolation, limits, usage};

/// The status of a failure of the builder itself.
const OWN_FAILURE: u8 = 125;

/// What surrounds a command that is tried.
#[derive(Debug, ClapArgs)]
pub(super) struct Surroundings {
    /// Set a variable; without a value, from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<String>,
    /// User, and group after a colon, by name or number [default: the image's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,
    /// Working directory [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<String>,
    /// Network
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(super) network: Network,
    /// Show a file or directory of this machine
    #[arg(short, long, value_name = "HOST:DEST[:ro]")]
    pub(super) volume: Vec<String>,
    /// Show a file or directory, or an empty file system of memory: type=bind,src=HOST,dst=DEST[,ro] or
    /// type=tmpfs,dst=DEST[,tmpfs-size=BYTES]
    #[arg(long, value_name = "SPEC")]
    pub(super) mount: Vec<String>,
    /// Give a secret as the file /run/secrets/ID: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SPEC")]
    pub(super) secret: Vec<String>,
    /// Pass standard input on [default: where standard input and output are terminals]
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) interactive: Option<bool>,
    /// Give the command a terminal [default: where standard input and output are terminals]
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) tty: Option<bool>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub(super) add_host: Vec<String>,
    /// Size of /dev/shm, such as 64m
    #[arg(long, value_name = "BYTES", default_value = "64m")]
    pub(super) shm_size: String,
    /// Resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(super) ulimit: Vec<String>,
    #[command(flatten)]
    pub(super) limits: StepLimits,
    /// Run programs of another architecture with a static qemu-user, such as arm64=/usr/bin/qemu-aarch64-static
    #[arg(long, value_name = "ARCH=PATH")]
    pub(super) emulator: Vec<String>,
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
}

/// `builder run`
#[derive(Debug, ClapArgs)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) surroundings: Surroundings,
    /// Program to run instead of the image's entry point; its command goes with that. An empty one is none
    #[arg(long, value_name = "PROGRAM")]
    pub(super) entrypoint: Option<String>,
    /// Ask the registry for the image, even where it is in the state directory
    #[arg(long)]
    pub(super) pull: bool,
    /// Platform [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Option<String>,
    /// Do not show what is fetched
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Remove what the command leaves (that is always so; for scripts of other tools)
    #[arg(long)]
    pub(super) rm: bool,
    #[command(flatten)]
    pub(super) account: Account,
    /// Image (a name, or at least four digits of a digest), and its command, or the arguments of its entry point [default: the
    /// image's own]
    // One list: what comes behind the image is never a flag of ours.
    #[arg(
        value_names = ["IMAGE", "COMMAND"],
        num_args = 1..,
        required = true,
        trailing_var_arg = true
    )]
    pub(super) words: Vec<String>,
}

pub(super) fn run(global: &Global, args: Run) -> Result<ProcessExitCode, Failure> {
    let progress = match args.quiet {
        true => ProgressMode::Quiet,
        false => ProgressMode::Auto,
    };
    status(request(global, args), progress)
}

/// Runs what was asked for, and returns its status or [`OWN_FAILURE`].
pub(super) fn status(
    request: Result<TryImage, Failure>,
    progress: ProgressMode,
) -> Result<ProcessExitCode, Failure> {
    let display = ui::display(progress);
    let cancel = Cancel::new();
    let tried =
        request.and_then(|request| pipeline::try_image(&request, display.as_ref(), &cancel));
    let failure = match tried {
        Ok(status) => return Ok(status.code().into()),
        Err(failure) => failure,
    };
    told(failure, display.as_ref());
    Ok(match cancel.reason() {
        Some(CancelReason::Interrupted) => ExitCode::Interrupted.into(),
        Some(CancelReason::Terminated) => ExitCode::Terminated.into(),
        _ => OWN_FAILURE.into(),
    })
}

fn request(global: &Global, args: Run) -> Result<TryImage, Failure> {
    let platform = match &args.platform {
        Some(text) => text
            .parse()
            .map_err(|error: crate::vocab::PlatformError| usage(error.to_string()))?,
        None => Platform::host(),
    };
    let mut words = args.words.into_iter();
    let image = words.next().expect("the flags require one");
    let image = subject(&global.store()?, &image, args.pull)?;
    let mut request = args.surroundings.request(global, image, platform)?;
    if let Subject::Named(name) = &request.image {
        request.conditions.registry.accounts = args.account.of(std::slice::from_ref(name))?;
    }
    request.conditions.pull = args.pull;
    request.wanted.entrypoint = args.entrypoint.map(|program| match program.is_empty() {
        true => Vec::new(),
        false => vec![program],
    });
    request.wanted.command = words.collect();
    Ok(request)
}

/// Finds an image in the state directory, or takes the text for the name of one elsewhere.
pub(super) fn subject(store: &Store, text: &str, pull: bool) -> Result<Subject, Failure> {
    let name = text.parse::<ImageRef>().ok();
    match (name, find(store, text)) {
        (Some(name), _) if pull => Ok(Subject::Named(name)),
        (_, Ok(stored)) => Ok(Subject::Stored {
            manifest: stored.manifest,
            name: stored.names.into_iter().next(),
        }),
        (Some(name), Err(failure)) if failure.class == ExitCode::Source => Ok(Subject::Named(name)),
        (None, Err(failure)) if failure.class == ExitCode::Source => {
            image(text).map(Subject::Named)
        }
        (_, Err(failure)) => Err(failure),
    }
}

impl Surroundings {
    /// Returns the request to run an image so.
    pub(super) fn request(
        self,
        global: &Global,
        image: Subject,
        platform: Platform,
    ) -> Result<TryImage, Failure> {
        let console = self.console()?;
        let (mut host_mounts, mut mounts) = (Vec::new(), Vec::new());
        for text in &self.volume {
            host_mounts.push(volume(text)?);
        }
        for text in &self.mount {
            match mount(text)? {
                Given::Host(mount) => host_mounts.push(mount),
                Given::Memory(mount) => mounts.push(mount),
            }
        }
        let secrets = self
            .secret
            .iter()
            .map(|text| grants::secret(text, &|name| std::env::var_os(name).is_some()))
            .collect::<Result<Vec<_>, _>>()?;
        mounts.extend(secrets.iter().map(|(id, _)| secret_mount(id)));
        let conditions = BuildRequest {
            root: global.state_directory()?,
            lower_roots: global.lower_directories(),
            add_hosts: self
                .add_host
                .iter()
                .map(|text| add_host(text))
                .collect::<Result<_, _>>()?,
            network: match self.network {
                Network::Default => NetworkMode::Default,
                Network::Host => NetworkMode::Host,
                Network::None => NetworkMode::None,
            },
            isolation: isolation::rung(&self.isolation)?,
            storage_driver: isolation::driver(&self.storage_driver)?,
            secrets,
            emulators: self
                .emulator
                .iter()
                .map(|text| grants::emulator(text))
                .collect::<Result<_, _>>()?,
            shm_size: bytes("--shm-size", &self.shm_size)?,
            ulimits: self
                .ulimit
                .iter()
                .map(|text| ulimit(text))
                .collect::<Result<_, _>>()?,
            step_limits: limits::step_limits(self.limits)?,
            jobs: 1,
            registry: global.registry_options()?,
            ..BuildRequest::default()
        };
        let wanted = Overrides {
            env: variables(&self.env, &|name| std::env::var(name).ok())?,
            user: self.user,
            cwd: self.workdir.filter(|directory| !directory.is_empty()),
            mounts,
            has_terminal: console.terminal,
            ..Overrides::default()
        };
        Ok(TryImage {
            conditions,
            image,
            platform,
            wanted,
            host_mounts,
            console,
        })
    }

    fn console(&self) -> Result<Console, Failure> {
        let is_terminal = std::io::stdin().is_terminal();
        let by_default = is_terminal && std::io::stdout().is_terminal();
        let console = Console {
            // Who asks for one of them does not ask for the other.
            input: self
                .interactive
                .unwrap_or(by_default && self.tty != Some(false)),
            terminal: self.tty.unwrap_or(by_default && self.interactive.is_none()),
        };
        if self.tty == Some(true) && console.input && !is_terminal {
            let mut failure = usage("`-it` needs a terminal, and standard input is none");
            failure.diagnostics[0]
                .hints
                .push("`-i` alone passes on what is piped in".to_owned());
            return Err(failure);
        }
        Ok(console)
    }
}

fn variables(
    typed: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Option<String>)>, Failure> {
    let pairs = typed.iter().map(|text| match text.split_once('=') {
        Some(("", _)) => Err(usage(format!("`--env {text}` has no name"))),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None if text.is_empty() => Err(usage("`--env` has no name")),
        None => Ok((text.clone(), environment(text))),
    });
    pairs.collect()
}

enum Given {
    Host(HostMount),
    Memory(Mount),
}

fn volume(text: &str) -> Result<HostMount, Failure> {
    let refuse = |why: &str| Err(usage(format!("`--volume {text}`: {why}")));
    let mut parts = text.split(':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        return refuse("not HOST:DEST");
    };
    let mut read_only = false;
    for option in parts.flat_map(|options| options.split(',')) {
        match option {
            "ro" => read_only = true,
            // How mounts spread and what SELinux calls files says nothing here.
            "rw" | "z" | "Z" | "private" | "rprivate" => {}
            _ => return refuse(&format!("there is no option `{option}`")),
        }
    }
    if !source.contains('/') && source != "." {
        return refuse("volumes have no names here: the first part is a path, such as `./data`");
    }
    host_mount("--volume", text, source, target, read_only)
}

fn host_mount(
    flag: &str,
    text: &str,
    source: &str,
    target: &str,
    read_only: bool,
) -> Result<HostMount, Failure> {
    if !target.starts_with('/') {
        return Err(usage(format!(
            "`{flag} {text}`: the destination is not absolute: `{target}`"
        )));
    }
    let source = std::path::absolute(source).unwrap_or_else(|_| PathBuf::from(source));
    // The process moves before it is opened, so its absence is told here.
    if let Err(error) = std::fs::metadata(&source) {
        return Err(Failure::new(
            ExitCode::Usage,
            Diagnostic::error(format!("`{flag} {text}`: there is nothing to mount"))
                .cause(format!("`{}`: {error}", source.display())),
        ));
    }
    Ok(HostMount {
        source,
        target: target.to_owned(),
        read_only,
    })
}

fn mount(text: &str) -> Result<Given, Failure> {
    // These two stand alone as well.
    let words = text.split(',').map(|word| match word {
        "ro" | "readonly" => format!("{word}=true"),
        word => word.to_owned(),
    });
    let words = words.collect::<Vec<_>>().join(",");
    let mut fields = Fields::parse("--mount", &words)?;
    let kind = fields.take("type").unwrap_or_else(|| "bind".to_owned());
    let target = ["dst", "destination", "target"]
        .iter()
        .find_map(|name| fields.take(name));
    let Some(target) = target.filter(|target| target.starts_with('/')) else {
        return Err(fields.refuse("dst=… must be an absolute path"));
    };
    let given = match kind.as_str() {
        "bind" => {
            let source = fields.take("src").or_else(|| fields.take("source"));
            let Some(source) = source.filter(|source| !source.is_empty()) else {
                return Err(fields.refuse("src=… is missing"));
            };
            let read_only = fields.flag("ro", false)? | fields.flag("readonly", false)?;
            Given::Host(host_mount("--mount", text, &source, &target, read_only)?)
        }
        "tmpfs" => {
            let size = fields.take("tmpfs-size");
            let size = size.map(|size| bytes("--mount tmpfs-size", &size));
            Given::Memory(Mount::Tmpfs {
                target,
                size: size.transpose()?,
            })
        }
        other => {
            return Err(fields.refuse_with(
                &format!("there are no mounts of type `{other}`"),
                "types are bind and tmpfs",
            ));
        }
    };
    fields.done()?;
    Ok(given)
}

fn secret_mount(id: &str) -> Mount {
    Mount::Secret(SecretMount {
        id: id.to_owned(),
        target: Some(format!("/run/secrets/{id}")),
        env: None,
        required: true,
        uid: 0,
        gid: 0,
        mode: 0o400,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let is = |text: &str, target: &str, read_only| {
            let mount = volume(text).unwrap();
            assert_eq!(
                (mount.target.as_str(), mount.read_only),
                (target, read_only)
            );
            assert!(mount.source.is_absolute());
        };
        is("/:/host", "/host", false);
        is("/:/host:ro", "/host", true);
        is(".:/host:rw,z", "/host", false);
        for text in ["/", "/:x", "name:/x", "/:/x:nocopy", "/no/such/file:/x"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts() {
        assert!(matches!(
            mount("type=bind,src=/,dst=/x,ro").unwrap(),
            Given::Host(HostMount {
                read_only: true,
                ..
            })
        ));
        assert!(matches!(
            mount("type=tmpfs,target=/x,tmpfs-size=1m").unwrap(),
            Given::Memory(Mount::Tmpfs { size: Some(size), .. }) if size == 1 << 20
        ));
        for text in [
            "type=volume,src=a,dst=/x",
            "type=bind,dst=/x",
            "type=tmpfs,dst=x",
            "src=/,dst=/x,odd=1",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_without_a_value_come_from_the_environment_or_are_taken_away() {
        let environment = |name: &str| (name == "SET").then(|| "x".to_owned());
        let typed = ["A=1=2", "SET", "UNSET"].map(str::to_owned);
        let given = variables(&typed, &environment).unwrap();
        let values: Vec<Option<&str>> = given.iter().map(|(_, value)| value.as_deref()).collect();
        assert_eq!(values, [Some("1=2"), Some("x"), None]);
        assert!(variables(&["=x".to_owned()], &environment).is_err());
    }
}
