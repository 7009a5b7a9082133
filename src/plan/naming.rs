//! How steps are called in the display: `[linux/arm64 build 2/5] RUN make`.

use super::Origin;
use super::planner::Planning;
use crate::vocab::{Span, without_passwords};

/// Names the steps of one stage, counting them.
pub(super) struct Naming {
    /// What comes before the count: platform and stage, as far as they need telling.
    prefix: String,
    /// The stage's name, or its number.
    pub(super) stage: String,
    ignore_cache: bool,
    done: usize,
    total: usize,
}

impl Naming {
    /// Prepares to name `total` steps of the stage `at`.
    pub(super) fn new(planning: &Planning, at: usize, total: usize) -> Naming {
        let stage = &planning.stages.list[at];
        let inputs = planning.inputs;
        let mut prefix = String::new();
        if inputs.platforms.len() > 1 {
            prefix.push_str(&format!("{} ", stage.platform));
        }
        if planning.stages.list.len() > 1 {
            match stage.name() {
                Some(name) => prefix.push_str(&format!("{name} ")),
                None => prefix.push_str(&format!("stage-{at} ")),
            }
        }
        let mut filter = inputs.no_cache_filter.iter();
        let is_filtered = |name| filter.any(|wanted| wanted.to_lowercase() == name);
        Naming {
            prefix,
            stage: planning.stages.label(at),
            ignore_cache: inputs.no_cache || stage.name().is_some_and(is_filtered),
            done: 0,
            total,
        }
    }

    /// Returns the description of the next step. `span` is where it stands.
    pub(super) fn next(&mut self, text: &str, span: Span) -> Origin {
        self.skip();
        let (done, total) = (self.done, self.total.max(self.done));
        let width = total.to_string().len();
        Origin {
            span: Some(span),
            stage: self.stage.clone(),
            name: format!("[{}{done:width$}/{total}] {text}", self.prefix),
            ignore_cache: self.ignore_cache,
        }
    }

    /// Counts an instruction that has a number and no step.
    pub(super) fn skip(&mut self) {
        self.done += 1;
    }
}

/// Returns an instruction with its keyword in capitals, as steps are shown. Passwords in what ADD fetches are not.
pub(super) fn shown(text: &str) -> String {
    let text = text.trim();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (keyword, rest) = text.split_at(end);
    match keyword.to_uppercase().as_str() {
        "ADD" => format!("ADD{}", without_passwords(rest)),
        keyword => format!("{keyword}{rest}"),
    }
}
