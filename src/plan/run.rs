//! RUN.

use super::build::StageBuilder;
use super::report::Reported;
use super::{Op, Run as RunOp, Script};
use crate::dockerfile::{Command, Instruction, Run};
use crate::vocab::{Diagnostic, Platform};

/// Where scripts with a `#!` line are mounted.
const PIPES: &str = "/dev/pipes";

/// What the text and the heredocs of a RUN come to.
struct Commanded {
    argv: Vec<String>,
    scripts: Vec<Script>,
    /// Said of the script behind the step's name.
    remark: String,
}

impl StageBuilder<'_> {
    /// RUN.
    pub(super) fn run(&mut self, run: &Run, instruction: &Instruction) -> Result<(), Reported> {
        // One run of the program tells the mistakes of all flags.
        let command = self.check_command(run, instruction);
        let network = self.network(run);
        let security = self.security(run);
        let devices = self.devices(run);
        let mounts = self.mounts(run);
        command?;
        let mut mounts = mounts?;
        let foreign = self.foreign(instruction)?;
        let script = self.script(run, instruction)?;
        let mut created_by = vec!["RUN".to_owned()];
        created_by.extend(self.arguments_text());
        created_by.extend(script.argv.iter().cloned());
        created_by.push("# buildkit".to_owned());
        let inputs = self.planning.inputs;
        let mut env = self.state.environment.pairs().to_vec();
        mounts.name_agent(&mut env);
        let mut ambient_env = self.planning.build_args.proxies();
        ambient_env.retain(|(name, _)| self.state.environment.get(name).is_none());
        let declared = self.state.arguments.iter().map(|(name, _)| name.clone());
        let arguments = declared.collect();
        let op = Op::Run(RunOp {
            argv: script.argv,
            env,
            arguments,
            ambient_env,
            cwd: self.cwd(),
            user: self.state.config.config.user.clone(),
            network: network?,
            add_hosts: inputs.add_hosts.to_vec(),
            hostname: self.planning.build_args.hostname(),
            shm_size: inputs.shm_size,
            ulimits: inputs.ulimits.to_vec(),
            scripts: script.scripts,
            mounts: mounts.list,
            security: security?,
            devices: devices?,
            foreign,
        });
        let created_by = created_by.join(" ");
        self.layer(op, mounts.sources, instruction, &script.remark, created_by);
        Ok(())
    }

    fn check_command(&mut self, run: &Run, instruction: &Instruction) -> Result<(), Reported> {
        if !matches!(&run.command, Command::Exec(argv) if argv.is_empty()) {
            return Ok(());
        }
        let error = Diagnostic::error("RUN has no command").at(instruction.span);
        Err(self.refuse(error))
    }

    /// Returns the platform of the root's programs, if it is not this machine's.
    fn foreign(&mut self, instruction: &Instruction) -> Result<Option<Platform>, Reported> {
        let host = &self.planning.inputs.host;
        // What the base says of itself: an image of another platform than was asked for runs as what it is.
        let platform = self.state.config.platform();
        let platform = platform.unwrap_or_else(|| self.stage().platform.clone());
        if platform.os != host.os {
            let error =
                Diagnostic::error(format!("RUN cannot run programs of {platform} on {host}"));
            return Err(self.refuse(error.at(instruction.span)));
        }
        Ok((platform.architecture != host.architecture).then_some(platform))
    }

    fn script(&mut self, run: &Run, instruction: &Instruction) -> Result<Commanded, Reported> {
        let plain = |argv| Commanded {
            argv,
            scripts: Vec::new(),
            remark: String::new(),
        };
        let Some(first) = run.heredocs.first() else {
            return Ok(plain(self.argv(&run.command)));
        };
        let Command::Shell(line) = &run.command else {
            let error = Diagnostic::error("the JSON form of RUN takes no heredoc");
            return Err(self.refuse(error.at(instruction.span)));
        };
        if !is_lone_heredoc(&line.value) {
            // The shell reads its heredocs itself.
            let mut text = line.value.clone();
            for heredoc in &run.heredocs {
                text.push('\n');
                text.push_str(&heredoc.content);
                text.push_str(&heredoc.name);
            }
            return Ok(plain(self.in_shell(&text)));
        }
        let remark = format!(" ({})", summary(&first.content));
        if !first.content.starts_with("#!") {
            return Ok(Commanded {
                remark,
                ..plain(self.in_shell(&first.content))
            });
        }
        let path = super::paths::resolve(PIPES, &first.name);
        if !path.starts_with("/dev/pipes/") || first.name.starts_with('/') {
            let error = Diagnostic::error(format!("`{}` cannot name a script's file", first.name));
            return Err(self.refuse(error.at(first.span)));
        }
        Ok(Commanded {
            remark,
            argv: self.in_shell(&path),
            scripts: vec![Script {
                path,
                content: first.content.clone(),
            }],
        })
    }

    /// Returns `|2 A=1 B=2` for the declared arguments, as their values are for this command.
    fn arguments_text(&self) -> Option<String> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.state.arguments {
            let value = self.state.environment.get(name).or(value.as_deref());
            let value = value.unwrap_or_default();
            match pairs.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => pairs.push((name, value)),
            }
        }
        if pairs.is_empty() {
            return None;
        }
        let mut text = format!("|{}", pairs.len());
        for (name, value) in pairs {
            text.push_str(&format!(" {name}={value}"));
        }
        Some(text)
    }
}

/// Tells whether a RUN's text is one heredoc and nothing else, such as `<<-"EOF"`.
fn is_lone_heredoc(text: &str) -> bool {
    let text = text.trim().trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(word) = text.strip_prefix("<<") else {
        return false;
    };
    let word = word.strip_prefix('-').unwrap_or(word);
    let mut quote = None;
    let mut characters = word.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (_, '<') => return false,
            (None, character) if character.is_whitespace() => return false,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), character) if open == character => quote = None,
            (None | Some('"'), '\\') => {
                characters.next();
            }
            _ => {}
        }
    }
    !word.is_empty() && quote.is_none()
}

/// Returns a script's first line.
fn summary(script: &str) -> String {
    let mut lines = script.trim().lines();
    let first = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { "..." } else { "" };
    format!("{first}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_heredocs() {
        for text in [
            "<<EOF",
            "<<-EOF",
            "<<\"EOF\"",
            "<<'E O F'",
            "3<<EOF",
            " <<EOF ",
            "<<E\\ F",
        ] {
            assert!(is_lone_heredoc(text), "{text}");
        }
        for text in [
            "<<EOF sh",
            "cat <<EOF",
            "<<A <<B",
            "<<",
            "<<A<<B",
            "<<\"EOF",
            "echo",
        ] {
            assert!(!is_lone_heredoc(text), "{text}");
        }
    }

    #[test]
    fn summaries_are_one_line() {
        assert_eq!(summary("\necho a\n"), "echo a");
        assert_eq!(summary("#!/bin/sh\necho a\n"), "#!/bin/sh...");
        assert_eq!(summary(""), "");
    }
}
