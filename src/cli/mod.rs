//! Flags become requests; subcommands.
//!
//! `args` is what was typed, `request` turns it into what it means, `build` and the modules after it perform one subcommand each.
//! Nothing here knows how an image is made.

mod account;
mod args;
mod build;
mod cache_command;
mod caches;
mod check;
mod debug;
mod doctor;
mod fields;
mod forecast;
mod grants;
mod images;
mod isolation;
mod limits;
mod manifest;
mod objects;
mod output;
mod registry;
mod request;
mod root;
mod scope;
mod upkeep;

use std::process::ExitCode as ProcessExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::pipeline::Failure;
use crate::ui;
use crate::vocab::{Diagnostic, ExitCode};

use args::{Args, Command};

/// Runs the command line of this process.
pub fn main() -> ProcessExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Broken pipes do not matter here: there is nothing to lose.
            drop(error.print());
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::Success.into(),
                _ => ExitCode::Usage.into(),
            };
        }
    };
    match run(args) {
        Ok(()) => ExitCode::Success.into(),
        Err(failure) => {
            // A build has told its own diagnostics, on its own display.
            for diagnostic in &failure.diagnostics {
                ui::report(diagnostic);
            }
            failure.class.into()
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let global = args.global;
    match args.command {
        Command::Build(build) => build::run(&global, *build),
        Command::Digest(build) => build::digest(&global, *build),
        Command::Plan(plan) => forecast::run(&global, *plan),
        Command::Debug(debug) => debug::run(&debug),
        Command::Pull(pull) => registry::pull(&global, &pull),
        Command::Push(push) => registry::push(&global, &push),
        Command::Manifest(manifest) => manifest::run(&global, &manifest),
        Command::Login(login) => registry::login(&global, &login),
        Command::Logout(logout) => registry::logout(&global, &logout),
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
        Command::Version => {
            print(&format!("builder {}\n", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    }
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
