//! "Did you mean": the known name that a mistyped one is nearest to.

/// Returns the nearest of `known`, if it is near: at most a third of the letters differ, letter case aside.
pub(super) fn nearest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Longer names are no typing mistakes, and the table below is quadratic.
    const LONGEST: usize = 64;
    let typed = typed.to_lowercase();
    let length = typed.chars().count();
    if length > LONGEST {
        return None;
    }
    known
        .into_iter()
        .filter(|name| name.chars().count() <= LONGEST)
        .map(|name| (distance(&typed, &name.to_lowercase()), name))
        .filter(|(distance, name)| distance * 3 <= length.max(name.chars().count()))
        .min()
        .map(|(_, name)| name)
}

/// Returns how many letters must be changed, added, dropped, or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let changed = usize::from(one[i - 1] != other[j - 1]);
            let mut best = (rows[i - 1][j - 1] + changed)
                .min(rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1);
            let swapped =
                i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
            if swapped {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["build", "test", "release"];
        for (typed, wanted) in [
            ("biuld", Some("build")),
            ("Build", Some("build")),
            ("tset", Some("test")),
            ("releas", Some("release")),
            ("other", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), wanted, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
