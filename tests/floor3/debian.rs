//! The main job on a real distribution: root made by `mmdebstrap`, packages installed by `apt-get`, a C program compiled, the
//! result pushed, and read back by other tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::server::Server;
use crate::support::lab::{Lab, Ran, install_program};
use crate::support::power;
use crate::{have, tool};

const HELLO: &str = "#include <stdio.h>\nint main(void) { puts(\"made in a stage\"); return 0; }\n";

/// A tar of a Debian root. Made once, and kept with what cargo builds.
fn debian() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let tar = kept.join("debian-bookworm.tar");
        if !tar.exists() {
            let directory = tempfile::tempdir_in(kept).unwrap();
            let beside = directory.path().join("debian.tar");
            tool(
                "mmdebstrap",
                &[
                    "--quiet",
                    "--variant=minbase",
                    "bookworm",
                    beside.to_str().unwrap(),
                ],
            );
            fs::rename(beside, &tar).unwrap();
        }
        tar
    })
}

fn dockerfile(base: &str) -> String {
    format!(
        "FROM {base} AS compile\nRUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev\nWORKDIR /src\n\
         COPY hello.c .\nRUN gcc -O2 -static -o /hello hello.c\nFROM scratch\nCOPY --from=compile /hello /hello\nENTRYPOINT [\"/hello\"]\n"
    )
}

/// Checks an image in a registry with every other tool at hand.
fn read_back(reference: &str) {
    let inspected: serde_json::Value = serde_json::from_str(&tool(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            &format!("docker://{reference}"),
        ],
    ))
    .unwrap();
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 1);
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    tool(
        "skopeo",
        &[
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{reference}"),
            &format!("oci:{}:x", layout.display()),
        ],
    );
    let image = crate::support::image::Image::read(&layout);
    assert_eq!(image.files().owner("hello"), "0755 0:0");
    let bundle = directory.path().join("bundle");
    tool(
        "umoci",
        &[
            "unpack",
            "--rootless",
            "--image",
            &format!("{}:x", layout.display()),
            bundle.to_str().unwrap(),
        ],
    );
    let said = Command::new(bundle.join("rootfs/hello")).output().unwrap();
    assert_eq!(said.stdout, b"made in a stage\n");
    let store = directory.path().join("podman");
    let said = tool(
        "podman",
        &[
            "--root",
            store.join("root").to_str().unwrap(),
            "--runroot",
            store.join("run").to_str().unwrap(),
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--runtime=runc",
            "run",
            "--rm",
            "--network=host",
            // A machine may not let anybody raise limits: ask for low ones.
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            "--tls-verify=false",
            reference,
        ],
    );
    assert_eq!(said, "made in a stage\n");
}

const TOOLS: &[&str] = &[
    "mmdebstrap",
    "docker-registry",
    "skopeo",
    "umoci",
    "podman",
    "runc",
];

#[test]
fn a_real_distribution_as_this_user() {
    if !have(TOOLS) {
        return;
    }
    let server = Server::start(None);
    let tar = debian();
    let first = Lab::new();
    let base = format!("{}/debian:bookworm", server.address);
    first
        .builder(&["import", tar.to_str().unwrap(), &base])
        .succeeds();
    let pushed = first.builder(&["push", "-q", &base]);
    let digest = pushed.succeeds().stdout.trim().to_owned();
    let by_digest = format!("{}/debian@{digest}", server.address);

    // Another machine: nothing but the registry.
    let lab = Lab::new();
    lab.builder(&["pull", &by_digest]).succeeds();
    lab.file("hello.c", HELLO);
    lab.dockerfile(&dockerfile(&by_digest));
    let result = format!("{}/hello:v1", server.address);
    let built = lab.build(&["-t", &result, "--push"]);
    assert_eq!(built.succeeds().steps(), (5, 0));
    read_back(&result);
    assert_eq!(
        lab.build(&["-t", &result, "--push"]).succeeds().executed(),
        0
    );
    lab.file("hello.c", HELLO.replace("made", "remade"));
    assert_eq!(
        lab.build(&["-t", &result, "--push"]).succeeds().executed(),
        3
    );
    lab.is_sound();
}

#[test]
fn a_real_distribution_as_an_ordinary_user() {
    if !have(TOOLS) {
        return;
    }
    let Some(user) = std::env::var("BUILDER_TEST_USER")
        .ok()
        .filter(|_| nix::unistd::geteuid().is_root())
    else {
        return power::not_run(
            "needs root, and the name of an ordinary user with subordinate ids in BUILDER_TEST_USER",
        );
    };
    let server = Server::start(None);
    let home = tempfile::Builder::new()
        .prefix("builder-user-")
        .tempdir()
        .unwrap();
    let path = home.path().to_str().unwrap();
    fs::write(home.path().join("hello.c"), HELLO).unwrap();
    fs::write(
        home.path().join("Dockerfile"),
        dockerfile("debian:bookworm"),
    )
    .unwrap();
    install_program(&home.path().join("builder"));
    tool("chown", &["-R", &user, path]);
    let as_user_reading = |args: &[&str], input: Stdio| {
        let mut command = Command::new(power::program("runuser").unwrap());
        command
            .args([
                "-u",
                &user,
                "--",
                "env",
                "-i",
                &format!("HOME={path}"),
                "PATH=/usr/bin:/bin",
            ])
            .arg(home.path().join("builder"))
            .args(args)
            .current_dir(home.path())
            .stdin(input);
        Ran::of(command.output().unwrap())
    };
    let as_user = |args: &[&str]| as_user_reading(args, Stdio::null());
    // Opened here: the user may not be let into the directory that holds it.
    let tar = fs::File::open(debian()).unwrap();
    as_user_reading(&["import", "-", "debian:bookworm"], tar.into()).succeeds();
    let result = format!("{}/hello:user", server.address);
    let build = [
        "build",
        "--progress=plain",
        "-t",
        &result,
        "--push",
        "--load",
        ".",
    ];
    assert_eq!(as_user(&build).succeeds().steps(), (5, 0));
    read_back(&result);
    assert_eq!(as_user(&build).succeeds().executed(), 0);
    as_user(&["du", "--verify"]).succeeds();
    as_user(&["rmi", &result]).succeeds();
    as_user(&["rmi", "debian:bookworm"]).succeeds();
    as_user(&["prune", "--all"]).succeeds();
}

#[test]
fn a_registry_that_asks_who_is_there() {
    if !have(&["docker-registry", "htpasswd", "skopeo"]) {
        return;
    }
    let server = Server::start(Some(("user", "secret-password")));
    let lab = Lab::new();
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    let image = format!("{}/x:v1", server.address);
    let refused = lab.build(&["-t", &image, "--push"]);
    refused.fails(6, &["builder login", &server.address]);
    lab.builder_with_input(
        &["login", "-u", "user", "--password-stdin", &server.address],
        b"wrong",
    )
    .fails(4, &["login"]);
    let logged_in = lab.builder_with_input(
        &["login", "-u", "user", "--password-stdin", &server.address],
        b"secret-password\n",
    );
    logged_in.succeeds();
    let pushed = lab.build(&["-t", &image, "--push"]);
    pushed.succeeds();
    for ran in [&refused, &logged_in, &pushed] {
        assert!(!ran.stderr.contains("secret-password") && !ran.stdout.contains("secret-password"));
    }
    tool(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--creds=user:secret-password",
            &format!("docker://{image}"),
        ],
    );
    let other = Lab::new();
    other.dockerfile(&format!("FROM {image}\n"));
    other.build(&[]).fails(4, &["Dockerfile:1", "login"]);
    lab.builder(&["logout", &server.address]).succeeds();
    lab.builder(&["pull", &image]).fails(4, &["login"]);
}
