//! Whatever the Dockerfile says, planning ends with a sound graph or with errors that have a place.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const FROMS: [&str; 10] = [
    "FROM a",
    "FROM a AS x",
    "FROM x AS y",
    "FROM scratch AS z",
    "FROM $G",
    "FROM trigger",
    "FROM y",
    "FROM ctx AS w",
    "FROM --platform=$BUILDPLATFORM a AS b",
    "FROM z",
];

const LINES: [&str; 34] = [
    "ADD a.tar /d",
    "ADD https://x/y z",
    "ARG A=$B B",
    "ARG G",
    "CMD x",
    "CMD []",
    "COPY --from=x /a /b",
    "COPY --from=0 /a /b",
    "COPY --from=image /a /b",
    "COPY --from=ctx . .",
    "COPY --from=y --chown=$A --chmod=$B a b/",
    "COPY a b c",
    "COPY <<E $A/\n$A ${B:-x}\nE",
    "ENTRYPOINT [\"e\"]",
    "ENV A=1 B=\"$A $B\"",
    "ENV A=$A$A$A",
    "EXPOSE $A 80-82",
    "EXPOSE x",
    "HEALTHCHECK NONE",
    "LABEL a=$A \"$B\"=c",
    "MAINTAINER m",
    "ONBUILD RUN o",
    "ONBUILD COPY --from=x / /",
    "ONBUILD ENV A=2",
    "RUN r $A",
    "RUN <<E\n#!/bin/x\nE",
    "RUN --network=none n",
    "RUN --mount=target=/x m",
    "SHELL [\"/s\"]",
    "STOPSIGNAL $A",
    "USER $A",
    "VOLUME $A v",
    "WORKDIR $A",
    "WORKDIR ../w",
];

fn stage() -> impl Strategy<Value = String> {
    (
        select(&FROMS[..]),
        prop::collection::vec(select(&LINES[..]), 0..8),
    )
        .prop_map(|(from, lines)| format!("{from}\n{}\n", lines.join("\n")))
}

proptest! {
    #[test]
    fn every_plan_is_sound_or_refused_with_reasons(
        stages in prop::collection::vec(stage(), 1..6),
        two_platforms: bool,
        argument in "[a-z/$]{0,3}",
    ) {
        let text = format!("ARG G=a\n{}", stages.concat());
        let mut case = case(&text)
            .directory("ctx")
            .arg("A", &argument)
            .image("trigger", |config| config.on_build = vec!["ARG A=3".into(), "COPY --from=x / /".into(), "WORKDIR t".into()]);
        if two_platforms {
            case = case.platforms(&["linux/amd64", "linux/arm64"]);
        }
        match case.plan() {
            // The graph was checked on the way.
            Ok(plan) => prop_assert_eq!(plan.graph.outputs.len(), 1 + usize::from(two_platforms)),
            Err(mistakes) => {
                prop_assert!(mistakes.iter().any(Diagnostic::is_error));
                for mistake in mistakes.iter().filter(|mistake| mistake.is_error()) {
                    prop_assert!(!mistake.labels.is_empty(), "{mistake:?}");
                }
            }
        }
    }
}
