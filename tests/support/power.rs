//! Powers that a machine may lack. A test that cannot run says so loudly, and fails where every power is required.

use std::io::Write as _;

/// Says that a test did not run, and why; with `BUILDER_TEST_REQUIRE_ALL=1` it fails instead.
pub fn not_run(why: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(
        std::env::var_os("BUILDER_TEST_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{name} cannot run here, and every power is required: {why}"
    );
    // Past the capture of the test harness: a passing test must not hide that it did nothing.
    drop(writeln!(std::io::stderr(), "NOT RUN: {name}: {why}"));
}

/// Finds a program on PATH.
pub fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let more = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}
