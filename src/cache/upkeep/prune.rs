//! Removing what is of no use any more: entries, and where nobody else does it, blobs that no document names.
//!
//! The order matters, since other machines write meanwhile: the place's clock, documents, blobs. Why, [`directory`](crate::cache) says.

use std::collections::{HashMap, HashSet};

use super::choice::{Candidate, Criteria};
use super::contents::{Listed, Scopes, Sort, list, mentioned, size_of};
use crate::cache::place::{AT_ONCE, Named};
use crate::cache::{CacheError, Place};
use crate::registry::Client;
use crate::vocab::{Digest, Timestamp, each};

/// Blobs that nobody names stay for so many seconds: somebody may be about to.
const GRACE: i64 = 6 * 60 * 60;
/// What is on its way for so many seconds never arrives.
const ON_ITS_WAY: i64 = 24 * 60 * 60;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Pruning {
    /// Where entries may go.
    pub scopes: Scopes,
    pub criteria: Criteria,
    /// Only tell.
    pub dry_run: bool,
    pub now: Timestamp,
}

/// What was removed, or would be.
#[derive(Debug, Default)]
pub struct Pruned {
    pub gone: Vec<Listed>,
    /// Names that should have gone and stay, and why.
    pub left: Vec<(String, String)>,
    /// Blobs that were removed.
    pub blobs: usize,
    /// What that freed, documents and left-over files as well. Where the place sees to its blobs itself: the blobs that no entry names any
    /// more, for it to free.
    pub bytes: u64,
    /// Whether the place sees to its blobs itself.
    pub frees_later: bool,
    /// Blobs that nobody names and that are too new to go, with their bytes.
    pub young: (usize, u64),
    /// Bytes of the entries that stay, each blob counted once, of the scopes that were meant.
    pub kept_bytes: u64,
    /// Why nothing more was removed.
    pub failure: Option<CacheError>,
}

impl Pruned {
    /// Returns how many entries of a sort went.
    pub fn count(&self, sort: Sort) -> usize {
        self.gone.iter().filter(|gone| gone.sort == sort).count()
    }
}

/// Removes entries of a place, and what they leave. The error is for what prevents that anything is removed.
pub fn prune(client: &Client, place: &Place, pruning: &Pruning) -> Result<Pruned, CacheError> {
    let clock = match pruning.dry_run {
        true => pruning.now,
        false => place.clock(pruning.now)?,
    };
    // All scopes: what one of them names is no waste of another one.
    let listed = list(client, place, &Scopes::All, pruning.now)?.listed;
    let goes = choose(&listed, pruning);
    let (going, mut staying): (Vec<_>, Vec<_>) =
        listed.into_iter().zip(goes).partition(|(_, goes)| *goes);
    let going: Vec<Listed> = going.into_iter().map(|(listed, _)| listed).collect();
    let mut pruned = Pruned {
        frees_later: !place.leaves_blobs(),
        ..Pruned::default()
    };
    if pruning.dry_run {
        pruned.gone = going;
    } else {
        let named = |listed: &'_ Listed| listed.digest.map(|digest| (listed.named.clone(), digest));
        let known: Vec<_> = going.iter().filter_map(named).collect();
        let others: Vec<_> = staying
            .iter()
            .filter_map(|(listed, _)| named(listed))
            .collect();
        let removal = place.remove_documents(client, &borrowed(&known), &borrowed(&others));
        let gone: HashSet<&str> = removal.gone.iter().map(String::as_str).collect();
        for listed in going {
            match gone.contains(listed.name.as_str()) {
                true => pruned.gone.push(listed),
                false => staying.push((listed, false)),
            }
        }
        pruned.left = removal.left;
        pruned.failure = removal.failure;
    }
    let staying: Vec<Listed> = staying.into_iter().map(|(listed, _)| listed).collect();
    pruned.kept_bytes = size_of(
        staying
            .iter()
            .filter(|listed| pruning.scopes.has(&listed.scope)),
    );
    if pruned.frees_later {
        let all = size_of(staying.iter().chain(&pruned.gone));
        pruned.bytes = all.saturating_sub(size_of(&staying));
    } else if pruned.failure.is_none() {
        let documents = pruned.gone.iter().map(|gone| gone.named.size);
        pruned.bytes = documents.sum();
        let swept = sweep(client, place, pruning, clock, &staying, &mut pruned);
        pruned.failure = swept.err();
    }
    Ok(pruned)
}

/// Chooses among the entries of the scopes that are meant. A trail counts as none: it goes with the last of the steps that it leads to, and
/// for its age.
fn choose(listed: &[Listed], pruning: &Pruning) -> Vec<bool> {
    let (mut meant, mut candidates) = (Vec::new(), Vec::new());
    for (at, listed) in listed.iter().enumerate() {
        if let Some(about) = listed.about()
            && pruning.scopes.has(&listed.scope)
            && listed.sort != Sort::Trail
        {
            meant.push(at);
            candidates.push(Candidate {
                name: &listed.name,
                scope: listed.scope.as_str(),
                used: about.used,
                blobs: &about.blobs,
            });
        }
    }
    let chosen = pruning.criteria.choose(&candidates, pruning.now);
    let mut goes = vec![false; listed.len()];
    for (at, chosen) in meant.into_iter().zip(chosen) {
        goes[at] = chosen;
    }
    let staying: HashSet<&str> = listed
        .iter()
        .zip(&goes)
        .filter(|(_, goes)| !**goes)
        .map(|(listed, _)| listed.name.as_str())
        .collect();
    let leads_nowhere = |listed: &Listed| {
        let mut steps = listed.leads_to.iter();
        !steps.any(|step| staying.contains(step.as_str()))
    };
    let trails = listed.iter().enumerate().filter(|(_, listed)| {
        listed.sort == Sort::Trail
            && pruning.scopes.has(&listed.scope)
            && listed.about().is_some_and(|about| {
                pruning.criteria.is_too_old(about.used, pruning.now) || leads_nowhere(listed)
            })
    });
    let trails: Vec<usize> = trails.map(|(at, _)| at).collect();
    for at in trails {
        goes[at] = true;
    }
    goes
}

/// Removes blobs that no document names, and what never arrived.
fn sweep(
    client: &Client,
    place: &Place,
    pruning: &Pruning,
    clock: Timestamp,
    staying: &[Listed],
    pruned: &mut Pruned,
) -> Result<(), CacheError> {
    let held = held(client, place, pruning, staying, &pruned.gone)?;
    let before = earlier(clock, GRACE);
    for blob in place.blobs(client)? {
        let is_held = Digest::from_hex(&blob.name).is_none_or(|digest| held.contains(&digest));
        if is_held {
            continue;
        }
        let is_old = blob.changed.is_some_and(|changed| changed < before);
        if is_old && (pruning.dry_run || place.remove_blob(client, &blob, before)?) {
            pruned.blobs += 1;
            pruned.bytes = pruned.bytes.saturating_add(blob.size);
        } else {
            pruned.young.0 += 1;
            pruned.young.1 = pruned.young.1.saturating_add(blob.size);
        }
    }
    for leftover in place.leftovers(earlier(clock, ON_ITS_WAY))? {
        if pruning.dry_run || place.remove_leftover(&leftover)? {
            pruned.bytes = pruned.bytes.saturating_add(leftover.size);
        }
    }
    Ok(())
}

/// Returns the blobs that documents name, of whatever kind these are. All are looked for again: others may have written since.
fn held(
    client: &Client,
    place: &Place,
    pruning: &Pruning,
    staying: &[Listed],
    gone: &[Listed],
) -> Result<HashSet<Digest>, CacheError> {
    let known: HashMap<&str, &Listed> = staying
        .iter()
        .map(|listed| (listed.name.as_str(), listed))
        .collect();
    let would_go: HashSet<&str> = match pruning.dry_run {
        true => gone.iter().map(|listed| listed.name.as_str()).collect(),
        false => HashSet::new(),
    };
    let mut held = HashSet::new();
    let mut unknown = Vec::new();
    for named in place.documents(client)? {
        if would_go.contains(named.name.as_str()) {
            continue;
        }
        match known.get(named.name.as_str()) {
            Some(listed) if listed.named == named && listed.digest.is_some() => {
                held.extend(&listed.mentioned);
            }
            Some(_) | None => unknown.push(named),
        }
    }
    let (read, failure) = each(&unknown, AT_ONCE, |named| {
        match place.look_at(client, &named.name)? {
            Ok(found) => Ok(found.map(|bytes| mentioned(&bytes)).unwrap_or_default()),
            Err(why) => Err(CacheError::Unreadable {
                name: named.name.clone(),
                why,
            }),
        }
    });
    match failure {
        Some(failure) => Err(failure),
        None => {
            held.extend(read.into_iter().flatten());
            Ok(held)
        }
    }
}

fn borrowed(named: &[(Named, Digest)]) -> Vec<(&Named, Digest)> {
    let named = named.iter();
    named.map(|(named, digest)| (named, *digest)).collect()
}

fn earlier(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp {
        seconds: time.seconds.saturating_sub(seconds),
        ..time
    }
}
