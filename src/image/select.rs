//! Choosing one image of an index.

use std::cmp::Reverse;

use super::IndexEntry;
use crate::vocab::Platform;

/// Marks a manifest that speaks of another one: provenance, SBOM.
pub(super) const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Returns the entry that fits `wanted` best: the same variant before a lower one, a higher variant before a lower one, an earlier
/// entry before a later one. An entry that names no platform is taken only where it is the one image there is. Attestations are
/// passed over.
pub fn select<'a>(entries: &'a [IndexEntry], wanted: &Platform) -> Option<&'a IndexEntry> {
    let images = || entries.iter().filter(|entry| is_image(entry));
    let fitting = images().filter_map(|entry| Some((entry, entry.platform.as_ref()?)));
    let best = fitting
        .filter(|(_, offered)| wanted.accepts(offered))
        .min_by_key(|(_, offered)| {
            let same = offered.variant == wanted.variant;
            (!same, Reverse(offered.variant.clone()))
        });
    if let Some((entry, _)) = best {
        return Some(entry);
    }
    let mut images = images();
    match (images.next(), images.next()) {
        (Some(only), None) if only.platform.is_none() => Some(only),
        _ => None,
    }
}

fn is_image(entry: &IndexEntry) -> bool {
    let unknown = entry
        .platform
        .as_ref()
        .is_some_and(|platform| platform.os == "unknown" || platform.architecture == "unknown");
    !unknown && !entry.annotations.contains_key(REFERENCE_TYPE)
}
