//! A long Dockerfile: stages of four steps each, where each stage copies from the one before it. No base image: planning asks for nothing.

use std::fmt::Write as _;

use builder::dockerfile::Dockerfile;
use builder::plan::{Graph, Known, Linting, MainContext, PlanInputs, Planned};
use builder::vocab::{Allowed, NetworkMode, Platform};

/// Writes a Dockerfile of `stages` stages.
pub(crate) fn dockerfile(stages: usize) -> String {
    let mut text = String::from("# syntax=docker/dockerfile:1\nARG RELEASE=2026.1\n");
    for at in 0..stages {
        let source = match at.checked_sub(1) {
            Some(before) => format!("--from=stage{before} /opt/part{before} /opt/part{before}"),
            None => String::from("lib /opt/lib"),
        };
        writeln!(
            text,
            "\n# stage{at} is a part\n\
             FROM scratch AS stage{at}\n\
             ARG RELEASE\n\
             ARG VERSION=${{RELEASE:-0}}.{at}\n\
             ENV PART={at} PATH=/opt/part{at}/bin:$PATH\n\
             WORKDIR /opt/part$PART\n\
             COPY --chown={at}:{at} src/part{at} package{at}.json ./\n\
             RUN --mount=type=cache,target=/var/cache/part{at} make VERSION=$VERSION \"part{at}\" && \\\n    \
                 make install && \\\n    \
                 rm -rf build\n\
             COPY {source}\n\
             LABEL part.{at}.version=\"$VERSION\" part.{at}.release=$RELEASE"
        )
        .expect("a string takes everything");
    }
    text
}

/// Parses a Dockerfile without mistakes.
pub(crate) fn parse(text: &str) -> Dockerfile {
    let (dockerfile, diagnostics) = builder::dockerfile::parse(text);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    dockerfile
}

/// Plans a Dockerfile that needs no base.
pub(crate) fn plan(dockerfile: &Dockerfile) -> Graph {
    let inputs = PlanInputs {
        target: None,
        beside: &[],
        cache_version: None,
        build_args: &[],
        labels: &[],
        platforms: &[],
        host: Platform::new("linux", "amd64", None),
        context: MainContext::Directory,
        named_contexts: &[],
        add_hosts: &[],
        network: NetworkMode::Default,
        allowed: &Allowed::default(),
        shm_size: 64 << 20,
        ulimits: &[],
        no_cache: false,
        no_cache_filter: &[],
        source_date_epoch: None,
        context_time: None,
        linting: Linting::default(),
    };
    match builder::plan::plan(dockerfile, &inputs, &Known::default()) {
        Ok((Planned::Ready(graph), _)) => graph,
        other => panic!("it is correct and needs nothing: {other:?}"),
    }
}
