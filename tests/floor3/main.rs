//! Floor 3: a real Debian root, a real registry server, and other tools that read what was made. Each test says loudly that it did
//! not run where a package is missing; `.ci/run` installs them all and requires them.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each floor uses its part")]
mod support;

mod debian;
mod registries;
mod server;

use std::process::Command;

use support::power;

/// Tells whether every program is there, and says what is missing.
fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|name| power::program(name).is_none())
        .collect();
    if !missing.is_empty() {
        power::not_run(&format!("programs are missing: {missing:?}"));
    }
    missing.is_empty()
}

/// Runs a tool, which must succeed, and returns what it printed.
#[track_caller]
fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(power::program(program).unwrap())
        .args(args)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{program} {args:?}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}
