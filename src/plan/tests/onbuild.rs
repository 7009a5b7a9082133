//! Triggers: kept, fired, and what they can reach.

use super::*;

fn with_triggers<'a>(text: &'a str, triggers: &[&str]) -> Case<'a> {
    let triggers = triggers
        .iter()
        .map(|trigger| (*trigger).to_owned())
        .collect();
    case(text).image("a", |config| config.on_build = triggers)
}

#[test]
fn triggers_of_an_image_fire_once_right_after_from() {
    let case = with_triggers(
        "FROM a AS one\nENV B=$A\nFROM one\nRUN x\n",
        &["ENV A=1", "run y"],
    );
    assert_eq!(
        case.history(),
        "base: made a\nempty: ENV A=1\n1: RUN /bin/sh -c y # buildkit\nempty: ENV B=1\n2: RUN /bin/sh -c x # buildkit\n"
    );
    assert_eq!(
        case.names(),
        "[one 1/2] FROM docker.io/library/a:latest@".to_owned()
            + &case
                .ready()
                .graph
                .steps
                .iter()
                .find_map(|step| match &step.op {
                    Op::Base(base) => Some(base.manifest.to_string()),
                    _ => None,
                })
                .unwrap()
            + "\n[one 2/2] ONBUILD RUN y\n[stage-1 1/1] RUN x\n"
    );
    let graph = case.ready().graph;
    let trigger = &graph.origins[1];
    assert!(trigger.is_trigger() && !graph.origins[0].is_trigger());
    assert_eq!(
        trigger.span, graph.origins[0].span,
        "the FROM that fires it"
    );
}

#[test]
fn triggers_of_a_stage_fire_in_every_stage_on_it() {
    let text = "FROM a AS one\nONBUILD RUN y\nFROM one AS two\nFROM two AS three\nRUN x\nFROM one\nCOPY --from=three / /\n";
    assert_eq!(
        case(text).steps(),
        "0 base a:latest linux/amd64\n1 run [\"/bin/sh\", \"-c\", \"y\"] in / on 0\n\
         2 run [\"/bin/sh\", \"-c\", \"x\"] in / on 1\n3 copy 1:/ to / on 1,2\n"
    );
    assert_eq!(case(text).target("one").config().config.on_build, ["RUN y"]);
    assert!(case(text).config().config.on_build.is_empty());
}

#[test]
fn triggers_may_need_more_stages_and_images() {
    let text = "FROM z AS tools\nRUN t\nFROM a\n";
    let case = with_triggers(text, &["COPY --from=tools /t /", "COPY --from=more / /"]);
    let plan = case.ready();
    assert_eq!(
        plan.rounds,
        [
            vec!["a:latest linux/amd64"],
            vec!["z:latest linux/amd64", "more:latest linux/amd64"]
        ]
    );
    assert_eq!(plan.graph.steps.len(), 6);
}

#[test]
fn a_cmd_of_a_trigger_is_the_stages_own() {
    let case = with_triggers("FROM a\nENTRYPOINT [\"e\"]\n", &["CMD [\"c\"]"]);
    assert_eq!(case.config().config.cmd, Some(vec!["c".to_owned()]));
}

#[test]
fn arguments_of_triggers_are_declared() {
    let case = with_triggers("FROM a\nRUN x\n", &["ARG T"]).arg("T", "1");
    assert_eq!(case.warnings(), [""; 0]);
    assert_eq!(case.env(), "T=1");
}

#[test]
fn mistakes_in_triggers_point_at_from() {
    for (trigger, wanted) in [
        ("NONSENSE x", "trigger"),
        ("ONBUILD RUN x", "trigger"),
        ("FROM b", "trigger"),
        ("MAINTAINER me", "trigger"),
        (
            "RUN --mount=type=cache,target=/c,source=/x x",
            "`source` of a cache mount needs `from`",
        ),
        ("COPY --from=5 / /", "there is no stage 5"),
        ("WORKDIR ${x", ""),
    ] {
        let errors = with_triggers("FROM a\nENV X=1\n", &[trigger]).errors();
        assert_eq!(errors.len(), 1, "{trigger}: {errors:?}");
        assert!(
            errors[0].starts_with("1: (FROM a)"),
            "{trigger}: {errors:?}"
        );
        assert!(errors[0].contains(wanted), "{trigger}: {errors:?}");
    }
}
