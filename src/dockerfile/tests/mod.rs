//! The border of the room: text in, syntax and diagnostics out, as tables.

mod documents;
mod expansion;
mod grammar;
mod ignoring;
mod lints;
mod mistakes;
mod nodes;
mod properties;
mod size;

use std::fmt::Write as _;

use super::*;
use crate::vocab::Severity;

/// Renders syntax on one line per instruction: what was understood, not how it was written.
fn describe(dockerfile: &Dockerfile) -> String {
    let mut out = String::new();
    for args in &dockerfile.global_args {
        writeln!(out, "ARG{}", describe_args(&args.value)).unwrap();
    }
    for stage in &dockerfile.stages {
        let from = &stage.from.value;
        write!(out, "FROM <{}>", from.image.value).unwrap();
        option(&mut out, "platform", from.platform.as_ref());
        option(&mut out, "as", from.name.as_ref());
        out.push('\n');
        for instruction in &stage.instructions {
            writeln!(out, "{}", describe_kind(&instruction.kind)).unwrap();
        }
    }
    out
}

fn describe_kind(kind: &InstructionKind) -> String {
    let mut out = String::new();
    match kind {
        InstructionKind::Add(copy, flags) => {
            write!(out, "ADD{}", describe_copy(copy)).unwrap();
            option(&mut out, "checksum", flags.checksum.as_ref());
            for (name, flag) in [
                ("unpack", &flags.unpack),
                ("keep-git-dir", &flags.keep_git_dir),
            ] {
                if let Some(flag) = flag {
                    write!(out, " {name}={}", flag.value).unwrap();
                }
            }
        }
        InstructionKind::Arg(args) => write!(out, "ARG{}", describe_args(args)).unwrap(),
        InstructionKind::Cmd(command) => write!(out, "CMD {}", describe_command(command)).unwrap(),
        InstructionKind::Copy(copy) => write!(out, "COPY{}", describe_copy(copy)).unwrap(),
        InstructionKind::Entrypoint(command) => {
            write!(out, "ENTRYPOINT {}", describe_command(command)).unwrap();
        }
        InstructionKind::Env(pairs) => write!(out, "ENV{}", describe_pairs(pairs)).unwrap(),
        InstructionKind::Expose(ports) => write!(out, "EXPOSE{}", describe_words(ports)).unwrap(),
        InstructionKind::Healthcheck(Healthcheck::None) => out.push_str("HEALTHCHECK NONE"),
        InstructionKind::Healthcheck(Healthcheck::Cmd(test)) => {
            write!(out, "HEALTHCHECK {}", describe_command(&test.command)).unwrap();
            for (name, value) in [
                ("interval", test.interval),
                ("timeout", test.timeout),
                ("start-period", test.start_period),
                ("start-interval", test.start_interval),
            ] {
                if let Some(value) = value {
                    write!(out, " {name}={value:?}").unwrap();
                }
            }
            if let Some(retries) = test.retries {
                write!(out, " retries={retries}").unwrap();
            }
        }
        InstructionKind::Label(pairs) => write!(out, "LABEL{}", describe_pairs(pairs)).unwrap(),
        InstructionKind::Maintainer(word) => write!(out, "MAINTAINER <{}>", word.value).unwrap(),
        InstructionKind::Onbuild(onbuild) => write!(out, "ONBUILD {:?}", onbuild.trigger).unwrap(),
        InstructionKind::Run(run) => {
            write!(out, "RUN {}", describe_command(&run.command)).unwrap();
            for heredoc in &run.heredocs {
                write!(out, " {}", describe_heredoc(heredoc)).unwrap();
            }
            for mount in &run.mounts {
                out.push_str(" mount:");
                for (key, value) in &mount.options {
                    match value {
                        Some(value) => write!(out, "{}=<{}>", key.value, value.value).unwrap(),
                        None => write!(out, "{};", key.value).unwrap(),
                    }
                }
            }
            option(&mut out, "network", run.network.as_ref());
            option(&mut out, "security", run.security.as_ref());
            for device in &run.devices {
                write!(out, " device=<{}>", device.value).unwrap();
            }
        }
        InstructionKind::Shell(words) => write!(out, "SHELL {words:?}").unwrap(),
        InstructionKind::Stopsignal(word) => write!(out, "STOPSIGNAL <{}>", word.value).unwrap(),
        InstructionKind::User(word) => write!(out, "USER <{}>", word.value).unwrap(),
        InstructionKind::Volume(paths) => write!(out, "VOLUME{}", describe_words(paths)).unwrap(),
        InstructionKind::Workdir(word) => write!(out, "WORKDIR <{}>", word.value).unwrap(),
    }
    out
}

fn describe_copy(copy: &Copy) -> String {
    let mut out = String::new();
    for source in &copy.sources {
        match source {
            CopySource::Path(path) => write!(out, " <{}>", path.value).unwrap(),
            CopySource::Heredoc(heredoc) => write!(out, " {}", describe_heredoc(heredoc)).unwrap(),
        }
    }
    write!(out, " to <{}>", copy.destination.value).unwrap();
    option(&mut out, "from", copy.from.as_ref());
    option(&mut out, "chown", copy.chown.as_ref());
    option(&mut out, "chmod", copy.chmod.as_ref());
    for (name, flag) in [("link", copy.link), ("parents", copy.parents)] {
        if flag {
            write!(out, " {name}").unwrap();
        }
    }
    for pattern in &copy.exclude {
        write!(out, " exclude=<{}>", pattern.value).unwrap();
    }
    out
}

fn describe_heredoc(heredoc: &Heredoc) -> String {
    let (chomp, quote) = (
        if heredoc.chomp { "-" } else { "" },
        if heredoc.expand { "" } else { "'" },
    );
    format!(
        "<<{chomp}{quote}{}{quote}{:?}",
        heredoc.name, heredoc.content
    )
}

fn describe_command(command: &Command) -> String {
    match command {
        Command::Exec(words) => format!("{words:?}"),
        Command::Shell(text) => format!("<{}>", text.value),
    }
}

fn describe_args(args: &[ArgDeclaration]) -> String {
    args.iter()
        .map(|arg| match &arg.default {
            Some(default) => format!(" {}=<{}>", arg.name.value, default.value),
            None => format!(" {}", arg.name.value),
        })
        .collect()
}

fn describe_pairs(pairs: &[KeyValue]) -> String {
    pairs
        .iter()
        .map(|pair| {
            let legacy = if pair.legacy { " legacy" } else { "" };
            format!(" <{}>=<{}>{legacy}", pair.key.value, pair.value.value)
        })
        .collect()
}

fn describe_words(words: &[Word]) -> String {
    words
        .iter()
        .map(|word| format!(" <{}>", word.value))
        .collect()
}

fn option(out: &mut String, name: &str, word: Option<&Word>) {
    if let Some(word) = word {
        write!(out, " {name}=<{}>", word.value).unwrap();
    }
}

/// Renders diagnostics: severity, code, the text they point at, message, first hint.
fn tell(text: &str, diagnostics: &[crate::vocab::Diagnostic]) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let code = diagnostic
            .code
            .map(|code| format!("[{code}]"))
            .unwrap_or_default();
        let place = diagnostic
            .labels
            .first()
            .map_or("", |label| &text[label.span.start..label.span.end]);
        write!(out, "{severity}{code} {place:?}: {}", diagnostic.message).unwrap();
        for cause in &diagnostic.causes {
            write!(out, ": {cause}").unwrap();
        }
        if let Some(hint) = diagnostic.hints.first() {
            write!(out, " ({hint})").unwrap();
        }
        out.push('\n');
    }
    out
}
