//! `SOURCE_DATE_EPOCH`: the time that outputs show instead of the build's.
//!
//! Its value is a build argument, the environment's, or the default of an `ARG` before the first FROM, in this order: seconds since
//! 1970, or a word for a place that has a time: `context` (the main context) or the name of a context. A directory has no time,
//! and then there is no epoch. An empty value is none.

use super::PlanInputs;
use super::arguments::{BuildArgs, Globals};
use super::report::Mistake;
use crate::vocab::{Diagnostic, nearest};

/// The argument's name.
pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Returns the epoch that the value stands for. `globals` are evaluated with it as it was given.
pub(super) fn find(
    inputs: &PlanInputs,
    build_args: &BuildArgs,
    globals: &Globals,
) -> Result<Option<i64>, Mistake> {
    let text = match build_args.get(EPOCH) {
        Some(given) => given,
        None => globals.values.get(EPOCH).unwrap_or_default(),
    };
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Some(seconds));
    }
    if text == "context" {
        return Ok(inputs.context_time);
    }
    let contexts = inputs.named_contexts.iter().map(|(name, _)| name.as_str());
    if contexts.clone().any(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(None);
    }
    let error = Diagnostic::error(format!(
        "`{EPOCH}` is neither a number of seconds nor `context` nor the name of a context: `{text}`"
    ));
    Err(Box::new(match nearest(text, contexts.chain(["context"])) {
        Some(known) => error.hint(format!("did you mean `{known}`?")),
        None => error.hint("seconds since 1970: `date +%s`, or `git log -1 --format=%ct`"),
    }))
}
