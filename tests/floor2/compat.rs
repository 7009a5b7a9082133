//! Command lines of the tools that people come from, performed: kaniko's, buildah's, podman's, docker's.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::Value;

use crate::support::lab::{Lab, Ran};
use crate::support::registry::{Access, FakeRegistry, Fault, digest_of};

/// Returns a command of the program under another name, with the lab's environment.
fn named(lab: &Lab, name: &str) -> Command {
    let directory = lab.path("programs");
    fs::create_dir_all(&directory).unwrap();
    let program = directory.join(name);
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_builder"), &program).unwrap();
    }
    let mut command = Command::new(program);
    let usual = lab.command();
    for (name, value) in usual.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .current_dir(usual.get_current_dir().unwrap())
        .stdin(std::process::Stdio::null());
    command
}

fn ran(lab: &Lab, name: &str, args: &[&str]) -> Ran {
    Ran::of(named(lab, name).args(args).output().unwrap())
}

/// Returns a lab with a context that needs no base.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.file("f", "content");
    lab.dockerfile("FROM scratch\nCOPY f /f\n");
    lab
}

fn path(lab: &Lab, name: &str) -> String {
    lab.path(name).to_str().unwrap().to_owned()
}

fn read(lab: &Lab, name: &str) -> String {
    fs::read_to_string(lab.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the digest of what a tag stands for.
fn pushed(registry: &FakeRegistry, repository: &str, tag: &str) -> String {
    let (_, bytes) = registry
        .manifest(repository, tag)
        .unwrap_or_else(|| panic!("{repository}:{tag} is not there"));
    digest_of(&bytes)
}

#[test]
fn a_job_of_kaniko_runs_as_it_stands() {
    let registry = FakeRegistry::start();
    let host = registry.host();
    let lab = lab();
    let context = format!("dir://{}", path(&lab, "context"));
    let (one, two) = (format!("{host}/app:1"), format!("{host}/other/app:2"));
    let files = ["digest", "names/name", "names/name-tag"].map(|name| path(&lab, name));
    fs::write(lab.path("digest"), "old").unwrap();
    let args = [
        "--context",
        &context,
        "--dockerfile=Dockerfile",
        "--destination",
        &one,
        "-d",
        &two,
        "--digest-file",
        &files[0],
        "--image-name-with-digest-file",
        &files[1],
        "--image-name-tag-with-digest-file",
        &files[2],
        "--cleanup",
        "--snapshotMode=redo",
        "--single-snapshot",
        "--skip-tls-verify",
        "--cache=true",
        "--log-format=text",
    ];
    let ran = ran(&lab, "executor", &args);
    ran.succeeds();
    for flag in ["--cleanup", "--snapshotMode", "--single-snapshot"] {
        let note = format!("`{flag}` means nothing here: ");
        assert_eq!(ran.stderr.matches(&note).count(), 1, "{}", ran.stderr);
    }
    let digest = pushed(&registry, "app", "1");
    assert_eq!(digest, pushed(&registry, "other/app", "2"));
    assert_eq!(read(&lab, "digest"), digest);
    assert_eq!(
        read(&lab, "names/name"),
        format!("{host}/app@{digest}\n{host}/other/app@{digest}\n")
    );
    assert_eq!(
        read(&lab, "names/name-tag"),
        format!("{one}@{digest}\n{two}@{digest}\n")
    );
    assert!(!registry.tags("app/cache").is_empty(), "the cache is kept");
    // A flag that cannot be honoured stops the job before it begins.
    let refused = self::ran(&lab, "executor", &[&args[..], &["--dryrun"]].concat());
    refused.fails(2, &["`executor --dryrun` is not supported", "builder plan"]);
    lab.is_sound();
}

#[test]
fn an_image_of_kaniko_that_is_not_pushed_is_an_archive() {
    let lab = lab();
    let (tar, layout) = (path(&lab, "i.tar"), path(&lab, "layout"));
    let context = path(&lab, "context");
    let args = [
        "executor",
        "-c",
        &context,
        "--no-push",
        "--tarPath",
        &tar,
        "--oci-layout-path",
        &layout,
        "--compression=zstd",
        "--destination=r.io/app:1",
    ];
    lab.builder(&args).succeeds();
    let listed = Command::new("tar")
        .args(["-xOf", &tar, "manifest.json"])
        .output()
        .unwrap();
    let manifest: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "r.io/app:1");
    let image = crate::support::image::Image::read_all(&lab.path("layout")).remove(0);
    assert_eq!(image.files().text("f"), "content");
    // Nothing says where to push to.
    lab.builder(&["executor", "-c", &context])
        .fails(2, &["no `--destination`"]);
}

#[test]
fn credentials_are_read_where_pipelines_write_them_for_kaniko() {
    let registry = FakeRegistry::start_with(Access::Basic {
        user: "me".to_owned(),
        password: "hunter2".to_owned(),
    });
    let host = registry.host();
    let lab = lab();
    let home = lab.path("kaniko");
    fs::create_dir_all(home.join(".docker")).unwrap();
    // me:hunter2
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6aHVudGVyMg=="}}}}}}"#);
    fs::write(home.join(".docker/config.json"), config).unwrap();
    let destination = format!("{host}/app:1");
    let context = path(&lab, "context");
    let mut command = named(&lab, "executor");
    command.args(["-c", &context, "-d", &destination]);
    command.env_remove("DOCKER_CONFIG");
    let refused = Ran::of(command.output().unwrap());
    refused.fails(6, &[]);
    command.env("KANIKO_DIR", &home);
    let ran = Ran::of(command.output().unwrap());
    ran.succeeds();
    assert!(!ran.stderr.contains("hunter2"));
    pushed(&registry, "app", "1");
}

#[test]
fn reproducible_is_the_same_digest_whatever_the_time() {
    let digest = |seconds: u64| {
        let lab = lab();
        let file = fs::File::open(lab.context().join("f")).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.set_modified(time).unwrap();
        let (file, context) = (path(&lab, "digest"), path(&lab, "context"));
        let args = [
            "executor",
            "--reproducible",
            "--no-push",
            "-c",
            &context,
            "--digest-file",
            &file,
        ];
        lab.builder(&args).succeeds();
        read(&lab, "digest")
    };
    let first = digest(1_000_000_000);
    assert!(first.starts_with("sha256:"), "{first}");
    assert_eq!(first, digest(1_500_000_000));
}

#[test]
fn a_build_that_fails_leaves_the_files_of_digests_alone() {
    let registry = FakeRegistry::start();
    let lab = lab();
    let name = format!("{}/app:1", registry.host());
    let file = path(&lab, "digest");
    fs::write(&file, "old").unwrap();
    lab.dockerfile("FROM scratch\nCOPY nothing /\n");
    lab.build(&["-t", &name, "--digest-file", &file])
        .fails(5, &[]);
    assert_eq!(read(&lab, "digest"), "old");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    registry.fault("PUT", "/manifests/", Fault::Status(403));
    lab.build(&["-t", &name, "--push", "--digest-file", &file])
        .fails(6, &[]);
    assert_eq!(read(&lab, "digest"), "old");
    lab.build(&["--image-name-with-digest-file", &file])
        .fails(2, &["needs a name"]);
    lab.build(&["-o", "type=local,dest=out", "--digest-file", &file])
        .fails(2, &["needs an output that is an image"]);
}

#[test]
fn an_archive_of_this_machine_is_a_context() {
    let lab = lab();
    let tar = path(&lab, "c.tar.gz");
    let made = Command::new("tar")
        .args(["-czf", &tar, "-C"])
        .arg(lab.context())
        .arg(".")
        .status()
        .unwrap();
    assert!(made.success());
    let context = format!("tar://{tar}");
    lab.builder(&["executor", "-c", &context, "--no-push", "-d", "one"])
        .succeeds();
    assert_eq!(lab.saved("one").files().text("f"), "content");
    lab.builder(&["build", "-t", "three", &tar]).succeeds();
    assert_eq!(lab.saved("three").files().text("f"), "content");
    let bytes = fs::read(&tar).unwrap();
    let args = [
        "executor",
        "--context=tar://stdin",
        "--no-push",
        "-d",
        "four",
    ];
    lab.builder_with_input(&args, &bytes).succeeds();
    assert_eq!(lab.saved("four").files().text("f"), "content");
    let file = path(&lab, "context/f");
    lab.builder(&["build", &file])
        .fails(4, &["neither a directory nor a tar"]);
}

#[test]
fn the_warmer_brings_the_bases_of_a_dockerfile() {
    let registry = FakeRegistry::start();
    let base = format!("{}/base:1", registry.host());
    lab_with("FROM scratch\nCOPY f /base\n")
        .build(&["-t", &base, "--push"])
        .succeeds();
    let lab = lab_with("ARG TAG\nFROM HOST/base:$TAG AS a\nFROM a\nCOPY f /\n");
    let text = fs::read_to_string(lab.context().join("Dockerfile")).unwrap();
    lab.dockerfile(&text.replace("HOST", &registry.host()));
    let file = path(&lab, "context/Dockerfile");
    let args = ["--dockerfile", &file, "--build-arg=TAG=1", "--cache-dir=/x"];
    let ran = ran(&lab, "warmer", &args);
    ran.succeeds();
    assert!(ran.stderr.contains("`--cache-dir` means nothing here"));
    assert_eq!(lab.saved(&base).files().text("base"), "content");
}

fn lab_with(dockerfile: &str) -> Lab {
    let lab = lab();
    lab.dockerfile(dockerfile);
    lab
}

#[test]
fn buildah_reads_a_containerfile_and_writes_a_log() {
    let lab = Lab::new();
    lab.file("f", "content");
    lab.file("left", "out");
    lab.file("Containerfile", "FROM scratch\nCOPY . /\n");
    lab.file(".containerignore", "left\n");
    let log = path(&lab, "log");
    let mut command = named(&lab, "buildah");
    command.args([
        "--storage-driver=vfs",
        "bud",
        "--layers",
        "--isolation=chroot",
        "-t",
        "app",
    ]);
    command.args(["--logfile", &log, "context"]);
    let ran = Ran::of(command.output().unwrap());
    ran.succeeds();
    assert_eq!(ran.stderr, "");
    let told = read(&lab, "log");
    assert!(told.contains("COPY"), "{told}");
    for flag in ["--storage-driver", "--isolation"] {
        let note = format!("`{flag}` means nothing here");
        assert_eq!(told.matches(&note).count(), 1, "{told}");
    }
    let files = lab.saved("app").files();
    assert!(files.has("f") && !files.has("left"));
    // What went wrong is in the log, too.
    lab.builder(&["bud", "--logfile", &log, "--squash", "context"])
        .fails(2, &["--squash"]);
    let mut command = named(&lab, "podman");
    let failed = Ran::of(
        command
            .args(["build", "--logfile", &log, "nowhere"])
            .output()
            .unwrap(),
    );
    failed.fails(4, &[]);
    assert_eq!(failed.stderr, "");
    assert!(read(&lab, "log").contains("does not exist"));
}

#[test]
fn buildah_puts_platforms_into_one_list_and_pushes_it() {
    let registry = FakeRegistry::start();
    let lab = lab();
    for architecture in ["arm64", "amd64", "arm64"] {
        let args = [
            "bud",
            "--arch",
            architecture,
            "--manifest",
            "list",
            "context",
        ];
        lab.builder(&args).succeeds();
    }
    assert!(lab.is_index("list"));
    assert_eq!(lab.saved_all("list").len(), 2);
    let to = format!("docker://{}/app:1", registry.host());
    let digest = path(&lab, "digest");
    let args = [
        "manifest",
        "push",
        "--all",
        "--digestfile",
        &digest,
        "list",
        &to,
    ];
    ran(&lab, "buildah", &args).succeeds();
    assert_eq!(read(&lab, "digest"), pushed(&registry, "app", "1"));
    // One more, of the state directory.
    lab.builder(&["build", "--platform=linux/s390x", "-t", "third", "context"])
        .succeeds();
    ran(&lab, "podman", &["manifest", "add", "list", "third"]).succeeds();
    assert_eq!(lab.saved_all("list").len(), 3);
    lab.is_sound();
}

#[test]
fn docker_is_a_name_of_the_program() {
    let registry = FakeRegistry::start();
    let lab = lab();
    let name = format!("{}/app:1", registry.host());
    ran(&lab, "docker", &["buildx", "create", "--use"]).succeeds();
    let built = ran(
        &lab,
        "docker",
        &[
            "buildx",
            "build",
            "--provenance=false",
            "--rm",
            "-qt",
            &name,
            "context",
        ],
    );
    assert!(built.succeeds().stdout.starts_with("sha256:"));
    assert_eq!(built.stderr, "");
    let listed = ran(&lab, "docker", &["images"]);
    assert!(
        listed.succeeds().stdout.contains("/app"),
        "{}",
        listed.stdout
    );
    ran(&lab, "docker", &["push", &name]).succeeds();
    pushed(&registry, "app", "1");
    let other = format!("{}/app:2", registry.host());
    ran(&lab, "docker", &["tag", &name, &other]).succeeds();
    ran(&lab, "docker", &["rmi", "-f", &name]).succeeds();
    ran(&lab, "docker", &["run", "--rm", &other]).fails(2, &["no `docker run` here"]);
    ran(&lab, "docker", &["build", "--sbom=true", "."]).fails(2, &["attestations"]);
    ran(&lab, "docker", &["build", "--help"]).succeeds();
    let version = ran(&lab, "docker", &["--version"]);
    assert!(version.succeeds().stdout.starts_with("builder "));
}

#[test]
fn files_of_arguments_and_of_what_is_left_out() {
    let lab = lab_with("FROM scratch\nARG A\nARG B\nCOPY . /\nLABEL a=$A b=$B\n");
    lab.file("left", "out");
    fs::write(lab.path("args"), "# of the team\n\nA=1\nB=2\n").unwrap();
    fs::write(lab.path("ignore"), "left\n").unwrap();
    let (args, ignore) = (path(&lab, "args"), path(&lab, "ignore"));
    let flags = [
        "--build-arg-file",
        &args,
        "--ignorefile",
        &ignore,
        "--build-arg=B=3",
    ];
    lab.build(&[&["-t", "x"][..], &flags].concat()).succeeds();
    let labels = &lab.inspect("x")[0]["images"][0]["config"]["config"]["Labels"];
    assert_eq!((&labels["a"], &labels["b"]), (&"1".into(), &"3".into()));
    let files = lab.saved("x").files();
    assert!(files.has("f") && !files.has("left"));
    fs::write(lab.path("args"), "A=1\nno pair\n").unwrap();
    lab.build(&["--build-arg-file", &args])
        .fails(2, &["args:2", "NAME=VALUE"]);
    lab.build(&["--ignorefile", "missing"])
        .fails(4, &["missing"]);
}
