//! What cases of the conformance suite cannot say of the language: named contexts, several stores, registries, bases of other tools.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::copy::check;
use crate::support::image::{Files, Image};
use crate::support::lab::{Lab, Ran};
use crate::support::registry::FakeRegistry;

/// Builds with more flags, and returns the image.
#[track_caller]
fn build(lab: &Lab, dockerfile: &str, args: &[&str]) -> Image {
    lab.dockerfile(dockerfile);
    let mut all = vec!["-t", "image"];
    all.extend_from_slice(args);
    lab.build(&all).succeeds();
    lab.saved("image")
}

/// Returns the texts of the history, each with a mark for those that have no layer.
fn history(image: &Image) -> Vec<String> {
    image.config["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let mark = if entry["empty_layer"] == true {
                "-"
            } else {
                "+"
            };
            format!("{mark} {}", entry["created_by"].as_str().unwrap_or("?"))
        })
        .collect()
}

/// Compares values of the config, by pointer.
#[track_caller]
fn config(image: &Image, rows: &[(&str, Value)]) {
    for (pointer, expected) in rows {
        let found = image.config.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(found, expected, "{pointer} of {}", image.config);
    }
}

/// 3.2, 3.10, 3.12: forms of RUN and SHELL.
#[test]
fn shells_and_forms_of_run() {
    let Some(lab) = Lab::with_base() else { return };
    let image = build(
        &lab,
        "\u{feff}# escape=`\n# a comment\nfrom base\r\nRUN echo one `\n\n   # inside\n     two > /joined\r\nRUN [\"printf\", \"%s\", \"$HOME a  b\"]\nRUN [\"/bin/sh\", \"-c\", \"printf '%s|' $0 \\\"$HOME\\\" > /exec\"]\nRUN ['not', 'json'] || echo shell > /form\nSHELL [\"/bin/sh\", \"-ec\"]\n\
         RUN false || true; echo $- > /flags\nENV HOME=/elsewhere\nRUN echo $HOME > /home-env; cat > /stdin; test -t 0 || echo notty > /tty\nCMD echo $HOME `\n  and   more\nRUN umask 077; mkdir -p /a/b; printf 'x\\ny' > /a/b/c\nRUN env -u PATH -u HOME -u PWD -u SHLVL -u _ -u OLDPWD /bin/env > /rest\nWORKDIR /gone/far\nRUN rm -r /gone\nRUN pwd > /cwd\n",
        &[],
    );
    let files = image.files();
    check(
        &files,
        &[
            ("joined", "f 0644 0:0 one two"),
            ("exec", "f 0644 0:0 /bin/sh|/root|"),
            ("form", "f 0644 0:0 shell"),
            ("home-env", "f 0644 0:0 /elsewhere"),
            ("stdin", "f 0644 0:0"),
            ("tty", "f 0644 0:0 notty"),
            ("a/b", "d 0700 0:0"),
            ("rest", "f 0644 0:0"),
            ("cwd", "f 0644 0:0 /gone/far"),
            ("gone/far", "d 0755 0:0"),
        ],
    );
    assert!(files.text("flags").contains('e'), "SHELL's options count");
    config(
        &image,
        &[
            (
                "/config/Cmd",
                json!(["/bin/sh", "-ec", "echo $HOME   and   more"]),
            ),
            ("/config/Shell", json!(["/bin/sh", "-ec"])),
        ],
    );
    for (dockerfile, texts) in [
        (
            "FROM base\nRUN [\"/no/such/program\"]\n",
            ["/no/such/program", "Dockerfile:2"],
        ),
        ("FROM base\nRUN exit 7\n", ["exit code 7", "Dockerfile:2"]),
        (
            "FROM base\nRUN sh -c 'kill -9 $$'; exit $?\n",
            ["exit code 137", "Dockerfile:2"],
        ),
        ("FROM scratch\nRUN true\n", ["/bin/sh", "Dockerfile:2"]),
    ] {
        lab.dockerfile(dockerfile);
        lab.build(&[]).fails(5, &texts);
    }
}

/// 3.14: named contexts in FROM.
#[test]
fn named_contexts_take_the_place_of_images_and_stages() {
    let Some(lab) = Lab::with_base() else { return };
    build(
        &lab,
        "FROM scratch\nENV WHICH=replacement\nCOPY <<EOF /r\nr\nEOF\n",
        &["-t", "replacement:v2"],
    );
    let layout = lab.path("layout");
    lab.builder(&[
        "save",
        "--format=oci-dir",
        "-o",
        layout.to_str().unwrap(),
        "replacement:v2",
    ])
    .succeeds();
    let dir = lab.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "of the directory").unwrap();
    let layout = format!("oci-layout://{}", layout.display());
    let dir = dir.display().to_string();
    for (name, value) in [
        ("alpine", "docker-image://replacement:v2"),
        (
            "docker.io/library/alpine:latest",
            "docker-image://replacement:v2",
        ),
        ("alpine", layout.as_str()),
    ] {
        let image = build(
            &lab,
            "FROM alpine\nENV MORE=1\n",
            &["--build-context", &format!("{name}={value}")],
        );
        assert_eq!(
            image.list("/config/Env")[1..],
            ["WHICH=replacement", "MORE=1"],
            "{name}={value}"
        );
        assert_eq!(image.files().text("r"), "r\n");
    }
    let image = build(
        &lab,
        "FROM alpine:3\nENV A=1\n",
        &["--build-context", &format!("alpine:3={dir}")],
    );
    assert_eq!(image.files().text("file"), "of the directory");
    assert_eq!(image.list("/config/Env")[1..], ["A=1"]);
    // In a stage's place: its commands are not carried out.
    let dockerfile = "FROM base AS deps\nRUN false\nFROM scratch\nCOPY --from=deps / /got/\n";
    let files = build(
        &lab,
        dockerfile,
        &["--build-context", &format!("deps={dir}")],
    )
    .files();
    assert_eq!(files.text("got/file"), "of the directory");
    let files = build(
        &lab,
        dockerfile,
        &["--build-context", "deps=docker-image://replacement:v2"],
    )
    .files();
    assert_eq!(files.text("got/r"), "r\n");
    let host = json!(lab.inspect("base")[0]["images"][0]["platform"]);
    let image = build(
        &lab,
        "FROM alpine\n",
        &[
            "--build-context",
            &format!("alpine::{}={dir}", host.as_str().unwrap()),
            "--build-context",
            "alpine=docker-image://replacement:v2",
        ],
    );
    assert!(
        image.files().has("file"),
        "the one for the platform goes first"
    );
}

/// 3.16: the same image whenever and wherever it is built.
#[test]
fn a_source_date_gives_the_same_image_in_another_store() {
    let Some(first) = Lab::with_base() else {
        return;
    };
    let Some(second) = Lab::with_base() else {
        return;
    };
    let work = first.path("work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("in"), "in").unwrap();
    let made = std::process::Command::new("tar")
        .args(["--mtime=@5", "--owner=0", "--group=0", "-cf"])
        .arg(first.path("a.tar"))
        .arg("-C")
        .arg(&work)
        .args(["--transform=s,^,implied/,", "in"])
        .status()
        .unwrap();
    assert!(made.success());
    let archive = fs::read(first.path("a.tar")).unwrap();
    let dockerfile = "FROM scratch AS files\nCOPY <<EOF /deep/name\ntext\nEOF\nWORKDIR /deep/down/dir\nFROM scratch\nARG SOURCE_DATE_EPOCH\nENV D=$SOURCE_DATE_EPOCH\nCOPY d /to/d\nCOPY d/f /to/new/f\nWORKDIR /to/work\nADD a.tar /to/x\nADD a.tar /to/d\nCOPY --link d /l/d\nCOPY --parents d/f /p/\nCOPY --from=files /deep /deep\nLABEL a=b\n";
    let mut images = Vec::new();
    for lab in [&first, &second] {
        lab.file("a.tar", &archive);
        for name in ["d", "d/sub"] {
            fs::create_dir_all(lab.context().join(name)).unwrap();
        }
        lab.file("d/sub/g", "g");
        lab.file("d/f", "f");
        for name in ["d/f", "d/sub/g", "d/sub", "d"] {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(777);
            fs::File::open(lab.context().join(name))
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        images.push(build(
            lab,
            dockerfile,
            &["--build-arg", "SOURCE_DATE_EPOCH=1000000000"],
        ));
    }
    let times = |image: &Image| -> BTreeMap<String, i64> {
        let files = image.files().0;
        files
            .into_iter()
            .map(|(path, file)| (path, file.entry.mtime.seconds))
            .collect()
    };
    assert_eq!(times(&images[0]), times(&images[1]));
    assert_eq!(images[0].config, images[1].config);
    assert_eq!(images[0].digest, images[1].digest);
    config(&images[0], &[("/created", json!("2001-09-09T01:46:40Z"))]);
    assert!(
        images[0].config["history"]
            .as_array()
            .unwrap()
            .iter()
            .all(|entry| entry["created"] == "2001-09-09T01:46:40Z")
    );
    assert_eq!(images[0].list("/config/Env")[1..], ["D=1000000000"]);
    let found = times(&images[0]);
    for (path, expected) in [
        ("to/new", 1_000_000_000),
        ("to/work", 1_000_000_000),
        ("to/x", 1_000_000_000),
        ("to/x/implied", 1_000_000_000),
        ("to/x/implied/in", 5),
        ("to/d/f", 777),
        ("l/d", 777),
        ("deep/name", 1_000_000_000),
    ] {
        assert_eq!(found[path], expected, "{path}");
    }
    first.dockerfile("FROM scratch\n");
    first
        .build(&["--build-arg", "SOURCE_DATE_EPOCH=soon"])
        .fails(3, &["SOURCE_DATE_EPOCH", "soon", "seconds since 1970"]);
    // From the environment as well.
    let context = first.context();
    let ran = first
        .command()
        .env("SOURCE_DATE_EPOCH", "5")
        .args(["build", "-t", "image", context.to_str().unwrap()])
        .output()
        .unwrap();
    Ran::of(ran).succeeds();
    config(
        &first.saved("image"),
        &[("/created", json!("1970-01-01T00:00:05Z"))],
    );
}

/// What a layer says comes back from a layout, an archive and a registry, and through a build on it.
#[test]
fn an_image_comes_back_the_same_from_everywhere() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "f");
    for name in ["user.note", "security.capability"] {
        let value: &[u8] = if name == "user.note" {
            b"said"
        } else {
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        };
        // Without root or on a file system that takes none there is that much less to compare.
        if let Err(error) = rustix::fs::setxattr(
            lab.context().join("f"),
            name,
            value,
            rustix::fs::XattrFlags::empty(),
        ) {
            crate::support::power::not_run(&format!("{name} cannot be set here: {error}"));
        }
    }
    let original = build(
        &lab,
        "FROM base\nCOPY f /f\nRUN mkdir -m 1777 /d && echo x > /d/a && ln /d/a /d/b && ln -s a /d/l && mkfifo -m 604 /d/p && chown 5:6 /d/a && chmod 6711 /d/a && chown -h 70000:70001 /d/l && touch -h -d @981173106.123456789 /d/a /d/l /d/p /d\n\
         RUN rm /d/b && rm -r /home && mkdir /home && echo new > /home/n && chmod 700 /var && mv /tmp /tmp2\nENV A=b\nUSER app\nLABEL x=y\nCMD [\"c\"]\n",
        &[],
    );
    let registry = FakeRegistry::start();
    let name = format!("{}/some/image:v1", registry.host());
    let insecure = registry.host();
    let output = |kind: &str| format!("type={kind},dest={}", lab.path(kind).display());
    lab.build(&[
        "-t",
        &name,
        "-o",
        &output("oci"),
        "-o",
        &output("docker"),
        "-o",
        &output("tar"),
        "-o",
        &format!(
            "type=oci,tar=false,compression=zstd,dest={}",
            lab.path("zstd").display()
        ),
        "--push",
        "--load",
        "--insecure-registry",
        &insecure,
    ])
    .succeeds();
    lab.builder(&[
        "save",
        "--format=oci-dir",
        "-o",
        lab.path("layout").to_str().unwrap(),
        "image",
    ])
    .succeeds();
    let pinned = original.digest.clone();

    let other = Lab::new();
    let on = |from: &str, args: &[&str]| -> Files {
        let mut all = vec!["--insecure-registry", &insecure];
        all.extend_from_slice(args);
        let image = build(
            &other,
            &format!("FROM {from}\nCOPY --from={from} /d/a /again\nWORKDIR /\n"),
            &all,
        );
        for field in ["Env", "User", "Labels", "Cmd"] {
            assert_eq!(
                image.config["config"][field], original.config["config"][field],
                "{from}: {field}"
            );
        }
        image.files()
    };
    let layout = |name: &str| format!("x=oci-layout://{}", lab.path(name).display());
    let compare = |what: &str, mut files: Files| {
        let again = files.0.remove("again").unwrap();
        assert_eq!(
            (again.entry.mode, again.entry.uid, again.entry.gid),
            (0o6711, 5, 6),
            "{what}"
        );
        let expected = original.files();
        for (path, file) in &expected.0 {
            assert_eq!(files.0.get(path), Some(file), "{what}: {path}");
        }
        assert_eq!(files.0.len(), expected.0.len(), "{what}");
    };
    compare("registry", on(&name, &[]));
    compare(
        "registry by digest",
        on(&format!("{}/some/image@{pinned}", registry.host()), &[]),
    );
    compare("layout", on("x", &["--build-context", &layout("layout")]));
    compare(
        "zstd layout",
        on("x", &["--build-context", &layout("zstd")]),
    );
    // The flattened root as another image, file by file.
    other
        .builder(&["import", lab.path("tar").to_str().unwrap(), "flat"])
        .succeeds();
    let flat = other.saved("flat").files();
    for (path, file) in &original.files().0 {
        assert_eq!(flat.0.get(path), Some(file), "{path}");
    }
    other
        .builder(&["pull", "--insecure-registry", &insecure, &name])
        .succeeds();
    assert_eq!(other.saved(&name).digest, pinned);
    // What the step saw is what a later step sees in another store.
    let seen = build(
        &other,
        &format!(
            "FROM {name}\nUSER 0\nRUN stat -c '%n %f %u:%g %Y %s %h' /d /d/* /f /home /home/* /var /tmp2 > /seen\n"
        ),
        &[],
    );
    let here = build(
        &lab,
        "FROM base\nCOPY f /f\nRUN mkdir -m 1777 /d && echo x > /d/a && ln /d/a /d/b && ln -s a /d/l && mkfifo -m 604 /d/p && chown 5:6 /d/a && chmod 6711 /d/a && chown -h 70000:70001 /d/l && touch -h -d @981173106.123456789 /d/a /d/l /d/p /d\n\
         RUN rm /d/b && rm -r /home && mkdir /home && echo new > /home/n && chmod 700 /var && mv /tmp /tmp2\nENV A=b\nUSER app\nLABEL x=y\nCMD [\"c\"]\nUSER 0\nRUN stat -c '%n %f %u:%g %Y %s %h' /d /d/* /f /home /home/* /var /tmp2 > /seen\n",
        &[],
    );
    // Sizes of directories and their link counts are the file system's own affair.
    let lines = |files: &Files| -> Vec<String> {
        files
            .text("seen")
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                words[..if words[1].starts_with('4') { 4 } else { 6 }].join(" ")
            })
            .collect()
    };
    assert_eq!(lines(&seen.files()), lines(&here.files()));
    other.is_sound();
}

/// 3.10: settings of RUN from outside the Dockerfile.
#[test]
fn limits_given_by_flags() {
    let Some(lab) = Lab::with_base() else { return };
    let files = build(
        &lab,
        "FROM base\nRUN ulimit -n > /soft; ulimit -Hn > /hard; cat /proc/mounts > /mounts; ls /proc/self/fd > /fds\n",
        &["--ulimit", "nofile=100:200", "--shm-size", "3m"],
    )
    .files();
    check(
        &files,
        &[("soft", "f 0644 0:0 100"), ("hard", "f 0644 0:0 200")],
    );
    let mounts = files.text("mounts");
    assert!(
        mounts
            .lines()
            .any(|mount| mount.contains(" /dev/shm ") && mount.contains("size=3072k")),
        "{mounts}"
    );
    assert_eq!(
        files.text("fds"),
        "0\n1\n2\n3\n",
        "no descriptor of the builder comes along"
    );
    lab.dockerfile("FROM base\nRUN --network=host true\n");
    lab.build(&[]).fails(3, &["network", "Dockerfile:2"]);
    lab.dockerfile("FROM base\nRUN --security=insecure true\n");
    lab.build(&[]).fails(3, &["security", "Dockerfile:2"]);
}

/// 3.5, 3.6: bases that are written by others.
#[test]
fn bases_of_other_tools() {
    let lab = Lab::new();
    let registry = FakeRegistry::start();
    let repository = "some/base";
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(12);
    header.set_cksum();
    archive
        .append_data(&mut header, "./opt/implied/f", &b"f\n"[..])
        .unwrap();
    let layer = archive.into_inner().unwrap();
    let layer_digest = registry.put_blob(repository, &layer);
    let config_text = json!({
        "architecture": "amd64", "os": "linux", "docker_version": "1.0", "container": "abc", "created": "2020-01-01T00:00:00Z", "my.own": {"kept": 1},
        "config": {"Env": ["LANG=C"], "Cmd": ["x"], "Volumes": null, "Labels": null, "OnBuild": ["ENV T=1"], "WorkingDir": "w", "Hostname": "h", "ArgsEscaped": true},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "made elsewhere", "author": "them"}, {"created": "2020-01-01T00:00:00Z", "created_by": "nothing", "empty_layer": true}],
    })
    .to_string();
    let config_digest = registry.put_blob(repository, config_text.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config_digest, "size": config_text.len()},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "digest": layer_digest, "size": layer.len()}],
    })
    .to_string();
    registry.put_manifest(
        repository,
        "v1",
        "application/vnd.docker.distribution.manifest.v2+json",
        manifest.as_bytes(),
    );
    lab.dockerfile(&format!(
        "FROM {}/{repository}:v1\nENV MORE=1\nCOPY <<EOF /opt/implied/g\ng\nEOF\n",
        registry.host()
    ));
    let host = registry.host();
    let ran = lab.build(&[
        "-t",
        "image",
        "--insecure-registry",
        &host,
        "--platform",
        "linux/amd64",
    ]);
    if ran.code == Some(8) {
        return crate::support::power::not_run("steps cannot run on this machine");
    }
    ran.succeeds();
    let image = lab.saved("image");
    assert_eq!(
        image.list("/config/Env"),
        [
            "LANG=C",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "T=1",
            "MORE=1"
        ]
    );
    config(
        &image,
        &[
            ("/config/WorkingDir", json!("/w")),
            ("/config/OnBuild", Value::Null),
            ("/config/Cmd", json!(["x"])),
            ("/docker_version", Value::Null),
            ("/container", Value::Null),
            ("/history/0/author", json!("them")),
        ],
    );
    assert_eq!(
        history(&image),
        [
            "+ made elsewhere",
            "- nothing",
            "- ENV T=1",
            "- ENV MORE=1",
            "+ COPY <<EOF /opt/implied/g # buildkit"
        ]
    );
    check(
        &image.files(),
        &[
            ("opt/implied/f", "f 0640 7:8 f"),
            ("opt/implied/g", "f 0644 0:0 g"),
            ("opt/implied", "d 0755 0:0"),
        ],
    );
    assert_eq!(
        image.list("/rootfs/diff_ids")[0],
        layer_digest,
        "the base's layers are left as they are"
    );
}
