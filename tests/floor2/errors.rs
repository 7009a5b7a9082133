//! Bad input: the place, the cause, a hint, the exit code, and a store that the next build can use.

use std::fs;

use crate::support::lab::Lab;

/// Builds a Dockerfile that must fail.
#[track_caller]
fn check(lab: &Lab, dockerfile: &str, args: &[&str], code: i32, texts: &[&str]) {
    lab.dockerfile(dockerfile);
    lab.build(args).fails(code, texts);
}

#[test]
fn mistakes_in_the_dockerfile() {
    let lab = Lab::new();
    let check = |dockerfile: &str, texts: &[&str]| check(&lab, dockerfile, &[], 3, texts);
    check(
        "FROM scratch\nCOYP a b\n",
        &["unknown instruction", "COYP", "Dockerfile:2:1", "COPY"],
    );
    check(
        "FROM scratch\nCOPY --form=a b c\n",
        &["--form", "Dockerfile:2", "--from"],
    );
    check("FROM scratch\nENV A=${B\n", &["Dockerfile:2"]);
    check(
        "FROM scratch\nRUN --mount=type=cache true\n",
        &["needs a `target`", "Dockerfile:2"],
    );
    check(
        "FROM scratch\nADD --checksum=sha512:00 https://example.com/x /x\n",
        &["sha256", "Dockerfile:2"],
    );
    check("", &["Dockerfile"]);
    check("RUN true\n", &["FROM"]);
    lab.dockerfile("FROM scratch\nCOYP a b\nFROM\nEXPOSE\n");
    let all = lab.build(&[]);
    all.fails(3, &["Dockerfile:2", "Dockerfile:3", "Dockerfile:4"]);
}

#[test]
fn unknown_target_and_missing_dockerfile() {
    let lab = Lab::new();
    check(
        &lab,
        "FROM scratch AS build\n",
        &["--target", "biuld"],
        3,
        &["biuld", "build"],
    );
    fs::remove_file(lab.context().join("Dockerfile")).unwrap();
    lab.build(&[])
        .fails(3, &["cannot read the Dockerfile", "hint:"]);
    lab.builder(&["build", "/no/such/context"])
        .fails(4, &["/no/such/context"]);
}

#[test]
fn usage() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch\n");
    lab.build(&["--no-such-flag"]).fails(2, &["--no-such-flag"]);
    lab.build(&["-o", "type=nope"]).fails(2, &["type"]);
    lab.build(&["--push"]).fails(
        2,
        &["nothing says where to push to", "-t REGISTRY/NAME:TAG"],
    );
    lab.build(&["-t", "UPPER"]).fails(2, &["UPPER"]);
    lab.build(&["--platform", "a/b/c/d"]).fails(2, &["a/b/c/d"]);
    lab.builder(&["nope"]).fails(2, &["nope"]);
}

#[test]
fn missing_and_excluded_sources() {
    let lab = Lab::new();
    lab.file("there", "");
    lab.file("secret.txt", "");
    lab.file(".dockerignore", "# comment\nsecret*\n");
    check(
        &lab,
        "FROM scratch\nCOPY no-such-file /\n",
        &[],
        5,
        &["no-such-file", "Dockerfile:2"],
    );
    check(&lab, "FROM scratch\nCOPY ther /\n", &[], 5, &["there"]);
    check(
        &lab,
        "FROM scratch\nCOPY secret.txt /\n",
        &[],
        5,
        &["secret.txt", "line 2", "secret*"],
    );
    check(
        &lab,
        "FROM scratch\nCOPY a b /c\n",
        &[],
        3,
        &["Dockerfile:2"],
    );
}

#[test]
fn a_stage_that_is_not_there_was_taken_for_an_image() {
    let lab = Lab::new();
    check(
        &lab,
        "FROM scratch\nCOPY --from=nope a b\n",
        &["--registry-mirror", "docker.io=http://127.0.0.1:1"],
        4,
        &["nope", "Dockerfile:2", "no stage is called `nope`"],
    );
}

#[test]
fn a_base_that_cannot_be_had() {
    let lab = Lab::new();
    check(
        &lab,
        "FROM localhost:1/none:such\n",
        &[],
        4,
        &["localhost:1/none:such", "Dockerfile:1"],
    );
}

#[test]
fn a_read_only_store() {
    let Some(lab) = Lab::with_base() else { return };
    if !nix::unistd::geteuid().is_root() {
        return crate::support::power::not_run("a read-only mount needs root");
    }
    let state = lab.state();
    let mounted = std::process::Command::new("mount")
        .args(["--bind", "-o", "ro"])
        .arg(&state)
        .arg(&state)
        .status()
        .unwrap();
    assert!(mounted.success());
    lab.dockerfile("FROM base\nRUN echo x > /x\n");
    let ran = lab.build(&["-t", "x"]);
    let unmounted = std::process::Command::new("umount")
        .arg(&state)
        .status()
        .unwrap();
    assert!(unmounted.success());
    ran.fails(9, &["read-only", "hint:"]);
    lab.build(&["-t", "x"]).succeeds();
}

#[test]
fn a_full_disk_is_told_and_the_next_build_works() {
    let Some(_) = Lab::with_base() else { return };
    if !nix::unistd::geteuid().is_root() {
        return crate::support::power::not_run("a small file system needs root");
    }
    let lab = Lab::new();
    fs::create_dir(lab.state()).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(lab.state())
        .status()
        .unwrap();
    assert!(mounted.success());
    let tar = crate::support::lab::base_tar();
    let imported = lab.builder(&["import", tar.to_str().unwrap(), "base"]);
    lab.dockerfile("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=100\n");
    let full = lab.build(&["-t", "x"]);
    lab.dockerfile("FROM base\nRUN echo small > /small\n");
    let small = lab.build(&["-t", "x"]);
    let sound = lab.builder(&["du", "--verify"]);
    let unmounted = std::process::Command::new("umount")
        .arg(lab.state())
        .status()
        .unwrap();
    assert!(unmounted.success());
    imported.succeeds();
    full.fails(9, &["disk is full", "Dockerfile:2", "prune"]);
    small.succeeds();
    sound.succeeds();
}

#[test]
fn a_tag_that_is_not_there_is_answered_with_those_that_are() {
    let lab = Lab::new();
    let registry = crate::support::registry::FakeRegistry::start();
    let manifest = br#"{"schemaVersion":2}"#;
    for tag in ["1.2.3", "1.2.4", "latest"] {
        registry.put_manifest(
            "app",
            tag,
            "application/vnd.oci.image.manifest.v1+json",
            manifest,
        );
    }
    lab.dockerfile(&format!("FROM {}/app:1.2.5\n", registry.host()));
    lab.build(&["--insecure-registry", &registry.host()]).fails(
        4,
        &[
            "the repository has no tag `1.2.5`, but these: 1.2.",
            "1.2.4",
            "latest",
        ],
    );
}
