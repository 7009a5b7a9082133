//! Builds against a registry in the process: what is asked, what is moved, what goes wrong.

use crate::support::lab::{Lab, Ran};
use crate::support::registry::{Access, FakeRegistry, Fault, Gate};

/// Pushes a base of two layers to `registry` under `base` and forgets it.
fn base_in(registry: &FakeRegistry) -> Option<()> {
    let lab = Lab::with_base()?;
    lab.dockerfile("FROM base\nRUN echo second > /second\n");
    let name = format!("{}/base:v1", registry.host());
    lab.build(&["-t", &name, "--push"]).succeeds();
    registry.take_log();
    Some(())
}

fn count(lines: &[String], method: &str, part: &str) -> usize {
    lines
        .iter()
        .filter(|line| line.starts_with(method) && line.contains(part))
        .count()
}

#[test]
fn an_unchanged_build_pushes_nothing_but_its_manifest() {
    let registry = FakeRegistry::start();
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo x > /x\n");
    let name = format!("{}/app:v1", registry.host());
    lab.build(&["-t", &name, "--push"]).succeeds();
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "PUT", "/manifests/"), 1, "{lines:#?}");
    assert_eq!(lab.build(&["-t", &name, "--push"]).succeeds().executed(), 0);
    let lines = registry.take_lines();
    assert_eq!(
        count(&lines, "POST", "") + count(&lines, "PATCH", "") + count(&lines, "GET", "/blobs/"),
        0,
        "{lines:#?}"
    );
    assert_eq!(count(&lines, "PUT", ""), 1, "{lines:#?}");
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn a_base_is_pulled_once_and_mounted_where_it_is_pushed_back() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let lab = Lab::new();
    lab.dockerfile(&format!(
        "FROM {}/base:v1\nRUN echo third > /third\n",
        registry.host()
    ));
    let name = format!("{}/other:v1", registry.host());
    lab.build(&["-t", &name, "--push", "--load"]).succeeds();
    let lines = registry.take_lines();
    assert_eq!(
        count(&lines, "GET", "/base/blobs/"),
        3,
        "config and two layers, each once: {lines:#?}"
    );
    assert_eq!(count(&lines, "POST", "mount="), 2, "{lines:#?}");
    assert_eq!(
        count(&lines, "PATCH", ""),
        0,
        "small blobs go up with their commit: {lines:#?}"
    );
    let files = lab.saved(&name).files();
    assert_eq!(files.text("second"), "second\n");
    assert_eq!(files.text("third"), "third\n");
}

#[test]
fn layers_travel_while_the_build_goes_on() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let host = registry.host();
    let lab = Lab::new();
    lab.dockerfile(&format!("FROM {host}/base:v1\nRUN echo given > /given\n"));
    let source = format!("{host}/source:v1");
    lab.build(&["-t", &source, "--push"]).succeeds();
    let (_, manifest) = registry.manifest("source", "v1").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let top = manifest["layers"].as_array().unwrap().last().unwrap();
    let top = top["digest"].as_str().unwrap().to_owned();

    // The last step waits for its source until a layer of the first has arrived; if none came before the end, it would wait for ever.
    let (source_waits, layer_came) = (Gate::default(), Gate::default());
    registry.fault("GET", &top, Fault::Hold(source_waits.clone()));
    registry.fault(
        "PUT",
        "/app/blobs/uploads/",
        Fault::HoldAnswer(layer_came.clone()),
    );
    let watcher = std::thread::spawn(move || {
        source_waits.wait_for(1);
        layer_came.wait_for(1);
        source_waits.open();
        layer_came.open();
    });
    let lab = Lab::new();
    lab.dockerfile(&format!(
        "FROM {host}/base:v1\nRUN echo first > /first\nCOPY --from={source} /given /given\n"
    ));
    let name = format!("{host}/app:v1");
    registry.take_log();
    lab.build(&["-t", &name, "--push", "--timeout", "60s"])
        .succeeds();
    watcher.join().unwrap();
    let lines = registry.take_lines();
    // Two steps' and the config; the base's are mounted. Nothing travels twice.
    assert_eq!(count(&lines, "PUT", "/app/blobs/"), 3, "{lines:#?}");
    assert_eq!(count(&lines, "POST", "mount="), 2, "{lines:#?}");
    assert_eq!(count(&lines, "HEAD", "/app/blobs/"), 5, "{lines:#?}");
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn a_layer_that_could_not_travel_early_is_pushed_with_the_image() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let host = registry.host();
    let lab = Lab::new();
    lab.dockerfile(&format!(
        "FROM {host}/base:v1\nRUN echo first > /first\nRUN echo second > /second\nRUN echo third > /third\n"
    ));
    let name = format!("{host}/app:v1");
    registry.fault("POST", "/app/blobs/uploads/", Fault::Status(403));
    lab.build(&["-t", &name, "--push"]).succeeds();
    assert_eq!(registry.faults_left(), 0);
    let (_, manifest) = registry.manifest("app", "v1").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        assert!(registry.blob("app", digest).is_some(), "{digest}");
    }
    // A failure that lasts is told once, by the push.
    let name = format!("{host}/refused:v1");
    registry.faults("", "/refused/blobs/", &Fault::Status(403), 100);
    let ran = lab.build(&["-t", &name, "--push"]);
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert_eq!(
        ran.stderr.matches("cannot push").count(),
        1,
        "{}",
        ran.stderr
    );
}

#[test]
fn a_base_that_no_step_reads_is_not_downloaded_to_be_pushed() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let lab = Lab::new();
    lab.dockerfile(&format!("FROM {}/base:v1\nCMD [\"x\"]\n", registry.host()));
    lab.build(&[
        "--output",
        &format!("type=registry,name={}/copy:v1", registry.host()),
    ])
    .succeeds();
    let lines = registry.take_lines();
    assert_eq!(
        count(&lines, "GET", "/blobs/"),
        1,
        "the config alone: {lines:#?}"
    );
    assert_eq!(count(&lines, "POST", "mount="), 2, "{lines:#?}");
}

#[test]
fn a_network_that_is_cut_is_told_and_the_next_build_works() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let lab = Lab::new();
    lab.dockerfile(&format!(
        "FROM {}/base:v1\nRUN echo third > /third\n",
        registry.host()
    ));
    let cut = |method: &str, target: &str| {
        (method == "GET" && target.contains("/blobs/")).then_some(Fault::CutBody(10))
    };
    registry.set_chaos(Some(Box::new(cut)));
    lab.build(&["-t", "x"])
        .fails(4, &["base:v1", "Dockerfile:"]);
    registry.set_chaos(None);
    lab.build(&["-t", "x"]).succeeds();
    lab.is_sound();
}

#[test]
fn a_layer_with_a_wrong_byte_is_never_used() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let lab = Lab::new();
    lab.dockerfile(&format!(
        "FROM {}/base:v1\nRUN echo third > /third\n",
        registry.host()
    ));
    let damage = |method: &str, target: &str| {
        (method == "GET" && target.contains("/blobs/")).then_some(Fault::DamageBody)
    };
    registry.set_chaos(Some(Box::new(damage)));
    let ran = lab.build(&["-t", "x"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    lab.is_sound();
    assert!(lab.builder(&["images", "-q"]).stdout.is_empty());
}

#[test]
fn a_base_moved_under_its_tag_is_noticed() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let lab = Lab::new();
    lab.dockerfile(&format!(
        "FROM {}/base:v1\nRUN cat /second > /seen\n",
        registry.host()
    ));
    lab.build(&["-t", "x"]).succeeds();
    assert_eq!(lab.build(&["-t", "x"]).succeeds().executed(), 0);
    let other = Lab::with_base().unwrap();
    other.dockerfile("FROM base\nRUN echo moved > /second\n");
    other
        .build(&["-t", &format!("{}/base:v1", registry.host()), "--push"])
        .succeeds();
    assert_eq!(lab.build(&["-t", "x"]).succeeds().executed(), 1);
    assert_eq!(lab.saved("x").files().text("seen"), "moved\n");
}

#[test]
fn pull_and_push_of_whole_images() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let lab = Lab::new();
    let name = format!("{}/base:v1", registry.host());
    lab.builder(&["pull", &name]).succeeds();
    let first = lab.saved(&name);
    let copy = format!("{}/deep/copy:v2", registry.host());
    lab.builder(&["push", &name, &copy]).succeeds();
    let second = Lab::new();
    second.builder(&["pull", "-q", &copy]).succeeds();
    assert_eq!(second.saved(&copy).digest, first.digest);
    lab.builder(&["pull", &format!("{}/base:none", registry.host())])
        .fails(4, &["base:none"]);
}

#[test]
fn a_registry_that_is_plain_http_on_another_address_must_be_named() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let lab = Lab::new();
    let mirror = format!("example.test={}", registry.url());
    lab.dockerfile("FROM example.test/base:v1\nRUN true\n");
    lab.build(&["--registry-mirror", &mirror]).succeeds();
    let lines = registry.take_lines();
    assert!(
        count(&lines, "GET", "/base/blobs/") > 0,
        "the mirror was asked: {lines:#?}"
    );
}

#[test]
fn accounts_come_from_options_variables_and_files() {
    let registry = FakeRegistry::start_with(Access::Basic {
        user: "me".into(),
        password: "hunter2".into(),
    });
    let lab = Lab::new();
    let name = format!("{}/app:v1", registry.host());
    lab.file("a", "a");
    lab.dockerfile("FROM scratch\nCOPY a /\n");
    let context = lab.context();
    let build = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = lab.command();
        command.args(["build", "--progress=plain", "-t", &name, "--push", "--load"]);
        command.args(flags).arg(&context);
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("hunter2"), "{said}");
        (output.status.success(), said)
    };
    let (done, said) = build(&[], &[]);
    assert!(
        !done && said.contains("no credentials were found"),
        "{said}"
    );
    let host = registry.host();
    let lines = format!("other.io=x:y\n{host}=me:hunter2\n");
    let file = lab.path("auth.json");
    let text = r#"{"auths": {"HOST": {"username": "me", "password": "hunter2"}}}"#;
    std::fs::write(&file, text.replace("HOST", &host)).unwrap();
    let file = file.to_str().unwrap();
    for (flags, variables) in [
        (&["--creds", "me:hunter2"][..], &[][..]),
        (&["--authfile", file], &[]),
        (&[], &[("BUILDER_CREDS", "me:hunter2")]),
        (&[], &[("BUILDER_REGISTRY_AUTH", lines.as_str())]),
        (
            &[],
            &[
                ("BUILDER_REGISTRY", host.as_str()),
                ("BUILDER_REGISTRY_USER", "me"),
                ("BUILDER_REGISTRY_PASSWORD", "hunter2"),
            ],
        ),
        (
            &[],
            &[
                ("CI_REGISTRY", host.as_str()),
                ("CI_REGISTRY_USER", "me"),
                ("CI_REGISTRY_PASSWORD", "hunter2"),
            ],
        ),
    ] {
        let (done, said) = build(flags, variables);
        assert!(done, "{flags:?} {variables:?}: {said}");
    }
    // Push and pull take it too, login writes to the file that is named.
    lab.builder(&["push", "--creds", "me:hunter2", &name])
        .succeeds();
    let named = lab.path("new/auth.json");
    let named = named.to_str().unwrap();
    let login = [
        "login",
        "-u",
        "me",
        "--password-stdin",
        "--authfile",
        named,
        &host,
    ];
    lab.builder_with_input(&login, b"hunter2\n").succeeds();
    lab.builder(&["pull", "--authfile", named, &name])
        .succeeds();
    lab.builder(&["logout", "--authfile", named, &host])
        .succeeds();
    let ran = lab.builder(&["pull", "--authfile", named, &name]);
    assert_ne!(ran.code, Some(0));
    // Indexes as well.
    let index = format!("{host}/indexes:v1");
    for (args, done) in [
        (&["manifest", "append", &index, "--pull", &name][..], false),
        (
            &[
                "manifest",
                "append",
                "--creds",
                "me:hunter2",
                &index,
                "--pull",
                &name,
            ],
            true,
        ),
        (
            &[
                "manifest",
                "create",
                "--creds",
                "me:hunter2",
                "--push",
                &index,
                "--pull",
                &name,
            ],
            true,
        ),
        (
            &[
                "manifest",
                "create",
                "--creds",
                "me:hunter2",
                "here:v1",
                "--pull",
                &name,
            ],
            true,
        ),
        (&["manifest", "inspect", &index], false),
        (
            &["manifest", "inspect", "--creds", "me:hunter2", &index],
            true,
        ),
        (
            &["manifest", "referrers", "--creds", "me:hunter2", &index],
            true,
        ),
    ] {
        let ran = lab.builder(args);
        assert_eq!(ran.code == Some(0), done, "{args:?}: {}", ran.stderr);
    }
    // A password is for one registry, and for no local image.
    let wrong = lab.build(&["--creds", "me:hunter2", "-t", &name]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("this one asks none"),
        "{}",
        wrong.stderr
    );
    let two = ["pull", "--creds", "me:hunter2", &name, "other.io/a"];
    let ran = lab.builder(&two);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("of several"), "{}", ran.stderr);
}

#[test]
fn settings_of_other_tools_are_obeyed_and_read_only_when_somebody_is_asked() {
    let registry = FakeRegistry::start();
    let Some(()) = base_in(&registry) else { return };
    let lab = Lab::new();
    let settings = lab.file(
        "registries.conf",
        format!(
            "[aliases]\nshort = 'name.test/team/base'\n[[registry]]\nprefix = 'name.test/team'\nlocation = '{}'\n",
            registry.host()
        ),
    );
    lab.dockerfile("FROM short:v1\nRUN echo third > /third\n");
    let run = |args: &[&str]| {
        let mut command = lab.command();
        command
            .env("CONTAINERS_REGISTRIES_CONF", &settings)
            .env("CONTAINERS_REGISTRIES_CONF_DIR", "/nonexistent")
            .args(args);
        if args[0] == "build" {
            command.arg(lab.context());
        }
        Ran::of(command.output().expect("the builder starts"))
    };
    run(&["pull", "-q", "short:v1"]).succeeds();
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "GET", "/v2/base/blobs/"), 3, "{lines:#?}");
    // Everything is at hand: what the file says does not matter, and is not looked at.
    std::fs::write(&settings, "[[registry]").expect("the file is ours");
    run(&["build", "-t", "app"]).succeeds();
    assert_eq!(registry.take_lines(), [""; 0]);
    lab.dockerfile("FROM short:v2\nRUN true\n");
    run(&["build"]).fails(4, &["registries.conf`, line 1", "not passed over"]);
    let blocked = "[[registry]]\nlocation = 'bad.test'\nblocked = true\n";
    std::fs::write(&settings, blocked).expect("the file is ours");
    lab.dockerfile("FROM bad.test/x\nRUN true\n");
    run(&["build"]).fails(4, &["`bad.test/x:latest` is blocked by", "registries.conf"]);
}
