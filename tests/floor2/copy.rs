//! COPY and ADD as whole builds: what is selected, where it goes, and what every file of the image says about itself.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

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

fn at(path: &Path, seconds: i64, nanoseconds: u32) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds);
    File::open(path).unwrap().set_modified(time).unwrap();
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

/// 3.7: metadata of what comes from the context.
#[test]
fn files_of_the_context_keep_everything_but_their_owner() {
    let Some(lab) = Lab::with_base() else { return };
    let context = lab.context();
    for (name, bits) in [
        ("plain", 0o640),
        ("suid", 0o4755),
        ("sgid", 0o2711),
        ("closed", 0),
    ] {
        mode(&lab.file(&format!("d/{name}"), name), bits);
    }
    lab.file("d/sub/f", "f");
    mode(&context.join("d/sub"), 0o1777);
    mode(&context.join("d"), 0o2700);
    lab.link("d/link", "plain");
    lab.link("d/dangling", "/nowhere");
    fs::hard_link(context.join("d/plain"), context.join("d/zhard")).unwrap();
    shell(&context, "mkfifo d/fifo && chmod 620 d/fifo");
    let socket = std::os::unix::net::UnixListener::bind(context.join("d/socket")).unwrap();
    drop(socket);
    let has_xattrs = rustix::fs::setxattr(
        context.join("d/plain"),
        "user.note",
        b"said",
        rustix::fs::XattrFlags::empty(),
    )
    .is_ok();
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        rustix::fs::setxattr(
            context.join("d/suid"),
            "security.capability",
            &CAPABILITY,
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        shell(
            &context,
            "chown 1234:4321 d/sgid d/sub && chmod 2711 d/sgid && chmod 1777 d/sub",
        );
    }
    at(&context.join("d/plain"), THEN, 123_456_789);
    at(&context.join("d/sub"), THEN, 0);
    at(&context.join("d"), THEN + 1, 0);
    let files = lab.files(
        "FROM scratch\nCOPY d /x\nCOPY d/ /y\nCOPY d /z/\nCOPY d/plain /one\nCOPY --chown=7:8 d/suid d/plain /owned/\nCOPY --chmod=4711 d/suid /moded\n",
    );
    for top in ["x", "y", "z"] {
        let name = |rest: &str| format!("{top}/{rest}");
        assert_eq!(line(&files, top), "d 0755 0:0", "made for the copy");
        assert_eq!(mtime(&files, top), (THEN + 1, 0));
        for (path, expected) in [
            ("plain", "f 0640 0:0 plain"),
            ("zhard", "f 0640 0:0 plain"),
            ("suid", "f 4755 0:0 suid"),
            ("sgid", "f 2711 0:0 sgid"),
            ("closed", "f 0000 0:0 closed"),
            ("sub", "d 1777 0:0"),
            ("sub/f", "f 0644 0:0 f"),
            ("link", "l 0:0 -> plain"),
            ("dangling", "l 0:0 -> /nowhere"),
            ("fifo", "p 0620 0:0"),
            ("socket", "f 0755 0:0"),
        ] {
            let found = line(&files, &name(path));
            if path == "socket" {
                assert!(found.starts_with("f "), "{found}");
                continue;
            }
            assert_eq!(found, expected, "{}", name(path));
        }
        assert_eq!(mtime(&files, &name("plain")), (THEN, 123_456_789));
        assert_eq!(mtime(&files, &name("sub")), (THEN, 0));
        let xattrs = |path: &str| files.get(&name(path)).entry.xattrs.clone();
        if has_xattrs {
            assert_eq!(xattrs("plain").get(&b"user.note"[..]).unwrap(), b"said");
        }
        if is_root {
            assert_eq!(
                xattrs("suid").get(&b"security.capability"[..]).unwrap(),
                &CAPABILITY
            );
        }
    }
    check(
        &files,
        &[
            ("one", "f 0640 0:0 plain"),
            ("owned", "d 0755 7:8"),
            ("owned/plain", "f 0640 7:8 plain"),
            ("owned/suid", "f 4755 7:8 suid"),
            ("moded", "f 4711 0:0 suid"),
        ],
    );
    if is_root {
        for path in ["owned/suid", "moded"] {
            let xattrs = &files.get(path).entry.xattrs;
            assert_eq!(
                xattrs.get(&b"security.capability"[..]).unwrap(),
                &CAPABILITY,
                "{path}"
            );
        }
    }
    let stored = lab.saved("image");
    let linked = stored.layers[0]
        .iter()
        .filter(|file| matches!(file.entry.kind, EntryKind::HardLink { .. }))
        .count();
    assert_eq!(linked, 1, "links within a tree stay links");
}

/// 3.7: which files a source names.
#[test]
fn sources_stay_in_the_context_and_links_are_followed_in_it() {
    let Some(lab) = Lab::with_base() else { return };
    for name in [
        "a.txt",
        "b.txt",
        ".hidden",
        "dir/in",
        "dir/deep/f",
        "real/r",
        "[x]",
        "we ird",
    ] {
        lab.file(&format!("s/{name}"), name);
    }
    lab.file("top", "top");
    lab.link("s/tofile", "a.txt");
    lab.link("s/todir", "dir");
    lab.link("abs", "/s/real");
    lab.link("out", "../../../../s/a.txt");
    fs::create_dir(lab.context().join("empty")).unwrap();
    let image = lab.image(
        "FROM scratch\nCOPY ../top /dots\nCOPY /top /absolute\nCOPY s/* /star/\nCOPY s/[ab].t?t /class/\nCOPY s/nothing* /none/\nCOPY s/tofile /tofile\nCOPY s/todir /todir\n\
         COPY abs /abs\nCOPY abs/r /through\nCOPY out /out\nCOPY s/to* /links/\nCOPY s/[[]x] /escaped\nCOPY s/\\\\[x] /escaped-too\nCOPY [\"s/we ird\", \"/we ird\"]\nCOPY s/todir/deep/../in /cleaned\nCOPY empty /empty\nCOPY s/d* s/r* /both/\nCOPY . /all\n",
    );
    let files = image.files();
    check(
        &files,
        &[
            ("dots", "f 0644 0:0 top"),
            ("absolute", "f 0644 0:0 top"),
            ("star/a.txt", "f 0644 0:0 a.txt"),
            ("star/.hidden", "f 0644 0:0 .hidden"),
            ("star/in", "f 0644 0:0 dir/in"),
            ("star/deep/f", "f 0644 0:0 dir/deep/f"),
            ("star/r", "f 0644 0:0 real/r"),
            ("star/tofile", "f 0644 0:0 a.txt"),
            ("star/dir", "missing"),
            ("class/a.txt", "f 0644 0:0 a.txt"),
            ("class/b.txt", "f 0644 0:0 b.txt"),
            ("none", "missing"),
            ("tofile", "f 0644 0:0 a.txt"),
            ("todir", "d 0755 0:0"),
            ("todir/deep/f", "f 0644 0:0 dir/deep/f"),
            ("abs/r", "f 0644 0:0 real/r"),
            ("through", "f 0644 0:0 real/r"),
            ("out", "f 0644 0:0 a.txt"),
            ("links/tofile", "f 0644 0:0 a.txt"),
            ("links/in", "f 0644 0:0 dir/in"),
            ("escaped", "f 0644 0:0 [x]"),
            ("escaped-too", "f 0644 0:0 [x]"),
            ("we ird", "f 0644 0:0 we ird"),
            ("cleaned", "f 0644 0:0 dir/in"),
            ("empty", "d 0755 0:0"),
            ("both/in", "f 0644 0:0 dir/in"),
            ("both/r", "f 0644 0:0 real/r"),
            ("all/abs", "l 0:0 -> /s/real"),
            ("all/top", "f 0644 0:0 top"),
        ],
    );
    assert!(files.has("all/Dockerfile"));
    assert_eq!(
        image.layers.len(),
        18,
        "a wildcard that matches nothing makes a layer too"
    );
    assert!(image.layers[4].is_empty());
}

/// 3.8: where things go.
#[test]
fn destinations_are_made_merged_with_or_refused() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "f");
    lab.file("g", "g");
    lab.file("d/in", "in");
    lab.file("d/sub/x", "x");
    mode(&lab.context().join("d"), 0o700);
    mode(&lab.context().join("d/sub"), 0o750);
    at(&lab.context().join("d"), THEN, 0);
    let prepare = "FROM base AS prepared\nRUN mkdir -p /have/sub && chmod 711 /have && chown 3:4 /have /have/sub && echo old > /have/in && chown 3:4 /have/in && echo keep > /have/keep && \
         mkdir -p /real/dir && ln -s /real/dir /todir && ln -s real/dir/file /tofile && echo old > /real/dir/file && ln -s /gone/far /dangling && ln -s ../../../../real /climb && echo x > /plain\n";
    let files = lab.files(&format!(
        "{prepare}FROM prepared\nCOPY d /have\nCOPY f /have\nCOPY f /new/deep/name\nCOPY f /new/dir/\nCOPY f /todir\nCOPY g /todir/h\nCOPY g /tofile\nCOPY f /dangling/f\nCOPY f /climb/f\nCOPY f /a/../../b\n\
         WORKDIR /work\nCOPY f .\nCOPY g \"\"\nCOPY d rel\nCOPY f g /several/\nCOPY . ./\nCOPY d /todir\n",
    ));
    check(
        &files,
        &[
            ("have", "d 0711 3:4"),
            ("have/in", "f 0644 0:0 in"),
            ("have/keep", "f 0644 0:0 keep"),
            ("have/f", "f 0644 0:0 f"),
            ("have/sub", "d 0750 0:0"),
            ("have/sub/x", "f 0644 0:0 x"),
            ("new", "d 0755 0:0"),
            ("new/deep", "d 0755 0:0"),
            ("new/deep/name", "f 0644 0:0 f"),
            ("new/dir/f", "f 0644 0:0 f"),
            ("todir", "l 0:0 -> /real/dir"),
            ("real/dir/f", "f 0644 0:0 f"),
            ("real/dir/h", "f 0644 0:0 g"),
            ("real/dir/in", "f 0644 0:0 in"),
            ("tofile", "l 0:0 -> real/dir/file"),
            ("real/dir/file", "f 0644 0:0 g"),
            ("dangling", "l 0:0 -> /gone/far"),
            ("gone/far/f", "f 0644 0:0 f"),
            ("real/f", "f 0644 0:0 f"),
            ("b", "f 0644 0:0 f"),
            ("work/f", "f 0644 0:0 f"),
            ("work/g", "f 0644 0:0 g"),
            ("work/rel", "d 0755 0:0"),
            ("work/rel/sub", "d 0750 0:0"),
            ("several/f", "f 0644 0:0 f"),
            ("several/g", "f 0644 0:0 g"),
            ("work/d/in", "f 0644 0:0 in"),
            ("work/d", "d 0700 0:0"),
        ],
    );
    assert_eq!(mtime(&files, "work/rel"), (THEN, 0));
    for (instruction, text) in [
        ("COPY d /plain", "/plain"),
        ("COPY f /plain/x", "/plain"),
        ("COPY f g /plain/", "/plain"),
        ("COPY f absent /x/", "absent"),
        ("COPY --chown=nobody-here f /x", "nobody-here"),
        ("COPY --chown=:nogroup-here f /x", "nogroup-here"),
    ] {
        lab.dockerfile(&format!("{prepare}{instruction}\n"));
        lab.build(&[]).fails(5, &[text, "Dockerfile:3"]);
    }
}

/// 3.8: `--chown` and `--chmod`.
#[test]
fn owners_and_modes_given_by_flags() {
    let Some(lab) = Lab::with_base() else { return };
    mode(&lab.file("f", "f"), 0o640);
    lab.file("d/in", "in");
    lab.file("d/sub/x", "x");
    mode(&lab.file("d/run", "run"), 0o755);
    lab.link("d/l", "in");
    mode(&lab.context().join("d/sub"), 0o700);
    let files = lab.files(
        "FROM base\nARG WHO=app BITS=2711\nUSER app\nCOPY f /byuser\nCOPY --chown=app f /name\nCOPY --chown=12 f /number\nCOPY --chown=:8 f /group\nCOPY --chown=7:staff f /mixed\nCOPY --chown=$WHO:0 d /deep/tree\n\
         COPY --chmod=600 d /modes/all\nCOPY --chmod=u=rwX,go=rX d /symbolic\nCOPY --chmod=$BITS f /special\nCOPY --chmod=a-w,+x f /plus\nCOPY --chmod=1777 d /sticky\nCOPY --chown=app --chmod=0 f /none/f\nCOPY --chown=root f /root-owned\n",
    );
    check(
        &files,
        &[
            ("byuser", "f 0640 0:0 f"),
            ("name", "f 0640 1000:1000 f"),
            ("number", "f 0640 12:12 f"),
            ("group", "f 0640 0:8 f"),
            ("mixed", "f 0640 7:50 f"),
            ("deep", "d 0755 1000:0"),
            ("deep/tree", "d 0755 1000:0"),
            ("deep/tree/sub", "d 0700 1000:0"),
            ("deep/tree/sub/x", "f 0644 1000:0 x"),
            ("deep/tree/l", "l 1000:0 -> in"),
            ("modes", "d 0600 0:0"),
            ("modes/all", "d 0600 0:0"),
            ("modes/all/sub", "d 0600 0:0"),
            ("modes/all/sub/x", "f 0600 0:0 x"),
            ("symbolic/sub", "d 0755 0:0"),
            ("symbolic/run", "f 0755 0:0 run"),
            ("symbolic/in", "f 0644 0:0 in"),
            ("special", "f 2711 0:0 f"),
            ("plus", "f 0551 0:0 f"),
            ("sticky", "d 0777 0:0"),
            ("sticky/sub", "d 1777 0:0"),
            ("none", "d 0000 1000:1000"),
            ("none/f", "f 0000 1000:1000 f"),
            ("root-owned", "f 0640 0:0 f"),
        ],
    );
    let on_scratch =
        lab.files("FROM scratch\nCOPY --chown=root:root f /f\nCOPY --chown=5:6 d /d/e\n");
    check(
        &on_scratch,
        &[
            ("f", "f 0640 0:0 f"),
            ("d", "d 0755 5:6"),
            ("d/e/in", "f 0644 5:6 in"),
        ],
    );
}

/// 3.8: `--link`, `--parents`, `--exclude`.
#[test]
fn linked_copies_parents_and_exclusions() {
    let Some(lab) = Lab::with_base() else { return };
    for name in [
        "p/a/one.c",
        "p/a/two.h",
        "p/b/c/three.c",
        "p/b/skip/s.c",
        "f",
    ] {
        lab.file(name, name);
    }
    mode(&lab.context().join("p/b"), 0o711);
    let image = lab.image(
        "FROM base\nRUN mkdir /target && ln -s /target /link && mkdir -m 700 /have && chown 9:9 /have && mkdir /block && echo x > /block/x\n\
         COPY --link f /link/f\nCOPY --link --chown=5:6 f /have/f\nCOPY --link --chown=app f /byname\nCOPY --link --chmod=600 f /moded\n\
         COPY --parents p/a/one.c p/b/c /parents/\nCOPY --parents ./p/./b/c/three.c /pivot/\nCOPY --parents p/**/*.c /globbed/\nCOPY --parents p/**/*.none /nothing/\n\
         COPY --exclude=**/*.h --exclude=b/skip p /excluded\nCOPY --exclude=* --exclude=!a p /negated\nCOPY --exclude=*.h p/a/* /wild/\n",
    );
    check(
        &image.files(),
        &[
            ("link", "d 0755 0:0"),
            ("link/f", "f 0644 0:0 f"),
            ("target/f", "missing"),
            ("have", "d 0755 5:6"),
            ("have/f", "f 0644 5:6 f"),
            ("byname", "f 0644 1000:1000 f"),
            ("moded", "f 0600 0:0 f"),
            ("parents/p/a/one.c", "f 0644 0:0 p/a/one.c"),
            ("parents/p/a/two.h", "missing"),
            ("parents/p/b", "d 0711 0:0"),
            ("parents/p/b/c/three.c", "f 0644 0:0 p/b/c/three.c"),
            ("parents/p/b/skip", "missing"),
            ("pivot/b/c/three.c", "f 0644 0:0 p/b/c/three.c"),
            ("pivot/p", "missing"),
            ("globbed/p/a/one.c", "f 0644 0:0 p/a/one.c"),
            ("globbed/p/b/skip/s.c", "f 0644 0:0 p/b/skip/s.c"),
            ("globbed/p/a/two.h", "missing"),
            ("excluded/a/one.c", "f 0644 0:0 p/a/one.c"),
            ("excluded/a/two.h", "missing"),
            ("excluded/b/c/three.c", "f 0644 0:0 p/b/c/three.c"),
            ("excluded/b/skip", "missing"),
            ("negated/a/two.h", "f 0644 0:0 p/a/two.h"),
            ("negated/b", "missing"),
            ("wild/one.c", "f 0644 0:0 p/a/one.c"),
        ],
    );
    // A linked layer is the same whatever lies below it.
    let linked = |dockerfile: &str| {
        let image = lab.image(dockerfile);
        image.list("/rootfs/diff_ids").last().unwrap().clone()
    };
    let one = linked("FROM base\nENV SOURCE=1\nRUN echo 1 > /other\nCOPY --link f /to/f\n");
    lab.dockerfile("FROM base\nRUN echo 2 > /other\nCOPY --link f /to/f\n");
    assert_eq!(
        lab.build(&["-t", "image"]).succeeds().executed(),
        1,
        "the RUN alone"
    );
    assert_eq!(
        lab.saved("image").list("/rootfs/diff_ids").last().unwrap(),
        &one
    );
}

/// 3.8: ADD of archives.
#[test]
fn add_unpacks_archives_whatever_their_name() {
    let Some(lab) = Lab::with_base() else { return };
    let work = lab.path("work");
    fs::create_dir(&work).unwrap();
    shell(
        &work,
        "mkdir -p t/deep && echo in > t/deep/in && chmod 640 t/deep/in && ln t/deep/in t/deep/zlink && ln -s in t/deep/soft && mkfifo t/fifo && chmod 4711 t/deep/in && chmod 2750 t/deep && \
         touch -d @981173106.5 t/deep/in t/deep t\n\
         tar --format=posix --numeric-owner --owner=11 --group=12 -C t -cf plain.tar deep fifo && gzip -k plain.tar && cp plain.tar named.txt\n\
         tar --numeric-owner --owner=11 --group=12 -C t -cf implied.tar deep/soft && tar -cf empty.tar -T /dev/null && echo text > fake.tar && gzip -c fake.tar > text.gz",
    );
    let mut forms = vec!["plain.tar", "plain.tar.gz"];
    for (tool, name) in [
        ("bzip2", "plain.tar.bz2"),
        ("xz", "plain.tar.xz"),
        ("zstd", "plain.tar.zst"),
    ] {
        match crate::support::power::program(tool) {
            Some(_) => {
                shell(&work, &format!("{tool} -q -k -c plain.tar > {name}"));
                forms.push(name);
            }
            None => crate::support::power::not_run(&format!("`{tool}` is not installed")),
        }
    }
    for entry in fs::read_dir(&work).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), lab.context().join(entry.file_name())).unwrap();
        }
    }
    lab.file("beside", "beside");
    let mut dockerfile = String::from(
        "FROM base\nRUN mkdir -p /elsewhere /over && ln -s /elsewhere /over/deep && mkdir /have && chmod 700 /have\n",
    );
    for (at, form) in forms.iter().enumerate() {
        dockerfile.push_str(&format!(
            "ADD {form} /form{at}{}\n",
            if at % 2 == 0 { "" } else { "/" }
        ));
    }
    dockerfile.push_str(
        "ADD named.txt /named\nADD --chown=5:6 plain.tar /owned/x\nADD --chown=5:6 implied.tar /implied\nADD --chmod=600 plain.tar /moded\nADD plain.tar /over\nADD plain.tar /have\n\
         ADD empty.tar fake.tar text.gz /files/\nADD --unpack=false plain.tar /packed/\nADD plain.tar beside /both/\nADD plain.t* /glob/\nCOPY plain.tar /copied.tar\nADD beside /added\n",
    );
    let image = lab.image(&dockerfile);
    let files = image.files();
    let mut tops: Vec<String> = (0..forms.len()).map(|at| format!("form{at}")).collect();
    tops.extend(["named", "both", "glob", "have", "over"].map(str::to_owned));
    for top in tops {
        let name = |rest: &str| format!("{top}/{rest}");
        for (path, expected) in [
            ("deep", "d 2750 11:12"),
            ("deep/in", "f 4711 11:12 in"),
            ("deep/zlink", "f 4711 11:12 in"),
            ("deep/soft", "l 11:12 -> in"),
            ("fifo", "p 0644 11:12"),
        ] {
            assert_eq!(line(&files, &name(path)), expected, "{}", name(path));
        }
        assert_eq!(
            mtime(&files, &name("deep/in")),
            (THEN, 500_000_000),
            "{top}"
        );
        assert_eq!(mtime(&files, &name("deep")), (THEN, 500_000_000), "{top}");
    }
    let text = |path: &str| fs::read(lab.context().join(path)).unwrap();
    check(
        &files,
        &[
            ("form0", "d 0755 0:0"),
            ("have", "d 0700 0:0"),
            ("owned/x/deep", "d 2750 5:6"),
            ("owned/x/deep/in", "f 4711 5:6 in"),
            ("implied/deep", "d 0755 0:0"),
            ("implied/deep/soft", "l 5:6 -> in"),
            ("moded/deep/in", "f 4711 11:12 in"),
            ("elsewhere/in", "missing"),
            ("files/fake.tar", "f 0644 0:0 text"),
            ("both/beside", "f 0644 0:0 beside"),
            ("added", "f 0644 0:0 beside"),
        ],
    );
    for (path, source) in [
        ("files/empty.tar", "empty.tar"),
        ("files/text.gz", "text.gz"),
        ("packed/plain.tar", "plain.tar"),
        ("copied.tar", "plain.tar"),
    ] {
        assert_eq!(files.get(path).content, text(source), "{path}");
    }
    let history = image.config["history"].to_string();
    assert!(
        history.contains("ADD --chown=5:6 plain.tar /owned/x # buildkit"),
        "{history}"
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

/// 3.9: heredocs as files.
#[test]
fn heredocs_as_files() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "f");
    let files = lab.files(
        "FROM base\nARG WHO=me\nENV A=\"a b\"\nCOPY <<EOF /expanded\n$WHO ${A} \\$WHO \"quoted\" 'single $WHO' $(id) `id`\nEOF\nCOPY <<'EOF' /literal\n$WHO \\$WHO\nEOF\nCOPY <<-EOF /tabs\n\t\tindented\n\tEOF\n\
         COPY --chown=app --chmod=751 <<one <<two f /many/\n1\none\n2\ntwo\nADD <<x.tar /made/by/add/\nnot a tar\nx.tar\nCOPY <<EOF /empty\nEOF\nWORKDIR /w\nCOPY <<rel ./\nrel text\nrel\n",
    );
    check(
        &files,
        &[
            (
                "expanded",
                "f 0644 0:0 me a b $WHO \"quoted\" 'single me' $(id) `id`",
            ),
            ("literal", "f 0644 0:0 $WHO \\$WHO"),
            ("tabs", "f 0644 0:0 indented"),
            ("many", "d 0751 1000:1000"),
            ("many/one", "f 0751 1000:1000 1"),
            ("many/two", "f 0751 1000:1000 2"),
            ("many/f", "f 0751 1000:1000 f"),
            ("made/by", "d 0755 0:0"),
            ("made/by/add/x.tar", "f 0644 0:0 not a tar"),
            ("empty", "f 0644 0:0"),
            ("w/rel", "f 0644 0:0 rel text"),
        ],
    );
    assert_eq!(files.text("tabs"), "indented\n");
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
        files.text("etc/evil"),
        "evil\n",
        "the link leads to the image's own /etc"
    );
    assert!(!fs::exists("/etc/evil").unwrap());
}

/// 4: what a copy's key holds.
#[test]
fn the_key_of_a_copy_is_what_it_copies() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("d/a", "a");
    lab.file("d/ignored", "1");
    lab.file("d/b.txt", "1");
    lab.file(".dockerignore", "d/ignored\n");
    let dockerfile = "FROM scratch AS one\nCOPY --exclude=*.txt d /d\nFROM scratch AS two\nARG V=1\nCOPY <<EOF /h\n$V\nEOF\nFROM scratch\nCOPY --from=one / /\nCOPY --from=two / /\n";
    lab.dockerfile(dockerfile);
    let executed = |args: &[&str]| {
        let mut all = vec!["-t", "image"];
        all.extend_from_slice(args);
        lab.build(&all).succeeds().executed()
    };
    assert_eq!(executed(&[]), 4);
    lab.file("d/ignored", "2");
    lab.file("d/b.txt", "2");
    assert_eq!(executed(&[]), 0, "neither ignored nor excluded files count");
    assert_eq!(
        executed(&["--build-arg", "V=2"]),
        2,
        "the heredoc and what copies it"
    );
    assert_eq!(lab.saved("image").files().text("h"), "2\n");
    fs::rename(lab.context().join("d/a"), lab.context().join("d/c")).unwrap();
    assert_eq!(executed(&[]), 3, "a name counts");
    assert!(lab.saved("image").files().has("d/c") && !lab.saved("image").files().has("d/a"));
    let path = lab.context().join("d/c");
    if rustix::fs::setxattr(&path, "user.x", b"1", rustix::fs::XattrFlags::empty()).is_ok() {
        assert_eq!(executed(&[]), 3, "an attribute counts");
    }
    fs::remove_file(&path).unwrap();
    lab.link("d/c", "a");
    assert_eq!(executed(&[]), 3, "a kind counts");
    lab.dockerfile(&dockerfile.replace("--exclude=*.txt", "--exclude=*.txt --chown=1"));
    assert_eq!(executed(&[]), 3, "a flag counts");
}
