//! How much a build does at once, by processors and memory.
//!
//! The builder's own memory shall stay below about a quarter of what there is: an eighth is for packing layers, an eighth for
//! unpacking. Commands need the rest. In: numbers. Out: numbers; results do not depend on them.

use crate::vocab::{Compression, LayerForm};

/// What may be done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// Threads that compress one layer.
    pub threads: usize,
    /// Layers being packed.
    pub packs: usize,
    /// Layers being fetched and unpacked.
    pub unpacks: usize,
    /// Bytes that the window of one decompressor may have.
    pub window: u64,
}

const MIB: u64 = 1 << 20;
/// A layer on its way: the pieces of its download, its decompressor with an ordinary window, what is read ahead.
const UNPACK: u64 = 8 * MIB;
/// A layer being packed, but for its threads.
const PACK: u64 = 4 * MIB;
/// What the format demands of every decoder (RFC 8878, 3.1.1.1.2).
const LEAST_WINDOW: u64 = 8 * MIB;

impl Means {
    /// Divides `memory` bytes. `forms` are those in which layers are packed.
    pub fn of(cpus: usize, memory: u64, forms: &[LayerForm]) -> Means {
        let share = memory / 8;
        let of_thread = forms
            .iter()
            .map(|form| packer(form.compression))
            .max()
            .unwrap_or(MIB);
        let at_most = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
        let threads = cpus.clamp(1, at_most(share.saturating_sub(PACK) / of_thread));
        Means {
            threads,
            packs: at_most(share / (PACK + threads as u64 * of_thread)),
            unpacks: at_most(share / UNPACK),
            window: (memory / 2).max(LEAST_WINDOW),
        }
    }
}

/// Returns what a thread that compresses takes at most: a chunk, its compressed form and the compressor's tables.
fn packer(compression: Compression) -> u64 {
    match compression {
        Compression::Uncompressed => MIB,
        Compression::Gzip { .. } => 4 * MIB,
        Compression::Zstd { level } if level <= 9 => 4 * MIB,
        Compression::Zstd { .. } => 12 * MIB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(cpus: usize, mebibytes: u64, compression: Compression) -> [usize; 4] {
        let means = Means::of(cpus, mebibytes * MIB, &[compression.into()]);
        let window = usize::try_from(means.window / MIB).unwrap();
        [means.threads, means.packs, means.unpacks, window]
    }

    #[test]
    fn a_small_limit_leaves_little_to_many_processors() {
        let gzip = Compression::default();
        let ultra = Compression::Zstd { level: 22 };
        for (cpus, mebibytes, compression, expected) in [
            (2, 24 << 10, gzip, [2, 256, 384, 12 << 10]),
            (64, 24 << 10, gzip, [64, 11, 384, 12 << 10]),
            (2, 256, gzip, [2, 2, 4, 128]),
            (64, 256, gzip, [7, 1, 4, 128]),
            (64, 64, gzip, [1, 1, 1, 32]),
            (64, 8, gzip, [1, 1, 1, 8]),
            (64, 1024, ultra, [10, 1, 16, 512]),
            (4, 0, gzip, [1, 1, 1, 8]),
        ] {
            assert_eq!(
                means(cpus, mebibytes, compression),
                expected,
                "{cpus} processors, {mebibytes} MiB, {compression:?}"
            );
        }
    }

    #[test]
    fn packing_and_unpacking_stay_below_a_quarter() {
        for cpus in [1, 2, 8, 64, 512] {
            for mebibytes in [128, 256, 512, 2048, 65536] {
                let means = Means::of(cpus, mebibytes * MIB, &[Compression::default().into()]);
                let pack = PACK + means.threads as u64 * packer(Compression::default());
                let all = means.packs as u64 * pack + means.unpacks as u64 * UNPACK;
                assert!(all <= mebibytes * MIB / 4, "{cpus} {mebibytes} {means:?}");
            }
        }
    }
}
