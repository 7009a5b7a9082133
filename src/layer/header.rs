//! The 512-byte tar header: where its fields are, its numbers and its checksum. Used by the writer and the reader.
//!
//! ```text
//! 0    name      100      148  checksum  8        329  devmajor  8
//! 100  mode        8      156  type      1        337  devminor  8
//! 108  uid         8      157  linkname  100      345  prefix    155 (POSIX only)
//! 116  gid         8      257  magic     8        386  GNU sparse map (type `S`): 4 x 24, then
//! 124  size       12      265  uname     32       482  is-extended 1, 483 real size 12
//! 136  mtime      12      297  gname     32
//! ```

use std::ops::Range;

pub(super) const BLOCK: usize = 512;
pub(super) type Block = [u8; BLOCK];

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINKNAME: Range<usize> = 157..257;
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const DEVMAJOR: Range<usize> = 329..337;
pub(super) const DEVMINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
/// Schily's star keeps times behind a shorter prefix, and signs the header with [`STAR_TRAILER`].
pub(super) const STAR_PREFIX: Range<usize> = 345..476;
pub(super) const STAR_TRAILER: Range<usize> = 508..512;
pub(super) const GNU_SPARSE_MAP: Range<usize> = 386..482;
pub(super) const GNU_SPARSE_EXTENDED: usize = 482;
pub(super) const GNU_SPARSE_SIZE: Range<usize> = 483..495;

/// Largest values of the octal fields.
pub(super) const MAX_OCTAL_7: u64 = 0o7_777_777;
pub(super) const MAX_OCTAL_11: u64 = 0o77_777_777_777;

/// A path may have this many bytes, as a system call takes it; so may a link's target.
pub(super) const MAX_PATH: usize = 4096;
/// Extended headers of one entry may have this many bytes in all.
pub(super) const MAX_EXTENDED: u64 = 1 << 20;

/// What follows content of `size` bytes up to the next block.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() & (BLOCK as u64 - 1)
}

/// The magic tells how to read the bytes behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

pub(super) fn dialect(block: &Block) -> Dialect {
    match &block[MAGIC] {
        b"ustar  \0" => Dialect::Gnu,
        [b'u', b's', b't', b'a', b'r', 0, ..] if &block[STAR_TRAILER] == b"tar\0" => Dialect::Star,
        [b'u', b's', b't', b'a', b'r', 0, ..] => Dialect::Ustar,
        _ => Dialect::V7,
    }
}

/// Returns the text of a field: all bytes up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    match field.iter().position(|&byte| byte == 0) {
        Some(end) => &field[..end],
        None => field,
    }
}

/// Reads an octal or base-256 number; an empty field is zero, `None` is anything malformed.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field).and_then(|value| i64::try_from(value).ok()),
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let mut value = 0_u64;
    let mut rest = field;
    while let [first, tail @ ..] = rest
        && blank(first)
    {
        rest = tail;
    }
    while let [digit @ b'0'..=b'7', tail @ ..] = rest {
        value = value.checked_mul(8)?.checked_add(u64::from(digit - b'0'))?;
        rest = tail;
    }
    rest.iter().all(blank).then_some(value)
}

/// Big-endian two's complement whose top bit is only a mark.
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field.first()? & 0x40 != 0;
    let flip = if negative { 0xff } else { 0 };
    let mut value = 0_u64;
    for (at, byte) in field.iter().enumerate() {
        let byte = byte ^ flip;
        let byte = if at == 0 { byte & 0x7f } else { byte };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

/// Writes `value` in octal with leading zeros and a final NUL; the caller knows that it fits.
pub(super) fn put_octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    debug_assert_eq!(value, 0, "the number fits its field");
    field[digits] = 0;
}

pub(super) fn put_checksum(block: &mut Block) {
    let sum = unsigned_sum(block);
    put_octal(&mut block[CHECKSUM.start..CHECKSUM.end - 1], u64::from(sum));
    block[CHECKSUM.end - 1] = b' ';
}

/// Says whether the block's checksum is right. Some old programs summed signed bytes; that is taken too.
pub(super) fn checksum_is_right(block: &Block) -> bool {
    let Some(stated) = octal(&block[CHECKSUM]) else {
        return false;
    };
    stated == u64::from(unsigned_sum(block)) || i64::try_from(stated) == Ok(signed_sum(block))
}

fn unsigned_sum(block: &Block) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    sum(block) - sum(&block[CHECKSUM]) + 8 * u32::from(b' ')
}

fn signed_sum(block: &Block) -> i64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte as i8)).sum::<i64>();
    sum(block) - sum(&block[CHECKSUM]) + 8 * i64::from(b' ')
}

/// Says whether a file that starts with `first_512` is a tar archive with at least one entry: whether the first block is a
/// header with a right checksum. An empty archive, which is all zeros, is not told apart from other zeros.
pub fn is_tar(first_512: &[u8]) -> bool {
    first_512
        .first_chunk::<BLOCK>()
        .is_some_and(checksum_is_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_or_nothing() {
        let check = |field: &[u8], expected: Option<i64>| {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        };
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"77777777", Some(0o77777777));
        check(b"", Some(0));
        check(b"12 34\0\0\0", None);
        check(b"1289\0\0\0\0", None);
        check(b"-1\0\0\0\0\0\0", None);
        check(b"\x80\0\0\0\0\0\0\x01", Some(1));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2));
        check(
            b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
            Some(i64::MAX),
        );
        check(b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None);
        check(b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN));
        check(b"\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0", None);
        check(b"\x81\0\0\0\0\0\0\0\0\0\0\0", None);
    }

    #[test]
    fn zeros_and_noise_are_no_tar() {
        assert!(!is_tar(&[0; 512]));
        assert!(!is_tar(&[b'7'; 512]));
        assert!(!is_tar(b"short"));
        let mut block = [0; 512];
        block[0] = b'a';
        put_checksum(&mut block);
        assert!(is_tar(&block));
        assert!(!is_tar(&block[..511]));
        block[600 - 512] ^= 1;
        assert!(!is_tar(&block));
    }

    #[test]
    fn signed_checksums_are_taken() {
        let mut block = [0; 512];
        block[..4].copy_from_slice("é.x".as_bytes());
        let sum = signed_sum(&block) as u64;
        put_octal(&mut block[CHECKSUM], sum);
        assert!(checksum_is_right(&block));
    }
}
