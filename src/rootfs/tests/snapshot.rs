//! Everything that a tree shows, as comparable data.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;

use super::super::diff::open_file;
use super::super::stat::FileKind;
use super::super::tree::Tree;
use super::super::walk::{Visit, Walk};
use super::super::xattr::Naming;

/// Path to description, which names the first path of the same file. The root is not in it.
pub(super) fn snapshot(tree: &Tree) -> BTreeMap<String, String> {
    let naming = Naming::of(tree.as_fd()).unwrap();
    let mut walk = Walk::with_owners(tree.as_fd(), tree.owners()).unwrap();
    let mut first_names = HashMap::new();
    let mut files = BTreeMap::new();
    while let Some(visit) = walk.next().unwrap() {
        let Visit::Entry(stat) = visit else {
            continue;
        };
        let path = String::from_utf8_lossy(walk.path()).into_owned();
        let mut text = format!(
            "{:?} {:o} {}:{} {:?} {:?}",
            stat.kind, stat.mode, stat.uid, stat.gid, stat.mtime, stat.rdev
        );
        let mut xattrs = BTreeMap::new();
        match stat.kind {
            FileKind::Directory => {
                walk.enter().unwrap();
                xattrs = walk.read_content(walk.directory(), naming).unwrap();
            }
            FileKind::File => {
                let file = open_file(&walk).unwrap();
                xattrs = walk.read_content(file.as_fd(), naming).unwrap();
                let mut content = Vec::new();
                File::from(file).read_to_end(&mut content).unwrap();
                write!(text, " {}", crate::vocab::Digest::of(&content)).unwrap();
            }
            FileKind::Symlink => {
                let target =
                    rustix::fs::readlinkat(walk.directory(), walk.name(), Vec::new()).unwrap();
                write!(text, " -> {target:?}").unwrap();
            }
            _ => {}
        }
        for (name, value) in xattrs {
            write!(text, " {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
        }
        if stat.kind != FileKind::Directory {
            let first = first_names
                .entry((stat.device, stat.inode))
                .or_insert_with(|| path.clone());
            if *first != path {
                write!(text, " is {first}").unwrap();
            }
        }
        files.insert(path, text);
    }
    files
}

/// A snapshot that does not say which names are one file. The mount in which a link was made to a file of a lower layer
/// tells two inodes for the two names; only a fresh mount tells the truth.
pub(super) fn without_links(mut snapshot: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for text in snapshot.values_mut() {
        if let Some(at) = text.find(" is ") {
            text.truncate(at);
        }
    }
    snapshot
}
