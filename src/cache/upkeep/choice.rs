//! Which entries go: values in, values out.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::vocab::{Descriptor, Digest, Timestamp};

/// What may stay. Nothing said: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria {
    /// The entries that were used last, so many of each scope, stay whatever else is said; with nothing else said, all others go.
    pub keep_last: Option<usize>,
    /// The least recently used go until the blobs of the others, each counted once, are not larger.
    pub max_size: Option<u64>,
    /// What was not used for so long goes.
    pub older_than: Option<Duration>,
}

/// An entry that may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a str,
    pub(super) scope: &'a str,
    pub(super) used: Timestamp,
    pub(super) blobs: &'a [Descriptor],
}

impl Criteria {
    /// Tells whether what was used then goes for its age.
    pub(super) fn is_too_old(&self, used: Timestamp, now: Timestamp) -> bool {
        self.older_than.is_some_and(|age| {
            let unused = now.seconds.saturating_sub(used.seconds);
            u64::try_from(unused).unwrap_or_default() >= age.as_secs()
        })
    }

    /// Tells of each candidate whether it goes.
    pub(super) fn choose(&self, candidates: &[Candidate<'_>], now: Timestamp) -> Vec<bool> {
        let mut latest_first: Vec<usize> = (0..candidates.len()).collect();
        latest_first.sort_by(|one, other| {
            let (one, other) = (&candidates[*one], &candidates[*other]);
            let by_use = other.used.cmp(&one.used);
            by_use.then_with(|| one.name.cmp(other.name))
        });
        let mut goes = vec![false; candidates.len()];
        let mut is_kept = vec![false; candidates.len()];
        if let Some(most) = self.keep_last {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for &at in &latest_first {
                let count = counts.entry(candidates[at].scope).or_default();
                is_kept[at] = *count < most;
                *count += 1;
            }
        }
        let is_alone = self.max_size.is_none() && self.older_than.is_none();
        for (at, candidate) in candidates.iter().enumerate() {
            let is_old = self.is_too_old(candidate.used, now);
            goes[at] = !is_kept[at] && (is_old || (self.keep_last.is_some() && is_alone));
        }
        if let Some(most) = self.max_size {
            let mut blobs: HashSet<Digest> = HashSet::new();
            let mut size: u64 = 0;
            let mut add = |candidate: &Candidate<'_>| {
                for blob in candidate.blobs {
                    if blobs.insert(blob.digest) {
                        size = size.saturating_add(blob.size);
                    }
                }
                size
            };
            for &at in latest_first.iter().filter(|at| is_kept[**at]) {
                add(&candidates[at]);
            }
            let mut is_full = false;
            for &at in latest_first.iter().filter(|at| !is_kept[**at]) {
                if goes[at] {
                    continue;
                }
                is_full = is_full || add(&candidates[at]) > most;
                goes[at] = is_full;
            }
        }
        goes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    /// Entries as `NAME SCOPE AGE BLOB…`, blobs as `NAME:SIZE`. Returns the names that go, in order.
    fn gone(criteria: &Criteria, entries: &[&str]) -> String {
        let parsed: Vec<(&str, &str, i64, Vec<Descriptor>)> = entries
            .iter()
            .map(|entry| {
                let mut words = entry.split(' ');
                let (name, scope) = (words.next().unwrap(), words.next().unwrap());
                let age = words.next().unwrap().parse().unwrap();
                let blobs = words.map(|blob| {
                    let (name, size) = blob.split_once(':').unwrap();
                    Descriptor {
                        media_type: String::new(),
                        digest: Digest::of(name.as_bytes()),
                        size: size.parse().unwrap(),
                    }
                });
                (name, scope, age, blobs.collect())
            })
            .collect();
        let candidates: Vec<Candidate<'_>> = parsed
            .iter()
            .map(|(name, scope, age, blobs)| Candidate {
                name,
                scope,
                used: Timestamp::from_seconds(NOW - age),
                blobs,
            })
            .collect();
        let goes = criteria.choose(&candidates, Timestamp::from_seconds(NOW));
        let names = candidates.iter().zip(goes);
        let names: Vec<&str> = names
            .filter(|(_, goes)| *goes)
            .map(|(candidate, _)| candidate.name)
            .collect();
        names.join(" ")
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    const ENTRIES: [&str; 6] = [
        "a main 10 shared:100 a:1",
        "b main 20 shared:100 b:10",
        "c main 30 c:1000",
        "d other 40 shared:100",
        "e other 50 e:5",
        "f other 60",
    ];

    fn check(criteria: Criteria, expected: &str) {
        assert_eq!(gone(&criteria, &ENTRIES), expected, "{criteria:?}");
        let backwards: Vec<&str> = ENTRIES.iter().rev().copied().collect();
        let mut names: Vec<char> = gone(&criteria, &backwards).chars().collect();
        names.reverse();
        assert_eq!(
            names.into_iter().collect::<String>(),
            expected,
            "{criteria:?}"
        );
    }

    #[test]
    fn nothing_said_removes_nothing() {
        check(Criteria::default(), "");
    }

    #[test]
    fn what_was_not_used_for_so_long_goes() {
        let older_than = |age| Criteria {
            older_than: seconds(age),
            ..Criteria::default()
        };
        check(older_than(61), "");
        check(older_than(60), "f");
        check(older_than(30), "c d e f");
        check(older_than(0), "a b c d e f");
        // A clock that is ahead makes nothing old.
        assert_eq!(gone(&older_than(1), &["a main -5"]), "");
    }

    #[test]
    fn of_each_scope_the_last_used_stay_whatever_else_is_said() {
        let keep_last = |count| Criteria {
            keep_last: Some(count),
            ..Criteria::default()
        };
        check(keep_last(0), "a b c d e f");
        check(keep_last(1), "b c e f");
        check(keep_last(2), "c f");
        check(keep_last(3), "");
        let also_old = Criteria {
            older_than: seconds(0),
            ..keep_last(2)
        };
        check(also_old, "c f");
        let some_old = Criteria {
            older_than: seconds(45),
            ..keep_last(1)
        };
        check(some_old, "e f");
        let too_large = Criteria {
            max_size: Some(0),
            ..keep_last(1)
        };
        check(too_large, "b c e f");
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits_and_shared_blobs_count_once() {
        let max_size = |bytes| Criteria {
            max_size: Some(bytes),
            ..Criteria::default()
        };
        check(max_size(1116), "");
        check(max_size(1115), "e f");
        check(max_size(1111), "e f");
        check(max_size(1110), "c d e f");
        check(max_size(111), "c d e f");
        check(max_size(110), "b c d e f");
        check(max_size(100), "a b c d e f");
        // What goes for its age takes no room.
        let both = Criteria {
            older_than: seconds(30),
            ..max_size(111)
        };
        check(both, "c d e f");
        assert_eq!(
            gone(
                &max_size(u64::MAX),
                &["a s 1 x:18446744073709551615", "b s 2 y:9"]
            ),
            ""
        );
    }
}
