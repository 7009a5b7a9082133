//! "Did you mean": the known name that a mistyped one is nearest to, and known names in the order of their likeness to it.

use std::cmp::Ordering;

/// Returns the nearest of `known`, if it is near: at most a third of the letters differ (one, in short names), letter case aside.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer names are no slips of the finger, and the table below is quadratic.
    const LONGEST: usize = 64;
    let typed = typed.to_lowercase();
    let length = typed.chars().count();
    if length == 0 || length > LONGEST {
        return None;
    }
    let allowed = (length / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|name| name.chars().count() <= LONGEST)
        .map(|name| (distance(&typed, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Orders names: those that begin most like `typed` first, and of these the newest version.
pub fn likeness(typed: &str, one: &str, other: &str) -> Ordering {
    let common = |name: &str| {
        let pairs = typed.bytes().zip(name.bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    let alike = common(other).cmp(&common(one));
    alike.then_with(|| version(other).cmp(&version(one)))
}

/// Cuts a name so that its numbers compare as numbers: 1.9 comes before 1.10.
fn version(name: &str) -> Vec<(Option<u128>, &str)> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let is_same = |c: char| c.is_ascii_digit() == first.is_ascii_digit();
        let end = rest.find(|c| !is_same(c)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push((piece.parse().ok(), piece));
        rest = after;
    }
    pieces
}

/// Returns how many letters must be changed, added, dropped, or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    rows[0] = (0..=other.len()).collect();
    for i in 1..=one.len() {
        rows[i][0] = i;
        for j in 1..=other.len() {
            let changed = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::{likeness, nearest};

    #[test]
    fn names_that_begin_alike_come_first_and_new_versions_before_old_ones() {
        for (typed, known, expected) in [
            ("1.2.5", "1.2.3 1.2.4 latest", "1.2.4 1.2.3 latest"),
            ("1.11", "1.9 1.10 1.8 2.0", "1.10 1.9 1.8 2.0"),
            (
                "3.12-slimm",
                "3.12 3.9-slim 3.12-slim edge",
                "3.12-slim 3.12 3.9-slim edge",
            ),
            ("x", "20240101 v2 ä 20250101", "20250101 20240101 ä v2"),
        ] {
            let mut names: Vec<&str> = known.split(' ').collect();
            names.sort_by(|a, b| likeness(typed, a, b));
            let names = names.join(" ");
            assert_eq!(names, expected, "{typed}");
        }
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = [
            "FROM",
            "RUN",
            "COPY",
            "ENTRYPOINT",
            "build",
            "test",
            "release",
        ];
        for (typed, wanted) in [
            ("FORM", Some("FROM")),
            ("rum", Some("RUN")),
            ("COPPY", Some("COPY")),
            ("ENTRY_POINT", Some("ENTRYPOINT")),
            ("biuld", Some("build")),
            ("tset", Some("test")),
            ("releas", Some("release")),
            ("INCLUDE", None),
            ("other", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, known), wanted, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
