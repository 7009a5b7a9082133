//! `docker build` and `docker buildx build`, whose flags `builder build` has under the same names.

use crate::pipeline::Failure;

use super::super::usage;
use super::own::{Draft, refuse};
use super::parse::Typed;

/// Writes the words of `builder build`.
pub(super) fn build(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    match typed.words.as_slice() {
        [] => {
            return Err(refuse(
                "`docker build` has no context",
                "the last word names the directory that COPY and ADD read from, often `.`",
            ));
        }
        [context] => draft.own.word(context),
        [_, second, ..] => {
            return Err(usage(format!(
                "there is one context, and `{second}` is a second one"
            )));
        }
    }
    match typed.last("network") {
        None | Some("" | "bridge") => {}
        Some(mode) => draft.own.flag("network", mode),
    }
    if let Some(method) = typed.last("print") {
        draft.own.flag("call", method);
    }
    if typed.last("platform").is_none()
        && let Some(platform) = draft.variable("DOCKER_DEFAULT_PLATFORM")
    {
        draft.own.flag("platform", &platform);
    }
    if draft.variable("DOCKER_HOST").is_some() {
        draft.note("DOCKER_HOST", "nothing is asked of a daemon");
    }
    Ok(())
}
