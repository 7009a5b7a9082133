//! ADD of URLs and repositories: what is fetched, how often, what comes into the image, and what is refused.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use builder::context::{Git, Remote};
use builder::layer::EntryKind;
use builder::vocab::{Digest, Secret};

use crate::support::http::{FileServer, Resource};
use crate::support::image::Files;
use crate::support::lab::Lab;
use crate::support::repository::Repository;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const DATE_SECONDS: i64 = 784_111_777;

fn mode(files: &Files, path: &str) -> u32 {
    files.get(path).entry.mode
}

fn seconds(files: &Files, path: &str) -> i64 {
    files.get(path).entry.mtime.seconds
}

/// Returns how much is kept of what was fetched.
fn kept(lab: &Lab) -> usize {
    let ran = lab.builder(&["du", "--json"]);
    let usage: serde_json::Value = serde_json::from_str(&ran.succeeds().stdout).unwrap();
    let kinds = usage["kinds"].as_array().unwrap().iter();
    let kind = kinds.into_iter().find(|kind| kind["kind"] == "downloads");
    kind.unwrap()["count"].as_u64().unwrap() as usize
}

#[test]
fn a_download_is_a_private_file_with_the_servers_time() {
    let Some(lab) = Lab::with_base() else { return };
    let server = FileServer::start();
    server.put(
        "/dir/a%20b",
        Resource::new("hello")
            .header("Last-Modified", DATE)
            .header("Content-Disposition", "attachment; filename=evil"),
    );
    server.put("/plain", Resource::new("plain"));
    server.put("/", Resource::new("root"));
    lab.file("local", "local");
    let files = lab.files(&format!(
        "FROM scratch\nADD {a} /d/\nADD {plain} /file\nADD {root} /d/\nADD --chown=7:8 --chmod=755 {plain} local {a} /mixed/\n",
        a = server.url("/dir/a%20b?x=/y"),
        plain = server.url("/plain"),
        root = server.url("/"),
    ));
    assert_eq!(files.text("d/a b"), "hello");
    assert_eq!(
        (mode(&files, "d/a b"), files.owner("d/a b").as_str()),
        (0o600, "0600 0:0")
    );
    assert_eq!(seconds(&files, "d/a b"), DATE_SECONDS);
    assert_eq!(
        (files.text("file").as_str(), seconds(&files, "file")),
        ("plain", 0)
    );
    assert_eq!(files.text("d/__unnamed__"), "root");
    for name in ["plain", "local", "a b"] {
        let path = format!("mixed/{name}");
        assert_eq!(
            (mode(&files, &path), files.owner(&path).as_str()),
            (0o755, "0755 7:8"),
            "{path}"
        );
    }
    assert!(!files.has("d/evil"));
    lab.is_sound();
}

#[test]
fn an_unchanged_url_costs_one_conditional_request() {
    let Some(lab) = Lab::with_base() else { return };
    let server = FileServer::start();
    server.put("/tag", Resource::new("1").header("ETag", "\"one\""));
    server.put("/date", Resource::new("1").header("Last-Modified", DATE));
    server.put("/bare", Resource::new("1"));
    lab.dockerfile(&format!(
        "FROM scratch\nADD {} /a\nADD {} /b\nADD {} /c\n",
        server.url("/tag"),
        server.url("/date"),
        server.url("/bare")
    ));
    lab.build(&[]).succeeds();
    server.take_log();
    assert_eq!(lab.build(&[]).succeeds().executed(), 0);
    let log = server.take_log();
    let lines: Vec<&str> = log.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(lines, ["GET /tag", "GET /date", "GET /bare"]);
    assert_eq!(log[0].header("if-none-match"), Some("\"one\""));
    assert_eq!(log[0].header("accept-encoding"), Some("identity"));
    assert_eq!(log[1].header("if-modified-since"), Some(DATE));
    // Other bytes make another layer; another mark on the same bytes does not.
    server.put("/tag", Resource::new("1").header("ETag", "\"two\""));
    assert_eq!(lab.build(&[]).succeeds().executed(), 0);
    server.put("/tag", Resource::new("2").header("ETag", "\"three\""));
    assert_eq!(lab.build(&[]).succeeds().executed(), 1);
    lab.is_sound();
}

#[test]
fn checksums_are_checked_and_save_requests() {
    let Some(lab) = Lab::with_base() else { return };
    let server = FileServer::start();
    server.put("/f", Resource::new("good"));
    let sum = Digest::of(b"good");
    let add = |sum: &str| {
        lab.dockerfile(&format!(
            "FROM scratch\nARG SUM={sum}\nADD --checksum=$SUM {} /f\n",
            server.url("/f")
        ));
        lab.build(&[])
    };
    let wrong = Digest::of(b"evil").to_string();
    add(&wrong).fails(
        4,
        &[
            "is not what its checksum says",
            &format!("wanted {wrong}, found {sum}"),
            "Dockerfile:3",
        ],
    );
    assert_eq!(kept(&lab), 0);
    add(&sum.to_string()).succeeds();
    server.take_log();
    assert_eq!(add(&sum.to_string()).succeeds().executed(), 0);
    assert!(server.take_log().is_empty());
    // What is kept does not hide that the server has something else.
    add(&wrong).fails(4, &["is not what its checksum says"]);
    add("sha512:00").fails(3, &["only sha256", "Dockerfile:3"]);
    lab.is_sound();
}

#[test]
fn an_archive_is_unpacked_only_where_told() {
    let Some(lab) = Lab::with_base() else { return };
    let server = FileServer::start();
    let tar = std::process::Command::new("tar")
        .args(["-C", lab.path("").to_str().unwrap(), "-cz", "context"])
        .output()
        .unwrap();
    server.put("/a.tgz", Resource::new(tar.stdout));
    let url = server.url("/a.tgz");
    let files = lab.files(&format!(
        "FROM scratch\nADD {url} /as/\nADD --unpack=true {url} /un\nADD --unpack=false {url} /not/\n"
    ));
    assert!(files.has("as/a.tgz") && files.has("not/a.tgz"));
    assert!(files.has("un/context/Dockerfile") && !files.has("un/a.tgz"));
}

#[test]
fn what_servers_do_wrong_is_told_and_leaves_nothing() {
    let Some(lab) = Lab::with_base() else { return };
    let server = FileServer::start();
    server.put("/ok", Resource::new("ok"));
    server.put("/to", Resource::redirect("/ok"));
    server.put("/loop", Resource::redirect("/loop"));
    server.put("/out", Resource::redirect("file:///etc/passwd"));
    server.put(
        "/cut",
        Resource {
            cut: Some(2),
            ..Resource::new("whole")
        },
    );
    server.put("/forbidden", Resource::status(403));
    server.put("/partial", Resource::status(206));
    let add = |path: &str| {
        lab.dockerfile(&format!("FROM scratch\nADD {} /f\n", server.url(path)));
        lab.build(&[])
    };
    add("/to").succeeds();
    assert_eq!(
        lab.files(&fs::read_to_string(lab.context().join("Dockerfile")).unwrap())
            .text("f"),
        "ok"
    );
    let before = kept(&lab);
    for (path, texts) in [
        (
            "/none",
            &["status 404", "check the URL", "Dockerfile:2"][..],
        ),
        ("/forbidden", &["status 403", "HTTP_AUTH_TOKEN_"]),
        ("/partial", &["status 206"]),
        ("/loop", &["more than 10 redirects"]),
        ("/out", &["a redirect leads to no URL"]),
        ("/cut", &["cannot download"]),
    ] {
        add(path).fails(4, texts);
    }
    assert_eq!(kept(&lab), before);
    lab.is_sound();
}

#[test]
fn a_commit_is_files_without_history() {
    let Some(lab) = Lab::with_base() else { return };
    let (server, folder) = (FileServer::start(), lab.path("repositories"));
    let repository = Repository::new(&folder, "app");
    repository
        .file("a", "one")
        .file("dir/run.sh", "#!/bin/sh\n");
    repository.file("dir/notes.md", "");
    let script = repository.work().join("dir/run.sh");
    fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o775)).unwrap();
    std::os::unix::fs::symlink("dir/run.sh", repository.work().join("link")).unwrap();
    std::os::unix::fs::symlink("dir", repository.work().join("dirlink")).unwrap();
    let first = repository.commit();
    repository.git(&["tag", "-a", "v1", "-m", "one"]);
    repository.git(&["checkout", "-q", "-b", "topic/x"]);
    repository.file("a", "two");
    let second = repository.commit();
    repository.git(&["checkout", "-q", "main"]);
    repository.publish();
    server.folder("/git", folder.clone());
    let url = server.url("/git/app.git");

    let files = lab.files(&format!(
        "FROM scratch\nADD {url} /main\nADD {url}#v1 /tag\nADD {url}?branch=topic/x /branch\nADD {url}#{second}:dir /sub\nADD --exclude=*.md --chown=5:6 {url}#:dir /part/\nADD {url}?tag=v1&commit={} /checked\n",
        &first[..8]
    ));
    for (path, text) in [
        ("main/a", "one"),
        ("tag/a", "one"),
        ("branch/a", "two"),
        ("sub/run.sh", "#!/bin/sh\n"),
        ("part/run.sh", "#!/bin/sh\n"),
        ("checked/a", "one"),
    ] {
        assert_eq!(files.text(path), text, "{path}");
    }
    assert_eq!(
        (mode(&files, "main/a"), mode(&files, "main/dir/run.sh")),
        (0o644, 0o755)
    );
    assert_eq!(
        (mode(&files, "main/dir"), files.owner("main/a").as_str()),
        (0o755, "0644 0:0")
    );
    assert_eq!(seconds(&files, "main/a"), 1_000_000_000);
    assert!(
        matches!(&files.get("main/link").entry.kind, EntryKind::Symlink { target } if target == b"dir/run.sh")
    );
    assert!(!files.has("main/.git") && !files.has("part/notes.md"));
    assert_eq!(files.owner("part/run.sh"), "0755 5:6");
    // Nothing to do: references are asked for, files are not, and a commit needs no word at all.
    server.take_log();
    assert_eq!(lab.build(&[]).succeeds().executed(), 0);
    assert!(
        server
            .take_log()
            .iter()
            .all(|asked| asked.line.contains("/info/refs") || asked.line.contains("/HEAD"))
    );
    lab.dockerfile(&format!("FROM scratch\nADD {url}#{second}:dir /sub\n"));
    lab.build(&[]).succeeds();
    server.take_log();
    assert_eq!(lab.build(&[]).succeeds().executed(), 0);
    assert!(server.take_log().is_empty());

    for (source, texts) in [
        (
            "#none",
            &["no branch, tag or reference `none`", "Dockerfile:2"][..],
        ),
        (&format!("#{}", &first[..9]), &["all 40 digits"]),
        (
            "?branch=v1",
            &["no branch, tag or reference `refs/heads/v1`"],
        ),
        (
            "?tag=v1&commit=abcdef0",
            &["the commit is another: wanted abcdef0"],
        ),
        ("#:none", &["has no directory `none`"]),
        (
            "#:dirlink",
            &["has no directory `dirlink`", "links are not followed"],
        ),
        (
            &format!("#{}", "0".repeat(40)),
            &["cannot fetch the repository"],
        ),
    ] {
        lab.dockerfile(&format!("FROM scratch\nADD {url}{source} /d\n"));
        lab.build(&[]).fails(4, texts);
    }
    lab.is_sound();
}

#[test]
fn history_comes_along_where_told() {
    let Some(lab) = Lab::with_base() else { return };
    let (server, folder) = (FileServer::start(), lab.path("repositories"));
    let repository = Repository::new(&folder, "app");
    repository.file("a", "one");
    let commit = repository.commit();
    repository.git(&["tag", "-a", "v1", "-m", "one"]);
    repository.publish();
    server.folder("", folder);
    let url = server
        .url("/app.git")
        .replace("http://", "http://user:hunter2@");
    lab.dockerfile(&format!(
        "FROM scratch\nADD --keep-git-dir=true {url}#v1 /r\n"
    ));
    lab.build(&["-o", "out"]).succeeds();
    let clone = lab.path("out/r");
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git")
            .args(["-c", "safe.directory=*"])
            .args(args)
            .current_dir(&clone)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(git(&["rev-parse", "HEAD"]), commit);
    assert_eq!(git(&["describe"]), "v1");
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert_eq!(
        git(&["remote", "get-url", "origin"]),
        server.url("/app.git")
    );
    lab.build(&["-t", "image"]).succeeds();
    for folder in [lab.state(), clone] {
        let found = std::process::Command::new("grep")
            .args(["-r", "-l", "hunter2"])
            .arg(folder)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    }
}

#[test]
fn submodules_come_along_and_none_from_this_machine() {
    let Some(lab) = Lab::with_base() else { return };
    let (server, folder) = (FileServer::start(), lab.path("repositories"));
    server.folder("", folder.clone());
    let inner = Repository::new(&folder, "inner");
    inner.file("deep", "deep");
    inner.commit();
    let middle = Repository::new(&folder, "middle");
    middle.file("m", "m");
    let outer = Repository::new(&folder, "outer");
    outer.file("o", "o");
    let link = |of: &Repository, to: &Repository, url: &str, path: &str| {
        of.git(&["submodule", "add", "-q", &to.file_url(), path]);
        of.git(&[
            "config",
            "-f",
            ".gitmodules",
            &format!("submodule.{path}.url"),
            url,
        ]);
        of.commit()
    };
    link(&middle, &inner, "../inner.git", "lib/inner");
    link(&outer, &middle, &server.url("/middle.git"), "middle");
    let url = server.url("/outer.git");
    let files = lab.files(&format!(
        "FROM scratch\nADD {url} /all\nADD {url}?submodules=false /alone\nADD {url}?keep-git-dir=1 /kept\n"
    ));
    assert_eq!(files.text("all/middle/lib/inner/deep"), "deep");
    assert_eq!(files.text("kept/middle/lib/inner/deep"), "deep");
    assert_eq!(seconds(&files, "all/middle/m"), 1_000_000_000);
    assert!(files.has("alone/middle") && !files.has("alone/middle/m"));
    assert!(!files.has("all/middle/.git") && files.has("kept/middle/.git"));

    let evil = Repository::new(&folder, "evil");
    evil.file("e", "e");
    for (at, target) in [
        "file:///etc",
        "/etc",
        "ext::sh -c touch% /tmp/pwned",
        "--upload-pack=x",
    ]
    .iter()
    .enumerate()
    {
        let path = format!("s{at}");
        link(&evil, &inner, target, &path);
        lab.dockerfile(&format!(
            "FROM scratch\nADD {} /e\n",
            server.url("/evil.git")
        ));
        lab.build(&[])
            .fails(4, &["submodule `s", "submodules=false"]);
    }
    lab.is_sound();
}

#[test]
fn a_token_goes_to_its_host_in_a_header() {
    let (server, folder) = (FileServer::start(), tempfile::tempdir().unwrap());
    let repository = Repository::new(folder.path(), "private");
    let commit = repository.commit();
    server.folder("", folder.path().to_owned());
    let encoded = base64::engine::general_purpose::STANDARD.encode("x-access-token:hunter2");
    server.demand(&format!("Basic {encoded}"));
    let resolve = |secrets: &[(&str, &str)]| {
        let secrets: BTreeMap<_, _> = secrets
            .iter()
            .map(|(id, value)| ((*id).to_owned(), Secret::new((*value).to_owned())))
            .collect();
        let url = server.url("/private.git");
        let remote = Remote {
            url: &url,
            named: &url,
        };
        Git::new(secrets).resolve(remote, Some("main"), None)
    };
    let by_host = format!("GIT_AUTH_TOKEN.{}", server.host());
    for id in ["GIT_AUTH_TOKEN", by_host.as_str()] {
        assert_eq!(resolve(&[(id, "hunter2\n")]).unwrap().id, commit);
    }
    let header = format!("Basic {encoded}");
    assert!(resolve(&[("GIT_AUTH_HEADER", &header)]).is_ok());
    for secrets in [
        &[][..],
        &[("GIT_AUTH_TOKEN.other.test", "hunter2")],
        &[("GIT_AUTH_TOKEN", "wrong")],
    ] {
        let error = resolve(secrets).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        let hint = error.hint().unwrap_or_else(|| panic!("{error}"));
        assert!(hint.contains("GIT_AUTH_TOKEN"), "{hint}");
    }
}

#[test]
fn a_redirect_takes_no_token_along() {
    let (named, other) = (FileServer::start(), FileServer::start());
    let folder = tempfile::tempdir().unwrap();
    let commit = Repository::new(folder.path(), "a").commit();
    other.folder("", folder.path().to_owned());
    let refs = other.url("/a.git/info/refs?service=git-upload-pack");
    named.put("/a.git/info/refs", Resource::redirect(&refs));
    let secret = Secret::new("hunter2".to_owned());
    let git = Git::new(BTreeMap::from([("GIT_AUTH_TOKEN".to_owned(), secret)]));
    let url = named.url("/a.git");
    let with_password = format!("http://u:p@{}/a.git", named.host());
    for url in [&url, &with_password] {
        let remote = Remote { url, named: url };
        assert_eq!(git.resolve(remote, None, None).unwrap().id, commit);
        let asked = named.take_log();
        assert!(asked[0].header("authorization").is_some(), "{asked:?}");
        let asked = other.take_log();
        // The first one was redirected; the next ones git sends there itself.
        assert!(asked.len() > 1, "{asked:?}");
        let has_token = asked
            .iter()
            .any(|one| one.header("authorization").is_some());
        assert!(!has_token, "{asked:?}");
    }
    other.demand("Basic somebody");
    let remote = Remote {
        url: &url,
        named: &url,
    };
    let error = git.resolve(remote, None, None).unwrap_err();
    assert!(error.hint().unwrap().contains("where it is now"), "{error}");
}

#[test]
fn passwords_of_the_users_netrc_are_for_others() {
    let server = FileServer::start();
    let folder = tempfile::tempdir().unwrap();
    Repository::new(folder.path(), "a").commit();
    server.folder("", folder.path().to_owned());
    server.demand("Basic somebody");
    let lab = Lab::new();
    let netrc = "machine 127.0.0.1 login user password hunter2\n";
    fs::write(lab.path(".netrc"), netrc).unwrap();
    lab.dockerfile(&format!("FROM scratch\nADD {} /\n", server.url("/a.git")));
    let context = lab.context();
    let mut command = lab.command();
    command.env("HOME", lab.path(""));
    command.args(["build", "--progress=plain", context.to_str().unwrap()]);
    let ran = crate::support::lab::Ran::of(command.output().unwrap());
    ran.fails(4, &["Dockerfile:2", "GIT_AUTH_TOKEN"]);
    let asked = server.take_log();
    assert!(!asked.is_empty());
    let has_password = asked
        .iter()
        .any(|one| one.header("authorization").is_some());
    assert!(!has_password, "{asked:?}");
}

#[test]
fn without_git_the_error_says_so() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM scratch\nADD https://host.invalid/a.git /d\n");
    let context = lab.context();
    let ran = lab
        .command()
        .args(["build", "--progress=plain", context.to_str().unwrap()])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    crate::support::lab::Ran::of(ran)
        .fails(4, &["`git` is not there", "install it", "Dockerfile:2"]);
}

#[test]
fn secrets_are_credentials_of_add_and_stay_nowhere() {
    let Some(lab) = Lab::with_base() else { return };
    let (git, http) = (FileServer::start(), FileServer::start());
    let folder = lab.path("repositories");
    let repository = Repository::new(&folder, "private");
    repository.file("a", "a");
    repository.commit();
    git.folder("", folder);
    let encoded = base64::engine::general_purpose::STANDARD.encode("x-access-token:hunter2-git");
    git.demand(&format!("Basic {encoded}"));
    http.put("/f", Resource::new("f"));
    http.demand("Bearer hunter2-http");
    lab.dockerfile(&format!(
        "FROM scratch\nADD {} /r\nADD {} /f\n",
        git.url("/private.git"),
        http.url("/f")
    ));
    let secrets = [
        "--secret=id=GIT_AUTH_TOKEN,env=GIT_TOKEN",
        "--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,env=HTTP_TOKEN",
    ];
    let build = |secrets: &[&str]| {
        let context = lab.context();
        let mut command = lab.command();
        command
            .args(["build", "--progress=rawjson", "-t", "image"])
            .args(secrets)
            .arg(context)
            .env("GIT_TOKEN", "hunter2-git")
            .env("HTTP_TOKEN", "hunter2-http");
        crate::support::lab::Ran::of(command.output().unwrap())
    };
    build(&[]).fails(4, &[]);
    let ran = build(&secrets);
    ran.succeeds();
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains("hunter2") && !text.contains(&encoded));
    }
    for secret in ["hunter2", encoded.as_str()] {
        let found = std::process::Command::new("grep")
            .args(["-r", "-l", "-a", secret])
            .arg(lab.state())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{secret}");
    }
    let log = http.take_log();
    assert_eq!(
        log.last().unwrap().header("authorization"),
        Some("Bearer hunter2-http")
    );
    lab.is_sound();
}
