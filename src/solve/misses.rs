//! What is different between a key that led nowhere and the key of the last time.
//!
//! In: two lists of ingredients. Out: what differs, the weightiest first. Where the former list comes from, and which files a
//! content digest stands for, is the worker's business.

use std::collections::BTreeMap;

use super::StepError;
use super::probe::{definition, given};
use super::{StepResult, Worker};
use crate::plan::{Graph, Op, StepId};
use crate::vocab::{CacheKey, Digest, KeyComponent, Reason};

/// A step that is going to be executed.
pub struct Miss<'a> {
    pub graph: &'a Graph,
    pub step: StepId,
    /// The definition key.
    pub key: CacheKey,
    pub definition: &'a [KeyComponent],
    /// What the content key is made of, where that is another one.
    pub content: Option<&'a [KeyComponent]>,
    /// The first of the steps below it that was executed in this build.
    pub after: Option<StepId>,
}

impl Miss<'_> {
    /// Tells whether the step was asked not to read the cache.
    pub fn is_forced(&self) -> bool {
        self.graph.origins[self.step.0].ignore_cache
    }
}

/// One difference between two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// One that needs no more knowledge.
    Plain(Reason),
    /// What is read of another tree: the number of the reading, and the former digest if that is known.
    Files {
        reading: usize,
        old: Option<Digest>,
        new: Digest,
    },
    /// The root is the result of another step, or another base.
    Root,
    /// A stage that is read is another one.
    Stage,
}

/// Compares ingredients. `arguments` are names that ARG declares.
pub fn differences(
    new: &[KeyComponent],
    old: &[KeyComponent],
    arguments: &[String],
) -> Vec<Difference> {
    let (new, old) = (by_name(new), by_name(old));
    let mut names: Vec<&str> = new.keys().chain(old.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let none = Vec::new();
    let mut found: Vec<(u8, Difference)> = Vec::new();
    for name in names {
        let new = new.get(name).unwrap_or(&none);
        let old = old.get(name).unwrap_or(&none);
        if new == old {
            continue;
        }
        match name {
            "argv" => found.push((0, Difference::Plain(Reason::Command))),
            "script" | "inline-content" => {
                found.push((1, Difference::Plain(Reason::Heredoc)));
            }
            "files" | "mounted-files" => {
                found.extend(files(new, old).into_iter().map(|found| (1, found)));
            }
            "env" => found.extend(
                variables(new, old, arguments)
                    .into_iter()
                    .map(|reason| (2, Difference::Plain(reason))),
            ),
            "root" => found.push((5, Difference::Root)),
            "from" | "mounted-from" => found.push((4, Difference::Stage)),
            _ => found.push((3, Difference::Plain(other(name, new, old)))),
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, found)| found).collect()
}

/// Returns what every step's definition key is made of, and the key, as far as that can be told from `results`.
pub fn ingredients<W: Worker>(
    graph: &Graph,
    worker: &W,
    results: &[StepResult],
) -> Vec<Option<(CacheKey, Vec<KeyComponent>)>> {
    let of = |at: usize| -> Result<Option<_>, StepError> {
        let step = &graph.steps[at];
        if given(step).is_some() || !matches!(step.op, Op::Run(_) | Op::Copy(_) | Op::Workdir(_)) {
            return Ok(None);
        }
        let input = |step: StepId| &results[step.0];
        Ok(Some(definition(graph, step, &input, worker)?.key))
    };
    (0..graph.steps.len())
        .map(|at| of(at).unwrap_or_default())
        .collect()
}

fn files(new: &[&str], old: &[&str]) -> Vec<Difference> {
    let is_paired = new.len() == old.len();
    let mut found = Vec::new();
    for (reading, digest) in new.iter().enumerate() {
        let former = match is_paired {
            true => Some(old[reading]),
            false if old.contains(digest) => Some(*digest),
            false => None,
        };
        if former == Some(*digest) {
            continue;
        }
        if let Ok(new) = digest.parse() {
            let old = former.and_then(|text| text.parse().ok());
            found.push(Difference::Files { reading, old, new });
        }
    }
    if found.is_empty() {
        // A source less, say.
        found.push(Difference::Plain(Reason::Files {
            source: String::new(),
            changes: None,
        }));
    }
    found
}

fn variables(new: &[&str], old: &[&str], arguments: &[String]) -> Vec<Reason> {
    fn values<'a>(pairs: &[&'a str]) -> BTreeMap<&'a str, &'a str> {
        let split = pairs.iter().map(|pair| pair.split_once('='));
        split.flatten().collect()
    }
    let (new, old) = (values(new), values(old));
    let mut names: Vec<&str> = new.keys().chain(old.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let changed: Vec<Reason> = names
        .into_iter()
        .filter(|name| new.get(name) != old.get(name))
        .map(|name| Reason::Variable {
            keyword: match arguments.iter().any(|argument| argument == name) {
                true => "ARG",
                false => "ENV",
            },
            name: name.to_owned(),
            old: old.get(name).map(|value| (*value).to_owned()),
            new: new.get(name).map(|value| (*value).to_owned()),
        })
        .collect();
    match changed.is_empty() {
        true => vec![Reason::VariableOrder],
        false => changed,
    }
}

/// Says what became of an ingredient, which may be a list.
fn other(name: &str, new: &[&str], old: &[&str]) -> Reason {
    let only = |these: &[&str], those: &[&str]| {
        let only: Vec<&str> = these
            .iter()
            .filter(|value| !those.contains(value))
            .copied()
            .collect();
        (!only.is_empty()).then(|| only.join(", "))
    };
    let (mut only_old, mut only_new) = (only(old, new), only(new, old));
    if only_old.is_none() && only_new.is_none() {
        // Another order.
        (only_old, only_new) = (Some(old.join(", ")), Some(new.join(", ")));
    }
    Reason::Other {
        name: name.to_owned(),
        old: only_old,
        new: only_new,
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

    fn components(list: &[(&str, &str)]) -> Vec<KeyComponent> {
        list.iter()
            .map(|(name, value)| KeyComponent {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect()
    }

    fn check(new: &[(&str, &str)], old: &[(&str, &str)], expected: &[&str]) {
        let found = differences(&components(new), &components(old), &["VERSION".to_owned()]);
        let shown: Vec<String> = found
            .iter()
            .map(|difference| match difference {
                Difference::Plain(reason) => reason.text(3),
                Difference::Files { reading, old, .. } => {
                    format!("files {reading}{}", if old.is_some() { "" } else { " new" })
                }
                Difference::Root => "root".to_owned(),
                Difference::Stage => "stage".to_owned(),
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn every_difference_is_told_the_weightiest_first() {
        check(
            &[
                ("root", "a"),
                ("argv", "x"),
                ("env", "VERSION=2"),
                ("env", "B=1"),
            ],
            &[
                ("root", "b"),
                ("argv", "y"),
                ("env", "VERSION=1"),
                ("env", "C=1"),
            ],
            &[
                "the command changed",
                "ENV B 1 is new",
                "ENV C is gone",
                "ARG VERSION 1 → 2",
                "root",
            ],
        );
        check(
            &[("env", "A=1"), ("env", "B=1")],
            &[("env", "B=1"), ("env", "A=1")],
            &["the order of the environment changed"],
        );
        check(
            &[("user", "me"), ("mount", "a"), ("mount", "c")],
            &[("user", ""), ("mount", "a"), ("mount", "b")],
            &["`mount` b → c", "`user` `` → me"],
        );
        check(&[("chmod", "1")], &[], &["`chmod` 1 is new"]);
        check(&[("from", "a")], &[("from", "b")], &["stage"]);
        check(&[("root", "a")], &[("root", "a")], &[]);
    }

    #[test]
    fn digests_of_sources_are_paired_by_their_place() {
        let (a, b, c) = (
            Digest::of(b"a").to_string(),
            Digest::of(b"b").to_string(),
            Digest::of(b"c").to_string(),
        );
        check(
            &[("files", &a), ("files", &b)],
            &[("files", &a), ("files", &c)],
            &["files 1"],
        );
        check(
            &[("files", &a), ("files", &b)],
            &[("files", &a)],
            &["files 1 new"],
        );
        check(
            &[("files", &a)],
            &[("files", &a), ("files", &b)],
            &["the files changed"],
        );
    }
}
