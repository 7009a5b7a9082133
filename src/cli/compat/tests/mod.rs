//! What the tests share: command lines to try rows with, and what a command line comes to.

mod honoured;
mod rows;
mod typed;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::cli::args::{Args, Command};
use crate::cli::request::{Machine, request};
use crate::pipeline::Failure;
use crate::vocab::ExitCode;

use super::flag::Tool;
use super::{Routed, buildah_flags, docker_flags, images_flags, kaniko_flags, route};

/// A command line that a row is tried with: the words before the flag and behind it, and what `builder` would be told.
struct Base {
    tool: &'static Tool,
    before: &'static str,
    after: &'static str,
    own: &'static str,
}

const fn base(
    tool: &'static Tool,
    before: &'static str,
    after: &'static str,
    own: &'static str,
) -> Base {
    Base {
        tool,
        before,
        after,
        own,
    }
}

static BASES: [Base; 17] = [
    base(
        &kaniko_flags::EXECUTOR,
        "executor",
        "--destination r.io/a:1 --context .",
        "build --tag r.io/a:1 --push .",
    ),
    base(
        &kaniko_flags::WARMER,
        "warmer",
        "--image r.io/a:1",
        "pull r.io/a:1",
    ),
    base(&buildah_flags::BUD, "bud", ".", "build ."),
    base(&buildah_flags::GLOBAL, "podman", "build .", "build ."),
    base(&docker_flags::BUILD, "docker build", ".", "build ."),
    base(&docker_flags::GLOBAL, "docker", "build .", "build ."),
    base(
        &images_flags::PUSH,
        "buildah push",
        "a docker://r.io/a:1",
        "push a r.io/a:1",
    ),
    base(
        &images_flags::PULL,
        "podman pull",
        "docker://r.io/a:1",
        "pull r.io/a:1",
    ),
    base(&images_flags::LOGIN, "docker login", "r.io", "login r.io"),
    base(
        &images_flags::LOGOUT,
        "docker logout",
        "r.io",
        "logout r.io",
    ),
    base(&images_flags::IMAGES, "docker image ls", "", "images"),
    base(&images_flags::TAG, "docker tag", "a b", "tag a b"),
    base(&images_flags::RMI, "docker image rm", "a", "rmi a"),
    base(&images_flags::SAVE, "podman save", "a", "save a"),
    base(
        &images_flags::MANIFEST,
        "docker manifest create",
        "r.io/l:1 r.io/a:1",
        "manifest create r.io/l:1 r.io/a:1",
    ),
    base(
        &images_flags::IMAGETOOLS,
        "docker buildx imagetools create -t r.io/l:1",
        "r.io/a:1",
        "manifest create --push --pull r.io/l:1 r.io/a:1",
    ),
    base(&images_flags::PRUNE, "docker builder prune", "", "prune"),
];

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

/// What a command line comes to: the parsed command lines of `builder`, and notes.
struct Come {
    commands: Vec<String>,
    notes: Vec<String>,
    log: Option<String>,
}

fn read(words: Vec<OsString>) -> String {
    let all = std::iter::once(OsString::from("builder")).chain(words);
    let matches = Args::command()
        .args_override_self(true)
        .try_get_matches_from(all);
    let args = matches.and_then(|mut matches| Args::from_arg_matches_mut(&mut matches));
    let mut args = args.unwrap_or_else(|error| panic!("{error}"));
    let shown = format!("{args:?}");
    if let Command::Build(build) = args.command {
        // It means something, too. Contexts of this test are not there, and neither are files of credentials.
        args.global.root = Some("/nowhere".into());
        let machine = Machine {
            cpus: 1,
            memory: 1 << 30,
        };
        if let Err(failure) = request(&args.global, *build, machine) {
            panic!("{shown}: {:?}", failure.diagnostics);
        }
    }
    shown
}

fn come(text: &str, variables: &[(&str, &str)], there: &[&str]) -> Result<Come, Failure> {
    let mut all = vec![OsString::from("builder")];
    all.extend(words(text));
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let is_there = |path: &str| there.contains(&path);
    match route(&all, &variable, &is_there).expect("it is another tool's")? {
        Routed::Text(text) => panic!("{text}"),
        Routed::Commands {
            commands,
            notes,
            log,
        } => Ok(Come {
            commands: commands.into_iter().map(read).collect(),
            notes,
            log,
        }),
    }
}

const THERE: &[&str] = &["Cargo.toml", "/k2/.docker/config.json"];

fn tried(base: &Base, flags: &str) -> Result<Come, Failure> {
    come(
        &format!("{} {flags} {}", base.before, base.after),
        &[],
        THERE,
    )
}

fn own(text: &str) -> String {
    read(words(text))
}

#[track_caller]
fn is(text: &str, variables: &[(&str, &str)], there: &[&str], expected: &str) {
    let come = come(text, variables, there)
        .unwrap_or_else(|failure| panic!("{text}: {:?}", failure.diagnostics));
    assert_eq!(come.commands, [own(expected)], "{text}");
}

#[track_caller]
fn fails(text: &str, parts: &[&str]) {
    let Err(failure) = come(text, &[], THERE) else {
        panic!("{text}: it is understood");
    };
    assert_eq!(failure.class, ExitCode::Usage, "{text}");
    let told = format!("{:?}", failure.diagnostics);
    for part in parts {
        assert!(told.contains(part), "{text}: no `{part}` in {told}");
    }
}
