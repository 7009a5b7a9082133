//! Outputs: one build, several forms; what other commands do with the result.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::image::Image;
use crate::support::lab::Lab;

#[test]
fn several_outputs_in_one_run() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "content\n");
    lab.dockerfile("FROM base AS b\nRUN echo made > /made && chmod 4755 /made\nFROM scratch\nCOPY f /f\nCOPY --from=b /made /made\n");
    let (oci, docker, tar, local, layout) = (
        lab.path("o.tar"),
        lab.path("d.tar"),
        lab.path("r.tar"),
        lab.path("local"),
        lab.path("layout"),
    );
    let output = |kind: &str, path: &std::path::Path, more: &str| {
        format!("type={kind},dest={}{more}", path.display())
    };
    lab.build(&[
        "-t",
        "image",
        "-o",
        &output("oci", &oci, ""),
        "-o",
        &output("oci", &layout, ",tar=false,compression=zstd"),
        "-o",
        &output("docker", &docker, ""),
        "-o",
        &output("tar", &tar, ""),
        "-o",
        &output("local", &local, ""),
    ])
    .succeeds();
    let stored = lab.saved("image").files();
    assert_eq!(Image::read(&layout).files(), stored);
    let unpacked = lab.path("unpacked");
    for (archive, has) in [(&oci, "oci-layout"), (&docker, "manifest.json")] {
        fs::create_dir_all(&unpacked).unwrap();
        assert!(
            Command::new("tar")
                .arg("-xf")
                .arg(archive)
                .arg("-C")
                .arg(&unpacked)
                .status()
                .unwrap()
                .success()
        );
        assert!(unpacked.join(has).exists());
        assert_eq!(Image::read(&unpacked).files(), stored);
        fs::remove_dir_all(&unpacked).unwrap();
    }
    let listed = Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.lines().any(|line| line == "made") && listed.lines().any(|line| line == "f"),
        "{listed}"
    );
    assert_eq!(fs::read(local.join("f")).unwrap(), b"content\n");
    assert_eq!(
        fs::metadata(local.join("made")).unwrap().mode() & 0o7777,
        0o4755
    );
    lab.is_sound();
}

#[test]
fn a_tar_to_standard_output_is_nothing_but_the_tar() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "content\n");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    let context = lab.context();
    let out = lab
        .command()
        .args(["build", "-o", "-", context.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(out.status.success());
    let names: Vec<_> = tar::Archive::new(out.stdout.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["f"]);
}

#[test]
fn id_and_metadata_files_and_quiet() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN true\n");
    let (id, metadata) = (lab.path("id"), lab.path("metadata"));
    let context = lab.context();
    let ran = lab.builder(&[
        "build",
        "-q",
        "-t",
        "image",
        "--iidfile",
        id.to_str().unwrap(),
        "--metadata-file",
        metadata.to_str().unwrap(),
        context.to_str().unwrap(),
    ]);
    ran.succeeds();
    let inspected = lab.inspect("image");
    let image_id = inspected[0]["images"][0]["id"].as_str().unwrap();
    assert_eq!(ran.stdout, format!("{image_id}\n"));
    assert_eq!(ran.stderr, "");
    assert_eq!(fs::read_to_string(id).unwrap(), image_id);
    let metadata: serde_json::Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], inspected[0]["digest"]);
    assert_eq!(metadata["containerimage.config.digest"], image_id);
    assert_eq!(metadata["image.name"], "docker.io/library/image:latest");
}

#[test]
fn compression_variants_hold_the_same_layers() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM scratch\nCOPY . /\n");
    for name in 0..50 {
        lab.file(&format!("d/{name}"), format!("{name}").repeat(1000));
    }
    let mut diff_ids = Vec::new();
    for (at, form) in ["gzip", "gzip,compression-level=9", "zstd", "uncompressed"]
        .iter()
        .enumerate()
    {
        let layout = lab.path(&format!("layout{at}"));
        lab.build(&[
            "-o",
            &format!(
                "type=oci,tar=false,dest={},compression={form}",
                layout.display()
            ),
        ])
        .succeeds();
        diff_ids.push(Image::read(&layout).list("/rootfs/diff_ids"));
    }
    assert!(diff_ids.iter().all(|ids| *ids == diff_ids[0]));
}

#[test]
fn several_platforms_make_an_index_without_running_anything() {
    let lab = Lab::new();
    let Some(_) = Lab::with_base() else { return };
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY f /\n");
    lab.build(&[
        "-t",
        "image",
        "--platform",
        "linux/amd64,linux/arm64",
        "--annotation",
        "index:a=b",
    ])
    .succeeds();
    let inspected = lab.inspect("image");
    let images = inspected[0]["images"].as_array().unwrap();
    let platforms: Vec<_> = images
        .iter()
        .map(|image| image["platform"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    for image in images {
        let architecture = image["config"]["architecture"].as_str().unwrap();
        let env = image["config"]["config"]["Env"].as_array().unwrap();
        assert!(
            env.iter()
                .any(|line| line == &format!("ARCH={architecture}")),
            "{env:?}"
        );
    }
}

#[test]
fn a_device_or_fifo_is_written_to_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt as _;
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "x");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    let fifo = lab.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    lab.build(&["-o", &format!("type=tar,dest={}", fifo.display())])
        .succeeds();
    assert!(!reader.join().unwrap().is_empty());
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
}

/// Files of new layers get the epoch where they are younger; those of the base stay as they are.
#[test]
fn times_are_rewritten_on_demand() {
    let lab = Lab::new();
    let age = |name: &str, seconds: u64| {
        let file = fs::File::open(lab.file(name, name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .unwrap();
    };
    age("old", 1000);
    age("young", 3000);
    lab.dockerfile("FROM scratch\nCOPY young /below\n");
    lab.build(&["-t", "base"]).succeeds();
    lab.dockerfile("FROM base\nCOPY old young /d/\n");
    let times = |output: &str| -> Vec<(String, i64)> {
        let dest = lab.path("layout");
        fs::remove_dir_all(&dest).ok();
        let output = format!("type=oci,tar=false,dest={}{output}", dest.display());
        lab.build(&["--build-arg", "SOURCE_DATE_EPOCH=2000", "-o", &output])
            .succeeds();
        let files = Image::read(&dest).files().0;
        files
            .into_iter()
            .map(|(path, file)| (path, file.entry.mtime.seconds))
            .collect()
    };
    let expect = |below: i64, old: i64, young: i64| {
        let file = |path: &str, time| (path.to_owned(), time);
        vec![
            file("below", below),
            file("d", 2000),
            file("d/old", old),
            file("d/young", young),
        ]
    };
    assert_eq!(times(""), expect(3000, 1000, 3000));
    assert_eq!(times(",rewrite-timestamp=true"), expect(3000, 1000, 2000));
    // Of one layer both forms are kept.
    assert_eq!(times(""), expect(3000, 1000, 3000));
    assert_eq!(
        times(",rewrite-timestamp=true,source-date-epoch=500"),
        [
            ("below", 3000),
            ("d", 500),
            ("d/old", 500),
            ("d/young", 500)
        ]
        .map(|(path, time)| (path.to_owned(), time))
    );
    let warned = lab
        .build(&["-o", "type=image,rewrite-timestamp=true"])
        .succeeds()
        .stderr
        .clone();
    assert!(warned.contains("SOURCE_DATE_EPOCH"), "{warned}");

    // Exported files all have the epoch's time.
    let out = lab.path("out");
    let output = format!("type=local,dest={}", out.display());
    lab.build(&["--build-arg", "SOURCE_DATE_EPOCH=2000", "-o", &output])
        .succeeds();
    for name in ["below", "d", "d/old", "d/young"] {
        assert_eq!(
            fs::metadata(out.join(name)).unwrap().mtime(),
            2000,
            "{name}"
        );
    }
}

/// Files of several platforms do not end the delivery.
#[test]
fn several_platforms_can_leave_as_files_and_as_an_image() {
    let lab = Lab::new();
    lab.file("f", "content");
    lab.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n");
    let (out, id) = (lab.path("out"), lab.path("id"));
    let ran = lab.build(&[
        "-q",
        "--platform",
        "linux/amd64,linux/arm64",
        "-t",
        "multi",
        "--iidfile",
        id.to_str().unwrap(),
        "-o",
        &format!("type=local,dest={}", out.display()),
    ]);
    ran.succeeds();
    for architecture in ["amd64", "arm64"] {
        let path = out.join(format!("linux_{architecture}/{architecture}"));
        assert_eq!(fs::read_to_string(path).unwrap(), "content");
    }
    let id = fs::read_to_string(id).unwrap();
    assert_eq!(lab.inspect("multi")[0]["digest"], id.trim());
    assert_eq!(ran.stdout.trim(), id);
}
