//! Every row of every table does what it says, and the docs are what the tables say.

use std::path::Path;

use crate::vocab::ExitCode;

use super::super::flag::{Does, Flag, Takes};
use super::super::{images_flags, page};
use super::honoured::HONOURED;
use super::{BASES, Base, Come, own, tried};

/// Returns a value that a flag could have.
fn example(flag: &Flag) -> &'static str {
    let name = match flag.takes {
        Takes::Switch => return "true",
        Takes::SwitchOn => return "false",
        Takes::Value(name) | Takes::List(name) | Takes::Optional(name, _) => name,
    };
    match (flag.name, name) {
        ("build-arg-file", _) => "/dev/null",
        ("secret", _) => "id=x,env=HOME",
        ("ssh", _) => "default=/sock",
        ("output", "SPEC") => "type=local,dest=out",
        ("cache-from", _) => "type=registry,ref=r.io/c",
        ("cache-to", _) => "type=registry,ref=r.io/c,mode=max",
        ("allow", _) => "network.host",
        (_, "HOST:IP") => "h:1.2.3.4",
        (_, "NAME[=VALUE]") => "A=b",
        (_, "KEY=VALUE" | "NAME=VALUE" | "HOST=FILE") => "k=v",
        (_, "HOST=CERT,KEY") => "k=v,w",
        (_, "PLATFORM") => "linux/arm64",
        (_, "NAME=SOFT[:HARD]") => "nofile=1:2",
        (_, "USER:PASSWORD") => "u:p",
        (_, "MODE") => "plain",
        (_, "METHOD") => "check",
        (_, "MICROSECONDS") => "50000",
        (_, "BYTES") => "96m",
        (_, "LIST") => "0-1",
        (_, "DURATION") => "24h",
        (_, "REF") => "r.io/x:9",
        (_, "N" | "SECONDS") => "7",
        _ => "word",
    }
}

/// Returns what must stand beside a flag for it to be understood.
fn beside(flag: &Flag) -> (&'static str, &'static str) {
    match flag.name {
        "memory-swap" => ("--memory=64m", "--memory=64m"),
        "push" => ("--tag=r.io/x:9", "--tag=r.io/x:9"),
        _ => ("", ""),
    }
}

#[test]
fn every_row_does_what_it_says() {
    let mut wrong = Vec::new();
    for base in &BASES {
        let plain = tried(base, "").unwrap_or_else(|failure| panic!("{:?}", failure.diagnostics));
        assert_eq!(plain.commands, [own(base.own)], "{}", base.tool.name);
        assert!(plain.notes.is_empty(), "{:?}", plain.notes);
        for flag in base.tool.flags {
            let row = || does_what_it_says(base, &plain, flag);
            // Every row is tried before the test ends.
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(row)).is_err() {
                wrong.push(format!("{} --{}", base.tool.name, flag.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn does_what_it_says(base: &Base, plain: &Come, flag: &Flag) {
    let place = format!("{} --{}", base.tool.name, flag.name);
    let value = example(flag);
    let word = format!("--{}={value}", flag.name);
    if let Does::Unless(values, _) = flag.does {
        for value in values {
            let come = tried(base, &format!("--{}={value}", flag.name));
            let come = come.unwrap_or_else(|failure| panic!("{place}: {:?}", failure.diagnostics));
            assert_eq!(come.commands, plain.commands, "{place}={value}");
            assert!(come.notes.is_empty(), "{place}={value}");
        }
    }
    match flag.does.at_heart() {
        Does::As(name) => {
            let (theirs, ours) =
                match base.own.starts_with("build ") && base.tool.name != "executor" {
                    true => beside(flag),
                    false => ("", ""),
                };
            let come = tried(base, &format!("{word} {theirs}"));
            let come = come.unwrap_or_else(|failure| panic!("{place}: {:?}", failure.diagnostics));
            let (subcommand, rest) = split(base.own);
            let flags = match flag.is_switch() {
                true => format!("--{name}"),
                false => format!("--{name}={value}"),
            };
            let expected = own(&format!("{subcommand} {flags} {ours} {rest}"));
            assert_eq!(come.commands, [expected], "{place}");
            assert_ne!(come.commands, plain.commands, "{place}");
            assert!(come.notes.is_empty(), "{place}");
        }
        Does::Honoured(_) => {
            let cases = HONOURED.iter();
            let mut cases =
                cases.filter(|(tool, name, _, _)| *tool == base.tool.name && *name == flag.name);
            assert!(cases.next().is_some(), "{place} has no case");
        }
        Does::Noted(why) => {
            let come = tried(base, &format!("{word} {word}"));
            let come = come.unwrap_or_else(|failure| panic!("{place}: {:?}", failure.diagnostics));
            assert_eq!(come.commands, plain.commands, "{place}");
            let note = format!("`--{}` means nothing here: {why}", flag.name);
            assert_eq!(come.notes, [note], "{place}");
        }
        Does::Refused(instead) => {
            let Err(failure) = tried(base, &word) else {
                panic!("{place} is understood");
            };
            assert_eq!(failure.class, ExitCode::Usage);
            let [told] = failure.diagnostics.as_slice() else {
                panic!("{place}: {:?}", failure.diagnostics);
            };
            assert_eq!(told.message, format!("`{place}` is not supported"));
            assert_eq!(told.hints, [instead]);
        }
        Does::Unless(..) => unreachable!("the heart is none"),
    }
    // What a switch is anyway can be said, and changes nothing.
    let usual = match flag.takes {
        Takes::Switch => "false",
        Takes::SwitchOn => "true",
        _ => return,
    };
    let come = tried(base, &format!("--{}={usual}", flag.name));
    let come = come.unwrap_or_else(|failure| panic!("{place}: {:?}", failure.diagnostics));
    assert_eq!(come.commands, plain.commands, "{place}={usual}");
    assert!(come.notes.is_empty(), "{place}={usual}");
}

/// Splits off the words that are no flags of a command line, which begin it.
fn split(own: &str) -> (&str, &str) {
    match own.strip_prefix("manifest create").map(str::len) {
        Some(rest) => own.split_at(own.len() - rest),
        None => own.split_at(own.find(' ').unwrap_or(own.len())),
    }
}

#[test]
fn honoured_flags_are_what_their_cases_say() {
    for (tool, name, flags, expected) in HONOURED {
        let base = BASES
            .iter()
            .find(|base| base.tool.name == *tool)
            .expect("it has a base");
        let row = base.tool.flags.iter().find(|flag| flag.name == *name);
        let row = row.unwrap_or_else(|| panic!("{tool} has no {name}"));
        assert!(matches!(row.does, Does::Honoured(_)), "{tool} {name}");
        let come = tried(base, flags)
            .unwrap_or_else(|failure| panic!("{flags}: {:?}", failure.diagnostics));
        assert_eq!(come.commands, [own(expected)], "{tool} {flags}");
    }
}

#[test]
fn docs_are_what_the_tables_say() {
    const BEGIN: &str = "<!-- tables: written by a test, see src/cli/compat -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/moving.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (prose, tables) = text.split_once(BEGIN).expect("there is a place for tables");
    let mut fresh = String::new();
    for base in &BASES {
        fresh.push('\n');
        fresh.push_str(&page::section(base.tool));
    }
    assert_eq!(images_flags::ALL.len() + 6, BASES.len());
    if std::env::var_os("BUILDER_TEST_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{prose}{BEGIN}{fresh}")).unwrap();
        return;
    }
    assert!(
        tables == fresh,
        "docs/moving.md is not what the tables say: BUILDER_TEST_BLESS=1 cargo test --lib docs_are_what"
    );
}
