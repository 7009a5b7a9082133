//! Several platforms, FROM --platform, and lints about them.

use super::*;

#[test]
fn each_platform_is_an_output_and_what_is_alike_is_made_once() {
    let text = "FROM --platform=$BUILDPLATFORM b AS build\nRUN make\nFROM a\nCOPY --from=build /x /x\nCOPY f /f\n";
    let case = case(text).platforms(&["linux/amd64", "linux/arm64"]);
    let plan = case.ready();
    assert_eq!(
        plan.rounds,
        [[
            "b:latest linux/amd64",
            "a:latest linux/amd64",
            "a:latest linux/arm64"
        ]]
    );
    assert_eq!(
        case.steps(),
        "0 base b:latest linux/amd64\n1 run [\"/bin/sh\", \"-c\", \"make\"] in / on 0\n2 base a:latest linux/amd64\n\
         3 copy 1:/x to /x on 2,1\n4 context\n5 copy 1:f to /f on 3,4\n6 base a:latest linux/arm64\n7 copy 1:/x to /x on 6,1\n\
         8 copy 1:f to /f on 7,4\n"
    );
    let outputs: Vec<String> = plan
        .graph
        .outputs
        .iter()
        .map(|output| output.platform.to_string())
        .collect();
    assert_eq!(outputs, ["linux/amd64", "linux/arm64"]);
    assert_eq!(plan.graph.outputs[1].config.architecture, "arm64");
    assert_eq!(plan.graph.outputs[1].root, StepId(8));
    assert!(
        case.names()
            .contains("[linux/arm64 stage-1 2/3] COPY --from=build /x /x\n"),
        "{}",
        case.names()
    );
}

#[test]
fn run_on_a_foreign_platform_is_marked_and_on_a_foreign_system_refused() {
    let foreign = |platform: &str| {
        let case = case("FROM a\nRUN x\n").platforms(&[platform]);
        case.plan().map(|_| case.runs().remove(0).foreign)
    };
    let arm64 = Platform::new("linux", "arm64", None);
    assert_eq!(foreign("linux/arm64").unwrap(), Some(arm64));
    assert_eq!(foreign("linux/amd64").unwrap(), None);
    let errors = case("FROM a\nRUN x\n")
        .platforms(&["windows/amd64"])
        .errors();
    assert!(
        errors[0].starts_with("2: (RUN x) RUN cannot run programs of windows/amd64"),
        "{errors:?}"
    );
    let copied = case("FROM a\nWORKDIR /w\nCOPY a b\n").platforms(&["windows/amd64"]);
    assert_eq!(copied.config().os, "windows");
}

#[test]
fn an_image_says_the_platform_that_was_asked_for_or_its_bases() {
    let text = "FROM --platform=linux/arm64 a AS arm64\n";
    assert_eq!(case(text).config().architecture, "arm64");
    assert_eq!(
        case(text).platforms(&["linux/amd64"]).config().architecture,
        "amd64"
    );
    let v7 = case("FROM scratch").platforms(&["linux/arm"]).config();
    assert_eq!(
        (v7.architecture.as_str(), v7.variant.as_deref()),
        ("arm", Some("v7"))
    );
    // Scratch is for the target, whatever is said.
    assert_eq!(
        case("FROM --platform=linux/arm64 scratch AS arm64")
            .config()
            .architecture,
        "amd64"
    );
}

#[test]
fn a_single_image_of_another_platform_is_taken_and_told() {
    let mut case = case("FROM a\nCOPY x y\n");
    case.fixed
        .insert("a".into(), "linux/arm64".parse().unwrap());
    assert_eq!(
        case.warnings(),
        [
            "1: (a) [InvalidBaseImagePlatform] base image `a` is for linux/arm64, and linux/amd64 is wanted"
        ]
    );
    assert_eq!(case.config().architecture, "arm64");
}

#[test]
fn lints_of_from_platform() {
    let check = |text: &str, code: Option<&str>| {
        let warnings = case(text).ready().warnings;
        let codes: Vec<_> = warnings.iter().filter_map(|warning| warning.code).collect();
        assert_eq!(codes, Vec::from_iter(code), "{text}");
    };
    check(
        "FROM --platform=$TARGETPLATFORM a",
        Some("RedundantTargetPlatform"),
    );
    check(
        "FROM --platform=${TARGETPLATFORM} a",
        Some("RedundantTargetPlatform"),
    );
    check("FROM --platform=$BUILDPLATFORM a", None);
    check(
        "FROM --platform=linux/amd64 a",
        Some("FromPlatformFlagConstDisallowed"),
    );
    check("FROM --platform=linux/amd64 a AS build-amd64", None);
    check("ARG P=linux/amd64\nFROM --platform=$P a", None);
}

#[test]
fn wrong_platforms_are_told() {
    assert_eq!(
        case("FROM --platform=$NOPE a").errors(),
        ["1: ($NOPE) the platform is blank: `$NOPE`; declare `ARG NOPE` before the first FROM"]
    );
    let errors = case("FROM --platform=a/b/c/d a").errors();
    assert!(
        errors[0].contains("`a/b/c/d` is not a platform"),
        "{errors:?}"
    );
}

#[test]
fn copied_images_are_of_the_target_platform() {
    let text = "FROM --platform=$BUILDPLATFORM a\nCOPY --from=b / /\n";
    let plan = case(text).platforms(&["linux/arm64"]).ready();
    assert_eq!(
        plan.rounds,
        [["a:latest linux/amd64", "b:latest linux/arm64"]]
    );
}
