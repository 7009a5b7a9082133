//! Where a stream is cut into chunks: by what the bytes are, so that equal stretches of two streams give equal chunks wherever
//! they lie.
//!
//! A hash rolls over the last 64 bytes, and a chunk ends where some of its bits are zero. More bits are wanted below the target size
//! and fewer above, which keeps most chunks near it. Where a stream has borders of its own, large pieces between them begin and
//! end a chunk.
//!
//! Invariants: the cuts depend on the bytes and borders alone, not on how they were handed over; no chunk but the last before a
//! border is shorter than a quarter of the target, and none is longer than four times the target. The constants are a part of the
//! format: with others nothing would be found again, and everything would travel once more.

/// Sizes that chunks are aimed at, as powers of two: 64 KiB, 256 KiB, 1 MiB.
const TARGETS: [u8; 3] = [16, 18, 20];
/// More chunks than that on average, and the next target is taken.
const MOST_CHUNKS: u64 = 8192;
/// Bits more below the target, and fewer above it.
const LEANING: u32 = 2;
/// Bytes that the hash remembers: each step shifts it by a bit.
const WINDOW: usize = 64;

/// The size that chunks are aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target(u8);

impl Target {
    /// Returns the target for so many bytes. What was taken before is kept while it is not far off: another one cuts everything
    /// anew.
    pub(super) fn of(bytes: u64, before: Option<Target>) -> Target {
        let chunks = |power: u8| bytes >> power;
        if let Some(before) = before {
            let is_low = chunks(before.0) < MOST_CHUNKS / 16 && before.0 != TARGETS[0];
            if chunks(before.0) <= MOST_CHUNKS * 2 && !is_low {
                return before;
            }
        }
        let fitting = TARGETS
            .into_iter()
            .find(|power| chunks(*power) <= MOST_CHUNKS);
        Target(fitting.unwrap_or(TARGETS[TARGETS.len() - 1]))
    }

    /// Reads what [`Target::power`] gave; `None` for what no version has written.
    pub(super) fn from_power(power: u8) -> Option<Target> {
        TARGETS.contains(&power).then_some(Target(power))
    }

    pub(super) fn power(self) -> u8 {
        self.0
    }

    pub(super) fn bytes(self) -> usize {
        1 << self.0
    }

    fn least(self) -> usize {
        self.bytes() / 4
    }

    /// The longest chunk.
    pub(super) fn most(self) -> usize {
        self.bytes() * 4
    }
}

/// Finds the cuts of one stream.
#[derive(Clone, Debug)]
pub(super) struct Cutter {
    target: Target,
    /// Of the chunk so far.
    length: usize,
    hash: u64,
}

impl Cutter {
    pub(super) fn new(target: Target) -> Cutter {
        Cutter {
            target,
            length: 0,
            hash: 0,
        }
    }

    /// Takes the stream's next bytes up to the first cut in or right behind them; returns how many, and whether there is one.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let (least, normal, most) = (self.target.least(), self.target.bytes(), self.target.most());
        let power = u32::from(self.target.0);
        let (hard, easy) = (mask(power + LEANING), mask(power - LEANING));
        let mut at = 0;
        // No cut comes before `least`, and the hash forgets what is more than a window behind.
        let deaf = least - WINDOW;
        if self.length < deaf {
            at = bytes.len().min(deaf - self.length);
            self.length += at;
        }
        while at < bytes.len() {
            self.hash = (self.hash << 1).wrapping_add(GEAR[bytes[at] as usize]);
            at += 1;
            self.length += 1;
            if self.length < least {
                continue;
            }
            let mask = if self.length < normal { hard } else { easy };
            if self.hash & mask == 0 || self.length >= most {
                self.cut();
                return (at, true);
            }
        }
        (at, false)
    }

    /// Tells whether the stream is cut where a piece of `size` bytes begins or ends.
    pub(super) fn cuts_at_border(&self, size: u64) -> bool {
        self.length > 0 && size >= self.target.bytes() as u64
    }

    /// Begins a chunk.
    pub(super) fn cut(&mut self) {
        self.length = 0;
        self.hash = 0;
    }
}

/// The upper bits: they depend on the whole window.
const fn mask(bits: u32) -> u64 {
    !0 << (64 - bits)
}

/// A number without pattern for each byte, from the generator `splitmix64` started at 0 (doi.org/10.1145/2660193.2660195).
static GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state: u64 = 0;
    let mut at = 0;
    while at < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;

    use super::*;

    const SMALL: Target = Target(16);

    /// Bytes without pattern.
    pub(in super::super) fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn lengths(bytes: &[u8], piece: usize) -> Vec<usize> {
        let mut cutter = Cutter::new(SMALL);
        let (mut lengths, mut length) = (Vec::new(), 0);
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                let (count, is_cut) = cutter.take(piece);
                piece = &piece[count..];
                length += count;
                if is_cut {
                    lengths.push(std::mem::take(&mut length));
                }
            }
        }
        lengths.extend((length > 0).then_some(length));
        lengths
    }

    fn chunks(bytes: &[u8]) -> HashSet<&[u8]> {
        let mut rest = bytes;
        let mut chunks = HashSet::new();
        for length in lengths(bytes, usize::MAX) {
            let (chunk, behind) = rest.split_at(length);
            chunks.insert(chunk);
            rest = behind;
        }
        chunks
    }

    #[test]
    fn chunks_have_about_the_size_that_is_aimed_at() {
        let bytes = noise(1, 32 << 20);
        let lengths = lengths(&bytes, usize::MAX);
        let mean = bytes.len() / lengths.len();
        assert!((48 << 10..96 << 10).contains(&mean), "{mean}");
        let (last, others) = lengths.split_last().unwrap();
        assert!(*last <= SMALL.most());
        for length in others {
            assert!((SMALL.least()..=SMALL.most()).contains(length), "{length}");
        }
    }

    #[test]
    fn pinned_cuts() {
        // If this changes, whatever was saved by another version is sent once more.
        assert_eq!(GEAR[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert_eq!(lengths(&noise(2, 400_000), 999), PINNED);
        assert_eq!(lengths(&vec![0; 600_000], 999), [262_144, 262_144, 75_712]);
    }

    const PINNED: [usize; 5] = [66_058, 97_932, 102_226, 86_428, 47_356];

    #[test]
    fn targets_follow_the_size_and_stay_while_they_can() {
        let check = |bytes: u64, before: Option<u8>, expected: u8| {
            let target = Target::of(bytes, before.map(Target));
            assert_eq!(target.power(), expected, "{bytes} after {before:?}");
        };
        check(0, None, 16);
        check(512 << 20, None, 16);
        check(513 << 20, None, 18);
        check(513 << 20, Some(16), 16);
        check(1025 << 20, Some(16), 18);
        check(2 << 30, None, 18);
        check(3 << 30, None, 20);
        check(1 << 40, None, 20);
        check(200 << 20, Some(18), 18);
        check(100 << 20, Some(18), 16);
        check(100, Some(20), 16);
        assert_eq!(Target::from_power(17), None);
        assert_eq!(Target::from_power(20), Some(Target(20)));
    }

    #[test]
    fn large_pieces_have_chunks_of_their_own() {
        let cutter = |length| Cutter {
            length,
            ..Cutter::new(SMALL)
        };
        assert!(cutter(1).cuts_at_border(64 << 10));
        assert!(!cutter(1).cuts_at_border((64 << 10) - 1));
        assert!(!cutter(0).cuts_at_border(64 << 10));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

        #[test]
        fn the_cuts_are_the_same_whatever_the_reads(seed: u64, length in 0..700_000_usize, piece in 1..200_000_usize) {
            let bytes = noise(seed, length);
            proptest::prop_assert_eq!(lengths(&bytes, piece), lengths(&bytes, usize::MAX));
        }

        #[test]
        fn an_insertion_changes_few_chunks(seed: u64, at in 0..4_000_000_usize, added in 1..100_usize) {
            let before = noise(seed, 4_000_000);
            let mut after = before.clone();
            after.splice(at..at, noise(!seed, added));
            let known = chunks(&before);
            let fresh = chunks(&after).iter().filter(|chunk| !known.contains(*chunk)).count();
            proptest::prop_assert!(fresh <= 6, "{} chunks", fresh);
        }

        #[test]
        fn a_changed_byte_changes_few_chunks(seed: u64, at in 0..4_000_000_usize) {
            let before = noise(seed, 4_000_000);
            let mut after = before.clone();
            after[at] ^= 1;
            let known = chunks(&before);
            let fresh = chunks(&after).iter().filter(|chunk| !known.contains(*chunk)).count();
            proptest::prop_assert!((1..=6).contains(&fresh), "{} chunks", fresh);
        }
    }
}
