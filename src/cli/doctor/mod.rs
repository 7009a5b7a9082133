//! `builder doctor`: what this environment allows, which way of running steps is taken and why, and what a better one needs.
//!
//! `examination` finds out, `advice` knows the settings of hosts, Docker, Kubernetes and GitLab, `text` and `json` show.
//! Nothing is changed, and nothing stays behind.

mod advice;
mod examination;
mod json;
mod text;

use crate::pipeline::Failure;
use crate::vocab::{Diagnostic, ExitCode};

use super::args::{Doctor, Global};
use super::{isolation, print};

use examination::Examination;

/// Fails with the code of a missing sandbox if no steps can be run.
pub(super) fn run(global: &Global, args: &Doctor) -> Result<(), Failure> {
    let examination = Examination::perform(
        global.state_directory()?,
        &global.lower_directories(),
        isolation::rung(&args.isolation)?,
        isolation::driver(&args.storage_driver)?,
    )?;
    print(&match args.json {
        true => json::show(&examination),
        false => text::show(&examination),
    });
    match examination.taken {
        Some(_) => Ok(()),
        None => Err(Failure::new(
            ExitCode::Sandbox,
            Diagnostic::error("steps cannot be run in this environment"),
        )),
    }
}
