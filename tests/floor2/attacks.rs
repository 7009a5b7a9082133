//! One attack after the other that builders have fallen for, tried from where an attacker sits: in a command, a layer, a config, a
//! registry, an archive, a context that changes meanwhile. Each ends in a refusal or stays inside; docs/security.md lists them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use builder::vocab::Sha256;
use serde_json::{Value, json};

use super::security::{
    CONFIG, LAYER, MANIFEST, archive, config, entry, nowhere, publish_layers, still_works,
};
use crate::support::http::{FileServer, Resource};
use crate::support::lab::{Lab, Ran, base_tar};
use crate::support::power;
use crate::support::registry::{FakeRegistry, digest_of};
use crate::support::repository::Repository;

const SECRET: &str = "s3cret-of-the-host";

/// A directory of the machine that attacks aim at.
struct Victim(PathBuf);

impl Victim {
    fn of(lab: &Lab) -> Victim {
        let at = lab.path("victim");
        fs::create_dir_all(at.join("sub")).unwrap();
        fs::write(at.join("secret"), SECRET).unwrap();
        fs::write(
            at.join("passwd"),
            format!("mallory:x:0:0:{SECRET}:/:/bin/sh\n"),
        )
        .unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o711)).unwrap();
        Victim(at)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }

    /// The same from wherever, by going up.
    fn by_dots(&self) -> String {
        format!("../../../../../../../../../..{}", self.path())
    }

    /// Asserts that nothing of it has changed.
    #[track_caller]
    fn is_intact(&self, after: &str) {
        let names = |at: &Path| {
            let entries = fs::read_dir(at).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&self.0), ["passwd", "secret", "sub"], "{after}");
        assert!(names(&self.0.join("sub")).is_empty(), "{after}");
        let secret = self.0.join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET, "{after}");
        let (top, file) = (
            fs::symlink_metadata(&self.0).unwrap(),
            fs::symlink_metadata(secret).unwrap(),
        );
        assert_eq!((top.mode() & 0o7777, file.nlink()), (0o711, 1), "{after}");
    }
}

/// Asserts that a build ended in one of the ways in which builds end, without telling what it must not.
#[track_caller]
fn ended(ran: &Ran, codes: &[i32], what: &str) {
    let code = ran.code.unwrap_or(-1);
    assert!(codes.contains(&code), "{what}: {ran:?}");
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!told.contains(SECRET), "{what}: {told}");
    assert!(!told.contains("panicked"), "{what}: {told}");
}

fn file(name: &str) -> Vec<u8> {
    entry(name, b'0', "", b"evil")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(name, b'2', target, b"")
}

fn directory(name: &str) -> Vec<u8> {
    entry(name, b'5', "", b"")
}

/// Puts the checksum of a header right again.
fn signed(mut entry: Vec<u8>) -> Vec<u8> {
    entry[148..156].fill(b' ');
    let sum: u32 = entry[..512].iter().map(|&byte| u32::from(byte)).sum();
    entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    entry
}

/// Publishes an image as `NAME:latest`, its descriptors as they are.
fn publish(registry: &FakeRegistry, name: &str, config: Value, layers: &[Value]) {
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let text = manifest.to_string();
    registry.put_manifest(name, "latest", MANIFEST, text.as_bytes());
}

fn put(registry: &FakeRegistry, name: &str, media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": registry.put_blob(name, bytes), "size": bytes.len() })
}

/// Builds and returns the most memory that the builder had at a time, in KiB.
fn peak_memory(lab: &Lab, args: &[&str]) -> (Ran, u64) {
    let context = lab.context();
    let mut child = lab
        .command()
        .args(["build", "--progress=quiet", "--timeout=120s"])
        .args(args)
        .arg(context)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.split_whitespace().next()?.parse().ok());
        most = most.max(peak.unwrap_or_default());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    (Ran::of(child.wait_with_output().unwrap()), most)
}

/// docs/security.md promises a test for each class; the names must be those of tests.
#[test]
fn every_test_that_the_documentation_names_exists() {
    fn read(directory: &Path, sources: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    read(&top.join("src"), &mut sources);
    read(&top.join("tests"), &mut sources);
    let text = fs::read_to_string(top.join("docs/security.md")).unwrap();
    let (_, table) = text.split_once("| class of attack |").unwrap();
    let mut found = 0;
    for row in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        let tests = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test in: {row}");
        for name in names {
            assert!(
                sources.contains(&format!("    fn {name}("))
                    || sources.contains(&format!("\nfn {name}(")),
                "there is no test `{name}`"
            );
            found += 1;
        }
    }
    assert!(found > 50, "{found} names were found");
}

// What a Dockerfile asks for.

/// BuildKit runs whatever image `# syntax` names (CVE-2024-23653 and later ones came out of it).
#[test]
fn a_frontend_is_neither_fetched_nor_run() {
    let lab = Lab::new();
    let registry = FakeRegistry::start();
    let host = registry.host();
    let wish = "1".repeat(64);
    for image in [
        format!("{host}/evil/frontend:1"),
        format!("{host}/docker/dockerfile:1"),
        format!("{host}/docker/dockerfile@sha256:{wish}"),
        "../../x".to_owned(),
        format!("{host}/evil --option"),
    ] {
        lab.dockerfile(&format!("# syntax={image}\nFROM scratch\nLABEL a=b\n"));
        lab.build(&["--no-cache"]).succeeds();
        lab.build(&["--build-arg", &format!("BUILDKIT_SYNTAX={image}")])
            .succeeds();
    }
    assert_eq!(registry.take_lines(), Vec::<String>::new());
}

#[test]
fn values_of_a_dockerfile_stay_values() {
    let Some(lab) = Lab::with_base() else { return };
    let victim = Victim::of(&lab);
    let (at, dots) = (victim.path(), victim.by_dots());
    lab.file("x", "x");
    let state = lab.state().display().to_string();
    for (lines, codes) in [
        (format!("WORKDIR {dots}/w\nRUN pwd && touch new"), &[0][..]),
        (format!("WORKDIR {at}/w\nCOPY x .\nRUN test -e x"), &[0]),
        ("WORKDIR /proc/self/fd/3\nRUN true".to_owned(), &[0, 5]),
        ("WORKDIR /proc/1/root\nRUN true".to_owned(), &[0, 5]),
        (format!("COPY x {dots}/new\nADD x {at}/new"), &[0]),
        (format!("COPY <<new {dots}/\nevil\nnew"), &[0]),
        (
            format!("COPY <<../../..{at}/new /\nevil\n../../..{at}/new"),
            &[3, 5],
        ),
        (format!("COPY ../victim/secret {at}/secret2"), &[5]),
        (format!("COPY --from=..{at} secret /"), &[3, 4]),
        ("COPY --chown=../../etc/passwd x /".to_owned(), &[3, 5]),
        ("COPY --chown=4294967295 x /".to_owned(), &[3, 5]),
        ("COPY --chown=-1:-1 x /".to_owned(), &[3, 5]),
        ("COPY --chmod=77777 x /".to_owned(), &[3, 5]),
        (format!("USER {at}/passwd\nRUN true"), &[5]),
        ("USER root:../../x\nRUN true".to_owned(), &[5]),
        ("USER 4294967295\nRUN true".to_owned(), &[5]),
        ("STOPSIGNAL ../../x".to_owned(), &[3]),
        ("STOPSIGNAL 99999999999".to_owned(), &[3]),
        ("EXPOSE ../../x".to_owned(), &[3]),
        (format!("VOLUME {dots}\nRUN true"), &[0]),
        ("ENV =x\nRUN true".to_owned(), &[3]),
        (format!("SHELL [\"{dots}/sh\"]\nRUN true"), &[5]),
        (format!("RUN [\"{at}/secret\"]"), &[5]),
        (format!("ADD file://{at}/secret /"), &[3, 4, 5]),
        (format!("ADD {at}/secret /"), &[5]),
        (
            format!("RUN --mount=target={dots} test ! -e {at}/secret"),
            &[0],
        ),
        (
            "RUN --mount=target=/proc/self/cwd/m true".to_owned(),
            &[3, 5, 8],
        ),
        (
            "RUN --mount=target=/dev/../proc/1 true".to_owned(),
            &[3, 5, 8],
        ),
        ("RUN --mount=type=tmpfs,target=/../.. true".to_owned(), &[3]),
        (
            format!("RUN --mount=type=secret,id={dots}/secret,required true"),
            &[5],
        ),
        (format!("RUN --mount=type=ssh,id={dots} true"), &[0, 5]),
        (
            "RUN --mount=type=bind,target=/m,bind-propagation=rshared true".to_owned(),
            &[3],
        ),
        (
            "RUN --mount=type=bind,target=/m,relabel=shared true".to_owned(),
            &[3],
        ),
        ("RUN --mount=type=devpts,target=/m true".to_owned(), &[3]),
        ("RUN --network=../../x true".to_owned(), &[3]),
    ] {
        lab.dockerfile(&format!(
            "FROM base\n{lines}\nRUN [\"/bin/sh\", \"-c\", \"! test -e {state}\"]\n"
        ));
        ended(&lab.build(&[]), codes, &lines);
        victim.is_intact(&lines);
    }
    for reference in [
        "base@sha512:11",
        "base@SHA256:11",
        "base@sha256:../../x",
        "../base",
        "a/../base",
        "/etc/passwd",
        "base:../x",
        "-x",
    ] {
        lab.dockerfile(&format!("FROM {reference}\n"));
        ended(&lab.build(&[]), &[3], reference);
    }
    still_works(&lab);
}

/// The names of caches and the sources of mounts: CVE-2024-1753, -9407, -9675 and -11218 in Buildah.
#[test]
fn mounts_show_nothing_of_the_machine() {
    let Some(lab) = Lab::with_base() else { return };
    let victim = Victim::of(&lab);
    let (at, dots) = (victim.path(), victim.by_dots());
    lab.link("out", &at);
    lab.link("up", "../victim");
    lab.file("d/x", "x");
    lab.link("d/out", &at);
    for (flags, codes) in [
        (format!("type=cache,id={dots},target=/m"), &[0][..]),
        (format!("type=cache,id={at},target=/m"), &[0]),
        (format!("type=cache,target=/m,source={dots}"), &[3]),
        (
            format!("type=cache,target=/m,from=links,source={dots}"),
            &[5],
        ),
        (
            "type=cache,target=/m,from=links,source=/out".to_owned(),
            &[5],
        ),
        ("type=cache,target=/m,from=links,source=/d".to_owned(), &[0]),
        (
            "type=bind,target=/m,from=links,source=/out".to_owned(),
            &[5],
        ),
        ("type=bind,target=/m,from=links,source=/up".to_owned(), &[5]),
        (
            "type=bind,target=/m,from=links,source=/d/out/sub".to_owned(),
            &[5],
        ),
        (
            format!("type=bind,target=/m,from=links,source=/out/../../../..{at}"),
            &[5],
        ),
        (
            "type=bind,target=/m,from=links,source=/proc/self/root".to_owned(),
            &[5],
        ),
        ("type=bind,target=/m,source=out".to_owned(), &[5]),
        ("type=bind,target=/m,source=out/secret".to_owned(), &[5]),
        ("type=bind,target=/m,source=up".to_owned(), &[5]),
        ("type=bind,target=/m,source=../victim".to_owned(), &[5]),
        (format!("type=bind,target=/m,source={dots}"), &[5]),
        ("type=bind,target=/m,source=d,rw".to_owned(), &[0]),
        ("type=bind,target=/out,source=d,rw".to_owned(), &[0]),
        ("type=tmpfs,target=/d/out/new".to_owned(), &[0]),
    ] {
        lab.dockerfile(&format!(
            "FROM base AS links\nCOPY . /\nRUN [\"true\"]\nFROM links\n\
             RUN --mount={flags} for at in /m /m/out /out; do cat $at $at/* 2>/dev/null | grep s3cret && exit 9; touch $at/new 2>/dev/null; mkdir -p $at/sub/new 2>/dev/null; done; true\n"
        ));
        let ran = lab.build(&[]);
        ended(&ran, codes, &flags);
        assert!(!ran.stderr.contains("exit code 9"), "{flags}: {ran:?}");
        victim.is_intact(&flags);
    }
    nowhere(&lab.state(), &[SECRET]);
    still_works(&lab);
}

/// A name that begins with `.wh.` in a layer deletes what the rest of it names, wherever the layer is applied.
#[test]
fn files_cannot_pass_for_deletions() {
    let Some(lab) = Lab::with_base() else { return };
    let server = FileServer::start();
    server.put("/.wh.passwd", Resource::new("x"));
    for name in [".wh.passwd", "d/.wh..wh..opq", "d/.wh./x"] {
        lab.file(name, "");
    }
    let tar = archive(&[file("etc/.wh.passwd"), file(".wh..wh..opq")]);
    lab.file("evil.tar", tar);
    for lines in [
        "COPY .wh.passwd /etc/",
        "COPY --link .wh.passwd /etc/",
        "COPY d /etc",
        "COPY d/.wh. /etc/.wh.passwd",
        "COPY d/.wh./x /etc/.wh.passwd/x",
        "COPY <<.wh.passwd /etc/\n.wh.passwd",
        "ADD evil.tar /",
        "ADD URL /etc/",
        "WORKDIR /etc/.wh.passwd",
        "RUN mkdir /etc/.wh.passwd",
        "RUN ln -s x /etc/.wh.passwd",
        "RUN --mount=type=tmpfs,target=/t mv /etc/passwd /etc/.wh.group",
    ] {
        let lines = lines.replace("URL", &server.url("/.wh.passwd"));
        lab.dockerfile(&format!("FROM base\n{lines}\n"));
        let ran = lab.build(&["-t", "image"]);
        ended(&ran, &[5], &lines);
        assert!(ran.stderr.contains(".wh."), "{lines}: {ran:?}");
    }
    // overlayfs' own marks, on files of a context.
    fs::remove_dir_all(lab.context()).unwrap();
    lab.file("home/new", "");
    lab.file("etc/passwd", "");
    let mark = |path: &str, name: &str| {
        let path = lab.context().join(path);
        rustix::fs::setxattr(&path, name, b"y", rustix::fs::XattrFlags::empty())
    };
    if mark("home", "user.overlay.opaque").is_err() {
        return power::not_run("the file system of the temporary folder takes no attributes");
    }
    mark("home", "user.overlay.redirect").unwrap();
    mark("etc/passwd", "user.overlay.whiteout").unwrap();
    for flag in ["", "--link"] {
        let files = lab.files(&format!(
            "FROM base\nCOPY {flag} . /\nRUN ls -d /home/app /home/new /etc/passwd /etc/group > /seen\n"
        ));
        let seen = "/etc/group\n/etc/passwd\n/home/app\n/home/new\n";
        assert_eq!(files.text("seen"), seen, "COPY {flag}");
    }
    still_works(&lab);
}

// What a command does.

/// CVE-2024-23652: what was mounted on is replaced, and whoever tidies up, or mounts there next, follows.
#[test]
fn what_a_command_puts_in_place_of_mount_points_leads_nowhere() {
    let Some(lab) = Lab::with_base() else { return };
    let victim = Victim::of(&lab);
    let (at, dots) = (victim.path(), victim.by_dots());
    lab.file("x", "x");
    for target in [&at, &dots, &format!("/proc/1/root{at}")] {
        let files = lab.files(&format!(
            "FROM base\n\
             RUN --mount=type=tmpfs,target=/a/b/c --mount=type=cache,target=/a/sub mv /a /moved && mkdir -p /a && ln -s {target} /a/b && ln -s {target}/sub /a/sub\n\
             RUN --mount=type=tmpfs,target=/a/b touch /a/b/new; true\n\
             RUN --mount=type=cache,id=k,target=/a/b/sub touch /a/b/sub/new; true\n\
             RUN --mount=source=x,target=/a/b/secret --mount=type=tmpfs,target=/a/sub cp /a/b/secret /shown; touch /a/b/new\n\
             RUN mv /var /v && ln -s {target} /var; mv /root /r && ln -s {target} /root; cat /var/secret /root/secret > /seen 2>/dev/null; touch /var/new; true\n\
             COPY x /a/b/copied\nCOPY --link x /var/linked\nWORKDIR /a/sub/made\n"
        ));
        victim.is_intact(target);
        assert_eq!(
            (files.text("shown"), files.text("seen")),
            ("x".into(), "".into())
        );
    }
    // The names of users, and the files that every command has, by a link in the place of /etc.
    lab.link("links/etc", &at);
    for lines in ["USER mallory\nRUN true", "COPY --chown=mallory x /"] {
        lab.dockerfile(&format!("FROM base\nCOPY --link links/ /\n{lines}\n"));
        let ran = lab.build(&[]);
        ended(&ran, &[5], lines);
        assert!(ran.stderr.contains("no user `mallory`"), "{ran:?}");
    }
    lab.dockerfile("FROM base\nCOPY --link links/ /\nRUN echo 6.6.6.6 evil >> /etc/hosts; echo nameserver 6.6.6.6 > /etc/resolv.conf; touch /etc/new; true\n");
    ended(&lab.build(&[]), &[0, 5, 8], "/etc is a link");
    victim.is_intact("/etc is a link");
    nowhere(&lab.state(), &[SECRET]);
    still_works(&lab);
}

/// CVE-2024-23651: two steps share a cache, and one changes it while the other's mounts are being made in it.
#[test]
fn a_shared_cache_that_changes_meanwhile_leads_no_mount_outside() {
    let Some(lab) = Lab::with_base() else { return };
    if power::program("perl").is_none() {
        return power::not_run("there is no perl to change files fast enough");
    }
    let victim = Victim::of(&lab);
    let script = format!(
        "chdir '/c'; mkdir 'sub'; open(F, '>ready'); until (-e 'stop') {{ rename 'sub', 'away'.++$n; symlink '{}', 'sub'; unlink 'sub'; symlink '{}', 'sub'; unlink 'sub'; mkdir 'sub'; rmdir 'away'.$n }}\n",
        victim.path(),
        victim.by_dots()
    );
    lab.file("script", script);
    let racer = lab.path("racer");
    fs::write(
        &racer,
        "FROM base\nCOPY script /\nRUN --mount=type=cache,id=r,target=/c perl /script\n",
    )
    .unwrap();
    let child = lab
        .command()
        .args(["build", "--timeout=120s", "-f"])
        .arg(racer)
        .arg(lab.context())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = EndsWithTest(child);
    lab.dockerfile("FROM base\nRUN --mount=type=cache,id=r,target=/c while ! test -e /c/ready; do sleep 0.01; done\n");
    lab.build(&[]).succeeds();
    let mut made = 0;
    for _ in 0..40 {
        lab.dockerfile("FROM base\nRUN --mount=type=cache,id=r,target=/c --mount=type=tmpfs,target=/c/sub/new/d --mount=type=cache,id=s,target=/c/sub/sub touch /c/sub/new/d/x; true\n");
        let ran = lab.build(&["--no-cache"]);
        ended(&ran, &[0, 5, 8], "a race");
        made += u32::from(ran.code == Some(0));
        victim.is_intact("a race");
    }
    lab.dockerfile("FROM base\nRUN --mount=type=cache,id=r,target=/c touch /c/stop\n");
    lab.build(&["--no-cache"]).succeeds();
    assert!(child.0.wait().unwrap().success());
    assert!(made > 0, "no mount was made at all");
    victim.is_intact("the race");
    still_works(&lab);
}

// What an image says.

#[test]
fn a_config_is_neither_a_way_out_nor_a_crash() {
    let Some(lab) = Lab::with_base() else { return };
    let registry = FakeRegistry::start();
    let victim = Victim::of(&lab);
    let (at, dots) = (victim.path(), victim.by_dots());
    let base = fs::read(base_tar()).unwrap();
    let diff_id = digest_of(&base);
    let layer = put(&registry, "evil", LAYER, &base);
    let state = lab.state().display().to_string();
    for (key, value, codes) in [
        ("WorkingDir", json!(dots), &[0][..]),
        ("WorkingDir", json!("/proc/self/fd/5"), &[0, 5]),
        ("WorkingDir", json!("/proc/self/fd/../../1/cwd"), &[0, 5]),
        ("WorkingDir", json!("relative/x"), &[0, 5]),
        ("WorkingDir", json!("/etc/passwd"), &[5]),
        ("WorkingDir", json!("a\0b"), &[3, 4, 5]),
        ("WorkingDir", json!("/x".repeat(5000)), &[3, 4, 5]),
        ("User", json!(format!("{at}/passwd")), &[5]),
        ("User", json!("0:0:0"), &[0, 5]),
        ("User", json!("4294967295"), &[5]),
        ("User", json!("-1"), &[5]),
        ("User", json!("root\0x"), &[3, 4, 5]),
        ("Env", json!(["=x", "A", ""]), &[0, 4, 5]),
        ("Env", json!(["A=x\0y"]), &[3, 4, 5]),
        (
            "Env",
            json!(["PATH=", "IFS=/", "ENV=/script", "PS4=x"]),
            &[0, 5],
        ),
        (
            "Env",
            json!(["LD_PRELOAD=/none", "LD_LIBRARY_PATH=/none"]),
            &[0, 5],
        ),
        ("Env", json!(["HOME=\u{1b}]0;x\u{7}", "A=\u{7f}"]), &[0]),
        ("Shell", json!([]), &[0, 4, 5]),
        ("Shell", json!([""]), &[4, 5]),
        ("Shell", json!(["/bin/sh\0x"]), &[3, 4, 5]),
        ("Shell", json!([format!("{at}/secret")]), &[5]),
        ("OnBuild", json!(["FROM base"]), &[3, 4]),
        ("OnBuild", json!(["ONBUILD RUN true"]), &[3, 4]),
        ("OnBuild", json!(["no instruction"]), &[3, 4]),
        ("OnBuild", json!(["\0"]), &[3, 4]),
        ("OnBuild", json!(["RUN --security=insecure true"]), &[3]),
        ("OnBuild", json!(["RUN --network=host true"]), &[3]),
        ("OnBuild", json!(["RUN --device=/dev/kmsg true"]), &[3]),
        ("OnBuild", json!([format!("COPY {dots}/secret /")]), &[5]),
        ("OnBuild", json!([format!("ADD {at}/secret /")]), &[5]),
        (
            "OnBuild",
            json!([format!("RUN --mount=source={dots},target=/m true")]),
            &[5],
        ),
        (
            "OnBuild",
            json!(["RUN --mount=type=secret,id=s,required true"]),
            &[5],
        ),
        ("Volumes", json!({ "../../x": {}, "\0": {} }), &[0, 4]),
        ("ExposedPorts", json!({ "../../x": {} }), &[0, 4]),
        ("StopSignal", json!("../../x\0"), &[0, 4]),
        ("Labels", json!({ "../../x\0": "\u{1b}[31m" }), &[0, 4]),
        (
            "Healthcheck",
            json!({ "Interval": -1, "Test": ["\0"] }),
            &[0, 4],
        ),
        ("Entrypoint", json!(["\0"]), &[0, 4]),
    ] {
        let what = format!("{key} {value}");
        let what = &what[..what.len().min(200)];
        let mut lies = config(std::slice::from_ref(&diff_id));
        lies["config"][key] = value;
        let config = put(&registry, "evil", CONFIG, lies.to_string().as_bytes());
        publish(&registry, "evil", config, std::slice::from_ref(&layer));
        lab.dockerfile(&format!(
            "FROM {}/evil\nRUN test ! -e {state} && test ! -e {at}/secret\nCOPY . context/\n",
            registry.host()
        ));
        let ran = lab.build(&["--pull"]);
        ended(&ran, codes, what);
        assert!(!ran.stderr.contains('\u{1b}'), "{what}: {:?}", ran.stderr);
        victim.is_intact(what);
    }
    still_works(&lab);
}

/// CVE-2024-3727 and its like: what is no digest is no part of a path or URL.
#[test]
fn a_digest_is_of_one_kind_only() {
    let Some(lab) = Lab::with_base() else { return };
    let registry = FakeRegistry::start();
    let victim = Victim::of(&lab);
    let good = archive(&[file("f")]);
    let upper = digest_of(&good).to_uppercase().replace("SHA256", "sha256");
    let layer = put(&registry, "evil", LAYER, &good);
    let text = config(&[digest_of(&good)]).to_string();
    let honest = put(&registry, "evil", CONFIG, text.as_bytes());
    for digest in [
        upper.as_str(),
        &digest_of(&good).replace("sha256", "SHA256"),
        &digest_of(&good).replace("sha256", "sha512"),
        &format!("sha512:{}", "1".repeat(128)),
        &format!("sha256:{}", victim.by_dots()),
        "sha256:",
        "sha256:..",
        "sha256",
        "",
        &format!("sha256:{}", "1".repeat(63)),
        &format!("sha256:{}/", "1".repeat(64)),
        &format!("sha256:{}\0", "1".repeat(63)),
        "md5:d41d8cd98f00b204e9800998ecf8427e",
    ] {
        for bytes in [&good[..], text.as_bytes()] {
            registry.put_blob_as("evil", digest, bytes);
        }
        let check = |what: &str| {
            lab.dockerfile(&format!(
                "FROM {}/evil AS evil\nFROM scratch\nCOPY --from=evil /f /\n",
                registry.host()
            ));
            let ran = lab.build(&["--pull"]);
            ended(&ran, &[4], &format!("{what} `{digest}`"));
            victim.is_intact(digest);
        };
        let mut liar = layer.clone();
        liar["digest"] = json!(digest);
        publish(&registry, "evil", honest.clone(), &[liar]);
        check("layer");
        let mut liar = honest.clone();
        liar["digest"] = json!(digest);
        publish(&registry, "evil", liar, std::slice::from_ref(&layer));
        check("config");
        let lies = config(&[digest.to_owned()]).to_string();
        let lies = put(&registry, "evil", CONFIG, lies.as_bytes());
        publish(&registry, "evil", lies, std::slice::from_ref(&layer));
        check("diff ID");
    }
    let asked = registry.take_lines();
    let odd =
        |line: &&String| line.contains("..") || line.contains("sha512") || line.contains("md5");
    assert_eq!(asked.iter().find(odd), None);
    lab.is_sound();
    still_works(&lab);
}

/// CVE-2020-15157: a layer may say where else it is; whoever fetches it there hands credentials to strangers.
#[test]
fn a_layer_is_fetched_from_nowhere_else() {
    let Some(lab) = Lab::with_base() else { return };
    let (registry, elsewhere) = (FakeRegistry::start(), FileServer::start());
    let layer = archive(&[file("f")]);
    elsewhere.put("/layer", Resource::new(layer.clone()));
    let text = config(&[digest_of(&layer)]).to_string();
    for media_type in [
        LAYER,
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let config = put(&registry, "evil", CONFIG, text.as_bytes());
        let urls = json!([elsewhere.url("/layer"), "file:///etc/passwd"]);
        let foreign = json!({ "mediaType": media_type, "digest": digest_of(&layer), "size": layer.len(), "urls": urls });
        publish(&registry, "evil", config, &[foreign]);
        lab.dockerfile(&format!(
            "FROM {}/evil AS evil\nFROM scratch\nCOPY --from=evil /f /\n",
            registry.host()
        ));
        ended(&lab.build(&["--pull"]), &[4], media_type);
    }
    assert!(elsewhere.take_log().is_empty());
    still_works(&lab);
}

/// An image that says its layer is another image's: what later builds get of that other image is not the liar's.
#[test]
fn a_layer_stands_for_no_other() {
    let Some(lab) = Lab::with_base() else { return };
    let registry = FakeRegistry::start();
    let [good, evil] =
        ["good", "evil"].map(|text| archive(&[entry("f", b'0', "", text.as_bytes())]));
    let text = config(&[digest_of(&good)]).to_string();
    for (name, layer) in [("good", &good), ("evil", &evil)] {
        let config = put(&registry, name, CONFIG, text.as_bytes());
        publish(
            &registry,
            name,
            config,
            &[put(&registry, name, LAYER, layer)],
        );
    }
    let host = registry.host();
    // With nothing read of it, and with everything.
    lab.dockerfile(&format!("FROM {host}/evil\nLABEL a=b\n"));
    ended(&lab.build(&["-t", "liar"]), &[0, 4], "a label");
    lab.dockerfile(&format!(
        "FROM {host}/evil AS e\nFROM base\nCOPY --from=e /f /f\n"
    ));
    lab.build(&[]).fails(4, &["digest"]);
    lab.builder(&["pull", &format!("{host}/evil")]);
    let files = lab.files(&format!(
        "FROM {host}/good AS g\nFROM base\nCOPY --from=g /f /f\n"
    ));
    assert_eq!(files.text("f"), "good");
    let files = lab.files(&format!(
        "FROM {host}/good AS g\nFROM scratch\nCOPY --from=g / /\n"
    ));
    assert_eq!(files.text("f"), "good");
    // With the good one there, the liar's bytes are still nobody's.
    lab.dockerfile(&format!(
        "FROM {host}/evil AS e\nFROM base\nCOPY --from=e /f /f\n"
    ));
    let ran = lab.build(&["-t", "image", "--no-cache"]);
    ended(&ran, &[0, 4], "after the good one");
    if ran.code == Some(0) {
        assert_eq!(lab.saved("image").files().text("f"), "good");
    }
    still_works(&lab);
}

/// Entries of one layer that speak of what another one, or the machine, has.
#[test]
fn links_of_lower_layers_are_hidden_not_followed() {
    let Some(lab) = Lab::with_base() else { return };
    let registry = FakeRegistry::start();
    let victim = Victim::of(&lab);
    let (at, dots) = (victim.path(), victim.by_dots());
    let hard = |name: &str, target: &str| entry(name, b'1', target, b"");
    let lower = archive(&[
        link("l", &at),
        link("up", &dots),
        link("self", "/proc/self/root"),
        directory("d"),
        file("d/below"),
        file("f"),
    ]);
    let mut whiteout = entry("f", b'3', "", b"");
    whiteout[329..345].copy_from_slice(b"0000000\x000000000\0");
    /// Entries of the upper layer, and what is in the image then; `None` where the layer is refused.
    type Case<'a> = (&'a [Vec<u8>], Option<&'a [&'a str]>);
    let cases: [Case<'_>; 13] = [
        (&[file("l/new")], Some(&["l/new"])),
        (
            &[file("up/new"), file("self/new")],
            Some(&["up/new", "self/new"]),
        ),
        (&[directory("l"), file("l/sub/new")], Some(&["l/sub/new"])),
        (
            &[file(".wh.l"), directory("l"), file("l/own")],
            Some(&["l/own"]),
        ),
        (&[file("l/.wh.secret"), file("l/x")], Some(&["l/x"])),
        (
            &[file("l/.wh..wh..opq"), file("up/sub/.wh..wh..opq")],
            Some(&["l"]),
        ),
        (&[file("d/.wh.below"), file("d/a\nb")], Some(&["d/a\nb"])),
        (&[link("d", &at), file("d/new")], Some(&["d"])),
        (
            &[link("d", "l"), link("e", "d"), file("e/new")],
            Some(&["e"]),
        ),
        (&[hard("h", "l/secret")], None),
        (&[hard("h", "f")], None),
        (&[hard("h", &at[1..])], None),
        // A device 0:0 is overlayfs' mark of a deletion.
        (&[signed(whiteout)], None),
    ];
    for (number, (upper, expected)) in cases.into_iter().enumerate() {
        publish_layers(&registry, &[&lower, &archive(upper)]);
        lab.dockerfile(&format!(
            "FROM {}/evil AS evil\nFROM scratch\nCOPY --from=evil / /\n",
            registry.host()
        ));
        let ran = lab.build(&["--pull", "-t", "image"]);
        let code = if expected.is_some() { 0 } else { 4 };
        ended(&ran, &[code], &format!("case {number}"));
        victim.is_intact(&format!("case {number}"));
        if let Some(paths) = expected {
            let files = lab.saved("image").files();
            for path in paths {
                assert!(files.has(path), "case {number}: {path}");
            }
            assert!(!files.has("l/secret"), "case {number}");
        }
        nowhere(&lab.state(), &[SECRET]);
    }
    still_works(&lab);
}

/// A little that says it is a lot: gzip of zeros, and a sparse file of eight exabytes.
#[test]
fn bombs_take_neither_memory_nor_disk() {
    let Some(lab) = Lab::with_base() else { return };
    let registry = FakeRegistry::start();
    let mut hash = Sha256::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut header = entry("zeros", b'0', "", b"");
    header[124..136].copy_from_slice(format!("{:011o}\0", 400 << 20).as_bytes());
    let zeros = vec![0; 1 << 20];
    let pieces = [signed(header)]
        .into_iter()
        .chain(std::iter::repeat_n(zeros, 400));
    for piece in pieces.chain([vec![0; 1024]]) {
        gzip.write_all(&piece).unwrap();
        hash.update(&piece);
    }
    let tar = gzip.finish().unwrap();
    let layer = put(&registry, "evil", &format!("{LAYER}+gzip"), &tar);
    let text = config(&[hash.finish().to_string()]).to_string();
    let config = put(&registry, "evil", CONFIG, text.as_bytes());
    publish(&registry, "evil", config, &[layer]);
    lab.file("bomb.tar.gz", tar);
    for lines in [
        "FROM base\nADD bomb.tar.gz /d/\nRUN test $(stat -c %b /d/zeros) -lt 1000\n".to_owned(),
        format!(
            "FROM {}/evil AS evil\nFROM base\nRUN --mount=from=evil,target=/m test $(stat -c %b /m/zeros) -lt 1000\n",
            registry.host()
        ),
    ] {
        lab.dockerfile(&lines);
        let (ran, most) = peak_memory(&lab, &[]);
        ended(&ran, &[0], &lines);
        assert!(most < 200 << 10, "{most} KiB: {lines}");
    }
    // The size of a hole is but a number.
    let records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n42 GNU.sparse.realsize=9000000000000000000\n";
    let map = [&b"0\n"[..], &[0; 510]].concat();
    let hole = archive(&[
        entry("PaxHeader", b'x', "", records),
        entry("hole", b'0', "", &map),
        file("next"),
    ]);
    publish_layers(&registry, &[&hole]);
    lab.file("hole.tar", &hole);
    for lines in [
        "FROM base\nADD hole.tar /d/\nRUN rm /d/hole && touch /here\n".to_owned(),
        format!(
            "FROM {}/evil AS evil\nFROM scratch\nCOPY --from=evil /next /\n",
            registry.host()
        ),
    ] {
        lab.dockerfile(&lines);
        let (ran, most) = peak_memory(&lab, &["--pull"]);
        ended(&ran, &[0, 4, 5], &lines);
        assert!(most < 200 << 10, "{most} KiB: {lines}");
    }
    still_works(&lab);
}

// What archives, layouts, servers and repositories hold.

/// Whoever made a layout may have put anything in the place of its files.
#[test]
fn a_layout_holds_regular_files() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM scratch\nCOPY Dockerfile /f\n");
    let layout = lab.path("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let context = format!("l=oci-layout://{}", layout.display());
    lab.file("Other", "FROM l AS l\nFROM scratch\nCOPY --from=l /f /f\n");
    let other = lab.context().join("Other");
    let build = || {
        let other = other.to_str().unwrap();
        let ran = lab.build(&["-f", other, "--build-context", &context, "--timeout=60s"]);
        // Nothing of the layout is known to the next.
        lab.builder(&["prune", "--all"]).succeeds();
        ran
    };
    lab.build(&["--output", &output]).succeeds();
    lab.builder(&["prune", "--all"]).succeeds();
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let mut files: Vec<PathBuf> = blobs.map(|blob| blob.unwrap().path()).collect();
    files.push(layout.join("index.json"));
    assert_eq!(files.len(), 4);
    build().succeeds();
    for file in &files {
        let aside = lab.path("aside");
        fs::rename(file, &aside).unwrap();
        for special in ["/dev/zero", "/proc/self/mem", "/", "fifo", "long", "other"] {
            match special {
                "fifo" => nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                "long" => fs::File::create(file).unwrap().set_len(1 << 40).unwrap(),
                "other" => fs::write(file, "{}").unwrap(),
                device => symlink(device, file).unwrap(),
            }
            let what = format!("{special} as {}", file.display());
            let ran = build();
            ended(&ran, &[4], &what);
            fs::remove_file(file).unwrap();
        }
        fs::rename(&aside, file).unwrap();
    }
    build().succeeds();
    lab.is_sound();
}

#[test]
fn names_of_downloads_and_commits_stay_names() {
    let Some(lab) = Lab::with_base() else { return };
    let victim = Victim::of(&lab);
    let server = FileServer::start();
    let escape = format!(
        "..%2f..%2f..%2f..{}%2fnew",
        victim.path().replace('/', "%2f")
    );
    for path in [
        format!("/{escape}"),
        "/%2e%2e%2fx".to_owned(),
        "/f".to_owned(),
    ] {
        let disposition = format!("attachment; filename=\"{}/new\"", victim.by_dots());
        server.put(
            &path,
            Resource::new("evil").header("Content-Disposition", &disposition),
        );
        let files = lab.files(&format!("FROM scratch\nADD {} /d/\n", server.url(&path)));
        let names: Vec<&String> = files
            .0
            .keys()
            .filter(|path| path.starts_with("d/"))
            .collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(files.text(names[0]), "evil");
        victim.is_intact(&path);
    }
    for target in [
        format!("file://{}/secret", victim.path()),
        "ftp://127.0.0.1/x".to_owned(),
        "unix:///run/x".to_owned(),
        "//[::".to_owned(),
    ] {
        server.put("/away", Resource::redirect(&target));
        lab.dockerfile(&format!("FROM scratch\nADD {} /d/\n", server.url("/away")));
        ended(&lab.build(&[]), &[4], &target);
    }
    if power::program("git").is_none() {
        return power::not_run("there is no git");
    }
    let repository = Repository::new(&lab.path("repositories"), "r");
    repository.file("d/f", "f");
    symlink(&victim.0, repository.work().join("out")).unwrap();
    symlink(victim.by_dots(), repository.work().join("d/up")).unwrap();
    symlink("d", repository.work().join("in")).unwrap();
    repository.commit();
    server.folder("/git/", lab.path("repositories"));
    for place in ["in", "out", "d/up", "out/sub"] {
        lab.dockerfile(&format!(
            "FROM scratch\nADD {}#main:{place} /x\n",
            server.url("/git/r.git")
        ));
        ended(&lab.build(&[]), &[3, 4, 5], place);
        victim.is_intact(place);
    }
    let files = lab.files(&format!(
        "FROM scratch\nADD {}#main /x\n",
        server.url("/git/r.git")
    ));
    assert!(files.has("x/out") && !files.has("x/out/secret"));
    nowhere(&lab.state(), &[SECRET]);
    still_works(&lab);
}

/// The ignore file of a context shows its lines in messages, so it is no link to a file of the machine.
#[test]
fn an_ignore_file_is_no_link_to_files_of_the_machine() {
    let Some(lab) = Lab::with_base() else { return };
    let victim = Victim::of(&lab);
    fs::write(victim.0.join("secret"), format!("x{SECRET}[")).unwrap();
    lab.dockerfile("FROM scratch\nCOPY . /\n");
    for name in [".dockerignore", "Dockerfile.dockerignore"] {
        for target in [
            format!("{}/secret", victim.path()),
            "../victim/secret".to_owned(),
        ] {
            lab.link(name, &target);
            let ran = lab.build(&[]);
            ended(&ran, &[4], &target);
            assert!(ran.stderr.contains("inside the build context"), "{ran:?}");
            let shown = lab.builder(&["debug", "context", lab.context().to_str().unwrap()]);
            ended(&shown, &[2, 4], &target);
            fs::remove_file(lab.context().join(name)).unwrap();
        }
    }
    lab.file("sub/patterns", "sub\n");
    lab.link(".dockerignore", "/sub/patterns");
    let files = lab.files("FROM scratch\nCOPY . /\n");
    assert!(files.has("Dockerfile") && !files.has("sub"));
}

/// Somebody changes the context while it is looked at and copied.
#[test]
fn a_context_that_changes_meanwhile_shows_nothing_else() {
    let Some(lab) = Lab::with_base() else { return };
    let victim = Victim::of(&lab);
    for name in ["d/secret", "d/sub/x", "f", "p", "e/d/secret", "e/secret"] {
        lab.file(name, "own");
    }
    // Beside the context: each takes the place of something of the same name in it.
    let aside = lab.path("aside");
    fs::create_dir(&aside).unwrap();
    let secret = victim.0.join("secret");
    let context = lab.context();
    let pairs = [
        ("d", Some(&victim.0)),
        ("f", Some(&secret)),
        ("e/d", Some(&victim.0)),
        ("e/secret", Some(&secret)),
        ("p", None),
    ]
    .map(|(name, target)| {
        let other = aside.join(name.replace('/', "-"));
        match target {
            Some(target) => symlink(target, &other).unwrap(),
            None => nix::unistd::mkfifo(&other, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        }
        (context.join(name), other)
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (one, other) in &pairs {
                    let exchange = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(
                        rustix::fs::CWD,
                        one,
                        rustix::fs::CWD,
                        other,
                        exchange,
                    )
                    .unwrap();
                }
            }
        });
        let ends = StopAtEnd(&stop);
        for (number, lines) in [
            "COPY d /d",
            "COPY d/secret f p /d/",
            "COPY . /d",
            "COPY e /d",
            "COPY e/d/* /d/",
            "COPY --parents e/d/sub* /d/",
            "COPY --link d /d",
            "ADD d/secret /d/",
        ]
        .into_iter()
        .cycle()
        .take(160)
        .enumerate()
        {
            fs::write(lab.path("Dockerfile"), format!("FROM scratch\n{lines}\n")).unwrap();
            let ran = lab.build(&["--no-cache", "-f", "Dockerfile", "--timeout=60s"]);
            ended(&ran, &[0, 4, 5], &format!("{number}: {lines}"));
        }
        drop(ends);
    });
    victim.is_intact("the race");
    nowhere(&lab.state(), &[SECRET]);
    for (_, other) in &pairs {
        fs::remove_file(other)
            .or_else(|_| fs::remove_dir_all(other))
            .unwrap();
    }
    lab.is_sound();
}

/// Ends the attacker also where an assertion fails.
struct EndsWithTest(Child);

impl Drop for EndsWithTest {
    fn drop(&mut self) {
        // It has ended where all is well.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Ends the attacker also where an assertion fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Containers with an older list of system calls have no `openat2`; some answer ENOSYS, some EPERM.
#[test]
fn without_openat2_everything_works_and_nothing_leads_out() {
    let Some(lab) = Lab::with_base() else { return };
    let Some(perl) = power::program("perl") else {
        return power::not_run("there is no perl to install a filter with");
    };
    let victim = Victim::of(&lab);
    let registry = FakeRegistry::start();
    let entries = archive(&[
        link("l", &victim.path()),
        link("up", &victim.by_dots()),
        file("l/new"),
        file("up/new"),
        directory("real"),
        link("in", "/real"),
        file("in/f"),
    ]);
    lab.file("x", "x");
    lab.link("out", &victim.path());
    lab.link("into", "/x");
    lab.dockerfile(&format!(
        "FROM {}/evil AS evil\nFROM base\nCOPY --from=evil / /e\nWORKDIR /e/in/w\nCOPY into here\n\
         RUN --mount=from=evil,source=/in,target=/m test -e /m/f && ! test -e {}/secret\nCOPY --chown=app x /e/up/copied\nUSER app\nRUN id\n",
        registry.host(),
        victim.path()
    ));
    let mut outcomes = Vec::new();
    // 0 is the machine as it is.
    for errno in [
        0,
        rustix::io::Errno::NOSYS.raw_os_error(),
        rustix::io::Errno::PERM.raw_os_error(),
    ] {
        // Zeros behind the end make another layer of the same files, which is unpacked anew.
        let mut layer = entries.clone();
        layer.resize(layer.len() + 512 * errno as usize, 0);
        publish_layers(&registry, &[&layer]);
        let script = if errno == 0 {
            "exec @ARGV".to_owned()
        } else {
            format!(
                "$f=pack('SCCL' x 4, 0x20,0,0,0, 0x15,0,1,437, 6,0,0,{}, 6,0,0,0x7fff0000); $p=pack('S x6 P', 4, $f); \
                 syscall({},22,2,$p)==0 or exit 111; syscall(437,-100,$z=\"/\",$z=\"\\0\"x24,24)<0 && $!=={errno} or exit 112; exec @ARGV",
                0x0005_0000 | errno,
                if cfg!(target_arch = "x86_64") {
                    157
                } else {
                    167
                },
            )
        };
        let inner = lab.command();
        let mut command = Command::new(&perl);
        command.args(["-e", &script]).arg(inner.get_program());
        command.args(["build", "--no-cache", "--progress=plain", "-t", "image"]);
        command.arg(lab.context()).current_dir(lab.path(""));
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let ran = Ran::of(command.output().unwrap());
        if ran.code == Some(111) {
            return power::not_run("only root may install a filter and keep its powers");
        }
        ended(&ran, &[0], &format!("errno {errno}"));
        victim.is_intact(&format!("errno {errno}"));
        let files = lab.saved("image").files();
        assert_eq!(files.text("real/w/here"), "x", "errno {errno}");
        outcomes.push(
            files
                .0
                .iter()
                .map(|(path, file)| {
                    (
                        path.clone(),
                        file.entry.mode,
                        file.entry.uid,
                        file.content.clone(),
                    )
                })
                .collect::<Vec<_>>(),
        );
    }
    assert!(
        outcomes.windows(2).all(|pair| pair[0] == pair[1]),
        "the files differ"
    );
    nowhere(&lab.state(), &[SECRET]);
    still_works(&lab);
}
