//! A last COPY whose files nobody reads is packed straight from its sources: the same image, and no files in the state directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::lab::{Lab, Ran};
use crate::support::power;

const EPOCH: &str = "SOURCE_DATE_EPOCH=981173106";

/// Where copies go: a directory with a group's bit, one of somebody's, a link, names that are taken.
const PLACES: &str = "FROM base AS places\n\
    RUN mkdir -p /here/below /taken/sub && chown 3:4 /here && chmod 2751 /here && ln -s here /lead && echo x > /taken/file && echo x > /taken/sub/own && \
    touch -d @1000000000.5 /here /here/below\n\
    FROM base AS made\nRUN mkdir -p /m/a && cd /m && chown 7:8 a && echo f > a/f && ln a/f twin && ln -s a/f link && chmod 4755 a/f && mkfifo p && chmod 600 p\n";

/// A copy, and whether it can be packed straight.
const COPIES: &[(&str, &str, bool)] = &[
    ("places", "COPY tree /new/deep/", true),
    ("places", "COPY tree /here", true),
    ("places", "COPY tree/ /here/below/../under", true),
    ("places", "COPY tree /lead/x", true),
    ("places", "COPY --chown=5:6 --chmod=0750 tree /here/y", true),
    ("places", "COPY --chmod=u+x,g-w,o= tree /z", true),
    ("places", "COPY --chown=root:root tree /names", true),
    ("places", "COPY tree/text /here/", true),
    ("places", "COPY tree/text /here/renamed", true),
    ("places", "COPY tree/text /here", true),
    ("places", "COPY tree/text /quite/new/name", true),
    ("places", "COPY --link tree /here/linked", true),
    (
        "places",
        "COPY --link --chown=9 tree/text /here/linked/",
        true,
    ),
    ("places", "COPY --link tree /", true),
    ("places", "COPY --from=made /m /m", true),
    ("places", "COPY --from=made /m/a/f /f", true),
    (
        "places",
        "COPY --exclude=text --exclude=sub tree /less",
        true,
    ),
    ("places", "COPY ignored /ignored", true),
    ("places", "ADD tree /added", true),
    ("scratch", "COPY tree /", true),
    ("scratch", "COPY tree /a/b", true),
    ("scratch", "COPY tree/text /", true),
    // For all these the files have to be made.
    ("places", "COPY tree /taken", false),
    ("places", "COPY tree/text /taken/file", false),
    ("places", "COPY --parents tree/sub /parents/", false),
    ("places", "COPY tree/text tree/link /several/", false),
    ("places", "COPY <<E /heredoc\nx\nE", false),
    ("places", "ADD archive.tar /unpacked", false),
];

fn tree(lab: &Lab) {
    lab.file("tree/text", "text\n");
    lab.file("tree/sub/deep/er/f", "deep\n");
    lab.file("tree/a", vec![b'a'; 3_000_000]);
    lab.file("tree/empty", "");
    lab.file("ignored/in/kept", "kept\n");
    lab.file("ignored/out", "out\n");
    lab.file(".dockerignore", "ignored\n!ignored/in/kept\n");
    let script = "cd tree && mkdir void && ln text twin && ln sub/deep/er/f sub/twin && ln -s text link && ln -s /nowhere sub/dangling && mkfifo fifo && \
         chmod 4711 text && chmod 1777 void && chmod 700 sub && chmod 440 fifo && truncate -s 300000 sparse && echo end >> sparse && \
         printf x > 'odd name' && touch -h -d @1000000001.25 link && touch -d @999999999.123456789 text sub void . && \
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")' && tar -cf ../archive.tar text";
    let ran = Command::new("sh")
        .args(["-ec", script])
        .current_dir(lab.context())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let path = lab.context().join("tree/text");
    rustix::fs::setxattr(
        &path,
        "user.note",
        b"value",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
}

/// Counts the layers that lie unpacked, of every kind.
fn trees(state: &Path) -> usize {
    ["layers", "layers-devices", "layers-ledger"]
        .iter()
        .filter_map(|kind| fs::read_dir(state.join("v1").join(kind)).ok())
        .map(Iterator::count)
        .sum()
}

fn build(lab: &Lab, state: &Path, args: &[&str]) -> Ran {
    let mut all = vec!["--root", state.to_str().unwrap(), "--build-arg", EPOCH];
    all.extend_from_slice(args);
    lab.build(&all)
}

fn digest(lab: &Lab) -> Value {
    let metadata = fs::read(lab.path("metadata.json")).unwrap();
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    metadata["containerimage.digest"].clone()
}

#[test]
fn a_last_copy_is_the_same_layer_whether_its_files_are_made_or_not() {
    check("auto");
}

/// Owners are written beside the files there, and layers are plain directories.
#[test]
fn so_it_is_where_nobody_can_give_files_away() {
    check("paths");
}

fn check(isolation: &str) {
    let Some(lab) = Lab::with_base() else { return };
    tree(&lab);
    lab.dockerfile(PLACES);
    let isolation = format!("--isolation={isolation}");
    let build = |state: &Path, args: &[&str]| build(&lab, state, &[&[&*isolation], args].concat());
    let tried = build(&lab.state(), &["--target=places"]);
    if tried.code == Some(8) {
        return power::not_run(&format!("{isolation}: {}", tried.stderr));
    }
    tried.succeeds();
    build(&lab.state(), &["--target=made"]).succeeds();
    let (straight, made) = (lab.state(), lab.path("made-state"));
    let copied = Command::new("cp")
        .arg("-a")
        .args([&straight, &made])
        .status()
        .unwrap();
    assert!(copied.success());
    let metadata = lab.path("metadata.json");
    let metadata = ["--metadata-file", metadata.to_str().unwrap()];
    for (at, (base, copy, is_straight)) in COPIES.iter().enumerate() {
        lab.dockerfile(&format!("{PLACES}FROM {base}\n{copy}\n"));
        let image = format!("image{at}");
        let before = trees(&straight);
        let args = [&["-t", &image][..], &metadata].concat();
        build(&straight, &args).succeeds();
        let found = digest(&lab);
        let count = usize::from(!is_straight);
        assert_eq!(trees(&straight) - before, count, "{copy}");

        let before = trees(&made);
        let out = lab.path("out");
        let output = format!("type=local,dest={}", out.display());
        let args = [&args[..], &["--output", &output]].concat();
        build(&made, &args).succeeds();
        assert_eq!(trees(&made) - before, 1, "{copy}");
        assert_eq!(found, digest(&lab), "{copy}");
        fs::remove_dir_all(out).unwrap();
    }
    lab.is_sound();
    // Whoever needs the files later gets them.
    let (_, copy, _) = COPIES[0];
    lab.dockerfile(&format!(
        "{PLACES}FROM places\n{copy}\nRUN stat -c '%a %Y' /new/deep/text > /seen; cat /new/deep/sub/deep/er/f >> /seen\n"
    ));
    let ran = build(&straight, &["-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 1, "{}", ran.stderr);
    let seen = lab.saved("image").files().text("seen");
    assert_eq!(seen, "4711 999999999\ndeep\n");
    lab.is_sound();
}

#[test]
fn a_last_copy_that_cannot_be_read_fails_as_any_copy_does() {
    let Some(lab) = Lab::with_base() else { return };
    for (name, text) in [(".wh.name", "deletes"), ("plain/.wh..wh..opq", "deletes")] {
        let file = lab.file(&format!("d/{name}"), text);
        lab.dockerfile("FROM base\nCOPY d /d\n");
        let ran = lab.build(&["-t", "image"]);
        ran.fails(5, &[".wh."]);
        fs::remove_file(file).unwrap();
    }
    lab.file("d/f", "x");
    lab.build(&["-t", "image"]).succeeds();
    lab.is_sound();
}
