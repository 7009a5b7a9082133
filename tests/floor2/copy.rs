//! COPY and ADD as whole builds, where the conformance suite has no words for it: several images and contexts, odd names, hostile
//! archives.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use builder::layer::EntryKind;

use crate::support::image::Files;
use crate::support::lab::Lab;

/// A capability set as `setcap cap_net_bind_service=ep` writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// 2001-02-03T04:05:06Z
const THEN: i64 = 981_173_106;

/// Returns kind, mode, owner and content in one line: `f 0644 0:0 text`, `d 0755 0:0`, `l 0:0 -> target`.
pub(crate) fn line(files: &Files, path: &str) -> String {
    let Some(file) = files.0.get(path) else {
        return "missing".to_owned();
    };
    let entry = &file.entry;
    let owner = format!("{}:{}", entry.uid, entry.gid);
    match &entry.kind {
        EntryKind::File { .. } => {
            let content = String::from_utf8_lossy(&file.content);
            format!("f {:04o} {owner} {}", entry.mode, content.trim_end())
                .trim_end()
                .to_owned()
        }
        EntryKind::Directory => format!("d {:04o} {owner}", entry.mode),
        EntryKind::Symlink { target } => {
            format!("l {owner} -> {}", String::from_utf8_lossy(target))
        }
        EntryKind::Fifo => format!("p {:04o} {owner}", entry.mode),
        EntryKind::CharDevice { major, minor } => {
            format!("c {:04o} {owner} {major},{minor}", entry.mode)
        }
        other => format!("{other:?}"),
    }
}

/// Compares each path's line; all that differ are told together.
#[track_caller]
pub(crate) fn check(files: &Files, rows: &[(&str, &str)]) {
    let wrong: Vec<String> = rows
        .iter()
        .map(|(path, expected)| (path, expected, line(files, path)))
        .filter(|(_, expected, found)| *expected != found)
        .map(|(path, expected, found)| format!("{path}: expected `{expected}`, found `{found}`"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{}\nall: {:?}",
        wrong.join("\n"),
        files
            .0
            .keys()
            .filter(|path| !path.starts_with("usr/")
                && !path.starts_with("bin/")
                && !path.starts_with("lib"))
            .collect::<Vec<_>>()
    );
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn mtime(files: &Files, path: &str) -> (i64, u32) {
    let mtime = files.get(path).entry.mtime;
    (mtime.seconds, mtime.nanoseconds)
}

#[track_caller]
fn shell(directory: &Path, script: &str) {
    let ran = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// 3.7, 3.14: everything that `--from` can name.
#[test]
fn copies_from_stages_images_and_named_contexts() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("suid", "capable");
    if nix::unistd::geteuid().is_root() {
        rustix::fs::setxattr(
            lab.context().join("suid"),
            "security.capability",
            &CAPABILITY,
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
    }
    let named = lab.path("named");
    fs::create_dir_all(named.join("sub")).unwrap();
    fs::write(named.join("sub/n"), "n").unwrap();
    fs::write(named.join("left-out"), "").unwrap();
    fs::write(named.join(".dockerignore"), "left-*\n").unwrap();
    lab.dockerfile("FROM scratch\nCOPY suid /from-image\nENV X=1\n");
    lab.build(&["-t", "other:v1"]).succeeds();
    let layout = lab.path("layout");
    let layout_text = layout.to_str().unwrap().to_owned();
    lab.builder(&["save", "--format=oci-dir", "-o", &layout_text, "other:v1"])
        .succeeds();
    let digest = lab.saved("other:v1").digest;
    lab.dockerfile(
        "FROM base AS Made\nCOPY suid /m/capable\nRUN mkdir -p /m/d/sub && echo x > /m/d/f && ln /m/d/f /m/d/g && ln -s f /m/d/s && mkfifo -m 600 /m/d/p && chown -R 21:22 /m && chown -h 23:24 /m/d/s && chmod 4755 /m/d/f && \
         chmod 2770 /m/d/sub && touch -d @981173106 /m/d/f /m/d/sub && ln -s /m/d /way && ln -s nothing /m/dangling\n\
         FROM scratch AS second\nCOPY --from=0 /m/d /numbered\n\
         FROM base\nCOPY --from=made /m /whole\nCOPY --from=MADE m/d/f /single\nCOPY --from=made /way/sub /linked/\nCOPY --from=second /numbered/f /twice\nCOPY --from=made --chown=1:2 /m/d /owned\n\
         COPY --from=other:v1 / /image/\nCOPY --from=dir / /dir/\nCOPY --from=dir sub/n /single-n\nCOPY --from=lay from-image /lay\nCOPY --from=tagged from-image /tagged\nCOPY --from=pinned from-image /pinned\nCOPY --from=img from-image /img\n\
         COPY --from=scratch / /nothing/\n",
    );
    lab.build(&[
        "-t",
        "image",
        "--build-context",
        &format!("dir={}", named.display()),
        "--build-context",
        &format!("lay=oci-layout://{layout_text}"),
        "--build-context",
        &format!("tagged=oci-layout://{layout_text}:v1"),
        "--build-context",
        &format!("pinned=oci-layout://{layout_text}@{digest}"),
        "--build-context",
        "img=docker-image://other:v1",
    ])
    .succeeds();
    let files = lab.saved("image").files();
    check(
        &files,
        &[
            ("whole", "d 0755 0:0"),
            ("whole/capable", "f 0644 21:22 capable"),
            ("whole/d", "d 0755 21:22"),
            ("whole/d/f", "f 4755 21:22 x"),
            ("whole/d/g", "f 4755 21:22 x"),
            ("whole/d/s", "l 23:24 -> f"),
            ("whole/d/p", "p 0600 21:22"),
            ("whole/d/sub", "d 2770 21:22"),
            ("whole/dangling", "l 0:0 -> nothing"),
            ("single", "f 4755 21:22 x"),
            ("linked", "d 0755 0:0"),
            ("twice", "f 4755 21:22 x"),
            ("owned/f", "f 4755 1:2 x"),
            ("owned/s", "l 1:2 -> f"),
            ("owned/sub", "d 2770 1:2"),
            ("image/from-image", "f 0644 0:0 capable"),
            ("dir/sub/n", "f 0644 0:0 n"),
            ("dir/left-out", "missing"),
            ("single-n", "f 0644 0:0 n"),
            ("lay", "f 0644 0:0 capable"),
            ("tagged", "f 0644 0:0 capable"),
            ("pinned", "f 0644 0:0 capable"),
            ("img", "f 0644 0:0 capable"),
        ],
    );
    assert_eq!(mtime(&files, "whole/d/f"), (THEN, 0));
    assert_eq!(mtime(&files, "twice"), (THEN, 0));
    assert_eq!(mtime(&files, "whole/d/sub"), (THEN, 0));
    if nix::unistd::geteuid().is_root() {
        for path in ["image/from-image", "lay", "img", "tagged"] {
            let xattrs = &files.get(path).entry.xattrs;
            assert_eq!(
                xattrs.get(&b"security.capability"[..]).unwrap(),
                &CAPABILITY,
                "{path}"
            );
        }
        // A change of owner takes capabilities away: RUN's chown did that to this one.
        assert!(files.get("whole/capable").entry.xattrs.is_empty());
    }
    lab.dockerfile("FROM base AS a\nRUN true\nFROM base AS b\nCOPY --from=a /no/such/file /x\n");
    lab.build(&[]).fails(5, &["no/such/file", "Dockerfile:4"]);
    lab.dockerfile("FROM base AS a\nCOPY --from=b / /x\nFROM base AS b\nFROM a\n");
    lab.build(&[]).fails(3, &["Dockerfile:2", "later"]);
}

/// 3.8, 3.10: devices and odd names through layers and copies.
#[test]
fn devices_and_odd_names_are_copied() {
    let Some(lab) = Lab::with_base() else { return };
    let long = "n".repeat(255);
    for name in [
        "new\nline",
        "back\\slash",
        "ünïcode",
        "-dash",
        " blank ",
        "*star",
        &long,
    ] {
        lab.file(&format!("d/{name}"), name.trim());
    }
    lab.file(&format!("d/{}/{}/f", &long[..200], &long[..200]), "deep");
    let is_root = nix::unistd::geteuid().is_root();
    let node = if is_root {
        "mknod -m 640 /made c 1 3 && chown 1:2 /made"
    } else {
        "true"
    };
    let image = lab.image(&format!(
        "FROM base AS devices\nRUN {node}\nCOPY d /d\nFROM scratch\nCOPY --from=devices /d /mad[e] /to/\nCOPY d /direct\n"
    ));
    let files = image.files();
    for top in ["to", "direct"] {
        for name in [
            "new\nline",
            "back\\slash",
            "ünïcode",
            "-dash",
            " blank ",
            "*star",
            &long,
        ] {
            assert_eq!(
                line(&files, &format!("{top}/{name}")),
                format!("f 0644 0:0 {}", name.trim()),
                "{name}"
            );
        }
        let deep = format!("{top}/{}/{}/f", &long[..200], &long[..200]);
        assert_eq!(line(&files, &deep), "f 0644 0:0 deep");
    }
    if is_root {
        assert_eq!(line(&files, "to/made"), "c 0640 1:2 1,3");
    }
}

/// 3.13 as COPY sees it, with the ignore file that belongs to the Dockerfile.
#[test]
fn ignored_files_are_not_there() {
    let Some(lab) = Lab::with_base() else { return };
    for name in [
        "a.md",
        "sub/b.md",
        "c/f",
        "c/keep",
        "deep/x/g.txt",
        "deep/x/h.txt",
        "secret",
        "other",
    ] {
        lab.file(name, name);
    }
    symlink("other", lab.context().join("linked")).unwrap();
    mode(&lab.context().join("deep"), 0o711);
    lab.dockerfile("FROM scratch\nCOPY . /\n");
    let build = |ignore: &str| {
        lab.file(".dockerignore", ignore);
        lab.build(&["-t", "image"]).succeeds();
        lab.saved("image").files().0.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(
        build(
            "\u{feff}# comment\n*.md\n/c/\n  secret  \nlinked\nDockerfile\n.dockerignore\n../x\ndeep/../sub/b.md\n"
        ),
        [
            "deep",
            "deep/x",
            "deep/x/g.txt",
            "deep/x/h.txt",
            "other",
            "sub"
        ]
    );
    assert_eq!(build("*\n!c\nc/f\n"), ["c", "c/keep"]);
    assert_eq!(
        build("**\n!deep/x/g.txt\n"),
        ["deep", "deep/x", "deep/x/g.txt"]
    );
    assert_eq!(
        build("*\n!.dockerignore\n!Dockerfile\n"),
        [".dockerignore", "Dockerfile"]
    );
    // The Dockerfile's own ignore file takes the place of the context's; a Dockerfile may lie outside.
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("Other"), "FROM scratch\nCOPY . /\n").unwrap();
    fs::write(outside.join("Other.dockerignore"), "*\n!other\n!secret\n").unwrap();
    lab.file(".dockerignore", "secret\n");
    let file = outside.join("Other");
    lab.build(&["-t", "image", "-f", file.to_str().unwrap()])
        .succeeds();
    assert_eq!(
        lab.saved("image").files().0.into_keys().collect::<Vec<_>>(),
        ["other", "secret"]
    );
    lab.file(".dockerignore", "[\n");
    lab.build(&[]).fails(4, &[".dockerignore"]);
}

/// 3.7, 3.8: what cannot be placed is refused, with its line, and what is kept of what was there.
#[test]
fn what_is_in_the_way_is_replaced_or_refused() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("d/sub/x", "x");
    lab.file("d/file", "file");
    lab.file("wh/.wh.gone", "");
    lab.link("links/l", "target");
    lab.file("links/f", "f");
    shell(
        &lab.context(),
        "mkdir t t/real && echo i > t/real/in && ln -s /etc t/out && tar --owner=0 --group=0 -C t -cf out.tar out && mkdir t2 && mkdir t2/out && echo evil > t2/out/evil && tar --owner=0 --group=0 -C t2 -rf out.tar out/evil && \
         echo one > t/a && ln t/a t/b && tar --owner=3 --group=4 --mode=600 -C t -cf hard.tar a b && rm -r t t2",
    );
    let prepare = "FROM base AS prepared\nRUN mkdir -p /sub/sub /asfile/file /links && echo old > /sub/file && ln -s /etc/passwd /links/f && echo x > /target && echo keep > /links/l && mkdir -p /block && echo x > /block/sub\n";
    for (instruction, text) in [
        ("COPY d /block", "/block/sub"),
        ("COPY d /asfile", "/asfile/file"),
        ("COPY wh /", ".wh.gone"),
        ("ADD d/file /target/x", "/target"),
    ] {
        lab.dockerfile(&format!("{prepare}{instruction}\n"));
        lab.build(&["-t", "image"])
            .fails(5, &[text, "Dockerfile:3"]);
    }
    let files = lab.files(&format!(
        "{prepare}FROM prepared\nCOPY d /sub\nCOPY links /links\nADD hard.tar /hard\nADD out.tar /hostile\nVOLUME /vol\nRUN mkdir /vol && echo kept > /vol/f\nCOPY --from=prepared /nothing* /none/\nCOPY d/file /etc/passwd\n"
    ));
    check(
        &files,
        &[
            ("sub/file", "f 0644 0:0 file"),
            ("sub/sub/x", "f 0644 0:0 x"),
            ("links/l", "l 0:0 -> target"),
            ("links/f", "f 0644 0:0 f"),
            ("target", "f 0644 0:0 x"),
            ("hard/a", "f 0600 3:4 one"),
            ("hard/b", "f 0600 3:4 one"),
            ("vol/f", "f 0644 0:0 kept"),
            ("hostile/out", "l 0:0 -> /etc"),
            ("etc/passwd", "f 0644 0:0 file"),
        ],
    );
    assert_eq!(
        files.text("hostile/etc/evil"),
        "evil\n",
        "to an archive its destination is the root"
    );
    assert!(!fs::exists("/etc/evil").unwrap());
}
