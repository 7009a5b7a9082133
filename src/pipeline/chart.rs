//! What a plan looks like to whoever draws it: stages, steps, and what needs what.

use std::collections::BTreeSet;

use crate::plan::{BaseLocation, Graph, Mount, Op, Origin, StepId};
use crate::vocab::{Chart, ChartStage, ChartStep, Need, VertexId};

/// Returns the chart of a plan. Steps without a root, which are contexts and what was fetched, belong to no stage.
pub(super) fn chart(graph: &Graph) -> Chart {
    let finals = final_steps(graph);
    let mut chart = Chart::default();
    let mut stage_of: Vec<Option<usize>> = Vec::new();
    for (at, step) in graph.steps.iter().enumerate() {
        let origin = &graph.origins[at];
        let stage = match &step.op {
            Op::Local(_) | Op::Git(_) | Op::Http(_) | Op::Scratch => None,
            Op::Base(base) => {
                let name = match &base.key.location {
                    BaseLocation::Image(image) => image.familiar(),
                    BaseLocation::OciLayout { path, .. } => path.display().to_string(),
                };
                Some(ChartStage {
                    name,
                    is_base: true,
                    is_final: false,
                })
            }
            Op::Run(_) | Op::Copy(_) | Op::Workdir(_) => Some(ChartStage {
                name: shown(origin),
                is_base: false,
                is_final: false,
            }),
        };
        let place = stage.map(|stage| {
            // A step goes on with the stage of its root.
            let below = step.inputs.first().and_then(|root| stage_of[root.0]);
            let goes_on = below.filter(|&below| {
                !stage.is_base
                    && !chart.stages[below].is_base
                    && chart.stages[below].name == stage.name
            });
            goes_on.unwrap_or_else(|| {
                chart.stages.push(stage);
                chart.stages.len() - 1
            })
        });
        if let Some(place) = place
            && finals.contains(&StepId(at))
        {
            chart.stages[place].is_final = true;
        }
        stage_of.push(place);
        chart.steps.push(ChartStep {
            vertex: VertexId(at as u32),
            name: origin.name.clone(),
            stage: place,
            needs: needs(&step.op, &step.inputs),
        });
    }
    chart
}

/// Returns a stage's name as it stands in front of its steps: with the platform, if there are several, and with a word for one that
/// has a number only.
fn shown(origin: &Origin) -> String {
    let place = origin.name.strip_prefix('[');
    let place = place.and_then(|rest| rest.split_once(']'));
    match place.and_then(|(place, _)| place.rsplit_once(' ')) {
        Some((stage, _)) if !stage.trim().is_empty() => stage.trim().to_owned(),
        _ if origin.stage.parse::<u32>().is_ok() => format!("stage-{}", origin.stage),
        _ => origin.stage.clone(),
    }
}

/// Returns the steps whose layers are in an image of the result.
fn final_steps(graph: &Graph) -> BTreeSet<StepId> {
    let mut finals = BTreeSet::new();
    for output in &graph.outputs {
        let mut next = Some(output.root);
        while let Some(step) = next {
            finals.insert(step);
            next = match &graph.steps[step.0].op {
                Op::Run(_) | Op::Copy(_) | Op::Workdir(_) => {
                    graph.steps[step.0].inputs.first().copied()
                }
                _ => None,
            };
        }
    }
    finals
}

fn needs(op: &Op, inputs: &[StepId]) -> Vec<(VertexId, Need)> {
    let mounted: BTreeSet<usize> = match op {
        Op::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Bind { from, .. } => Some(from.input),
                Mount::Cache(cache) => cache.seed.as_ref().map(|seed| seed.input),
                Mount::Tmpfs { .. } | Mount::Secret(_) | Mount::Ssh(_) => None,
            })
            .collect(),
        _ => BTreeSet::new(),
    };
    let need = |at: usize| match at {
        _ if mounted.contains(&at) => Need::Mount,
        0 => Need::Root,
        _ => Need::Copy,
    };
    let mut needs: Vec<(VertexId, Need)> = inputs
        .iter()
        .enumerate()
        .map(|(at, input)| (VertexId(input.0 as u32), need(at)))
        .collect();
    needs.dedup();
    needs
}
