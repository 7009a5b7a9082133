//! Which tool is meant: by the name of this program, or by its first word.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::CommandFactory as _;

use crate::pipeline::Failure;

use super::super::args::Args;
use super::flag::Tool;
use super::own::{Around, Draft, Own, refuse};
use super::parse::{Reach, Typed, parse};
use super::{
    buildah, buildah_flags, docker, docker_flags, images, images_flags, kaniko, kaniko_flags, page,
};

/// What another tool's words come to.
pub(in super::super) enum Routed {
    /// Command lines of `builder`, to be performed in order until one fails.
    Commands {
        commands: Vec<Vec<OsString>>,
        /// A line each.
        notes: Vec<String>,
        /// Where standard error goes.
        log: Option<String>,
    },
    /// All that is to be done is to say this.
    Text(String),
}

/// Who is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Executor,
    Warmer,
    Bud,
    Buildah,
    Podman,
    Docker,
}

impl Speaker {
    fn named(name: &str) -> Option<Speaker> {
        match name {
            "executor" => Some(Speaker::Executor),
            "warmer" => Some(Speaker::Warmer),
            "bud" => Some(Speaker::Bud),
            "buildah" => Some(Speaker::Buildah),
            "podman" => Some(Speaker::Podman),
            "docker" => Some(Speaker::Docker),
            _ => None,
        }
    }
}

/// Reads the words of this process, its name first; `None`: they are `builder`'s own.
pub(in super::super) fn route(
    words: &[OsString],
    variable: &dyn Fn(&str) -> Option<String>,
    is_there: &dyn Fn(&str) -> bool,
) -> Option<Result<Routed, Failure>> {
    let (name, rest) = words.split_first()?;
    let name = Path::new(name).file_name().and_then(OsStr::to_str);
    let (front, speaker, rest) = match name.and_then(Speaker::named) {
        // `bud` is no program.
        Some(speaker) if speaker != Speaker::Bud => (&[][..], speaker, rest),
        _ => {
            // Nearly always, and then our own flags need not be known here: that would be a sixth of a build that does nothing.
            if !rest.iter().any(|word| {
                word.to_str()
                    .is_some_and(|word| Speaker::named(word).is_some())
            }) {
                return None;
            }
            let at = first_word(rest)?;
            let speaker = Speaker::named(rest[at].to_str()?)?;
            (&rest[..at], speaker, &rest[at + 1..])
        }
    };
    let around = Around {
        variable,
        is_there,
        has_authfile: front
            .iter()
            .any(|word| word.as_encoded_bytes().starts_with(b"--authfile")),
    };
    Some(translate(speaker, rest, &around).map(|routed| behind(front, routed)))
}

/// Puts flags that hold for every subcommand of `builder` in front of each command line.
fn behind(front: &[OsString], mut routed: Routed) -> Routed {
    if let Routed::Commands { commands, .. } = &mut routed {
        for command in commands {
            command.splice(..0, front.iter().cloned());
        }
    }
    routed
}

/// Returns where the subcommand is, behind the flags that may stand in front of it.
fn first_word(words: &[OsString]) -> Option<usize> {
    let command = Args::command();
    let takes_value = |name: &str| {
        let mut all = command.get_arguments();
        all.any(|arg| arg.get_long() == Some(name) && arg.get_action().takes_values())
    };
    let mut at = 0;
    loop {
        let word = words.get(at)?.to_str()?;
        at += match word.strip_prefix("--") {
            Some(name) if !name.contains('=') && takes_value(name) => 2,
            Some(_) => 1,
            None if word.starts_with('-') => 1,
            None => return Some(at),
        };
    }
}

fn translate(speaker: Speaker, words: &[OsString], around: &Around<'_>) -> Result<Routed, Failure> {
    match speaker {
        Speaker::Executor => executor(words, around),
        Speaker::Warmer => one(
            &kaniko_flags::WARMER,
            &["pull"],
            words,
            around,
            kaniko::warmer,
        ),
        Speaker::Bud => bud(words, around),
        Speaker::Buildah | Speaker::Podman => containers(words, around),
        Speaker::Docker => docker(words, around),
    }
}

type Translate = fn(&Typed, &mut Draft<'_>) -> Result<(), Failure>;

/// Reads the words of one subcommand of a tool that is one of `builder`.
fn one(
    tool: &'static Tool,
    subcommand: &[&str],
    words: &[OsString],
    around: &Around<'_>,
    translate: Translate,
) -> Result<Routed, Failure> {
    let mut typed = parse(tool, words, Reach::All)?;
    if typed.help {
        return Ok(Routed::Text(page::help(tool)));
    }
    typed.take_variables(tool, around.variable)?;
    let mut draft = Draft::of(tool, subcommand, &typed, around)?;
    translate(&typed, &mut draft)?;
    Ok(done(draft, None))
}

fn done(draft: Draft<'_>, log: Option<String>) -> Routed {
    Routed::Commands {
        commands: vec![draft.own.finish()],
        notes: draft.notes,
        log,
    }
}

/// Returns a command line without flags.
fn bare(subcommand: &[&str]) -> Routed {
    Routed::Commands {
        commands: vec![Own::new(subcommand).finish()],
        notes: Vec::new(),
        log: None,
    }
}

/// Returns nothing to do, and why.
fn nothing(note: String) -> Routed {
    Routed::Commands {
        commands: Vec::new(),
        notes: vec![note],
        log: None,
    }
}

fn executor(words: &[OsString], around: &Around<'_>) -> Result<Routed, Failure> {
    let rest = words.get(1..).unwrap_or_default();
    match words.first().and_then(|word| word.to_str()) {
        Some("version") => Ok(bare(&["version"])),
        Some("warmer") => translate(Speaker::Warmer, rest, around),
        Some("login") => one(
            &images_flags::LOGIN,
            &["login"],
            rest,
            around,
            images::login,
        ),
        Some("push") => one(&images_flags::PUSH, &["push"], rest, around, images::push),
        _ => one(
            &kaniko_flags::EXECUTOR,
            &["build"],
            words,
            around,
            kaniko::executor,
        ),
    }
}

fn bud(words: &[OsString], around: &Around<'_>) -> Result<Routed, Failure> {
    let tool = &buildah_flags::BUD;
    let typed = parse(tool, words, Reach::All)?;
    if typed.help {
        return Ok(Routed::Text(page::help(tool)));
    }
    let mut draft = Draft::of(tool, &["build"], &typed, around)?;
    let log = buildah::bud(&typed, &mut draft)?;
    Ok(done(draft, log))
}

/// Adds the notes that the words in front gave.
fn with_notes(mut before: Vec<String>, mut routed: Routed) -> Routed {
    if let Routed::Commands { notes, .. } = &mut routed {
        before.append(notes);
        *notes = before;
    }
    routed
}

fn containers(words: &[OsString], around: &Around<'_>) -> Result<Routed, Failure> {
    let tool = &buildah_flags::GLOBAL;
    let typed = parse(tool, words, Reach::Front)?;
    if typed.help {
        return Ok(Routed::Text(page::help(tool)));
    }
    if typed.is_on("version") {
        return Ok(bare(&["version"]));
    }
    let front = Draft::of(tool, &[], &typed, around)?;
    let words: Vec<OsString> = typed.words.iter().map(OsString::from).collect();
    let names: Vec<&str> = typed.words.iter().map(String::as_str).collect();
    let after = |count: usize| &words[count.min(words.len())..];
    let routed = match names.as_slice() {
        ["bud" | "build" | "build-using-dockerfile", ..] => bud(after(1), around),
        ["image", "build", ..] => bud(after(2), around),
        ["image", rest @ ..] => shared("image", rest, after(1), around),
        ["manifest", "create", ..] if is_empty_list(&names) => Ok(nothing(
            "an index is made with the first image that it lists".to_owned(),
        )),
        [] => Err(no_subcommand("buildah")),
        rest => shared("buildah", rest, &words, around),
    };
    Ok(with_notes(front.notes, routed?))
}

/// Tells whether a list of images is to be made that lists none.
fn is_empty_list(names: &[&str]) -> bool {
    let words = names.iter().skip(2).filter(|name| !name.starts_with('-'));
    words.count() == 1
}

fn docker(words: &[OsString], around: &Around<'_>) -> Result<Routed, Failure> {
    let tool = &docker_flags::GLOBAL;
    let typed = parse(tool, words, Reach::Front)?;
    if typed.help {
        return Ok(Routed::Text(page::help(tool)));
    }
    if typed.is_on("version") {
        return Ok(bare(&["version"]));
    }
    let mut front = Draft::of(tool, &[], &typed, around)?;
    if let Some(directory) = typed.last("config") {
        let file = Path::new(directory).join("config.json");
        front.own.flag("authfile", &file.display().to_string());
    }
    let flags = std::mem::replace(&mut front.own, Own::new(&[])).finish();
    let words: Vec<OsString> = typed.words.iter().map(OsString::from).collect();
    let names: Vec<&str> = typed.words.iter().map(String::as_str).collect();
    let after = |count: usize| &words[count.min(words.len())..];
    let build = |words| {
        one(
            &docker_flags::BUILD,
            &["build"],
            words,
            around,
            docker::build,
        )
    };
    let routed = match names.as_slice() {
        ["build", ..] => build(after(1)),
        ["buildx" | "builder" | "image", "build" | "b", ..] => build(after(2)),
        ["buildx", flag, ..] if flag.starts_with('-') => {
            // Flags of `docker buildx` are a subset of those in front of it.
            return docker_again(front.notes, flags, after(1), around);
        }
        ["buildx", "imagetools", "create", ..] => imagetools(after(3), around),
        ["buildx", "imagetools", "inspect", ..] => one(
            &images_flags::IMAGETOOLS,
            &["manifest", "inspect"],
            after(3),
            around,
            images::plain,
        ),
        [
            "buildx",
            command @ ("create" | "use" | "ls" | "inspect" | "rm" | "stop" | "install"
            | "uninstall"),
            ..,
        ] => Ok(nothing(format!(
            "`docker buildx {command}` means nothing here: there is no builder to choose"
        ))),
        ["buildx" | "builder" | "image", "prune", ..] => one(
            &images_flags::PRUNE,
            &["prune"],
            after(2),
            around,
            images::prune,
        ),
        ["buildx", "version"] => Ok(bare(&["version"])),
        ["buildx", "du"] => Ok(bare(&["du"])),
        ["image", rest @ ..] if !rest.is_empty() => shared("image", rest, after(1), around),
        [] => Err(no_subcommand("docker")),
        rest => shared("docker", rest, &words, around),
    };
    Ok(with_notes(front.notes, behind(&flags, routed?)))
}

/// Reads `docker buildx FLAGS build …`.
fn docker_again(
    notes: Vec<String>,
    flags: Vec<OsString>,
    words: &[OsString],
    around: &Around<'_>,
) -> Result<Routed, Failure> {
    let typed = parse(&docker_flags::GLOBAL, words, Reach::Front)?;
    let front = Draft::of(&docker_flags::GLOBAL, &[], &typed, around)?;
    let mut rest = vec![OsString::from("buildx")];
    rest.extend(typed.words.iter().map(OsString::from));
    if typed.words.first().is_none_or(|word| word.starts_with('-')) {
        return Err(no_subcommand("docker buildx"));
    }
    let routed = docker(&rest, around)?;
    let notes = notes.into_iter().chain(front.notes).collect();
    Ok(with_notes(notes, behind(&flags, routed)))
}

/// Reads the subcommands that all of these tools have. `words` are those of `names`.
fn shared(
    tool: &str,
    names: &[&str],
    words: &[OsString],
    around: &Around<'_>,
) -> Result<Routed, Failure> {
    let rest = words.get(1..).unwrap_or_default();
    let further = words.get(2..).unwrap_or_default();
    match names {
        ["push", ..] => one(&images_flags::PUSH, &["push"], rest, around, images::push),
        ["pull", ..] => one(&images_flags::PULL, &["pull"], rest, around, images::pull),
        ["login", ..] => one(
            &images_flags::LOGIN,
            &["login"],
            rest,
            around,
            images::login,
        ),
        ["logout", ..] => one(
            &images_flags::LOGOUT,
            &["logout"],
            rest,
            around,
            images::plain,
        ),
        ["images" | "ls", ..] => one(
            &images_flags::IMAGES,
            &["images"],
            rest,
            around,
            images::plain,
        ),
        ["tag", ..] => one(&images_flags::TAG, &["tag"], rest, around, images::plain),
        ["rmi" | "rm", ..] if tool == "image" || names[0] == "rmi" => {
            one(&images_flags::RMI, &["rmi"], rest, around, images::plain)
        }
        ["save", ..] => one(&images_flags::SAVE, &["save"], rest, around, images::save),
        ["version", ..] => Ok(bare(&["version"])),
        ["manifest", "create", ..] => one(
            &images_flags::MANIFEST,
            &["manifest", "create"],
            further,
            around,
            images::manifest,
        ),
        ["manifest", "add", ..] => one(
            &images_flags::MANIFEST,
            &["manifest", "add"],
            further,
            around,
            images::manifest,
        ),
        ["manifest", "inspect", ..] => one(
            &images_flags::MANIFEST,
            &["manifest", "inspect"],
            further,
            around,
            images::manifest,
        ),
        ["manifest", "push", ..] => one(
            &images_flags::PUSH,
            &["push"],
            further,
            around,
            images::push,
        ),
        ["manifest", "rm", ..] => one(&images_flags::RMI, &["rmi"], further, around, images::plain),
        [name, further @ ..] => Err(refuse(
            match (*name, further) {
                ("manifest" | "buildx" | "builder", [second, ..]) => {
                    format!("there is no `{tool} {name} {second}` here")
                }
                _ => format!("there is no `{tool} {name}` here"),
            },
            match *name {
                "run" => "`builder run IMAGE [COMMAND]` tries an image out",
                _ => {
                    "this program builds images and moves them: build, push, pull, login, logout, images, tag, rmi, save, manifest"
                }
            },
        )),
        [] => Err(no_subcommand(tool)),
    }
}

fn imagetools(words: &[OsString], around: &Around<'_>) -> Result<Routed, Failure> {
    let tool = &images_flags::IMAGETOOLS;
    let typed = parse(tool, words, Reach::All)?;
    if typed.help {
        return Ok(Routed::Text(page::help(tool)));
    }
    let draft = Draft::of(tool, &[], &typed, around)?;
    let commands = images::imagetools(&typed, &draft)?;
    Ok(Routed::Commands {
        commands: commands.into_iter().map(Own::finish).collect(),
        notes: draft.notes,
        log: None,
    })
}

fn no_subcommand(tool: &str) -> Failure {
    refuse(
        format!("`{tool}` needs a subcommand"),
        "build, push, pull, login, logout, images, tag, rmi, save and manifest are there",
    )
}
