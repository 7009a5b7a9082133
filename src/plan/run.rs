//! RUN.

use super::build::StageBuilder;
use super::report::Reported;
use super::{Op, Run as RunOp, Script};
use crate::dockerfile::{Command, Instruction, MountFlag, Run};
use crate::vocab::{Diagnostic, NetworkMode, Security};

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
        self.check_flags(run, instruction)?;
        let network = self.network(run)?;
        self.check_platform(instruction)?;
        let script = self.script(run, instruction)?;
        let mut created_by = vec!["RUN".to_owned()];
        created_by.extend(self.arguments_text());
        created_by.extend(script.argv.iter().cloned());
        created_by.push("# buildkit".to_owned());
        let inputs = self.planning.inputs;
        let env = self.state.environment.pairs().to_vec();
        let mut ambient_env = self.planning.build_args.proxies();
        ambient_env.retain(|(name, _)| self.state.environment.get(name).is_none());
        let op = Op::Run(RunOp {
            argv: script.argv,
            env,
            ambient_env,
            cwd: self.cwd(),
            user: self.state.config.config.user.clone(),
            network,
            add_hosts: inputs.add_hosts.to_vec(),
            hostname: self.planning.build_args.hostname(),
            shm_size: inputs.shm_size,
            ulimits: inputs.ulimits.to_vec(),
            scripts: script.scripts,
            mounts: Vec::new(),
            security: Security::Sandbox,
            devices: Vec::new(),
            foreign: None,
        });
        let created_by = created_by.join(" ");
        self.layer(op, Vec::new(), instruction, &script.remark, created_by);
        Ok(())
    }

    /// Refuses what is not built yet: dropping a flag would build something else than was asked for.
    fn check_flags(&mut self, run: &Run, instruction: &Instruction) -> Result<(), Reported> {
        let mut result = Ok(());
        for mount in &run.mounts {
            let error = Diagnostic::error("`RUN --mount` is not supported").at(mount.span);
            result = Err(self.refuse(error.hint(instead_of_mount(mount))));
        }
        for device in &run.devices {
            let error = Diagnostic::error("`RUN --device` is not supported").at(device.span);
            let error = error.hint(
                "steps see no devices of the host: run the command in a container of the image",
            );
            result = Err(self.refuse(error));
        }
        if let Some(security) = &run.security
            && security.value != "sandbox"
        {
            let error = Diagnostic::error(format!(
                "`RUN --security={}` is not supported",
                security.value
            ))
            .at(security.span);
            let error = error.hint("every command runs confined: leave the flag out");
            result = Err(self.refuse(error));
        }
        let is_empty = matches!(&run.command, Command::Exec(argv) if argv.is_empty());
        if is_empty {
            let error = Diagnostic::error("RUN has no command").at(instruction.span);
            result = Err(self.refuse(error));
        }
        result
    }

    fn network(&mut self, run: &Run) -> Result<NetworkMode, Reported> {
        let asked = self.planning.inputs.network;
        let Some(word) = &run.network else {
            return Ok(asked);
        };
        let error = match word.value.as_str() {
            "default" => return Ok(asked),
            "none" => return Ok(NetworkMode::None),
            "host" if asked == NetworkMode::Host => return Ok(NetworkMode::Host),
            "host" => {
                Diagnostic::error("`RUN --network=host` needs leave to use the host's network")
                    .hint("give it by building with `--network=host`")
            }
            other => Diagnostic::error(format!("`{other}` is not a network of RUN"))
                .hint("wanted `default`, `none` or `host`"),
        };
        Err(self.refuse(error.at(word.span)))
    }

    fn check_platform(&mut self, instruction: &Instruction) -> Result<(), Reported> {
        let host = &self.planning.inputs.host;
        let platform = &self.stage().platform;
        if platform.os == host.os && platform.architecture == host.architecture {
            return Ok(());
        }
        let error = Diagnostic::error(format!(
            "RUN needs to run programs of {platform}, and this machine is {host}: there is no emulation"
        ));
        let error = error.at(instruction.span).hint(format!(
            "build on a {platform} machine, or cross-compile in a stage `FROM --platform=$BUILDPLATFORM` and copy the result with COPY --from"
        ));
        Err(self.refuse(error))
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

fn instead_of_mount(mount: &MountFlag) -> &'static str {
    let kind = mount.options.iter().find(|(key, _)| key.value == "type");
    let kind = kind.and_then(|(_, value)| value.as_ref());
    match kind.map_or("bind", |kind| kind.value.as_str()) {
        "cache" => "leave the flag out: the command then starts without its cache",
        "tmpfs" => "leave the flag out and remove the files at the end of the command",
        "secret" | "ssh" => "fetch what needs the secret before the build and COPY it",
        _ => "COPY the files that the command needs before it",
    }
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
