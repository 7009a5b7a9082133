//! The instructions that change the config, and WORKDIR, which makes a directory besides.
//!
//! Each ends with an entry of the history in BuildKit's words.

use std::time::Duration;

use serde_json::{Map, Value};

use super::arguments::is_variable;
use super::build::StageBuilder;
use super::environment::split_pair;
use super::report::Reported;
use super::{Op, Workdir, gotext, paths, ports, signal};
use crate::dockerfile::{
    ArgDeclaration, Command, Healthcheck, Instruction, KeyValue, Onbuild, Word,
};
use crate::image::HealthConfig;
use crate::vocab::{Diagnostic, Span};

impl StageBuilder<'_> {
    /// ARG: the value given for it, else its default, else the global scope's, else none. Each sees those before it.
    pub(super) fn arg(&mut self, list: &[ArgDeclaration], span: Span) -> Result<(), Reported> {
        let mut texts = Vec::with_capacity(list.len());
        for argument in list {
            let name = &argument.name.value;
            self.lint_name("ARG", name, argument.name.span);
            let value = match (self.planning.build_args.get(name), &argument.default) {
                (Some(given), _) => Some(given.to_owned()),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => self.planning.globals.values.get(name).map(str::to_owned),
            };
            self.outline_arg(argument, span, value.as_deref());
            // Over an ENV of the name, the base's included; the image keeps that one's value.
            if let Some(value) = &value
                && is_variable(name)
            {
                self.state.environment.set(name, value);
            }
            texts.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            self.state.arguments.push((name.clone(), value));
        }
        self.note(format!("ARG {}", texts.join(" ")));
        Ok(())
    }

    /// CMD.
    pub(super) fn cmd(&mut self, command: &Command) -> Result<(), Reported> {
        let argv = self.argv(command);
        self.note(format!("CMD {}", gotext::quote_list(&argv)));
        let config = &mut self.state.config.config;
        config.cmd = Some(argv).filter(|argv| !argv.is_empty());
        // BuildKit says so of every CMD; Windows reads it.
        config.other.insert("ArgsEscaped".to_owned(), true.into());
        self.cmd_is_own = true;
        Ok(())
    }

    /// ENTRYPOINT, which takes away a CMD that was not made for it.
    pub(super) fn entrypoint(&mut self, command: &Command) -> Result<(), Reported> {
        let argv = self.argv(command);
        self.note(format!("ENTRYPOINT {}", gotext::quote_list(&argv)));
        let config = &mut self.state.config.config;
        config.entrypoint = Some(argv).filter(|argv| !argv.is_empty());
        if !self.cmd_is_own {
            config.cmd = None;
        }
        Ok(())
    }

    /// ENV: all values are expanded before the first is set.
    pub(super) fn env(&mut self, pairs: &[KeyValue]) -> Result<(), Reported> {
        let mut text = String::from("ENV");
        for (name, value, span) in self.pairs("ENV", pairs)? {
            self.lint_name("ENV", &name, span);
            text.push_str(&format!(" {name}={value}"));
            self.state.environment.set(&name, &value);
            let env = &mut self.state.config.config.env;
            let pair = format!("{name}={value}");
            match env.iter_mut().find(|known| split_pair(known).0 == name) {
                Some(known) => *known = pair,
                None => env.push(pair),
            }
        }
        self.note(text);
        Ok(())
    }

    /// EXPOSE.
    pub(super) fn expose(&mut self, words: &[Word]) -> Result<(), Reported> {
        let mut exposed = Vec::new();
        for word in words {
            for port in self.with_words(|words, report| words.many(word, report))? {
                match ports::parse(&port) {
                    Ok(ports) => exposed.extend(ports),
                    Err(reason) => {
                        let error = Diagnostic::error(format!("EXPOSE cannot take `{port}`"));
                        return Err(self.refuse(error.at(word.span).cause(reason)));
                    }
                }
                self.lint_port(&port, word.span);
            }
        }
        self.note(format!("EXPOSE [{}]", exposed.join(" ")));
        let known = &mut self.state.config.config.exposed_ports;
        known.extend(exposed.into_iter().map(|port| (port, member())));
        Ok(())
    }

    /// HEALTHCHECK, which replaces the base's whole.
    pub(super) fn healthcheck(&mut self, check: &Healthcheck, span: Span) -> Result<(), Reported> {
        let health = match check {
            Healthcheck::None => HealthConfig {
                test: vec!["NONE".to_owned()],
                ..HealthConfig::default()
            },
            Healthcheck::Cmd(check) => {
                let mut test = Vec::new();
                match &check.command {
                    Command::Exec(argv) => {
                        test.push("CMD".to_owned());
                        test.extend(argv.iter().cloned());
                    }
                    Command::Shell(text) => {
                        test.extend(["CMD-SHELL".to_owned(), text.value.clone()]);
                    }
                }
                HealthConfig {
                    test,
                    interval: self.nanoseconds("interval", check.interval, span)?,
                    timeout: self.nanoseconds("timeout", check.timeout, span)?,
                    start_period: self.nanoseconds("start-period", check.start_period, span)?,
                    start_interval: self.nanoseconds(
                        "start-interval",
                        check.start_interval,
                        span,
                    )?,
                    retries: check.retries.map_or(0, i64::from),
                }
            }
        };
        self.note(format!(
            "HEALTHCHECK &{{{} {} {} {} {} {}}}",
            gotext::quote_list(&health.test),
            gotext::quote(&gotext::duration(health.interval)),
            gotext::quote(&gotext::duration(health.timeout)),
            gotext::quote(&gotext::duration(health.start_period)),
            gotext::quote(&gotext::duration(health.start_interval)),
            gotext::quote_number(health.retries),
        ));
        self.state.config.config.healthcheck = Some(health);
        Ok(())
    }

    /// LABEL.
    pub(super) fn label(&mut self, pairs: &[KeyValue]) -> Result<(), Reported> {
        let mut text = String::from("LABEL");
        for (name, value, _) in self.pairs("LABEL", pairs)? {
            text.push_str(&format!(" {name}={value}"));
            self.state.config.config.labels.insert(name, value);
        }
        self.note(text);
        Ok(())
    }

    /// MAINTAINER.
    pub(super) fn maintainer(&mut self, name: &Word) -> Result<(), Reported> {
        self.note(format!("MAINTAINER {}", name.value));
        self.state.config.author = Some(name.value.clone());
        Ok(())
    }

    /// ONBUILD: kept for whoever builds on this; leaves no entry.
    pub(super) fn onbuild(&mut self, onbuild: &Onbuild) -> Result<(), Reported> {
        self.state
            .config
            .config
            .on_build
            .push(onbuild.trigger.clone());
        Ok(())
    }

    /// SHELL.
    pub(super) fn shell(&mut self, argv: &[String]) -> Result<(), Reported> {
        self.note(format!("SHELL [{}]", argv.join(" ")));
        self.state.config.config.shell = Some(argv.to_vec()).filter(|argv| !argv.is_empty());
        Ok(())
    }

    /// STOPSIGNAL.
    pub(super) fn stopsignal(&mut self, word: &Word) -> Result<(), Reported> {
        let text = self.expand(word)?;
        if !signal::is_signal(&text) {
            let error = Diagnostic::error(format!("`{text}` is not a signal")).at(word.span);
            let error = error.hint("wanted a name such as `SIGTERM`, or a number");
            return Err(self.refuse(error));
        }
        self.note(format!("STOPSIGNAL {text}"));
        self.state.config.config.stop_signal = Some(text);
        Ok(())
    }

    /// USER; whether there is such a user shows when something runs.
    pub(super) fn user(&mut self, word: &Word) -> Result<(), Reported> {
        let user = self.expand(word)?;
        self.note(format!("USER {user}"));
        self.state.config.config.user = user;
        Ok(())
    }

    /// VOLUME; nothing is made in the file tree.
    pub(super) fn volume(&mut self, words: &[Word]) -> Result<(), Reported> {
        let mut volumes = Vec::with_capacity(words.len());
        for word in words {
            let volume = self.expand(word)?;
            if volume.is_empty() {
                let error = Diagnostic::error("a VOLUME cannot be empty").at(word.span);
                return Err(self.refuse(error));
            }
            volumes.push(volume);
        }
        self.note(format!("VOLUME [{}]", volumes.join(" ")));
        let known = &mut self.state.config.config.volumes;
        known.extend(volumes.into_iter().map(|volume| (volume, member())));
        Ok(())
    }

    /// WORKDIR: relative ones add up; every one but the root is a layer.
    pub(super) fn workdir(
        &mut self,
        word: &Word,
        instruction: &Instruction,
    ) -> Result<(), Reported> {
        let written = self.expand(word)?;
        self.lint_workdir(&written, word.span);
        let path = paths::resolve(&self.cwd(), &written);
        let created_by = format!("WORKDIR {path}");
        self.state.config.config.working_dir.clone_from(&path);
        if path == "/" {
            self.naming.skip();
            self.note(created_by);
            return Ok(());
        }
        let op = Op::Workdir(Workdir {
            path,
            user: owner_of_directories(&self.state.config.config.user),
            epoch: self.planning.epoch,
        });
        self.layer(op, Vec::new(), instruction, "", created_by);
        Ok(())
    }

    /// Returns the arguments that a command starts with: its own, or the shell's with its text.
    pub(super) fn argv(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(argv) => argv.clone(),
            Command::Shell(text) => self.in_shell(&text.value),
        }
    }

    /// Returns the shell's arguments with a text for it.
    pub(super) fn in_shell(&self, text: &str) -> Vec<String> {
        let shell = self.state.config.config.shell.as_ref();
        let mut argv = match shell.filter(|shell| !shell.is_empty()) {
            Some(shell) => shell.clone(),
            None => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        argv.push(text.to_owned());
        argv
    }

    fn pairs(
        &mut self,
        instruction: &str,
        pairs: &[KeyValue],
    ) -> Result<Vec<(String, String, Span)>, Reported> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let name = self.expand(&pair.key)?;
            if name.is_empty() {
                let error = Diagnostic::error(format!("a name in {instruction} is empty"));
                return Err(self.refuse(error.at(pair.key.span)));
            }
            let value = self.expand(&pair.value)?;
            expanded.push((name, value, pair.key.span));
        }
        Ok(expanded)
    }

    fn nanoseconds(
        &mut self,
        option: &str,
        duration: Option<Duration>,
        span: Span,
    ) -> Result<i64, Reported> {
        let nanoseconds = duration.unwrap_or_default().as_nanos();
        i64::try_from(nanoseconds).map_err(|_| {
            let error = Diagnostic::error(format!("`--{option}` of HEALTHCHECK is too long"));
            self.refuse(error.at(span))
        })
    }
}

/// Returns whose directories WORKDIR makes. A bare number stands for the group too, as in `--chown` and other than in RUN: passwd
/// is asked for names only.
fn owner_of_directories(user: &str) -> String {
    let is_number = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        format!("{user}:{user}")
    } else {
        user.to_owned()
    }
}

/// Returns what stands behind every member of a set in a config.
fn member() -> Value {
    Value::Object(Map::new())
}
