//! Limits of steps: what can be had is settled before the first step, and what has no effect is told.

use crate::sandbox::{GroupError, Ineffective, StepGroups, sweep_groups};
use crate::store::Store;
use crate::vocab::{BuildRequest, Diagnostic, Event, EventSink, ExitCode};

use super::Failure;

/// Returns what keeps the commands of this build within their limits, where there are limits and a way to have them. Removes
/// what builds that were killed have left of theirs.
pub(super) fn settle(
    request: &BuildRequest,
    store: &Store,
    events: &dyn EventSink,
) -> Result<Option<StepGroups>, Failure> {
    let register = store.groups_path();
    sweep_groups(&register);
    let settled = StepGroups::prepare(&request.step_limits, &register);
    let (groups, ineffective) = settled.map_err(|error| refused(&error))?;
    for warning in warnings(ineffective) {
        events.emit(Event::Diagnostic(warning));
    }
    Ok(groups)
}

fn refused(error: &GroupError) -> Failure {
    let (class, message) = match error {
        GroupError::Write { .. } => (ExitCode::Store, "steps cannot be limited"),
        _ => (ExitCode::Usage, "the limit of steps is refused"),
    };
    let mut diagnostic = Diagnostic::error(message).caused_by(error);
    diagnostic.hints.extend(error.hint());
    Failure::new(class, diagnostic)
}

/// One for each reason.
fn warnings(ineffective: Vec<Ineffective>) -> Vec<Diagnostic> {
    let mut reasons: Vec<(String, Ineffective)> = Vec::new();
    for one in ineffective {
        let reason = reason(&one.error);
        match reasons.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, same)) => same.limits.extend(one.limits),
            None => reasons.push((reason, one)),
        }
    }
    reasons
        .into_iter()
        .map(|(reason, Ineffective { limits, error })| {
            let verb = if limits.len() == 1 { "has" } else { "have" };
            let mut warning = Diagnostic::warning(format!(
                "{} of steps {verb} no effect here: {reason}",
                limits.join(" and ")
            ));
            warning.hints.extend(error.hint());
            warning
        })
        .collect()
}

fn reason(error: &GroupError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_without_effect_are_told_once_for_each_reason() {
        let ineffective = |limits: &[&'static str], controller| Ineffective {
            limits: limits.to_vec(),
            error: GroupError::NotMounted { controller },
        };
        let told: Vec<String> = warnings(vec![
            ineffective(&["the memory limit"], "memory"),
            ineffective(&["the CPU quota"], "cpu"),
            ineffective(&["the CPU shares"], "cpu"),
        ])
        .into_iter()
        .map(|warning| warning.message)
        .collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("the memory limit of steps has no effect here: "));
        assert!(
            told[1].starts_with("the CPU quota and the CPU shares of steps have no effect here: ")
        );
    }
}
