//! What went wrong at each place that was asked for one thing.
//!
//! In: failures in order. Out: one error that names them all, whose root is the registry's own; and hosts that are left out from now on.

use super::endpoint::Endpoint;
use super::error::RegistryError;

/// Collects what went wrong at each place, in order.
#[derive(Default)]
pub(super) struct Trail {
    others: Vec<String>,
    registry: Option<(String, RegistryError)>,
}

impl Trail {
    /// Adds a failure; a mirror whose host is the trouble is left out from now on.
    pub(super) fn add(&mut self, endpoint: &Endpoint, error: RegistryError) {
        if endpoint.is_mirror {
            let told = told(endpoint, &error);
            if error.blames_host() || (error.is_server_s() && endpoint.host.has_failed_enough()) {
                endpoint.host.set_down(&told);
            }
            self.others.push(told);
            return;
        }
        let name = endpoint.host.registry().to_owned();
        let (told_now, kept) = match self.registry.take() {
            None => (None, (name, error)),
            // A short name was looked for in several registries. That one lacks it does not mean that none has it.
            Some(before) if error.is_not_found() && !before.1.is_not_found() => {
                (Some(told(endpoint, &error)), before)
            }
            Some((before, old)) => (Some(format!("{before}: {}", chain(&old))), (name, error)),
        };
        self.others.extend(told_now);
        self.registry = Some(kept);
    }

    /// Returns the registry's own failure, with those of the other places.
    pub(super) fn into_error(self) -> RegistryError {
        let (registry, error) = self
            .registry
            .expect("the last place to be asked is no mirror");
        if self.others.is_empty() {
            return error;
        }
        RegistryError::AfterMirrors {
            registry,
            mirrors: self.others.join("; "),
            source: Box::new(error),
        }
    }
}

/// Returns what went wrong at a place; its name is in front where the error does not have it.
fn told(endpoint: &Endpoint, error: &RegistryError) -> String {
    let text = match error {
        RegistryError::NotFound { said, .. } => format!("not there{said}"),
        RegistryError::LeftOut { why, .. } => return why.clone(),
        error => chain(error),
    };
    match text.contains(&format!("`{}`", endpoint.host.registry())) {
        true => text,
        false => format!("`{}`: {text}", endpoint.host.registry()),
    }
}

fn chain(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
