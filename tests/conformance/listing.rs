//! What an image amounts to, as lines: files, times, history, config.
//!
//! In: images that the validator has read. Out: texts to compare with those of a case. Only what stands above the base is listed.

use std::collections::BTreeMap;

use builder::layer::EntryKind;
use builder::vocab::Digest;
use serde_json::Value;

use crate::support::image::{FileInfo, Image};

/// Content longer than this is shown as size and digest.
const SHOWN: usize = 200;

/// An image beside the one that it was built on.
pub(crate) struct Built<'a> {
    image: &'a Image,
    base_layers: usize,
    base_history: usize,
}

impl Built<'_> {
    /// Finds out which of `bases` the image stands on: the one of which it repeats most.
    pub(crate) fn new<'a>(image: &'a Image, bases: &[&Image]) -> Built<'a> {
        let starts_with = |pointer: &str, base: &Image| {
            let (all, start) = (array(image, pointer), array(base, pointer));
            all.starts_with(start).then_some(start.len())
        };
        let (base_history, base_layers) = bases
            .iter()
            .filter_map(|base| {
                let layers = starts_with("/rootfs/diff_ids", base)?;
                Some((starts_with("/history", base)?, layers))
            })
            .max()
            .unwrap_or_default();
        Built {
            image,
            base_layers,
            base_history,
        }
    }

    pub(crate) fn layers(&self) -> usize {
        self.image.layers.len() - self.base_layers
    }

    /// One line for each path, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let rows: Vec<(String, String)> = self
            .merged()
            .into_iter()
            .map(|(path, shown)| (quoted_path(&path), shown))
            .collect();
        let width = rows.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
        let width = width.min(24);
        rows.into_iter()
            .map(|(path, shown)| format!("{path:width$} {shown}"))
            .collect()
    }

    fn merged(&self) -> BTreeMap<String, String> {
        let (lower, upper) = self.image.layers.split_at(self.base_layers);
        let part = |layers: &[Vec<FileInfo>]| Image {
            layers: layers.to_vec(),
            ..self.image.clone()
        };
        let files = part(upper).files();
        let mut shown: BTreeMap<String, String> = files
            .0
            .iter()
            .map(|(path, file)| (path.clone(), describe(file)))
            .collect();
        let base = part(lower).files();
        for file in upper.iter().flatten() {
            let path = String::from_utf8_lossy(&file.entry.path).into_owned();
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                shown.insert(path.clone(), "opaque".to_owned());
            } else if let Some(name) = name.strip_prefix(".wh.") {
                let hidden = format!("{parent}/{name}");
                let hidden = hidden.trim_start_matches('/');
                if base.has(hidden) {
                    shown
                        .entry(hidden.to_owned())
                        .or_insert("removed".to_owned());
                }
            } else if shown.contains_key(&path) {
                // The last layer that has the path decides how it got there.
                let line = match &file.entry.kind {
                    EntryKind::HardLink { target } => {
                        format!("hard {}", quoted_path(&String::from_utf8_lossy(target)))
                    }
                    _ => describe(file),
                };
                shown.insert(path, line);
            }
        }
        shown
    }

    /// Returns the modification time of a path, seconds and nanoseconds.
    pub(crate) fn time(&self, path: &str) -> Option<(i64, u32)> {
        let file = self.image.files().0.get(path)?.entry.mtime;
        Some((file.seconds, file.nanoseconds))
    }

    /// `created_by` of each instruction; `-` in front of those without a layer.
    pub(crate) fn history(&self) -> Vec<String> {
        array(self.image, "/history")[self.base_history..]
            .iter()
            .map(|entry| {
                let mark = if entry["empty_layer"] == true {
                    "- "
                } else {
                    ""
                };
                let text = entry["created_by"].as_str().unwrap_or_default();
                let comment = entry["comment"].as_str().unwrap_or_default();
                let comment = match comment {
                    "buildkit.dockerfile.v0" => String::new(),
                    other => format!(" ({other})"),
                };
                format!(
                    "{mark}{}{comment}",
                    text.replace('\\', "\\\\").replace('\n', "\\n")
                )
            })
            .collect()
    }

    /// Says what is wrong with one line of `want config`.
    pub(crate) fn config_differs(&self, line: &str) -> Option<String> {
        let (key, wanted) = line.split_once(' ').unwrap_or((line, ""));
        let (absent, key) = match key.strip_prefix('!') {
            Some(key) => (true, key),
            None => (false, key),
        };
        // The image's own keys begin with a small letter, those of its config with a capital.
        let document = &self.image.config;
        let object = if key.starts_with(|first: char| first.is_ascii_uppercase()) {
            &document["config"]
        } else {
            document
        };
        let found = &object[key];
        let is_list = wanted.starts_with('[');
        if key == "Env" && !wanted.is_empty() && !is_list {
            let mut variables = array(self.image, "/config/Env").iter();
            let is_there = variables.any(|variable| {
                let variable = variable.as_str().unwrap_or_default();
                variable == wanted || absent && variable.split('=').next() == Some(wanted)
            });
            return (is_there == absent).then(|| format!("{line}\n    in {found}"));
        }
        if absent {
            return (!found.is_null()).then(|| format!("{line}\n    but {found}"));
        }
        let differs = match found {
            Value::String(found) => found != wanted,
            found => serde_json::from_str::<Value>(wanted).ok().as_ref() != Some(found),
        };
        differs.then(|| format!("{line}\n    but {found}"))
    }
}

/// Kind, mode, owner, content, extended attributes.
fn describe(file: &FileInfo) -> String {
    let entry = &file.entry;
    let owner = format!("{:04o} {}:{}", entry.mode, entry.uid, entry.gid);
    let mut line = match &entry.kind {
        EntryKind::Directory => format!("dir  {owner}"),
        EntryKind::File { .. } => format!("file {owner} {}", content(&file.content)),
        EntryKind::Symlink { target } => {
            let owner = match (entry.uid, entry.gid) {
                (0, 0) => String::new(),
                (uid, gid) => format!(" {uid}:{gid}"),
            };
            format!(
                "link{owner} -> {}",
                quoted_path(&String::from_utf8_lossy(target))
            )
        }
        EntryKind::Fifo => format!("fifo {owner}"),
        EntryKind::CharDevice { major, minor } => format!("char {owner} {major}:{minor}"),
        EntryKind::BlockDevice { major, minor } => format!("block {owner} {major}:{minor}"),
        EntryKind::HardLink { target } => format!("hard {}", String::from_utf8_lossy(target)),
    };
    for (name, value) in &entry.xattrs {
        line.push_str(&format!(
            " {}={}",
            String::from_utf8_lossy(name),
            quoted(value)
        ));
    }
    line
}

fn content(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN {
        return quoted(bytes);
    }
    let digest = Digest::of(bytes).hex().to_owned();
    format!("size {} sha256:{}", bytes.len(), &digest[..12])
}

/// Text in quotes on one line; bytes that are no text as `\xff`.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                other if other.is_control() || other == '\u{feff}' => {
                    text.push_str(&format!("\\x{:02x}", other as u32));
                }
                other => text.push(other),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

/// The root is `.`; a path with blanks or unusual characters stands in quotes.
fn quoted_path(path: &str) -> String {
    if path.is_empty() {
        ".".to_owned()
    } else if path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    {
        path.to_owned()
    } else {
        quoted(path.as_bytes())
    }
}

fn array<'a>(image: &'a Image, pointer: &str) -> &'a [Value] {
    image
        .config
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
