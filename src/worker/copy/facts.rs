//! What a layer depends on in the root that it is put on: the answer is the same for two roots only if a copy leaves the same
//! layer on both.
//!
//! A copy reads little of its root. A layer records the directories on the way to the destination, as they are there: kind, mode,
//! owner, attributes, and the time of all but the last one, which is set anew. The rest depends on which of the directories are
//! missing, and on whether the names that are put into the last one are free. Links on the way are in no layer: what counts is
//! where they lead. The root's own time is in no layer either.
//!
//! Where a name is taken no answer is given: what a file replaces and a directory merges with would have to be compared in depth.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::Dir;
use rustix::io::Errno;

use super::destination::{Survey, shown, survey};
use super::{CopyError, Item, io};
use crate::context::{
    Meta, SelectedRoot, Selection, Source, Visit, Xattrs, open_directory, read_all_xattrs,
};
use crate::rootfs::{Owners, Tree};
use crate::vocab::{Digest, KeyBuilder};

/// So many names are looked up one by one; for more the directory is listed.
const LOOKED_UP: usize = 64;

/// Returns the digest of all that copying `items` to `destination` without `--link` reads of `root`, or `None` where that cannot
/// be told cheaply, or the copy will fail. Archives are not for here: they may reach any directory.
pub(in crate::worker) fn destination_facts(
    tree: &Tree,
    items: &[Item<'_>],
    destination: &str,
    parents: bool,
) -> Result<Option<Digest>, CopyError> {
    let root = open(tree.as_fd())?;
    let holds_directory = items.iter().any(|item| match item {
        Item::Selected { selection, .. } => selection.roots.iter().any(|root| root.is_directory),
        Item::Inline { .. } => false,
    });
    let is_directory = parents || holds_directory || destination.ends_with('/');
    let Some(survey) = survey(root.as_fd(), destination.as_bytes(), is_directory)? else {
        return Ok(None);
    };
    match is_free(root.as_fd(), &survey, items)? {
        true => Ok(Some(describe(root.as_fd(), tree.owners(), &survey)?)),
        false => Ok(None),
    }
}

/// Tells whether nothing has the names that `items` get in the surveyed directory.
pub(super) fn is_free(
    root: BorrowedFd<'_>,
    survey: &Survey,
    items: &[Item<'_>],
) -> Result<bool, CopyError> {
    match (&survey.missing[..], &survey.entry) {
        ([], None) => {
            let directory = match survey.found.last() {
                Some((_, directory)) => directory.as_fd(),
                None => root,
            };
            are_free(directory, &names(items)?)
        }
        ([], Some((_, is_taken))) => Ok(!is_taken),
        _ => Ok(true),
    }
}

/// Returns the digest of all that making the directory `path` reads of `root`. Where it is there already, nothing but the root
/// counts, since the layer is empty.
pub(in crate::worker) fn directory_facts(
    tree: &Tree,
    path: &str,
) -> Result<Option<Digest>, CopyError> {
    let root = open(tree.as_fd())?;
    let Some(mut survey) = survey(root.as_fd(), path.as_bytes(), true)? else {
        return Ok(None);
    };
    if survey.missing.is_empty() {
        survey.found.clear();
    }
    Ok(Some(describe(root.as_fd(), tree.owners(), &survey)?))
}

/// Attributes cannot be read through `O_PATH`.
fn open(root: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd, CopyError> {
    open_directory(root, ".").map_err(|error| io("open", shown(b"", b""), error))
}

/// Returns the names that are put right into the destination directory.
fn names(items: &[Item<'_>]) -> Result<Vec<Vec<u8>>, CopyError> {
    let mut names = Vec::new();
    for item in items {
        match *item {
            Item::Inline { name, .. } => names.push(name.as_bytes().to_vec()),
            Item::Selected { source, selection } => {
                for root in &selection.roots {
                    names_of(source, selection, root, &mut names)?;
                }
            }
        }
    }
    Ok(names)
}

fn names_of(
    source: &Source,
    selection: &Selection,
    root: &SelectedRoot,
    names: &mut Vec<Vec<u8>>,
) -> Result<(), CopyError> {
    if let Some(outermost) = root.parents.first() {
        names.push(outermost.target.clone());
        return Ok(());
    }
    if !root.is_directory {
        names.push(root.name.clone());
        return Ok(());
    }
    let mut walk = selection.walk(source, root)?;
    while let Some(visit) = walk.next()? {
        let is_entered = match &visit {
            Visit::Enter { node, .. } => {
                names.push(node.name.to_vec());
                true
            }
            Visit::Leaf(node) => {
                names.push(node.name.to_vec());
                false
            }
            Visit::Leave => false,
        };
        if is_entered {
            walk.skip()?;
        }
    }
    Ok(())
}

/// Tells whether nothing in `directory` has any of `names`. No names are no answer: nothing would be put there, and the directory
/// would keep its time.
fn are_free(directory: BorrowedFd<'_>, names: &[Vec<u8>]) -> Result<bool, CopyError> {
    let failed = |error| io("list", shown(b"", b""), error);
    if names.is_empty() {
        return Ok(false);
    }
    if names.len() <= LOOKED_UP {
        for name in names {
            match Meta::at(directory, &name[..]) {
                Ok(_) => return Ok(false),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        return Ok(true);
    }
    let names: HashSet<&[u8]> = names.iter().map(Vec::as_slice).collect();
    for entry in Dir::read_from(directory).map_err(failed)? {
        if names.contains(entry.map_err(failed)?.file_name().to_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn describe(root: BorrowedFd<'_>, owners: &Owners, survey: &Survey) -> Result<Digest, CopyError> {
    let facts = KeyBuilder::new("destination");
    let mut facts = add_directory(facts, b"", root, owners, false)?;
    for (at, (name, directory)) in survey.found.iter().enumerate() {
        let is_last = at + 1 == survey.found.len();
        facts = add_directory(facts, name, directory.as_fd(), owners, !is_last)?;
    }
    let missing: Vec<String> = survey.missing.iter().map(|name| text(name)).collect();
    let entry = survey.entry.as_ref();
    let entry = entry.map_or_else(String::new, |(name, _)| text(name));
    let (key, _) = facts
        .list("missing", &missing)
        .add("entry", &entry)
        .finish();
    Ok(key.0)
}

fn add_directory(
    facts: KeyBuilder,
    name: &[u8],
    directory: BorrowedFd<'_>,
    owners: &Owners,
    with_time: bool,
) -> Result<KeyBuilder, CopyError> {
    let (meta, xattrs) = described(directory, owners, name)?;
    let time = match with_time {
        true => format!("{}.{:09}", meta.mtime.seconds, meta.mtime.nanoseconds),
        false => String::new(),
    };
    let xattrs: Vec<String> = xattrs
        .iter()
        .map(|(name, value)| format!("{}={}", text(name), text(value)))
        .collect();
    Ok(facts
        .add("directory", &text(name))
        .add("mode", &format!("{:o}", meta.mode))
        .add("owner", &format!("{}:{}", meta.uid, meta.gid))
        .add("time", &time)
        .list("attributes", &xattrs))
}

/// Returns what a directory of a root is in the image, and its attributes, those of the machine among them. `name` is for messages.
pub(super) fn described(
    directory: BorrowedFd<'_>,
    owners: &Owners,
    name: &[u8],
) -> Result<(Meta, Xattrs), CopyError> {
    let failed = |verb, error| io(verb, shown(b"", name), error);
    let is_in_ledger = !owners.ownership().gives_away();
    let meta = match is_in_ledger {
        true => Meta::born_of(directory),
        false => Meta::of(directory),
    };
    let mut meta = meta.map_err(|error| failed("stat", error))?;
    let mut xattrs =
        read_all_xattrs(directory).map_err(|error| failed("read attributes of", error))?;
    if is_in_ledger {
        let known = owners.known_of(&meta.file_id());
        meta = meta.in_image(owners.ownership(), known.as_ref());
        xattrs.extend(meta.xattrs.clone());
        xattrs.sort_unstable();
    }
    Ok((meta, xattrs))
}

/// Bytes as text, no two alike.
fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
