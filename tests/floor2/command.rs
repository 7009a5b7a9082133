//! The other subcommands on images of the state directory.

use std::fs;

use crate::support::lab::{Lab, Ran, base_tar, install_program};
use crate::support::power;

#[test]
fn import_tag_inspect_rmi_and_prune() {
    let lab = Lab::new();
    let tar = base_tar().to_str().unwrap().to_owned();
    lab.builder(&[
        "import",
        &tar,
        "first",
        "--change",
        "CMD [\"x\"]",
        "--change",
        "ENV A=b",
        "-m",
        "a comment",
    ])
    .succeeds();
    let inspected = lab.inspect("first");
    let config = &inspected[0]["images"][0]["config"];
    assert_eq!(config["config"]["Cmd"][0], "x");
    assert!(
        config["config"]["Env"]
            .as_array()
            .unwrap()
            .iter()
            .any(|line| line == "A=b")
    );
    assert_eq!(config["history"][0]["comment"], "a comment");
    lab.builder(&["import", &tar, "bad", "--change", "RUN true"])
        .fails(2, &["--change"]);
    lab.builder(&["tag", "first", "second:v1"]).succeeds();
    let listed = lab.builder(&["images"]);
    assert!(
        listed.stdout.contains("first") && listed.stdout.contains("v1"),
        "{}",
        listed.stdout
    );
    lab.builder(&["rmi", "first"]).succeeds();
    lab.builder(&["inspect", "first"])
        .fails(4, &["no image `first`", "second:v1"]);
    let digest = lab.inspect("second:v1")[0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.inspect(&digest[..19]);
    lab.builder(&["rmi", "second:v1"]).succeeds();
    lab.builder(&["prune", "--all"]).succeeds();
    let usage: serde_json::Value =
        serde_json::from_str(&lab.builder(&["du", "--json"]).stdout).unwrap();
    let total = usage["kinds"]
        .as_array()
        .unwrap()
        .iter()
        .find(|kind| kind["kind"] == "total")
        .unwrap()
        .clone();
    assert_eq!(total["bytes"], 0, "{usage}");
}

#[test]
fn the_state_directory_may_be_named_before_or_after_the_subcommand() {
    let lab = Lab::new();
    let tar = base_tar().to_str().unwrap().to_owned();
    let other = lab.path("other").to_str().unwrap().to_owned();
    lab.builder(&["--root", &other, "import", &tar, "x"])
        .succeeds();
    lab.builder(&["images", "--root", &other]).succeeds();
    assert!(!lab.state().exists());
    assert!(fs::exists(&other).unwrap());
}

#[test]
fn an_archive_from_standard_input() {
    let lab = Lab::new();
    let bytes = fs::read(base_tar()).unwrap();
    lab.builder_with_input(&["import", "-", "x"], &bytes)
        .succeeds();
    lab.saved("x");
    lab.builder_with_input(&["import", "-", "y"], b"this is no archive")
        .fails(4, &["archive"]);
    lab.builder(&["inspect", "y"]).fails(4, &[]);
    lab.is_sound();
}

#[test]
fn a_dockerfile_from_standard_input() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "x");
    let context = lab.context();
    let args = ["build", "-f", "-", "-t", "image", context.to_str().unwrap()];
    lab.builder_with_input(&args, b"FROM scratch\nCOPY f /\n")
        .succeeds();
    assert!(lab.saved("image").files().has("f"));
}

#[test]
fn version() {
    let ran = Lab::new().builder(&["version"]);
    assert_eq!(
        ran.succeeds().stdout,
        format!("builder {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_program_is_one_static_file_that_runs_in_an_empty_root() {
    const PT_INTERP: u32 = 3;
    let program = env!("CARGO_BIN_EXE_builder");
    let elf = fs::read(program).unwrap();
    let number = |at: usize, size: usize| {
        elf[at..at + size]
            .iter()
            .rev()
            .fold(0_usize, |value, &byte| value << 8 | usize::from(byte))
    };
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let interpreted = (0..count).any(|at| number(offset + at * size, 4) == PT_INTERP as usize);
    assert!(!interpreted, "it names a dynamic loader");
    if !nix::unistd::geteuid().is_root() {
        return power::not_run("chroot needs root");
    }
    let root = tempfile::tempdir().unwrap();
    install_program(&root.path().join("builder"));
    fs::create_dir(root.path().join("context")).unwrap();
    fs::write(
        root.path().join("context/Dockerfile"),
        "FROM scratch\nLABEL a=b\n",
    )
    .unwrap();
    let chroot = power::program("chroot").unwrap();
    let inside = |args: &[&str]| {
        let ran = std::process::Command::new(&chroot)
            .env_clear()
            .arg(root.path())
            .arg("/builder")
            .args(args)
            .output()
            .unwrap();
        Ran::of(ran)
    };
    inside(&["version"]).succeeds();
    inside(&[
        "--root",
        "/state",
        "build",
        "--progress=plain",
        "-t",
        "x",
        "/context",
    ])
    .succeeds();
    assert!(
        inside(&["--root", "/state", "inspect", "x"])
            .succeeds()
            .stdout
            .contains("\"a\": \"b\"")
    );
}
