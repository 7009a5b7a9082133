//! `--smoke`: commands that must succeed in each finished image before anything is delivered.

use crate::plan::{Graph, Output, Run};
use crate::sandbox;
use crate::solve::{Solution, StepError};
use crate::vocab::{BuildRequest, Cancel, Diagnostic, Event, EventSink, Platform, VertexId};
use crate::worker::{Machine, Streams, Trial};

use super::bases::TaskIds;
use super::container::{self, Overrides};
use super::{Failure, failure};

/// Runs every command in every image that can be run here. The root that each gets is thrown away.
pub(super) fn check(
    request: &BuildRequest,
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
    events: &dyn EventSink,
    tasks: &TaskIds,
    cancel: &Cancel,
) -> Result<(), Failure> {
    for output in &graph.outputs {
        for words in &request.smoke {
            let wanted = Overrides {
                entrypoint: Some(Vec::new()),
                command: words.clone(),
                ..Overrides::default()
            };
            let config = &output.config.config;
            let run = container::step(config, &output.platform, request, &wanted)
                .expect("the command line sees to it that there is a command");
            if let Some(platform) = &run.foreign
                && !can_run(request, platform)
            {
                let what = format!("the smoke test was left out for {platform}");
                let warning = Diagnostic::warning(what)
                    .cause("this machine does not run its programs")
                    .hint("`--emulator` names a program that does");
                events.emit(Event::Diagnostic(warning));
                break;
            }
            let name = match graph.outputs.len() {
                1 => format!("smoke test {}", words.join(" ")),
                _ => format!("smoke test {} {}", output.platform, words.join(" ")),
            };
            let vertex = tasks.start(name, events);
            match one(
                graph, solution, machine, output, &run, vertex, events, cancel,
            ) {
                Ok(()) => events.emit(Event::Finished { vertex }),
                Err(error) => {
                    events.emit(Event::Failed {
                        vertex,
                        message: error.message.clone(),
                    });
                    let mut failure = failure::nowhere(error, cancel);
                    if failure::ended(cancel).is_none() {
                        let place = format!("in the smoke test of {}", output.platform);
                        failure.diagnostics[0].causes.insert(0, place);
                    }
                    return Err(failure);
                }
            }
        }
    }
    Ok(())
}

fn can_run(request: &BuildRequest, platform: &Platform) -> bool {
    let mut given = request.emulators.iter();
    match given.any(|given| given.architecture == platform.architecture) {
        true => sandbox::emulators_work().is_ok(),
        false => sandbox::can_run(&platform.architecture),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "a command needs the image, the machine and somebody to tell"
)]
fn one(
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
    output: &Output,
    run: &Run,
    vertex: VertexId,
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Result<(), StepError> {
    let trial = Trial {
        step: output.root,
        inputs: vec![solution.chain(graph, output.root)],
        run,
        host_mounts: &[],
    };
    let told = As { events, vertex };
    machine
        .try_out(graph, &trial, Streams::Told, &told, cancel)?
        .verdict
}

/// Tells what a step prints under another name.
struct As<'a> {
    events: &'a dyn EventSink,
    vertex: VertexId,
}

impl EventSink for As<'_> {
    fn emit(&self, event: Event) {
        self.events.emit(match event {
            Event::Output { stream, bytes, .. } => Event::Output {
                vertex: self.vertex,
                stream,
                bytes,
            },
            event => event,
        });
    }
}
