//! A hostile step on every rung: it tries to reach what the builder and its neighbours have, and gets nothing.
//!
//! Beside the builder lives a canary that holds a secret in a file, its environment, its memory and behind its sockets. What
//! the step prints, what lies on the disk afterwards and which processes are left decide.

use std::fs;

use crate::environment::{Bench, Environment, Place};
use crate::kill::{left_behind, wait_for};
use crate::site;
use crate::support::lab::Ran;

const SECRET: &str = "SECRET-CANARY";
/// What the step leaves behind.
const LEFT: &str = "98765";

fn check(name: &str) {
    let Some(site) = site() else { return };
    let bench = Bench::new(site, Environment::named(name), Place::Volume);
    let out = bench.out();
    let credentials = out.join("credentials");
    fs::write(&credentials, SECRET).unwrap();
    bench.give_away(&credentials);
    let before = fs::read(&site.builder).unwrap();

    let ran = attack(&bench, "everything", &[]);
    assert_eq!(ran.code, Some(0), "{name}\n{}", ran.stderr);
    assert_eq!(
        ran.stderr.matches("attacked").count(),
        2,
        "{name}: both users tried everything\n{}",
        ran.stderr
    );
    let ran = attack(&bench, "whiteout", &[]);
    assert_eq!(ran.code, Some(5), "{name}\n{}", ran.stderr);
    assert!(ran.stderr.contains(".wh.passwd"), "{name}\n{}", ran.stderr);
    for descriptor in [3, 5, 7, 9] {
        let ran = attack(&bench, "directory", &[&format!("DESCRIPTOR={descriptor}")]);
        assert_ended(name, &ran);
    }
    assert_ended(name, &attack(&bench, "raced", &[]));
    assert_eq!(fs::read_to_string(&credentials).unwrap(), SECRET, "{name}");
    assert!(
        !out.join("escape").exists(),
        "{name}: the step wrote outside"
    );
    assert!(
        fs::read(&site.builder).unwrap() == before,
        "{name}: the program was changed"
    );
    // Other tests' steps have one for a moment; what is left stays.
    wait_for(
        || left_behind(LEFT, &[]).is_empty(),
        || format!("{name}: processes are left: {:?}", left_behind(LEFT, &[])),
    );
}

/// Runs a hostile build beside the canary; nothing of what it prints may be the canary's.
#[track_caller]
fn attack(bench: &Bench<'_>, target: &str, arguments: &[&str]) -> Ran {
    let site = site().expect("looked at before");
    let out = bench.out();
    let attack = site.inputs.join("context/attack");
    let mut line = vec![
        "perl".to_owned(),
        attack.join("canary.pl").display().to_string(),
        site.builder.display().to_string(),
        "build".to_owned(),
        "--progress=plain".to_owned(),
        "--no-cache".to_owned(),
        format!("--target={target}"),
        format!("--build-arg=OUTSIDE={}", out.display()),
        format!("--build-arg=BUILDER={}", site.builder.display()),
        format!(
            "--build-context=debian=oci-layout://{}",
            site.inputs.join("debian").display()
        ),
    ];
    line.extend(
        arguments
            .iter()
            .map(|argument| format!("--build-arg={argument}")),
    );
    line.push(attack.display().to_string());
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let ran = bench.run(
        &line,
        &[
            ("CANARY_SECRET", SECRET),
            ("CANARY_DIRECTORY", out.to_str().unwrap()),
        ],
    );
    let escapes: Vec<&str> = ran
        .stdout
        .lines()
        .chain(ran.stderr.lines())
        .filter(|line| {
            line.contains("ESCAPE") || line.contains(SECRET) || line.contains("canary died")
        })
        .collect();
    let name = bench.environment.name;
    assert!(
        escapes.is_empty(),
        "{name} {target}\n{}",
        escapes.join("\n")
    );
    ran
}

/// Whether it works is not the question: it ends as a build does.
#[track_caller]
fn assert_ended(name: &str, ran: &Ran) {
    assert!(
        matches!(ran.code, Some(0 | 4 | 5)),
        "{name}: {:?}\n{}",
        ran.code,
        ran.stderr
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
    a_hostile_step_on_chroot "E4"
    a_hostile_step_on_chroot_in_a_user_namespace "E7a"
    a_hostile_step_on_paths "E5"
    a_hostile_step_on_paths_as_root "E5c"
}
