//! `ls`, `cat`, `diff`: the files of images, without unpacking them.

use serde_json::Value;

use crate::support::lab::Lab;
use crate::support::registry::FakeRegistry;

/// A lab with two images of several layers, made without running anything.
fn images() -> Lab {
    let lab = Lab::new();
    lab.file("one", "first\n");
    lab.file("two", "second\n");
    lab.link("links/link", "dir/one");
    lab.dockerfile(
        "FROM scratch\nCOPY --chmod=0640 --chown=3:4 one /dir/one\nCOPY one two /dir/\nCOPY two /gone\nCOPY links /\n",
    );
    lab.build(&["-t", "old"]).succeeds();
    lab.file("two", "changed\n");
    lab.dockerfile("FROM old\nCOPY two /dir/\nCOPY --chmod=0755 one /dir/one\nCOPY one /new/one\n");
    lab.build(&["-t", "new"]).succeeds();
    lab
}

#[test]
fn files_are_listed_by_name() {
    let lab = images();
    let ls = |args: &[&str]| {
        let mut all = vec!["ls"];
        all.extend_from_slice(args);
        lab.builder(&all)
    };
    assert_eq!(ls(&["old"]).succeeds().stdout, "dir\ngone\nlink\n");
    assert_eq!(ls(&["old", "dir"]).succeeds().stdout, "one\ntwo\n");
    assert_eq!(ls(&["old", "/link"]).succeeds().stdout, "/dir/one\n");
    assert_eq!(
        ls(&["-R", "new"]).succeeds().stdout,
        "/dir\n/dir/one\n/dir/two\n/gone\n/link\n/new\n/new/one\n"
    );
    let long = ls(&["-l", "new"]).succeeds().stdout.clone();
    let line = long.lines().find(|line| line.contains("link")).unwrap();
    assert!(
        line.starts_with('l') && line.ends_with("link -> dir/one"),
        "{long}"
    );
    let long = ls(&["-l", "new", "dir/one"]).succeeds().stdout.clone();
    assert!(long.starts_with("-rwxr-xr-x   0:0   6B   "), "{long}");
    ls(&["old", "/dir/tow"]).fails(4, &["does not exist", "there is `/dir/two`"]);
    ls(&["old", "/gone/x"]).fails(4, &["`/gone` is no directory"]);
    assert!(ls(&[]).succeeds().stdout.starts_with("REPOSITORY"));
    ls(&["-l"]).fails(2, &["IMAGE"]);
    ls(&["--quiet", "old"]).fails(2, &["cannot be used with"]);
}

#[test]
fn contents_are_those_of_the_uppermost_layer() {
    let lab = images();
    let cat = |args: &[&str]| {
        let mut all = vec!["cat"];
        all.extend_from_slice(args);
        lab.builder(&all)
    };
    assert_eq!(cat(&["old", "/dir/two"]).succeeds().stdout, "second\n");
    assert_eq!(cat(&["new", "dir/two"]).succeeds().stdout, "changed\n");
    assert_eq!(
        cat(&["new", "/link", "/dir/two"]).succeeds().stdout,
        "first\nchanged\n"
    );
    cat(&["new", "/dir"]).fails(4, &["is a directory"]);
    cat(&["nothing-of-that-name@x", "/dir"]).fails(2, &[]);
}

#[test]
fn differences_are_told_by_file() {
    let lab = images();
    let ran = lab.builder(&["diff", "old", "new"]);
    assert_eq!(
        ran.succeeds().stdout,
        "C /dir/one: mode 0644 -> 0755\n\
         C /dir/two: content (7B -> 8B)\n\
         A /new/\n\
         A /new/one (6B)\n\
         2 added (6B), 0 deleted (0B), 2 changed; 20B -> 27B\n"
    );
    let back = lab.builder(&["diff", "new", "old", "/new"]);
    assert_eq!(
        back.succeeds().stdout,
        "D /new/\nD /new/one (6B)\n0 added (0B), 2 deleted (6B), 0 changed; 6B -> 0B\n"
    );
    let json = lab.builder(&["diff", "--format=json", "old", "new", "dir"]);
    let object: Value = serde_json::from_str(&json.succeeds().stdout).unwrap();
    assert_eq!(object["changes"][1]["path"], "/dir/two");
    assert_eq!(object["changes"][1]["what"][0], "content");
    assert_eq!(object["changes"][0]["after"]["mode"], "0755");
    assert_eq!(object["bytes"]["before"], 13);
    let same = lab.builder(&["diff", "old", "old"]);
    assert_eq!(same.succeeds().stdout.lines().count(), 1);
    lab.builder(&["diff", "old", "new", "/neither"])
        .fails(4, &["does not exist"]);
}

#[test]
fn steps_are_compared_by_the_digests_of_their_layers() {
    let lab = images();
    let layers = |name: &str| {
        let inspected = lab.inspect(name);
        let layers = inspected[0]["images"][0]["manifest"]["layers"].clone();
        let layers = layers.as_array().unwrap().clone();
        layers
            .iter()
            .map(|layer| layer["digest"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let layers = layers("new");
    let listed = lab.builder(&["ls", "-R", &layers[0]]);
    assert_eq!(listed.succeeds().stdout, "/dir\n/dir/one\n");
    let ran = lab.builder(&["diff", &layers[0], &layers[5]]);
    assert!(
        ran.succeeds()
            .stdout
            .starts_with("C /dir/one: mode 0640 -> 0755, owner 3:4 -> 0:0\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn deletions_and_links_of_layers_hold() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\nRUN mkdir -p /a/b && echo 1 > /a/b/c && echo 2 > /d && ln /d /e && ln -s /a/b /f\n\
         RUN rm -r /a && mkdir /a && echo 3 > /a/new && rm /d\n",
    );
    lab.build(&["-t", "image"]).succeeds();
    let ls = |path: &str| {
        lab.builder(&["ls", "image", path])
            .succeeds()
            .stdout
            .clone()
    };
    assert_eq!(ls("/a"), "new\n");
    assert_eq!(
        lab.builder(&["cat", "image", "/e"]).succeeds().stdout,
        "2\n"
    );
    lab.builder(&["cat", "image", "/d"])
        .fails(4, &["`/d` does not exist"]);
    lab.builder(&["ls", "image", "/f"])
        .fails(4, &["`/a/b` does not exist"]);
    let root = ls("/");
    assert!(root.contains("\ne\n") && !root.contains("\nd\n"), "{root}");
}

#[test]
fn an_image_at_a_registry_is_read_and_not_kept() {
    let registry = FakeRegistry::start();
    let lab = images();
    let name = format!("{}/app:v1", registry.host());
    lab.builder(&["push", "new", &name]).succeeds();
    let other = Lab::new();
    let cat = other.builder(&["cat", &name, "/dir/two"]);
    assert_eq!(cat.succeeds().stdout, "changed\n");
    let images = other.builder(&["images", "--quiet"]);
    assert_eq!(images.succeeds().stdout, "");
    let blobs = other.builder(&["du", "--json"]);
    let kinds: Value = serde_json::from_str(&blobs.succeeds().stdout).unwrap();
    let total = kinds["kinds"].as_array().unwrap().iter();
    let total = total
        .into_iter()
        .find(|kind| kind["kind"] == "total")
        .unwrap();
    assert!(total["bytes"].as_u64().unwrap() < 8000, "{kinds}");
    let compared = lab.builder(&["diff", "old", &name]);
    assert!(compared.succeeds().stdout.contains("A /new/one"));
}
