//! Typed words, variables and a file become one command line.
//!
//! What was typed is read first, so that it is known what need not be set; then what is set is put into words behind the subcommand,
//! and all is read again. Clap checks those words as if they had been typed, and messages name where they come from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::pipeline::Failure;
use crate::vocab::Severity;

use super::super::{root, usage};
use super::file::File;
use super::flag::{Flag, Kind, flags};
use super::{show, twin};

/// What is around a command line.
pub(in super::super) struct Around {
    /// Those that begin with `BUILDER_`.
    pub(in super::super) variables: Vec<(String, OsString)>,
    /// The words are our own: a project's file says more of them. Those of other tools mean what they mean there.
    pub(in super::super) reads_projects: bool,
}

/// A command line as it is meant.
pub(in super::super) struct Read {
    pub(in super::super) matches: ArgMatches,
    pub(in super::super) origins: Origins,
    /// `--print-config`: all that is to be done is to say this.
    pub(in super::super) shown: Option<String>,
}

/// Why a command line cannot be read.
pub(in super::super) enum Misread {
    /// It says so itself; and where its flags come from.
    Words(clap::Error, Vec<String>),
    Setting(Failure),
}

impl From<Failure> for Misread {
    fn from(failure: Failure) -> Misread {
        Misread::Setting(failure)
    }
}

/// A flag that was not typed.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) flag: Flag,
    /// Of a switch: any, where it is on.
    pub(super) values: Vec<OsString>,
    /// The variable, or the file and its line.
    pub(super) origin: String,
}

impl Setting {
    fn words(&self) -> Vec<OsString> {
        let name = format!("--{}", self.flag.name);
        let values = self.values.iter();
        match self.flag.kind {
            Kind::Switch => values.map(|_| OsString::from(&name)).collect(),
            // One word, so that a value may begin with a dash.
            Kind::Value | Kind::List => values
                .map(|value| {
                    let mut word = OsString::from(format!("{name}="));
                    word.push(value);
                    word
                })
                .collect(),
        }
    }
}

/// Where flags come from that were not typed.
#[derive(Debug, Default)]
pub(in super::super) struct Origins(Vec<Origin>);

#[derive(Debug)]
struct Origin {
    /// Of the flag.
    name: String,
    values: Vec<String>,
    place: String,
}

impl Origin {
    /// Tells whether a message speaks of the flag.
    fn is_named_in(&self, message: &str) -> bool {
        let flag = format!("--{}", self.name);
        let ends = |rest: &str| !rest.starts_with(|c: char| c == '-' || c.is_ascii_alphanumeric());
        message
            .match_indices(&flag)
            .any(|(at, _)| ends(&message[at + flag.len()..]))
    }

    /// Tells whether a message quotes a value of the flag, or what stands in one: `src=FILE`.
    fn is_quoted_in(&self, message: &str) -> bool {
        let fields = self.values.iter().flat_map(|value| {
            let fields = value.split(',');
            fields.map(|field| field.split_once('=').map_or(field, |(_, value)| value))
        });
        let mut texts = fields.chain(self.values.iter().map(String::as_str));
        texts.any(|text| text.len() > 1 && message.contains(&format!("`{text}`")))
    }

    fn line(&self) -> String {
        format!("`--{}` comes from {}", self.name, self.place)
    }
}

impl Origins {
    fn of(settings: &[Setting]) -> Origins {
        let origin = |setting: &Setting| Origin {
            name: setting.flag.name.clone(),
            values: setting
                .values
                .iter()
                .map(|value| value.to_string_lossy().into_owned())
                .collect(),
            place: setting.origin.clone(),
        };
        Origins(settings.iter().map(origin).collect())
    }

    /// Returns a line for each flag that a message speaks of.
    fn named_in(&self, message: &str) -> Vec<String> {
        let origins = self.0.iter();
        let named = origins.filter(|origin| origin.is_named_in(message));
        named.map(Origin::line).collect()
    }

    /// Says in the errors of a failure where the flags come from that they speak of, or whose values they quote.
    pub(in super::super) fn explained(&self, mut failure: Failure) -> Failure {
        for diagnostic in &mut failure.diagnostics {
            if diagnostic.severity != Severity::Error {
                continue;
            }
            let texts: Vec<&str> = std::iter::once(&diagnostic.message)
                .chain(&diagnostic.causes)
                .map(String::as_str)
                .collect();
            let speaks_of = |origin: &&Origin| {
                origin.is_named_in(texts[0]) || texts.iter().any(|text| origin.is_quoted_in(text))
            };
            let lines: Vec<String> = self
                .0
                .iter()
                .filter(speaks_of)
                .map(Origin::line)
                .filter(|line| !diagnostic.hints.contains(line))
                .collect();
            diagnostic.hints.extend(lines);
        }
        failure
    }
}

/// Reads a command line, the program's name first.
pub(in super::super) fn read(
    make: &dyn Fn() -> Command,
    words: &[OsString],
    around: &Around,
) -> Result<Read, Misread> {
    let mut command = make();
    let typed = match command.try_get_matches_from_mut(words) {
        Ok(typed) => typed,
        // A variable may stand for what is missing.
        Err(error)
            if error.kind() == ErrorKind::MissingRequiredArgument
                && !around.variables.is_empty() =>
        {
            let lenient = make().ignore_errors(true).try_get_matches_from(words);
            lenient.map_err(|_| Misread::Words(error, Vec::new()))?
        }
        Err(error) => return Err(Misread::Words(error, Vec::new())),
    };
    let (path, deepest) = chain(&typed);
    if let Some(directory) = deepest.get_one::<PathBuf>("working-directory") {
        root::enter(directory)?;
    }
    let file = file(&path, deepest, around)?;
    let shows = deepest.get_flag("print_config");
    if around.variables.is_empty() && file.is_none() && !shows {
        return Ok(Read {
            matches: typed,
            origins: Origins::default(),
            shown: None,
        });
    }
    let flags = flags(&command, &path);
    let settings = settings(&command, &flags, deepest, file.as_ref(), around)?;
    let mut all = words.to_vec();
    let at = behind_subcommand(&command, words, &path).unwrap_or(words.len());
    all.splice(at..at, settings.iter().flat_map(Setting::words));
    let origins = Origins::of(&settings);
    let matches = command.try_get_matches_from_mut(&all).map_err(|error| {
        let text = error.to_string();
        // What follows tells of all flags.
        let told = text.split("\nUsage:").next().unwrap_or(&text);
        let lines = origins.named_in(told);
        Misread::Words(error, lines)
    })?;
    let shown = shows.then(|| {
        let (_, deepest) = chain(&matches);
        show::settings(&command, &flags, deepest, &settings, &around.variables)
    });
    Ok(Read {
        matches,
        origins,
        shown,
    })
}

/// Returns the names of the subcommand and what was read of it.
fn chain(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let mut path = Vec::new();
    let mut at = matches;
    while let Some((name, inner)) = at.subcommand() {
        path.push(name.to_owned());
        at = inner;
    }
    (path, at)
}

/// Returns the file that holds for a command.
fn file(path: &[String], typed: &ArgMatches, around: &Around) -> Result<Option<File>, Failure> {
    let named = |name: &str| twin::variable(name, &around.variables);
    let by_flag = typed.get_one::<PathBuf>("config").map(PathBuf::as_path);
    let none = match named("BUILDER_NO_CONFIG") {
        Some(value) => twin::is_true("BUILDER_NO_CONFIG", value)?,
        None => false,
    };
    let by_variable = named("BUILDER_CONFIG").map(Path::new);
    match (by_flag, typed.get_flag("no_config")) {
        (Some(path), _) => return File::named(path).map(Some),
        (None, true) => return Ok(None),
        (None, false) => {}
    }
    match by_variable {
        Some(_) if none => Err(usage(
            "BUILDER_CONFIG and BUILDER_NO_CONFIG exclude each other",
        )),
        Some(path) => File::named(path).map(Some),
        None if none || !around.reads_projects => Ok(None),
        None => {
            let is_build =
                matches!(path, [name] if ["build", "digest", "plan"].contains(&name.as_str()));
            if !is_build {
                return Ok(None);
            }
            match typed.get_one::<String>("context").map(String::as_str) {
                // Standard input, a repository, a tar: what is not a directory has no file here.
                None | Some("-" | "") => Ok(None),
                Some(context) => File::of_project(Path::new(context)),
            }
        }
    }
}

/// Returns what is set and was not typed, what counts more first.
fn settings(
    command: &Command,
    own: &[Flag],
    typed: &ArgMatches,
    file: Option<&File>,
    around: &Around,
) -> Result<Vec<Setting>, Failure> {
    let mut candidates = twin::settings(own, &around.variables)?;
    let by_environment =
        |flag: &Flag| typed.value_source(flag.id.as_str()) == Some(ValueSource::EnvVariable);
    if let Some(file) = file {
        let known = flags(command, &["build".to_owned()]);
        for setting in file.settings(&known)? {
            // A flag of another subcommand that is something else has another variable.
            let same = |flag: &&Flag| flag.variable == setting.flag.variable;
            let is_set = |candidate: &Setting| candidate.flag.id == setting.flag.id;
            if let Some(flag) = own.iter().find(same)
                && !candidates.iter().any(is_set)
                && !by_environment(flag)
            {
                candidates.push(setting);
            }
        }
    }
    let is_typed =
        |flag: &Flag| typed.value_source(flag.id.as_str()) == Some(ValueSource::CommandLine);
    let typed: Vec<&Flag> = own.iter().filter(|flag| is_typed(flag)).collect();
    let mut kept: Vec<Setting> = Vec::new();
    for setting in candidates {
        let flag = &setting.flag;
        let yields = |other: &Flag| other.id == flag.id || other.excludes(flag);
        let is_beaten = typed.iter().any(|other| yields(other))
            || kept
                .iter()
                .any(|other| !other.values.is_empty() && yields(&other.flag));
        if !is_beaten {
            kept.push(setting);
        }
    }
    Ok(kept)
}

/// Returns where the words behind the subcommand begin.
fn behind_subcommand(command: &Command, words: &[OsString], path: &[String]) -> Option<usize> {
    let takes_value = |name: &str| {
        let mut all = command.get_arguments();
        all.any(|arg| {
            let is_it = arg.get_long() == Some(name);
            is_it && arg.get_action().takes_values() && !arg.is_require_equals_set()
        })
    };
    let mut at = 1;
    for _ in path {
        loop {
            let word = words.get(at)?.to_string_lossy();
            at += match word.strip_prefix("--") {
                Some(name) if !name.contains('=') && takes_value(name) => 2,
                _ => 1,
            };
            if !word.starts_with('-') {
                break;
            }
        }
    }
    Some(at.min(words.len()))
}
