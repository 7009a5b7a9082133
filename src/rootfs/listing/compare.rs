//! What differs between two listings, file by file. Times do not count: a file that was written again as it was is the same.

use super::{Listed, ListedKind, Listing};

/// One file that is not the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// Without a slash in front; the root's is empty.
    pub path: &'a [u8],
    pub change: Change<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    Added(&'a Listed),
    Deleted(&'a Listed),
    Changed {
        before: &'a Listed,
        after: &'a Listed,
    },
}

/// What of a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    Type,
    Content,
    Target,
    Device,
    Mode,
    Owner,
    Attributes,
}

/// Compares what is at and below a path, in the order of names. Contents count where digests were taken of both.
pub fn compare<'a>(before: &'a Listing, after: &'a Listing, path: &'a [u8]) -> Vec<Difference<'a>> {
    let all = |listing: &'a Listing| {
        let itself = listing.get(path).map(|listed| (path, listed));
        itself.into_iter().chain(listing.below(path)).peekable()
    };
    let (mut old, mut new) = (all(before), all(after));
    let mut found = Vec::new();
    loop {
        let takes = match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some((old, _)), Some((new, _))) => (old <= new, new <= old),
        };
        let one = match takes {
            (true, true) => old
                .next()
                .zip(new.next())
                .map(|((path, before), (_, after))| {
                    let change = Change::Changed { before, after };
                    (!aspects(before, after).is_empty()).then_some(Difference { path, change })
                }),
            (true, false) => old.next().map(|(path, listed)| {
                let change = Change::Deleted(listed);
                Some(Difference { path, change })
            }),
            _ => new.next().map(|(path, listed)| {
                let change = Change::Added(listed);
                Some(Difference { path, change })
            }),
        };
        found.extend(one.flatten());
    }
}

/// Returns what has changed between two descriptions of a file.
pub fn aspects(before: &Listed, after: &Listed) -> Vec<Aspect> {
    use ListedKind::{BlockDevice, CharDevice, File, Symlink};
    let mut aspects = Vec::new();
    match (&before.kind, &after.kind) {
        (one, other) if std::mem::discriminant(one) != std::mem::discriminant(other) => {
            aspects.push(Aspect::Type);
        }
        (one, other) if one == other => {}
        (File { .. }, _) => aspects.push(Aspect::Content),
        (Symlink { .. }, _) => aspects.push(Aspect::Target),
        (CharDevice { .. } | BlockDevice { .. }, _) => aspects.push(Aspect::Device),
        _ => {}
    }
    // The mode of a link means nothing.
    if before.mode != after.mode && !matches!(after.kind, Symlink { .. }) {
        aspects.push(Aspect::Mode);
    }
    if (before.uid, before.gid) != (after.uid, after.gid) {
        aspects.push(Aspect::Owner);
    }
    if before.xattrs != after.xattrs {
        aspects.push(Aspect::Attributes);
    }
    aspects
}
