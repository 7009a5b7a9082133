//! Which room may use which: the table of `src/lib.rs` as a test, so that a new arrow is a visible line in a diff.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Everybody may use `vocab`; a room may use itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("vocab", &[]),
    ("dockerfile", &[]),
    ("image", &[]),
    ("layer", &[]),
    ("plan", &["dockerfile", "image"]),
    ("solve", &["plan", "image"]),
    ("context", &["layer", "dockerfile"]),
    ("store", &[]),
    ("rootfs", &["layer"]),
    ("sandbox", &[]),
    ("registry", &["image"]),
    ("cache", &["image", "registry"]),
    (
        "worker",
        &[
            "solve", "plan", "context", "store", "rootfs", "sandbox", "registry", "cache", "layer",
            "image",
        ],
    ),
    ("export", &["image", "store", "registry", "layer", "rootfs"]),
    ("ui", &[]),
    (
        "pipeline",
        &[
            "dockerfile",
            "plan",
            "image",
            "layer",
            "solve",
            "context",
            "store",
            "rootfs",
            "sandbox",
            "registry",
            "cache",
            "worker",
            "export",
            "ui",
        ],
    ),
    (
        "cli",
        &[
            "pipeline",
            "ui",
            "store",
            "registry",
            "cache",
            "image",
            "export",
            "sandbox",
            "layer",
            "rootfs",
            "dockerfile",
            "context",
            "plan",
        ],
    ),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the rooms named after `crate::` in code, comments left out.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            if let Some(group) = rest.strip_prefix('{') {
                used.extend(group.split(',').filter_map(|item| first_word(item.trim())));
            } else {
                used.extend(first_word(rest));
            }
        }
    }
    used
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    Some(word).filter(|word| !word.is_empty())
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut files = Vec::new();
    sources(&source, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&source).unwrap();
        let room = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        if room == "lib" || room == "main" {
            continue;
        }
        let may = allowed
            .get(room.as_str())
            .unwrap_or_else(|| panic!("room `{room}` is not in the table"));
        for used in rooms_used(&fs::read_to_string(&file).unwrap()) {
            if allowed.contains_key(used.as_str())
                && used != room
                && used != "vocab"
                && !may.contains(&used.as_str())
            {
                wrong.push(format!("{}: {room} -> {used}", relative.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that the table does not allow:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_the_sandbox_has_unsafe_code() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let relative = file.strip_prefix(&source).unwrap();
        assert!(
            relative.starts_with("sandbox") || !text.contains("allow(unsafe_code"),
            "{} lets unsafe code in",
            relative.display()
        );
    }
}

#[test]
fn every_module_says_what_it_is() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} has no opening line",
            file.display()
        );
    }
}
