//! What a build would do: its steps, which of them are in the cache, and why the others are not.
//!
//! Plans as a build does (configs of bases are fetched), then looks at records and at the files of the context. Nothing is
//! executed, no namespace is entered, no layer is fetched.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Graph, Op};
use crate::solve::{self, Forecast};
use crate::store::Record;
use crate::vocab::{BuildRequest, EventSink, KeyComponent};
use crate::worker::Machine;

use super::planned::planned;
use super::{Failure, failure};

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct ForecastStep {
    /// As the build shows it: `[build 2/5] RUN make`.
    pub name: String,
    /// The stage's name, or its number.
    pub stage: String,
    pub outlook: Outlook,
    /// Why it is executed, the weightiest reason first.
    pub reasons: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// A base image.
    Base,
    /// In the cache.
    Cached,
    /// Will be executed.
    Run,
    /// Comes after one that will be executed, so that its key is not known: in the cache, perhaps, if that one makes the same
    /// files as before.
    Unknown,
    /// Will fail.
    Fail,
}

/// Says what `build` would do with a request.
pub fn forecast(
    request: &BuildRequest,
    events: &dyn EventSink,
) -> Result<Vec<ForecastStep>, Failure> {
    planned(request, events, |graph, machine, _| {
        outlooks(graph, machine)
    })
}

fn outlooks(graph: &Graph, machine: &Machine<'_>) -> Result<Vec<ForecastStep>, Failure> {
    let forecasts = solve::forecast(graph, machine);
    let is_missing = |forecast: &Forecast| matches!(forecast, Forecast::Missing(_));
    let records = match forecasts.iter().any(is_missing) {
        true => machine
            .store()
            .records()
            .map_err(|error| failure::store(&error))?,
        false => Vec::new(),
    };

    let mut steps = Vec::new();
    for ((step, origin), forecast) in graph.steps.iter().zip(&graph.origins).zip(forecasts) {
        let (outlook, reasons) = match forecast {
            Forecast::Given if matches!(step.op, Op::Base(_)) => (Outlook::Base, Vec::new()),
            Forecast::Given => continue,
            Forecast::Cached => (Outlook::Cached, Vec::new()),
            Forecast::Missing(components) => {
                (Outlook::Run, explain(&origin.name, &components, &records))
            }
            Forecast::Forced => (Outlook::Run, vec!["the cache is not to be read".to_owned()]),
            Forecast::After(first) => {
                let first = &graph.origins[first.0].name;
                (Outlook::Unknown, vec![format!("comes after {first}")])
            }
            Forecast::Failing(error) => {
                let reasons = std::iter::once(error.message).chain(error.causes);
                (Outlook::Fail, reasons.collect())
            }
        };
        steps.push(ForecastStep {
            name: origin.name.clone(),
            stage: origin.stage.clone(),
            outlook,
            reasons,
        });
    }
    Ok(steps)
}

/// Compares a key that leads nowhere with the record that is most like it.
fn explain(name: &str, components: &[KeyComponent], records: &[Record]) -> Vec<String> {
    let (place, text) = place_and_text(name);
    let new = by_name(components);
    let alike = records
        .iter()
        .filter_map(|record| {
            let (its_place, its_text) = place_and_text(&record.description);
            let old = by_name(&record.components);
            // The same kind of step has the same first ingredients.
            let is_kind = ["argv", "destination", "path"]
                .iter()
                .any(|kind| new.contains_key(kind) && old.contains_key(kind));
            if !is_kind || (its_text != text && its_place != place) {
                return None;
            }
            let equal = new
                .iter()
                .filter(|(name, values)| old.get(*name) == Some(values))
                .count();
            Some(((its_text == text, equal), old))
        })
        .max_by_key(|(likeness, _)| *likeness);
    let Some((_, old)) = alike else {
        return vec!["it has not been built before".to_owned()];
    };
    let names: BTreeSet<&str> = new.keys().chain(old.keys()).copied().collect();
    let none = Vec::new();
    let mut reasons: Vec<(usize, String)> = names
        .into_iter()
        .filter_map(|name| {
            let (new, old) = (
                new.get(name).unwrap_or(&none),
                old.get(name).unwrap_or(&none),
            );
            (new != old).then(|| reason(name, new, old))
        })
        .collect();
    reasons.sort();
    match reasons.is_empty() {
        true => vec!["its result is no longer there".to_owned()],
        false => reasons.into_iter().map(|(_, reason)| reason).collect(),
    }
}

/// Returns what a change of an ingredient means, and its rank.
fn reason(name: &str, new: &[&str], old: &[&str]) -> (usize, String) {
    match name {
        "argv" => (0, "the command changed".to_owned()),
        "files" => (1, "the files changed".to_owned()),
        "script" | "inline-content" => (1, "the heredoc changed".to_owned()),
        "env" => {
            let changed: BTreeSet<&str> = new
                .iter()
                .filter(|pair| !old.contains(pair))
                .chain(old.iter().filter(|pair| !new.contains(pair)))
                .map(|pair| pair.split('=').next().unwrap_or(pair))
                .collect();
            let names: Vec<&str> = changed.into_iter().collect();
            match names.is_empty() {
                true => (2, "the order of the environment changed".to_owned()),
                false => (2, format!("the environment changed: {}", names.join(", "))),
            }
        }
        "root" => (
            4,
            "it starts from other files: an earlier step or the base changed".to_owned(),
        ),
        "from" => (4, "the stage that it copies from changed".to_owned()),
        other => (3, format!("`{other}` changed")),
    }
}

/// Splits `[build 2/5] RUN make` after the bracket.
fn place_and_text(name: &str) -> (&str, &str) {
    match name
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        Some((place, text)) => (place, text),
        None => ("", name),
    }
}

fn by_name(components: &[KeyComponent]) -> BTreeMap<&str, Vec<&str>> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for component in components {
        let values = by_name.entry(component.name.as_str()).or_default();
        values.push(&component.value);
    }
    by_name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Digest, ResultId, Timestamp};

    fn components(list: &[(&str, &str)]) -> Vec<KeyComponent> {
        list.iter()
            .map(|(name, value)| KeyComponent {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect()
    }

    fn record(description: &str, list: &[(&str, &str)]) -> Record {
        Record {
            result: ResultId(Digest::of(b"")),
            layer: None,
            created: Timestamp::default(),
            size: 0,
            duration_ms: 0,
            description: description.to_owned(),
            components: components(list),
            alias_of: None,
        }
    }

    #[test]
    fn a_miss_is_explained_by_the_record_most_like_it() {
        let records = [
            record(
                "[a 1/2] RUN make",
                &[
                    ("root", "r"),
                    ("argv", "make"),
                    ("env", "A=1"),
                    ("env", "B=1"),
                ],
            ),
            record(
                "[a 2/2] COPY x /",
                &[("root", "s"), ("files", "f"), ("destination", "/")],
            ),
            record(
                "[a 1/2] RUN cmake",
                &[("root", "q"), ("argv", "cmake"), ("user", "u")],
            ),
        ];
        let check = |name: &str, list: &[(&str, &str)], expected: &[&str]| {
            assert_eq!(
                explain(name, &components(list), &records),
                expected,
                "{name}"
            );
        };
        check(
            "[a 1/3] RUN make",
            &[
                ("root", "r"),
                ("argv", "make"),
                ("env", "A=2"),
                ("env", "C=1"),
            ],
            &["the environment changed: A, B, C"],
        );
        check(
            "[a 2/2] COPY x /",
            &[("root", "t"), ("files", "g"), ("destination", "/")],
            &[
                "the files changed",
                "it starts from other files: an earlier step or the base changed",
            ],
        );
        // Another text at the same place.
        check(
            "[a 1/2] RUN cmake -x",
            &[("root", "q"), ("argv", "cmake -x"), ("user", "v")],
            &["the command changed", "`user` changed"],
        );
        check(
            "[b 1/1] RUN other",
            &[("root", "r"), ("argv", "other")],
            &["it has not been built before"],
        );
        check(
            "[a 2/2] RUN x",
            &[("root", "s"), ("argv", "x")],
            &["it has not been built before"],
        );
        check(
            "[a 2/2] COPY x /",
            &[("root", "s"), ("files", "f"), ("destination", "/")],
            &["its result is no longer there"],
        );
    }
}
