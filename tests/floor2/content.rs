//! Content tags: a build that is done before it begins.

use crate::support::lab::Lab;
use crate::support::registry::FakeRegistry;

const DOCKERFILE: &str = "ARG TEXT=one\nFROM HOST/base:v1 AS compile\nARG TEXT\nCOPY src/main.c /\nRUN echo $TEXT > /made\n\
                          FROM HOST/base:v1\nCOPY --from=compile /made /made\nLABEL l=1\n";

fn machine(registry: &FakeRegistry) -> Lab {
    let lab = Lab::new();
    lab.file("src/main.c", "int main;\n");
    lab.file("src/unused.c", "\n");
    lab.dockerfile(&DOCKERFILE.replace("HOST", &registry.host()));
    lab
}

/// Pushes a base; `None` if the machine lets nobody run steps.
fn registry_with_base() -> Option<FakeRegistry> {
    let lab = Lab::with_base()?;
    let registry = FakeRegistry::start();
    let base = format!("{}/base:v1", registry.host());
    lab.builder(&["push", "base", &base]).succeeds();
    registry.take_log();
    Some(registry)
}

/// Returns the requests since the last call; the attempt at TLS that plain loopback hosts get is none.
fn requests(registry: &FakeRegistry) -> Vec<String> {
    let mut lines = registry.take_lines();
    lines.retain(|line| !line.starts_with("TLS"));
    lines
}

#[test]
fn an_empty_machine_ends_after_five_requests_if_the_registry_has_the_content() {
    let Some(registry) = registry_with_base() else {
        return;
    };
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    let output = |tag: &str| format!("type=registry,name={}", name(tag));
    let first = machine(&registry);
    let ran = first.build(&["--content-tag", "--output", &output("v1")]);
    assert_eq!(ran.succeeds().executed(), 3, "{}", ran.stderr);
    registry.take_log();

    let second = machine(&registry);
    let metadata = second.path("metadata.json");
    let ran = second.build(&[
        "--content-tag",
        "--output",
        &output("v2"),
        "--metadata-file",
        metadata.to_str().unwrap(),
    ]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    let lines = requests(&registry);
    assert!(lines.len() <= 5, "{lines:#?}");
    assert_eq!(
        registry.manifest("app", "v1").unwrap(),
        registry.manifest("app", "v2").unwrap()
    );
    let told = std::fs::read_to_string(&metadata).unwrap();
    for part in [
        "containerimage.digest",
        "containerimage.config.digest",
        "app:v2",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }

    // Files of the context that no COPY reaches do not count; all else does.
    second.file("src/unused.c", "changed\n");
    second
        .build(&["--content-tag", "--output", &output("v3")])
        .succeeds();
    let lines = requests(&registry);
    assert!(lines.len() <= 3, "the base is known: {lines:#?}");
    second.file("src/main.c", "changed\n");
    let ran = second.build(&["--content-tag", "--output", &output("v4")]);
    assert!(ran.succeeds().executed() > 0, "{}", ran.stderr);
    assert_eq!(
        registry.manifest("app", "v3").unwrap(),
        registry.manifest("app", "v1").unwrap()
    );
    second.is_sound();
}

#[test]
fn the_tag_is_made_of_everything_that_is_in_the_image() {
    let Some(registry) = registry_with_base() else {
        return;
    };
    let lab = machine(&registry);
    let digest = |args: &[&str]| {
        let context = lab.context();
        let mut all = vec!["digest"];
        all.extend_from_slice(args);
        all.push(context.to_str().unwrap());
        let ran = lab.builder(&all);
        assert_eq!(ran.succeeds().stdout.lines().count(), 1, "{}", ran.stdout);
        ran.stdout.trim().to_owned()
    };
    let plain = digest(&[]);
    assert_eq!(plain, digest(&[]));
    assert_eq!(plain, digest(&["-t", "any/name:v9", "--jobs", "1"]));
    assert_eq!(plain, digest(&["--build-arg", "TEXT=one"]));
    let mut others = vec![plain];
    for args in [
        &["--build-arg", "TEXT=two"][..],
        &["--label", "l=2"],
        &["--annotation", "a=1"],
        &["--target", "compile"],
        &["--output", "type=registry,name=a,compression=zstd"],
        &["--output", "type=registry,name=a,oci-mediatypes=false"],
        &["--build-arg", "SOURCE_DATE_EPOCH=5"],
        &["--cache-to", "type=inline"],
    ] {
        let other = digest(args);
        assert!(!others.contains(&other), "{args:?}");
        others.push(other);
    }
    // Another base of the same name.
    let before = others[0].clone();
    let base = Lab::with_base().unwrap();
    base.dockerfile("FROM base\nRUN echo x > /x\n");
    let name = format!("{}/base:v1", registry.host());
    base.build(&["--output", &format!("type=registry,name={name}")])
        .succeeds();
    assert_ne!(before, digest(&["--pull"]));
    assert_eq!(
        lab.builder(&["images"]).succeeds().stdout.lines().count(),
        1,
        "nothing was built"
    );
}

#[test]
fn where_bytes_are_wanted_or_the_cache_is_not_the_build_is_performed() {
    let Some(registry) = registry_with_base() else {
        return;
    };
    let output = format!("type=registry,name={}/app:v1", registry.host());
    let first = machine(&registry);
    first
        .build(&["--content-tag", "--output", &output])
        .succeeds();
    let second = machine(&registry);
    let ran = second.build(&["--content-tag", "--output", &output, "--load"]);
    assert_eq!(ran.succeeds().executed(), 3, "{}", ran.stderr);
    assert_eq!(
        second
            .saved(&format!("{}/app:v1", registry.host()))
            .files()
            .text("made"),
        "one\n"
    );
    let ran = second.build(&["--content-tag", "--no-cache", "--output", &output]);
    assert_eq!(ran.succeeds().executed(), 3, "{}", ran.stderr);
}
