//! Lists of what a selection held, and what is different between two of them.
//!
//! A list is the very bytes whose digest stands in a step's key (the format is drawn in `digest`): making one costs nothing more, and the
//! key says which list belongs to it. Lists come back from the disk: what cannot be read is no list.

use std::borrow::Cow;

use super::digest::FORMAT;
use crate::vocab::{Change, FileChange};

/// Names what changed from one list to the other, in the order of names. `source` is what the Dockerfile calls the files.
/// `None` if one of the lists is damaged.
pub fn changes(old: &[u8], new: &[u8], source: &str) -> Option<Vec<FileChange>> {
    let (old, new) = (entries(old)?, entries(new)?);
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut changes = Vec::new();
    let mut note = |entry: &Entry<'_>, change| {
        changes.push(FileChange {
            path: shown(source, entry),
            change,
        });
    };
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Some(changes),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => compare(&old.path, &new.path),
        };
        match order {
            std::cmp::Ordering::Less => {
                let gone = old.next()?;
                if !is_around(gone, old.peek()) {
                    note(gone, Change::Gone);
                }
            }
            std::cmp::Ordering::Greater => {
                let added = new.next()?;
                if !is_around(added, new.peek()) {
                    note(added, Change::New);
                }
            }
            std::cmp::Ordering::Equal => {
                let (before, after) = (old.next()?, new.next()?);
                if let Some(change) = difference(before, after) {
                    note(after, change);
                }
            }
        }
    }
}

/// One entry of a list.
struct Entry<'a> {
    path: Cow<'a, [u8]>,
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    /// What comes after these, which says what is in it; of a further hard link the path of the first.
    content: Cow<'a, [u8]>,
    /// A match by itself, whose name is the source's.
    is_source: bool,
}

fn difference(old: &Entry<'_>, new: &Entry<'_>) -> Option<Change> {
    // Which of several names comes first is nothing that anybody would look for.
    let is_file = |kind| matches!(kind, b'f' | b'h');
    if old.kind != new.kind && !(is_file(old.kind) && is_file(new.kind)) {
        Some(Change::Kind)
    } else if old.kind == new.kind && old.content != new.content {
        Some(Change::Content)
    } else if old.mode != new.mode {
        Some(Change::Mode)
    } else if old.owner != new.owner {
        Some(Change::Owner)
    } else {
        (old.kind != new.kind).then_some(Change::Content)
    }
}

/// Tells whether an entry is the directory of the next one, which tells enough.
fn is_around(entry: &Entry<'_>, next: Option<&&Entry<'_>>) -> bool {
    entry.kind == b'd'
        && next.is_some_and(|next| {
            next.path.len() > entry.path.len()
                && next.path.starts_with(&entry.path)
                && (entry.path.is_empty() || next.path[entry.path.len()] == b'/')
        })
}

/// The order of a walk: a directory's contents come right after it.
fn compare(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
    let low = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    one.iter().map(low).cmp(other.iter().map(low))
}

/// Returns the path as the Dockerfile would have it.
fn shown(source: &str, entry: &Entry<'_>) -> String {
    let path = String::from_utf8_lossy(&entry.path);
    let has_wildcard = source.contains(['*', '?', '[']);
    let source = source.trim_start_matches("./").trim_matches('/');
    let directory = match has_wildcard {
        true => source
            .split_once(['*', '?', '['])
            .and_then(|(plain, _)| plain.rsplit_once('/'))
            .map_or("", |(directory, _)| directory),
        false if entry.is_source => source
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory),
        false if source == "." => "",
        false => source,
    };
    match (directory.is_empty(), path.is_empty()) {
        (true, _) => path.into_owned(),
        (false, true) => directory.to_owned(),
        (false, false) => format!("{directory}/{path}"),
    }
}

/// Reads a list; entries come out in the order of their paths.
fn entries(list: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut reader = Reader(list.strip_prefix(FORMAT)?);
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let (mut roots, mut first) = (0, 0);
    let mut prefix: Vec<u8> = Vec::new();
    let mut name: Option<Vec<u8>> = None;
    while let Some(kind) = reader.byte() {
        if kind == b'R' {
            roots += 1;
            first = entries.len();
            let is_directory = reader.byte()? == b'd';
            let own = reader.text()?.to_vec();
            prefix.clear();
            for _ in 0..reader.number()? {
                prefix = reader.text()?.to_vec();
                reader.take(3 * 4 + 32)?;
            }
            name = (!is_directory).then_some(own);
            continue;
        }
        let path = reader.text()?;
        let is_source = name.is_some();
        let path = match (prefix.is_empty(), name.as_deref()) {
            (true, None) => Cow::Borrowed(path),
            (_, name) => Cow::Owned(joined(&prefix, name.unwrap_or(path))),
        };
        let (mode, owner) = (reader.number()?, (reader.number()?, reader.number()?));
        let content = match kind {
            b'f' => reader.take(8 + 32)?.into(),
            b'd' => reader.take(32)?.into(),
            b'l' => reader.text()?.into(),
            b'h' => {
                let number = u64::from_le_bytes(reader.take(8)?.try_into().ok()?);
                let number = usize::try_from(number).ok()?;
                entries.get(first..)?.get(number)?.path.clone()
            }
            b'c' | b'b' => reader.take(8)?.into(),
            b'p' => Cow::default(),
            _ => return None,
        };
        entries.push(Entry {
            path,
            kind,
            mode,
            owner,
            content,
            is_source,
        });
    }
    if roots > 1 {
        entries.sort_by(|one, other| compare(&one.path, &other.path));
    }
    Some(entries)
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory.is_empty() {
        true => name.to_vec(),
        false => [directory, name].join(&b'/'),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::testing::plant;
    use crate::context::{Query, Source, select};

    fn listing(tree: &str, pattern: &str, parents: bool) -> Vec<u8> {
        let root = tempfile::tempdir().unwrap();
        plant(root.path(), tree);
        let source = Source::directory(root.path(), None).unwrap();
        let query = Query {
            pattern,
            parents,
            exclude: &[],
        };
        let selection = select(&source, &query).unwrap();
        selection.digest_and_listing(&source).unwrap().1.unwrap()
    }

    #[track_caller]
    fn check(pattern: &str, old: &str, new: &str, expected: &[&str]) {
        let (old, new) = (listing(old, pattern, false), listing(new, pattern, false));
        let shown: Vec<String> = changes(&old, &new, pattern)
            .unwrap()
            .iter()
            .map(|change| format!("{} {}", change.path, change.change.word()))
            .collect();
        assert_eq!(shown, expected, "{pattern}");
    }

    const TREE: &str = "
        file s/a = one
        file s/a.b = two
        file s/d/x = three
        link s/l -> a
    ";

    #[test]
    fn files_are_named_as_the_dockerfile_names_them() {
        check("s", TREE, TREE, &[]);
        let changed = TREE.replace("three", "four!");
        check("s", TREE, &changed, &["s/d/x changed"]);
        check(".", TREE, &changed, &["s/d/x changed"]);
        check("./s/", TREE, &changed, &["s/d/x changed"]);
        check("s/d/x", TREE, &changed, &["s/d/x changed"]);
        check(
            "s/*",
            TREE,
            &TREE.replace("one", "uno"),
            &["s/a changed", "s/l changed"],
        );
    }

    #[test]
    fn what_is_new_gone_or_otherwise_different_is_told() {
        check(
            "s",
            TREE,
            "
            file s/a 600 = one
            link s/a.b -> a
            file s/e/deep/er = new
            dir s/empty
            link s/l -> a
            ",
            &[
                "s/a mode changed",
                "s/a.b kind changed",
                "s/d/x gone",
                "s/e/deep/er new",
                "s/empty new",
            ],
        );
    }

    #[test]
    fn a_further_hard_link_is_the_same_whatever_comes_before() {
        let tree = "
            file s/m = one
            hard s/n = s/m
        ";
        let more = format!("file s/a = first\n{tree}");
        check("s", tree, &more, &["s/a new"]);
    }

    #[test]
    fn no_bytes_make_reading_panic() {
        let list = listing(TREE, "s", false);
        for cut in 0..list.len() {
            let _ends_within_an_entry = changes(&list[..cut], &list, "s");
            let mut torn = list.clone();
            torn[cut] ^= 0xff;
            let _is_damaged = changes(&torn, &list, "s");
        }
        assert_eq!(changes(b"", &list, "s"), None);
        let kept = listing(TREE, "s/d", true);
        assert_eq!(changes(&kept, &kept, "s/d"), Some(Vec::new()));
    }
}
