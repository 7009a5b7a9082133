//! Which times the files of a layer or an export show.

use crate::layer::Mtime;

/// What becomes of modification times on the way out; seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    #[default]
    Kept,
    /// Later ones become this one.
    AtMost(i64),
    /// All become this one.
    All(i64),
}

impl Times {
    pub(super) fn of(self, mtime: Mtime) -> Mtime {
        let at = |seconds| Mtime {
            seconds,
            nanoseconds: 0,
        };
        match self {
            Times::Kept => mtime,
            Times::AtMost(seconds) => mtime.min(at(seconds)),
            Times::All(seconds) => at(seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_times_are_cut_to_the_second_and_earlier_ones_kept() {
        let time = |seconds, nanoseconds| Mtime {
            seconds,
            nanoseconds,
        };
        for (times, given, expected) in [
            (Times::Kept, time(9, 5), time(9, 5)),
            (Times::AtMost(9), time(9, 5), time(9, 0)),
            (Times::AtMost(9), time(8, 5), time(8, 5)),
            (Times::AtMost(-3), time(0, 0), time(-3, 0)),
            (Times::All(9), time(1, 1), time(9, 0)),
        ] {
            assert_eq!(times.of(given), expected, "{times:?} {given:?}");
        }
    }
}
