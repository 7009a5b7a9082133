//! `builder plan`.

use serde_json::{Value, json};

use crate::pipeline::{self, Failure, ForecastStep, Outlook};
use crate::ui;
use crate::vocab::ProgressMode;

use super::args::{Format, Global, Plan};
use super::build::told;
use super::print;
use super::request::{Machine, request};
use super::settings::Origins;

pub(super) fn run(global: &Global, args: Plan, origins: &Origins) -> Result<(), Failure> {
    let explain = args.build.show.explain;
    let (request, showing) = request(global, args.build, Machine::this())?;
    let display = ui::display(showing.or(ProgressMode::Plain));
    let steps = pipeline::forecast(&request, display.as_ref())
        .map_err(|failure| told(origins.explained(failure), display.as_ref()))?;
    print(&match args.format {
        Format::Json => format!("{}\n", object(&steps)),
        Format::Text => table(&steps, if explain { usize::MAX } else { FILES }),
    });
    Ok(())
}

/// Files that a line names.
const FILES: usize = 3;

fn word(outlook: Outlook) -> &'static str {
    match outlook {
        Outlook::Base => "base",
        Outlook::Cached => "hit",
        Outlook::Run => "miss",
        Outlook::Unknown => "unknown",
        Outlook::Fail => "fails",
    }
}

fn object(steps: &[ForecastStep]) -> Value {
    let steps: Vec<Value> = steps
        .iter()
        .map(|step| {
            json!({
                "name": step.name,
                "stage": step.stage,
                "outlook": word(step.outlook),
                "reasons": why(step, usize::MAX),
            })
        })
        .collect();
    json!({ "steps": steps })
}

/// Returns the reasons in words, with at most so many files each.
fn why(step: &ForecastStep, most: usize) -> Vec<String> {
    let reasons = step.reasons.iter().map(|reason| reason.text(most));
    reasons.chain(step.failing.iter().cloned()).collect()
}

fn table(steps: &[ForecastStep], most: usize) -> String {
    let mut rows = vec![
        ["STAGE", "CACHE", "STEP", "WHY"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for step in steps {
        // One line a step, whatever is in its text.
        let one_line = |text: &str| text.replace(|c: char| c.is_control(), " ");
        rows.push(vec![
            step.stage.clone(),
            word(step.outlook).to_owned(),
            one_line(&step.name),
            one_line(&why(step, most).join("; ")),
        ]);
    }
    ui::table(&rows)
}
