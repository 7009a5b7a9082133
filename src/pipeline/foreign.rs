//! Programs of other architectures: whether the steps that need them can run, asked before any step does.

use std::collections::BTreeMap;

use super::{Failure, failure};
use crate::plan::{Graph, Op, StepId};
use crate::sandbox;
use crate::solve::{StepError, StepResult};
use crate::vocab::{BuildRequest, Cancel, ExitCode, Platform};

/// Fails if a RUN that is not known yet needs what this machine has not. The namespace must have been entered.
pub(super) fn check(
    request: &BuildRequest,
    graph: &Graph,
    known: &[Option<StepResult>],
    cancel: &Cancel,
) -> Result<(), Failure> {
    // The first step that needs each.
    let mut needed: BTreeMap<&str, (StepId, &Platform)> = BTreeMap::new();
    for (at, step) in graph.steps.iter().enumerate() {
        if let Op::Run(run) = &step.op
            && let Some(platform) = &run.foreign
            && known[at].is_none()
        {
            let entry = needed.entry(platform.architecture.as_str());
            entry.or_insert((StepId(at), platform));
        }
    }
    for (architecture, (step, platform)) in needed {
        let mut given = request.emulators.iter();
        if given.any(|given| given.architecture == architecture) {
            sandbox::emulators_work().map_err(|error| {
                let mut why = StepError::new(
                    ExitCode::Sandbox,
                    format!("programs of {platform} cannot be run with an emulator here"),
                )
                .caused_by(&error);
                why.hints.extend(error.hint());
                failure::step(graph, step, why, cancel)
            })?;
        } else if !sandbox::can_run(architecture) {
            return Err(failure::step(graph, step, missing(platform), cancel));
        }
    }
    Ok(())
}

fn missing(platform: &Platform) -> StepError {
    let architecture = &platform.architecture;
    let error = format!(
        "RUN needs to run programs of {platform}, and this machine ({}) has no emulator for them",
        Platform::host()
    );
    StepError::new(ExitCode::Sandbox, error)
        .hint(format!(
            "with a static qemu-user: `--emulator {architecture}=/usr/bin/qemu-{}-static` (package `qemu-user-static`)",
            machine(architecture)
        ))
        .hint("or for the whole machine: install `qemu-user-static` with `binfmt-support`, or `docker run --privileged tonistiigi/binfmt --install all`")
        .hint(format!(
            "or build on a {platform} machine, or cross-compile in a stage `FROM --platform=$BUILDPLATFORM` and copy the result with COPY --from"
        ))
}

/// Returns what qemu calls an architecture.
fn machine(architecture: &str) -> &str {
    match architecture {
        "386" => "i386",
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "loong64" => "loongarch64",
        "mips64le" => "mips64el",
        other => other,
    }
}
