//! FROM, stage names, targets, named contexts.

use super::*;

#[test]
fn only_needed_stages_are_planned_and_only_their_bases_wanted() {
    let text = "FROM a AS one\nRUN x\nFROM b AS two\nRUN --mount=type=cache,target=/x y\nFROM c AS three\nCOPY --from=one /x /x\n";
    let plan = case(text).ready();
    assert_eq!(
        plan.rounds,
        [["a:latest linux/amd64", "c:latest linux/amd64"]]
    );
    assert_eq!(
        plan.graph.outputs[0].stages,
        [("one".to_owned(), StepId(1))]
    );
    assert_eq!(plan.graph.outputs[0].stage, "three");
    assert_eq!(
        case(text).target("one").ready().rounds,
        [["a:latest linux/amd64"]]
    );
    assert_eq!(case("FROM scratch").ready().rounds, [[""; 0]; 0]);
    assert_eq!(
        case("FROM scratch").ready().graph.outputs[0].stage,
        "default"
    );
}

#[test]
fn names_are_found_in_any_case_and_shadow_images() {
    let text = "FROM busybox AS Alpine\nENV A=1\nFROM ALPINE\nRUN x\n";
    assert_eq!(case(text).env(), "A=1");
    assert_eq!(case(text).ready().rounds, [["busybox:latest linux/amd64"]]);
    // A stage is not its own base.
    assert_eq!(
        case("FROM alpine AS alpine\n").ready().rounds,
        [["alpine:latest linux/amd64"]]
    );
}

#[test]
fn of_stages_of_one_name_the_later_is_found() {
    let text = "FROM a AS x\nENV N=1\nFROM x AS x\nENV N=${N}2\nFROM x\nRUN y\n";
    assert_eq!(case(text).env(), "N=12");
    assert_eq!(case(text).target("x").config().config.env[1], "N=12");
}

#[test]
fn base_names_use_global_arguments() {
    let text = "ARG V=1\nARG IMAGE=a:$V\nFROM ${IMAGE} AS x\nFROM ${NOTHING:-x}\n";
    assert_eq!(case(text).ready().rounds, [["a:1 linux/amd64"]]);
    assert_eq!(
        case(text).arg("V", "2").ready().rounds,
        [["a:2 linux/amd64"]]
    );
    assert_eq!(
        case(text).arg("IMAGE", "scratch").ready().rounds,
        [[""; 0]; 0]
    );
}

#[test]
fn blank_and_wrong_base_names_are_told() {
    assert_eq!(
        case("ARG X\nFROM $X\n").errors(),
        [
            "2: ($X) the base name is blank: `$X`; give it with `--build-arg X=VALUE`, or a default: `ARG X=VALUE`"
        ]
    );
    // Also in a stage that is not built.
    let errors = case("ARG IMAGE=a\nFROM $IMAG AS x\nFROM a\n").errors();
    assert_eq!(
        errors,
        ["2: ($IMAG) the base name is blank: `$IMAG`; did you mean `IMAGE`?"]
    );
    let errors = case("FROM a//b AS x\nFROM a\n").errors();
    assert!(
        errors[0].starts_with("1: (a//b) `a//b` is not an image reference"),
        "{errors:?}"
    );
}

#[test]
fn undeclared_arguments_of_from_are_told() {
    let text = "ARG TAG=1\nFROM a:${TGA:-2}\n";
    let warnings = case("ARG TAG=1\nFROM a$TGA\n").warnings();
    assert_eq!(
        warnings,
        [
            "2: (a$TGA) [UndefinedArgInFrom] FROM uses `TGA`, which no ARG before it declares; did you mean `TAG`?"
        ]
    );
    assert_eq!(case(text).ready().rounds, [["a:2 linux/amd64"]]);
}

#[test]
fn base_names_that_need_an_argument_are_told() {
    let text = "ARG IMAGE\nFROM $IMAGE\n";
    let warnings = case(text).arg("IMAGE", "a").warnings();
    assert_eq!(
        warnings,
        [
            "2: ($IMAGE) [InvalidDefaultArgInFrom] without build arguments `$IMAGE` is no image name: ``"
        ]
    );
}

#[test]
fn unknown_targets_are_told_with_the_known_ones() {
    let text = "FROM a AS build\nFROM a AS test\n";
    let told = |target| case(text).target(target).errors();
    assert_eq!(
        told("biuld"),
        ["the Dockerfile has no stage `biuld` to build; did you mean `build`?"]
    );
    assert_eq!(
        told("0"),
        ["the Dockerfile has no stage `0` to build; its stages are: build, test"]
    );
    assert_eq!(
        case("FROM a").target("x").errors(),
        [
            "the Dockerfile has no stage `x` to build; no stage has a name: add `AS NAME` to its FROM"
        ]
    );
}

#[test]
fn wrong_references_are_told() {
    for (text, wanted) in [
        (
            "FROM a AS x\nCOPY --from=x / /",
            "2: (x) stage `x` cannot copy from itself",
        ),
        (
            "FROM a\nCOPY --from=0 / /",
            "2: (0) a stage cannot copy from itself",
        ),
        (
            "FROM a\nCOPY --from=y / /\nFROM b AS y\nCOPY --from=0 / /",
            "2: (y) stage `y` comes later",
        ),
        (
            "FROM a\nCOPY --from=1 / /\nFROM b\nCOPY --from=0 / /",
            "2: (1) stage `1` comes later",
        ),
        (
            "FROM a\nCOPY --from=7 / /\nFROM b",
            "2: (7) there is no stage 7: the last one is 1",
        ),
        (
            "FROM a\nCOPY --from=-1 / /\nFROM b",
            "2: (-1) there is no stage -1",
        ),
        (
            "FROM a AS base\nFROM b\nCOPY --from=BSAE / /",
            "3: (BSAE) `BSAE` is not an image reference",
        ),
    ] {
        let errors = case(text).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(wanted), "{errors:?}");
    }
    // A later stage is no mistake where it is not built.
    assert_eq!(
        case("FROM a\nCOPY --from=y / /\nFROM b AS y\n")
            .ready()
            .rounds
            .len(),
        1
    );
}

#[test]
fn all_mistakes_are_told_in_one_run() {
    let errors =
        case("FROM a AS x\nSTOPSIGNAL nope\nEXPOSE q\nFROM x\nRUN --security=insecure y\n")
            .errors();
    let lines: Vec<&str> = errors.iter().map(|error| &error[..1]).collect();
    assert_eq!(lines, ["2", "3", "5"]);
}

#[test]
fn a_named_context_takes_the_place_of_an_image() {
    let image: ImageRef = "mirror.io/bb:1".parse().unwrap();
    for name in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "busybox::linux/amd64",
    ] {
        for from in ["busybox", "docker.io/library/busybox:latest"] {
            let text = format!("FROM {from}\nRUN x\n");
            let case = case(&text).context(name, NamedContext::Image(image.clone()));
            assert_eq!(
                case.ready().rounds,
                [["mirror.io/bb:1 linux/amd64"]],
                "{name} for {from}"
            );
        }
    }
    let other = case("FROM busybox:1\n").context("busybox", NamedContext::Image(image.clone()));
    assert_eq!(other.ready().rounds, [["busybox:1 linux/amd64"]]);
    let foreign =
        case("FROM busybox\n").context("busybox::linux/arm64", NamedContext::Image(image));
    assert_eq!(foreign.ready().rounds, [["busybox:latest linux/amd64"]]);
    let layout = NamedContext::OciLayout {
        path: "/l".into(),
        reference: Some("t".into()),
    };
    assert_eq!(
        case("FROM x\n").context("x", layout).ready().rounds,
        [["layout /l Some(\"t\") linux/amd64"]]
    );
}

#[test]
fn a_named_context_takes_the_place_of_a_stage() {
    let text =
        "FROM a AS build\nRUN --security=insecure x\nFROM scratch\nCOPY --from=build /x /x\n";
    assert_eq!(
        case(text).directory("build").steps(),
        "0 scratch\n1 context build\n2 copy 1:/ to / on 0,1\n3 copy 1:/x to /x on 0,2\n"
    );
}

#[test]
fn a_directory_as_base_is_a_layer_on_nothing() {
    let case = case("FROM files\nCOPY a b\n").directory("files");
    assert_eq!(
        case.steps(),
        "0 scratch\n1 context files\n2 copy 1:/ to / on 0,1\n3 context\n4 copy 1:a to /b on 2,3\n"
    );
    assert_eq!(
        case.history(),
        "2: FROM files # context\n4: COPY a b # buildkit\n"
    );
    assert_eq!(case.config().config.working_dir, "/");
    // These two names are never contexts.
    assert_eq!(
        super::case("FROM scratch").directory("scratch").steps(),
        "0 scratch\n"
    );
}

#[test]
fn an_image_without_layers_is_the_empty_root() {
    let text = "FROM a\nENV A=1\n";
    let case = case(text);
    let (Planned::Wanted(wanted), _) = case.plan_with(&Known::default()).unwrap() else {
        panic!("the base is not asked for");
    };
    let [Wanted::Base(base)] = wanted.as_slice() else {
        panic!("{wanted:?}");
    };
    let key = base.key.clone();
    assert_eq!(base.span.map(|span| &text[span.start..span.end]), Some("a"));
    let mut base = case.base(&key);
    base.layers.clear();
    let known = Known {
        bases: [(key, base)].into(),
        ..Known::default()
    };
    let (Planned::Ready(graph), _) = case.plan_with(&known).unwrap() else {
        panic!("the base is asked for again");
    };
    assert_eq!(graph.steps[0].op, Op::Scratch);
}

#[test]
fn steps_have_numbers_and_names() {
    let text = "FROM a AS build\nWORKDIR /\nENV A=1\nrun  make\nCOPY x y\nFROM scratch\nCOPY --from=build / /\n";
    let names = case(text).names();
    let lines: Vec<&str> = names.lines().collect();
    assert!(
        lines[0].starts_with("[build 1/4] FROM docker.io/library/a:latest@sha256:"),
        "{names}"
    );
    assert_eq!(
        lines[1..],
        [
            "[build 3/4] RUN  make",
            "[internal] load build context",
            "[build 4/4] COPY x y",
            "[internal] FROM scratch",
            "[stage-1 1/1] COPY --from=build / /"
        ]
    );
    assert!(case("FROM a\nRUN x\n").names().ends_with("[2/2] RUN x\n"));
}
