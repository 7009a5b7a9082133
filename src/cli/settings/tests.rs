//! What a command line comes to with variables and files.

use std::collections::BTreeMap;
use std::fs;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use super::super::args::{Args, Build, Command};
use super::apply::Read;
use super::flag::{Kind, flags};
use super::*;

/// Reads words and variables; failures become their first message.
fn try_read(words: &[&str], variables: &[(&str, &str)]) -> Result<Read, String> {
    let all: Vec<_> = std::iter::once("builder")
        .chain(words.iter().copied())
        .map(Into::into)
        .collect();
    let around = Around {
        variables: super::variables(
            variables
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        ),
        reads_projects: true,
    };
    read(&Args::command, &all, &around).map_err(|misread| match misread {
        Misread::Words(error, lines) => format!("{error}{}", lines.join("\n")),
        Misread::Setting(failure) => {
            let diagnostic = &failure.diagnostics[0];
            format!("{} / {}", diagnostic.message, diagnostic.hints.join(" / "))
        }
    })
}

fn build(words: &[&str], variables: &[(&str, &str)]) -> Build {
    let mut read = try_read(words, variables).unwrap_or_else(|error| panic!("{error}"));
    match Args::from_arg_matches_mut(&mut read.matches)
        .unwrap()
        .command
    {
        Command::Build(build) => *build,
        _ => panic!("another subcommand"),
    }
}

/// Returns every subcommand, by its path.
fn paths(at: &clap::Command, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    found.push(path.clone());
    for inner in at.get_subcommands() {
        path.push(inner.get_name().to_owned());
        paths(inner, path, found);
        path.pop();
    }
}

/// Returns a value that a flag takes.
fn sample(name: &str) -> &'static str {
    match name {
        "network" => "none",
        "require-isolation" => "strict",
        "progress" => "plain",
        "summary" => "full",
        "ci" => "gitlab",
        "retry" | "jobs" | "cpu-quota" | "cpu-period" | "cpu-shares" | "pids-limit" => "3",
        _ => "x=y",
    }
}

/// Returns what was given to a flag.
fn raw(matches: &ArgMatches, id: &clap::Id) -> Vec<String> {
    let raw = matches.subcommand().unwrap().1.get_raw(id.as_str());
    let raw = raw.into_iter().flatten();
    raw.map(|value| value.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_variable_of_every_flag_of_build_does_what_the_flag_does() {
    let mut command = Args::command();
    command.build();
    let all = flags(&command, &["build".to_owned()]);
    assert!(all.len() > 70, "{}", all.len());
    let takes = |flag: &flag::Flag| match flag.kind {
        Kind::Switch => ("true", format!("--{}", flag.name)),
        Kind::Value | Kind::List => (
            sample(&flag.name),
            format!("--{}={}", flag.name, sample(&flag.name)),
        ),
    };
    for flag in &all {
        let (value, word) = takes(flag);
        let by_flag = try_read(&["build", &word, "/nowhere"], &[]);
        let by_variable = try_read(&["build", "/nowhere"], &[(&flag.variable, value)]);
        match (by_flag, by_variable) {
            (Ok(one), Ok(other)) => {
                let (one, other) = (raw(&one.matches, &flag.id), raw(&other.matches, &flag.id));
                assert_eq!(one, other, "{}", flag.name);
                assert!(!one.is_empty(), "{}", flag.name);
            }
            (one, other) => panic!("{}: {:?} {:?}", flag.name, one.err(), other.err()),
        }
    }
}

#[test]
fn every_flag_has_a_variable_and_no_two_the_same() {
    let command = Args::command();
    let mut found = Vec::new();
    paths(&command, &mut Vec::new(), &mut found);
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for path in found {
        for flag in flags(&command, &path) {
            let name = &flag.variable;
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
            let known = owners.entry(name.clone()).or_insert(flag.name.clone());
            assert_eq!(*known, flag.name, "{name}");
        }
    }
    for (name, flag) in [
        ("BUILDER_ROOT", "root"),
        ("BUILDER_NO_CACHE", "no-cache"),
        ("BUILDER_ISOLATION", "isolation"),
        ("BUILDER_RUN_USER", "user"),
        ("BUILDER_MANIFEST_CREATE_PUSH", "push"),
    ] {
        assert_eq!(owners.get(name).map(String::as_str), Some(flag), "{name}");
    }
    assert_eq!(
        twin::twin("manifest add", "all"),
        "BUILDER_MANIFEST_ADD_ALL"
    );
}

#[test]
fn what_is_typed_goes_before_variables_and_these_before_the_file() {
    let context = tempfile::tempdir().unwrap();
    let place = context.path().to_str().unwrap();
    let file = "target = \"file\"\nno-cache = true\npull = true\n[build-arg]\nA = 1\n";
    fs::write(context.path().join("builder.toml"), file).unwrap();
    let of_file = build(&["build", place], &[]);
    assert_eq!(of_file.target.as_deref(), Some("file"));
    assert_eq!(of_file.build_arg, ["A=1"]);
    assert!(of_file.no_cache && of_file.pull);
    let variables = [
        ("BUILDER_TARGET", "variable"),
        ("BUILDER_NO_CACHE", "false"),
        ("BUILDER_BUILD_ARG", "B=1\nC=2"),
        ("BUILDER_JOBS", ""),
    ];
    let of_both = build(&["build", place], &variables);
    assert_eq!(of_both.target.as_deref(), Some("variable"));
    assert_eq!(of_both.build_arg, ["B=1", "C=2"]);
    assert!(!of_both.no_cache && of_both.pull);
    let words = ["build", "--target=typed", "--build-arg", "D=1", place];
    let typed = build(&words, &variables);
    assert_eq!(typed.target.as_deref(), Some("typed"));
    assert_eq!(typed.build_arg, ["D=1"]);
    let without = build(&["build", "--no-config", place], &[]);
    assert_eq!(without.target, None);
    let without = build(&["build", place], &[("BUILDER_NO_CONFIG", "1")]);
    assert_eq!(without.target, None);
}

#[test]
fn of_flags_that_exclude_each_other_the_typed_one_stays() {
    let quota = build(
        &["build", "--cpu-quota=5000", "/nowhere"],
        &[("BUILDER_CPUS", "2")],
    );
    assert_eq!(
        (quota.limits.cpus, quota.limits.cpu_quota),
        (None, Some(5000))
    );
}

#[test]
fn words_go_behind_the_subcommand_wherever_it_is() {
    let check = |words: &[&str], variable: (&str, &str), id: &str, expected: &str| {
        let read = try_read(words, &[variable]).unwrap();
        let mut at = &read.matches;
        while let Some((_, inner)) = at.subcommand() {
            at = inner;
        }
        let found: Vec<_> = at.get_raw(id).unwrap().collect();
        assert_eq!(found, [expected], "{words:?}");
    };
    check(
        &["--root", "build", "b", "--load", "/nowhere"],
        ("BUILDER_TARGET", "t"),
        "target",
        "t",
    );
    check(
        &["run", "image", "--", "--user", "x"],
        ("BUILDER_RUN_USER", "me"),
        "user",
        "me",
    );
    check(
        &["pull"],
        ("BUILDER_PULL_FILE", "Dockerfile"),
        "file",
        "Dockerfile",
    );
    check(&["images"], ("BUILDER_ROOT", "-odd"), "root", "-odd");
    // That is for `build`, and `pull` would pull its bases.
    let read = try_read(&["pull", "a"], &[("BUILDER_FILE", "x")]).unwrap();
    assert!(!read.matches.subcommand().unwrap().1.contains_id("file"));
}

#[test]
fn lists_are_lines_or_what_their_separator_separates() {
    let check = |variable: (&str, &str), read: fn(Build) -> Vec<String>, expected: &[&str]| {
        assert_eq!(read(build(&["build", "/nowhere"], &[variable])), expected);
    };
    check(
        ("BUILDER_TAG", "a:1, b:2"),
        |build| build.tag,
        &["a:1", "b:2"],
    );
    check(
        ("BUILDER_OUTPUT", "type=oci,dest=x; type=tar,dest=y"),
        |build| build.output,
        &["type=oci,dest=x", "type=tar,dest=y"],
    );
    check(
        ("BUILDER_LABEL", "a=1;2,3\r\n\nb= 4\n"),
        |build| build.label,
        &["a=1;2,3", "b= 4"],
    );
    check(
        ("BUILDER_PLATFORM", "linux/amd64,linux/arm64"),
        |build| build.platform,
        &["linux/amd64", "linux/arm64"],
    );
}

#[test]
fn messages_say_where_a_flag_comes_from() {
    let told = |variable| try_read(&["build", "/nowhere"], &[variable]).err().unwrap();
    let jobs = told(("BUILDER_JOBS", "many"));
    assert!(jobs.contains("`--jobs` comes from BUILDER_JOBS"), "{jobs}");
    let pull = told(("BUILDER_PULL", "maybe"));
    assert!(
        pull.starts_with("BUILDER_PULL is neither true nor false"),
        "{pull}"
    );
    let hints = |message: &str, variables: &[_]| {
        let read = try_read(&["build", "/nowhere"], variables).unwrap();
        let failure = super::super::usage(message);
        read.origins.explained(failure).diagnostics[0].hints.clone()
    };
    let timeout = ("BUILDER_TIMEOUT", "x");
    assert_eq!(
        hints("`--timeout x` is not a duration", &[timeout]),
        ["`--timeout` comes from BUILDER_TIMEOUT"]
    );
    let variables = [
        ("BUILDER_TARGET", "tset"),
        ("BUILDER_SECRET", "id=s,src=/none"),
    ];
    assert_eq!(
        hints("there is no stage `tset`", &variables),
        ["`--target` comes from BUILDER_TARGET"]
    );
    assert_eq!(
        hints("`/none`: there is no such file", &variables),
        ["`--secret` comes from BUILDER_SECRET"]
    );
    assert!(hints("there is no stage `tse`", &variables).is_empty());
}

#[test]
fn what_clap_says_of_all_flags_names_no_origin() {
    let variables = [("BUILDER_JOBS", "many"), ("BUILDER_TAG", "a")];
    let jobs = try_read(&["build", "/nowhere"], &variables).err().unwrap();
    assert!(!jobs.contains("BUILDER_TAG"), "{jobs}");
}

/// Returns what is told of a project's file, or of one that `--config` names.
fn refused(text: &str, is_named: bool) -> String {
    let context = tempfile::tempdir().unwrap();
    let path = context.path().join("builder.toml");
    fs::write(&path, text).unwrap();
    let place = context.path().to_str().unwrap();
    let config = format!("--config={}", path.display());
    let words = match is_named {
        true => vec!["build", &config, "/nowhere"],
        false => vec!["build", place],
    };
    match try_read(&words, &[]) {
        Ok(_) => "nothing".to_owned(),
        Err(told) => told.replace(place, ""),
    }
}

#[test]
fn a_project_sets_how_its_image_is_made_and_nothing_around_it() {
    for key in [
        "secret",
        "ssh",
        "allow",
        "root",
        "lower-root",
        "authfile",
        "registry-mirror",
        "insecure-registry",
        "tag",
        "push",
        "output",
        "cache-to",
        "build-context",
        "build-arg-file",
        "ignorefile",
        "metadata-file",
        "outputs",
        "isolation",
        "emulator",
        "memory",
    ] {
        let value = match key {
            "push" => "true",
            _ => "\"x\"",
        };
        let told = refused(&format!("\n{key} = {value}\n"), false);
        let expected =
            format!("`/builder.toml`, line 2: the file of a project may not set `{key}`");
        assert!(told.starts_with(&expected), "{told}");
        assert!(told.contains(&format!("--{key}")), "{told}");
        let told = refused(&format!("{key} = {value}\n"), true);
        assert_eq!(told, "nothing", "{key}");
    }
    for (text, expected) in [
        ("build-arg = [\"TOKEN\"]", "needs a value: NAME=VALUE"),
        ("require-isolation = \"any\"", "can be strict only"),
        ("file = \"../x\"", "lies below that file"),
        ("file = \"/etc/shadow\"", "lies below that file"),
        ("creds = \"a:hunter2\"", "`creds` is not for files"),
        (
            "platfrom = \"x\"",
            "there is no setting `platfrom` / did you mean `platform`?",
        ),
        ("build_arg = \"x\"", "did you mean `build-arg`?"),
        ("config = \"x\"", "there is no setting `config`"),
        ("pull = \"yes\"", "`pull` is true or false"),
        ("target = [\"a\"]", "`target` is one text or number"),
        ("label = [[]]", "`label` is a list of texts"),
        ("a = 1\nhunter2 = = 3", "line 2: "),
    ] {
        let told = refused(text, false);
        assert!(told.contains(expected), "{text}: {told}");
        assert!(
            !told.contains("a:hunter2") && !told.contains("= = 3"),
            "{told}"
        );
    }
    let allowed = "file = \"sub/Dockerfile\"\nrequire-isolation = \"strict\"\ntimeout = \"1h\"\nplatform = [\"linux/amd64\"]\n[label]\na = \"b\"\nc = 1\n";
    assert_eq!(refused(allowed, false), "nothing");
    // Another tool's file of that name.
    assert_eq!(
        refused("description = \"x\"\n[[buildpacks]]\nuri = \"y\"\n", false),
        "nothing"
    );
}

#[test]
fn a_projects_file_is_a_file_of_settings_and_not_a_link_to_another() {
    let context = tempfile::tempdir().unwrap();
    let path = context.path().join("builder.toml");
    let place = context.path().to_str().unwrap();
    let told = || try_read(&["build", place], &[]).err().unwrap_or_default();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(told().contains("--no-config"), "{}", told());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(told().contains("cannot read"), "{}", told());
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "#".repeat(100_000)).unwrap();
    assert!(told().contains("cannot read"), "{}", told());
    std::os::unix::fs::symlink("/etc", context.path().join("out")).unwrap();
    fs::write(&path, "file = \"out/passwd\"\n").unwrap();
    assert!(told().contains("lies below that file"), "{}", told());
    let missing = try_read(&["build", "--config=/nowhere", place], &[]);
    assert!(missing.err().unwrap().contains("cannot read `/nowhere`"));
}

#[test]
fn settings_are_shown_with_their_places_and_without_credentials() {
    let context = tempfile::tempdir().unwrap();
    let place = context.path().to_str().unwrap();
    fs::write(context.path().join("builder.toml"), "target = \"a\"\n").unwrap();
    let words = [
        "build",
        "--print-config",
        "--creds=me:hunter2",
        "--build-arg=TOKEN=hunter2",
        "--registry-mirror=a=https://me:hunter2@b",
        place,
    ];
    let variables = [
        ("BUILDER_JOBS", "3"),
        ("BUILDER_PULL", "1"),
        ("BUILDER_CACHE_TO", "type=s3,secret=hunter2"),
        ("BUILDER_PLATFROM", "x"),
        ("BUILDER_REGISTRY_PASSWORD", "hunter2"),
    ];
    let shown = try_read(&words, &variables).unwrap().shown.unwrap();
    for line in [
        &format!("target = \"a\"  # {place}/builder.toml:1"),
        "jobs = \"3\"  # BUILDER_JOBS",
        "pull = true  # BUILDER_PULL",
        "cache-to = [\"(set)\"]  # BUILDER_CACHE_TO",
        "build-arg = [\"TOKEN=(set)\"]  # command line",
        "network = \"default\"  # default",
        "# creds: set, by command line",
        "# BUILDER_PLATFROM stands for no flag; did you mean BUILDER_PLATFORM?",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}:\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}
