//! The papers say what the program takes.

use std::collections::BTreeSet;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use super::super::args::Args;
use super::super::words::words;
use super::{commands, manual, reference};
use crate::vocab::ExitCode;

fn docs(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

#[test]
fn docs_are_what_the_command_line_takes() {
    const BEGIN: &str = "<!-- what follows is written by a test, see src/cli/manual -->\n";
    let path = docs("reference.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (prose, made) = text.split_once(BEGIN).expect("there is a place for it");
    let fresh = reference::reference();
    if std::env::var_os("BUILDER_TEST_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{prose}{BEGIN}{fresh}")).unwrap();
        return;
    }
    assert!(
        made == fresh,
        "docs/reference.md is not what the program takes: BUILDER_TEST_BLESS=1 cargo test --lib docs_are_what"
    );
}

/// Returns the command lines of a page that a reader might copy: what stands in blocks and begins with the program's name.
fn copied(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        let (_, block) = block.split_once('\n').unwrap_or_default();
        let block = block.replace("\\\n", " ");
        for line in block.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("- run: ").unwrap_or(line);
            let line = line.strip_prefix("- ").unwrap_or(line);
            let line = line.strip_prefix("$ ").unwrap_or(line);
            let is_whole = !line.contains('…') && !line.contains(['[', '{', '(']);
            if line.starts_with("builder ") && is_whole {
                let ends = [" #", " |", " &&", ";", " >", " <"];
                let end = ends.iter().filter_map(|end| line.find(end)).min();
                lines.push(line[..end.unwrap_or(line.len())].trim().to_owned());
            }
        }
    }
    lines
}

#[test]
fn commands_in_the_docs_are_understood() {
    let pages = std::fs::read_dir(docs("")).unwrap();
    let mut pages: Vec<_> = pages.map(|entry| entry.unwrap().path()).collect();
    pages.push(docs("../README.md"));
    let mut count = 0;
    for page in pages {
        let name = page.file_name().unwrap().to_str().unwrap().to_owned();
        // The last one holds usage lines, no commands.
        if !name.ends_with(".md") || name == "reference.md" {
            continue;
        }
        for line in copied(&std::fs::read_to_string(&page).unwrap()) {
            let words = words(&line).unwrap();
            let other = ["executor", "warmer", "bud", "buildah", "podman", "docker"];
            if other.contains(&words[1].as_str()) {
                continue;
            }
            count += 1;
            if let Err(error) = Args::try_parse_from(&words) {
                // A line of a longer command that ends elsewhere.
                let is_cut = error.kind() == ErrorKind::MissingRequiredArgument;
                assert!(is_cut, "{name}: `{line}`: {error}");
            }
        }
    }
    assert!(count > 40, "only {count} are found");
}

#[test]
fn every_flag_and_subcommand_says_what_it_does() {
    for (words, command) in commands() {
        let about = command.get_about().map(ToString::to_string);
        assert!(about.is_some_and(|text| !text.is_empty()), "{words}");
        for arg in command.get_arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{words}: {}", arg.get_id());
            assert!(!help.ends_with('.'), "{words}: {}: {help}", arg.get_id());
        }
    }
}

#[test]
fn each_subcommand_has_a_page_with_its_flags_and_the_exit_codes() {
    let pages = manual();
    assert_eq!(pages.len(), commands().len());
    for ((words, command), (name, text)) in commands().iter().zip(&pages) {
        assert_eq!(*name, format!("{}.1", words.replace(' ', "-")));
        let text = String::from_utf8(text.clone()).unwrap();
        assert!(
            text.contains(&format!(".TH {}", words.replace(' ', "-").to_uppercase())),
            "{text}"
        );
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let Some(long) = arg.get_long() else { continue };
            let written = format!("\\-\\-{}", long.replace('-', "\\-"));
            assert!(text.contains(&written), "{name}: {written}\n{text}");
        }
        assert!(text.contains("143"), "{name}");
    }
    let names: BTreeSet<&String> = pages.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), pages.len());
}

#[test]
fn completions_know_every_subcommand() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut bytes = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "builder", &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        for command in Args::command().get_subcommands() {
            assert!(
                text.contains(command.get_name()),
                "{shell}: {}",
                command.get_name()
            );
        }
        assert!(text.contains("content-tag"), "{shell}");
    }
}

#[test]
fn the_page_of_exit_codes_has_all_of_them_in_the_same_words() {
    let text = std::fs::read_to_string(docs("exit-codes.md")).unwrap();
    let rows: Vec<(u8, &str)> = text
        .split("`builder run`")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            Some((cells.next()?.parse().ok()?, cells.next()?))
        })
        .collect();
    let known = ExitCode::ALL.map(|code| (code as u8, code.what_failed()));
    assert_eq!(rows, known);
}
