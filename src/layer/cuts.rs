//! Where a layer is cut into members: points that depend on content alone, so that an edit changes the members around it and no
//! others.
//!
//! The tar is a row of *pieces*. A file below [`STEP`] is one piece with its header and padding, as is each entry without
//! content. The header of a larger file is a piece, and each [`STEP`] of its content from its start on is a member of its own
//! (the last one is joined by the pieces that follow). In front of any other piece there is a cut if a hash of its path,
//! weighed with its length, says so: the more bytes, the likelier, so that cuts come about every [`TARGET`] bytes whatever the
//! files' sizes are. These cuts do not depend on anything before them; an edit cannot move them. Where none comes, a member that has
//! reached the target takes a likelier one, and one that would grow past [`STEP`] is cut.
//!
//! The rule is a part of the bytes of every layer: changing it changes all digests and makes all kept members useless.

/// Steps inside large files, and the length that a member passes by one header at most.
pub(super) const STEP: usize = 1 << 20;
/// The length that members have on average, roughly.
const TARGET: usize = 1 << TARGET_BITS;
const TARGET_BITS: u32 = 19;
/// How much likelier a cut is once a member has reached the target.
const HURRY: u64 = 4;

/// Says whether a new member begins in front of a piece of `piece` bytes, where the current one has `member` bytes.
pub(super) fn cuts_before(path: &[u8], piece: usize, member: usize) -> bool {
    if member == 0 {
        return false;
    }
    if member + piece > STEP {
        return true;
    }
    let weight = if member < TARGET { 1 } else { HURRY };
    hash(path) >> (64 - TARGET_BITS) < piece as u64 * weight
}

/// FNV-1a, its bits spread as MurmurHash3 ends.
fn hash(path: &[u8]) -> u64 {
    let mut hash = path.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_pinned() {
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(hash(b"usr/bin/env"), hash(b"usr/bin/env"));
    }

    #[test]
    fn members_come_out_near_the_target() {
        for size in [512, 1536, 9000, 60_000, 400_000] {
            let (mut member, mut members, mut total) = (0, 0, 0);
            while total < 200 * TARGET {
                let path = format!("usr/share/{}/{}", total / 100, total);
                if cuts_before(path.as_bytes(), size, member) {
                    members += 1;
                    member = 0;
                }
                member += size;
                assert!(member <= STEP);
                total += size;
            }
            let mean = total / members;
            assert!(
                (TARGET / 2..TARGET * 3 / 2).contains(&mean),
                "{size}: {mean}"
            );
        }
    }
}
