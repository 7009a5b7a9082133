//! Documents out: pinned bytes. Documents in: a table of what is read and what is refused.

use std::collections::BTreeMap;

use expect_test::expect;
use serde_json::json;

use super::*;
use crate::vocab::{Descriptor, DiffId, Digest, Platform, Timestamp};

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn blob(media_type: &str, content: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(content),
        size: content.len() as u64,
    }
}

fn labels() -> BTreeMap<String, String> {
    [("b", "2"), ("a", "1"), ("c", "<&>")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn example() -> ImageConfig {
    let config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        config: ContainerConfig {
            env: vec!["PATH=/bin".into()],
            cmd: Some(vec!["/bin/sh".into()]),
            labels: labels(),
            working_dir: "/".into(),
            volumes: [("/data".to_owned(), json!({}))].into(),
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    };
    let history = vec![History {
        created: Some("1970-01-01T00:00:00Z".into()),
        created_by: Some("COPY a /a # buildkit".into()),
        comment: Some("buildkit.dockerfile.v0".into()),
        ..History::default()
    }];
    complete(
        config,
        &[DiffId(Digest::of(b""))],
        history,
        Some(Timestamp::from_seconds(0)),
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn pinned_config_and_manifest() {
    let image = assemble(
        example(),
        &[blob(DOCKER_LAYER_GZIP, b"")],
        &labels(),
        MediaTypes::Oci,
    );
    expect![[r#"{"architecture":"amd64","config":{"Cmd":["/bin/sh"],"Env":["PATH=/bin"],"Labels":{"a":"1","b":"2","c":"<&>"},"Volumes":{"/data":{}},"WorkingDir":"/"},"created":"1970-01-01T00:00:00Z","history":[{"comment":"buildkit.dockerfile.v0","created":"1970-01-01T00:00:00Z","created_by":"COPY a /a # buildkit"}],"os":"linux","rootfs":{"diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],"type":"layers"}}"#]]
    .assert_eq(&text(&image.config_bytes));
    expect![[r#"{"annotations":{"a":"1","b":"2","c":"<&>"},"config":{"digest":"sha256:b2111c84d40991f216de9c7ffa34982ccba7cc30ace849ca4db8b58600b1db44","mediaType":"application/vnd.oci.image.config.v1+json","size":428},"layers":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":0}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}"#]].assert_eq(&text(&image.manifest_bytes));
    assert_eq!(image.config, blob(OCI_CONFIG, &image.config_bytes));
    assert_eq!(image.manifest, blob(OCI_MANIFEST, &image.manifest_bytes));
}

#[test]
fn pinned_index() {
    let arm = Platform {
        os_version: Some("1.2".into()),
        ..Platform::new("linux", "arm", Some("v6"))
    };
    let (descriptor, bytes) = index(
        &[
            (
                blob(OCI_MANIFEST, b""),
                Platform::new("linux", "amd64", None),
            ),
            (blob(OCI_MANIFEST, b""), arm.clone()),
        ],
        &BTreeMap::new(),
        MediaTypes::Oci,
    );
    expect![[r#"{"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{"architecture":"amd64","os":"linux"},"size":0},{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{"architecture":"arm","os":"linux","os.version":"1.2","variant":"v6"},"size":0}],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}"#]].assert_eq(&text(&bytes));
    assert_eq!(descriptor, blob(OCI_INDEX, &bytes));
    let Manifest::Index(entries) = parse_manifest(&bytes, Some(OCI_INDEX)).unwrap() else {
        panic!("an index was read as an image");
    };
    assert_eq!(entries[1].platform, Some(arm));
}

#[test]
fn docker_family_is_docker_throughout() {
    let layers = [blob("application/vnd.oci.image.layer.v1.tar+gzip", b"")];
    let image = assemble(example(), &layers, &BTreeMap::new(), MediaTypes::Docker);
    let manifest = text(&image.manifest_bytes);
    assert!(!manifest.contains("vnd.oci"), "{manifest}");
    let parsed = parse_manifest(&image.manifest_bytes, Some(DOCKER_MANIFEST)).unwrap();
    let Manifest::Image { config, layers } = parsed else {
        panic!("an image was read as an index");
    };
    assert_eq!(config, image.config);
    assert_eq!(layers, [blob(DOCKER_LAYER_GZIP, b"")]);
}

#[test]
fn bytes_are_the_same_in_every_run() {
    let many: BTreeMap<String, String> = (0..100)
        .map(|number| (format!("key{number}"), number.to_string()))
        .collect();
    let once = || {
        let mut config = example();
        config.config.labels = many.clone();
        assemble(config, &[], &many, MediaTypes::Oci)
    };
    let first = once();
    for _ in 0..20 {
        assert_eq!(once(), first);
    }
    let keys: Vec<usize> = ["key0\"", "key1\"", "key10\"", "key99\""]
        .iter()
        .map(|key| text(&first.manifest_bytes).find(key).unwrap())
        .collect();
    assert!(keys.is_sorted(), "annotations are not sorted");
}

#[test]
fn a_base_with_unknown_keys_and_nulls_survives() {
    let base = json!({
        "architecture": "arm64", "os": "linux", "variant": "v8", "os.features": null,
        "config": {
            "Hostname": "x", "ArgsEscaped": true, "Env": null, "Volumes": null, "Labels": null, "OnBuild": null,
            "ExposedPorts": null, "Entrypoint": null, "Cmd": null, "Healthcheck": {"Test": null, "Interval": 5},
            "Shell": ["/bin/bash", "-c"], "StopTimeout": 7,
        },
        "container_config": {"Image": ""}, "docker_version": "18", "x.vendor": {"deep": [1, 2.5, null]},
        "history": null, "rootfs": {"type": "layers", "diff_ids": null}, "created": null,
    });
    let config = parse_config(base.to_string().as_bytes()).unwrap();
    assert_eq!(
        config.platform(),
        Some(Platform::new("linux", "arm64", None))
    );
    assert_eq!(config.diff_ids().unwrap(), []);
    let written: serde_json::Value = serde_json::from_slice(
        &assemble(config, &[], &BTreeMap::new(), MediaTypes::Oci).config_bytes,
    )
    .unwrap();
    assert_eq!(written["x.vendor"], base["x.vendor"]);
    assert_eq!(written["config"]["ArgsEscaped"], true);
    assert_eq!(written["config"]["StopTimeout"], 7);
    assert_eq!(written["config"]["Shell"], json!(["/bin/bash", "-c"]));
    assert_eq!(written["config"]["Healthcheck"], json!({"Interval": 5}));
    assert_eq!(written["rootfs"], json!({"type": "layers", "diff_ids": []}));
}

#[test]
fn a_config_without_its_parts_is_read_with_defaults() {
    let config = parse_config(b"{\"config\":null,\"rootfs\":{}}").unwrap();
    assert_eq!(config, ImageConfig::default());
    assert_eq!(config.platform(), None);
    assert!(parse_config(b"[]").is_err());
    assert!(
        parse_config(b"{\"rootfs\":{\"diff_ids\":[\"md5:0\"]}}")
            .unwrap()
            .diff_ids()
            .is_err()
    );
}

fn image_json(config: &str, layer: &str) -> serde_json::Value {
    json!({
        "schemaVersion": 2,
        "config": {"mediaType": config, "digest": EMPTY, "size": 2},
        "layers": [{"mediaType": layer, "digest": EMPTY, "size": 3, "urls": ["https://x"], "annotations": {"a": "b"}}],
    })
}

fn check_refused(document: serde_json::Value, media_type: Option<&str>, wanted: &str) {
    let error = parse_manifest(document.to_string().as_bytes(), media_type).unwrap_err();
    let mut message = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        message = format!("{message}: {source}");
    }
    assert!(message.contains(wanted), "{message}");
}

#[test]
fn manifests_without_a_type_are_told_by_their_fields() {
    let document = image_json(OCI_CONFIG, OCI_LAYER_ZSTD).to_string();
    for media_type in [
        None,
        Some(OCI_MANIFEST),
        Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
        Some("application/json"),
        Some("application/octet-stream"),
    ] {
        assert!(
            matches!(
                parse_manifest(document.as_bytes(), media_type),
                Ok(Manifest::Image { .. })
            ),
            "{media_type:?}"
        );
    }
    let list = json!({"schemaVersion": 2, "manifests": []}).to_string();
    assert_eq!(
        parse_manifest(list.as_bytes(), None).unwrap(),
        Manifest::Index(Vec::new())
    );
}

#[test]
fn hostile_and_foreign_manifests_are_refused() {
    let image = || image_json(OCI_CONFIG, OCI_LAYER);
    let with = |path: &str, value: serde_json::Value| {
        let mut document = image();
        *document.pointer_mut(path).unwrap() = value;
        document
    };
    check_refused(
        json!({"schemaVersion": 1, "fsLayers": []}),
        None,
        "schema 1",
    );
    check_refused(json!({"schemaVersion": 3}), None, "version 3");
    check_refused(json!({}), None, "version 0");
    check_refused(json!([]), None, "version 0");
    check_refused(json!({"schemaVersion": 2}), None, "config");
    check_refused(with("/layers/0/size", json!(-1)), None, "-1");
    check_refused(with("/layers/0/size", json!(1.5)), None, "1.5");
    check_refused(
        with("/layers/0/size", json!(u64::MAX)),
        None,
        "blob is larger",
    );
    check_refused(
        with("/config/size", json!(1_u64 << 40)),
        None,
        "config is larger",
    );
    check_refused(with("/layers/0/digest", json!("sha512:00")), None, "");
    check_refused(
        with("/layers/0/digest", json!("sha256:../../etc")),
        None,
        "",
    );
    check_refused(with("/layers/0/digest", json!(7)), None, "string");
    check_refused(
        image_json("application/vnd.cncf.helm.config.v1+json", OCI_LAYER),
        Some(OCI_MANIFEST),
        "artifact: `application/vnd.cncf.helm.config.v1+json`",
    );
    check_refused(
        image_json(OCI_CONFIG, "application/vnd.in-toto+json"),
        None,
        "in-toto",
    );
    check_refused(image(), Some(OCI_INDEX), "manifests");
    let mut both = image();
    both["manifests"] = json!([]);
    check_refused(both, None, "two ways");
    let mut typed = image();
    typed["mediaType"] = json!(OCI_MANIFEST);
    check_refused(typed.clone(), Some(OCI_INDEX), "says that it is");
    typed["mediaType"] = json!("application/vnd.oci.artifact.manifest.v1+json");
    check_refused(typed, None, "artifact");
    assert!(parse_manifest(b"", None).is_err());
    assert!(parse_manifest(&vec![b' '; 9 << 20], None).is_err());
}

fn entry(platform: Option<&str>, mark: u64, annotation: Option<&str>) -> IndexEntry {
    IndexEntry {
        descriptor: Descriptor {
            size: mark,
            ..blob(OCI_MANIFEST, b"")
        },
        platform: platform.map(|text| text.parse().unwrap()),
        annotations: annotation
            .map(|key| (key.to_owned(), "attestation-manifest".to_owned()))
            .into_iter()
            .collect(),
    }
}

fn check_select(offered: &[Option<&str>], wanted: &str, chosen: Option<u64>) {
    let entries: Vec<IndexEntry> = offered
        .iter()
        .enumerate()
        .map(|(at, platform)| entry(*platform, at as u64, None))
        .collect();
    let found = select(&entries, &wanted.parse().unwrap());
    assert_eq!(
        found.map(|entry| entry.descriptor.size),
        chosen,
        "{offered:?} for {wanted}"
    );
}

#[test]
fn the_best_entry_is_selected() {
    let arms = [
        Some("unknown/unknown"),
        Some("linux/arm/v5"),
        Some("linux/arm/v6"),
        Some("linux/arm/v7"),
        Some("linux/arm64"),
        Some("linux/amd64"),
        Some("linux/amd64"),
        Some("linux/amd64/v2"),
    ];
    check_select(&arms, "linux/amd64", Some(5));
    check_select(&arms, "linux/amd64/v2", Some(7));
    check_select(&arms, "linux/amd64/v3", Some(7));
    check_select(&arms, "linux/arm/v6", Some(2));
    check_select(&arms, "linux/arm", Some(3));
    check_select(&arms, "linux/arm64/v8", Some(4));
    check_select(&arms, "linux/riscv64", None);
    check_select(&arms, "windows/amd64", None);
    check_select(&[None], "linux/amd64", Some(0));
    check_select(&[None, None], "linux/amd64", None);
    check_select(&[Some("unknown/unknown"), None], "linux/amd64", Some(1));
    check_select(&[], "linux/amd64", None);
}

#[test]
fn attestations_are_passed_over() {
    let entries = [
        entry(Some("linux/amd64"), 0, Some("vnd.docker.reference.type")),
        entry(Some("linux/amd64"), 1, None),
    ];
    let wanted = Platform::new("linux", "amd64", None);
    assert_eq!(select(&entries, &wanted).unwrap().descriptor.size, 1);
}
