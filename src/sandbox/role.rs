//! The other thing that this program is: its own init.

use std::os::unix::ffi::OsStrExt;

use super::init;

/// What the program finds as its own name when it is started as init.
pub(super) const INIT: &str = "builder-init";

/// Performs an internal role and does not return, if the process was started for one; otherwise does nothing.
///
/// Call it first in `main`, before threads, signal handlers or anything that a forked child would miss.
pub fn run_internal_role() {
    let is_init = std::env::args_os()
        .next()
        .is_some_and(|name| name.as_bytes() == INIT.as_bytes());
    if is_init {
        init::main();
    }
}
