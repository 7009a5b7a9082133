//! What the forms of five CI systems ask for, a test a row: Gitee (g), DaoCloud (d), werf (w), Zadig (z), notes on multi-stage builds (m).
//! The rows, what to write for each and its test stand in `docs/ci.md`.

use std::fs;
use std::io::{Cursor, Write as _};
use std::process::{Command, Stdio};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::support::http::{FileServer, Resource};
use crate::support::lab::{Lab, Ran};
use crate::support::registry::{Access, FakeRegistry};
use crate::support::repository::Repository;

/// Pushes a base, and returns machines that know nothing and may build on it.
fn machines<const N: usize>(registry: &FakeRegistry, dockerfile: &str) -> Option<[Lab; N]> {
    let lab = Lab::with_base()?;
    let base = format!("{}/base:v1", registry.host());
    lab.builder(&["push", "base", &base]).succeeds();
    registry.take_log();
    Some([(); N].map(|()| {
        let lab = Lab::new();
        lab.dockerfile(&dockerfile.replace("HOST", &registry.host()));
        lab
    }))
}

fn count(lines: &[String], method: &str, part: &str) -> usize {
    let found = |line: &&String| line.starts_with(method) && line.contains(part);
    lines.iter().filter(found).count()
}

/// Packs a directory with `tar`.
fn packed(lab: &Lab, directory: &str, name: &str) -> String {
    let file = lab.path(name);
    let done = Command::new("tar")
        .arg("-czf")
        .arg(&file)
        .arg("-C")
        .arg(lab.path(directory))
        .arg(".")
        .status()
        .unwrap();
    assert!(done.success());
    file.to_str().unwrap().to_owned()
}

/// Writes a file beside the context.
fn beside(lab: &Lab, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = lab.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn build_with(lab: &Lab, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = lab.command();
    command
        .args(["build", "--progress=plain"])
        .args(args)
        .arg(lab.context());
    for (name, value) in variables {
        command.env(name, value);
    }
    Ran::of(command.output().unwrap())
}

fn start(lab: &Lab, args: &[&str]) -> std::process::Child {
    lab.command()
        .args(["build", "--progress=plain"])
        .args(args)
        .arg(lab.context())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn g1_user_and_password_are_fields() {
    let registry = FakeRegistry::start_with(Access::Basic {
        user: "me".into(),
        password: "hunter2".into(),
    });
    let lab = Lab::new();
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    let host = registry.host();
    let name = format!("{host}/app:v1");
    let ran = build_with(
        &lab,
        &[
            ("BUILDER_REGISTRY", host.as_str()),
            ("BUILDER_REGISTRY_USER", "me"),
            ("BUILDER_REGISTRY_PASSWORD", "hunter2"),
        ],
        &["-t", &name, "--push"],
    );
    assert!(!ran.succeeds().stderr.contains("hunter2"));
    assert!(registry.manifest("app", "v1").is_some());
}

#[test]
fn g2_names_are_checked_and_may_come_from_a_file() {
    let lab = Lab::new();
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    let file = beside(&lab, "tags", "# of this run\n\napp:v1.7\n  other/app:7  \n");
    lab.build(&["-t", "app:latest", "--tag-file", &file])
        .succeeds();
    for name in ["app:latest", "app:v1.7", "other/app:7"] {
        lab.builder(&["inspect", name]).succeeds();
    }
    lab.build(&["-t", "app:v1.${BUILD_NUMBER}"])
        .fails(2, &["app:v1.${BUILD_NUMBER}", "not `$`"]);
    let file = beside(&lab, "tags", "app:fine\napp:v 1\n");
    lab.build(&["--tag-file", &file])
        .fails(2, &["tags:2: ", "not a blank"]);
    lab.build(&["--tag-file", "none"])
        .fails(2, &["cannot read `none`"]);
}

#[test]
fn g3_paths_are_relative_to_the_repository() {
    let lab = Lab::new();
    lab.file("service/f", "of the service");
    lab.file("service/docker/Dockerfile", "FROM scratch\nCOPY f /\n");
    let root = lab.context();
    let root = root.to_str().unwrap();
    let build = |args: &[&str]| {
        let mut all = vec!["-C", root, "build", "--progress=plain"];
        all.extend(args);
        lab.builder(&all)
    };
    // From the working directory, else from the context.
    for file in ["service/docker/Dockerfile", "docker/Dockerfile"] {
        build(&["-t", "image", "-f", file, "service"]).succeeds();
        assert_eq!(lab.saved("image").files().text("f"), "of the service");
    }
    build(&["-f", "docker/Other", "service"]).fails(
        3,
        &[
            &format!("`{root}/docker/Other` does not exist"),
            &format!("`{root}/service/docker/Other` does not exist"),
        ],
    );
    lab.builder(&["-C", "no/where", "build", "."])
        .fails(2, &["no/where"]);
}

#[test]
fn g4_artifacts_lie_over_the_context() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("src/main.c", "main");
    lab.file("target/old.jar", "old");
    lab.dockerfile("FROM base\nCOPY . /c\nCOPY target/app.jar /app.jar\nRUN cat /app.jar > /ran\n");
    beside(&lab, "artifact/target/app.jar", "first");
    beside(&lab, "artifact/run.sh", "run");
    let archive = packed(&lab, "artifact", "artifact.tgz");
    let server = FileServer::start();
    server.put("/dist.tgz", Resource::new(fs::read(&archive).unwrap()));
    let before = walk(&lab);

    let url = format!("{}:web/dist/", server.url("/dist.tgz"));
    let other = beside(&lab, "app-2.jar", "second");
    let last = format!("{other}:target/app.jar");
    let overlays = [
        "-t",
        "image",
        "--context-overlay",
        &archive,
        "--context-overlay",
        &url,
        "--context-overlay",
        &last,
    ];
    let ran = lab.build(&overlays);
    assert_eq!(ran.succeeds().executed(), 3, "{}", ran.stderr);
    let files = lab.saved("image").files();
    assert_eq!(files.text("ran"), "second", "the later one wins");
    assert_eq!(files.text("c/run.sh"), "run");
    assert_eq!(files.text("c/src/main.c"), "main");
    assert_eq!(files.text("c/target/old.jar"), "old");
    assert_eq!(files.text("c/web/dist/target/app.jar"), "first");
    assert_eq!(before, walk(&lab), "nothing is written to the workspace");

    // Content counts, not where it comes from.
    assert_eq!(lab.build(&overlays).succeeds().executed(), 0);
    beside(&lab, "app-2.jar", "third");
    assert_eq!(lab.build(&overlays).succeeds().executed(), 3);
    let expanded = lab.path("artifact");
    let expanded = expanded.to_str().unwrap();
    lab.build(&["-t", "image", "--context-overlay", expanded])
        .succeeds();
    assert_eq!(lab.saved("image").files().text("ran"), "first");
    // Ignore files are about what is laid over as well: as if it had been unpacked there.
    lab.file(".dockerignore", "target/*.jar\n");
    lab.build(&["--context-overlay", &archive])
        .fails(5, &["target/app.jar", ".dockerignore"]);
    lab.is_sound();
}

#[test]
fn g4_a_damaged_archive_is_refused() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch\nCOPY . /\n");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("a.txt", stored).unwrap();
    zip.write_all(b"GOOD content").unwrap();
    let mut bytes = zip.finish().unwrap().into_inner();
    let sound = beside(&lab, "sound.zip", &bytes);
    lab.build(&["--context-overlay", &sound]).succeeds();
    let at = bytes.windows(4).position(|window| window == b"GOOD");
    bytes[at.unwrap()] = b'W';
    let damaged = beside(&lab, "damaged.zip", &bytes);
    lab.build(&["--context-overlay", &damaged])
        .fails(4, &["cannot lay", "damaged.zip", "checksum"]);
    lab.is_sound();
}

#[test]
fn g4_artifacts_lie_over_contexts_from_elsewhere() {
    let Some(lab) = Lab::with_base() else { return };
    let repository = Repository::new(&lab.path("git"), "app");
    repository
        .file("Dockerfile", "FROM scratch\nCOPY . /c\n")
        .file("src/a", "committed");
    repository.commit();
    let artifact = format!("{}:src/", beside(&lab, "b", "artifact"));
    let url = repository.file_url();
    let ran = lab.builder(&[
        "build",
        "--progress=plain",
        "-t",
        "image",
        "--context-overlay",
        &artifact,
        &url,
    ]);
    ran.succeeds();
    let files = lab.saved("image").files();
    assert_eq!(files.text("c/src/a"), "committed");
    assert_eq!(files.text("c/src/b"), "artifact");
    let text = b"FROM scratch\nCOPY src/b /b\n";
    let ran = lab.builder_with_input(
        &["build", "-t", "image", "--context-overlay", &artifact, "-"],
        text,
    );
    ran.succeeds();
    assert_eq!(lab.saved("image").files().text("b"), "artifact");
}

#[test]
fn g4_hostile_artifacts_stay_beneath_the_context() {
    let Some(lab) = Lab::with_base() else { return };
    let secret = beside(&lab, "secret", "host-secret");
    lab.dockerfile("FROM scratch\nCOPY . /c\n");
    let folder = lab.path("evil");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(lab.path("."), folder.join("out")).unwrap();
    let archive = packed(&lab, "evil", "evil.tgz");
    // A second one that goes through the link of the first.
    let file = beside(&lab, "planted", "planted");
    let through = format!("{file}:out/secret");
    let ran = lab.build(&[
        "-t",
        "image",
        "--context-overlay",
        &archive,
        "--context-overlay",
        &through,
    ]);
    ran.succeeds();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "host-secret");
    assert_eq!(lab.saved("image").files().text("c/out/secret"), "planted");
    lab.dockerfile("FROM scratch\nCOPY out/secret /s\n");
    lab.build(&["--context-overlay", &archive])
        .fails(5, &["out/secret"]);
    for (overlay, text) in [
        ("none.tgz", "no such file or directory"),
        (&format!("{file}:../x"), "leads out of the context"),
        ("http://127.0.0.1:1/x.tgz", "127.0.0.1:1"),
    ] {
        let ran = lab.build(&["--retry=0", "--context-overlay", overlay]);
        assert!(matches!(ran.code, Some(2 | 4)), "{overlay}: {ran:?}");
        assert!(ran.stderr.contains(text), "{overlay}: {}", ran.stderr);
    }
    let torn = beside(&lab, "torn.zip", b"PK\x03\x04 and no more");
    lab.build(&["--context-overlay", &torn])
        .fails(4, &["torn.zip", "zip archive"]);
    lab.is_sound();
}

/// Returns every path of the context.
fn walk(lab: &Lab) -> Vec<std::path::PathBuf> {
    let mut found = vec![lab.context()];
    let mut at = 0;
    while at < found.len() {
        if found[at].is_dir() {
            let entries = fs::read_dir(&found[at]).unwrap();
            found.extend(entries.map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}

#[test]
fn g5_the_cache_is_switched_as_a_form_switches_it() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base AS a\nRUN echo a > /a\nFROM base AS b\nRUN echo b > /b\nCOPY --from=a /a /\n",
    );
    let executed = |args: &[&str]| lab.build(args).succeeds().executed();
    assert_eq!(executed(&[]), 3);
    for (args, expected) in [
        (&["--no-cache=false"][..], 0),
        (&["--no-cache=true", "--no-cache=false"], 0),
        (&["--no-cache=true", "--push=false", "--pull=0"], 3),
        (&["--no-cache-filter", "b"], 2),
    ] {
        assert_eq!(executed(args), expected, "{args:?}");
    }
    assert_eq!(lab.build(&["--no-cache=perhaps"]).code, Some(2));
}

#[test]
fn g6_build_arguments_come_from_flags_files_and_the_environment() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nARG A\nARG B\nARG C\nRUN echo $A $B $C > /args\n");
    let file = beside(&lab, "args", "# from a form\nA=file\nB=file\n");
    let args = [
        "-t",
        "image",
        "--build-arg-file",
        &file,
        "--build-arg",
        "B=flag",
        "--build-arg",
        "C",
    ];
    build_with(&lab, &[("C", "environment")], &args).succeeds();
    let files = lab.saved("image").files();
    assert_eq!(files.text("args"), "file flag environment\n");
}

#[test]
fn g7_outputs_have_the_names_that_were_chosen() {
    let lab = Lab::new();
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    let file = lab.path("build.env");
    for name in ["app1", "app2"] {
        let alias = format!("image={}_IMAGE", name.to_uppercase());
        lab.build(&[
            "-t",
            &format!("{name}:v1"),
            "--outputs",
            file.to_str().unwrap(),
            "--outputs-append",
            "--outputs-alias",
            &alias,
        ])
        .succeeds();
    }
    let told = fs::read_to_string(&file).unwrap();
    for line in ["APP1_IMAGE=", "APP2_IMAGE="] {
        assert_eq!(told.matches(line).count(), 1, "{told}");
    }
    lab.build(&["--outputs", "x", "--outputs-alias", "imgae=X"])
        .fails(2, &["imgae"]);
}

#[test]
fn g8_images_of_one_artifact_are_built_at_once() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base AS artifact\nRUN head -c 16 /dev/urandom > /artifact\n\
         FROM base AS one\nCOPY --from=artifact /artifact /\n\
         FROM base AS two\nCOPY --from=artifact /artifact /two\n",
    );
    let builds = ["one", "two"].map(|name| start(&lab, &["-t", name, "--target", name]));
    for build in builds {
        Ran::of(build.wait_with_output().unwrap()).succeeds();
    }
    let [one, two] = [("one", "artifact"), ("two", "two")]
        .map(|(name, path)| lab.saved(name).files().get(path).content.clone());
    assert_eq!(one, two, "the artifact was made once");
    lab.is_sound();
}

#[test]
fn g9_installing_in_a_build_costs_once() {
    let Some(lab) = Lab::with_base() else { return };
    let dockerfile = |list: &str| {
        lab.file("list", list);
        lab.dockerfile(
            "FROM base AS install\nCOPY list /\n\
             RUN --mount=type=cache,target=/cache echo x >> /cache/downloads; sort /list > /sorted\n\
             FROM base\nCOPY --from=install /sorted /\nRUN cat /sorted > /used\n",
        );
    };
    dockerfile("a\nb\n");
    assert_eq!(lab.build(&[]).succeeds().executed(), 4);
    // Another input with the same result: what comes after is not executed.
    dockerfile("b\na\n");
    assert_eq!(lab.build(&[]).succeeds().executed(), 2);
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/cache cp /cache/downloads /n\n");
    lab.build(&["-t", "image"]).succeeds();
    assert_eq!(lab.saved("image").files().text("n"), "x\nx\n");
}

#[test]
fn d1_directory_and_dockerfile_are_chosen_separately() {
    let lab = Lab::new();
    lab.file("app/f", "x");
    let file = beside(&lab, "elsewhere/build.docker", "FROM scratch\nCOPY f /\n");
    let directory = lab.context().join("app");
    let ran = lab.builder(&[
        "build",
        "-t",
        "image",
        "-f",
        &file,
        directory.to_str().unwrap(),
    ]);
    ran.succeeds();
    assert!(lab.saved("image").files().has("f"));
}

#[test]
fn d2_a_branch_is_the_context() {
    let Some(lab) = Lab::with_base() else { return };
    let repository = Repository::new(&lab.path("git"), "app");
    repository
        .file("sub/Dockerfile", "FROM scratch\nCOPY f /\n")
        .file("sub/f", "main");
    repository.commit();
    repository.git(&["checkout", "-q", "-b", "release"]);
    repository.file("sub/f", "release");
    repository.commit();
    for branch in ["main", "release"] {
        let url = format!("{}#{branch}:sub", repository.file_url());
        lab.builder(&["build", "-t", "image", &url]).succeeds();
        assert_eq!(lab.saved("image").files().text("f"), branch);
    }
}

#[test]
fn d3_the_cache_may_be_off_or_hold_the_last_build() {
    let Some(lab) = Lab::with_base() else { return };
    let shared = lab.path("shared");
    let shared = shared.to_str().unwrap();
    let dockerfile = |text: &str| lab.dockerfile(&format!("FROM base\nRUN echo {text} > /f\n"));
    let executed = |args: &[&str]| lab.build(args).succeeds().executed();
    dockerfile("one");
    assert_eq!(executed(&["--cache=on"]), 1);
    assert_eq!(executed(&["--cache=off", "--cache-to", shared]), 1);
    assert!(!lab.path("shared").exists(), "nothing is given to others");
    lab.build(&["--cache=off", "--cache", shared])
        .fails(2, &["contradict"]);
    dockerfile("two");
    assert_eq!(executed(&[]), 1);
    lab.builder(&["cache", "prune", "--keep-last", "1"])
        .succeeds();
    assert_eq!(executed(&[]), 0);
    dockerfile("one");
    assert_eq!(executed(&[]), 1);
}

#[test]
fn d4_a_file_of_the_repository_speaks_where_the_form_says_nothing() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch\nCOPY one /\nFROM scratch AS other\nCOPY two /\n");
    lab.file("one", "");
    lab.file("two", "");
    lab.file(
        "deploy/Dockerfile",
        "FROM scratch AS first\nCOPY one /\nFROM first AS second\nCOPY two /\n",
    );
    lab.file(
        "builder.toml",
        "file = \"deploy/Dockerfile\"\ntarget = \"first\"\n[label]\nof = \"the file\"\n",
    );
    let built = |variables: &[(&str, &str)], args: &[&str]| {
        let args = [args, &["-t", "x"]].concat();
        build_with(&lab, variables, &args).succeeds();
        let files = lab.saved("x").files();
        (files.has("one"), files.has("two"))
    };
    assert_eq!(built(&[], &[]), (true, false));
    let labels = &lab.inspect("x")[0]["images"][0]["config"]["config"]["Labels"];
    assert_eq!(labels["of"], "the file");
    let form = [("BUILDER_TARGET", "second")];
    assert_eq!(built(&form, &[]), (true, true));
    assert_eq!(built(&form, &["--target=first"]), (true, false));
    // Without the file, its Dockerfile is not there either.
    assert_eq!(built(&[], &["--no-config"]), (false, true));
    let mut shown = lab.command();
    shown.args(["build", "--print-config"]).arg(lab.context());
    shown.env("BUILDER_TARGET", "second");
    let shown = Ran::of(shown.output().unwrap());
    let line = "target = \"second\"  # BUILDER_TARGET";
    assert!(shown.succeeds().stdout.contains(line), "{}", shown.stdout);
}

#[test]
fn d5_nothing_is_delivered_unless_the_tests_succeed() {
    let registry = FakeRegistry::start();
    let Some(lab) = Lab::with_base() else { return };
    let dockerfile = |test: &str| {
        lab.dockerfile(&format!(
            "FROM base AS compile\nRUN echo made > /made\n\
             FROM compile AS test\nRUN {test}\n\
             FROM base\nCOPY --from=compile /made /\n"
        ));
    };
    let name = format!("{}/app:v1", registry.host());
    let build = |stage: &str| lab.build(&["-t", &name, "--push", "--require-stage", stage]);
    dockerfile("test $(cat /made) = other");
    build("test").fails(5, &["test $(cat /made) = other"]);
    assert_eq!(registry.manifest("app", "v1"), None);
    lab.build(&["-t", "untested"]).succeeds();
    dockerfile("test $(cat /made) = made && echo x > /of-the-test");
    assert_eq!(build("test").succeeds().steps().0, 3);
    assert!(registry.manifest("app", "v1").is_some());
    // Its files are in no image, and the next time all of it is known.
    assert_eq!(build("test").succeeds().executed(), 0);
    lab.build(&["-t", "image", "--require-stage=test,compile"])
        .succeeds();
    let files = lab.saved("image").files();
    assert!(files.has("made") && !files.has("of-the-test"));
    build("tset").fails(3, &["no stage `tset`", "did you mean `test`?"]);
}

#[test]
fn d6_mirrors_near_the_runner_are_asked_first() {
    let registry = FakeRegistry::start();
    let Some([lab]) = machines(
        &registry,
        "FROM far.test/base:v1\nRUN echo $HTTP_PROXY | grep -q near\n",
    ) else {
        return;
    };
    let mirror = format!("far.test={}", registry.url());
    let args = [
        "--registry-mirror",
        &mirror,
        "--build-arg",
        "HTTP_PROXY=http://near:3128",
    ];
    assert_eq!(lab.build(&args).succeeds().executed(), 1);
    let lines = registry.take_lines();
    assert!(count(&lines, "GET", "/base/blobs/") > 0, "{lines:#?}");
}

#[test]
fn d7_the_log_and_the_state_say_what_happened() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo seen-line; exit 3\n");
    lab.build(&[]).fails(5, &["seen-line", "Dockerfile:2"]);
    lab.dockerfile("FRM base\n");
    lab.build(&[]).fails(3, &["FRM"]);
    lab.dockerfile("FROM base\nCOPY none /\n");
    lab.build(&["--no-such-flag"]).fails(2, &[]);
    lab.dockerfile("FROM 127.0.0.1:1/none\n");
    lab.build(&["--retry=0"]).fails(4, &["127.0.0.1:1/none"]);
    lab.dockerfile("FROM base\nRUN true\n");
    let metadata = lab.path("result.json");
    lab.build(&["--metadata-file", metadata.to_str().unwrap()])
        .succeeds();
    let told = fs::read_to_string(&metadata).unwrap();
    assert!(told.contains("containerimage.digest"), "{told}");
}

#[test]
fn d8_a_git_tag_is_a_release() {
    let Some(lab) = Lab::with_base() else { return };
    let repository = Repository::new(&lab.path("git"), "app");
    repository
        .file("Dockerfile", "FROM scratch\nCOPY f /\n")
        .file("f", "released");
    repository.commit();
    repository.git(&["tag", "v1.2.0"]);
    repository.file("f", "later");
    repository.commit();
    let url = format!("{}#v1.2.0", repository.file_url());
    lab.builder(&["build", "-t", "app:v1.2.0", "-t", "app:latest", &url])
        .succeeds();
    assert_eq!(lab.saved("app:v1.2.0").files().text("f"), "released");
}

#[test]
fn w1_content_that_the_registry_has_is_only_named() {
    let registry = FakeRegistry::start();
    let text = "FROM HOST/base:v1\nRUN head -c 16 /dev/urandom > /f\n";
    let Some([first, second]) = machines(&registry, text) else {
        return;
    };
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    first
        .build(&["--content-tag", "-t", &name("v1"), "--push"])
        .succeeds();
    let tag = second.builder(&["digest", second.context().to_str().unwrap()]);
    let tag = tag.succeeds().stdout.trim().to_owned();
    assert!(registry.manifest("app", &tag).is_some(), "{tag}");
    let again = second.build(&["--content-tag", "-t", &name("v2"), "--push"]);
    assert_eq!(again.succeeds().executed(), 0);
    assert_eq!(
        registry.manifest("app", "v1"),
        registry.manifest("app", "v2")
    );
}

#[test]
fn w2_local_and_shared_caches_mean_the_same() {
    let registry = FakeRegistry::start();
    let text = "FROM HOST/base:v1\nRUN echo 1 > /1\nRUN echo 2 > /2\n";
    let Some([first, second]) = machines(&registry, text) else {
        return;
    };
    let cache = format!("{}/app/cache", registry.host());
    assert_eq!(first.build(&["--cache", &cache]).succeeds().executed(), 2);
    assert_eq!(second.build(&["--cache", &cache]).succeeds().executed(), 0);
    assert_eq!(first.build(&[]).succeeds().executed(), 0);
}

#[test]
fn w3_what_is_not_needed_is_not_downloaded() {
    let registry = FakeRegistry::start();
    let text = "FROM HOST/base:v1\nRUN echo 1 > /1\nRUN echo 2 > /2\n";
    let Some([first, second]) = machines(&registry, text) else {
        return;
    };
    let cache = format!("{}/app/cache", registry.host());
    let name = format!("{}/app:v1", registry.host());
    first
        .build(&["--cache", &cache, "-t", &name, "--push"])
        .succeeds();
    let (_, manifest) = registry.manifest("app", "v1").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    registry.take_log();
    let again = second.build(&["--cache", &cache, "-t", &name, "--push"]);
    assert_eq!(again.succeeds().executed(), 0);
    let lines = registry.take_lines();
    for layer in manifest["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        assert_eq!(count(&lines, "GET", digest), 0, "{lines:#?}");
    }
}

#[test]
fn w4_a_step_is_executed_once_however_many_builds_want_it() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN head -c 16 /dev/urandom > /f\n");
    let builds = ["one", "two", "three"].map(|name| start(&lab, &["-t", name]));
    for build in builds {
        Ran::of(build.wait_with_output().unwrap()).succeeds();
    }
    let [one, two, three] =
        ["one", "two", "three"].map(|name| lab.saved(name).files().get("f").content.clone());
    assert!(one == two && two == three);
    lab.is_sound();
}

#[test]
fn w5_what_a_shared_cache_has_is_not_published_again() {
    let registry = FakeRegistry::start();
    let text = "FROM HOST/base:v1\nRUN echo 1 > /1\n";
    let Some([first, second]) = machines(&registry, text) else {
        return;
    };
    let cache = format!("{}/app/cache", registry.host());
    first.build(&["--cache", &cache]).succeeds();
    // One that built for itself before it heard of the cache.
    second.build(&[]).succeeds();
    registry.take_log();
    second.build(&["--cache", &cache]).succeeds();
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "POST", "/blobs/uploads"), 0, "{lines:#?}");
}

#[test]
fn w6_a_commit_that_changes_other_files_executes_nothing() {
    let Some(lab) = Lab::with_base() else { return };
    let repository = Repository::new(&lab.path("git"), "app");
    repository
        .file(
            "Dockerfile",
            "FROM base\nCOPY src /src\nRUN cat /src/a > /made\n",
        )
        .file("src/a", "a")
        .file("README", "one");
    repository.commit();
    let url = repository.file_url();
    let build = || lab.builder(&["build", "--progress=plain", &url]);
    assert_eq!(build().succeeds().executed(), 2);
    repository.file("README", "two");
    repository.commit();
    assert_eq!(build().succeeds().executed(), 0);
    repository.file("src/a", "b");
    repository.commit();
    assert_eq!(build().succeeds().executed(), 2);
}

#[test]
fn w7_caches_are_shared_through_mounts() {
    let Some(lab) = Lab::with_base() else { return };
    for round in ["one", "two"] {
        lab.dockerfile(&format!(
            "FROM base\nRUN --mount=type=cache,id=deps,target=/deps echo {round} >> /deps/log; cp /deps/log /log\n"
        ));
        lab.build(&["-t", "image"]).succeeds();
    }
    let files = lab.saved("image").files();
    assert_eq!(files.text("log"), "one\ntwo\n");
    assert!(!files.has("deps/log"));
}

#[test]
fn w8_tools_are_mounted_and_not_installed() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN mkdir /tools && echo 'echo from-the-tool' > /tools/run\n");
    lab.build(&["-t", "tools"]).succeeds();
    let files = lab.files(
        "FROM base\nRUN --mount=type=bind,from=tools,source=/tools,target=/t sh /t/run > /said\n",
    );
    assert_eq!(files.text("said"), "from-the-tool\n");
    assert!(!files.has("tools/run") && !files.has("t/run"));
}

#[test]
fn w9_cmd_and_entrypoint_follow_dockers_rules() {
    let lab = Lab::new();
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nCOPY f /\nENTRYPOINT [\"entry\"]\nCMD [\"cmd\"]\n");
    lab.build(&["-t", "parent"]).succeeds();
    for (own, entrypoint, cmd) in [
        ("", &["entry"][..], &["cmd"][..]),
        ("CMD [\"c\"]\n", &["entry"], &["c"]),
        // The base's CMD was for the base's ENTRYPOINT.
        ("ENTRYPOINT [\"e\"]\n", &["e"], &[]),
        ("ENTRYPOINT [\"e\"]\nCMD [\"c\"]\n", &["e"], &["c"]),
    ] {
        lab.dockerfile(&format!("FROM parent\n{own}"));
        lab.build(&["-t", "image"]).succeeds();
        let image = lab.saved("image");
        assert_eq!(image.list("/config/Entrypoint"), entrypoint, "{own}");
        assert_eq!(image.list("/config/Cmd"), cmd, "{own}");
    }
}

#[test]
fn w10_image_and_artifact_come_of_one_build() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base AS artifact\nRUN head -c 16 /dev/urandom > /artifact\n\
         FROM base\nCOPY --from=artifact /artifact /\n",
    );
    let out = lab.path("out");
    let output = format!("type=local,dest={},target=artifact", out.display());
    lab.build(&["-t", "image", "--jobs=5", "-o", &output])
        .succeeds();
    let artifact = fs::read(out.join("artifact")).unwrap();
    let files = lab.saved("image").files();
    assert_eq!(files.get("artifact").content, artifact);
}

#[test]
fn w11_a_cache_version_sets_everything_apart() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "x");
    lab.dockerfile("FROM base\nWORKDIR /w\nCOPY f .\nCOPY --link f /linked/\nRUN cat f > g\n");
    let build = |version: &str| lab.build(&["--cache-version", version]);
    assert_eq!(lab.build(&[]).succeeds().executed(), 4);
    assert_eq!(build("").succeeds().executed(), 0);
    assert_eq!(build("7").succeeds().executed(), 4);
    assert_eq!(build("7").succeeds().executed(), 0);
    let changed = build("8");
    assert_eq!(changed.succeeds().executed(), 4);
    assert!(
        changed.stderr.contains("`cache version` 7 → 8"),
        "{}",
        changed.stderr
    );
    assert_eq!(build("7").succeeds().executed(), 0, "the old one is there");
}

#[test]
fn w12_a_failed_step_can_be_looked_into() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo seen > /made; false\n");
    let bundle = lab.path("failed");
    let save = format!("save:{}", bundle.display());
    lab.build(&["--on-error", &save])
        .fails(5, &["builder debug"]);
    let ran = lab.builder(&["debug", bundle.to_str().unwrap(), "--", "cat", "/made"]);
    assert_eq!(ran.succeeds().stdout, "seen\n");
}

#[test]
fn z1_neither_daemon_nor_privilege_is_needed() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo x > /f\n");
    let daemon = [("DOCKER_HOST", "unix:///nowhere/docker.sock")];
    build_with(&lab, &daemon, &["--no-cache"]).succeeds();
}

#[test]
fn z2_arguments_are_one_text() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nARG service=none\nARG text=none\nARG other=none\nRUN echo $service:$text:$other > /args\n");
    let text = "--build-arg service=api --build-arg=text='a  b' other=\"x\"";
    for (variables, args, expected) in [
        (&[("BUILDER_ARGS", text)][..], &[][..], "api:a b:x\n"),
        (&[], &["--args-string", text], "api:a b:x\n"),
        (
            &[],
            &["--args-string", text, "--build-arg", "other=flag"],
            "api:a b:flag\n",
        ),
        (&[("BUILDER_ARGS", "")], &[], "none:none:none\n"),
    ] {
        let mut all = vec!["-t", "image"];
        all.extend(args);
        build_with(&lab, variables, &all).succeeds();
        assert_eq!(lab.saved("image").files().text("args"), expected);
    }
    lab.build(&["--args-string", "a=1 --no-cache"])
        .fails(2, &["word 2 of it", "NAME=VALUE"]);
}

#[test]
fn z3_the_dockerfile_is_a_template_from_elsewhere() {
    let lab = Lab::new();
    lab.file("kept", "kept");
    lab.file("left-out", "left out");
    lab.file(".dockerignore", "left-out\n");
    let template = "FROM scratch\nCOPY . /c\n";
    let file = beside(&lab, "templates/go.docker", template);
    let server = FileServer::start();
    server.put("/go.docker", Resource::new(template));
    let url = server.url("/go.docker");
    let context = lab.context();
    for (name, input) in [(file.as_str(), ""), (url.as_str(), ""), ("-", template)] {
        let args = [
            "build",
            "-t",
            "image",
            "-f",
            name,
            context.to_str().unwrap(),
        ];
        lab.builder_with_input(&args, input.as_bytes()).succeeds();
        let files = lab.saved("image").files();
        assert!(files.has("c/kept") && !files.has("c/left-out"), "{name}");
    }
}

#[test]
fn z4_one_platform_is_a_manifest_and_several_are_an_index() {
    let lab = Lab::new();
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    for (platforms, is_index) in [("linux/arm64", false), ("linux/amd64,linux/arm64", true)] {
        lab.build(&["-t", "image", "--platform", platforms])
            .succeeds();
        assert_eq!(lab.is_index("image"), is_index, "{platforms}");
    }
}

#[test]
fn z5_the_state_directory_lies_on_a_volume() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo x > /f\n");
    lab.build(&[]).succeeds();
    lab.builder(&["prune"]).succeeds();
    // Another job, for which the volume is read-only.
    let volume = lab.state();
    let own = lab.path("own");
    let ran = lab.build(&[
        "--root",
        own.to_str().unwrap(),
        "--lower-root",
        volume.to_str().unwrap(),
    ]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
}

#[test]
fn z6_a_timeout_ends_every_process() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo done > /f\nRUN while true; do sleep 0.1; done\n");
    // Enough for the first step on any machine that ends at all.
    let mut limit = 2;
    loop {
        let ran = lab.build(&["--timeout", &format!("{limit}s")]);
        ran.fails(7, &[]);
        if ran.stderr.contains("RUN echo done > /f") && ran.stderr.contains("DONE") || limit > 60 {
            break;
        }
        limit *= 2;
    }
    lab.dockerfile("FROM base\nRUN echo done > /f\n");
    assert_eq!(
        lab.build(&[]).succeeds().executed(),
        0,
        "what was done stays"
    );
    lab.is_sound();
}

#[test]
fn z7_steps_have_limits() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo x > /f\n");
    // Where control groups cannot be had, the build says so and goes on.
    lab.build(&["-m", "256m", "--cpus", "1.5", "--pids-limit", "64"])
        .succeeds();
    lab.build(&["-m", "much"]).fails(2, &["`--memory much`"]);
}

#[test]
fn z8_outputs_are_lines_of_ones_own() {
    let lab = Lab::new();
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    let (file, digest) = (lab.path("outputs"), lab.path("digest"));
    let args = [
        "-t",
        "app:v1",
        "--outputs",
        file.to_str().unwrap(),
        "--outputs-line",
        "PKG={{.ref}}@{{.digest}}",
        "--digest-file",
        digest.to_str().unwrap(),
    ];
    lab.build(&args).succeeds();
    let digest = fs::read_to_string(&digest).unwrap();
    let told = fs::read_to_string(&file).unwrap();
    assert!(
        told.starts_with("PKG=") && told.contains("app:v1@"),
        "{told}"
    );
    assert!(told.trim_end().ends_with(digest.trim()), "{told}");
}

#[test]
fn z9_credentials_are_secrets() {
    let Some(lab) = Lab::with_base() else { return };
    const VALUE: &str = "cr3dential-9f2e";
    lab.dockerfile("FROM base\nRUN --mount=type=secret,id=k test $(cat /run/secrets/k | wc -c) = 15 && cat /run/secrets/k\n");
    let args = ["-t", "image", "--secret", "id=k,env=TOKEN"];
    let ran = build_with(&lab, &[("TOKEN", VALUE)], &args);
    assert!(!ran.succeeds().stderr.contains(VALUE), "{}", ran.stderr);
    assert!(!lab.builder(&["inspect", "image"]).stdout.contains(VALUE));
    lab.dockerfile("FROM base\nARG PASSWORD\nRUN true\n");
    let ran = lab.build(&["--build-arg", &format!("PASSWORD={VALUE}")]);
    assert!(ran.succeeds().stderr.contains("SecretsUsedInArgOrEnv"));
}

#[test]
fn z10_submodules_come_with_the_repository() {
    let Some(lab) = Lab::with_base() else { return };
    let (server, folder) = (FileServer::start(), lab.path("git"));
    server.folder("", folder.clone());
    let library = Repository::new(&folder, "library");
    library.file("f", "of the library");
    library.commit();
    let repository = Repository::new(&folder, "app");
    repository.file("Dockerfile", "FROM scratch\nCOPY lib/f /\n");
    let url = server.url("/library.git");
    repository.git(&["submodule", "--quiet", "add", &library.file_url(), "lib"]);
    repository.git(&["config", "-f", ".gitmodules", "submodule.lib.url", &url]);
    repository.commit();
    lab.builder(&["build", "-t", "image", &server.url("/app.git")])
        .succeeds();
    assert_eq!(lab.saved("image").files().text("f"), "of the library");
}

#[test]
fn z11_an_image_is_pushed_and_files_are_archived_by_one_build() {
    let registry = FakeRegistry::start();
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base AS compile\nRUN echo made > /made\n\
         FROM scratch AS package\nCOPY --from=compile /made /pkg/made\n\
         FROM base\nCOPY --from=compile /made /\n",
    );
    let name = format!("{}/app:v1", registry.host());
    let (out, tar) = (lab.path("out"), lab.path("package.tar"));
    let local = format!("type=local,dest={},target=package", out.display());
    let archive = format!("type=tar,dest={},target=package", tar.display());
    for executed in [3, 0] {
        let ran = lab.build(&["-t", &name, "--push", "-o", &local, "-o", &archive]);
        assert_eq!(ran.succeeds().executed(), executed);
        assert_eq!(fs::read_to_string(out.join("pkg/made")).unwrap(), "made\n");
        assert!(!out.join("made").exists());
        assert!(registry.manifest("app", "v1").is_some());
        fs::remove_file(&tar).unwrap();
        fs::remove_dir_all(&out).unwrap();
    }
    lab.build(&["-o", "type=oci,dest=x,target=package"])
        .fails(2, &["type=local and type=tar"]);
    lab.build(&["-o", "type=local,dest=x,target=pakage"])
        .fails(3, &["did you mean `package`?"]);
}

#[test]
fn z12_old_hosts_have_a_way() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo x > /f\n");
    // Without overlayfs.
    lab.build(&["-t", "image", "--storage-driver=tree", "--no-cache"])
        .succeeds();
    assert_eq!(lab.saved("image").files().text("f"), "x\n");
    assert!(lab.builder(&["doctor"]).stdout.contains("steps"));
}

#[test]
fn z13_devices_need_leave() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN --device=vendor.example/gpu=all true\n");
    lab.build(&[])
        .fails(3, &["--allow device=", "vendor.example/gpu"]);
    lab.build(&["--allow", "device=vendor.example/gpu"])
        .succeeds();
}

#[test]
fn z14_services_of_one_template_share_their_stages() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base AS tools\nRUN echo tools > /tools\n\
         FROM base\nARG SERVICE\nCOPY --from=tools /tools /\nRUN echo $SERVICE > /service\n",
    );
    for (service, executed) in [("api", 3), ("web", 1)] {
        let args = format!("--build-arg SERVICE={service}");
        let ran = build_with(&lab, &[("BUILDER_ARGS", &args)], &["-t", service]);
        assert_eq!(ran.succeeds().executed(), executed);
        let files = lab.saved(service).files();
        assert_eq!(files.text("service"), format!("{service}\n"));
    }
}

#[test]
fn m1_stages_are_copied_from_by_name_by_number_and_by_image() {
    let Some(lab) = Lab::with_base() else { return };
    let files = lab.files(
        "FROM base AS one\nRUN echo 1 > /1\nFROM base\nRUN echo 2 > /2\n\
         FROM scratch\nCOPY --from=one /1 /\nCOPY --from=1 /2 /\nCOPY --from=base /etc/passwd /passwd\n",
    );
    assert_eq!(
        (files.text("1"), files.text("2")),
        ("1\n".into(), "2\n".into())
    );
    assert!(files.has("passwd"));
}

#[test]
fn m2_only_the_last_stages_layers_leave() {
    let registry = FakeRegistry::start();
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base AS compile\nRUN echo big > /big && echo small > /small\nFROM scratch\nCOPY --from=compile /small /\n");
    let name = format!("{}/app:v1", registry.host());
    lab.build(&["-t", &name, "--push"]).succeeds();
    let lines = registry.take_lines();
    // One layer and the config.
    assert_eq!(count(&lines, "POST", "/blobs/uploads"), 2, "{lines:#?}");
}

#[test]
fn m3_the_gain_is_shown() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base AS compile\nRUN head -c 3000000 /dev/zero > /big && echo x > /small\nFROM scratch\nCOPY --from=compile /small /\n");
    let ran = lab.build(&["--summary=full"]);
    assert!(ran.succeeds().stderr.contains("compile"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("MB") || ran.stderr.contains("MiB"),
        "{}",
        ran.stderr
    );
}

#[test]
fn m4_a_base_that_is_only_built_upon_is_not_unpacked() {
    let registry = FakeRegistry::start();
    let Some([lab]) = machines(&registry, "FROM HOST/base:v1\nCOPY --link f /f\n") else {
        return;
    };
    lab.file("f", "x");
    let name = format!("{}/app:v1", registry.host());
    lab.build(&["-t", &name, "--push"]).succeeds();
    let lines = registry.take_lines();
    let (_, manifest) = registry.manifest("base", "v1").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(count(&lines, "GET", layer), 0, "{lines:#?}");
}

#[test]
fn m5_the_result_is_tried_without_docker() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo works > /f\n");
    lab.build(&["-t", "image", "--smoke", "grep -q works /f"])
        .succeeds();
    let ran = lab.builder(&["run", "image", "cat", "/f"]);
    assert_eq!(ran.succeeds().stdout, "works\n");
    lab.build(&["-t", "bad", "--smoke", "grep -q fails /f"])
        .fails(5, &["smoke test"]);
    assert_ne!(lab.builder(&["inspect", "bad"]).code, Some(0));
}

#[test]
fn m6_secrets_leave_nothing_behind() {
    let Some(lab) = Lab::with_base() else { return };
    const VALUE: &str = "s3cret-in-multi-stage";
    let file = beside(&lab, "token", VALUE);
    lab.dockerfile("FROM base AS fetch\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size\nFROM scratch\nCOPY --from=fetch /size /\n");
    lab.build(&["-t", "image", "--secret", &format!("id=token,src={file}")])
        .succeeds();
    let files = lab.saved("image").files();
    assert_eq!(files.text("size").trim(), "21");
    assert!(files.0.keys().all(|path| !path.contains("secrets")));
    lab.dockerfile("FROM base\nENV API_TOKEN=x\n");
    assert!(
        lab.build(&[])
            .succeeds()
            .stderr
            .contains("SecretsUsedInArgOrEnv")
    );
}

/// Holds the page and this file together: each row of the tables has its test here, each test its row.
#[test]
fn every_row_has_a_test_and_every_test_a_row() {
    const PAGE: &str = include_str!("../../docs/ci.md");
    const OWN: &str = include_str!("ci_forms.rs");
    /// How many rows each system has.
    const ROWS: [(char, usize); 5] = [('g', 9), ('d', 8), ('w', 12), ('z', 15), ('m', 6)];
    /// The page says why.
    const NOT_HELD: [&str; 1] = ["z15"];
    let is_id = |id: &str| {
        ROWS.iter().any(|(letter, count)| {
            let number = id.strip_prefix(*letter).and_then(|text| text.parse().ok());
            number.is_some_and(|number: usize| (1..=*count).contains(&number))
        })
    };
    let tests: Vec<&str> = OWN
        .lines()
        .filter_map(|line| line.strip_prefix("fn ")?.split_once("()"))
        .map(|(name, _)| name)
        .filter(|name| name.split_once('_').is_some_and(|(id, _)| is_id(id)))
        .collect();
    let rows: Vec<(String, Vec<&str>)> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| {
            let id = line.split(" |").next()?.to_lowercase();
            let named = line.rsplit(" | ").next()?;
            let named = named.trim_end_matches(" |").split('`');
            is_id(&id).then(|| (id, named.filter(|text| text.contains('_')).collect()))
        })
        .collect();
    for (letter, count) in ROWS {
        for number in 1..=count {
            let id = format!("{letter}{number}");
            let row = rows.iter().find(|(known, _)| *known == id);
            let (_, named) = row.unwrap_or_else(|| panic!("docs/ci.md has no row {id}"));
            if NOT_HELD.contains(&id.as_str()) {
                assert!(named.is_empty(), "{id}");
                continue;
            }
            assert!(!named.is_empty(), "the row {id} names no test");
            for name in named {
                assert!(tests.contains(name), "the row {id} names {name}");
                assert!(name.starts_with(&format!("{id}_")), "{id}: {name}");
            }
        }
    }
    for test in &tests {
        let is_named = rows.iter().any(|(_, named)| named.contains(test));
        assert!(is_named, "docs/ci.md does not name {test}");
    }
}
