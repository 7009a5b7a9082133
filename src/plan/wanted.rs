//! What planning cannot know by itself: images, downloads and commits, as it asks for them and as it finds them again.

use std::collections::BTreeMap;

use super::{Base, BaseKey, BaseWanted};
use crate::vocab::{Digest, GitRef, Span};

/// Something that planning cannot go on without, and where it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Base(BaseWanted),
    Http { key: HttpKey, span: Option<Span> },
    Git { key: GitKey, span: Option<Span> },
    Time { timed: Timed, span: Option<Span> },
}

/// Everything that planning was told so far.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub bases: BTreeMap<BaseKey, Base>,
    pub downloads: BTreeMap<HttpKey, Download>,
    pub commits: BTreeMap<GitKey, Commit>,
    /// In seconds since 1970; `None` for what has no time.
    pub times: BTreeMap<Timed, Option<i64>>,
}

/// Something whose time is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timed {
    Commit {
        url: String,
        id: String,
    },
    /// The newest file of a download, if that is an archive.
    Archive(Digest),
}

/// One URL, and what its bytes must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpKey {
    pub url: String,
    pub checksum: Option<Digest>,
}

/// The bytes that a URL stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    pub digest: Digest,
    /// Seconds since 1970, as the server says.
    pub modified: Option<i64>,
}

/// A reference of a repository, and what it must stand for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitKey {
    /// With the user name and password that were written.
    pub url: String,
    pub reference: Option<String>,
    /// The first digits of a commit ID, or all of them.
    pub checksum: Option<String>,
}

/// What a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its full ID.
    pub id: String,
    /// The full name of the reference; `None` where the ID itself was named.
    pub reference: Option<String>,
}

impl From<&GitRef> for GitKey {
    fn from(git: &GitRef) -> GitKey {
        GitKey {
            url: git.url.clone(),
            reference: git.reference.clone(),
            checksum: git.checksum.clone(),
        }
    }
}
