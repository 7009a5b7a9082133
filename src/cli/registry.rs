//! `pull`, `push`, `login`, `logout`.

use std::ffi::OsString;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use clap::Parser as _;

use crate::pipeline::{self, Failure};
use crate::registry::{self, Client, RegistryError, Threads};
use crate::ui;
use crate::vocab::{Diagnostic, ExitCode, ImageRef, Platform, ProgressMode, Secret};

use super::args::{Args, Command, Global, Login, Logout, Pull, Push};
use super::request::{Machine, image, request};
use super::{print, usage};

/// A password is a line; more than this is something else.
const PASSWORD_LIMIT: u64 = 64 << 10;

pub(super) fn pull(global: &Global, args: &Pull) -> Result<(), Failure> {
    let store = global.store()?;
    let mut names: Vec<ImageRef> = args
        .images
        .iter()
        .map(|text| image(text))
        .collect::<Result<_, _>>()?;
    names.extend(bases(global, args)?);
    let mut options = global.registry_options()?;
    options.accounts = args.account.of(&names)?;
    let platform = match &args.platform {
        Some(text) => text
            .parse()
            .map_err(|error: crate::vocab::PlatformError| usage(error.to_string()))?,
        None => Platform::host(),
    };
    let display = ui::display(if args.quiet {
        ProgressMode::Quiet
    } else {
        ProgressMode::Auto
    });
    for name in names {
        let manifest = pipeline::pull(&store, &options, &name, &platform, display.as_ref())?;
        print(&match args.quiet {
            true => format!("{}\n", manifest.digest),
            false => format!("{}@{}\n", name.name(), manifest.digest),
        });
    }
    Ok(())
}

/// Returns the bases of a Dockerfile.
fn bases(global: &Global, args: &Pull) -> Result<Vec<ImageRef>, Failure> {
    let Some(file) = &args.file else {
        return match args.build_arg.is_empty() {
            true => Ok(Vec::new()),
            false => Err(usage("`--build-arg` needs `--file`")),
        };
    };
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut words: Vec<OsString> = ["builder", "build", "--file"].map(OsString::from).into();
    words.push(file.into());
    for text in &args.build_arg {
        words.push(format!("--build-arg={text}").into());
    }
    if let Some(platform) = &args.platform {
        words.push(format!("--platform={platform}").into());
    }
    words.push("--".into());
    words.push(parent.unwrap_or(Path::new(".")).into());
    // A variable that stands for a flag may be wrong.
    let parsed = Args::try_parse_from(words).map_err(|error| usage(error.to_string()))?;
    let Command::Build(build) = parsed.command else {
        unreachable!("they were read as a build's");
    };
    let (request, _) = request(global, *build, Machine::this())?;
    pipeline::bases_of(&request, ui::display(ProgressMode::Quiet).as_ref())
}

pub(super) fn push(global: &Global, args: &Push) -> Result<(), Failure> {
    let store = global.store()?;
    let mut options = global.registry_options()?;
    let name = image(&args.image)?;
    let destination = match &args.destination {
        Some(text) => image(text.strip_prefix("docker://").unwrap_or(text))?,
        None => name.clone(),
    };
    options.accounts = args.account.of(std::slice::from_ref(&destination))?;
    let display = ui::display(if args.quiet {
        ProgressMode::Quiet
    } else {
        ProgressMode::Auto
    });
    let stored = super::images::find(&store, &args.image)?;
    let digest = pipeline::push(
        &store,
        &options,
        &stored.manifest,
        &destination,
        args.ignore_immutable_tags,
        display.as_ref(),
    )?;
    if let Some(path) = &args.digest_file {
        pipeline::write_result(path, digest.to_string().as_bytes())?;
    }
    print(&match args.quiet {
        true => format!("{digest}\n"),
        false => format!("{}@{digest}\n", destination.name()),
    });
    Ok(())
}

pub(super) fn login(global: &Global, args: &Login) -> Result<(), Failure> {
    let user = match &args.username {
        Some(user) => user.clone(),
        None if args.password_stdin => return Err(usage("`--password-stdin` needs `--username`")),
        None if args.password.is_some() => return Err(usage("`--password` needs `--username`")),
        None => prompt("user name: ")?,
    };
    let password = if let Some(password) = &args.password {
        password.clone()
    } else if args.password_stdin {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .take(PASSWORD_LIMIT)
            .read_to_string(&mut text)
            .map_err(|error| read_failed(&error))?;
        Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())
    } else {
        let _quiet = NoEcho::start();
        let password = prompt("password: ")?;
        Secret::new(password)
    };
    if user.is_empty() || password.reveal().is_empty() {
        return Err(usage("user name and password must not be empty"));
    }
    let options = global.registry_options()?;
    let client =
        Client::new(&options, Threads::None).map_err(|error| failed(&args.registry, &error))?;
    client
        .check_login(&args.registry, &user, &password)
        .map_err(|error| failed(&args.registry, &error))?;
    registry::login(&options, &args.registry, &user, &password)
        .map_err(|error| failed(&args.registry, &error))?;
    print(&format!("logged in to {}\n", args.registry));
    Ok(())
}

pub(super) fn logout(global: &Global, args: &Logout) -> Result<(), Failure> {
    let was_there = registry::logout(&global.registry_options()?, &args.registry)
        .map_err(|error| failed(&args.registry, &error))?;
    print(&match was_there {
        true => format!("logged out of {}\n", args.registry),
        false => format!("not logged in to {}\n", args.registry),
    });
    Ok(())
}

fn failed(registry: &str, error: &RegistryError) -> Failure {
    let mut diagnostic = Diagnostic::error(format!("login at {registry} failed")).caused_by(error);
    diagnostic.hints.extend(error.hint());
    Failure::new(ExitCode::Source, diagnostic)
}

fn prompt(text: &str) -> Result<String, Failure> {
    // The prompt is lost if nobody sees standard error, and nothing else.
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| read_failed(&error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_failed(error: &std::io::Error) -> Failure {
    Failure::new(
        ExitCode::Usage,
        Diagnostic::error("cannot read standard input").caused_by(error),
    )
}

/// Hides what is typed while it lives, where standard input is a terminal.
struct NoEcho(Option<rustix::termios::Termios>);

impl NoEcho {
    fn start() -> NoEcho {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return NoEcho(None);
        }
        let Ok(before) = rustix::termios::tcgetattr(&stdin) else {
            return NoEcho(None);
        };
        let mut silent = before.clone();
        silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
        let changed =
            rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &silent);
        NoEcho(changed.is_ok().then_some(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no echo.
            let _gone = rustix::termios::tcsetattr(
                std::io::stdin(),
                rustix::termios::OptionalActions::Flush,
                before,
            )
            .is_err();
            drop(std::io::stderr().lock().write_all(b"\n"));
        }
    }
}
