//! Where contexts come from: standard input, repositories, URLs, names; and the Dockerfile inside or outside of them.

use std::fs;
use std::process::Command;

use crate::support::http::{FileServer, Resource};
use crate::support::lab::{Lab, Ran};
use crate::support::repository::Repository;

/// Packs the lab's context.
fn packed(lab: &Lab, options: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .arg("-C")
        .arg(lab.context())
        .args(options)
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

fn build(lab: &Lab, args: &[&str], input: &[u8]) -> Ran {
    let mut all = vec!["build", "--progress=plain", "-t", "image"];
    all.extend_from_slice(args);
    lab.builder_with_input(&all, input)
}

#[test]
fn a_tar_on_standard_input_is_the_context() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM scratch\nCOPY . /c\n");
    lab.file(".dockerignore", "kept\n");
    lab.file("kept", "kept");
    lab.file("sub/Other", "FROM scratch\nCOPY kept /other\n");
    lab.file("closed/f", "f");
    let closed = lab.context().join("closed");
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    for options in [&["-c"][..], &["-cz"], &["-cj"]] {
        build(&lab, &["-"], &packed(&lab, options)).succeeds();
        let files = lab.saved("image").files();
        // What was packed was chosen: no ignore file counts.
        assert_eq!(files.text("c/kept"), "kept");
        assert_eq!(files.get("c/closed").entry.mode, 0o555);
        assert_eq!(files.owner("c/closed/f"), "0644 0:0");
        lab.is_sound();
    }
    let again = build(&lab, &["-"], &packed(&lab, &["-c"]));
    assert_eq!(again.succeeds().executed(), 0);
    build(&lab, &["-f", "sub/Other", "-"], &packed(&lab, &["-c"])).succeeds();
    assert!(lab.saved("image").files().has("other"));
    build(&lab, &["-f", "none", "-"], &packed(&lab, &["-c"]))
        .fails(3, &["the build context has no file `none`", "-f /FILE"]);
    build(&lab, &["-"], &packed(&lab, &["-cz"])[..100]).fails(4, &["cannot unpack"]);
    lab.is_sound();
}

#[test]
fn a_hostile_tar_stays_inside_and_is_gone_at_the_end() {
    let Some(lab) = Lab::with_base() else { return };
    let outside = lab.path("outside");
    fs::write(&outside, "untouched").unwrap();
    lab.dockerfile("FROM scratch\nCOPY . /c\n");
    lab.link("up", "../../../../../../..");
    lab.link("passwd", "/etc/passwd");
    build(&lab, &["-"], &packed(&lab, &["-c"])).succeeds();
    build(&lab, &["-f", "passwd", "-"], &packed(&lab, &["-c"])).fails(3, &["has no file `passwd`"]);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.as_ustar_mut().unwrap().name[..10].copy_from_slice(b"../outside");
    header.set_size(4);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, &b"evil"[..]).unwrap();
    build(&lab, &["-"], &tar.into_inner().unwrap());
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    lab.is_sound();
}

#[test]
fn a_dockerfile_on_standard_input_has_no_context() {
    let Some(lab) = Lab::with_base() else { return };
    build(
        &lab,
        &["-"],
        b"FROM scratch\nCOPY . /d\nCOPY <<E /e\nhello\nE\n",
    )
    .succeeds();
    let files = lab.saved("image").files();
    assert_eq!(files.text("e"), "hello\n");
    build(&lab, &["-"], b"FROM scratch\nCOPY a /d\n").fails(5, &["`a` not found", "<stdin>:2"]);
    build(&lab, &["-f", "x", "-"], b"FROM scratch\n")
        .fails(2, &["it is a Dockerfile, and `-f` names another"]);
    build(&lab, &["-f", "-", "-"], b"").fails(2, &["both come from standard input"]);
    lab.file("a", "a");
    let context = lab.context();
    build(
        &lab,
        &["-f", "-", context.to_str().unwrap()],
        b"FROM scratch\nCOPY a /a\n",
    )
    .succeeds();
    assert!(lab.saved("image").files().has("a"));
}

#[test]
fn a_repository_is_a_context() {
    let Some(lab) = Lab::with_base() else { return };
    let repository = Repository::new(&lab.path("repositories"), "app");
    repository
        .file("Dockerfile", "FROM scratch\nCOPY . /c\n")
        .file("sub/Containerfile", "FROM scratch\nCOPY . /sub\n")
        .file("sub/Other", "FROM scratch\nCOPY Other /other\n")
        .file(".dockerignore", "*\n");
    let commit = repository.commit();
    let url = repository.file_url();
    let files = |args: &[&str]| {
        build(&lab, args, b"").succeeds();
        lab.saved("image").files()
    };
    let all = files(&[&url]);
    assert!(all.has("c/.dockerignore") && !all.has("c/.git"));
    assert_eq!(all.get("c/Dockerfile").entry.mtime.seconds, 1_000_000_000);
    let sub = format!("{url}#{commit}:sub");
    assert!(files(&[&sub]).has("sub/Other"));
    assert!(files(&["-f", "Other", &sub]).has("other"));
    assert!(files(&["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url]).has("c/.git/HEAD"));
    lab.dockerfile("FROM scratch\nCOPY sub /outside\n");
    let outside = lab.context().join("Dockerfile");
    assert!(files(&["-f", outside.to_str().unwrap(), &url]).has("outside/Other"));
    assert_eq!(build(&lab, &[&url], b"").succeeds().executed(), 0);
    build(&lab, &["-f", "../../etc/passwd", &url], b"")
        .fails(3, &["the build context has no file"]);
    build(&lab, &[&format!("{url}#none")], b"").fails(4, &["no branch, tag or reference `none`"]);
    build(&lab, &[&format!("{url}?odd=1")], b"").fails(2, &["the part `odd` of the query"]);
    lab.is_sound();
}

#[test]
fn a_url_is_a_context_or_a_dockerfile() {
    let Some(lab) = Lab::with_base() else { return };
    let server = FileServer::start();
    lab.dockerfile("FROM scratch\nCOPY a /a\n");
    lab.file("a", "a");
    server.put(
        "/context.tar.gz",
        Resource::new(packed(&lab, &["-cz"])).header("ETag", "\"1\""),
    );
    server.put(
        "/text",
        Resource::new("FROM scratch\nCOPY context /itself\n"),
    );
    server.put("/other", Resource::new("FROM scratch\nCOPY a /by-url\n"));
    let files = |args: &[&str]| {
        build(&lab, args, b"").succeeds();
        lab.saved("image").files()
    };
    let url = server.url("/context.tar.gz");
    assert!(files(&[&url]).has("a"));
    assert_eq!(build(&lab, &[&url], b"").succeeds().executed(), 0);
    assert!(files(&["-f", &server.url("/other"), &url]).has("by-url"));
    assert_eq!(
        files(&[&server.url("/text")]).text("itself"),
        "FROM scratch\nCOPY context /itself\n"
    );
    let context = lab.context();
    assert!(files(&["-f", &server.url("/other"), context.to_str().unwrap()]).has("by-url"));
    build(&lab, &[&server.url("/none")], b"").fails(4, &["status 404"]);
    build(&lab, &["/no/such/dir"], b"").fails(4, &["does not exist"]);
    lab.is_sound();
}

#[test]
fn the_dockerfile_may_lie_anywhere_with_its_own_ignore_file() {
    let Some(lab) = Lab::with_base() else { return };
    for name in ["a", "b", "c"] {
        lab.file(name, name);
    }
    fs::remove_file(lab.context().join("Dockerfile")).unwrap();
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("App"), "FROM scratch\nCOPY ? /\n").unwrap();
    fs::write(outside.join("App.dockerignore"), "a\n").unwrap();
    lab.file(".dockerignore", "b\n");
    lab.file(".containerignore", "c\n");
    lab.file("Containerfile", "FROM scratch\nCOPY ? /\n");
    let context = lab.context();
    let context = context.to_str().unwrap();
    let app = outside.join("App");
    for (args, missing) in [
        (vec!["-f", "outside/App", context], "a"),
        (vec!["-f", app.to_str().unwrap(), context], "a"),
        (vec!["-f", "context/Containerfile", context], "c"),
        // Nobody has named it, and there is no Dockerfile.
        (vec![context], "c"),
    ] {
        build(&lab, &args, b"").succeeds();
        let files = lab.saved("image").files();
        for name in ["a", "b", "c"] {
            assert_eq!(files.has(name), name != missing, "{name}: {args:?}");
        }
    }
    lab.dockerfile("FROM scratch\nCOPY ? /\n");
    build(&lab, &[context], b"").succeeds();
    assert!(!lab.saved("image").files().has("b"));
    fs::remove_file(lab.context().join(".dockerignore")).unwrap();
    build(&lab, &[context], b"").succeeds();
    assert!(!lab.saved("image").files().has("c"));
}

#[test]
fn names_stand_for_contexts_of_every_kind() {
    let Some(lab) = Lab::with_base() else { return };
    let server = FileServer::start();
    server.put("/data.tar", Resource::new("not unpacked"));
    let folder = lab.path("repositories");
    server.folder("/git", folder.clone());
    let repository = Repository::new(&folder, "lib");
    repository.file("src/x", "x");
    repository.commit();
    let directory = lab.path("named");
    fs::create_dir(&directory).unwrap();
    for (name, content) in [("in", "in"), ("out", "out"), (".dockerignore", "out\n")] {
        fs::write(directory.join(name), content).unwrap();
    }
    lab.dockerfile(
        "FROM scratch AS built\nCOPY <<E /made\nmade\nE\nFROM scratch\nCOPY --from=dir . /dir/\nCOPY --from=repo x /repo\nCOPY --from=file / /file/\nCOPY --from=docker.io/library/alpine:latest /made /target\n",
    );
    let context = lab.context();
    let arguments = [
        format!("dir={}", directory.display()),
        format!("repo={}#main:src", server.url("/git/lib.git")),
        format!("file={}", server.url("/data.tar")),
        "alpine=target:built".to_owned(),
    ];
    let mut args: Vec<&str> = arguments
        .iter()
        .flat_map(|argument| ["--build-context", argument.as_str()])
        .collect();
    args.push(context.to_str().unwrap());
    build(&lab, &args, b"").succeeds();
    let files = lab.saved("image").files();
    assert!(files.has("dir/in") && !files.has("dir/out"));
    for (path, text) in [
        ("repo", "x"),
        ("file/context", "not unpacked"),
        ("target", "made\n"),
    ] {
        assert_eq!(files.text(path), text);
    }
    assert_eq!(build(&lab, &args, b"").succeeds().executed(), 0);

    lab.dockerfile("FROM scratch\nCOPY --from=lib / /\n");
    let platforms = [
        "--build-context".to_owned(),
        format!("lib={}", directory.display()),
        "--build-context".to_owned(),
        format!("lib::linux/arm64={}#main:src", server.url("/git/lib.git")),
    ];
    for (platform, path) in [("linux/amd64", "in"), ("linux/arm64", "x")] {
        let mut args: Vec<&str> = platforms.iter().map(String::as_str).collect();
        args.extend(["--platform", platform, context.to_str().unwrap()]);
        build(&lab, &args, b"").succeeds();
        assert!(lab.saved("image").files().has(path), "{platform}");
    }
    build(
        &lab,
        &["--build-context", "x=ftp://h/y", context.to_str().unwrap()],
        b"",
    )
    .fails(2, &["no contexts of the kind `ftp`"]);
    lab.is_sound();
}
