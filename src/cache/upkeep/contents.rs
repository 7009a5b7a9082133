//! What lies at a place.

use std::collections::{BTreeSet, HashSet};

use crate::cache::entry::Entry;
use crate::cache::mounts::Version;
use crate::cache::place::{AT_ONCE, Named};
use crate::cache::trail::Trail;
use crate::cache::written::is_ours;
use crate::cache::{CacheError, Place};
use crate::image::{Manifest, OCI_MANIFEST, parse_manifest};
use crate::registry::Client;
use crate::vocab::{CacheKey, CacheScope, Descriptor, Digest, Timestamp, each};

/// Clocks are not so far apart: a time that is further ahead is none.
const AHEAD: i64 = 24 * 60 * 60;

/// Parts of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scopes {
    All,
    These(BTreeSet<CacheScope>),
}

impl Scopes {
    /// Tells whether a scope is among them.
    pub fn has(&self, scope: &CacheScope) -> bool {
        match self {
            Scopes::All => true,
            Scopes::These(scopes) => scopes.contains(scope),
        }
    }

    /// Returns the parts that are in either.
    pub fn and(self, other: Scopes) -> Scopes {
        match (self, other) {
            (Scopes::These(mut these), Scopes::These(others)) => {
                these.extend(others);
                Scopes::These(these)
            }
            (Scopes::All, _) | (_, Scopes::All) => Scopes::All,
        }
    }
}

/// What lies at a place.
#[derive(Debug)]
pub struct Contents {
    /// By scope and kind, the last used first.
    pub listed: Vec<Listed>,
    /// How much more there is: images, say.
    pub others: usize,
}

/// Something under a name of the cache's.
#[derive(Debug)]
pub struct Listed {
    pub name: String,
    pub sort: Sort,
    pub scope: CacheScope,
    pub state: State,
    pub(super) named: Named,
    /// Of the document; `None` where it cannot be read.
    pub(super) digest: Option<Digest>,
    /// Names of the steps that a trail leads to.
    pub(super) leads_to: Vec<String>,
    /// Blobs that the document speaks of in any way.
    pub(super) mentioned: Vec<Digest>,
}

/// What an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    Step,
    Mount,
    /// Of what builds ask about.
    Trail,
}

/// What a document turns out to be.
#[derive(Debug)]
pub enum State {
    Sound(About),
    /// In words that fit after "it".
    Damaged(String),
    /// Of another program.
    Foreign,
}

/// What an entry says of itself.
#[derive(Debug)]
pub struct About {
    pub description: String,
    pub created: Timestamp,
    /// When it was last of use to a build, as far as that is noted.
    pub used: Timestamp,
    pub blobs: Vec<Descriptor>,
}

impl Listed {
    /// Returns what it says of itself, if it is an entry.
    pub fn about(&self) -> Option<&About> {
        match &self.state {
            State::Sound(about) => Some(about),
            State::Damaged(_) | State::Foreign => None,
        }
    }
}

/// Returns the bytes of all blobs of some entries, each counted once.
pub fn size_of<'a>(listed: impl IntoIterator<Item = &'a Listed>) -> u64 {
    let mut seen = HashSet::new();
    let blobs = listed.into_iter().filter_map(Listed::about);
    blobs
        .flat_map(|about| &about.blobs)
        .filter(|blob| seen.insert(blob.digest))
        .fold(0, |sum: u64, blob| sum.saturating_add(blob.size))
}

/// Reads what lies at a place, in whatever scope of these.
pub fn list(
    client: &Client,
    place: &Place,
    scopes: &Scopes,
    now: Timestamp,
) -> Result<Contents, CacheError> {
    let mut others = 0;
    let mut names = Vec::new();
    for named in place.documents(client)? {
        match Name::parse(&named.name) {
            Some(name) if scopes.has(&name.scope) => names.push((named, name)),
            Some(_) => {}
            None => others += 1,
        }
    }
    let (read, failure) = each(&names, AT_ONCE, |(named, name)| {
        read(client, place, named, name, now)
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    let mut listed: Vec<Listed> = read.into_iter().flatten().collect();
    listed.sort_by(|one, other| {
        let used = |listed: &Listed| listed.about().map(|about| about.used);
        (&one.scope, one.sort)
            .cmp(&(&other.scope, other.sort))
            .then_with(|| used(other).cmp(&used(one)))
            .then_with(|| one.name.cmp(&other.name))
    });
    Ok(Contents { listed, others })
}

/// Returns the digests that a document speaks of, whoever wrote it, and also if it is torn.
pub(super) fn mentioned(document: &[u8]) -> Vec<Digest> {
    const MARK: &[u8] = b"sha256:";
    let mut found = Vec::new();
    let mut rest = document;
    while let Some(at) = rest.windows(MARK.len()).position(|bytes| bytes == MARK) {
        rest = &rest[at + MARK.len()..];
        let hex = rest.get(..64).and_then(|hex| std::str::from_utf8(hex).ok());
        found.extend(hex.and_then(Digest::from_hex));
    }
    found
}

fn read(
    client: &Client,
    place: &Place,
    named: &Named,
    name: &Name,
    now: Timestamp,
) -> Result<Option<Listed>, CacheError> {
    let mut listed = Listed {
        name: named.name.clone(),
        sort: name.sort,
        scope: name.scope.clone(),
        state: State::Foreign,
        named: named.clone(),
        digest: None,
        leads_to: Vec::new(),
        mentioned: Vec::new(),
    };
    let bytes = match place.look_at(client, &named.name)? {
        Ok(Some(bytes)) => bytes,
        // Somebody has removed it since.
        Ok(None) => return Ok(None),
        Err(why) => {
            listed.state = State::Damaged(why);
            return Ok(Some(listed));
        }
    };
    listed.digest = Some(Digest::of(&bytes));
    listed.leads_to = name.leads_to(&bytes);
    listed.mentioned = mentioned(&bytes);
    listed.state = match name.about(&bytes) {
        Ok(about) => State::Sound(About {
            used: last_use(now, &[Some(about.used), Some(about.created), named.changed]),
            ..about
        }),
        Err(_) if is_of_others(&bytes) => State::Foreign,
        Err(why) => State::Damaged(why),
    };
    Ok(Some(listed))
}

/// Tells whether a document is whole, and nothing that a version of this program wrote.
fn is_of_others(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(bytes).is_ok() && !is_ours(bytes)
}

/// Returns the latest time that can be.
fn last_use(now: Timestamp, times: &[Option<Timestamp>]) -> Timestamp {
    let times = times.iter().flatten();
    let known = times.filter(|time| time.seconds <= now.seconds.saturating_add(AHEAD));
    known.max().copied().unwrap_or_default().min(now)
}

/// A name of the cache's, taken apart.
struct Name {
    scope: CacheScope,
    sort: Sort,
    key: Digest,
}

impl Name {
    fn parse(name: &str) -> Option<Name> {
        let (rest, hex) = name.split_at_checked(name.len().checked_sub(64)?)?;
        let key = Digest::from_hex(hex).filter(|key| key.hex() == hex)?;
        let kinds = [
            ("-step-", Sort::Step),
            ("-mount-", Sort::Mount),
            ("-trail-", Sort::Trail),
        ];
        let (scope, sort) = kinds
            .iter()
            .find_map(|(mark, sort)| Some((rest.strip_suffix(mark)?, *sort)))?;
        let known = CacheScope::new(scope);
        (known.as_str() == scope).then_some(Name {
            scope: known,
            sort,
            key,
        })
    }

    /// Returns the names of the steps that the document leads to, if it is a trail.
    fn leads_to(&self, bytes: &[u8]) -> Vec<String> {
        let trail = match self.sort {
            Sort::Trail => Trail::parse(&self.key, bytes).ok(),
            Sort::Step | Sort::Mount => None,
        };
        let keys = trail.into_iter().flat_map(|trail| trail.keys);
        keys.map(|key| format!("{}-step-{key}", self.scope.as_str()))
            .collect()
    }

    /// Reads what the document under the name says; the error fits after "it".
    fn about(&self, bytes: &[u8]) -> Result<About, String> {
        let (description, created, used) = match self.sort {
            Sort::Step => {
                let entry = Entry::parse(&CacheKey(self.key), bytes)?;
                let used = entry.used.unwrap_or(entry.created);
                (entry.description, entry.created, used)
            }
            Sort::Mount => {
                let (name, version) = Version::parse(&self.key, bytes)?;
                (name.id, version.saved, version.used)
            }
            Sort::Trail => {
                let trail = Trail::parse(&self.key, bytes)?;
                let steps = format!("to {} steps", trail.keys.len());
                (steps, trail.used, trail.used)
            }
        };
        let blobs = match parse_manifest(bytes, Some(OCI_MANIFEST)) {
            Ok(Manifest::Image { layers, .. }) => layers,
            Ok(Manifest::Index(_)) | Err(_) => Vec::new(),
        };
        Ok(About {
            description,
            created,
            used,
            blobs,
        })
    }
}
