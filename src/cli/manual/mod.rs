//! What the command line says of itself: completions, manual pages, and the reference in the docs.
//!
//! All three are made of the same definitions that read the command line, so that none can be behind. Nothing here is on the way of a build.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory as _};
use clap_complete::Shell;

use super::args::Args;
use crate::pipeline::Failure;
use crate::vocab::{Diagnostic, ExitCode};

#[derive(Debug, ClapArgs)]
pub(super) struct Completion {
    /// Shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Man {
    /// Directory, which is made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints what a shell wants to know for completing words.
pub(super) fn completion(args: &Completion) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "builder", &mut bytes);
    super::print_bytes(&bytes);
    Ok(())
}

/// Writes a page for the program, and one for each subcommand.
pub(super) fn pages(args: &Man) -> Result<(), Failure> {
    let failed = |what: &str, error: std::io::Error| {
        let place = args.directory.display();
        let told = Diagnostic::error(format!("cannot {what} `{place}`")).caused_by(&error);
        Failure::new(ExitCode::Usage, told)
    };
    fs::create_dir_all(&args.directory).map_err(|error| failed("make", error))?;
    for (name, text) in manual() {
        let path = args.directory.join(name);
        fs::write(path, text).map_err(|error| failed("write to", error))?;
    }
    Ok(())
}

/// The commands, outermost first, each with the words that lead to it.
fn commands() -> Vec<(String, clap::Command)> {
    let mut root = Args::command();
    root.build();
    let mut todo = vec![("builder".to_owned(), root)];
    let mut all = Vec::new();
    while let Some((words, command)) = todo.pop() {
        let below: Vec<_> = command
            .get_subcommands()
            .map(|sub| (format!("{words} {}", sub.get_name()), sub.clone()))
            .collect();
        todo.extend(below.into_iter().rev());
        all.push((words, command));
    }
    all
}

/// Returns file names and texts of the manual pages.
fn manual() -> Vec<(String, Vec<u8>)> {
    let commands = commands();
    let mut pages = Vec::new();
    for (words, command) in &commands {
        let name = words.replace(' ', "-");
        let below = commands.iter().filter(|(other, _)| {
            other
                .rsplit_once(' ')
                .is_some_and(|(parent, _)| parent == words)
        });
        let mut also: Vec<String> = below.map(|(words, _)| words.replace(' ', "-")).collect();
        if let Some((parent, _)) = words.rsplit_once(' ') {
            also.push(parent.replace(' ', "-"));
        }
        let page = clap_mangen::Man::new(command.clone())
            .title(name.to_uppercase())
            .section("1")
            .date("")
            .source(concat!("builder ", env!("CARGO_PKG_VERSION")));
        let mut text = Vec::new();
        page.render(&mut text)
            .expect("writing to memory does not fail");
        text.extend_from_slice(ends(&also).as_bytes());
        pages.push((format!("{name}.1"), text));
    }
    pages
}

/// Returns what every page ends with.
fn ends(also: &[String]) -> String {
    let mut text = String::from(
        ".SH ENVIRONMENT\nEvery flag of \\fBbuilder\\-build\\fR(1), and every flag that all subcommands have, has a variable: that of \
         \\fB\\-\\-no\\-cache\\fR is BUILDER_NO_CACHE. Flags of other subcommands have their name in it: BUILDER_PRUNE_KEEP. A flag goes \
         before its variable, and a variable before \\fIbuilder.toml\\fR.\n",
    );
    text.push_str(".SH \"EXIT STATUS\"\nIt says what failed.\n");
    for code in ExitCode::ALL {
        let (number, failed) = (code as u8, code.what_failed());
        text.push_str(&format!(".TP\n\\fB{number}\\fR\n{failed}\n"));
    }
    if !also.is_empty() {
        let names: Vec<String> = also
            .iter()
            .map(|name| format!("\\fB{}\\fR(1)", name.replace('-', "\\-")))
            .collect();
        text.push_str(&format!(".SH \"SEE ALSO\"\n{}\n", names.join(", ")));
    }
    text
}
