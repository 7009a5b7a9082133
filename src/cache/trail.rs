//! Where look-ups lead: the keys that the last build of the same instructions asked about, one after the other.
//!
//! A key is made of what was found under those before it, so a build on an empty machine asks one question after the other, each as
//! long as the way to the place. A trail says what it will ask if nothing has changed, and the questions travel together. It is a hint and
//! nothing else: answers are the entries', each checked as ever, and without a trail, or with a wrong one, the same ones are found.

use serde::{Deserialize, Serialize};

use super::entry::nothing;
use super::written::{self, Documents};
use crate::vocab::{CacheKey, DiffId, Digest, Timestamp};

/// Where the keys are among the annotations. The number is the format's.
const ANNOTATION: &str = "builder.cache.trail.v1";
/// Longer ones are cut: nobody's trail makes a build ask for more.
const MOST_KEYS: usize = 512;

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

    /// Tells whether another trail leads the same way.
    pub(super) fn leads_like(&self, other: &Trail) -> bool {
        self.cut() == other.cut()
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
    fn what_is_written_is_read_under_its_own_name_alone() {
        let name = Digest::of(b"instructions");
        for count in [0, 1, 40, MOST_KEYS] {
            let documents = trail(count).documents(&name).unwrap();
            assert_eq!(Trail::parse(&name, &documents.manifest), Ok(trail(count)));
        }
        let long = trail(MOST_KEYS + 100);
        let documents = long.documents(&name).unwrap();
        let read = Trail::parse(&name, &documents.manifest).unwrap();
        assert!(read.keys.len() == MOST_KEYS && long.leads_like(&read));
        assert!(!long.leads_like(&trail(2)));

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
