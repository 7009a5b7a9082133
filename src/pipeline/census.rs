//! What an image's files amount to, for summary and report: by layer, by directory, and what ships for nothing.
//!
//! Reads the names of all files of all layers, so it is done only where somebody asks for it. Layers are read where they are
//! unpacked; where that may not be read from outside of the namespace, or is not there, from their blobs; and where these are not
//! here either, the layer is left out and counted as unread.

use std::collections::BTreeMap;

use crate::layer::{TarReader, decompress_within};
use crate::plan::{Graph, Op, StepId};
use crate::rootfs::{Digests, ListedKind, Listing, Origin};
use crate::solve::{ChainLayer, Solution};
use crate::store::Store;
use crate::vocab::{Cancel, Contents, Covered, LayerContents, SizeNode, VertexId};

use super::inputs;

/// Of an image: what is smaller is not told apart.
const PARTS: u64 = 300;
/// Directories in a row.
const DEPTH: usize = 8;
/// Directories that are listed.
const DIRECTORIES: usize = 8;
/// How much of a directory must be in directories that are worth a line, in percent, for it to be told by them.
const SPLIT: u64 = 70;
/// Pairs of steps that are listed.
const COVERED: usize = 40;

/// Counts the files of the image whose root is `root`.
pub(super) fn contents(
    graph: &Graph,
    solution: &Solution,
    store: &Store,
    root: StepId,
    cancel: &Cancel,
) -> Contents {
    let chain = solution.chain(graph, root);
    let mut listing = Listing::new(Digests::Left);
    let mut unread = 0;
    for layer in &chain {
        if !add(&mut listing, graph, store, layer, cancel) {
            listing.skip();
            unread += 1;
        }
    }
    let steps: Vec<StepId> = chain.iter().map(step_of).collect();
    let hidden = listing.hidden();

    let mut seen: BTreeMap<Origin, ()> = BTreeMap::new();
    let mut all = Directory::default();
    // One tree for each step: a base's layers are one.
    let mut trees: Vec<(StepId, Directory)> = Vec::new();
    for &step in &steps {
        if trees.last().is_none_or(|(last, _)| *last != step) {
            trees.push((step, Directory::default()));
        }
    }
    let mut places = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let is_new = at > 0 && steps[at - 1] != *step;
        places.push(places.last().map_or(0, |last| last + usize::from(is_new)));
    }
    let tree_of = |layer: usize| places.get(layer).copied();
    for (path, listed) in listing.below(b"") {
        let ListedKind::File { size, .. } = listed.kind else {
            continue;
        };
        if seen.insert(listed.origin, ()).is_some() {
            continue;
        }
        all.add(path, size);
        if let Some(at) = tree_of(listed.origin.layer) {
            trees[at].1.add(path, size);
        }
    }
    let mut covered: BTreeMap<(StepId, StepId, bool), Group> = BTreeMap::new();
    for hidden in hidden {
        let (Some(&of), Some(&by)) = (steps.get(hidden.origin.layer), steps.get(hidden.by)) else {
            continue;
        };
        if let Some(at) = tree_of(hidden.origin.layer) {
            trees[at].1.add(&hidden.path, hidden.size);
        }
        if of != by {
            let group = covered.entry((of, by, hidden.is_deleted)).or_default();
            group.add(&hidden.path, hidden.size);
        }
    }
    let total: u64 = trees.iter().map(|(_, tree)| tree.bytes).sum();
    let name = |step: StepId| graph.origins[step.0].name.clone();
    let is_base = |step: StepId| matches!(graph.steps[step.0].op, Op::Base(_));
    let mut covered: Vec<Covered> = covered
        .into_iter()
        .map(|((of, by, is_deleted), group)| Covered {
            made_by: name(of),
            is_of_base: is_base(of),
            by: name(by),
            is_deleted,
            path: group.path(),
            files: group.files,
            bytes: group.bytes,
        })
        .collect();
    covered.sort_by_key(|covered| std::cmp::Reverse(covered.bytes));
    covered.truncate(COVERED);
    Contents {
        layers: trees
            .into_iter()
            .filter(|(_, tree)| tree.bytes > 0)
            .map(|(step, tree)| LayerContents {
                made_by: name(step),
                vertex: VertexId(step.0 as u32),
                is_base: is_base(step),
                tree: tree.pruned(String::new(), total / PARTS, DEPTH),
            })
            .collect(),
        directories: all.largest(),
        covered,
        files: seen.len() as u64,
        unread,
    }
}

fn step_of(layer: &ChainLayer) -> StepId {
    match *layer {
        ChainLayer::Base { base, .. } => base,
        ChainLayer::Built { step, .. } => step,
    }
}

/// Adds one layer; false if its files cannot be had here.
fn add(
    listing: &mut Listing,
    graph: &Graph,
    store: &Store,
    layer: &ChainLayer,
    cancel: &Cancel,
) -> bool {
    let id = layer.id();
    if let Ok(Some(unpacked)) = store.layer(&id)
        && listing.add_directory(&unpacked.fs, cancel).is_ok()
    {
        return true;
    }
    let packed = store.packed_in_any_form(&id).ok().flatten();
    let digest = match (packed, layer) {
        (Some(packed), _) => packed.blob.digest,
        (None, ChainLayer::Base { base, index, .. }) => match &graph.steps[base.0].op {
            Op::Base(base) => base.layers[*index].0.digest,
            _ => return false,
        },
        (None, ChainLayer::Built { .. }) => return false,
    };
    let Ok(Some(blob)) = store.blob(&digest) else {
        return false;
    };
    let Ok(bytes) = decompress_within(blob, inputs::means(&[]).window) else {
        return false;
    };
    listing.add(&mut TarReader::new(bytes)).is_ok()
}

/// A directory, or a file if nothing is in it.
#[derive(Default)]
struct Directory {
    bytes: u64,
    children: BTreeMap<Vec<u8>, Directory>,
}

impl Directory {
    fn add(&mut self, path: &[u8], size: u64) {
        self.bytes += size;
        let mut at = self;
        for part in path.split(|byte| *byte == b'/') {
            at = at.children.entry(part.to_vec()).or_default();
            at.bytes += size;
        }
    }

    /// Returns what is large enough, with the rest as one nameless node.
    fn pruned(&self, name: String, least: u64, depth: usize) -> SizeNode {
        let mut large: Vec<(&Vec<u8>, &Directory)> = self
            .children
            .iter()
            .filter(|(_, child)| depth > 0 && child.bytes > 0 && child.bytes >= least)
            .collect();
        large.sort_by_key(|(_, child)| std::cmp::Reverse(child.bytes));
        // A directory that is all there is in another one is named with it.
        if let [(only, child)] = large[..]
            && child.bytes == self.bytes
            && !name.is_empty()
        {
            let name = format!("{name}/{}", String::from_utf8_lossy(only));
            return child.pruned(name, least, depth - 1);
        }
        let mut children: Vec<SizeNode> = large
            .iter()
            .map(|(name, child)| {
                child.pruned(String::from_utf8_lossy(name).into_owned(), least, depth - 1)
            })
            .collect();
        let told: u64 = children.iter().map(|child| child.bytes).sum();
        if !children.is_empty() && told < self.bytes {
            children.push(SizeNode {
                bytes: self.bytes - told,
                ..SizeNode::default()
            });
        }
        SizeNode {
            name,
            bytes: self.bytes,
            children,
        }
    }

    /// Returns the directories that tell best where the bytes are: none inside another one, the largest first.
    fn largest(&self) -> Vec<(String, u64)> {
        let mut found: Vec<(String, &Directory)> = vec![(String::new(), self)];
        loop {
            let least = self.bytes / 50;
            found.sort_by_key(|(_, directory)| std::cmp::Reverse(directory.bytes));
            // The largest one that its own directories tell more of.
            let split = found
                .iter()
                .enumerate()
                .find_map(|(at, (path, directory))| {
                    let parts: Vec<(String, &Directory)> = directory
                        .children
                        .iter()
                        .filter(|(_, child)| !child.children.is_empty() && child.bytes > least)
                        .map(|(name, child)| {
                            (format!("{path}/{}", String::from_utf8_lossy(name)), child)
                        })
                        .collect();
                    let told: u64 = parts.iter().map(|(_, part)| part.bytes).sum();
                    let is_told = told >= directory.bytes / 100 * SPLIT && !parts.is_empty();
                    (is_told && found.len() + parts.len() - 1 <= DIRECTORIES).then_some((at, parts))
                });
            let Some((at, parts)) = split else { break };
            found.remove(at);
            found.extend(parts);
        }
        let named = |path: String| match path.as_str() {
            "" => "/".to_owned(),
            _ => path,
        };
        found
            .into_iter()
            .filter(|(_, directory)| directory.bytes > 0)
            .map(|(path, directory)| (named(path), directory.bytes))
            .collect()
    }
}

/// Files that one step has hidden from another one's layer.
#[derive(Default)]
struct Group {
    /// What all paths begin with, in components.
    common: Option<Vec<Vec<u8>>>,
    files: u64,
    bytes: u64,
}

impl Group {
    fn add(&mut self, path: &[u8], size: u64) {
        self.files += 1;
        self.bytes += size;
        let parts: Vec<Vec<u8>> = path
            .split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect();
        match &mut self.common {
            None => self.common = Some(parts),
            Some(common) => {
                let same = common.iter().zip(&parts).take_while(|(a, b)| a == b);
                let same = same.count();
                common.truncate(same);
            }
        }
    }

    fn path(&self) -> String {
        let parts = self.common.iter().flatten();
        let path: Vec<u8> = parts
            .flat_map(|part| [b"/", part.as_slice()].concat())
            .collect();
        match path.is_empty() {
            true => "/".to_owned(),
            false => String::from_utf8_lossy(&path).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, u64)]) -> Directory {
        let mut directory = Directory::default();
        for (path, size) in files {
            directory.add(path.as_bytes(), *size);
        }
        directory
    }

    #[test]
    fn directories_are_told_by_their_parts_where_these_say_more() {
        let check = |files: &[(&str, u64)], expected: &[(&str, u64)]| {
            let found = directory(files).largest();
            let found: Vec<(&str, u64)> =
                found.iter().map(|(path, size)| (&**path, *size)).collect();
            assert_eq!(found, expected);
        };
        check(&[], &[]);
        check(&[("f", 10)], &[("/", 10)]);
        check(
            &[
                ("usr/lib/a", 500),
                ("usr/bin/b", 300),
                ("app/node/m/c", 900),
                ("etc/d", 1),
            ],
            &[("/app/node/m", 900), ("/usr/lib", 500), ("/usr/bin", 300)],
        );
        // Most of it lies in the directory itself.
        check(
            &[("usr/lib/x/a", 40), ("usr/lib/b", 100)],
            &[("/usr/lib", 140)],
        );
    }

    #[test]
    fn what_is_small_is_one_node_and_chains_have_one_name() {
        let tree = directory(&[
            ("a/b/c/large", 900),
            ("a/b/c/s1", 20),
            ("x/s2", 30),
            ("s3", 50),
        ]);
        let pruned = tree.pruned(String::new(), 100, DEPTH);
        assert_eq!(pruned.bytes, 1000);
        let names: Vec<(&str, u64)> = pruned
            .children
            .iter()
            .map(|child| (&*child.name, child.bytes))
            .collect();
        assert_eq!(names, [("a/b/c", 920), ("", 80)]);
        assert_eq!(pruned.children[0].children[0].name, "large");
        assert_eq!(tree.pruned(String::new(), 0, 0).children, []);
    }

    #[test]
    fn files_that_are_hidden_together_are_told_by_what_they_have_in_common() {
        let mut group = Group::default();
        group.add(b"var/lib/a/b", 1);
        assert_eq!(group.path(), "/var/lib/a/b");
        group.add(b"var/lib/c", 2);
        assert_eq!(
            (group.path(), group.bytes, group.files),
            ("/var/lib".into(), 3, 2)
        );
        group.add(b"etc/c", 2);
        assert_eq!(group.path(), "/");
    }
}
