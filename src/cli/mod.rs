//! Flags become requests; subcommands.
//!
//! `args` is what was typed, `request` turns it into what it means, `build` and the modules after it perform one subcommand each.
//! Nothing here knows how an image is made.

mod account;
mod after;
mod args;
mod booleans;
mod build;
mod cache_command;
mod caches;
mod check;
mod compat;
mod debug;
mod doctor;
mod fields;
mod forecast;
mod forms;
mod grants;
mod handover;
mod images;
mod isolation;
mod limits;
mod look;
mod manifest;
mod manual;
mod objects;
mod output;
mod registry;
mod request;
mod root;
mod run;
mod scope;
mod settings;
mod show;
mod upkeep;
mod words;

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode as ProcessExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::pipeline::Failure;
use crate::ui;
use crate::vocab::{Diagnostic, ExitCode};

use args::{Args, Command};
use settings::{Around, Misread, Origins};

/// Runs the command line of this process.
pub fn main() -> ProcessExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let variable = |name: &str| std::env::var(name).ok();
    let is_there = |path: &str| Path::new(path).is_file();
    match compat::route(&words, &variable, &is_there) {
        None => {
            let make = || booleans::allow(Args::command(), &words);
            perform(&make, &words, true, &[])
        }
        Some(Ok(compat::Routed::Text(text))) => {
            print(&text);
            ExitCode::Success.into()
        }
        Some(Ok(compat::Routed::Commands {
            commands,
            notes,
            log,
        })) => {
            if let Some(log) = log
                && let Err(failure) = log_to(&log)
            {
                return ended(Err(failure));
            }
            perform_all(commands, notes)
        }
        Some(Err(failure)) => ended(Err(failure)),
    }
}

/// Performs a command line, the program's name first.
fn perform(
    make: &dyn Fn() -> clap::Command,
    words: &[OsString],
    reads_projects: bool,
    notes: &[Diagnostic],
) -> ProcessExitCode {
    let around = Around {
        variables: settings::variables(std::env::vars_os()),
        reads_projects,
    };
    let mut read = match settings::read(make, words, &around) {
        Ok(read) => read,
        Err(Misread::Words(error, lines)) => return misread(&error, lines),
        Err(Misread::Setting(failure)) => return ended(Err(failure)),
    };
    if let Some(text) = &read.shown {
        print(text);
        return ExitCode::Success.into();
    }
    match Args::from_arg_matches_mut(&mut read.matches) {
        Ok(args) => {
            let origins = &read.origins;
            ended(run(args, notes, origins).map_err(|failure| origins.explained(failure)))
        }
        Err(error) => misread(&error.format(&mut make()), Vec::new()),
    }
}

/// Performs command lines that other tools' words came to, in order, until one fails.
fn perform_all(commands: Vec<Vec<OsString>>, notes: Vec<String>) -> ProcessExitCode {
    let mut notes: Vec<Diagnostic> = notes.into_iter().map(Diagnostic::warning).collect();
    for words in commands {
        let words: Vec<OsString> = std::iter::once(OsString::from("builder"))
            .chain(words)
            .collect();
        // Of a flag that those tools take once, the last counts.
        let make = || Args::command().args_override_self(true);
        let status = perform(&make, &words, false, &std::mem::take(&mut notes));
        if status != ProcessExitCode::SUCCESS {
            return status;
        }
    }
    for note in notes {
        ui::report(&note);
    }
    ExitCode::Success.into()
}

/// Has standard error go to a file.
fn log_to(path: &str) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            ExitCode::Usage,
            Diagnostic::error(format!("cannot write the log `{path}`")).caused_by(error),
        )
    };
    let file = File::options().append(true).create(true).open(path);
    let file = file.map_err(|error| failed(&error))?;
    nix::unistd::dup2_stderr(&file).map_err(|error| failed(&error))
}

/// Shows what clap says of a command line, and where flags come from that were not typed.
fn misread(error: &clap::Error, lines: Vec<String>) -> ProcessExitCode {
    // Broken pipes do not matter here: there is nothing to lose.
    drop(error.print());
    for line in lines {
        ui::report(&Diagnostic::warning(line));
    }
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::Success.into(),
        _ => ExitCode::Usage.into(),
    }
}

fn ended(result: Result<ProcessExitCode, Failure>) -> ProcessExitCode {
    match result {
        Ok(status) => status,
        Err(failure) => {
            // A build has told its own diagnostics, on its own display.
            for diagnostic in &failure.diagnostics {
                ui::report(diagnostic);
            }
            failure.class.into()
        }
    }
}

/// Performs a command line. Notes are told first, where the command shows what it does.
fn run(args: Args, notes: &[Diagnostic], origins: &Origins) -> Result<ProcessExitCode, Failure> {
    let global = args.global;
    if !matches!(args.command, Command::Build(_)) {
        for note in notes {
            ui::report(note);
        }
    }
    let done = match args.command {
        Command::Run(image) => return run::run(&global, *image),
        Command::Build(build) => build::run(&global, *build, notes, origins),
        Command::Digest(build) => build::digest(&global, *build, origins),
        Command::Plan(plan) => forecast::run(&global, *plan, origins),
        Command::Debug(debug) => return debug::run(&global, *debug),
        Command::Pull(pull) => registry::pull(&global, &pull),
        Command::Push(push) => registry::push(&global, &push),
        Command::Manifest(manifest) => manifest::run(&global, &manifest),
        Command::Login(login) => registry::login(&global, &login),
        Command::Logout(logout) => registry::logout(&global, &logout),
        Command::Ls(ls) => look::list(&global, &ls),
        Command::Cat(cat) => look::cat(&global, &cat),
        Command::Diff(diff) => look::diff(&global, &diff),
        Command::Images(list) => images::list(&global, &list),
        Command::Inspect(inspect) => images::inspect(&global, &inspect),
        Command::Tag(tag) => images::tag(&global, &tag),
        Command::Rmi(remove) => images::remove(&global, &remove),
        Command::Import(import) => images::import(&global, &import),
        Command::Save(save) => images::save(&global, &save),
        Command::Prune(prune) => upkeep::prune(&global, &prune),
        Command::Du(du) => upkeep::disk_usage(&global, &du),
        Command::Cache(command) => cache_command::run(&global, &command),
        Command::Doctor(doctor) => doctor::run(&global, &doctor),
        Command::Completion(completion) => manual::completion(&completion),
        Command::Man(man) => manual::pages(&man),
        Command::Version => {
            print(&format!("builder {}\n", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    };
    done.map(|()| ExitCode::Success.into())
}

/// Writes to standard output; a reader that went away is no error.
fn print(text: &str) {
    print_bytes(text.as_bytes());
}

fn print_bytes(bytes: &[u8]) {
    use std::io::Write as _;
    drop(std::io::stdout().lock().write_all(bytes));
}

/// Returns a failure of the command line itself.
fn usage(message: impl Into<String>) -> Failure {
    Failure::new(ExitCode::Usage, Diagnostic::error(message))
}

/// The same with what to do about it.
fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::new(ExitCode::Usage, Diagnostic::error(message).hint(hint))
}
