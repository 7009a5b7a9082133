//! What runs: RUN, CMD, ENTRYPOINT and HEALTHCHECK.
//!
//! In: a cut line with its heredocs. Out: a command in its shell or exec form, and its flags. Which shell, and what is done with
//! heredocs, is the plan's.

use std::time::Duration;

use super::ast::{Command, Healthcheck, HealthcheckTest, Run};
use super::flags::{FlagKind, Flags, KnownFlag};
use super::instructions::Reader;
use super::json::{self, Json};
use super::lines::Part;
use super::{Word, duration, mount};
use crate::vocab::{Diagnostic, nearest};

const RUN_FLAGS: [KnownFlag; 4] = [
    ("mount", FlagKind::List),
    ("network", FlagKind::Value),
    ("security", FlagKind::Value),
    ("device", FlagKind::List),
];
const HEALTHCHECK_FLAGS: [KnownFlag; 5] = [
    ("interval", FlagKind::Value),
    ("timeout", FlagKind::Value),
    ("start-period", FlagKind::Value),
    ("start-interval", FlagKind::Value),
    ("retries", FlagKind::Value),
];

impl<'a> Reader<'_, 'a> {
    pub(super) fn run(&mut self) -> Option<Run> {
        let flags = self.flags(&RUN_FLAGS);
        let command = self.command(self.header.arguments)?;
        if command == Command::Exec(Vec::new()) {
            self.error_at_arguments("RUN needs a command");
            return None;
        }
        let mut mounts = Vec::new();
        for (value, span) in flags.list("mount") {
            mounts.push(mount::parse(&value, span, self.diagnostics));
        }
        let devices: Vec<Word> = flags.list("device").map(|(value, _)| value).collect();
        for device in &devices {
            self.check_device(device);
        }
        let network = flags.value("network");
        self.check_mode("network", network.as_ref(), &["default", "none", "host"]);
        let security = flags.value("security");
        self.check_mode("security", security.as_ref(), &["sandbox", "insecure"]);
        Some(Run {
            command,
            heredocs: self
                .bodies
                .iter()
                .map(|body| body.heredoc.clone())
                .collect(),
            mounts,
            network,
            security,
            devices,
        })
    }

    fn check_mode(&mut self, flag: &str, mode: Option<&Word>, known: &[&str]) {
        let Some(mode) = mode.filter(|mode| !known.contains(&mode.value.as_str())) else {
            return;
        };
        let problem = Diagnostic::error(format!("unknown mode of `--{flag}`: `{}`", mode.value))
            .at(mode.span);
        self.diagnostics
            .push(match nearest(&mode.value, known.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("it is one of {}", known.join(", "))),
            });
    }

    /// A device is a name and `required`, with or without keys.
    fn check_device(&mut self, device: &Word) {
        let mut has_name = false;
        for field in device.value.split(',') {
            let problem = match field.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                    (!mount::is_bool(value))
                        .then(|| format!("invalid value of `required`: `{value}`"))
                }
                None if field.eq_ignore_ascii_case("required") => None,
                // A CDI name has a `=` itself: `vendor.com/class=name`.
                _ if !has_name && !field.is_empty() => {
                    has_name = true;
                    None
                }
                _ => Some(format!("unknown option `{field}` of `--device`")),
            };
            if let Some(problem) = problem {
                self.diagnostics
                    .push(Diagnostic::error(problem).at(device.span));
            }
        }
        if !has_name {
            self.diagnostics
                .push(Diagnostic::error("flag `--device` names no device").at(device.span));
        }
    }

    pub(super) fn plain_command(&mut self) -> Option<Command> {
        self.flags(&[]);
        self.command(self.header.arguments)
    }

    fn command(&mut self, text: Part<'a>) -> Option<Command> {
        match json::read(text.as_str()) {
            Json::Strings(strings) => Some(Command::Exec(
                strings.into_iter().map(|(string, _)| string).collect(),
            )),
            Json::OtherArray => {
                self.not_strings(text);
                None
            }
            Json::No => Some(Command::Shell(text.word())),
        }
    }

    pub(super) fn healthcheck(&mut self) -> Option<Healthcheck> {
        let flags = self.flags(&HEALTHCHECK_FLAGS);
        let arguments = self.header.arguments;
        let text = arguments.as_str();
        let kind_end = text.find(char::is_whitespace).unwrap_or(text.len());
        let rest = arguments.after(kind_end).trim();
        match text[..kind_end].to_ascii_uppercase().as_str() {
            "NONE" => {
                if !rest.is_empty() {
                    self.diagnostics.push(
                        Diagnostic::error("HEALTHCHECK NONE takes no arguments").at(rest.span()),
                    );
                }
                if let Some(span) = flags.first_span() {
                    self.diagnostics.push(
                        Diagnostic::warning("flags of HEALTHCHECK NONE have no effect").at(span),
                    );
                }
                Some(Healthcheck::None)
            }
            "CMD" => {
                let command = self.command(rest)?;
                let is_empty = match &command {
                    Command::Exec(words) => words.is_empty(),
                    Command::Shell(text) => text.value.is_empty(),
                };
                if is_empty {
                    self.error_at_arguments("HEALTHCHECK CMD needs a command");
                    return None;
                }
                Some(Healthcheck::Cmd(HealthcheckTest {
                    command,
                    interval: self.interval(&flags, "interval"),
                    timeout: self.interval(&flags, "timeout"),
                    start_period: self.interval(&flags, "start-period"),
                    start_interval: self.interval(&flags, "start-interval"),
                    retries: self.retries(&flags),
                }))
            }
            "" => {
                self.at_least_one(0)?;
                None
            }
            other => {
                self.diagnostics.push(
                    Diagnostic::error(format!("unknown kind of HEALTHCHECK: `{other}`"))
                        .at(arguments.slice(0..kind_end).span())
                        .hint("write `HEALTHCHECK CMD …` or `HEALTHCHECK NONE`"),
                );
                None
            }
        }
    }

    /// Zero means the same as not given.
    fn interval(&mut self, flags: &Flags, name: &str) -> Option<Duration> {
        let word = flags.value(name)?;
        let problem = match duration::parse(&word.value) {
            Ok(Duration::ZERO) => return None,
            Ok(interval) if interval >= Duration::from_millis(1) => return Some(interval),
            Ok(_) => "it is shorter than 1ms".to_owned(),
            Err(error) => error.to_string(),
        };
        self.diagnostics.push(
            Diagnostic::error(format!("invalid value of `--{name}`: `{}`", word.value))
                .at(word.span)
                .cause(problem)
                .hint("durations are written like `30s`, `1m30s` or `500ms`"),
        );
        None
    }

    fn retries(&mut self, flags: &Flags) -> Option<u32> {
        let word = flags.value("retries")?;
        match word.value.parse::<i32>().map(u32::try_from) {
            Ok(Ok(retries)) => Some(retries),
            _ => {
                self.diagnostics.push(
                    Diagnostic::error(format!(
                        "invalid value of `--retries`: wanted a number that is not negative, found `{}`",
                        word.value
                    ))
                    .at(word.span),
                );
                None
            }
        }
    }
}
