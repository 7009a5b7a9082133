//! Where look-ups lead: the keys that the last build of the same instructions asked about, one after the other.
//!
//! A key is made of what was found under those before it, so a build on an empty machine asks one question after the other, each as
//! long as the way to the place. A trail says what it will ask if nothing has changed, and the questions travel together. It is a hint and
//! nothing else: answers are the entries', each checked as ever, and without a trail, or with a wrong one, the same ones are found.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::entry::nothing;
use super::written::{self, Documents};
use crate::vocab::{CacheKey, DiffId, Digest, Timestamp};

/// Where the keys are among the annotations. The number is the format's.
const ANNOTATION: &str = "builder.cache.trail.v1";
/// Longer ones are cut.
const MOST_KEYS: usize = 256;

/// What a build asks about, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trail {
    pub(super) keys: Vec<CacheKey>,
    /// When a build was last on it.
    pub(super) used: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Written {
    /// Repeats the name.
    instructions: String,
    keys: Vec<String>,
}

impl Trail {
    /// Writes the trail of those who follow some instructions.
    pub(super) fn documents(&self, instructions: &Digest) -> Option<Documents> {
        let written = Written {
            instructions: instructions.hex(),
            keys: self.cut().iter().map(CacheKey::to_string).collect(),
        };
        let text = serde_json::to_string(&written).expect("texts are always JSON");
        let diff_id = DiffId(Digest::of(&[0; 1024]));
        Documents::of(ANNOTATION, text, &[nothing().0], &[diff_id], self.used)
    }

    /// Reads what was found under the name of these instructions. The error fits after "it".
    pub(super) fn parse(instructions: &Digest, manifest: &[u8]) -> Result<Trail, String> {
        let document: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
        let text = document["annotations"][ANNOTATION].as_str();
        let text = text.ok_or("has no keys, or those of another version")?;
        let written: Written =
            serde_json::from_str(text).map_err(|_| "has keys that are not understood")?;
        if Digest::from_hex(&written.instructions) != Some(*instructions) {
            return Err("is of other instructions".to_owned());
        }
        let keys = written.keys.iter().take(MOST_KEYS);
        Ok(Trail {
            keys: keys
                .map(|key| Digest::from_hex(key).map(CacheKey))
                .collect::<Option<_>>()
                .ok_or("has a key that is none")?,
            used: written::used(&document).unwrap_or_default(),
        })
    }

    /// Returns what lies after a key; nothing if it is not on the trail, since then others have changed with it.
    pub(super) fn after(&self, key: &CacheKey) -> Vec<CacheKey> {
        let mut keys = self.keys.iter();
        keys.find(|other| *other == key);
        keys.copied().collect()
    }

    /// Tells whether another trail is a part of this one.
    pub(super) fn has(&self, other: &Trail) -> bool {
        let wanted = other.cut();
        wanted.is_empty() || self.keys.windows(wanted.len()).any(|keys| keys == wanted)
    }

    /// Returns this trail with the other's keys behind its own: builds that differ in their arguments or files go on finding theirs.
    pub(super) fn with(&self, other: Option<&Trail>) -> Trail {
        let mut all = self.clone();
        let mut seen: HashSet<CacheKey> = all.keys.iter().copied().collect();
        let others = other.map_or(&[][..], |other| &other.keys);
        all.keys
            .extend(others.iter().filter(|key| seen.insert(**key)));
        all
    }

    /// Tells whether it can ever save a question.
    pub(super) fn is_of_use(&self) -> bool {
        self.keys.len() > 1
    }

    fn cut(&self) -> &[CacheKey] {
        &self.keys[..self.keys.len().min(MOST_KEYS)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(count: usize) -> Trail {
        Trail {
            keys: (0..count)
                .map(|at| CacheKey(Digest::of(at.to_string().as_bytes())))
                .collect(),
            used: Timestamp::from_seconds(1_000_000),
        }
    }

    #[test]
    fn a_trail_of_several_builds_leads_each_of_them() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|at| trail(5).keys[at]);
        let of = |keys: &[CacheKey]| Trail {
            keys: keys.to_vec(),
            ..trail(0)
        };
        let both = of(&[a, b]).with(Some(&of(&[a, c, d])));
        assert_eq!(both.keys, [a, b, c, d]);
        assert!(both.has(&of(&[a, b])) && both.has(&of(&[c, d])) && !both.has(&of(&[a, c])));
        assert_eq!(both.after(&b), [c, d]);
        assert!(both.after(&d).is_empty() && of(&[a, b]).after(&c).is_empty());
        assert_eq!(of(&[a]).with(None), of(&[a]));
    }

    #[test]
    fn what_is_written_is_read_under_its_own_name_alone() {
        let name = Digest::of(b"instructions");
        for count in [0, 1, 40, MOST_KEYS] {
            let documents = trail(count).documents(&name).unwrap();
            assert_eq!(Trail::parse(&name, &documents.manifest), Ok(trail(count)));
        }
        let long = trail(MOST_KEYS + 100);
        let documents = long.documents(&name).unwrap();
        let read = Trail::parse(&name, &documents.manifest).unwrap();
        assert!(read.keys.len() == MOST_KEYS && read.has(&long) && read.has(&trail(2)));
        assert!(!trail(2).has(&read));

        let other = Digest::of(b"others");
        let parse = |name, text: &str| Trail::parse(name, text.as_bytes()).unwrap_err();
        let text = String::from_utf8(documents.manifest).unwrap();
        assert_eq!(parse(&other, &text), "is of other instructions");
        assert_eq!(
            parse(&name, &text.replace("trail.v1", "trail.v2")),
            "has no keys, or those of another version"
        );
        let first = long.keys[0].to_string();
        assert_eq!(
            parse(&name, &text.replace(&first, "zz")),
            "has a key that is none"
        );
        for torn in ["", "{", "[]", &text[..text.len() / 2]] {
            parse(&name, torn);
        }
    }
}
