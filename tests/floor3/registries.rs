//! What registries of others make of our writing, and other tools of what lies there: indexes of several jobs, attachments, HTTPS of
//! a private authority with a user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use builder::registry::{Attachment, Client, Threads};
use builder::vocab::{Descriptor, ImageRef, RegistryOptions};
use serde_json::Value;

use crate::server::Server;
use crate::support::lab::{Lab, Ran};
use crate::support::power;
use crate::{have, tool};

const ARCHITECTURES: [&str; 4] = ["amd64", "arm64", "riscv64", "s390x"];

/// Finds the registry that shares no code with the first one.
fn other() -> Option<PathBuf> {
    let program = std::env::var_os("BUILDER_TEST_REGISTRY").map(PathBuf::from);
    let program = program.or_else(|| power::program("ferro-oci-server"));
    if program.is_none() {
        power::not_run(
            "needs `cargo install ferro-oci-server`, and its path in BUILDER_TEST_REGISTRY or PATH",
        );
    }
    program
}

/// Builds an image for an architecture and returns where.
fn job(architecture: &str) -> Lab {
    let lab = Lab::new();
    lab.file("f", architecture);
    lab.dockerfile("FROM scratch\nCOPY f /f\n");
    let platform = format!("linux/{architecture}");
    lab.build(&["-t", "app", "--platform", &platform])
        .succeeds();
    lab
}

/// Appends from one process per architecture at the same time. `prepare` gives each what it needs to get in.
fn append_all(name: &str, prepare: &dyn Fn(&Lab, &mut Command)) {
    let jobs = ARCHITECTURES.map(job);
    let running: Vec<_> = jobs
        .iter()
        .map(|job| {
            let mut command = job.command();
            command.args(["manifest", "append", name, "app"]);
            prepare(job, &mut command);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in running {
        Ran::of(child.wait_with_output().unwrap()).succeeds();
    }
}

/// Reads an index of all architectures with skopeo and podman. `access` are the flags that both need to get in.
fn read_back(name: &str, access: &[&str]) {
    let image = format!("docker://{name}");
    let raw = tool(
        "skopeo",
        &[&["inspect", "--raw"], access, &[&image]].concat(),
    );
    let index: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(
        index["manifests"].as_array().unwrap().len(),
        ARCHITECTURES.len()
    );
    let directory = tempfile::tempdir().unwrap();
    for architecture in ARCHITECTURES {
        let override_arch = format!("--override-arch={architecture}");
        let layout = directory.path().join(architecture);
        let to = format!("oci:{}:x", layout.display());
        let access: Vec<String> = access
            .iter()
            .map(|flag| flag.replace("--", "--src-"))
            .collect();
        let mut args = vec![override_arch.as_str(), "copy"];
        args.extend(access.iter().map(String::as_str));
        args.extend([image.as_str(), to.as_str()]);
        tool("skopeo", &args);
        let read = crate::support::image::Image::read(&layout);
        assert_eq!(read.files().text("f"), architecture);
    }
    let store = directory.path().join("podman");
    let (root, run) = (store.join("root"), store.join("run"));
    let podman = |args: &[&str]| {
        let place = [
            "--root",
            root.to_str().unwrap(),
            "--runroot",
            run.to_str().unwrap(),
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
        ];
        tool("podman", &[&place[..], args].concat())
    };
    podman(&[&["pull", "--quiet", "--arch=riscv64"], access, &[name]].concat());
    let architecture = podman(&["image", "inspect", "--format={{.Architecture}}", name]);
    assert_eq!(architecture.trim(), "riscv64");
}

/// Attaches two documents and has them listed.
fn attach_and_list(server: &Server) {
    let name = format!("{}/attached:1", server.address);
    job("amd64").builder(&["push", "app", &name]).succeeds();
    let image: ImageRef = name.parse().unwrap();
    let client = Client::new(&RegistryOptions::default(), Threads::Some).unwrap();
    let subject: Descriptor = client.resolve(&image).unwrap().descriptor;
    for kind in ["application/spdx+json", "application/vnd.in-toto+json"] {
        let attachment = Attachment {
            artifact_type: kind,
            blobs: &[("application/json", kind.as_bytes())],
            annotations: &BTreeMap::new(),
        };
        client.attach(&image, &subject, &attachment).unwrap();
    }
    let lab = Lab::new();
    let listed = lab.builder(&["manifest", "referrers", "--json", &name]);
    assert_eq!(
        listed.succeeds().stdout.lines().count(),
        2,
        "{}",
        listed.stdout
    );
    let kind = "--artifact-type=application/spdx+json";
    let listed = lab.builder(&["manifest", "referrers", "--json", kind, &name]);
    let shown: Value = serde_json::from_str(&listed.succeeds().stdout).unwrap();
    assert_eq!(shown["artifactType"], "application/spdx+json");
    assert_eq!(client.resolve(&image).unwrap().descriptor, subject);
}

/// Steps and cache mounts of one machine serve another one through the registry, which moves no layer until a step needs it.
fn share(server: &Server, prepare: &dyn Fn(&Lab, &mut Command)) {
    let Some(first) = Lab::with_base() else {
        return;
    };
    let second = Lab::new();
    let base = format!("{}/team/base:1", server.address);
    let mut command = first.command();
    command.args(["push", "base", &base]);
    prepare(&first, &mut command);
    Ran::of(command.output().unwrap()).succeeds();
    let cache = format!("{}/team/cache", server.address);
    let name = format!("{}/team/shared:1", server.address);
    let text = "FROM BASE AS compile\nCOPY main.c /\nRUN --mount=type=cache,target=/c head -c 2000000 /dev/urandom > /c/kept; tr a-z A-Z < main.c > /out\n\
                FROM BASE\nCOPY --from=compile /out /\nRUN head -c 64 /dev/urandom > /random\n";
    let text = text.replace("BASE", &base);
    let build = |lab: &Lab, args: &[&str]| {
        let mut command = lab.command();
        command.args(["build", "--progress=plain", "--cache", &cache]);
        command.args(args).arg(lab.context());
        prepare(lab, &mut command);
        Ran::of(command.output().unwrap())
    };
    for lab in [&first, &second] {
        lab.file("main.c", "int main;\n");
        lab.dockerfile(&text);
    }
    let built = build(&first, &["-t", &name, "--push"]);
    assert_eq!(built.succeeds().executed(), 4, "{}", built.stderr);
    let loaded = build(&second, &["-t", &name, "--push", "--load"]);
    assert_eq!(loaded.succeeds().executed(), 0, "{}", loaded.stderr);
    let random = second.saved(&name).files().get("random").content.clone();
    assert_eq!(random.len(), 64);
    // A changed source: every step follows from it, and the mount of the other machine is there.
    second.file("main.c", "int other;\n");
    second.dockerfile(&text.replace("tr a-z", "test -s /c/kept; tr a-z"));
    let changed = build(&second, &["-t", &name, "--load"]);
    assert_eq!(changed.succeeds().executed(), 4, "{}", changed.stderr);
    let files = second.saved(&name).files();
    assert_eq!(files.text("out"), "INT OTHER;\n");
    assert_eq!(files.get("random").content.len(), 64);
    // All entries but those of the last build go (copies are found in several ways), and what stays is hit.
    let upkeep = |args: &[&str]| {
        let mut command = second.command();
        command
            .args(["cache"])
            .args(args)
            .args(["--remote", &cache]);
        prepare(&second, &mut command);
        Ran::of(command.output().unwrap()).succeeds().stdout.clone()
    };
    let listed = upkeep(&["ls"]);
    assert!(
        listed.contains("total: 14 steps, 1 cache mount: "),
        "{listed}"
    );
    let before = listed;
    let pruned = upkeep(&["prune", "--keep-last=8"]);
    assert!(
        pruned.contains("removed 7 steps, 0 cache mounts; up to "),
        "{pruned}"
    );
    let listed = upkeep(&["ls"]);
    assert!(
        listed.contains("total: 7 steps, 1 cache mount: "),
        "{listed}"
    );
    let third = Lab::new();
    third.file("main.c", "int other;\n");
    third.dockerfile(&text.replace("tr a-z", "test -s /c/kept; tr a-z"));
    let again = build(&third, &["-t", &name, "--load"]);
    let executed = again.succeeds().executed();
    assert_eq!(executed, 0, "{}\n{before}{pruned}{listed}", again.stderr);
    upkeep(&["prune", "--max-size=0"]);
    let listed = upkeep(&["ls"]);
    assert!(
        listed.contains("total: 0 steps, 0 cache mounts: 0B"),
        "{listed}"
    );
}

/// What every registry must let us do.
fn check(server: &Server) {
    let name = format!("{}/team/app:1.0", server.address);
    append_all(&name, &|_, _| {});
    read_back(&name, &["--tls-verify=false"]);
    attach_and_list(server);
    // A layer large enough to travel in a stream, to two repositories, and nothing the second time.
    let lab = Lab::new();
    let mut bytes = Vec::new();
    while bytes.len() < 3_000_000 {
        bytes.extend_from_slice(&builder::vocab::Digest::of(&bytes).as_bytes()[..]);
        bytes.extend_from_slice(&bytes.len().to_le_bytes());
        let half = bytes.len() / 2;
        let more: Vec<u8> = bytes[half..]
            .iter()
            .map(|byte| byte.wrapping_mul(31))
            .collect();
        bytes.extend_from_slice(&more);
    }
    lab.file("large", &bytes);
    lab.dockerfile("FROM scratch\nCOPY large /\n");
    let names = ["one/x:1", "two/x:1"].map(|name| format!("{}/{name}", server.address));
    for _ in 0..2 {
        lab.build(&["-t", &names[0], "-t", &names[1], "--push"])
            .succeeds();
    }
    for name in &names {
        let other = Lab::new();
        other.builder(&["pull", name]).succeeds();
        assert_eq!(other.saved(name).files().get("large").content, bytes);
    }
    lab.builder(&["manifest", "create", "--push", &names[1], &names[0]])
        .succeeds();
    let inspected = lab.builder(&["manifest", "inspect", &names[1]]);
    let index: Value = serde_json::from_str(&inspected.succeeds().stdout).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    share(server, &|_, _| {});
}

#[test]
fn the_distribution_daemon_takes_all_that_is_written() {
    if have(&["docker-registry", "skopeo", "podman"]) {
        check(&Server::start(None));
    }
}

#[test]
fn a_registry_with_nothing_in_common_takes_all_that_is_written() {
    if let Some(program) = other()
        && have(&["skopeo", "podman"])
    {
        check(&Server::start_other(&program));
    }
}

#[test]
fn a_private_authority_and_a_user() {
    if !have(&["docker-registry", "htpasswd", "openssl", "skopeo", "podman"]) {
        return;
    }
    let server = Server::start_secure(("user", "secret-password"));
    let authority = server.certificates().join("ca.crt");
    let name = format!("{}/app:1", server.address);
    // Who does not know the authority is told so, and sends no password.
    let stranger = job("amd64");
    stranger
        .builder(&["push", "app", &name])
        .fails(6, &["certificate", "SSL_CERT_FILE"]);
    let lets_in = |lab: &Lab, command: &mut Command, authority: &Path| {
        let login = format!(
            r#"{{"auths":{{"{}":{{"username":"user","password":"secret-password"}}}}}}"#,
            server.address
        );
        let directory = lab.path("docker-config");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("config.json"), login).unwrap();
        command.env("SSL_CERT_FILE", authority);
    };
    append_all(&name, &|lab, command| lets_in(lab, command, &authority));
    let directory = format!("--cert-dir={}", server.certificates().display());
    read_back(&name, &[&directory, "--creds=user:secret-password"]);
    let lab = Lab::new();
    let mut command = lab.command();
    command.args(["pull", "--platform=linux/arm64", &name]);
    lets_in(&lab, &mut command, &authority);
    Ran::of(command.output().unwrap()).succeeds();
    assert_eq!(lab.saved(&name).files().text("f"), "arm64");
    share(&server, &|lab, command| lets_in(lab, command, &authority));
    let mut wrong = lab.command();
    wrong.args(["manifest", "inspect", &name]);
    wrong.env("SSL_CERT_FILE", &authority);
    wrong.env("DOCKER_CONFIG", lab.path("nobody"));
    Ran::of(wrong.output().unwrap()).fails(4, &["builder login"]);
}
