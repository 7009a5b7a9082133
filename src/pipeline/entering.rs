//! Where the process goes to execute steps, and what is said about it.

use crate::rootfs;
use crate::sandbox::{self, Choice, SandboxError, Wanted};
use crate::store::Store;
use crate::vocab::{BuildRequest, Diagnostic, Event, ExitCode, StorageDriver};

use super::failure::{self, Failure, with_sources};

/// Chooses how commands are confined.
pub(super) fn choose(request: &BuildRequest) -> Result<Choice, Failure> {
    let wanted = Wanted {
        rung: request.isolation,
        required: request.required_isolation,
    };
    sandbox::choose(&wanted).map_err(|error| failure::sandbox(&error))
}

/// Moves the process there.
pub(super) fn enter(choice: &Choice) -> Result<(), Failure> {
    sandbox::enter(choice)
        .map(drop)
        .map_err(|error| failure::sandbox(&error))
}

/// Returns the event that says how steps are executed.
pub(super) fn entered(
    request: &BuildRequest,
    choice: &Choice,
    store: &Store,
) -> Result<Event, Failure> {
    let mut reasons = Vec::new();
    if request.isolation.is_some() {
        reasons.push(format!("`--isolation {}`", choice.rung));
    }
    reasons.extend(choice.refused.iter().filter_map(|(rung, error)| {
        let is_another_user = matches!(error, SandboxError::NotRoot { .. });
        (!is_another_user).then(|| format!("{rung}: {}", with_sources(error)))
    }));
    let driver = driver(request, choice, store, &mut reasons)?;
    Ok(Event::Entered {
        rung: choice.rung,
        driver,
        reasons,
    })
}

/// Returns what was asked for and has no effect there.
pub(super) fn ineffective(request: &BuildRequest, choice: &Choice) -> Option<Event> {
    const BY_DEFAULT: u64 = 64 << 20;
    if choice.rung.has_namespaces() || request.shm_size == BY_DEFAULT {
        return None;
    }
    let warning = "`--shm-size` has no effect here: nothing can be mounted";
    Some(Event::Diagnostic(Diagnostic::warning(warning)))
}

/// Chooses how roots are put together where the state directory lies.
fn driver(
    request: &BuildRequest,
    choice: &Choice,
    store: &Store,
    reasons: &mut Vec<String>,
) -> Result<StorageDriver, Failure> {
    if let Some(driver) = request.storage_driver {
        if driver == StorageDriver::Overlay && !choice.rung.has_namespaces() {
            let refused = format!(
                "`--storage-driver overlay` needs mounts, and commands run by `{}`, which makes none",
                choice.rung
            );
            return Err(Failure::new(
                ExitCode::Sandbox,
                Diagnostic::error(refused).hint("leave it out: `tree` needs none"),
            ));
        }
        reasons.push(format!("`--storage-driver {driver}`"));
        return Ok(driver);
    }
    if !choice.rung.has_namespaces() {
        return Ok(StorageDriver::Tree);
    }
    let directory = store.work_dir().map_err(|error| failure::store(&error))?;
    match rootfs::overlay_works(&directory) {
        Ok(()) => Ok(StorageDriver::Overlay),
        Err(error) => {
            reasons.push(format!("overlay: {}", with_sources(&error)));
            Ok(StorageDriver::Tree)
        }
    }
}
