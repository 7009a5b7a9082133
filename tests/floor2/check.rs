//! What is said without building: checks, outlines, targets, plans, and how texts are understood.

use std::fs;

use serde_json::{Value, json};

use crate::support::lab::{Lab, Ran};

fn parsed(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Returns rule, first and last line of every warning.
fn warnings(ran: &Ran) -> Vec<(String, u64, u64)> {
    let object = parsed(ran);
    let warnings = object["warnings"].as_array().unwrap().iter();
    warnings
        .map(|warning| {
            let range = &warning["location"]["ranges"][0];
            (
                warning["ruleName"].as_str().unwrap().to_owned(),
                range["start"]["line"].as_u64().unwrap(),
                range["end"]["line"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_check_tells_warnings_and_builds_nothing() {
    let lab = Lab::new();
    lab.file("secret.txt", "");
    lab.file(".dockerignore", "secret*\n");
    lab.dockerfile(
        "FROM scratch AS unused\nCOPY $foo /\nFROM scratch\nCOPY a \\\n\n  /\nCMD x\nADD \\\n  secret.txt /\n",
    );
    let text = lab.build(&["--check"]);
    assert_eq!(text.code, Some(1), "{text:?}");
    for part in [
        "4 warnings",
        "JSONArgsRecommended",
        "Dockerfile:7",
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "line 1 of the ignore file",
    ] {
        assert!(text.stdout.contains(part), "{part}: {text:?}");
    }
    let found = lab.build(&["--call=check,format=json"]);
    assert_eq!(found.code, Some(1));
    let row = |rule: &str, first, last| (rule.to_owned(), first, last);
    let all = [
        row("UndefinedVar", 2, 2),
        row("NoEmptyContinuation", 6, 6),
        row("JSONArgsRecommended", 7, 7),
        row("CopyIgnoredFile", 8, 9),
    ];
    assert_eq!(warnings(&found), all);
    let object = parsed(&found);
    assert_eq!(object["sources"][0]["filename"], "Dockerfile");
    assert_eq!(
        object["warnings"][2]["url"],
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    );
    assert_eq!(object.get("buildError"), None);
    // With a target, only what it needs.
    let found = lab.build(&["--call=check,format=json", "--target=unused"]);
    assert_eq!(
        warnings(&found),
        [row("UndefinedVar", 2, 2), row("NoEmptyContinuation", 6, 6)]
    );
    lab.build(&["--call=check,ignorestatus=true"]).succeeds();
    lab.dockerfile("FROM scratch\nCMD [\"x\"]\n");
    let clean = lab.build(&["--check"]);
    assert_eq!(clean.succeeds().stdout, "check: no warnings\n");
    // Nothing was built.
    assert_eq!(lab.builder(&["images", "-q"]).stdout, "");
}

#[test]
fn a_check_tells_why_a_build_would_fail() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch AS Bad\nMAINTAINER me\nBADCMD\nRNU x\n");
    let found = lab.build(&["--call=check,format=json"]);
    found.fails(3, &["BADCMD", "RNU", "Dockerfile:3"]);
    let object = parsed(&found);
    assert_eq!(
        object["buildError"]["location"]["ranges"][0]["start"]["line"],
        3
    );
    assert_eq!(object["buildErrors"].as_array().unwrap().len(), 2);
    assert_eq!(object["warnings"].as_array().unwrap().len(), 2);
    lab.dockerfile("# check=error=true\nFROM scratch as x\n");
    lab.build(&["--check"])
        .fails(3, &["lint rules are broken: FromAsCasing"]);
    lab.dockerfile("FROM scratch\nCOPY --chmod=9 a /\n");
    lab.build(&["--check"])
        .fails(3, &["--chmod", "Dockerfile:2"]);
    lab.build(&["--call=chek"]).fails(2, &["chek"]);
}

#[test]
fn a_check_works_without_the_base_image() {
    let lab = Lab::new();
    lab.dockerfile("FROM localhost:1/none AS a\nCOPY $fromBase /\nCMD x\nFROM localhost:1/other\nCOPY --from=a / /\n");
    let found = lab.build(&["--call=check,format=json"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    assert_eq!(warnings(&found), [("JSONArgsRecommended".to_owned(), 3, 3)]);
    assert!(
        found.stderr.contains("localhost:1/none") && found.stderr.contains("not checked"),
        "{}",
        found.stderr
    );
}

#[test]
fn broken_rules_fail_a_build_after_all_were_told() {
    let lab = Lab::new();
    lab.dockerfile("# check=error=true\nFROM scratch as x\nCMD y\n");
    lab.build(&[]).fails(
        3,
        &[
            "warning[FromAsCasing]",
            "warning[JSONArgsRecommended]",
            "lint rules are broken: FromAsCasing, JSONArgsRecommended",
        ],
    );
    let skipped = "BUILDKIT_DOCKERFILE_CHECK=skip=all";
    let ran = lab.build(&["--build-arg", skipped]);
    assert!(!ran.succeeds().stderr.contains("warning"), "{ran:?}");
    lab.build(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=nonsense"])
        .fails(2, &["BUILDKIT_DOCKERFILE_CHECK", "nonsense"]);
    lab.dockerfile("FROM scratch\n# check=skip=JSONArgsRecommended\nCMD y\nENTRYPOINT z\n");
    let ran = lab.build(&[]);
    assert_eq!(ran.succeeds().stderr.matches("warning[").count(), 1);
}

#[test]
fn outlines_and_targets() {
    let lab = Lab::new();
    lab.dockerfile(
        "# VERSION of it\nARG VERSION=1\n# build compiles\nFROM scratch AS build\nARG VERSION\n\nFROM scratch\nRUN --mount=type=secret,id=token,required \\\n  --mount=type=cache,target=/c x\n",
    );
    let text = lab.build(&["--call=outline", "--target=build", "--build-arg=VERSION=2"]);
    for part in ["build", "compiles", "VERSION", "2", "of it"] {
        assert!(text.succeeds().stdout.contains(part), "{part}: {text:?}");
    }
    let object = parsed(lab.build(&["--call=outline,format=json"]).succeeds());
    let lines = |first: u64, last: u64| json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]});
    assert_eq!(
        object["secrets"],
        json!([{"name": "token", "required": true, "location": lines(8, 9)}])
    );
    assert_eq!(
        object["cache"],
        json!([{"ID": "/c", "location": lines(8, 9)}])
    );
    assert_eq!(object.get("args"), None);
    let text = lab.build(&["--call=targets"]);
    assert_eq!(
        text.succeeds().stdout,
        "TARGET      DESCRIPTION\nbuild       compiles\n(default)\n"
    );
    let object = parsed(lab.build(&["--call=targets,format=json"]).succeeds());
    assert_eq!(
        object["targets"],
        json!([
            {"name": "build", "description": "compiles", "base": "scratch", "location": lines(4, 4)},
            {"default": true, "base": "scratch", "location": lines(7, 7)},
        ])
    );
    lab.dockerfile("FROM\n");
    lab.build(&["--call=targets"]).fails(3, &["Dockerfile:1"]);
    lab.build(&["--call=outline"]).fails(3, &["Dockerfile:1"]);
}

#[test]
fn a_plan_tells_hits_misses_and_why() {
    let Some(lab) = Lab::with_base() else { return };
    let plan = |args: &[&str]| {
        let context = lab.context();
        let mut all = vec!["plan"];
        all.extend_from_slice(args);
        all.push(context.to_str().unwrap());
        lab.builder(&all)
    };
    /// Returns outlook and reasons of the steps that are no bases.
    fn steps(ran: &Ran) -> Vec<(String, String)> {
        let object = parsed(ran.succeeds());
        let steps = object["steps"].as_array().unwrap().clone();
        steps
            .iter()
            .filter(|step| step["outlook"] != "base")
            .map(|step| {
                let reasons = step["reasons"].as_array().unwrap().iter();
                let reasons: Vec<&str> = reasons.map(|reason| reason.as_str().unwrap()).collect();
                (
                    step["outlook"].as_str().unwrap().to_owned(),
                    reasons.join("; "),
                )
            })
            .collect()
    }
    let row = |outlook: &str, why: &str| (outlook.to_owned(), why.to_owned());
    lab.file("f", "1");
    lab.dockerfile("FROM base\nCOPY f /f\nRUN cat /f > /g\n");
    assert_eq!(
        steps(&plan(&["--format=json"])),
        [
            row("miss", "nothing like it was built here before"),
            row(
                "unknown",
                "after [1/2] COPY f /f".replace("[1/2]", "[2/3]").as_str()
            ),
        ]
    );
    lab.build(&[]).succeeds();
    assert_eq!(
        steps(&plan(&["--format=json"])),
        [row("hit", ""), row("hit", "")]
    );
    lab.file("f", "2");
    assert_eq!(
        steps(&plan(&["--format=json"]))[0],
        row("miss", "f changed")
    );
    lab.file("f", "1");
    lab.dockerfile("FROM base\nCOPY f /f\nENV NEW=1\nRUN cat /f > /g\n");
    assert_eq!(
        steps(&plan(&["--format=json"]))[1],
        row("miss", "ENV NEW 1 is new")
    );
    assert_eq!(
        steps(&plan(&["--format=json", "--no-cache"]))[0],
        row("miss", "the cache is not to be read")
    );
    let text = plan(&[]);
    assert_eq!(text.succeeds().stdout.lines().count(), 4, "{text:?}");
    fs::remove_file(lab.context().join("f")).unwrap();
    assert_eq!(steps(&plan(&["--format=json"]))[0].0, "fails");
    lab.dockerfile("FROM base\nCOYP\n");
    plan(&[]).fails(3, &["COYP"]);
}

#[test]
fn texts_are_shown_as_they_are_understood() {
    let lab = Lab::new();
    let file = lab.file("D", b"# escape=`\nFROM --platform=$X a\nONBUILD RUN <<-E `\n  x\n\t\xff\n\tE\nENV a=b c=\"d e\"\n");
    let ran = lab.builder(&["debug", "parse", file.to_str().unwrap()]);
    let object = parsed(ran.succeeds());
    assert_eq!(object["escape"], "`");
    assert_eq!(
        object["nodes"][1],
        json!({
            "value": "onbuild", "flags": [], "json": false, "args": [], "start": 3, "end": 6,
            "nested": [{
                "value": "run", "flags": [], "json": false, "args": ["<<-E   x"], "start": 0, "end": 0,
                "nested": [], "heredocs": [],
            }],
            "heredocs": [{"name": "E", "content": "\t\u{fffd}\n", "expand": true, "chomp": true}],
        })
    );
    assert_eq!(
        object["nodes"][2]["args"],
        json!(["a", "b", "=", "c", "\"d e\"", "="])
    );
    lab.builder_with_input(&["debug", "parse", "-"], b"ENV a\nRUN [1]\n")
        .fails(1, &["-:1", "-:2"]);
    for (args, expected) in [
        (&["expand", "--env", "A=1 2", "--", "x${A}"][..], "x1 2\n"),
        (
            &["expand", "--words", "--env=A=1 2", "$A"],
            "[\"1\",\"2\"]\n",
        ),
        (&["expand", "--escape", "`", "--", "`$A\\"], "$A\\\n"),
        (
            &["ignore", "--pattern", "*", "--pattern=!a/b", "--", "a/b"],
            "false\n",
        ),
        (&["ignore", "--pattern=a", "a/b"], "true\n"),
        (&["ignore", "x"], "false\n"),
    ] {
        let mut all = vec!["debug"];
        all.extend_from_slice(args);
        assert_eq!(lab.builder(&all).succeeds().stdout, expected, "{args:?}");
    }
    lab.builder(&["debug", "expand", "--", "${A"])
        .fails(1, &["`}`"]);
    lab.builder(&["debug", "expand", "--env", "A", "x"])
        .fails(2, &["K=V"]);
    lab.builder(&["debug", "ignore", "--pattern=[", "x"])
        .fails(1, &["`[`"]);
    lab.file("d/b", "");
    lab.file("d/a.o", "");
    lab.file(".dockerignore", "*.o\n**/*.o\nD\n");
    let context = lab.context();
    let listed = lab.builder(&["debug", "context", context.to_str().unwrap()]);
    assert_eq!(listed.succeeds().stdout, ".dockerignore\nd/b\n");
    lab.builder(&["debug", "context", "/no/such"])
        .fails(4, &["/no/such"]);
}
