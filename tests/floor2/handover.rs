//! What the next job is told of a result, in the ways of its CI system.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::lab::{Lab, Ran};

/// Returns a lab whose build needs no step to run.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.file("f", "content\n");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    lab
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn build(lab: &Lab, variables: &[(&str, &Path)], flags: &[&str]) -> Ran {
    let mut command = lab.command();
    command.args(["build", "--progress=plain"]).args(flags);
    command.arg(lab.context());
    for (name, value) in variables {
        command.env(name, value);
    }
    Ran::of(command.output().unwrap())
}

#[test]
fn a_file_of_lines_says_what_was_built() {
    let lab = lab();
    let path = lab.path("new/build.env");
    let file = path.to_str().unwrap();
    let ran = lab.build(&["-t", "r.io/a/b:1", "-t", "c", "--outputs", file]);
    ran.succeeds();
    assert!(
        ran.stderr.contains(&format!("write results: {file}")),
        "{}",
        ran.stderr
    );
    let inspected = lab.inspect("c");
    let digest = inspected[0]["digest"].as_str().unwrap();
    let id = inspected[0]["images"][0]["id"].as_str().unwrap();
    let lines = text(&path);
    let size = lines
        .lines()
        .find_map(|line| line.strip_prefix("SIZE="))
        .unwrap();
    assert!(size.parse::<u64>().unwrap() > 100, "{size}");
    let platform = lines.lines().last().unwrap();
    assert_eq!(
        lines,
        format!(
            "IMAGE=r.io/a/b:1\nNAME=r.io/a/b\nTAG=1\nDIGEST={digest}\nIMAGE_ID={id}\n\
             TAGS=r.io/a/b:1,docker.io/library/c:latest\nSIZE={size}\nCACHE_HIT=false\n{platform}\n"
        )
    );
    assert!(platform.starts_with("PLATFORMS=linux/"), "{platform}");
    // A build that finds all of it says so, and replaces the file.
    lab.build(&["--outputs", file]).succeeds();
    let lines = text(&path);
    assert!(lines.contains("CACHE_HIT=true\n"), "{lines}");
    assert!(!lines.contains("IMAGE="), "{lines}");
}

#[test]
fn lines_have_the_names_that_were_chosen() {
    let lab = lab();
    let path = lab.path("build.env");
    fs::write(&path, "BEFORE=1").unwrap();
    let file = path.to_str().unwrap();
    lab.build(&[
        "-t",
        "r.io/a:1",
        "--outputs",
        file,
        "--outputs-append",
        "--outputs-alias",
        "image=APP1_IMAGE",
        "--outputs-line",
        "REF={{.name}}@{{ .digest }}",
    ])
    .succeeds();
    let digest = lab.inspect("r.io/a:1")[0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        text(&path),
        format!("BEFORE=1\nAPP1_IMAGE=r.io/a:1\nREF=r.io/a@{digest}\n")
    );
    lab.build(&[
        "-t",
        "a",
        "--outputs",
        file,
        "--outputs-line",
        "A={{.digets}}",
    ])
    .fails(2, &["no field `digets`", "did you mean `digest`?"]);
    lab.build(&["--outputs", file, "--outputs-line", "A={{.ref}}"])
        .fails(2, &["needs a name", "-t REGISTRY/NAME:TAG"]);
    let local = format!("type=local,dest={}", lab.path("out").display());
    lab.build(&["--outputs", file, "-o", &local])
        .fails(2, &["`--outputs` needs an output that is an image"]);
}

#[test]
fn nothing_is_written_for_a_build_that_fails() {
    let lab = lab();
    lab.dockerfile("FROM scratch\nCOPY missing /\n");
    let file = lab.path("build.env");
    let results = lab.path("results");
    let (out, directory) = (file.to_str().unwrap(), results.to_str().unwrap());
    lab.build(&["-t", "a", "--outputs", out, "--results-dir", directory])
        .fails(5, &["missing"]);
    assert!(!file.exists() && !results.exists());
}

#[test]
fn a_github_step_has_outputs_and_a_summary() {
    let lab = lab();
    let (output, summary) = (lab.path("output"), lab.path("summary"));
    fs::write(&output, "mine=1\n").unwrap();
    let on = Path::new("true");
    let variables = [
        ("GITHUB_ACTIONS", on),
        ("GITHUB_OUTPUT", output.as_path()),
        ("GITHUB_STEP_SUMMARY", summary.as_path()),
    ];
    let alias = "--outputs-alias=digest=APP_DIGEST";
    let ran = build(&lab, &variables, &["-t", "r.io/a:1", alias]);
    ran.succeeds();
    let told = "write results: GITHUB_OUTPUT, GITHUB_STEP_SUMMARY";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    let digest = lab.inspect("r.io/a:1")[0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let found = text(&output);
    let found = found.strip_prefix("mine=1\n").unwrap();
    let values = heredocs(found);
    let value = |name: &str| {
        let mut values = values.iter();
        values.find(|(known, _)| known == name).unwrap().1.clone()
    };
    assert_eq!(value("digest"), digest);
    assert_eq!(value("APP_DIGEST"), digest);
    assert_eq!(value("image"), "r.io/a:1");
    assert_eq!(value("cache_hit"), "false");
    assert_eq!(value("imageid"), value("image_id"));
    let metadata: Value = serde_json::from_str(&value("metadata")).unwrap();
    assert_eq!(metadata["containerimage.digest"], digest.as_str());
    let table = text(&summary);
    assert!(table.contains("| Image | `r.io/a:1` |\n"), "{table}");
    assert!(
        table.contains(&format!("| Digest | `{digest}` |\n")),
        "{table}"
    );

    let before = text(&output);
    build(&lab, &variables, &["--ci=none"]).succeeds();
    assert_eq!(text(&output), before);
    assert_eq!(text(&summary), table);
    // What nobody asked for by a flag is no reason to fail.
    let nowhere = lab.context();
    let nowhere = [variables[0], ("GITHUB_OUTPUT", nowhere.as_path())];
    let ran = build(&lab, &nowhere, &[]);
    ran.succeeds();
    assert!(
        ran.stderr.contains("cannot write GITHUB_OUTPUT"),
        "{}",
        ran.stderr
    );
}

/// Reads `NAME<<END`, lines, `END`.
fn heredocs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (name, end) = line.split_once("<<").unwrap();
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
        found.push((name.to_owned(), value.join("\n")));
    }
    found
}

#[test]
fn tekton_has_its_results_where_it_was_asked_for_them() {
    let lab = lab();
    let results = lab.path("results");
    let flag = format!("--results-dir={}", results.display());
    lab.build(&["-t", "r.io/a:1", &flag]).succeeds();
    let inspected = lab.inspect("r.io/a:1");
    assert_eq!(text(&results.join("IMAGE_URL")), "r.io/a:1");
    assert_eq!(
        text(&results.join("IMAGE_DIGEST")),
        inspected[0]["digest"].as_str().unwrap()
    );
    assert_eq!(fs::read_dir(&results).unwrap().count(), 2);
    lab.build(&[&flag]).fails(2, &["IMAGE_URL needs a name"]);
    if !Path::new("/tekton/results").exists() {
        lab.build(&["-t", "a", "--ci=tekton"])
            .fails(2, &["no directory `/tekton/results`", "--results-dir DIR"]);
    }
}

#[test]
fn a_termination_message_tells_success_and_failure() {
    let lab = lab();
    let path = lab.path("termination");
    let flag = format!("--termination-log={}", path.display());
    let message = || -> Value { serde_json::from_str(&text(&path)).unwrap() };
    lab.build(&["-t", "a", &flag]).succeeds();
    let told = message();
    assert_eq!(told["outcome"], "success");
    assert_eq!(told["digest"], lab.inspect("a")[0]["digest"]);
    assert_eq!(told["tags"][0], "a:latest");
    lab.build(&[&flag, "--jobs=0"]).fails(2, &["--jobs"]);
    assert_eq!(message()["class"], "usage");
    lab.dockerfile("FROM scratch\nCOPY missing /\n");
    lab.build(&[&flag]).fails(5, &["missing"]);
    let told = message();
    assert_eq!(
        (&told["outcome"], &told["exit_code"], &told["class"]),
        (&"failure".into(), &5.into(), &"step".into())
    );
    assert!(
        told["error"].as_str().unwrap().contains("missing"),
        "{told}"
    );
}
