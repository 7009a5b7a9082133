//! Why a step was not in the cache: one line for each, which names the input that changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::lab::{Lab, Ran};
use serde_json::Value;

/// Returns what plain text says of misses: the instruction, and why.
fn misses(ran: &Ran) -> Vec<String> {
    let lines: Vec<&str> = ran.succeeds().stderr.lines().collect();
    let mut found = Vec::new();
    for line in &lines {
        let Some((number, why)) = line.split_once(" not cached: ") else {
            continue;
        };
        let head = lines
            .iter()
            .find(|head| head.starts_with(&format!("{number} [")))
            .unwrap();
        let (_, text) = head.split_once("] ").unwrap();
        found.push(format!("{text}: {why}"));
    }
    found.sort();
    found
}

#[track_caller]
fn check(ran: &Ran, expected: &[&str]) {
    assert_eq!(misses(ran), expected, "{}", ran.stderr);
}

const DOCKERFILE: &str = "FROM base
ARG VERSION=1.2
COPY src /src
RUN echo $VERSION > /version
";

#[test]
fn every_miss_names_the_input_that_changed() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("src/main.rs", "1");
    lab.file("src/lib/a", "a");
    lab.file("src/lib/b", "b");
    lab.dockerfile(DOCKERFILE);
    check(
        &lab.build(&[]),
        &[
            "COPY src /src: nothing like it was built here before",
            "RUN echo $VERSION > /version: nothing like it was built here before",
        ],
    );
    check(&lab.build(&[]), &[]);

    lab.file("src/main.rs", "2");
    check(
        &lab.build(&[]),
        &[
            "COPY src /src: src/main.rs changed",
            "RUN echo $VERSION > /version: after [2/3] COPY src /src",
        ],
    );
    check(
        &lab.build(&["--build-arg", "VERSION=1.3"]),
        &["RUN echo $VERSION > /version: ARG VERSION 1.2 → 1.3"],
    );
    lab.dockerfile(&DOCKERFILE.replace("> /version", "> /other"));
    check(
        &lab.build(&["--build-arg", "VERSION=1.3"]),
        &["RUN echo $VERSION > /other: the command changed"],
    );

    fs::remove_file(lab.context().join("src/lib/a")).unwrap();
    lab.file("src/lib/c", "c");
    let mode = PermissionsExt::from_mode(0o755);
    fs::set_permissions(lab.context().join("src/lib/b"), mode).unwrap();
    lab.file("src/main.rs", "3");
    let dockerfile = "FROM base\nCOPY src /src\n";
    lab.dockerfile(dockerfile);
    check(
        &lab.build(&[]),
        &["COPY src /src: src/lib/a gone, src/lib/b mode changed, src/lib/c new and 1 more"],
    );
    lab.file("src/main.rs", "4");
    lab.file("src/lib/c", "4");
    fs::remove_file(lab.context().join("src/lib/b")).unwrap();
    lab.file("src/z", "");
    check(
        &lab.build(&["--explain"]),
        &["COPY src /src: src/lib/b gone, src/lib/c changed, src/main.rs changed, src/z new"],
    );
    check(
        &lab.build(&["--no-cache"]),
        &["COPY src /src: the cache is not to be read"],
    );
}

#[test]
fn a_step_that_was_put_in_is_new_and_those_after_it_only_follow() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo a > /a\nRUN echo b > /b\n");
    lab.build(&[]).succeeds();
    lab.dockerfile("FROM base\nRUN echo new > /n\nRUN echo a > /a\nRUN echo b > /b\n");
    check(
        &lab.build(&[]),
        &[
            "RUN echo a > /a: after [2/4] RUN echo new > /n",
            "RUN echo b > /b: after [2/4] RUN echo new > /n",
            "RUN echo new > /n: nothing like it was built here before",
        ],
    );
}

#[test]
fn files_of_a_stage_and_a_step_that_failed_are_explained() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "1");
    let dockerfile = "FROM base AS build\nCOPY f /f\nRUN mkdir /out && cp /f /out/f && echo same > /out/same\n\
        FROM base\nCOPY --from=build /out /out\nRUN test -e /ok\n";
    lab.dockerfile(dockerfile);
    lab.build(&[]).fails(5, &["not cached: nothing like it"]);
    lab.build(&[])
        .fails(5, &["not cached: it failed the last time"]);
    lab.dockerfile(&dockerfile.replace("RUN test -e /ok\n", ""));
    lab.build(&[]).succeeds();
    lab.file("f", "2");
    let ran = lab.build(&[]);
    ran.succeeds();
    assert!(
        ran.stderr.contains("not cached: out/f changed"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_found_step_says_its_key_and_the_forecast_has_the_same_words() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "1");
    lab.dockerfile("FROM base\nCOPY f /f\n");
    lab.build(&[]).succeeds();
    let ran = lab.build(&["--explain"]);
    assert!(
        ran.succeeds().stderr.contains("found under key "),
        "{ran:?}"
    );
    let quiet = lab.build(&[]);
    assert!(
        !quiet.succeeds().stderr.contains("found under"),
        "{quiet:?}"
    );

    lab.file("f", "2");
    let context = lab.context();
    let plan = lab.builder(&["plan", context.to_str().unwrap()]);
    assert!(plan.succeeds().stdout.contains("f changed"), "{plan:?}");
    let ran = lab.builder(&["build", "--progress=rawjson", context.to_str().unwrap()]);
    let missed: Vec<Value> = ran
        .succeeds()
        .stderr
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["event"] == "missed")
        .collect();
    assert_eq!(missed.len(), 1);
    let reason = &missed[0]["reasons"][0];
    assert_eq!(reason["kind"], "files");
    assert_eq!(reason["text"], "f changed");
    assert_eq!(reason["files"][0]["path"], "f");
    assert_eq!(reason["files"][0]["change"], "changed");
}

#[test]
fn a_hidden_value_is_in_no_explanation() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nARG API_TOKEN\nRUN echo x > /x\n");
    lab.build(&["--build-arg", "API_TOKEN=first-hidden"])
        .succeeds();
    let ran = lab.build(&["--explain", "--build-arg", "API_TOKEN=second-hidden"]);
    check(&ran, &["RUN echo x > /x: ARG API_TOKEN changed"]);
    assert!(!ran.stderr.contains("-hidden"), "{}", ran.stderr);
}
