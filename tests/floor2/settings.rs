//! Flags that were not typed: variables and `builder.toml`, as whole builds.

use std::fs;

use crate::support::lab::{Lab, Ran};

/// Returns a lab with a Dockerfile of two stages, for which no step needs to run.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.file("f", "content\n");
    lab.dockerfile(
        "FROM scratch AS one\nARG A=none\nLABEL stage=one a=$A\nCOPY f /\nFROM scratch AS two\nLABEL stage=two\nCOPY f /\n",
    );
    lab
}

fn with(lab: &Lab, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = lab.command();
    command.args(args).arg(lab.context());
    command.envs(variables.iter().copied());
    Ran::of(command.output().unwrap())
}

fn label(lab: &Lab, image: &str, name: &str) -> String {
    let inspected = lab.inspect(image);
    let labels = &inspected[0]["images"][0]["config"]["config"]["Labels"];
    labels[name].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_build_takes_its_flags_from_variables_and_the_projects_file() {
    let lab = lab();
    lab.file(
        "builder.toml",
        "target = \"one\"\n[build-arg]\nA = \"file\"\n[label]\nmore = \"yes\"\n",
    );
    with(&lab, &[], &["build", "-t", "a"]).succeeds();
    assert_eq!(label(&lab, "a", "stage"), "one");
    assert_eq!(label(&lab, "a", "a"), "file");
    assert_eq!(label(&lab, "a", "more"), "yes");
    let variables = [("BUILDER_TAG", "b,c"), ("BUILDER_BUILD_ARG", "A=variable")];
    with(&lab, &variables, &["build"]).succeeds();
    assert_eq!(label(&lab, "b", "a"), "variable");
    assert_eq!(label(&lab, "c", "stage"), "one");
    with(&lab, &variables, &["build", "-t", "d", "--target=two"]).succeeds();
    assert_eq!(label(&lab, "d", "stage"), "two");
    with(&lab, &[], &["build", "-t", "e", "--no-config"]).succeeds();
    assert_eq!(label(&lab, "e", "stage"), "two");
}

#[test]
fn a_file_of_a_project_that_reaches_too_far_ends_the_build() {
    let lab = lab();
    lab.file(
        "builder.toml",
        "pull = false\nsecret = \"id=a,src=/etc/shadow\"\n",
    );
    with(&lab, &[], &["build"]).fails(
        2,
        &[
            "builder.toml`, line 2",
            "may not set `secret`",
            "BUILDER_SECRET",
        ],
    );
    lab.file("builder.toml", "tagret = \"one\"\n");
    with(&lab, &[], &["build"]).fails(2, &["line 1", "did you mean `target`?"]);
    with(&lab, &[], &["build", "--no-config"]).succeeds();
    // Other tools' words mean what they mean there.
    with(&lab, &[], &["docker", "build"]).succeeds();
    let config = lab.path("mine.toml");
    fs::write(&config, "tag = \"mine\"\ntarget = \"one\"\n").unwrap();
    with(&lab, &[], &["build", "--config", config.to_str().unwrap()]).succeeds();
    assert_eq!(label(&lab, "mine", "stage"), "one");
}

#[test]
fn settings_are_printed_and_nothing_is_built() {
    let lab = lab();
    lab.file("builder.toml", "target = \"one\"\n");
    let variables = [("BUILDER_TAG", "a"), ("BUILDER_CREDS", "me:hunter2")];
    let ran = with(&lab, &variables, &["build", "--print-config"]);
    ran.succeeds();
    assert!(
        ran.stdout.contains("target = \"one\"  # "),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("tag = [\"a\"]  # BUILDER_TAG\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("# creds: set, by BUILDER_CREDS\n"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("hunter2"), "{}", ran.stdout);
    lab.builder(&["inspect", "a"]).fails(4, &["no image `a`"]);
}

#[test]
fn a_wrong_variable_is_named() {
    let lab = lab();
    with(&lab, &[("BUILDER_TIMEOUT", "soon")], &["build"]).fails(
        2,
        &["`--timeout soon`", "`--timeout` comes from BUILDER_TIMEOUT"],
    );
    with(&lab, &[("BUILDER_JOBS", "many")], &["build"])
        .fails(2, &["--jobs", "`--jobs` comes from BUILDER_JOBS"]);
    with(&lab, &[("BUILDER_NO_CACHE", "perhaps")], &["build"])
        .fails(2, &["BUILDER_NO_CACHE is neither true nor false"]);
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch\n");
    let mut command = lab.command();
    command
        .args(["build", "--print-config", "--build-arg=A=hunter2"])
        .args(["--build-context=a=https://hunter2@example.com/x.git"])
        .args(["--build-context=b=https://example.com/x.tar?sig=hunter2"])
        .arg(lab.context())
        .env("BUILDER_ARGS", "TOKEN=hunter2")
        .env(
            "BUILDER_CACHE",
            "type=s3,bucket=b,secret_access_key=hunter2",
        );
    let ran = Ran::of(command.output().unwrap());
    let shown = &ran.succeeds().stdout;
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("args-string = \"(set)\"  # BUILDER_ARGS\n"),
        "{shown}"
    );
    assert!(!shown.contains("stands for no flag"), "{shown}");
    assert!(shown.contains("https://***@example.com/x.git"), "{shown}");
}

#[test]
fn what_a_stranger_writes_is_no_line_of_its_own() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch\n");
    for text in [
        "file = \"D\\n::set-output name=digest::x\"\n",
        "target = \"a\\u001b[31m\"\n",
        "build-arg = [\"a\\n::stop-commands::x=1\"]\n",
    ] {
        lab.file("builder.toml", text);
        let ran = lab.build(&[]);
        ran.fails(2, &["builder.toml`, line 1", "control character"]);
        assert!(!ran.stderr.contains("\n::"), "{}", ran.stderr);
    }
    lab.file("builder.toml", "[label]\nnotes = \"two\\nlines\"\n");
    lab.build(&[]).succeeds();
}
