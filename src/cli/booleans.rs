//! `--no-cache=true`, `--push=false`: flags written with their value, as forms and other builders write them.
//!
//! Help shows flags as flags. Only where a word of the command line has such a form does the command line take it, of every flag
//! of every subcommand; the last one counts.

use std::ffi::OsString;

use clap::builder::TypedValueParser as _;
use clap::{Arg, ArgAction, Command};

/// The words that other builders' flags are read by, and those of our variables.
const WORDS: [(&str, bool); 16] = [
    ("true", true),
    ("false", false),
    ("1", true),
    ("0", false),
    ("t", true),
    ("f", false),
    ("T", true),
    ("F", false),
    ("TRUE", true),
    ("FALSE", false),
    ("True", true),
    ("False", false),
    ("yes", true),
    ("no", false),
    ("on", true),
    ("off", false),
];

/// Lets the flags of `command` have values if a word needs that.
pub(super) fn allow(command: Command, words: &[OsString]) -> Command {
    let own = words.iter().take_while(|word| *word != "--");
    match own.filter_map(|word| word.to_str()).any(is_written_out) {
        true => with_values(command),
        false => command,
    }
}

/// Tells whether a flag is one that is on or off, however it may be written.
pub(super) fn is_switch(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue)
        || flag.is_require_equals_set() && flag.get_default_values() == ["false"]
}

fn is_written_out(word: &str) -> bool {
    let value = word.strip_prefix('-').and_then(|flag| flag.split_once('='));
    value.is_some_and(|(_, value)| value_of(value).is_some())
}

fn value_of(text: &str) -> Option<bool> {
    let known = WORDS.iter().find(|(word, _)| *word == text);
    known.map(|(_, value)| *value)
}

fn with_values(command: Command) -> Command {
    command
        .mut_args(|flag| match flag.get_action() {
            ArgAction::SetTrue => with_value(flag),
            _ => flag,
        })
        .mut_subcommands(with_values)
}

fn with_value(flag: Arg) -> Arg {
    let id = flag.get_id().clone();
    let values = clap::builder::PossibleValuesParser::new(WORDS.map(|(word, _)| word));
    flag.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .hide_possible_values(true)
        .overrides_with(id)
        .value_parser(values.map(|word| value_of(&word).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::cli::args::{Args, Build, Command as Subcommand};

    fn build(words: &[&str]) -> Result<Box<Build>, clap::Error> {
        let words: Vec<OsString> = ["builder", "build"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect();
        let matches = allow(Args::command(), &words).try_get_matches_from(words)?;
        match Args::from_arg_matches(&matches)?.command {
            Subcommand::Build(build) => Ok(build),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_may_have_its_value_written_out() {
        for (words, no_cache, push, pull) in [
            (&["."][..], false, false, false),
            (&["--no-cache", "."], true, false, false),
            (&["--no-cache=true", "."], true, false, false),
            (&["--no-cache=false", "--push=1", "."], false, true, false),
            (
                &["--no-cache=true", "--no-cache=0", "--pull", "."],
                false,
                false,
                true,
            ),
            (&["--push=T", "--pull=True", "."], false, true, true),
            (&["--no-cache=on", "--push=no", "."], true, false, false),
        ] {
            let build = build(words).unwrap();
            let found = (build.no_cache, build.push, build.pull);
            assert_eq!(found, (no_cache, push, pull), "{words:?}");
        }
        assert!(
            !build(&["--content-tag=false", "--check=true", "-q=false", "."])
                .unwrap()
                .quiet
        );
    }

    #[test]
    fn other_words_are_no_values_of_flags() {
        for words in [
            &["--no-cache=maybe", "."][..],
            &["--no-cache=true", "--push=maybe", "."],
            &["--no-cache=", "."],
        ] {
            assert!(build(words).is_err(), "{words:?}");
        }
        // The word behind a flag is the context.
        assert_eq!(
            build(&["--push=true", "--no-cache", "true"])
                .unwrap()
                .context,
            "true"
        );
    }

    #[test]
    fn no_flag_is_left_out() {
        fn check(command: &Command) {
            for flag in command.get_arguments() {
                assert!(
                    !matches!(flag.get_action(), ArgAction::SetTrue),
                    "{} {}",
                    command.get_name(),
                    flag.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        let words = [OsString::from("--push=true")];
        let command = allow(Args::command(), &words);
        check(&command);
        command.debug_assert();
    }
}
