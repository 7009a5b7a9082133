//! `builder.toml`: settings of a project, or of whoever names a file with `--config`.
//!
//! The file of a project comes with its source, and with a change that a stranger proposes: it is as little to be trusted as the
//! Dockerfile. It may say how the image is made; it may not reach for what is outside of the sandbox: other files of this machine, its
//! environment, credentials, or where images and caches go (see [`PROJECT`]). No value of a file is shown in a message.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use toml::{Spanned, Table, Value};

use crate::pipeline::Failure;
use crate::vocab::nearest;

use super::super::usage;
use super::apply::Setting;
use super::flag::{Flag, Kind};

/// The name of a project's file, in its build context.
pub(super) const NAME: &str = "builder.toml";

/// Settings are a page of text; more is something else.
const LIMIT: u64 = 64 << 10;

/// What a project's own file may set: how the image is made and how that is shown. All else is refused, and what is added to the
/// program is refused until it stands here.
const PROJECT: [&str; 20] = [
    "add-host",
    "annotation",
    "build-arg",
    "explain",
    "file",
    "label",
    "no-cache",
    "no-cache-filter",
    "platform",
    "progress",
    "pull",
    "require-isolation",
    "rewrite-timestamp",
    "shm-size",
    "smoke",
    "source-date-epoch",
    "summary",
    "target",
    "timeout",
    "timestamps",
];

/// What no file holds.
const SECRETS: [&str; 2] = ["creds", "password"];

/// Flags whose values are `NAME=VALUE`, which a table can hold.
const PAIRS: [&str; 3] = ["build-arg", "label", "annotation"];

/// Keys of the file of the same name that makes a builder of Cloud Native Buildpacks.
const BUILDPACKS: [&str; 4] = ["buildpacks", "order", "lifecycle", "stack"];

/// A file that was read.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    text: String,
    /// It came with the source.
    is_projects: bool,
}

impl File {
    /// Reads the file that `--config` names.
    pub(super) fn named(path: &Path) -> Result<File, Failure> {
        File::open(path, false)?.ok_or_else(|| {
            let mut failure = usage(format!("cannot read `{}`", path.display()));
            failure.diagnostics[0]
                .causes
                .push("there is no such file".to_owned());
            failure
        })
    }

    /// Reads the file of a context, if it has one.
    pub(super) fn of_project(context: &Path) -> Result<Option<File>, Failure> {
        File::open(&context.join(NAME), true)
    }

    fn open(path: &Path, is_projects: bool) -> Result<Option<File>, Failure> {
        let failed = |cause: String| {
            let mut failure = usage(format!("cannot read `{}`", path.display()));
            failure.diagnostics[0].causes.push(cause);
            if is_projects {
                let hint = "`--no-config` leaves it alone";
                failure.diagnostics[0].hints.push(hint.to_owned());
            }
            failure
        };
        let mut flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        if is_projects {
            // A link could lead to any file of this machine.
            flags |= OFlag::O_NOFOLLOW;
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(path);
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                let is_missing = matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                );
                return match error.raw_os_error() {
                    _ if is_missing => Ok(None),
                    Some(code) if is_projects && code == Errno::ELOOP as i32 => {
                        Err(failed("it is a link".to_owned()))
                    }
                    _ => Err(failed(error.to_string())),
                };
            }
        };
        let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
        // What the user names may be a pipe of the shell.
        if metadata.is_dir() || is_projects && !metadata.is_file() {
            return Err(failed("it is not an ordinary file".to_owned()));
        }
        let mut text = String::new();
        file.take(LIMIT + 1)
            .read_to_string(&mut text)
            .map_err(|error| failed(error.to_string()))?;
        if text.len() as u64 > LIMIT {
            return Err(failed(format!("it has more than {LIMIT} bytes")));
        }
        Ok(Some(File {
            path: path.to_owned(),
            text,
            is_projects,
        }))
    }

    /// Returns what the file sets, where `flags` are those of `build`.
    pub(super) fn settings(&self, flags: &[Flag]) -> Result<Vec<Setting>, Failure> {
        let table: std::collections::BTreeMap<String, Spanned<Value>> = toml::from_str(&self.text)
            .map_err(|error| {
                let line = error.span().map_or(1, |span| self.line(span.start));
                self.mistake(line, error.message().replace('\n', ", "))
            })?;
        let is_foreign = |key: &str| {
            table
                .get(key)
                .is_some_and(|value| is_nested(value.as_ref()))
        };
        if self.is_projects && BUILDPACKS.into_iter().any(is_foreign) {
            return Ok(Vec::new());
        }
        let mut found = Vec::with_capacity(table.len());
        for (key, value) in &table {
            let line = self.line(value.span().start);
            let flag = self.flag(key, line, flags)?;
            let values = self.values(flag, line, value.as_ref())?;
            found.push(Setting {
                flag: flag.clone(),
                values: match self.is_projects {
                    true => self.harmless(flag, line, values)?,
                    false => values,
                }
                .into_iter()
                .map(Into::into)
                .collect(),
                origin: format!("{}:{line}", self.path.display()),
            });
        }
        Ok(found)
    }

    fn flag<'a>(&self, key: &str, line: usize, flags: &'a [Flag]) -> Result<&'a Flag, Failure> {
        if SECRETS.contains(&key) {
            let mut failure = self.mistake(line, format!("`{key}` is not for files"));
            let hint = "`builder login` keeps credentials; BUILDER_CREDS gives them to one command";
            failure.diagnostics[0].hints.push(hint.to_owned());
            return Err(failure);
        }
        let flag = flags.iter().find(|flag| flag.name == key).ok_or_else(|| {
            let mut failure = self.mistake(line, format!("there is no setting `{}`", shown(key)));
            let names = flags.iter().map(|flag| flag.name.as_str());
            let hint = match nearest(&key.replace('_', "-"), names) {
                Some(name) => format!("did you mean `{name}`?"),
                None => {
                    "settings are the flags of `builder build`, without their dashes".to_owned()
                }
            };
            failure.diagnostics[0].hints.push(hint);
            failure
        })?;
        if self.is_projects && !PROJECT.contains(&key) {
            let what = format!("the file of a project may not set `{key}`");
            let mut failure = self.mistake(line, what);
            failure.diagnostics[0].hints.push(format!(
                "it is for `--{key}`, {} or a file that `--config` names",
                flag.variable
            ));
            return Err(failure);
        }
        Ok(flag)
    }

    fn values(&self, flag: &Flag, line: usize, value: &Value) -> Result<Vec<String>, Failure> {
        let refuse = |what: &str| Err(self.mistake(line, format!("`{}` {what}", flag.name)));
        match (flag.kind, value) {
            (Kind::Switch, Value::Boolean(true)) => Ok(vec!["true".to_owned()]),
            (Kind::Switch, Value::Boolean(false)) => Ok(Vec::new()),
            (Kind::Switch, _) => refuse("is true or false"),
            (Kind::List, Value::Array(values)) => match values.iter().map(scalar).collect() {
                Some(values) => Ok(values),
                None => refuse("is a list of texts"),
            },
            (Kind::List, Value::Table(table)) if PAIRS.contains(&flag.name.as_str()) => {
                match pairs(table) {
                    Some(values) => Ok(values),
                    None => refuse("is a table of texts"),
                }
            }
            (Kind::List | Kind::Value, value) => match scalar(value) {
                Some(value) => Ok(vec![value]),
                None if flag.kind == Kind::List => refuse("is a text or a list of texts"),
                None => refuse("is one text or number"),
            },
        }
    }

    /// Returns the values, if a stranger may set them.
    fn harmless(
        &self,
        flag: &Flag,
        line: usize,
        values: Vec<String>,
    ) -> Result<Vec<String>, Failure> {
        let refuse = |what: &str| Err(self.mistake(line, what.to_owned()));
        // What is shown in messages is one line; values of labels and arguments are not shown.
        let is_odd = |value: &String| {
            let shown = match value.split_once('=') {
                Some((name, _)) if PAIRS.contains(&flag.name.as_str()) => name,
                _ => value.as_str(),
            };
            shown.contains(char::is_control)
        };
        match flag.name.as_str() {
            name if values.iter().any(is_odd) => refuse(&format!(
                "`{name}` in the file of a project holds a line break or another control character"
            )),
            // It would come from the environment, where CI systems keep secrets.
            "build-arg" if values.iter().any(|value| !value.contains('=')) => {
                refuse("a `build-arg` in the file of a project needs a value: NAME=VALUE")
            }
            "require-isolation" if values.iter().any(|value| value != "strict") => {
                refuse("`require-isolation` in the file of a project can be strict only")
            }
            "file" => {
                let is_inside = |value: &String| {
                    let mut parts = Path::new(value).components();
                    !value.is_empty()
                        && parts
                            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
                };
                let directory = self.path.parent().unwrap_or(Path::new("."));
                // A link among the directories could lead to any file of this machine, whose lines an error would show.
                let escapes = |path: &PathBuf| match (path.canonicalize(), directory.canonicalize())
                {
                    (Ok(path), Ok(directory)) => !path.starts_with(directory),
                    _ => false,
                };
                let paths: Vec<PathBuf> =
                    values.iter().map(|value| directory.join(value)).collect();
                if !values.iter().all(is_inside) || paths.iter().any(escapes) {
                    return refuse("`file` in the file of a project lies below that file");
                }
                // What is not UTF-8 was typed as a context, and that has to be read as text too.
                let paths = paths.iter().map(|path| path.to_string_lossy().into_owned());
                Ok(paths.collect())
            }
            _ => Ok(values),
        }
    }

    fn mistake(&self, line: usize, what: String) -> Failure {
        usage(format!("`{}`, line {line}: {what}", self.path.display()))
    }

    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }
}

/// Returns a key with nothing in it that could move a cursor.
fn shown(key: &str) -> String {
    key.chars()
        .take(64)
        .collect::<String>()
        .escape_debug()
        .to_string()
}

fn is_nested(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Table(_))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(is) => Some(is.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

fn pairs(table: &Table) -> Option<Vec<String>> {
    let pair = |(name, value): (&String, &Value)| Some(format!("{name}={}", scalar(value)?));
    table.iter().map(pair).collect()
}
