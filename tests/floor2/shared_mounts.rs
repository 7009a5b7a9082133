//! Cache mounts that travel between machines (state directories of their own).

use std::fs;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use builder::cache::Place;
use builder::cache::mounts::{
    MountName, Outline, Saved, Streams, look_up, restore as restore_mount, save,
};
use builder::layer::{Entry, EntryKind, HeaderWriter, Mtime};
use builder::registry::{Client, Threads};
use builder::rootfs::{Owners, Piece, fill_cache, read_cache};
use builder::vocab::{
    CachePlace, CacheScope, Cancel, Digest, Ownership, RegistryOptions, Timestamp,
};

use crate::support::lab::{Lab, Ran};
use crate::support::registry::{FakeRegistry, Fault};

/// Says what is in two mounts: all that comes back.
const REPORT: &str = "cd /c && { stat -c '%n %F %a %u %g %h %.9Y' . big d d/empty d/f fifo link twin ' odd' /u /u/own; stat -c %s big; readlink link; cat d/f; \
                      test d/f -ef twin && echo same; perl -0777 -ne 'print unpack(\"%32C*\", $_)' big; \
                      perl -e '($f, $k, $b) = (\"d/f\", \"user.k\", \" \" x 9); $n = syscall(191, $f, $k, $b, 9); print substr($b, 0, $n)'; } > /report";
const MOUNTS: &str = "--mount=type=cache,target=/c,id=c --mount=type=cache,target=/u,id=u,uid=1000,gid=50,mode=0710,sharing=locked";

fn writes() -> String {
    format!(
        "FROM base\nRUN {MOUNTS} set -e; cd /c; mkdir -p d/empty; printf hello > d/f; chown 1000:50 d/f; chmod 4750 d/f; ln d/f twin; ln -s d/f link; \
         mkfifo fifo; head -c 3000000 /dev/urandom > big; printf x > ' odd'; chmod 0 ' odd'; chmod 1777 d/empty; \
         perl -e '@a = (\"d/f\", \"user.k\", \"value\"); syscall(188, @a, 5, 0)'; printf y > /u/own; chown 33 /u/own; \
         touch -d @1000000000.123456789 big d/f d .; touch -d @1000000001.5 d/empty fifo ' odd' /u/own /u; touch -h -d @1000000002.25 link; {REPORT}\n"
    )
}

fn reads() -> String {
    format!("FROM base\nRUN {MOUNTS} {REPORT}\n")
}

/// Machines with equal images and nothing else in common.
fn machines<const N: usize>() -> Option<[Lab; N]> {
    let labs: Vec<Lab> = (0..N).map_while(|_| Lab::with_base()).collect();
    labs.try_into().ok()
}

fn local(lab: &Lab) -> String {
    lab.path("shared").to_str().unwrap().to_owned()
}

fn report(lab: &Lab) -> String {
    lab.saved("image").files().text("report")
}

fn count(lines: &[String], method: &str, part: &str) -> usize {
    let lines = lines.iter();
    lines
        .filter(|line| line.starts_with(method) && line.contains(part))
        .count()
}

/// A step that tells what is in the mount `c`, and adds to it.
fn step(adds: &str) -> String {
    format!("FROM base\nRUN --mount=type=cache,target=/c,id=c ls -A /c > /report && {adds}\n")
}

#[test]
fn all_that_a_mount_holds_comes_back_on_another_machine() {
    let registry = FakeRegistry::start();
    let Some([first, second, third]) = machines() else {
        return;
    };
    let directory = local(&first);
    let repository = format!("{}/cache", registry.host());
    first.dockerfile(&writes());
    let ran = first.build(&["-t", "image", "--cache", &directory]);
    ran.succeeds();
    let written = report(&first);
    assert!(
        written.contains("regular file 4750 1000 50 2 1000000000.123456789"),
        "{written}"
    );
    assert!(written.contains("/u directory 710 1000 50"), "{written}");
    second.dockerfile(&reads());
    let ran = second.build(&[
        "-t",
        "image",
        "--cache-from",
        &directory,
        "--cache",
        &repository,
    ]);
    assert!(
        ran.succeeds().stderr.contains("restore cache mount c"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert_eq!(report(&second), written);
    second.is_sound();
    // Through the registry, too.
    third.dockerfile(&reads().replace("cd /c", "true; cd /c"));
    let ran = third.build(&["-t", "image", "--cache-from", &repository]);
    assert!(
        ran.succeeds().stderr.contains("restore cache mount u"),
        "{}",
        ran.stderr
    );
    assert_eq!(report(&third), written);
    third.is_sound();
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn every_rung_restores_what_another_one_saved() {
    let Some([place]) = machines() else { return };
    let directory = local(&place);
    let mut written: Option<String> = None;
    for name in ["ns", "ns-full", "ns-sub", "ns-one", "chroot", "paths", "ns"] {
        let Some([lab]) = machines() else { return };
        lab.dockerfile(&match written {
            None => writes(),
            Some(_) => reads(),
        });
        let isolation = format!("--isolation={name}");
        let ran = lab.build(&[
            "-t",
            "image",
            "--no-cache",
            &isolation,
            "--cache",
            &directory,
        ]);
        if ran.code == Some(8) {
            continue;
        }
        ran.succeeds();
        assert!(
            !ran.stderr.contains("warning: the cache"),
            "{name}: {}",
            ran.stderr
        );
        match &written {
            None => written = Some(report(&lab)),
            Some(written) => assert_eq!(report(&lab), *written, "{name}"),
        }
        lab.is_sound();
    }
}

#[test]
fn what_is_unchanged_is_asked_for_and_nothing_is_sent() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines() else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    first.dockerfile(&step("head -c 20000000 /dev/urandom > /c/a"));
    let built = first.build(&["-t", "image", "--cache", &repository]);
    assert!(
        built.succeeds().stderr.contains("c: 20"),
        "{}",
        built.stderr
    );
    registry.take_log();
    // A hit gives nobody a mount.
    let again = first.build(&["-t", "image", "--cache", &repository]);
    assert_eq!(again.succeeds().executed(), 0);
    assert_eq!(count(&registry.take_lines(), "", "-mount-"), 0);

    second.dockerfile(&step("true"));
    let ran = second.build(&["-t", "image", "--cache", &repository]);
    assert!(
        ran.succeeds().stderr.contains("c: unchanged"),
        "{}",
        ran.stderr
    );
    assert_eq!(report(&second), "a\n");
    let lines = registry.take_lines();
    // To restore it, and to see that nobody else has saved it.
    assert_eq!(count(&lines, "GET", "-mount-"), 2, "{lines:#?}");
    assert_eq!(count(&lines, "PUT", "-mount-"), 0, "{lines:#?}");

    // A little more: one pack, and the index.
    second.dockerfile(&step("echo more > /c/more"));
    let ran = second.build(&[
        "-t",
        "image",
        "--cache",
        &repository,
        "--cache-to",
        "type=inline",
    ]);
    ran.succeeds();
    assert_eq!(report(&second), "a\n");
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "GET", "-mount-"), 1, "{lines:#?}");
    assert_eq!(count(&lines, "PUT", "-mount-"), 1, "{lines:#?}");
    let sent = ran
        .stderr
        .lines()
        .find(|line| line.contains("sent for"))
        .unwrap();
    assert!(sent.contains("kB sent for 20"), "{sent}");
}

#[test]
fn mounts_travel_where_that_is_asked_for() {
    let Some([place]) = machines() else { return };
    let mut number = 0;
    let mut check = |to: &str, from: &str, expected: &str| {
        let Some([first, second]) = machines() else {
            return;
        };
        number += 1;
        let directory = place.path(&format!("shared-{number}"));
        let directory = directory.to_str().unwrap();
        first.dockerfile(&step("echo x > /c/a"));
        let to = format!("type=local,dest={directory}{to}");
        first.build(&["--cache-to", &to]).succeeds();
        second.dockerfile(&step("true"));
        let from = format!("type=local,src={directory}{from}");
        let ran = second.build(&["--cache-from", &from, "-t", "image"]);
        ran.succeeds();
        assert_eq!(report(&second), expected, "{to} {from}");
    };
    check("", "", "");
    check(",mode=max", "", "a\n");
    check(",mode=max,mounts=false", "", "");
    check(",mounts=c", "", "a\n");
    check(",mounts=other", "", "");
    check(",mode=max", ",mounts=false", "");
    check(",mode=max", ",mounts=other,mounts=c", "a\n");
}

#[test]
fn a_namespace_keeps_mounts_apart_and_mounts_for_reading_are_not_saved() {
    let Some([first, second, third]) = machines() else {
        return;
    };
    let shared = local(&first);
    let of = |space: &str| format!("BUILDKIT_CACHE_MOUNT_NS={space}");
    first.dockerfile(&step("echo x > /c/a"));
    first
        .build(&["--cache", &shared, "--build-arg", &of("one")])
        .succeeds();
    for (lab, space, expected) in [(&second, "two", ""), (&third, "one", "a\n")] {
        lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/c,id=c,ro ls -A /c > /report\n");
        let arg = of(space);
        let ran = lab.build(&["--cache", &shared, "--build-arg", &arg, "-t", "image"]);
        assert!(
            !ran.succeeds().stderr.contains("save cache mounts"),
            "{}",
            ran.stderr
        );
        assert_eq!(report(lab), expected, "{space}");
    }
}

#[test]
fn what_is_here_already_stays() {
    let Some([first, second]) = machines() else {
        return;
    };
    let shared = local(&first);
    first.dockerfile(&step("echo x > /c/theirs"));
    first.build(&["--cache", &shared]).succeeds();
    second.dockerfile(&step("echo x > /c/ours"));
    second.build(&["-t", "image"]).succeeds();
    second.dockerfile(&step("echo x > /c/more"));
    let ran = second.build(&["-t", "image", "--cache", &shared]);
    assert!(
        !ran.succeeds().stderr.contains("restore cache mount"),
        "{}",
        ran.stderr
    );
    assert_eq!(report(&second), "ours\n");
    // An empty one is filled.
    second.dockerfile(&step("rm /c/ours /c/more"));
    second.build(&["-t", "image"]).succeeds();
    second.dockerfile(&step("echo last > /dev/null"));
    let ran = second.build(&["-t", "image", "--cache-from", &shared]);
    ran.succeeds();
    assert_eq!(report(&second), "more\nours\n");
    second.is_sound();
}

#[test]
fn whatever_is_damaged_is_a_warning_and_mended_by_the_next_save() {
    let Some([first, second, third]) = machines() else {
        return;
    };
    let shared = local(&first);
    first.dockerfile(&step("head -c 300000 /dev/urandom > /c/a"));
    first.build(&["--cache", &shared]).succeeds();
    let blobs = first.path("shared/blobs/sha256");
    for blob in fs::read_dir(&blobs).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    second.dockerfile(&step("echo x > /c/b"));
    let ran = second.build(&["-t", "image", "--cache", &shared]);
    let expected = "the cache mount `c` cannot be restored from";
    assert!(ran.succeeds().stderr.contains(expected), "{}", ran.stderr);
    assert_eq!(report(&second), "", "nothing half");
    second.is_sound();
    third.dockerfile(&step("echo y > /c/c"));
    let ran = third.build(&["-t", "image", "--cache", &shared]);
    assert!(
        !ran.succeeds().stderr.contains("cannot be restored"),
        "{}",
        ran.stderr
    );
    assert_eq!(report(&third), "b\n");
    // A document that is none.
    let entries = first.path("shared/entries");
    for entry in fs::read_dir(&entries).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().contains("-mount-") {
            fs::write(path, "{}").unwrap();
        }
    }
    let Some([fourth]) = machines() else { return };
    fourth.dockerfile(&step("echo z > /c/d"));
    let ran = fourth.build(&["-t", "image", "--cache", &shared]);
    assert!(ran.succeeds().stderr.contains(expected), "{}", ran.stderr);
    assert_eq!(report(&fourth), "");
}

#[test]
fn what_is_too_large_is_left_with_a_warning() {
    let Some([first, second]) = machines() else {
        return;
    };
    let shared = local(&first);
    let to = |size: &str| format!("type=local,dest={shared},mode=max,mounts-max-size={size}");
    first.dockerfile(&step("head -c 300000 /dev/urandom > /c/a"));
    let ran = first.build(&["--cache-to", &to("200k")]);
    let expected = "the cache mount `c` is not saved: its 300kB are more than 205kB";
    assert!(ran.succeeds().stderr.contains(expected), "{}", ran.stderr);
    first.dockerfile(&step("echo more > /c/b"));
    first.build(&["--cache-to", &to("1m")]).succeeds();
    second.dockerfile(&step("true"));
    let from = format!("type=local,src={shared},mounts-max-size=200k");
    let ran = second.build(&["--cache-from", &from, "-t", "image"]);
    assert!(
        ran.succeeds()
            .stderr
            .contains("the cache mount `c` is not restored"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("raises the limit"), "{}", ran.stderr);
    assert_eq!(report(&second), "");
}

#[test]
fn a_branch_begins_with_what_the_default_one_saved_and_writes_its_own() {
    let Some([first, second, third]) = machines() else {
        return;
    };
    let registry = FakeRegistry::start();
    let base = format!("{}/base:v1", registry.host());
    first.builder(&["push", "base", &base]).succeeds();
    let step = |adds: &str| step(adds).replace("FROM base", &format!("FROM {base}"));
    let shared = local(&first);
    let entries = |part: &str| -> Vec<(PathBuf, Vec<u8>)> {
        let all = fs::read_dir(first.path("shared/entries")).unwrap();
        let all = all.map(|entry| entry.unwrap().path());
        let named = all.filter(|path| path.file_name().unwrap().to_str().unwrap().contains(part));
        named
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    };
    let build = |lab: &Lab, branch: &str| {
        let mut command = lab.command();
        command
            .envs([("GITLAB_CI", "true"), ("CI_DEFAULT_BRANCH", "trunk")])
            .env("CI_COMMIT_BRANCH", branch)
            .args([
                "build",
                "--progress=plain",
                "-t",
                "image",
                "--cache",
                &shared,
            ])
            .arg(lab.context());
        Ran::of(command.output().unwrap())
    };
    first.dockerfile(&step("head -c 5000000 /dev/urandom > /c/main"));
    build(&first, "trunk").succeeds();
    let before = entries("cache-mount-");
    assert_eq!(before.len(), 1);
    // Steps, too, come from the default branch.
    second.dockerfile(&step("head -c 5000000 /dev/urandom > /c/main"));
    assert_eq!(build(&second, "x").succeeds().executed(), 0);
    second.dockerfile(&step("echo x > /c/branch"));
    let ran = build(&second, "x");
    assert!(
        ran.succeeds().stderr.contains("of scope cache"),
        "{}",
        ran.stderr
    );
    let sent = ran
        .stderr
        .lines()
        .find(|line| line.contains("sent for"))
        .unwrap();
    assert!(sent.contains("kB sent for 5"), "only what is new: {sent}");
    assert_eq!(report(&second), "main\n");
    assert_eq!(entries("cache-mount-"), before);
    assert_eq!(entries("x-mount-").len(), 1);
    third.dockerfile(&step("echo y > /c/more"));
    let ran = build(&third, "x");
    assert!(
        ran.succeeds().stderr.contains("of scope x"),
        "{}",
        ran.stderr
    );
    assert_eq!(report(&third), "branch\nmain\n");
}

#[test]
fn a_place_that_refuses_fails_saving_unless_that_is_said_not_to_matter() {
    let registry = FakeRegistry::start();
    let Some([lab]) = machines() else { return };
    let repository = format!("{}/cache", registry.host());
    lab.dockerfile(&step("echo x > /c/a"));
    registry.faults("PUT", "-mount-", &Fault::Status(403), 50);
    let to = format!("type=registry,ref={repository},mode=max");
    lab.build(&["--cache-to", &to, "-t", "image"])
        .fails(6, &["cannot save cache mounts to"]);
    lab.dockerfile(&step("echo y > /c/a"));
    let ran = lab.build(&[
        "--cache-to",
        &format!("{to},ignore-error=true"),
        "-t",
        "image",
    ]);
    assert!(
        ran.succeeds()
            .stderr
            .contains("cannot save cache mounts to"),
        "{}",
        ran.stderr
    );
}

#[test]
fn blobs_that_a_registry_has_lost_are_sent_again() {
    let registry = FakeRegistry::start();
    let Some([lab, other]) = machines() else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    lab.dockerfile(&step("head -c 300000 /dev/urandom > /c/a"));
    lab.build(&["--cache", &repository]).succeeds();
    lab.dockerfile(&step("echo x > /c/b"));
    let said =
        r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
    registry.fault("PUT", "-mount-", Fault::Says(404, said.to_owned()));
    let ran = lab.build(&["--cache", &repository]);
    assert!(
        ran.succeeds().stderr.contains("c: 30"),
        "all of it: {}",
        ran.stderr
    );
    other.dockerfile(&step("true"));
    other
        .build(&["--cache-from", &repository, "-t", "image"])
        .succeeds();
    assert_eq!(report(&other), "a\nb\n");
}

fn start(lab: &Lab, args: &[&str]) -> Child {
    let mut command = lab.command();
    command.args(["build", "--progress=plain", "-t", "image"]);
    command.args(args).arg(lab.context());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_kill_in_the_middle_of_restoring_leaves_nothing_half() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines() else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    first.dockerfile(&step("head -c 20000000 /dev/urandom > /c/a; echo x > /c/b"));
    first.build(&["--cache", &repository]).succeeds();
    second.dockerfile(&step("true"));
    // The last of three packs never comes to its end.
    registry.take_log();
    registry.fault("GET", "/cache/blobs/", Fault::Drip(1 << 20));
    registry.fault("GET", "/cache/blobs/", Fault::Drip(1 << 20));
    registry.fault("GET", "/cache/blobs/", Fault::StallBody(1 << 20));
    let mut child = start(&second, &["--cache-from", &repository]);
    while registry.faults_left() > 0 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let ran = second.build(&["--cache-from", &repository, "-t", "image"]);
    ran.succeeds();
    assert_eq!(report(&second), "a\nb\n");
    second.is_sound();
}

#[test]
fn of_two_builds_at_once_one_restores_and_both_find_it() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines() else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    first.dockerfile(&step("head -c 20000000 /dev/urandom > /c/a"));
    first.build(&["--cache", &repository]).succeeds();
    registry.take_log();
    second.dockerfile(
        "FROM base\nARG N\nRUN --mount=type=cache,target=/c,id=c ls -A /c > /report && echo $N > /n\n",
    );
    let builds = ["N=1", "N=2"].map(|n| {
        start(
            &second,
            &[
                "--cache-from",
                &repository,
                "--build-arg",
                n,
                "-t",
                n.trim_start_matches("N="),
            ],
        )
    });
    for build in builds {
        Ran::of(build.wait_with_output().unwrap()).succeeds();
    }
    for name in ["1", "2"] {
        assert_eq!(second.saved(name).files().text("report"), "a\n");
    }
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "GET", "-mount-"), 1, "{lines:#?}");
    second.is_sound();
}

#[test]
fn a_locked_mount_in_use_is_left_to_who_has_it() {
    let Some([lab]) = machines() else { return };
    let shared = local(&lab);
    // Steps meet at a gate: they connect, and end when they are told to.
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    let waits = format!(
        "perl -e 'socket(S, 2, 1, 6) or die; connect(S, pack(\"S n a4 x8\", 2, {port}, \"\\x7f\\0\\0\\1\")) or die $!; sysread(S, $x, 1)'"
    );
    let mount = "--mount=type=cache,target=/c,id=c,sharing=locked";
    let begin = |name: &str, dockerfile: &str| {
        let file = lab.path(name);
        fs::write(&file, dockerfile).unwrap();
        start(&lab, &["--cache", &shared, "-f", file.to_str().unwrap()])
    };
    let first = begin(
        "first",
        &format!("FROM base\nRUN {mount} echo 1 > /c/1\nRUN {waits}\n"),
    );
    let (behind_the_mount, _) = gate.accept().unwrap();
    let second = begin(
        "second",
        &format!("FROM base\nRUN {mount} echo 2 > /c/2; {waits}\n"),
    );
    let (in_the_mount, _) = gate.accept().unwrap();
    drop(behind_the_mount);
    let ran = Ran::of(first.wait_with_output().unwrap());
    let expected = format!(
        "the cache mount `c` is not saved: process {} uses it",
        second.id()
    );
    assert!(ran.succeeds().stderr.contains(&expected), "{}", ran.stderr);
    drop(in_the_mount);
    let ran = Ran::of(second.wait_with_output().unwrap());
    assert!(ran.succeeds().stderr.contains("sent for"), "{}", ran.stderr);
    let Some([other]) = machines() else { return };
    other.dockerfile(&format!("FROM base\nRUN {mount} ls -A /c > /report\n"));
    other
        .build(&["--cache-from", &shared, "-t", "image"])
        .succeeds();
    assert_eq!(report(&other), "1\n2\n");
}

/// A place, and what is needed to use it without the program.
struct Shelf {
    directory: tempfile::TempDir,
    client: Client,
}

impl Shelf {
    fn new() -> Shelf {
        Shelf {
            directory: tempfile::tempdir().unwrap(),
            client: Client::new(&RegistryOptions::default(), Threads::None).unwrap(),
        }
    }

    fn place(&self) -> Place {
        let path = self.directory.path().join("cache");
        Place::new(&CachePlace::Directory { path }, &CacheScope::default())
    }

    fn save(
        &self,
        name: &MountName,
        bytes: u64,
        read: &dyn Fn(&mut Streams<'_>) -> io::Result<()>,
    ) -> Saved {
        let place = self.place();
        let previous = look_up(&self.client, &place, name).unwrap();
        let outline = Outline::read(bytes, previous.as_ref(), read).unwrap();
        let index = previous.map(|known| known.fetch_index(&self.client, &place).unwrap());
        let scratch = tempfile::tempdir_in(self.directory.path()).unwrap();
        let packed = outline.pack(index.as_ref(), scratch.path(), read).unwrap();
        let (now, cancel) = (Timestamp::from_seconds(1_795_271_400), Cancel::new());
        let progress = |_, _| ();
        save(
            &self.client,
            &place,
            name,
            &outline,
            packed,
            now,
            &cancel,
            &progress,
        )
        .unwrap()
    }

    /// Saves a directory of this machine as a build does.
    fn save_directory(&self, name: &MountName, directory: &Path) -> Saved {
        let cancel = Cancel::new();
        self.save(name, 60 << 20, &|streams| {
            read_cache(
                directory,
                &Owners::OnDisk,
                &cancel,
                &mut |piece| match piece {
                    Piece::Header(bytes) => streams.header(bytes),
                    Piece::Content(bytes) => streams.content(bytes),
                    Piece::FileBegins(size) | Piece::FileEnds(size) => streams.border(size),
                },
            )
            .map_err(io::Error::other)
        })
    }

    fn restore_directory(&self, name: &MountName, to: &Path) {
        let place = self.place();
        let version = look_up(&self.client, &place, name).unwrap().unwrap();
        let index = version.fetch_index(&self.client, &place).unwrap();
        let scratch = tempfile::tempdir_in(self.directory.path()).unwrap();
        let cancel = Cancel::new();
        let (progress, ownership) = (|_, _| (), Ownership::InLedger);
        let fill = |headers: &mut dyn Read, contents: &mut dyn Read| {
            fill_cache(headers, contents, to, ownership, &cancel)
        };
        let client = &self.client;
        restore_mount(
            client,
            &place,
            &index,
            scratch.path(),
            &cancel,
            &progress,
            fill,
        )
        .unwrap()
        .unwrap();
    }
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        xattrs: Default::default(),
    }
}

/// Returns a header whose path, of the same length, no writer would take.
fn header_of(path: &str, kind: EntryKind) -> Vec<u8> {
    let plain = "x".repeat(path.len());
    let mut writer = HeaderWriter::default();
    let mut header = writer.header(&entry(&plain, kind)).unwrap().to_vec();
    header[..path.len()].copy_from_slice(path.as_bytes());
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn hostile_mounts_write_nowhere_else_and_begin_empty() {
    let Some([first]) = machines() else { return };
    let outside = first.path("outside");
    fs::create_dir(&outside).unwrap();
    let link = EntryKind::Symlink {
        target: outside.to_str().unwrap().into(),
    };
    let file = EntryKind::File { size: 4 };
    let plain = |path: &str, kind: EntryKind| {
        let mut writer = HeaderWriter::default();
        writer.header(&entry(path, kind)).unwrap().to_vec()
    };
    let absolute = format!("{}/f", outside.display());
    let hard = EntryKind::HardLink {
        target: "link/f".into(),
    };
    fs::write(outside.join("victim"), "victim").unwrap();
    let cases: Vec<Vec<u8>> = vec![
        header_of("../../../../outside/f", file.clone()),
        header_of(&absolute, file.clone()),
        [plain("link", link.clone()), plain("link/f", file.clone())].concat(),
        [plain("link", link.clone()), plain("hard", hard)].concat(),
        plain("large", EntryKind::File { size: 1 << 40 }),
        b"no header at all".repeat(64),
        plain("cut", file.clone())[..300].to_vec(),
    ];
    first.dockerfile(&step("echo x > /c/a"));
    first.build(&["--cache", &local(&first)]).succeeds();
    let entries = fs::read_dir(first.path("shared/entries")).unwrap();
    let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let key = names.find_map(|name| Some(name.split_once("-mount-")?.1.to_owned()));
    let name = MountName {
        key: Digest::from_hex(&key.unwrap()).unwrap(),
        id: "/c".to_owned(),
    };
    for (at, headers) in cases.iter().enumerate() {
        let shelf = Shelf::new();
        shelf.save(&name, 0, &|streams| {
            streams.header(headers)?;
            streams.content(b"evil")
        });
        let Some([lab]) = machines() else { return };
        lab.dockerfile(&step("ls -A /c/link > /linked 2>&1; true"));
        let from = format!("type=local,src={}/cache", shelf.directory.path().display());
        lab.build(&["--cache-from", &from, "-t", "image"])
            .succeeds();
        let left: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert_eq!(left.len(), 1, "case {at}: {left:?}");
        lab.is_sound();
    }
    assert_eq!(fs::metadata(outside.join("victim")).unwrap().nlink(), 1);
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Lines of words, about four times as long as what they compress to.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let bytes = noise(seed, length / 3);
    let words = bytes.iter().flat_map(|byte| {
        let words = [
            "version",
            "Depends: ",
            "\n",
            "lib",
            "-dev ",
            "1.2",
            "fn ",
            "let x = ",
        ];
        words[*byte as usize % words.len()].bytes()
    });
    words.take(length).collect()
}

fn put(directory: &Path, path: &str, content: &[u8]) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A download of `apt` each: an archive, and indexes that are all there from the first one on.
fn apt(directory: &Path, packages: std::ops::Range<u64>) {
    if packages.start == 0 {
        for (at, size) in [9_000_000, 4_500_000, 280_000].into_iter().enumerate() {
            let path = format!("lib/apt/lists/deb.example.org_dists_{at}_Packages");
            put(directory, &path, &text(at as u64, size));
        }
    }
    for at in packages {
        let name = format!(
            "cache/apt/archives/pkg{:04}_1.{at}_amd64.deb",
            at * 7919 % 1000
        );
        put(
            directory,
            &name,
            &noise(at, 20_000 + (at * 48_271 % 400_000) as usize),
        );
    }
    // Made anew by each run.
    put(directory, "cache/apt/archives/lock", b"");
}

/// A download of `pip` each: a response and its body, below the parts of a hash.
fn pip(directory: &Path, packages: std::ops::Range<u64>) {
    for at in packages {
        let hash = Digest::of(&at.to_le_bytes()).hex();
        let parts: Vec<String> = hash[..5].chars().map(|c| c.to_string()).collect();
        let path = format!("http-v2/{}/{hash}", parts.join("/"));
        put(directory, &path, &text(at, 1800));
        let size = 30_000 + (at * 69_621 % 1_500_000) as usize;
        put(directory, &format!("{path}.body"), &noise(at, size));
    }
}

/// A crate of `cargo` each: the archive, what is unpacked of it, and its line in the index.
fn cargo(directory: &Path, crates: std::ops::Range<u64>) {
    for at in crates {
        let name = format!("crate{:03}-1.0.{at}", at * 7919 % 1000);
        let archive = format!("cache/index.crates.io/{name}.crate");
        put(
            directory,
            &archive,
            &noise(at, 15_000 + (at * 48_271 % 120_000) as usize),
        );
        for file in 0..12 + at % 30 {
            let path = format!("src/index.crates.io/{name}/src/file{file}.rs");
            put(
                directory,
                &path,
                &text(at * 100 + file, 1500 + (file * 977 % 20_000) as usize),
            );
        }
        put(
            directory,
            &format!("index/.cache/{}", &name[..8]),
            &text(at, 6000),
        );
    }
}

#[test]
fn after_one_more_package_at_most_a_tenth_moves() {
    type Fill = fn(&Path, std::ops::Range<u64>);
    for (name, fill, packages) in [
        ("apt", apt as Fill, 120),
        ("pip", pip, 50),
        ("cargo", cargo, 120),
    ] {
        let shelf = Shelf::new();
        let tree = tempfile::tempdir().unwrap();
        let mount = MountName {
            key: Digest::of(name.as_bytes()),
            id: name.to_owned(),
        };
        fill(tree.path(), 0..packages);
        let first = shelf.save_directory(&mount, tree.path());
        fill(tree.path(), packages..packages + 1);
        let second = shelf.save_directory(&mount, tree.path());
        assert!(first.version.bytes > 10_000_000, "{name}");
        assert!(
            second.sent * 10 <= first.sent,
            "{name}: {} of {}",
            second.sent,
            first.sent
        );
        let back = tempfile::tempdir().unwrap();
        let to = back.path().join("fs");
        fs::create_dir(&to).unwrap();
        shelf.restore_directory(&mount, &to);
        let third = shelf.save_directory(&mount, &to);
        let same = third.version.bytes == second.version.bytes;
        assert!(same && third.sent < 100_000, "{name}: {}", third.sent);
    }
}
