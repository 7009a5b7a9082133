//! Indexes of several jobs, pushes that cost little, tags that cannot be moved: the program against a registry in the process.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::lab::{Lab, Ran};
use crate::support::registry::{FakeRegistry, digest_of};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Returns a lab with the image `app` for a platform, which says in a file what it is for.
fn job(platform: &str) -> Lab {
    let lab = Lab::new();
    lab.file("f", platform);
    lab.dockerfile("FROM scratch\nCOPY f /f\n");
    lab.build(&["-t", "app", "--platform", platform]).succeeds();
    lab
}

fn index(registry: &FakeRegistry, repository: &str, tag: &str) -> Value {
    let (media_type, bytes) = registry
        .manifest(repository, tag)
        .expect("the tag is there");
    assert_eq!(media_type, INDEX);
    serde_json::from_slice(&bytes).unwrap()
}

/// Returns `os/architecture[/variant]` of each entry.
fn platforms(index: &Value) -> Vec<String> {
    let entries = index["manifests"].as_array().unwrap();
    let text = |entry: &Value| {
        let parts = ["os", "architecture", "variant"].map(|key| entry["platform"][key].as_str());
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    };
    entries.iter().map(text).collect()
}

/// Pulls one platform of an image and returns what its file says.
fn pulled(name: &str, platform: &str) -> String {
    let lab = Lab::new();
    lab.builder(&["pull", "--platform", platform, name])
        .succeeds();
    lab.saved(name).files().text("f")
}

fn count(lines: &[String], start: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(start)).count()
}

#[test]
fn jobs_make_one_index_by_its_tag_alone() {
    let registry = FakeRegistry::start();
    let name = format!("{}/team/app:1.0", registry.host());
    for platform in ["linux/arm64", "linux/amd64", "linux/arm/v7"] {
        let job = job(platform);
        let ran = job.builder(&["manifest", "append", &name, "app"]);
        assert!(ran.succeeds().stdout.contains("team/app@sha256:"));
    }
    let index = index(&registry, "team/app", "1.0");
    assert_eq!(
        platforms(&index),
        ["linux/amd64", "linux/arm/v7", "linux/arm64"]
    );
    assert_eq!(pulled(&name, "linux/arm64"), "linux/arm64");
    assert_eq!(pulled(&name, "linux/arm/v7"), "linux/arm/v7");
    let lab = Lab::new();
    let inspected = lab.builder(&["manifest", "inspect", &name]);
    let shown: Value = serde_json::from_str(&inspected.succeeds().stdout).unwrap();
    assert_eq!(shown, index);
    let table = lab.builder(&["manifest", "inspect", "--table", &name]);
    assert_eq!(table.succeeds().stdout.lines().count(), 4);
    assert!(table.stdout.contains("linux/arm/v7"));
}

#[test]
fn processes_that_append_at_the_same_time_lose_nothing() {
    let registry = FakeRegistry::start();
    let name = format!("{}/app:1", registry.host());
    let architectures = ["amd64", "arm64", "386", "ppc64le", "s390x", "riscv64"];
    let jobs: Vec<Lab> = architectures
        .iter()
        .map(|architecture| job(&format!("linux/{architecture}")))
        .collect();
    let running: Vec<_> = jobs
        .iter()
        .map(|job| {
            job.command()
                .args(["manifest", "append", &name, "app"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in running {
        Ran::of(child.wait_with_output().unwrap()).succeeds();
    }
    assert_eq!(platforms(&index(&registry, "app", "1")).len(), 6);
}

#[test]
fn builds_append_and_the_last_one_publishes() {
    let registry = FakeRegistry::start();
    let name = format!("{}/app:latest", registry.host());
    let build = |platform: &str, run: &str, note: &str| {
        let lab = Lab::new();
        lab.file("f", note);
        lab.dockerfile("FROM scratch\nCOPY f /f\n");
        let to = format!("{name},run={run},expect=linux/amd64,expect=linux/arm64");
        let ran = lab.build(&["--platform", platform, "--append-to", &to]);
        ran.succeeds();
        assert!(lab.builder(&["images", "-q"]).stdout.is_empty());
        ran.stderr
    };
    assert!(build("linux/arm64", "1", "a").contains("waiting for linux/amd64"));
    assert_eq!(registry.manifest("app", "latest"), None);
    assert!(!build("linux/amd64", "1", "b").contains("waiting"));
    assert_eq!(pulled(&name, "linux/amd64"), "b");
    // The next run changes both at once.
    build("linux/amd64", "2", "c");
    assert_eq!(pulled(&name, "linux/amd64"), "b");
    build("linux/arm64", "2", "d");
    assert_eq!(pulled(&name, "linux/amd64"), "c");
    assert_eq!(pulled(&name, "linux/arm64"), "d");
    // One build for several platforms adds them all.
    let lab = Lab::new();
    lab.file("f", "e");
    lab.dockerfile("FROM scratch\nCOPY f /f\n");
    let name = format!("{}/app:several", registry.host());
    let all = "--platform=linux/386,linux/amd64";
    lab.build(&[all, "--append-to", &name]).succeeds();
    assert_eq!(platforms(&index(&registry, "app", "several")).len(), 2);
    let digest = format!("{}/app@sha256:{}", registry.host(), "0".repeat(64));
    lab.build(&["--append-to", &digest])
        .fails(2, &["under a tag"]);
}

#[test]
fn an_index_is_made_here_and_pushed() {
    let registry = FakeRegistry::start();
    let arm = job("linux/arm64");
    let remote = format!("{}/parts/arm:1", registry.host());
    arm.builder(&["push", "app", &remote]).succeeds();
    let lab = job("linux/amd64");
    lab.builder(&[
        "manifest",
        "create",
        "--annotation=a=b",
        "all",
        "app",
        &remote,
    ])
    .succeeds();
    assert_eq!(lab.saved_all("all").len(), 2);
    let shown = lab.builder(&["manifest", "inspect", "--local", "--table", "all"]);
    assert!(shown.succeeds().stdout.contains("linux/arm64"));
    let name = format!("{}/app:1", registry.host());
    registry.take_log();
    lab.builder(&["manifest", "push", "all", &name]).succeeds();
    let lines = registry.take_lines();
    let puts: Vec<&String> = lines
        .iter()
        .filter(|line| line.starts_with("PUT") && line.contains("/manifests/"))
        .collect();
    assert_eq!(puts.len(), 3, "{lines:#?}");
    assert!(
        puts[2].contains("/manifests/1 "),
        "children first: {puts:?}"
    );
    let index = index(&registry, "app", "1");
    assert_eq!(index["annotations"], json!({"a": "b"}));
    assert_eq!(pulled(&name, "linux/arm64"), "linux/arm64");
    assert_eq!(pulled(&name, "linux/amd64"), "linux/amd64");
    lab.is_sound();
}

#[test]
fn an_index_is_made_of_what_is_in_other_repositories_and_registries() {
    let near = FakeRegistry::start();
    let far = FakeRegistry::start();
    let sources = [
        (&near, "linux/amd64", "parts/amd"),
        (&far, "linux/arm64", "parts/arm"),
    ]
    .map(|(registry, platform, repository)| {
        let name = format!("{}/{repository}:1", registry.host());
        job(platform).builder(&["push", "app", &name]).succeeds();
        name
    });
    near.take_log();
    far.take_log();
    let lab = Lab::new();
    let name = format!("{}/app:1", near.host());
    lab.builder(&[
        "manifest",
        "create",
        "--push",
        &name,
        &sources[0],
        &sources[1],
    ])
    .succeeds();
    assert_eq!(platforms(&index(&near, "app", "1")).len(), 2);
    let lines = near.take_lines();
    // Config and layer of the neighbour are mounted; of the far one they are sent.
    assert_eq!(
        count(&lines, "POST /v2/app/blobs/uploads/?mount="),
        2,
        "{lines:#?}"
    );
    assert_eq!(
        count(&lines, "POST /v2/app/blobs/uploads/ "),
        2,
        "{lines:#?}"
    );
    assert_eq!(pulled(&name, "linux/arm64"), "linux/arm64");
    assert_eq!(pulled(&name, "linux/amd64"), "linux/amd64");
    assert!(lab.builder(&["images", "-q"]).stdout.is_empty());
    // Within one repository nothing is copied.
    near.take_log();
    let again = format!("{}/app:2", near.host());
    lab.builder(&["manifest", "create", "--push", &again, &name])
        .succeeds();
    let lines = near.take_lines();
    assert_eq!(count(&lines, "PUT"), 1, "{lines:#?}");
    assert_eq!(count(&lines, "POST"), 0, "{lines:#?}");
    let same = [&near, &near].map(|registry| registry.manifest("app", "1").unwrap().1);
    assert_eq!(same[0], near.manifest("app", "2").unwrap().1);
}

#[test]
fn attestations_and_odd_platforms_are_kept() {
    let registry = FakeRegistry::start();
    let put = |document: &Value| {
        let bytes = serde_json::to_vec(document).unwrap();
        let digest = digest_of(&bytes);
        registry.put_manifest("from", &digest, MANIFEST, &bytes);
        (digest, bytes.len())
    };
    let blob = |bytes: &[u8], media_type: &str| json!({"mediaType": media_type, "digest": registry.put_blob("from", bytes), "size": bytes.len()});
    let config = blob(
        br#"{"architecture":"amd64","os":"windows","os.version":"10.0.1","rootfs":{"type":"layers","diff_ids":[]}}"#,
        CONFIG,
    );
    let image = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    let (image, image_size) = put(&image);
    let statement = blob(b"{\"x\":1}", "application/vnd.in-toto+json");
    let config = blob(br#"{"architecture":"unknown","os":"unknown"}"#, CONFIG);
    let said =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [statement]});
    let (said, said_size) = put(&said);
    let source = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": image, "size": image_size, "annotations": {"k": "v"},
            "platform": {"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["win32k"]}},
        {"mediaType": MANIFEST, "digest": said, "size": said_size,
            "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image},
            "platform": {"os": "unknown", "architecture": "unknown"}},
    ]});
    registry.put_manifest("from", "1", INDEX, &serde_json::to_vec(&source).unwrap());
    let from = format!("{}/from:1", registry.host());
    let lab = job("linux/amd64");
    let check = |repository: &str| {
        let index = index(&registry, repository, "1");
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 3, "{index}");
        assert!(entries.contains(&source["manifests"][0]), "{index}");
        assert!(entries.contains(&source["manifests"][1]), "{index}");
        let statement = digest_of(b"{\"x\":1}");
        assert!(registry.blob(repository, &statement).is_some());
    };
    let name = |repository: &str| format!("{}/{repository}:1", registry.host());
    lab.builder(&[
        "manifest",
        "create",
        "--push",
        &name("direct"),
        "app",
        &from,
    ])
    .succeeds();
    check("direct");
    lab.builder(&["manifest", "create", "all", "app", &from])
        .succeeds();
    lab.builder(&["push", "all", &name("stored")]).succeeds();
    check("stored");
    lab.builder(&["manifest", "append", &name("appended"), &from])
        .succeeds();
    lab.builder(&["manifest", "append", &name("appended"), "app"])
        .succeeds();
    check("appended");
}

#[test]
fn what_cannot_be_listed_is_refused() {
    let registry = FakeRegistry::start();
    let lab = job("linux/amd64");
    lab.builder(&["tag", "app", "twin"]).succeeds();
    let name = format!("{}/app:1", registry.host());
    lab.builder(&["manifest", "create", "all", "app", "twin"])
        .fails(2, &["both for linux/amd64", "app", "hint"]);
    let absent = format!("{}/absent:1", registry.host());
    lab.builder(&["manifest", "append", &name, &absent])
        .fails(4, &["neither the state directory nor the registry has"]);
    let digest = format!("{}/app@sha256:{}", registry.host(), "0".repeat(64));
    lab.builder(&["manifest", "append", &digest, "app"])
        .fails(2, &["under a tag"]);
    lab.builder(&["manifest", "append", &name, "app", "--expect=a/b/c/d"])
        .fails(2, &["not a platform"]);
    registry.put_manifest("chart", "1", MANIFEST, br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#);
    let chart = format!("{}/chart:1", registry.host());
    lab.builder(&["manifest", "append", &name, &chart])
        .fails(4, &["not an image but an artifact"]);
    assert_eq!(registry.manifest("app", "1"), None);
}

#[test]
fn a_push_of_what_is_there_costs_heads_and_one_manifest() {
    let registry = FakeRegistry::start();
    let lab = Lab::new();
    lab.file("a", "1");
    lab.file("b", "2");
    lab.dockerfile("FROM scratch\nCOPY a /\nCOPY b /\n");
    lab.build(&["-t", "app"]).succeeds();
    let name = format!("{}/app:1", registry.host());
    lab.builder(&["push", "app", &name]).succeeds();
    registry.take_log();
    lab.builder(&["push", "app", &name]).succeeds();
    let mut log = registry.take_log();
    log.retain(|entry| entry.method != "TLS");
    let lines: Vec<String> = log.iter().map(|entry| entry.line()).collect();
    // Two layers and the config.
    assert_eq!(count(&lines, "HEAD /v2/app/blobs/"), 3, "{lines:#?}");
    assert_eq!(count(&lines, "PUT /v2/app/manifests/1"), 1, "{lines:#?}");
    assert_eq!(lines.len(), 4, "{lines:#?}");
    // Several tags and repositories of one build: each blob is sent once.
    let names = ["x:1", "x:2", "y/z:1"].map(|name| format!("{}/{name}", registry.host()));
    lab.build(&["-t", &names[0], "-t", &names[1], "-t", &names[2], "--push"])
        .succeeds();
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "POST /v2/x/blobs/uploads/"), 3, "{lines:#?}");
    assert_eq!(
        count(&lines, "POST /v2/y/z/blobs/uploads/?mount="),
        3,
        "{lines:#?}"
    );
    assert_eq!(count(&lines, "PUT /v2/y/z/blobs"), 0, "{lines:#?}");
    assert_eq!(count(&lines, "PUT /v2/x/manifests/"), 2, "{lines:#?}");
}

#[test]
fn a_tag_that_cannot_be_moved() {
    let registry = FakeRegistry::start();
    let name = format!("{}/app:1", registry.host());
    let lab = Lab::new();
    let build = |text: &str, more: &[&str]| {
        lab.file("f", text);
        lab.dockerfile("FROM scratch\nCOPY f /\n");
        let mut args = vec!["-t", &name, "--push", "--load"];
        args.extend(more);
        lab.build(&args)
    };
    build("one", &[]).succeeds();
    let first = registry.manifest("app", "1");
    registry.habits(|habits| {
        habits.immutable_tags = Some((400, "the tag is immutable".to_owned()));
    });
    build("one", &[]).succeeds();
    lab.builder(&["push", &name]).succeeds();
    build("two", &[]).fails(
        6,
        &["does not let it be changed", "--ignore-immutable-tags"],
    );
    lab.builder(&["push", &name])
        .fails(6, &["does not let it be changed"]);
    let ran = build("two", &["--ignore-immutable-tags"]);
    assert!(
        ran.succeeds().stderr.contains("left as it is"),
        "{}",
        ran.stderr
    );
    let ran = lab.builder(&["push", "--push-ignore-immutable-tag-errors", &name]);
    let digest = digest_of(&first.clone().unwrap().1);
    assert!(ran.succeeds().stdout.contains(&digest), "{}", ran.stdout);
    assert_eq!(registry.manifest("app", "1"), first);
}

#[test]
fn a_base_of_several_platforms_is_resolved_once() {
    let registry = FakeRegistry::start();
    let base = format!("{}/base:1", registry.host());
    for platform in ["linux/amd64", "linux/arm64"] {
        job(platform)
            .builder(&["manifest", "append", &base, "app"])
            .succeeds();
    }
    registry.take_log();
    let lab = Lab::new();
    lab.file("g", "x");
    lab.dockerfile(&format!("FROM {base}\nCOPY g /\n"));
    lab.build(&["-t", "x", "--platform=linux/amd64,linux/arm64"])
        .succeeds();
    let lines = registry.take_lines();
    let of_tag = lines
        .iter()
        .filter(|line| line.contains("/manifests/1 "))
        .count();
    assert_eq!(of_tag, 1, "{lines:#?}");
}

#[test]
fn what_is_attached_is_shown() {
    let registry = FakeRegistry::start();
    registry.habits(|habits| habits.lists_referrers = Some(1));
    let name = format!("{}/app:1", registry.host());
    let lab = job("linux/amd64");
    lab.builder(&["push", "app", &name]).succeeds();
    let (_, manifest) = registry.manifest("app", "1").unwrap();
    for kind in ["application/spdx+json", "text/\u{1b}[31mx"] {
        let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "layers": [],
            "annotations": {"k": "v"},
            "subject": {"mediaType": MANIFEST, "digest": digest_of(&manifest), "size": manifest.len()}});
        let bytes = serde_json::to_vec(&document).unwrap();
        registry.put_manifest("app", &digest_of(&bytes), MANIFEST, &bytes);
    }
    let ran = lab.builder(&["manifest", "referrers", &name]);
    assert_eq!(ran.succeeds().stdout.lines().count(), 3, "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'));
    let kind = "--artifact-type=application/spdx+json";
    let ran = lab.builder(&["manifest", "referrers", "--json", kind, &name]);
    let shown: Value = serde_json::from_str(&ran.succeeds().stdout).unwrap();
    assert_eq!(shown["artifactType"], "application/spdx+json");
    assert_eq!(shown["annotations"]["k"], "v");
    lab.builder(&["manifest", "referrers", "--platform=linux/amd64", &name])
        .fails(4, &["has no image for linux/amd64"]);
}
