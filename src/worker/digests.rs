//! What files of the host digested to when they were last looked at.
//!
//! A build looks its steps up before it enters its namespace, and again when it comes to performing them; the files need not be
//! walked twice for that. Whether they are still the same is asked anew once a step has read them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::plan::Local;
use crate::solve::Reading;
use crate::vocab::Digest;

#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<HashMap<Question, Digest>>);

/// Which files: a context, and what is selected of it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Question {
    context: Option<String>,
    pattern: String,
    parents: bool,
    exclude: Vec<String>,
}

impl Question {
    fn new(local: &Local, reading: &Reading<'_>) -> Question {
        Question {
            context: local.name.clone(),
            pattern: reading.pattern.clone().into_owned(),
            parents: reading.parents,
            exclude: reading.exclude.to_vec(),
        }
    }
}

impl Digests {
    pub(super) fn get(&self, local: &Local, reading: &Reading<'_>) -> Option<Digest> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&Question::new(local, reading)).copied()
    }

    pub(super) fn insert(&self, local: &Local, reading: &Reading<'_>, digest: Digest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(Question::new(local, reading), digest);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::plan::StepId;

    #[test]
    fn each_context_and_selection_has_an_answer_of_its_own_and_the_last_one_counts() {
        let local = |name: Option<&str>| Local {
            name: name.map(str::to_owned),
        };
        let excluded = ["x".to_owned()];
        let reading = |pattern: &'static str, parents, exclude| Reading {
            tree: StepId(0),
            pattern: Cow::Borrowed(pattern),
            parents,
            exclude,
        };
        let questions = [
            (local(None), reading("a", false, &[][..])),
            (local(Some("other")), reading("a", false, &[])),
            (local(None), reading("b", false, &[])),
            (local(None), reading("a", true, &[])),
            (local(None), reading("a", false, &excluded)),
        ];
        let digests = Digests::default();
        for round in 0..2 {
            for (number, (local, reading)) in questions.iter().enumerate() {
                if round == 0 {
                    assert_eq!(digests.get(local, reading), None, "{reading:?}");
                }
                digests.insert(local, reading, Digest::of(&[round, number as u8]));
            }
            for (number, (local, reading)) in questions.iter().enumerate() {
                let expected = Digest::of(&[round, number as u8]);
                assert_eq!(digests.get(local, reading), Some(expected), "{reading:?}");
            }
        }
        // The tree's number is another in each graph, and says nothing about the files.
        let elsewhere = Reading {
            tree: StepId(7),
            ..questions[0].1.clone()
        };
        assert!(digests.get(&questions[0].0, &elsewhere).is_some());
    }
}
