//! A hostile step on every rung: it tries to reach what the builder and its neighbours have, and gets nothing.
//!
//! Beside the builder lives a canary that holds a secret in a file, its environment, its memory and behind its sockets. What
//! the step prints, what lies on the disk afterwards and which processes are left decide.

use std::fs;
use std::process::Command;

use crate::environment::{Bench, Environment, Place};
use crate::site;

const SECRET: &str = "SECRET-CANARY";

fn check(name: &str) {
    let Some(site) = site() else { return };
    let bench = Bench::new(site, Environment::named(name), Place::Volume);
    let out = bench.out();
    let credentials = out.join("credentials");
    fs::write(&credentials, SECRET).unwrap();
    bench.give_away(&credentials);
    let before = fs::read(&site.builder).unwrap();

    let attack = site.inputs.join("context/attack");
    let metadata = out.join("metadata.json");
    let line = [
        "perl",
        attack.join("canary.pl").to_str().unwrap(),
        site.builder.to_str().unwrap(),
        "build",
        "--progress=plain",
        "--no-cache",
        &format!("--build-arg=OUTSIDE={}", out.display()),
        &format!("--build-arg=BUILDER={}", site.builder.display()),
        &format!(
            "--build-context=debian=oci-layout://{}",
            site.inputs.join("debian").display()
        ),
        &format!("--metadata-file={}", metadata.display()),
        attack.to_str().unwrap(),
    ]
    .map(str::to_owned);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let ran = bench.run(
        &line,
        &[
            ("CANARY_SECRET", SECRET),
            ("CANARY_DIRECTORY", out.to_str().unwrap()),
        ],
    );
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, Some(0), "{name}\n{said}");
    assert_eq!(
        said.matches("attacked").count(),
        2,
        "{name}: both users tried everything\n{said}"
    );
    let escapes: Vec<&str> = said
        .lines()
        .filter(|line| {
            line.contains("ESCAPE") || line.contains(SECRET) || line.contains("canary died")
        })
        .collect();
    assert!(escapes.is_empty(), "{name}\n{}", escapes.join("\n"));
    assert_eq!(fs::read_to_string(&credentials).unwrap(), SECRET, "{name}");
    assert!(
        !out.join("escape").exists(),
        "{name}: the step wrote outside"
    );
    assert!(
        fs::read(&site.builder).unwrap() == before,
        "{name}: the program was changed"
    );
    let left = Command::new("pgrep")
        .args(["-f", "sleep 98765"])
        .output()
        .unwrap();
    assert!(
        left.stdout.is_empty(),
        "{name}: processes are left: {}",
        String::from_utf8_lossy(&left.stdout)
    );
}

macro_rules! rungs {
    ($($test:ident $name:literal)*) => {
        $(
            #[test]
            #[ignore = "takes minutes: `cargo test --test matrix -- --ignored`"]
            fn $test() {
                check($name);
            }
        )*
    };
}

rungs! {
    a_hostile_step_on_ns "E1"
    a_hostile_step_on_ns_without_pivot_root "E6a"
    a_hostile_step_on_ns_full "E6b"
    a_hostile_step_on_ns_full_with_the_containers_proc "E8"
    a_hostile_step_on_ns_sub "E2"
    a_hostile_step_on_ns_one "E3"
    a_hostile_step_on_paths_with_capabilities "E4"
    a_hostile_step_on_paths_in_a_user_namespace "E7a"
    a_hostile_step_on_paths "E5"
    a_hostile_step_on_paths_as_root "E5c"
}
